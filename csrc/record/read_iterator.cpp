// Iterators that existed before the recording: those a frame in the middle of a loop holds, above all.
//
// How far one has come is guarded, so one entry serves one step of a loop. Taking elements is an effect:
// replay takes as many. What is iterated is guarded like any container that is read as a whole.
#include "py/iterators.h"
#include "record/recorder.h"

namespace flashpoint {

bool Recorder::read_iterator(PyObject* o) {
  const NodeId node = node_of(o);
  if (node == kNoNode) return true;
  if (!is_builtin_iterator(o)) return false;
  if (overlaid(o, nullptr) || !once(o, Py_None, 5)) return true;
  Ref state = Ref::steal(py::iterator_state(o));
  if (!state) {
    PyErr_Clear();
    return false;
  }
  tree_.check(node, CheckKind::kIteratorAt, state.get());
  for (int i = 0; PyObject* source = py::iterator_source(o, i); ++i) {
    if (is_primitive(source)) {
      tree_.check(tree_.child(node, Step::kIteratorSource, nullptr, i), CheckKind::kValue, source);
      continue;
    }
    // reversed() of other sequences runs their own code.
    if (Py_IS_TYPE(o, &PyReversed_Type) && !PyList_CheckExact(source) && !PyTuple_CheckExact(source))
      return false;
    observe(tree_.child(node, Step::kIteratorSource, nullptr, i), source);
    if (PyIter_Check(source)) {
      if (!read_iterator(source)) return false;
    } else {
      read_elements(source);
      watch_lazily(source);  // replay takes the steps apart from writes
    }
  }
  return !ended_;
}

// Before an element is taken. False: there is no rule for it.
bool Recorder::advance_iterator(PyObject* o) {
  const NodeId node = node_of(o);
  if (node == kNoNode) return true;
  if (PyGen_CheckExact(o)) return read_generator(o);
  if (!read_iterator(o)) return false;
  forget_reads();
  if (const size_t* effect = overlay_.find({o, nullptr})) {
    effects_[*effect].items.push_back(Ref());
    return true;
  }
  // One that an enumerate or zip takes from: the outer one's steps include it.
  add_effect(Effect{EffectKind::kIteratorSteps, node, Ref::share(o), Ref(), {Ref()}}, nullptr);
  return true;
}

}  // namespace flashpoint
