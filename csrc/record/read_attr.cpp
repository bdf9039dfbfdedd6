// Attribute reads: repeats CPython's lookup without side effects, to learn which slots decide the result.
//
// Where the lookup ends in Python code (a property, __getattr__, a descriptor's __get__) only the way to
// that code is guarded; its own reads are recorded as it runs. To add an attribute of a C type: see
// rules/attributes.def.
#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/graph_recorder.h"
#include "record/recorder.h"
#include "record/rules/rules.h"

namespace flashpoint {

namespace {

PyObject* type_object(PyTypeObject* type) { return reinterpret_cast<PyObject*>(type); }

// Answers of type_lookup() that are guarded already, or need no guard; good for one recording, up to its next
// write. Literals are told apart by their addresses.
struct SettledLookup {
  PyTypeObject* type;
  const char* literal;
  PyObject* found;
  uint64_t stamp;
};
constexpr size_t kSettledLookups = 512;
SettledLookup settled_lookups[kSettledLookups];

bool immutable_type(PyTypeObject* type) {
  return !PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) || PyType_HasFeature(type, Py_TPFLAGS_IMMUTABLETYPE);
}

// Attributes of code objects that the fingerprint of the code covers (portable/fingerprint.h).
bool is_fingerprinted(PyObject* name) {
  for (const char* known :
       {"co_varnames", "co_argcount", "co_posonlyargcount", "co_kwonlyargcount", "co_flags", "co_name",
        "co_qualname", "co_names", "co_freevars", "co_cellvars", "co_nlocals"}) {
    if (PyUnicode_CompareWithASCIIString(name, known) == 0) return true;
  }
  return false;
}

// What a class made in the call inherits from beside others like it: the first older class, whose order of
// resolution the rest of the order has to be. Null where it is another one.
template <typename IsFresh>
PyTypeObject* older_base(PyTypeObject* type, const IsFresh& is_fresh) {
  PyObject* mro = type->tp_mro;
  const Py_ssize_t size = PyTuple_GET_SIZE(mro);
  Py_ssize_t first = 0;
  while (first < size && is_fresh(PyTuple_GET_ITEM(mro, first))) ++first;
  auto* base = first < size ? reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(mro, first)) : nullptr;
  if (base == nullptr || PyTuple_GET_SIZE(base->tp_mro) != size - first) return nullptr;
  for (Py_ssize_t i = first; i < size; ++i) {
    if (PyTuple_GET_ITEM(mro, i) != PyTuple_GET_ITEM(base->tp_mro, i - first)) return nullptr;
  }
  return base;
}

constexpr const char* kFreshClass = "an attribute of a class made in the call";

}  // namespace

PyObject* Recorder::type_lookup(PyTypeObject* type, const char* literal) {
  SettledLookup& settled =
      settled_lookups[mix_bits(reinterpret_cast<size_t>(type) ^ reinterpret_cast<size_t>(literal)) %
                      kSettledLookups];
  if (settled.type == type && settled.literal == literal && settled.stamp == settled_stamp_)
    return settled.found;
  // By the literal's address: interning anew would cost more than the lookup.
  static auto* names = new FlatMap<const void*, PyObject*, PointerHash>();
  PyObject*& name = *names->try_emplace(literal, nullptr).first;
  if (name == nullptr) name = PyUnicode_InternFromString(literal);
  PyObject* found = type_lookup(type, name);
  if (!ended_ && !makes_classes()) settled = {type, literal, found, settled_stamp_};
  return found;
}

PyObject* Recorder::type_lookup(PyTypeObject* type, PyObject* name) {
  PyObject* found = _PyType_Lookup(type, name);
  if (immutable_type(type)) return found;
  if (makes_classes() && is_fresh_class(type_object(type))) {
    // Its own namespace is the recording's doing; what it inherits is not.
    const auto is_fresh = [&](PyObject* t) { return is_fresh_class(t); };
    PyTypeObject* base = older_base(type, is_fresh);
    if (base == nullptr) {
      end(Break::k_unsupported_attribute, kFreshClass);
      return found;
    }
    for (Py_ssize_t i = 0; is_fresh(PyTuple_GET_ITEM(type->tp_mro, i)); ++i) {
      auto* own = reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(type->tp_mro, i));
      if (PyDict_GetItemWithError(own->tp_dict, name) != nullptr) return found;
    }
    type_lookup(base, name);
    return found;
  }
  if (shadow_.has_places() && found != nullptr && is_primitive(found)) {
    const NodeId root = tree_.child(kNoNode, Step::kTypeRoot, type_object(type));
    watch(type_object(type), root);
    hold(name);
    if (shadow_.read_place(root, CheckKind::kLookupValue, type_object(type), name, found)) return found;
  }
  if (PyTypeObject* written = written_provider(type, name)) {
    if (written != type) end(Break::k_read_after_mutation, "a class attribute of a base");
    return found;
  }
  if (!once(type_object(type), name, 0)) return found;
  hold(name);
  const NodeId root = tree_.child(kNoNode, Step::kTypeRoot, type_object(type));
  tree_.saw(root, type_object(type));
  watch(type_object(type), root);
  if (found == nullptr) {
    tree_.check(root, CheckKind::kLookupAbsent, name);
  } else if (is_primitive(found)) {
    tree_.check_place(root, CheckKind::kLookupValue, name, found);
  } else {
    observe(tree_.child(root, Step::kTypeLookup, name), found);
  }
  return found;
}

NodeId Recorder::instance_dict_node(PyObject* object) {
  const NodeId owner = node_of(object);
  if (owner == kNoNode) return kNoNode;
  PyObject* dict = py::instance_dict(object);
  if (dict == nullptr) {
    return kNoNode;
  }
  const NodeId node = tree_.child(owner, Step::kInstanceDict);
  tree_.saw(node, dict);
  const NodeId first = node_of(dict);
  if (first == kNoNode) {
    watch(dict, node);
    return node;
  }
  if (first != node) tree_.check(std::max(first, node), CheckKind::kSameAs, nullptr, std::min(first, node));
  return first;
}

// The program takes the dict itself, which some objects get only now.
void Recorder::read_whole_dict(PyObject* object) {
  if (node_of(object) != kNoNode) py::made_instance_dict(object);
  instance_dict_node(object);
}

bool Recorder::read_instance_dict(PyObject* object, PyObject* name) {
  PyObject** slot = _PyObject_GetDictPtr(object);
  if (slot == nullptr) return false;
  PyObject* dict = *slot;
  PyObject* found = dict == nullptr ? nullptr : PyDict_GetItemWithError(dict, name);
  if (found == nullptr) PyErr_Clear();
  if (found != nullptr) shadow_.hide_read();  // a number of the class, by the same name
  const NodeId owner = node_of(object);
  if (owner == kNoNode) return found != nullptr;
  // Tensors have a dict or none without anybody having set an attribute.
  const bool tensor = is_tensor(object);
  if (dict == nullptr || (tensor && found == nullptr)) {
    if (overlaid(dict, name)) return false;
    hold(name);
    tree_.check(owner, CheckKind::kInstanceLacks, name);
    return false;
  }
  if (tensor && overlaid(dict, name)) return true;
  const NodeId node = instance_dict_node(object);
  if (node == kNoNode) return found != nullptr;
  if (!PyUnicode_CheckExact(name) || shadow_.has_places()) {
    read_dict_key(dict, name);
  } else if (!overlaid_whole(dict) && !overlaid(dict, name) && once(dict, name, 1)) {
    read_dict_value(node, name, found);
  }
  return found != nullptr;
}

// The attributes that the running thread has given a threading.local, borrowed; null where the recording
// ends.
PyObject* Recorder::thread_local_dict(PyObject* local, PyObject* name) {
  Ref dict = Ref::steal(PyObject_GetAttrString(local, "__dict__"));
  PyObject* on_type = _PyType_Lookup(Py_TYPE(local), name);
  if (!dict || on_type != nullptr) {
    PyErr_Clear();
    end(Break::k_unsupported_attribute, std::string("threading.local.") + PyUnicode_AsUTF8(name));
    return nullptr;
  }
  const NodeId node = tree_.child(node_of(local), Step::kThreadLocalDict);
  tree_.saw(node, dict.get());
  if (node_of(dict.get()) == kNoNode) watch(dict.get(), node);
  return dict.get();  // the thread keeps it
}

void Recorder::read_thread_local(PyObject* local, PyObject* name) {
  if (PyObject* dict = thread_local_dict(local, name)) read_dict_key(dict, name);
}

// A descriptor found on a type: what runs when it is bound.
void Recorder::read_descriptor(PyObject* d) {
  PyTypeObject* type = Py_TYPE(d);
  if (type == &PyFunction_Type || type == &PyMethodDescr_Type || type == &PyWrapperDescr_Type ||
      type == &PyClassMethodDescr_Type || type == &PyGetSetDescr_Type || type == &PyMemberDescr_Type) {
    return;
  }
  const NodeId node = node_of(d);
  if (type == &PyProperty_Type) {
    PyObject* getter = py::property_getter(d);
    if (node != kNoNode && getter != nullptr) observe(tree_.child(node, Step::kPropertyGet), getter);
    if (getter != nullptr && !PyFunction_Check(getter)) rules().check_callback(*this, getter);
  } else if (type == &PyStaticMethod_Type || type == &PyClassMethod_Type) {
    PyObject* callable = py::held_callable(d);
    if (node != kNoNode) observe(tree_.child(node, Step::kDescrFunc), callable);
  } else if (rules().is_lru_cache(d)) {
    return;  // bound as a function is
  } else if (type->tp_descr_get != nullptr) {
    if (PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) {
      PyObject* get = type_lookup(type, "__get__");
      if (PyObject_TypeCheck(d, &PyProperty_Type)) {
        PyObject* getter = py::property_getter(d);
        if (node != kNoNode && getter != nullptr) observe(tree_.child(node, Step::kPropertyGet), getter);
      } else if (get == nullptr || !PyFunction_Check(get)) {
        end(Break::k_unsupported_attribute, std::string("descriptor ") + type->tp_name);
      }
    } else if (!rules().is_known_descriptor(type)) {
      end(Break::k_unsupported_attribute, std::string("descriptor ") + type->tp_name);
    }
  }
}

void Recorder::read_attr(PyObject* o, PyObject* name) {
  if (is_primitive(o) || already_read(o, name)) return;
  read_attr_once(o, name);
  note_read(o, name);
}

void Recorder::read_attr_once(PyObject* o, PyObject* name) {
  PyTypeObject* type = Py_TYPE(o);
  // Called by name, it hands out an address as a number.
  static PyObject* const hash_name = PyUnicode_InternFromString("__hash__");
  if (name == hash_name || (!PyUnicode_CHECK_INTERNED(name) && PyUnicode_Compare(name, hash_name) == 0))
    return end(Break::k_identity_value, "__hash__");
  if (is_tensor(o)) return read_tensor_attr(o, name);
  if (rules().holds_operators(type)) rules().bind_operator(*this, o, name);
  if (type->tp_getattro == PyModule_Type.tp_getattro && PyModule_Check(o)) return read_module_attr(o, name);
  if (PyType_Check(o)) return read_type_attr(o, name);
  if (type == &PySuper_Type) return read_super_attr(o, name);
  getattrofunc get = type->tp_getattro;
  if (get == PyObject_GenericGetAttr) {
    type_lookup(type, "__getattribute__");  // that the class brings none
    type_lookup(type, "__getattr__");
    return read_generic_attr(o, type, name, false);
  }
  if (PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) {
    PyObject* getattribute = type_lookup(type, "__getattribute__");
    if (getattribute != nullptr && Py_IS_TYPE(getattribute, &PyWrapperDescr_Type)) {
      if (reinterpret_cast<PyWrapperDescrObject*>(getattribute)->d_wrapped ==
          reinterpret_cast<void*>(PyObject_GenericGetAttr)) {
        return read_generic_attr(o, type, name, true);
      }
      if (PyModule_Check(o)) return read_module_attr(o, name);
      if (rules().is_thread_local(type) && node_of(o) != kNoNode) return read_thread_local(o, name);
      end(Break::k_unsupported_attribute, std::string(type->tp_name) + "." + PyUnicode_AsUTF8(name));
      return;
    }
    if (getattribute != nullptr && PyFunction_Check(getattribute)) {
      type_lookup(type, "__getattr__");
      return;  // Python code does the lookup; what it reads is recorded there
    }
  }
  if (PyMethod_Check(o)) {
    PyObject* function = PyMethod_GET_FUNCTION(o);
    const NodeId node = node_of(o);
    if (node != kNoNode) {
      observe(tree_.child(node, Step::kMethodFunc), function);
      if (!is_primitive(PyMethod_GET_SELF(o)))
        observe(tree_.child(node, Step::kMethodSelf), PyMethod_GET_SELF(o));
    }
    PyObject* own = _PyType_Lookup(type, name);
    if (own == nullptr && PyFunction_Check(function)) read_attr(function, name);
    return;
  }
  if (rules().attribute_is_constant(type, name)) {
    if (PyCode_Check(o) && !is_fingerprinted(name)) keep_local("an attribute of a code object");
    return;
  }
  end(Break::k_unsupported_attribute, std::string(type->tp_name) + "." + PyUnicode_AsUTF8(name));
}

// A property or a __getattr__ in Python: their frame's result is the attribute.
void Recorder::expect_attribute_code(EvalFrame& caller, PyObject* o, PyObject* name) {
  PyTypeObject* type = Py_TYPE(o);
  if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) || PyType_Check(o)) return;
  static PyObject* const getattr_name = PyUnicode_InternFromString("__getattr__");
  PyObject* found = _PyType_Lookup(type, name);
  if (found != nullptr && !Py_IS_TYPE(found, &PyProperty_Type)) return;
  PyObject* hook = _PyType_Lookup(type, getattr_name);
  if (found == nullptr) {
    if (hook != nullptr && PyFunction_Check(hook)) expect(caller, hook, FrameLink::kResult);
  } else if (hook == nullptr && Py_IS_TYPE(found, &PyProperty_Type)) {
    expect(caller, py::property_getter(found), FrameLink::kResult);
  }
}

void Recorder::read_generic_attr(PyObject* o, PyTypeObject* type, PyObject* name, bool getattr_hook) {
  if (node_of(o) == kNoNode) shadow_.read_inside(o);
  if (ended_) return;
  PyObject* d = type_lookup(type, name);
  if (d != nullptr && PyType_HasFeature(Py_TYPE(d), Py_TPFLAGS_HEAPTYPE) && !PyType_Check(d)) {
    // Whether it is a descriptor is decided by its class.
    for (const char* slot : {"__get__", "__set__", "__delete__"}) type_lookup(Py_TYPE(d), slot);
  }
  if (d != nullptr && rules().is_tuplegetter(d)) {
    struct TupleGetter {
      PyObject_HEAD Py_ssize_t index;
    };
    const Ref index = Ref::steal(PyLong_FromSsize_t(reinterpret_cast<TupleGetter*>(d)->index));
    return index && read_item_apart(o, index.get()) ? void() : read_elements(o);
  }
  if (d != nullptr && Py_TYPE(d)->tp_descr_get != nullptr && Py_TYPE(d)->tp_descr_set != nullptr) {
    if (Py_IS_TYPE(d, &PyGetSetDescr_Type) || Py_IS_TYPE(d, &PyMemberDescr_Type)) {
      read_c_attr(o, type, name, d);
    } else {
      read_descriptor(d);
    }
    if (getattr_hook) type_lookup(type, "__getattr__");
    return;
  }
  if (read_instance_dict(o, name)) return;
  if (d != nullptr) return read_descriptor(d);
  if (getattr_hook) read_getattr_hook(o, type, name);
}

// What is asked for an attribute that is nowhere. Python code is recorded; of C code, a dict's own lookup is
// known.
void Recorder::read_getattr_hook(PyObject* o, PyTypeObject* type, PyObject* name) {
  PyObject* hook = type_lookup(type, "__getattr__");
  if (hook == nullptr || PyFunction_Check(hook)) return;
  if (PyDict_Check(o) && Py_IS_TYPE(hook, &PyMethodDescr_Type) && PyDescr_TYPE(hook) == &PyDict_Type) {
    const std::string_view method = reinterpret_cast<PyMethodDescrObject*>(hook)->d_method->ml_name;
    if (method == "get" || (method == "__getitem__" && type_lookup(type, "__missing__") == nullptr))
      return read_dict_key(o, name);
  }
  end(Break::k_unsupported_attribute, std::string(type->tp_name) + "." + PyUnicode_AsUTF8(name));
}

// Whether C code takes `o` for a mapping, and what it calls then: keys(), and a subscript for each of them.
void Recorder::read_mapping_methods(PyObject* o) {
  PyTypeObject* type = Py_TYPE(o);
  if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) || PyType_Check(o) || is_tensor(o) || ended_) return;
  static PyObject* const keys = PyUnicode_InternFromString("keys");
  read_attr(o, keys);
  PyObject** own = _PyObject_GetDictPtr(o);
  PyObject* found = own == nullptr || *own == nullptr ? nullptr : PyDict_GetItemWithError(*own, keys);
  if (found == nullptr) {
    PyErr_Clear();
    found = _PyType_Lookup(type, keys);
  }
  if (found == nullptr || ended_) return;
  if (PyMethod_Check(found)) found = PyMethod_GET_FUNCTION(found);
  const bool of_dict = PyDict_Check(o) && Py_IS_TYPE(found, &PyMethodDescr_Type);
  if (!PyFunction_Check(found) && !of_dict)
    return end(Break::k_unsupported_container, std::string("** of ") + type->tp_name);
  PyObject* get = type_lookup(type, "__getitem__");
  if (!of_dict && !PyDict_Check(o) && (get == nullptr || !PyFunction_Check(get)))
    end(Break::k_unsupported_container, std::string("** of ") + type->tp_name);
}

// C code asks a mode for its __torch_function__ at every call of a torch function.
void Recorder::read_function_mode(PyObject* mode) {
  static PyObject* const name = PyUnicode_InternFromString("__torch_function__");
  read_attr(mode, name);
}

void Recorder::read_slot(PyObject* o, PyObject* d, PyObject* value) {
  const NodeId node = node_of(o);
  if (node == kNoNode || overlaid(o, d) || !once(o, d, 6)) return;
  hold(d);
  if (value == nullptr || is_primitive(value)) {
    tree_.check_place(node, CheckKind::kSlotValue, d, value == nullptr ? Py_Ellipsis : value);
  } else {
    observe(tree_.child(node, Step::kSlot, d), value);
  }
}

void Recorder::read_slots(PyObject* o) {
  PyObject* mro = Py_TYPE(o)->tp_mro;
  if (node_of(o) == kNoNode || mro == nullptr) return;
  shadow_.reads_all();
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(mro); ++i) {
    auto* type = reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(mro, i));
    if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) continue;
    PyObject *name, *d;
    for (Py_ssize_t pos = 0; !ended_ && PyDict_Next(type->tp_dict, &pos, &name, &d);) {
      PyObject** slot = Py_IS_TYPE(d, &PyMemberDescr_Type) ? py::object_slot(o, d) : nullptr;
      if (slot == nullptr) continue;
      const NodeId node = node_of(o);
      if (shadow_.has_places() && shadow_.read_place(node, CheckKind::kSlotValue, o, d, *slot)) continue;
      read_slot(o, d, *slot);
    }
  }
}

void Recorder::read_c_attr(PyObject* o, PyTypeObject* type, PyObject* name, PyObject* d) {
  if (Py_IS_TYPE(d, &PyMemberDescr_Type)) {
    PyObject** slot = py::object_slot(o, d);
    if (slot != nullptr) {
      const NodeId node = node_of(o);
      if (node != kNoNode && shadow_.has_places() &&
          shadow_.read_place(node, CheckKind::kSlotValue, o, d, *slot))
        return;
      return read_slot(o, d, *slot);
    }
  }
  const char* text = PyUnicode_AsUTF8(name);
  if (std::string_view(text) == "__dict__") return read_whole_dict(o);
  if (std::string_view(text) == "__class__") return;
  if (PyExceptionInstance_Check(o)) read_exception_attr(o, name);
  if (ended_) return;
  if (!rules().attribute_is_constant(PyDescr_TYPE(d), name) && !rules().attribute_is_constant(type, name)) {
    if (PyFunction_Check(o)) {
      if (rules().read_function_attribute(*this, o, name)) return;
    }
    end(Break::k_unsupported_attribute, std::string(type->tp_name) + "." + text);
  }
  if (PyCode_Check(o) && !is_fingerprinted(name)) keep_local("an attribute of a code object");
}

void Recorder::read_module_attr(PyObject* module, PyObject* name) {
  if (node_of(module) == kNoNode) const_node(module);
  // A module can be given another class.
  if (once(module, nullptr, 9))
    tree_.check(node_of(module), CheckKind::kTypeIs, type_object(Py_TYPE(module)));
  PyObject* d = type_lookup(Py_TYPE(module), name);
  if (d != nullptr && Py_TYPE(d)->tp_descr_set != nullptr) {
    if (Py_IS_TYPE(d, &PyMemberDescr_Type) || Py_IS_TYPE(d, &PyGetSetDescr_Type)) {
      instance_dict_node(module);
    } else {
      read_descriptor(d);
    }
    return;
  }
  if (read_instance_dict(module, name) || d != nullptr) return;
  Ref hook = Ref::steal(PyUnicode_InternFromString("__getattr__"));
  if (!read_instance_dict(module, hook.get())) type_lookup(Py_TYPE(module), hook.get());
}

void Recorder::read_bases(PyTypeObject* type) {
  PyObject* o = type_object(type);
  if (is_fresh_class(o)) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(type->tp_bases); ++i)
      read_bases(reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(type->tp_bases, i)));
    return;
  }
  if (immutable_type(type) || !once(o, nullptr, 9)) return;
  const NodeId root = tree_.child(kNoNode, Step::kTypeRoot, o);
  tree_.saw(root, o);
  watch(o, root);
  tree_.check(root, CheckKind::kBases, py::bases_of(type).get());
}

void Recorder::read_type_attr(PyObject* o, PyObject* name) {
  PyTypeObject* type = reinterpret_cast<PyTypeObject*>(o);
  PyTypeObject* meta = Py_TYPE(o);
  if (is_fresh_class(o)) {
    PyObject* const on_type = _PyType_Lookup(meta, name);
    if (meta != &PyType_Type) return end(Break::k_unsupported_attribute, kFreshClass);
    if (on_type != nullptr && Py_TYPE(on_type)->tp_descr_set != nullptr) {
      for (const char* known : {"__name__", "__qualname__", "__module__", "__doc__"}) {
        if (PyUnicode_CompareWithASCIIString(name, known) == 0) return;
      }
      return end(Break::k_unsupported_attribute, kFreshClass);
    }
    PyObject* const own = type_lookup(type, name);
    if (own == nullptr && on_type != nullptr) return end(Break::k_unsupported_attribute, kFreshClass);
    if (own != nullptr && !Py_IS_TYPE(own, &PyProperty_Type)) read_descriptor(own);
    return;
  }
  if (node_of(o) == kNoNode && !immutable_type(type)) watch(o, tree_.child(kNoNode, Step::kTypeRoot, o));
  PyObject* get =
      meta->tp_getattro == PyType_Type.tp_getattro ? nullptr : type_lookup(meta, "__getattribute__");
  if (get != nullptr && PyFunction_Check(get)) return;
  PyObject* on_meta = type_lookup(meta, name);
  if (on_meta != nullptr && Py_TYPE(on_meta)->tp_descr_get != nullptr &&
      Py_TYPE(on_meta)->tp_descr_set != nullptr) {
    if (Py_IS_TYPE(on_meta, &PyGetSetDescr_Type) || Py_IS_TYPE(on_meta, &PyMemberDescr_Type)) {
      if (PyUnicode_CompareWithASCIIString(name, "__dict__") == 0 && !immutable_type(type)) {
        // Each access makes a new proxy; what matters is the dict behind it.
        watch(type->tp_dict, tree_.child(tree_.child(kNoNode, Step::kTypeRoot, o), Step::kTypeDict));
        if (written_provider(type, name) != nullptr || !written_types_.empty())
          end(Break::k_read_after_mutation, "a class");
      } else if (PyUnicode_CompareWithASCIIString(name, "__abstractmethods__") == 0 &&
                 !immutable_type(type)) {
        keep_class_facts_local(name);
        watch(type->tp_dict, tree_.child(tree_.child(kNoNode, Step::kTypeRoot, o), Step::kTypeDict));
        read_dict_key(type->tp_dict, name);
      } else if (!rules().attribute_is_constant(&PyType_Type, name)) {
        end(Break::k_unsupported_attribute, std::string("type.") + PyUnicode_AsUTF8(name));
      } else {
        keep_class_facts_local(name);
        for (const char* known : {"__mro__", "__bases__", "__base__"}) {
          if (PyUnicode_CompareWithASCIIString(name, known) == 0) read_bases(type);
        }
        // A class can be renamed, which its version tag does not show.
        Ref value =
            immutable_type(type) || is_fresh_class(o) ? Ref() : Ref::steal(PyObject_GenericGetAttr(o, name));
        if (!value) PyErr_Clear();
        if (value && is_primitive(value.get()) && once(o, name, 6)) {
          const NodeId known = node_of(o);
          tree_.check_place(known != kNoNode ? known : tree_.child(kNoNode, Step::kTypeRoot, o),
                            CheckKind::kFunctionAttribute, name, value.get());
        }
      }
    } else {
      read_descriptor(on_meta);
    }
    return;
  }
  PyObject* own = type_lookup(type, name);
  if (own != nullptr) {
    if (!Py_IS_TYPE(own, &PyProperty_Type)) read_descriptor(own);
    return;
  }
  if (on_meta != nullptr) return read_descriptor(on_meta);
  type_lookup(meta, "__getattr__");
}

void Recorder::read_super_attr(PyObject* super, PyObject* name) {
  const auto* s = reinterpret_cast<py::SuperLayout*>(super);
  PyTypeObject* type = s->object_type;
  if (type == nullptr || s->object == nullptr) {
    end(Break::k_unsupported_attribute, "unbound super");
    return;
  }
  PyObject* found = py::super_lookup(type, s->type, name);
  if (!written_types_.empty()) {
    bool after = false;
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(type->tp_mro); ++i) {
      PyObject* base = PyTuple_GET_ITEM(type->tp_mro, i);
      if (after && overlaid(base, name))
        return end(Break::k_read_after_mutation, "super() of a class that was written to");
      after = after || base == reinterpret_cast<PyObject*>(s->type);
    }
  }
  if (makes_classes() && is_fresh_class(type_object(type))) {
    const auto is_fresh = [&](PyObject* t) { return is_fresh_class(t); };
    PyTypeObject* const base = older_base(type, is_fresh);
    if (base == nullptr) return end(Break::k_unsupported_attribute, kFreshClass);
    if (is_fresh(type_object(s->type))) {
      bool after = false;
      for (Py_ssize_t i = 0; is_fresh(PyTuple_GET_ITEM(type->tp_mro, i)); ++i) {
        auto* next = reinterpret_cast<PyTypeObject*>(PyTuple_GET_ITEM(type->tp_mro, i));
        if (after && PyDict_GetItemWithError(next->tp_dict, name) != nullptr)
          return read_descriptor(PyDict_GetItemWithError(next->tp_dict, name));
        after = after || next == s->type;
      }
      PyObject* const inherited = type_lookup(base, name);
      if (inherited != nullptr) return read_descriptor(inherited);
      if (_PyType_Lookup(&PySuper_Type, name) != nullptr)
        end(Break::k_unsupported_attribute, std::string("super().") + PyUnicode_AsUTF8(name));
      return;
    }
    type = base;  // from here on the order is its
  }
  if (found == nullptr) {
    if (_PyType_Lookup(&PySuper_Type, name) == nullptr) {
      Ref pair = Ref::steal(PyTuple_Pack(2, s->type, name));
      const NodeId root = tree_.child(kNoNode, Step::kTypeRoot, type_object(type));
      tree_.saw(root, type_object(type));
      tree_.check(root, CheckKind::kSuperAbsent, pair.get());
    } else if (PyUnicode_CompareWithASCIIString(name, "__class__") != 0) {
      end(Break::k_unsupported_attribute, std::string("super().") + PyUnicode_AsUTF8(name));
    }
    return;
  }
  // One node per (type of the object, class, name); the class differs within one method resolution order.
  if (super_keys_.try_emplace({type_object(type), type_object(s->type), name}).second) {
    Ref key = Ref::steal(PyTuple_Pack(2, s->type, name));
    hold(key.get());
    hold(name);
    const NodeId root = tree_.child(kNoNode, Step::kTypeRoot, type_object(type));
    tree_.saw(root, type_object(type));
    watch(type_object(type), root);
    if (is_primitive(found)) {
      tree_.check(tree_.child(root, Step::kSuperLookup, key.get()), CheckKind::kValue, found);
      return;
    }
    observe(tree_.child(root, Step::kSuperLookup, key.get()), found);
    read_descriptor(found);
  }
}

void Recorder::read_tensor_attr(PyObject* tensor, PyObject* name) {
  PyTypeObject* type = Py_TYPE(tensor);
  if (!is_plain_tensor(tensor)) {
    end(Break::k_unsupported_argument, std::string("tensor subclass ") + type->tp_name);
    return;
  }
  PyObject* d = type_lookup(type, name);
  const NodeId node = node_of(tensor);
  if (d != nullptr && Py_TYPE(d)->tp_descr_set != nullptr) {
    if (Py_IS_TYPE(d, &PyProperty_Type)) return read_descriptor(d);
    switch (rules().tensor_attribute(name)) {
      case TensorAttribute::kMetadata:
        // dtype, device and the like follow from the operator; sizes may not.
        if ((PyUnicode_CompareWithASCIIString(name, "shape") == 0 ||
             PyUnicode_CompareWithASCIIString(name, "ndim") == 0 ||
             PyUnicode_CompareWithASCIIString(name, "nbytes") == 0) &&
            !settle_shape(tensor, PyUnicode_CompareWithASCIIString(name, "ndim") == 0)) {
          end(Break::k_tensor_data_as_python,
              std::string("shape of a tensor whose size depends on data: .") + PyUnicode_AsUTF8(name));
        }
        return;
      case TensorAttribute::kOperation:
        return;
      case TensorAttribute::kData:  // noted once the attribute has been read
        if (under_function_mode_ || function_mode_answers())
          end(Break::k_unsupported_attribute, "Tensor.data under a torch-function mode");
        return;
      case TensorAttribute::kGradFn:
        // A leaf has none, and that it is one follows from its metadata.
        if (!tensor_is_leaf(tensor)) end(Break::k_unsupported_attribute, "Tensor.grad_fn");
        return;
      case TensorAttribute::kGrad:
        if (under_function_mode_ || function_mode_answers()) {
          end(Break::k_unsupported_attribute, "Tensor.grad under a torch-function mode");
        } else if (node == kNoNode && !graph_.is_base()) {
          end(Break::k_unsupported_attribute, "Tensor.grad of a tensor made in the call");
        } else {
          read_grad(tensor);
        }
        return;
      case TensorAttribute::kUnknown:
        end(Break::k_unsupported_attribute, std::string("Tensor.") + PyUnicode_AsUTF8(name));
        return;
    }
  }
  if (read_instance_dict(tensor, name)) return;
  if (d != nullptr) return read_descriptor(d);
  type_lookup(type, "__getattr__");
}

}  // namespace flashpoint
