// C functions that walk iterables, perhaps calling something for each element: sorted, map, zip, sum, ...
//
// Python functions among their arguments come back through the hook. A C function does not: what it would
// read of each element is read here, before the call, by the rule it would have if the program called it.
// For that the elements must be known: they are where the iterable is a container. Where the C code takes
// them out later (map and its like), a change of the container in between ends the recording.
#include <algorithm>
#include <string>

#include "py/dicts.h"
#include "py/layout.h"
#include "py/torch_bridge.h"
#include "record/graph_recorder.h"
#include "record/recorder.h"
#include "record/rules/rules.h"

namespace flashpoint {

namespace {

bool is_heap(PyTypeObject* type) { return PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE); }

bool one_of(std::string_view name, std::initializer_list<std::string_view> names) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

// A callable whose code the hook shows, or whose class lookups check_callback guards.
bool runs_python(PyObject* f) {
  if (f == Py_None || PyFunction_Check(f)) return true;
  if (PyMethod_Check(f)) return PyFunction_Check(PyMethod_GET_FUNCTION(f));
  if (rules().is_partial(f)) return runs_python(reinterpret_cast<py::PartialLayout*>(f)->function);
  if (PyType_Check(f)) return is_heap(reinterpret_cast<PyTypeObject*>(f)) && !rules().is_weakref(f);
  return is_heap(Py_TYPE(f)) && !rules().is_getter(f);
}

// Iterated by __getitem__, for want of an __iter__.
bool asks_by_index(PyObject* o) { return is_heap(Py_TYPE(o)) && PySequence_Check(o); }

// What a functools.partial adds to each call; all borrowed but the tuple of names.
struct Bound {
  std::vector<PyObject*> args, keywords;
  Ref names;

  bool is_empty() const { return args.empty() && keywords.empty(); }
  // Nothing in it that a function could look into.
  bool is_plain() const {
    auto plain = [](PyObject* o) { return is_primitive(o) || is_tensor(o); };
    return std::all_of(args.begin(), args.end(), plain) &&
           std::all_of(keywords.begin(), keywords.end(), plain);
  }
};

Bound bound_by(PyObject* f) {
  Bound bound;
  if (!rules().is_partial(f)) return bound;
  auto* partial = reinterpret_cast<py::PartialLayout*>(f);
  for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(partial->args); ++i)
    bound.args.push_back(PyTuple_GET_ITEM(partial->args, i));
  PyObject *key, *value;
  std::vector<PyObject*> names;
  for (Py_ssize_t pos = 0; PyDict_Next(partial->keywords, &pos, &key, &value);) {
    names.push_back(key);
    bound.keywords.push_back(value);
  }
  if (names.empty()) return bound;
  bound.names = Ref::steal(PyTuple_New(static_cast<Py_ssize_t>(names.size())));
  for (size_t i = 0; i < names.size(); ++i)
    PyTuple_SET_ITEM(bound.names.get(), static_cast<Py_ssize_t>(i), Py_NewRef(names[i]));
  return bound;
}

}  // namespace

// Reads the containers an iterator of C code takes its elements from.
void Rules::read_behind(Recorder& r, PyObject* iterator, int depth) const {
  if (depth > 8 || Py_TYPE(iterator)->tp_traverse == nullptr) return;
  std::vector<PyObject*> referents;
  Py_TYPE(iterator)->tp_traverse(
      iterator,
      [](PyObject* referent, void* arg) {
        static_cast<std::vector<PyObject*>*>(arg)->push_back(referent);
        return 0;
      },
      &referents);
  for (PyObject* o : referents) {
    if (r.ended() || PyType_Check(o)) continue;
    if (PyGen_Check(o)) continue;
    if (PyList_Check(o) || PyTuple_Check(o) || PyDict_Check(o) || PyAnySet_Check(o) || is_deque(o)) {
      r.read_deep(o);
      if (PyTuple_Check(o) || PyList_Check(o)) {
        for (Py_ssize_t i = 0; i < Py_SIZE(o); ++i) {
          PyObject* element = PyList_Check(o) ? PyList_GET_ITEM(o, i) : PyTuple_GET_ITEM(o, i);
          if (PyIter_Check(element) && !PyGen_Check(element)) read_behind(r, element, depth + 1);
          r.read_inside(element);
        }
      }
    } else if (PyIter_Check(o)) {
      read_behind(r, o, depth + 1);
    }
  }
}

// The elements of a container, borrowed; nothing for what is no container. The caller has read it.
void Rules::read_elements_of(Recorder& r, PyObject* o, std::vector<PyObject*>& elements) const {
  r.read_iterable(o);
  if (r.ended()) return;
  if (PyDictKeys_Check(o) || PyDictValues_Check(o) || PyDict_Check(o)) {
    PyObject* dict = PyDict_Check(o) ? o : py::view_dict(o);
    PyObject *key, *value;
    Py_ssize_t pos = 0;
    while (PyDict_Next(dict, &pos, &key, &value)) elements.push_back(PyDictValues_Check(o) ? value : key);
  } else if (PyAnySet_Check(o)) {
    PyObject* item;
    Py_hash_t hash;
    Py_ssize_t pos = 0;
    while (_PySet_NextEntry(o, &pos, &item, &hash)) elements.push_back(item);
  } else if (PyList_Check(o) || PyTuple_Check(o)) {
    for (Py_ssize_t i = 0; i < Py_SIZE(o); ++i)
      elements.push_back(PyList_Check(o) ? PyList_GET_ITEM(o, i) : PyTuple_GET_ITEM(o, i));
  } else if (is_deque(o)) {
    const Py_ssize_t n = py::stored_size(o);
    for (Py_ssize_t i = 0; i < n; ++i) {
      Ref item = Ref::steal(PySequence_GetItem(o, i));  // the deque keeps it
      if (!item) return PyErr_Clear();
      elements.push_back(item.get());
    }
  }
}

void Rules::iterate(Recorder& r, EvalFrame& frame, RuleRow row, PyObject* const* argv, Py_ssize_t n,
                    PyObject* kwnames) const {
  const std::string_view name = row.name;
  const Py_ssize_t count = n + (kwnames == nullptr ? 0 : PyTuple_GET_SIZE(kwnames));
  const bool orders = name == "min" || name == "max" || name == "sorted";
  std::vector<PyObject*> callables, iterables;
  for (const char* method : {"__reversed__", "__len__", "__getitem__"}) {
    if (name == "reversed" && count == 1) r.read_special(argv[0], method);
  }
  // These hand on elements without a look at them.
  const bool hands_on = one_of(name, {"zip", "enumerate", "list", "tuple"});
  const bool maps = one_of(name, {"dict", "OrderedDict", "defaultdict"});
  const bool counts = name == "enumerate" || name == "islice";
  for (Py_ssize_t i = 0; i < count && !r.ended(); ++i) {
    PyObject* a = argv[i];
    if ((orders || name == "any" || name == "all") && i < n && is_tensor(a))
      return r.end(Break::k_tensor_data_as_python, std::string(name) + "() of tensors");
    if (orders && n > 1 && i < n && !is_primitive(a)) r.read_addresses(a);
    if (maps && i < n) r.read_mapping_methods(a);
    // A start or a stop that is asked for its number.
    if (counts && is_heap(Py_TYPE(a)) && !PyType_Check(a)) r.type_lookup(Py_TYPE(a), "__index__");
    if (PyCallable_Check(a) && !PyType_Check(a)) {
      callables.push_back(a);
      // One that is iterated all the same, such as a list of modules.
      if (is_heap(Py_TYPE(a)) && Py_TYPE(a)->tp_iter != nullptr) r.type_lookup(Py_TYPE(a), "__iter__");
    } else if (!PyType_Check(a) && (Py_TYPE(a)->tp_iter != nullptr || asks_by_index(a))) {
      r.read_iterable(a);
      if (!r.ended() && !PyIter_Check(a) && !hands_on) r.read_deep(a);
      iterables.push_back(a);
    } else if (PyType_Check(a)) {
      callables.push_back(a);
    }
  }
  if (one_of(name, {"map", "reduce", "accumulate", "starmap"})) {
    // Operators on tensors, which C code calls.
    for (PyObject* o : iterables) {
      std::vector<PyObject*> elements;
      if (PyList_CheckExact(o) || PyTuple_CheckExact(o)) read_elements_of(r, o, elements);
      for (PyObject* element : elements) {
        if (!is_tensor(element)) continue;
        PyObject* const pair[] = {element, element};
        if (callables.empty()) r.read_named_operator("add", pair, 2);
        for (PyObject* f : callables) {
          if (PyCFunction_Check(f))
            r.read_named_operator(reinterpret_cast<PyCFunctionObject*>(f)->m_ml->ml_name, pair, 2);
        }
      }
    }
  }
  if (one_of(name, {"sum", "prod", "map", "reduce", "accumulate", "starmap"})) {
    // What iterators of C code hand out nobody sees.
    for (PyObject* o : iterables) {
      if (PyIter_Check(o) && !PyGen_Check(o)) r.read_operators_of(tensor_type());
    }
  }
  // What looks inside its elements must not get any that nobody reads.
  if (one_of(name, {"any",      "all",     "sum",         "min",         "max",
                    "sorted",   "filter",  "filterfalse", "takewhile",   "dropwhile",
                    "compress", "groupby", "dict",        "OrderedDict", "chain.from_iterable",
                    "starmap",  "reduce",  "accumulate",  "map",         "str.join",
                    "prod"})) {
    for (PyObject* o : iterables) {
      if (!PyIter_Check(o)) continue;
      if (!PyGen_Check(o)) read_behind(r, o, 0);
      const bool until_return = one_of(name, {"any", "all", "sum", "min", "max", "sorted", "dict",
                                              "OrderedDict", "reduce", "str.join", "prod"});
      r.read_results(PyGen_Check(o) ? 1 : 2, until_return);
    }
  }
  if (orders && !callables.empty()) r.read_results(2, true);  // keys, which are compared
  // Elements are compared with one another, as keys, or in nested sequences; or added up or multiplied.
  const bool folds = name == "sum" || name == "prod";
  const char* const operators[] = {name == "sum" ? "__add__" : "__mul__",
                                   name == "sum" ? "__radd__" : "__rmul__"};
  for (Py_ssize_t i = 0; folds && i < count; ++i) {
    if (is_tensor(argv[i])) r.read_operators_of(Py_TYPE(argv[i]));  // to begin with
  }
  if (one_of(name, {"sorted", "min", "max", "groupby", "sum", "prod"})) {
    for (PyObject* o : iterables) {
      std::vector<PyObject*> elements;
      if (!is_primitive(o)) read_elements_of(r, o, elements);
      for (PyObject* element : elements) {
        if (is_tensor(element) && orders && elements.size() > 1 && callables.empty())
          return r.end(Break::k_tensor_data_as_python, std::string(name) + "() of tensors");
        if (is_tensor(element) && folds) {
          for (const char* slot : operators) r.read_special(element, slot);
        }
        if (is_primitive(element) || is_tensor(element)) continue;
        if (folds && !is_heap(Py_TYPE(element)) && !PyTuple_Check(element) && !PyList_Check(element))
          return r.end(Break::k_unsupported_container,
                       std::string(name) + " of " + Py_TYPE(element)->tp_name);
        if (folds) {
          for (const char* slot : operators) {
            PyObject* found = is_heap(Py_TYPE(element)) ? r.type_lookup(Py_TYPE(element), slot) : nullptr;
            if (found != nullptr && !PyFunction_Check(found) && !PyTuple_Check(element) &&
                !PyList_Check(element))
              return r.end(Break::k_unsupported_container,
                           std::string(name) + " of " + Py_TYPE(element)->tp_name);
          }
        } else if (name == "groupby" || !is_heap(Py_TYPE(element))) {
          r.read_addresses(element);
        } else {
          r.read_order(element);
        }
      }
    }
  }
  if (one_of(name, {"any", "all", "filter", "filterfalse", "takewhile", "dropwhile", "compress"})) {
    const bool asks_all = name == "any" || name == "all";  // until one decides
    for (PyObject* o : iterables) {
      std::vector<PyObject*> elements;
      if (!is_primitive(o)) read_elements_of(r, o, elements);
      for (PyObject* element : elements) {
        if (asks_all && is_primitive(element) && (PyObject_IsTrue(element) == 1) == (name == "any")) break;
        if (asks_all && is_tensor(element))
          return r.end(Break::k_tensor_data_as_python, std::string(name) + "() of tensors");
        if (!is_tensor(element)) r.read_truth(element);
      }
    }
  }
  const bool lazy = one_of(
      name, {"map", "filter", "filterfalse", "takewhile", "dropwhile", "starmap", "groupby", "accumulate"});
  for (PyObject* f : callables) {
    if (r.ended()) return;
    if (runs_python(f)) {
      check_callback(r, f);
      continue;
    }
    if (one_of(name, {"defaultdict", "deque", "partial"})) continue;  // called by Python code's own doing
    // A C function: what it reads of each element, beside what a partial adds.
    const Bound bound = bound_by(f);
    if (is_partial(f)) {
      read_partial(r, f);
      f = reinterpret_cast<py::PartialLayout*>(f)->function;
    }
    RuleRow callee;
    PyObject* self = nullptr;
    if (PyCFunction_Check(f)) {
      callee = function(reinterpret_cast<PyCFunctionObject*>(f)->m_ml);
      PyObject* receiver = PyCFunction_GET_SELF(f);
      if (receiver != nullptr && !PyModule_Check(receiver) && !PyType_Check(receiver) &&
          !Py_IS_TYPE(receiver, &PyCapsule_Type)) {
        self = receiver;
        if (r.node_of(f) != kNoNode && !is_primitive(self) && r.node_of(self) == kNoNode)
          return r.end(Break::k_unsupported_argument, "a bound C method that existed before the call");
      }
    } else if (Py_IS_TYPE(f, &PyMethodDescr_Type)) {
      callee = function(reinterpret_cast<PyMethodDescrObject*>(f)->d_method);
    } else if (PyType_Check(f)) {
      callee = type(reinterpret_cast<PyTypeObject*>(f));
    }
    const bool getter = is_getter(f);
    auto unknown = [&] {
      r.end(Break::k_unknown_c_function, std::string("callback ") + Py_TYPE(f)->tp_name + " " + callee.name);
    };
    if ((callee.rule == Rule::kNone && !getter) || (getter && !bound.is_empty())) return unknown();
    // Results of earlier calls go in as well, or the elements are not known: only what asks for nothing but
    // numbers, text and tensors.
    const bool fed_back = one_of(name, {"reduce", "accumulate"});
    auto iterates_itself = [&](PyObject* o) {
      PyObject* iter = is_heap(Py_TYPE(o)) ? r.type_lookup(Py_TYPE(o), "__iter__") : nullptr;
      return iter != nullptr && PyFunction_Check(iter);
    };
    bool known = !fed_back;
    for (PyObject* o : iterables)
      known = known && !PyIter_Check(o) && !iterates_itself(o) &&
              (!is_heap(Py_TYPE(o)) || PyTuple_Check(o) || PyDict_Check(o) || PyList_Check(o));
    if (!known) {
      const bool plain = callee.rule == Rule::kTorch || callee.rule == Rule::kPure;
      if (!plain || getter || self != nullptr || !bound.is_plain()) return unknown();
      for (PyObject* o : iterables) {
        std::vector<PyObject*> elements;
        PyObject* source = o;
        if (PyIter_Check(o) && callee.rule != Rule::kTorch) {
          // What is left of a tuple that nobody else iterates.
          source = r.node_of(o) == kNoNode ? py::iterator_source(o, 0) : nullptr;
          if (source == nullptr || !PyTuple_Check(source)) return unknown();
        }
        if (!is_primitive(source)) read_elements_of(r, source, elements);
        for (PyObject* element : elements) {
          if (!is_primitive(element) && !is_tensor(element)) return unknown();
        }
      }
      continue;
    }
    std::vector<std::vector<PyObject*>> columns;
    size_t rows = iterables.empty() ? 0 : SIZE_MAX;
    bool primitive = false;
    for (PyObject* o : iterables) {
      if (is_primitive(o) || PyRange_Check(o)) {
        primitive = true;  // text or numbers: nothing to read of the elements
        continue;
      }
      columns.emplace_back();
      read_elements_of(r, o, columns.back());
      if (PyDictItems_Check(o) || (columns.back().empty() && !is_heap(Py_TYPE(o)) && PyObject_Size(o) != 0)) {
        PyErr_Clear();
        if (!getter) return unknown();
        // Items are pairs made on the fly, of what has been read.
        columns.pop_back();
        primitive = true;
        continue;
      }
      rows = std::min(rows, columns.back().size());
      if (lazy) r.watch_lazily(PyDictValues_Check(o) || PyDictKeys_Check(o) ? py::view_dict(o) : o);
    }
    if (columns.empty()) {
      if (!bound.is_plain()) return unknown();
      if (getter || callee.rule == Rule::kPure || callee.rule == Rule::kStrFormat ||
          callee.rule == Rule::kTypeOf || callee.rule == Rule::kTruth)
        continue;
      return unknown();
    }
    if (primitive && self != nullptr) return unknown();
    const bool spread = name == "starmap";
    for (size_t i = 0; i < rows && !r.ended(); ++i) {
      std::vector<PyObject*> args;
      if (self != nullptr) args.push_back(self);
      args.insert(args.end(), bound.args.begin(), bound.args.end());
      if (spread) {
        PyObject* element = columns[0][i];
        if (!PyTuple_Check(element)) return unknown();
        for (Py_ssize_t k = 0; k < PyTuple_GET_SIZE(element); ++k)
          args.push_back(PyTuple_GET_ITEM(element, k));
      } else {
        for (const auto& column : columns) args.push_back(column[i]);
      }
      if (getter) {
        call_getter(r, f, args.data(), static_cast<Py_ssize_t>(args.size()));
        continue;
      }
      Pending pending;
      const auto positional = static_cast<Py_ssize_t>(args.size());
      args.insert(args.end(), bound.keywords.begin(), bound.keywords.end());
      call(r, frame, callee, args.data(), positional, bound.names.get(), pending);
      if (pending.word != 0 || pending.answer != nullptr) {
        Py_XDECREF(pending.answer);
        return unknown();
      }
    }
  }
}

// is_result: what it yields is the call's result.
void Rules::run_generator(Recorder& r, EvalFrame& frame, PyObject* generator, bool is_result) const {
  if (!r.read_generator(generator)) return r.end(Break::k_iterator_argument, Py_TYPE(generator)->tp_name);
  if (is_result && !r.ended()) r.expect_generator(frame, generator, FrameLink::kSend);
}

}  // namespace flashpoint
