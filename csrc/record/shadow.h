// Follows numbers and texts through the frames of a recording: which uses keep them open, which pin them.
//
// Owned by the Recorder, which tells it of every event before anything else happens. What it follows:
// moves between slots, arguments and results of Python calls, tuples, arithmetic, formatting and pure
// builtins on primitives. Any other use guards the value (csrc/record/scalars.h), or ends the recording
// before it where the value is known to change from call to call.
// GIL: required; one thread.
#pragma once

#include <vector>

#include "record/scalars.h"

namespace flashpoint {

class Recorder;

class Shadow {
 public:
  explicit Shadow(Recorder& recorder) : recorder_(recorder) {}

  // Arguments of the call that are primitives. What is not attached to a slot of a frame is guarded.
  void add_argument(size_t index, NodeId node, PyObject* value, bool varies);
  void add_opaque_argument(size_t index, NodeId node, PyObject* object);
  Tag opaque_tag(NodeId node, PyObject* object) { return table_.add_opaque(node, object); }
  // The recording starts with the first frame of this function.
  void starts_with(PyObject* function, size_t positional, PyObject* kwnames);
  // The recording starts in the middle of frames, of which `outermost` is the function's own.
  void attach(EvalFrame& frame, size_t slot, size_t argument);
  void attached();
  void set_outermost(uint64_t serial) { outermost_ = serial; }

  // Nothing to do for any event.
  bool idle() const { return table_.empty(); }
  void enter(EvalFrame& frame);
  void leave(EvalFrame& frame, PyObject* result);
  // Before the event is recorded: what of its operands is followed. May end the recording.
  void before(EvalFrame& frame, const Operands& operands);
  // After it was recorded: guards what is used in other ways. True when `after` is wanted.
  bool settle_uses();
  Tag after(PyObject* result);
  Tag returned(EvalFrame& frame, PyObject* value);
  Tag built(PyObject* tuple, const Tag* tags, int count);

  const ScalarTable& table() const { return table_; }
  ScalarTable& table() { return table_; }
  Tag result_tag() const { return result_tag_; }  // of what the function returned
  // Guards the types of what stayed open. No event may follow.
  void finish();

 private:
  struct Move {
    int slot;
    Tag tag;
  };
  Tag tag_at(const EvalFrame& frame, PyObject* const* slot) const;
  void use(const EvalFrame& frame, PyObject* value, bool anywhere);
  // identity: containers tell one NaN from another.
  void guard(Tag tag, bool identity = false);
  void drop_transit();
  void collect(EvalFrame& frame, const Operands& operands);
  bool follow_call(EvalFrame& frame, const Operands& operands);
  bool follow(EvalFrame& frame, const Operands& operands);
  bool move_arguments(PyObject* function, const EvalFrame* caller, const std::vector<Tag>& tags,
                      Py_ssize_t offset, Py_ssize_t positional, PyObject* kwnames);
  void apply_moves(EvalFrame& frame);
  void compute(ScalarStep step, std::vector<Tag> tags, std::vector<PyObject*> values);

  Recorder& recorder_;
  ScalarTable table_;
  std::vector<Tag> arguments_;  // by argument; 0: no scalar, or attached
  std::vector<Tag> first_tags_;
  PyObject* first_function_ = nullptr;
  size_t first_positional_ = 0;
  PyObject* first_kwnames_ = nullptr;
  uint64_t outermost_ = 0;
  Tag result_tag_ = 0;
  // Tags of this event's operands, and those of a call's arguments by index.
  std::vector<Tag> used_;
  std::vector<Tag> call_tags_;
  bool uses_ = false;
  bool builds_ = false;  // the event puts them into a container
  // On the way into a frame that is about to start.
  std::vector<Move> moves_;
  const EvalFrame* moves_caller_ = nullptr;
  PyObject* moves_function_ = nullptr;
  // On the way out of one.
  Tag returned_ = 0;
  EvalFrame* returned_to_ = nullptr;
  // An operation that is being performed.
  bool computing_ = false;
  ScalarStep step_{ScalarStep::Kind::kBinary};
  std::vector<Tag> step_tags_;
  std::vector<PyObject*> step_values_;
  Tag unpacked_ = 0;
};

}  // namespace flashpoint
