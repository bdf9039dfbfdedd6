// Generators that existed before the recording: where they stand is guarded, and what they hold has its
// sources there. What becomes of them while the recording runs them is an effect: replay brings the real
// generator to where it stood at the end.
//
// Those that were running when the recording began are frames of its position, whose slots are arguments;
// only their end is of interest. A suspended one whose frame object someone else has seen is not advanced: it
// would show locals that are not there any more.
#include <algorithm>
#include <string_view>

#include "py/frame.h"
#include "py/generators.h"
#include "py/torch_bridge.h"
#include "record/read_generator.h"
#include "record/recorder.h"
#include "record/visible_death.h"

namespace flashpoint {

void Recorder::begin_running(PyObject* generator) {
  const NodeId node = node_of(generator);
  if (node == kNoNode) return end(Break::k_iterator_argument, "a generator");
  add_effect(Effect{EffectKind::kGenerator, node, Ref::share(generator), Ref(), {}}, nullptr);
}

// Before it is advanced, closed, or thrown into. False: there is no rule for it.
bool Recorder::read_generator(PyObject* o) {
  const NodeId node = node_of(o);
  if (node == kNoNode || overlaid(o, nullptr)) return true;
  if (!py::is_generator(o)) return false;
  const py::GeneratorPhase phase = py::generator_phase(o);
  if (phase == py::GeneratorPhase::kRunning || py::is_generator_frame_seen(o)) return false;
  // What the recording keeps alive, its owner would have closed by then.
  if (keeps_slots && py::may_close_noticeably(o) && (frame_ == nullptr || !runs_to_the_end(*frame_)))
    return false;
  const Ref state = py::generator_state(o);
  if (!state) {
    PyErr_Clear();
    return false;
  }
  if (!once(o, Py_None, 6)) return true;
  tree_.check(node, CheckKind::kGeneratorAt, state.get());
  if (phase == py::GeneratorPhase::kFinished) return true;
  if (!py::can_finish(py::generator_code(o)) || !py::has_function_of_its_code(o)) return false;
  const std::vector<PyObject*> slots = py::generator_slots(o);
  // Replay lets go of what they hold once everything else is done.
  if (dies_visibly(slots)) return false;
  observe(tree_.child(node, Step::kGeneratorFunction), py::generator_function(o));
  for (size_t i = 0; i < slots.size() && !ended_; ++i) {
    if (slots[i] == nullptr) continue;
    const NodeId child = tree_.child(node, Step::kGeneratorSlot, nullptr, static_cast<int32_t>(i));
    if (is_primitive(slots[i])) {
      if (shadow_.often_changes(node, CheckKind::kValue, nullptr, static_cast<int32_t>(i)))
        return end(Break::k_changing_value), true;
      tree_.check(child, CheckKind::kValue, slots[i]);
    } else {
      observe(child, slots[i]);
    }
  }
  if (ended_) return true;
  forget_reads();
  add_effect(Effect{EffectKind::kGenerator, node, Ref::share(o), Ref(), {}}, nullptr);
  return true;
}

bool yields_late(const Recorder& recorder, const EvalFrame& frame) {
  PyObject* generator = py::generator_of(frame.frame);
  if (generator == nullptr || recorder.node_of(generator) == kNoNode) return false;
  PyObject** const slots = py::frame_slots(frame.frame);
  return std::any_of(slots, frame.stack_pointer, [&](PyObject* o) {
    return o != nullptr && recorder.node_of(o) == kNoNode && !is_tensor(o) && holds_visible(o);
  });
}

bool runs_to_the_end(const EvalFrame& frame) {
  const char* path = PyUnicode_AsUTF8(py::frame_code(frame.frame)->co_filename);
  if (path == nullptr) PyErr_Clear();
  return path != nullptr && std::string_view(path).ends_with("/contextlib.py");
}

// The frame that `frame` is about to run on, if it is the generator's.
void Recorder::expect_generator(EvalFrame& frame, PyObject* generator, FrameLink link) {
  if (py::is_generator(generator) && py::generator_phase(generator) != py::GeneratorPhase::kFinished)
    expect(frame, py::generator_function(generator), link);
}

}  // namespace flashpoint
