#include "record/rules/rules.h"

#include <cstring>
#include <string>
#include <unordered_map>
#include <utility>

#include "py/frame.h"
#include "py/layout.h"
#include "py/ref.h"
#include "py/torch_bridge.h"
#include "record/recorder.h"
#include "record/rules/late_modules.h"

namespace flashpoint {

namespace {

struct AttributeRow {
  PyTypeObject* type;
  const char* name;
};

std::vector<AttributeRow>& constant_attributes() {
  static auto* rows = new std::vector<AttributeRow>();
  return *rows;
}

// An object by dotted path in a module that has been imported; null when there is none.
Ref resolve(const char* module, const char* path) {
  Ref object = imported_module(module);
  std::string rest = path;
  while (object && !rest.empty()) {
    const size_t dot = rest.find('.');
    const std::string part = rest.substr(0, dot);
    rest = dot == std::string::npos ? "" : rest.substr(dot + 1);
    // Types: the raw entry, so that slot wrappers and method descriptors are found unbound.
    if (PyType_Check(object.get())) {
      Ref key = Ref::steal(PyUnicode_InternFromString(part.c_str()));
      PyObject* raw = _PyType_Lookup(reinterpret_cast<PyTypeObject*>(object.get()), key.get());
      object = Ref::share(raw);
    } else {
      object = Ref::steal(PyObject_GetAttrString(object.get(), part.c_str()));
    }
  }
  PyErr_Clear();
  return object;
}

// One slot record serves every type and one C function several slots: both together name a wrapper.
size_t slot_key(PyWrapperDescrObject* d) {
  return reinterpret_cast<size_t>(d->d_base) * 31 ^ reinterpret_cast<size_t>(d->d_wrapped);
}

}  // namespace

const Rules* current_rules = nullptr;

const Rules& refresh_rules() {
  static auto* instance = new Rules();
  if (take_late_modules()) [[unlikely]]
    instance->resolve_all();
  current_rules = instance;
  return *instance;
}

void Rules::add_function(PyObject* f, Rule rule, const char* name) {
  if (PyCFunction_Check(f)) {
    functions_[reinterpret_cast<PyCFunctionObject*>(f)->m_ml] = {rule, name};
  } else if (Py_IS_TYPE(f, &PyMethodDescr_Type) || Py_IS_TYPE(f, &PyClassMethodDescr_Type)) {
    functions_[reinterpret_cast<PyMethodDescrObject*>(f)->d_method] = {rule, name};
  } else if (Py_IS_TYPE(f, &PyWrapperDescr_Type)) {
    slots_[slot_key(reinterpret_cast<PyWrapperDescrObject*>(f))] = {rule, name};
  } else if (Py_IS_TYPE(f, &PyStaticMethod_Type) || Py_IS_TYPE(f, &PyClassMethod_Type)) {
    add_function(py::held_callable(f), rule, name);
  } else if (PyInstanceMethod_Check(f)) {
    add_function(PyInstanceMethod_GET_FUNCTION(f), rule, name);
  } else if (PyType_Check(f)) {
    types_[reinterpret_cast<PyTypeObject*>(f)] = {rule, name};
  }
}

void Rules::add_row(const char* module, const char* path, Rule rule) {
  Ref object = resolve(module, path);
  if (object) add_function(object.get(), rule, path);
}

void Rules::add_namespace(const char* module, const char* path, Rule rule) {
  Ref object = resolve(module, path);
  if (!object) return;
  Ref names = Ref::steal(PyObject_Dir(object.get()));
  if (!names) return PyErr_Clear();
  for (Py_ssize_t i = 0; i < PyList_GET_SIZE(names.get()); ++i) {
    PyObject* name = PyList_GET_ITEM(names.get(), i);
    // A module's or instance's own dunders are object's, which have rows elsewhere.
    if (!PyType_Check(object.get()) && std::strncmp(PyUnicode_AsUTF8(name), "__", 2) == 0) continue;
    // One definition serves the __new__ of all types.
    if (std::strcmp(PyUnicode_AsUTF8(name), "__new__") == 0) continue;
    Ref f = Ref();
    if (PyType_Check(object.get())) {
      PyObject* own = reinterpret_cast<PyTypeObject*>(object.get())->tp_dict;
      f = Ref::share(PyDict_GetItemWithError(own, name));
    } else {
      f = Ref::steal(PyObject_GetAttr(object.get(), name));
    }
    PyErr_Clear();
    if (f && !PyType_Check(f.get())) add_function(f.get(), rule, PyUnicode_AsUTF8(name));
  }
}

// Named tuples of C, which are made of a sequence.
void Rules::add_named_tuples(const char* module) {
  Ref holder = resolve(module, "");
  Ref dict = Ref::steal(holder ? PyObject_GetAttrString(holder.get(), "__dict__") : nullptr);
  if (!dict || !PyDict_Check(dict.get())) return PyErr_Clear();
  PyObject *key, *value;
  Py_ssize_t pos = 0;
  while (PyDict_Next(dict.get(), &pos, &key, &value)) {
    if (PyType_Check(value) && PyType_IsSubtype(reinterpret_cast<PyTypeObject*>(value), &PyTuple_Type))
      add_function(value, Rule::kIterate, PyUnicode_AsUTF8(key));
  }
}

void Rules::deny(const char* module, const char* path) { add_row(module, path, Rule::kDeny); }

void Rules::resolve_all() {
  constant_attributes().clear();
#define X(module, path, rule) add_row(module, path, Rule::k##rule);
#include "record/rules/functions.def"
#undef X
  add_named_tuples("torch.return_types");
#define TORCH_NAMESPACE(module, path) add_namespace(module, path, Rule::kTorch);
#define TORCH_ROW(module, path, rule) add_row(module, path, Rule::k##rule);
#define TORCH_DENY(module, path) deny(module, path);
#include "record/rules/torch.def"
#undef TORCH_NAMESPACE
#undef TORCH_ROW
#undef TORCH_DENY
#define PY_QUERY(module, name, answer)                                  \
  if (Ref f = resolve(module, name); f && PyFunction_Check(f.get())) {  \
    tracing_queries_[Py_NewRef(PyFunction_GET_CODE(f.get()))] = answer; \
  }
#define C_QUERY(module, name, answer)                                                 \
  if (Ref f = resolve(module, name); f && PyCFunction_Check(f.get())) {               \
    tracing_queries_c_[reinterpret_cast<PyCFunctionObject*>(f.get())->m_ml] = answer; \
  }
#include "record/rules/tracing_queries.def"
#undef PY_QUERY
#undef C_QUERY
#define CONST_ATTR(module, type_name, attr)                                            \
  if (Ref t = resolve(module, type_name); t && PyType_Check(t.get())) {                \
    constant_attributes().push_back({reinterpret_cast<PyTypeObject*>(t.get()), attr}); \
    Py_INCREF(t.get());                                                                \
  }
#define TENSOR_META(name)
#define TENSOR_OP(name)
#define TENSOR_DATA(name)
#define TENSOR_GRAD_FN(name)
#include "record/rules/attributes.def"
#undef CONST_ATTR
#undef TENSOR_META
#undef TENSOR_OP
#undef TENSOR_DATA
#undef TENSOR_GRAD_FN
  auto type_of = [](const char* module, const char* path) {
    Ref t = resolve(module, path);
    return t && PyType_Check(t.get()) ? reinterpret_cast<PyTypeObject*>(t.release()) : nullptr;
  };
  for (const char* name :
       {"device", "Size", "finfo", "iinfo", "dtype", "layout", "memory_format", "qscheme"}) {
    if (PyTypeObject* t = type_of("torch", name)) value_types_.insert(t);
  }
  if (PyTypeObject* t = type_of("datetime", "timedelta")) value_types_.insert(t);
  // Text with a Python __eq__ of its own; there is one.
  if (PyTypeObject* t = type_of("torch.torch_version", "TorchVersion")) singleton_types_.insert(t);
  singleton_types_.insert(&PyProperty_Type);
  singleton_types_.insert(&PyStaticMethod_Type);
  singleton_types_.insert(&PyClassMethod_Type);
  if (PyTypeObject* t = type_of("types", "UnionType")) singleton_types_.insert(t);
  if (PyTypeObject* t = type_of("types", "GenericAlias")) singleton_types_.insert(t);
  if (PyTypeObject* t = type_of("re", "Pattern")) singleton_types_.insert(t);
  if (PyTypeObject* t = type_of("_contextvars", "ContextVar")) singleton_types_.insert(t);
  if (PyTypeObject* t = type_of("_collections", "_tuplegetter")) known_descriptors_.insert(t);
  if (PyTypeObject* t = type_of("functools", "_lru_cache_wrapper")) {
    known_descriptors_.insert(t);
    lru_cache_ = t;
  }
  if (PyTypeObject* t = type_of("re", "Match")) opaque_types_.insert(t);
  itemgetter_ = type_of("operator", "itemgetter");
  attrgetter_ = type_of("operator", "attrgetter");
  methodcaller_ = type_of("operator", "methodcaller");
  for (const auto& [module, name] : {std::pair{"torch._higher_order_ops.cond", "cond_op_dense"},
                                     {"torch._higher_order_ops.while_loop", "while_loop_dense"}}) {
    if (Ref f = resolve(module, name); f && PyFunction_Check(f.get()))
      choosing_.insert(Py_NewRef(PyFunction_GET_CODE(f.get())));
  }
  if (Ref f = resolve("importlib", "import_module"); f && PyFunction_Check(f.get()))
    import_module_ = Py_NewRef(PyFunction_GET_CODE(f.get()));
  if (Ref f = resolve("functools", "cached_property.__get__"); f && PyFunction_Check(f.get()))
    cached_property_code_ = Py_NewRef(PyFunction_GET_CODE(f.get()));
  // Guards against endless repr() use id() and the thread's identity in functions they make.
  for (const auto& [module, name] :
       {std::pair{"reprlib", "recursive_repr"}, std::pair{"dataclasses", "_recursive_repr"}}) {
    Ref f = resolve(module, name);
    if (f && PyFunction_Check(f.get())) add_nested_code(PyFunction_GET_CODE(f.get()), memo_code_);
  }
  deque_ = type_of("collections", "deque");
  if (Ref f = resolve("torch._C", "_group_tensors_by_device_and_dtype"); f && PyCFunction_Check(f.get()))
    function_record_ = Py_TYPE(PyCFunction_GET_SELF(f.get()));
  if (Ref t = resolve("torch._C", "_InferenceMode")) pybind_meta_ = Py_TYPE(t.get());
  pybind_entries_ = PyUnicode_InternFromString("__entries");
  script_object_ = type_of("torch._C", "ScriptObject");
  singleton_types_.insert(&PyInstanceMethod_Type);  // pybind11's methods
  known_descriptors_.insert(&PyInstanceMethod_Type);
  partial_ = type_of("functools", "partial");
  defaultdict_ = type_of("collections", "defaultdict");
  if (PyTypeObject* t = type_of("enum", "EnumMeta")) enum_meta_ = reinterpret_cast<PyObject*>(t);
  for (const char* name : {"TorchBindOpOverload.__call__", "OpOverload.__call__", "OpOverloadPacket.__call__",
                           "OpOverload.redispatch"}) {
    if (Ref f = resolve("torch._ops", name); f && PyFunction_Check(f.get())) {
      operator_callers_.insert(Py_NewRef(PyFunction_GET_CODE(f.get())));
    }
  }
#define PY_PURE(module, path)                                          \
  if (Ref f = resolve(module, path); f && PyFunction_Check(f.get())) { \
    pure_python_.insert(Py_NewRef(PyFunction_GET_CODE(f.get())));      \
  }
#define PY_UNWATCHED(module, path)                                     \
  if (Ref f = resolve(module, path); f && PyFunction_Check(f.get())) { \
    unwatched_.insert(Py_NewRef(PyFunction_GET_CODE(f.get())));        \
  }
#include "record/rules/pure_python.def"
#undef PY_PURE
#undef PY_UNWATCHED
  constexpr const char* kMemo[][2] = {
      {"copy", "deepcopy"},       {"copy", "_deepcopy_list"}, {"copy", "_deepcopy_tuple"},
      {"copy", "_deepcopy_dict"}, {"copy", "_keep_alive"},    {"copy", "_deepcopy_method"},
      {"copy", "_reconstruct"},   {"inspect", "unwrap"},      {"torch", "Tensor.__hash__"}};
  for (const auto& [module, name] : kMemo) {
    if (Ref f = resolve(module, name); f && PyFunction_Check(f.get())) {
      memo_code_.insert(Py_NewRef(PyFunction_GET_CODE(f.get())));
    }
  }
  if (Ref f = resolve("torch.nn", "Module.__getattr__"); f && PyFunction_Check(f.get()))
    module_getattr_ = Py_NewRef(PyFunction_GET_CODE(f.get()));
  if (Ref f = resolve("torch.nn", "Module._wrapped_call_impl"); f && PyFunction_Check(f.get()))
    module_wrapper_ = Py_NewRef(PyFunction_GET_CODE(f.get()));
  if (Ref f = resolve("torch.nn", "Module._call_impl"); f && PyFunction_Check(f.get()))
    learn_module_call(reinterpret_cast<PyCodeObject*>(PyFunction_GET_CODE(f.get())));
  if (Ref f = resolve("torch", "Tensor.__hash__"); f && PyFunction_Check(f.get())) {
    tensor_hash_ = Py_NewRef(PyFunction_GET_CODE(f.get()));
  }
  if (Ref f = resolve("torch.utils", "swap_tensors"); f && PyFunction_Check(f.get())) {
    graph_breaks_.insert(
        Py_NewRef(PyFunction_GET_CODE(f.get())));  // refuses while a recording knows the tensors
  }
  if (Ref f = resolve("torch._ops", "HigherOrderOperator.__call__"); f && PyFunction_Check(f.get())) {
    graph_breaks_.insert(
        Py_NewRef(PyFunction_GET_CODE(f.get())));  // dispatches in Python, on the keys of the thread
  }
  for (const auto& [module, name] :
       {std::pair{"torch", "Tensor.backward"}, std::pair{"torch.autograd", "backward"},
        std::pair{"torch.autograd", "grad"}, std::pair{"torch._functorch.vmap", "vmap_impl"},
        std::pair{"torch._functorch.eager_transforms", "grad_impl"},
        std::pair{"torch._functorch.eager_transforms", "grad_and_value_impl"},
        std::pair{"torch._functorch.eager_transforms", "_vjp_with_argnums"},
        std::pair{"torch._functorch.eager_transforms", "_jvp_with_argnums"}}) {
    if (Ref f = resolve(module, name); f && PyFunction_Check(f.get()))
      base_code_.insert(Py_NewRef(PyFunction_GET_CODE(f.get())));
  }
  if (Ref f = resolve("torch._compile", "_disable_dynamo"); f && PyFunction_Check(f.get()))
    add_nested_code(PyFunction_GET_CODE(f.get()), disabling_code_);
  // Torch's references in Python are kernels of meta tensors.
  if (Ref f = resolve("torch._prims_common.wrappers", "out_wrapper"); f && PyFunction_Check(f.get())) {
    FlatSet<PyObject*> nested;
    add_nested_code(PyFunction_GET_CODE(f.get()), nested);
    for (const auto& [code, nothing] : nested) {
      PyObject* name = reinterpret_cast<PyCodeObject*>(code)->co_name;
      if (PyUnicode_CompareWithASCIIString(name, "_fn") == 0) unwatched_.insert(Py_NewRef(code));
    }
  }
  // Asks for a graph break around each step, for the peer's sake.
  if (Ref f = resolve("torch.optim.optimizer", "_use_grad_for_differentiable");
      f && PyFunction_Check(f.get()))
    add_nested_code(PyFunction_GET_CODE(f.get()), optimizer_code_);
  if (Ref size = resolve("torch", "Size")) size_ = reinterpret_cast<PyTypeObject*>(size.release());
  for (const char* name : {"_Ops", "_OpNamespace", "OpOverloadPacket"}) {
    if (Ref holder = resolve("torch._ops", name); holder && PyType_Check(holder.get()))
      operator_holders_.insert(reinterpret_cast<PyTypeObject*>(holder.release()));
  }
  if (Ref local = resolve("_thread", "_local"))
    thread_local_ = reinterpret_cast<PyTypeObject*>(local.release());
  if (Ref getter = resolve("_collections", "_tuplegetter"))
    tuplegetter_ = reinterpret_cast<PyTypeObject*>(getter.release());
  // Once TorchDynamo has run, every new module is noted by its address, for its own guards.
  Ref tag = resolve("torch._dynamo.mutation_guard", "GenerationTracker.tag");
  PyObject* tagging =
      tag && Py_IS_TYPE(tag.get(), &PyClassMethod_Type) ? py::held_callable(tag.get()) : tag.get();
  if (tagging != nullptr && PyFunction_Check(tagging))
    unwatched_.insert(Py_NewRef(PyFunction_GET_CODE(tagging)));
  for (const char* name : {"graph_break", "disable", "disallow_in_graph", "mark_dynamic", "reset"}) {
    for (const char* module : {"torch._dynamo", "torch._dynamo.decorators", "flashpoint"}) {
      if (Ref f = resolve(module, name); f && PyFunction_Check(f.get())) {
        graph_breaks_.insert(Py_NewRef(PyFunction_GET_CODE(f.get())));
      }
    }
  }
}

PyObject* Rules::undisabled(PyObject* function) const {
  // torch's own decorator, or TorchDynamo's: once that has run it marks optimizers for its own sake.
  if (!disabling_code_.contains(PyFunction_GET_CODE(function)) && disabling_mark(function) == nullptr)
    return nullptr;
  PyObject* closure = PyFunction_GET_CLOSURE(function);
  for (Py_ssize_t i = 0; closure != nullptr && i < PyTuple_GET_SIZE(closure); ++i) {
    PyObject* inner = PyCell_GET(PyTuple_GET_ITEM(closure, i));
    if (inner == nullptr || !PyFunction_Check(inner)) continue;
    PyObject* module = reinterpret_cast<PyFunctionObject*>(inner)->func_module;
    const char* name = module != nullptr && PyUnicode_Check(module) ? PyUnicode_AsUTF8(module) : nullptr;
    return name != nullptr && std::string_view(name).starts_with("torch.optim.") ? inner : nullptr;
  }
  return nullptr;
}

PyObject* disabling_mark(PyObject* function) {
  PyObject* attributes = reinterpret_cast<PyFunctionObject*>(function)->func_dict;
  if (attributes == nullptr || PyDict_GET_SIZE(attributes) == 0) return nullptr;
  for (const char* name : {"_flashpoint_disable", "_torchdynamo_disable"}) {
    PyObject* mark = PyDict_GetItemString(attributes, name);
    if (mark != nullptr && (mark == Py_True || PyUnicode_Check(mark))) return mark;
  }
  return nullptr;
}

void Rules::add_nested_code(PyObject* code, FlatSet<PyObject*>& set) {
  PyObject* constants = reinterpret_cast<PyCodeObject*>(code)->co_consts;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(constants); ++i) {
    PyObject* inner = PyTuple_GET_ITEM(constants, i);
    if (!PyCode_Check(inner)) continue;
    set.insert(Py_NewRef(inner));
    add_nested_code(inner, set);
  }
}

RuleRow Rules::function(PyMethodDef* def) const {
  const RuleRow* row = functions_.find(def);
  return row == nullptr ? RuleRow{} : *row;
}

RuleRow Rules::slot(PyWrapperDescrObject* descriptor) const {
  const RuleRow* row = slots_.find(slot_key(descriptor));
  return row == nullptr ? RuleRow{} : *row;
}

RuleRow Rules::type(PyTypeObject* type) const {
  const RuleRow* row = types_.find(type);
  return row == nullptr ? RuleRow{} : *row;
}

bool Rules::computes_otherwise(const EvalFrame* frame) const {
  if (frame == nullptr) return false;
  PyObject* name = PyDict_GetItemString(py::frame_globals(frame->frame), "__name__");
  const char* text = name != nullptr && PyUnicode_Check(name) ? PyUnicode_AsUTF8(name) : nullptr;
  return text != nullptr && std::string_view(text).starts_with("torch.optim");
}

PyObject* Rules::tracing_query(PyObject* code) const {
  PyObject* const* answer = tracing_queries_.find(code);
  return answer == nullptr ? nullptr : *answer;
}

PyObject* Rules::tracing_query_c(PyMethodDef* def) const {
  PyObject* const* answer = tracing_queries_c_.find(def);
  return answer == nullptr ? nullptr : *answer;
}

bool Rules::is_enum_member(PyObject* object) const {
  if (Py_IS_TYPE(Py_TYPE(object), &PyType_Type)) return false;
  // pybind11's enumerations: values of C++, compared and hashed by number.
  if (Py_IS_TYPE(reinterpret_cast<PyObject*>(Py_TYPE(object)), pybind_meta_)) {
    return _PyType_Lookup(Py_TYPE(object), pybind_entries_) != nullptr;
  }
  return enum_meta_ != nullptr && PyObject_TypeCheck(reinterpret_cast<PyObject*>(Py_TYPE(object)),
                                                     reinterpret_cast<PyTypeObject*>(enum_meta_));
}

bool Rules::uses_identity_as_memo(PyObject* code) const { return memo_code_.contains(code); }

bool Rules::attribute_is_constant(PyTypeObject* type, PyObject* name) const {
  // Types that are no heap objects live for ever, and their answers are kept.
  if (PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE) || !PyUnicode_CHECK_INTERNED(name)) {
    return find_constant_attribute(type, name);
  }
  static auto* known = new FlatMap<std::pair<void*, void*>, bool, PairHash>();
  const auto [answer, added] = known->try_emplace({type, name});
  if (added) {
    Py_INCREF(name);
    *answer = find_constant_attribute(type, name);
  }
  return *answer;
}

bool Rules::find_constant_attribute(PyTypeObject* type, PyObject* name) const {
  const char* text = PyUnicode_AsUTF8(name);
  for (const AttributeRow& row : constant_attributes()) {
    if ((row.type == type || (row.type != &PyType_Type && PyType_IsSubtype(type, row.type))) &&
        (row.name[0] == '*' || std::strcmp(row.name, text) == 0)) {
      return true;
    }
  }
  return false;
}

TensorAttribute Rules::tensor_attribute(PyObject* name) const {
  static const auto* table = [] {
    auto* t = new std::unordered_map<std::string_view, TensorAttribute>();
#define CONST_ATTR(module, type, name)
#define TENSOR_META(name) (*t)[name] = TensorAttribute::kMetadata;
#define TENSOR_OP(name) (*t)[name] = TensorAttribute::kOperation;
#define TENSOR_DATA(name) (*t)[name] = TensorAttribute::kData;
#define TENSOR_GRAD_FN(name) (*t)[name] = TensorAttribute::kGradFn;
#include "record/rules/attributes.def"
#undef CONST_ATTR
#undef TENSOR_META
#undef TENSOR_OP
#undef TENSOR_DATA
#undef TENSOR_GRAD_FN
    (*t)["grad"] = TensorAttribute::kGrad;
    return t;
  }();
  auto it = table->find(PyUnicode_AsUTF8(name));
  return it == table->end() ? TensorAttribute::kUnknown : it->second;
}

bool Rules::contains_list(PyObject* index) const {
  if (PyList_Check(index) || PyRange_Check(index)) return true;
  if (!PyTuple_Check(index)) return false;
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(index); ++i) {
    PyObject* item = PyTuple_GET_ITEM(index, i);
    if (PyList_Check(item) || PyTuple_Check(item) || PyRange_Check(item)) return true;
  }
  return false;
}

}  // namespace flashpoint
