// Follows numbers and texts through the frames of a recording: which uses keep them open, which pin them.
//
// Owned by the Recorder, which tells it of every event before anything else happens. What it follows:
// moves between slots, arguments and results of Python calls, containers made in the call
// (shadow_containers.cpp), arithmetic, formatting and pure builtins on primitives. Numbers in tensor
// operations become inputs of the graph where no shape depends on them, and where the program decides by one,
// its decision is guarded. Any other use guards the value (csrc/record/scalars.h), or ends the recording
// before it where the value is known to change. GIL: required; one thread.
#pragma once

#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "base/flat_map.h"
#include "record/graph_recorder.h"
#include "record/scalars.h"

namespace flashpoint {

class Recorder;

class Shadow {
 public:
  explicit Shadow(Recorder& recorder) : recorder_(recorder) {}

  // Arguments of the call that are primitives. What is not attached to a slot of a frame is guarded.
  void add_argument(size_t index, NodeId node, PyObject* value, bool varies);
  void add_opaque_argument(size_t index, NodeId node, PyObject* object);
  void set_changed(size_t argument);  // another one than at an earlier call
  Tag opaque_tag(NodeId node, PyObject* object) { return table_.add_opaque(node, object); }
  // shadow_late.cpp: the number that the event under way reads from a tensor is a value of the graph.
  bool may_follow_item(PyObject* tensor, bool to_float) const;
  void add_late(ir::ValueId value, PyObject* number);
  // What is not followed of them is checked by the replay, where a break may not be.
  bool settles_late = false;
  bool captures_scalars = false;  // also in code of the program, not only in torch's optimizers
  // The recording starts with the first frame of this function.
  void starts_with(PyObject* function, size_t positional, PyObject* kwnames);
  // The recording starts in the middle of frames, of which `outermost` is the function's own.
  void attach(EvalFrame& frame, size_t slot, size_t argument);
  void attached();
  void set_outermost(uint64_t serial) { outermost_ = serial; }

  // Nothing to do for any event.
  bool idle() const { return table_.empty() && !follows_places(); }

  // Places outside the call (attributes, items, globals, cells) whose numbers were others at an earlier call,
  // by GuardTree::place. A number read there by an instruction that pushes it is followed like an argument.
  // How many recordings found each of them changed.
  const std::unordered_map<std::string, int>* open_places = nullptr;
  bool breaks_at_places = false;  // what changes often is a break where it cannot be followed
  // The graph is for FX, where a number is an input only as a tensor, and only once it has changed.
  bool exports_graph = false;
  bool has_places() const { return follows_places() || !stores_.empty(); }
  // What the event has read so far is not what it pushes: something else hides it.
  void hide_read() { drop_read(); }
  // Many places are read at once: none of the numbers is what the event pushes.
  void reads_all() { pushes_ = false; }
  bool follows_places() const { return open_places != nullptr && !open_places->empty(); }
  // False when the place is to be guarded as usual. key: a string, a slot's descriptor, or null.
  bool read_place(NodeId owner, CheckKind kind, PyObject* storage, PyObject* key, PyObject* value,
                  int32_t index = 0);
  bool is_open_place(NodeId owner, CheckKind kind, PyObject* key, int32_t index) const;
  // A guard of what it holds would hold for no other call.
  bool often_changes(NodeId owner, CheckKind kind, PyObject* key, int32_t index = 0) const;
  // The storage takes the number that the event stores, or loses what it had.
  void stored(PyObject* storage, PyObject* key);
  Tag stored_tag(PyObject* storage, PyObject* key) const;
  // Before the storage is read in a way that does not follow numbers.
  void pin_stores(PyObject* storage);
  void enter(EvalFrame& frame);
  void leave(EvalFrame& frame, PyObject* result);
  // Before the event is recorded: what of its operands is followed. May end the recording.
  void before(EvalFrame& frame, const Operands& operands);
  // After it was recorded: guards what is used in other ways. True when `after` is wanted.
  bool settle_uses();
  Tag after(const EvalFrame& frame, PyObject* result);
  Tag returned(EvalFrame& frame, PyObject* value);
  Tag built(PyObject* made, PyObject* const* slots, const Tag* tags, int count);

  // shadow_containers.cpp: tuples, lists and dicts made in the call that numbers with a tag were put into.
  bool follows(PyObject* container) const;
  // The tag of what it holds at an index, or under a key; 0 where nothing is known of it.
  Tag item_tag(PyObject* container, Py_ssize_t index, PyObject* value) const;
  Tag item_tag(PyObject* container, PyObject* key, PyObject* value) const;
  // C code is about to read what is in it. May end the recording.
  void read_inside(PyObject* container) {
    if (!containers_.empty() && !follows_event_) pin_inside(container);
  }

  const ScalarTable& table() const { return table_; }
  ScalarTable& table() { return table_; }
  // By the source of the graph's number inputs.
  std::vector<NumberInput> numbers() const;
  PyObject* number_value(int32_t source) const;
  Tag result_tag() const { return result_tag_; }  // of what the function returned
  // Guards the types of what stayed open. No event may follow.
  void finish();

 private:
  struct Move {
    int slot;  // below zero: an element of *args, or kKeyword
    Tag tag;
    PyObject* keyword = nullptr;  // kKeyword: its key in **kwargs
  };
  static constexpr int kKeyword = -1;
  // A number that is about to enter a tensor operation.
  struct Feed {
    Tag tag;
    GraphRecorder::NumberUse use;
  };
  struct FeedingCall {
    const EvalFrame* frame;
    int32_t first_node;
    std::vector<Feed> feeds;
  };
  struct Number {
    Tag tag;
    bool is_float;
    ir::ValueId value;
  };
  void plan_feeds(EvalFrame& frame, const Operands& operands);
  void plan_call_feeds(const Operands& operands);
  // shadow_containers.cpp
  struct Container {
    bool live = false;
    std::vector<PyObject*> sources = {};  // of an iterator or a view
    std::vector<std::pair<PyObject*, Tag>> entries =
        {};  // by key, or by the odd number that stands for an index
  };
  // What an event makes of the containers among its operands.
  struct ContainerEvent {
    const EvalFrame* frame;
    enum class Kind : uint8_t { kUnpacks, kGives, kMakes, kDerives } kind;
    PyObject* operand;
    Container made;          // kMakes, kDerives (its sources)
    std::vector<Tag> gives;  // kGives: of the result, or of each of its elements
    bool tuple = false;
  };
  Container* container(PyObject* object);
  Container& follow_new(PyObject* object);
  static PyObject* index_key(Py_ssize_t index) {
    return reinterpret_cast<PyObject*>(static_cast<uintptr_t>(index) * 2 + 1);
  }
  static void put(Container& container, PyObject* key, Tag tag);
  void pin_inside(PyObject* container);
  void collect_containers(const EvalFrame& frame, const Operands& operands);
  void collect_inside(PyObject* container, std::vector<Tag>& tags, int depth = 0) const;
  bool follow_containers(EvalFrame& frame, const Operands& operands);
  bool follow_container_call(EvalFrame& frame, const Operands& operands);
  bool follow_next(EvalFrame& frame, PyObject* iterator);
  bool put_item(EvalFrame& frame, PyObject* container, PyObject* key, Tag tag, PyObject* value);
  bool owned_by_frame(const EvalFrame& frame, PyObject* object) const;
  // shadow_changes.cpp
  std::vector<Tag> tags_of(PyObject* sequence) const;
  static Container of_tags(const std::vector<Tag>& tags);
  bool may_put(PyObject* container, Tag tag, PyObject* value) const;
  bool may_change(const EvalFrame& frame, PyObject* container);
  bool follow_method(EvalFrame& frame, const Operands& operands);
  bool follow_list_method(EvalFrame& frame, const Operands& operands, std::string_view name);
  bool follow_dict_method(EvalFrame& frame, const Operands& operands, std::string_view name);
  bool follow_sequence_operator(EvalFrame& frame, const Operands& operands);
  bool follow_item_change(const Operands& operands);
  bool follow_fold(const Operands& operands);
  // shadow_objects.cpp
  bool put_attribute(PyObject* object, PyObject* name, Tag tag, PyObject* value);
  bool put_cell(PyObject* cell, Tag tag, PyObject* value);
  bool store_through_setattr(PyObject* callable, const Operands& operands);
  bool keeps_instance(EvalFrame& frame, const Operands& operands, PyObject* instance);
  bool keeps_cell(EvalFrame& frame, const Operands& operands, PyObject* cell);
  void follow_objects(EvalFrame& frame, const Operands& operands);
  Tag after_container(PyObject* result);
  Tag kept_item(PyObject* container, PyObject* key, PyObject* value) const;
  void spread(const EvalFrame& frame, const Operands& operands);
  bool plan_feed(Tag tag, PyObject* number, int argument, const char* keyword, bool literal = false);
  void settle_feeds(PyObject* result);
  struct Read {
    const EvalFrame* frame = nullptr;
    Tag tag = 0;
  };
  bool store(Tag tag, PyObject* value);
  void take_read(Tag tag);
  void drop_read() { guard(std::exchange(read_.tag, 0)); }
  Tag tag_at(const EvalFrame& frame, PyObject* const* slot) const;
  void use(const EvalFrame& frame, PyObject* value, bool anywhere);
  // identity: containers tell one NaN from another.
  void guard(Tag tag, bool identity = false);
  Tag after_event(const EvalFrame& frame, PyObject* result);
  void drop_transit();
  void collect(EvalFrame& frame, const Operands& operands);
  bool follow_call(EvalFrame& frame, const Operands& operands);
  bool follow(EvalFrame& frame, const Operands& operands);
  bool move_arguments(PyObject* function, const EvalFrame* caller, const std::vector<Tag>& tags,
                      Py_ssize_t offset, Py_ssize_t positional, PyObject* kwnames);
  void apply_moves(EvalFrame& frame);
  void compute(ScalarStep step, std::vector<Tag> tags, std::vector<PyObject*> values);
  // shadow_late.cpp
  bool is_late(const std::vector<Tag>& tags) const;
  bool computes_late(const ScalarStep& step) const;
  void settle_late();
  Tag compute_late(PyObject* result);
  ir::ValueId number_input(Tag tag, bool is_float);
  bool follow_carrier(EvalFrame& frame, const Operands& operands);
  void plan_list_feed(Tag tag, PyObject* list, int argument, const char* keyword);

  Recorder& recorder_;
  ScalarTable table_;
  std::vector<Tag> arguments_;  // by argument; 0: no scalar, or attached
  std::vector<Tag> first_tags_;
  PyObject* first_function_ = nullptr;
  size_t first_positional_ = 0;
  PyObject* first_kwnames_ = nullptr;
  uint64_t outermost_ = 0;
  Tag result_tag_ = 0;
  bool breaks_late_ = true;  // at a number that varies
  // Tags of this event's operands, and those of a call's arguments by index.
  std::vector<Tag> used_;
  std::vector<Tag> call_tags_;
  bool uses_ = false;
  bool builds_ = false;  // the event puts them into a container
  std::vector<Feed> planned_;
  std::vector<FeedingCall> feeding_;  // innermost last
  std::vector<Number> numbers_;
  // By (storage, key); the recorder holds both.
  FlatMap<std::pair<PyObject*, PyObject*>, Tag, PairHash> places_;
  FlatMap<std::pair<PyObject*, PyObject*>, Tag, PairHash> stores_;
  bool pushes_ = false;  // the event pushes the number it reads
  Read read_;            // by the event under way
  Tag storing_ = 0;
  // By address; kept_ holds them, and what they are made of.
  FlatMap<PyObject*, Container, PointerHash> containers_;
  std::vector<Ref> kept_;
  std::vector<PyObject*> used_containers_;        // among the event's operands
  std::vector<ContainerEvent> container_events_;  // under way, innermost last
  bool follows_event_ = false;                    // the event leaves what is in its containers followed
  // On the way into a frame that is about to start.
  std::vector<Move> moves_;
  const EvalFrame* moves_caller_ = nullptr;
  PyObject* moves_function_ = nullptr;
  // On the way out of one.
  Tag returned_ = 0;
  EvalFrame* returned_to_ = nullptr;
  // An operation that is being performed.
  bool computing_ = false;
  Tag late_ = 0;          // read by the event
  bool carries_ = false;  // its result is told by what it is
  bool decides_ = false;  // its outcome is guarded
  ScalarStep step_{ScalarStep::Kind::kBinary};
  std::vector<Tag> step_tags_;
  std::vector<PyObject*> step_values_;
};

// Whether a call of the function is one of its own code: not answered, refused or run unwatched.
bool runs_as_itself(PyObject* function);
// Code that comes through the hook, and sees its arguments one by one.
bool runs_as_python(PyObject* callable);
bool is_list_append(PyObject* callable);
// The __init__ in Python that a call of the class runs, where nothing else sees the arguments; borrowed.
PyObject* constructor_of(PyObject* callable);
// A text or an int: keys that are equal only to others of their type, as far as the followed dicts go.
bool is_plain_key(PyObject* key);
// The key as the dict has it; null where there is none.
PyObject* name_in(PyObject* dict, PyObject* key);

}  // namespace flashpoint
