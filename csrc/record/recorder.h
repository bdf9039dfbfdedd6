// The object side of a recording: watches the evaluator, gives every object that existed before the call a
// source, installs the weakest guard for what was read, and logs what was written.
//
// How it works
//  - `table_` maps an object to the guard node that reaches it. An object that is not in the table and is
//    no primitive was made during the recording (fresh): everything that can hand out an older object
//    either has a rule that enters it here, or ends the recording.
//  - Primitives have no identity: they are guarded by value where they are read.
//  - Writes to objects in the table go to `effects_`, with an overlay keyed by the storage that owns the
//    slot (the dict behind an object, the list, the cell), so that later reads install no guard.
//  - Nodes describe the state at entry. A read of something already written says nothing about entry.
//
// Invariants: nothing here runs Python code of the program (reads use CPython's lookup functions, never
// attribute access), changes it, or leaves an error set. After end() the recorder ignores all events.
// Called by the evaluator (through Observer) and by driver/capture. One thread, GIL held.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/flat_map.h"
#include "guard/guard_tree.h"
#include "py/exception_state.h"
#include "py/iterators.h"
#include "py/saved_error.h"
#include "record/breaks.h"
#include "record/effects.h"
#include "record/history.h"
#include "record/observer.h"
#include "record/questions.h"
#include "record/rules/rules.h"
#include "record/shadow.h"

namespace flashpoint {

class CallTrace;
class GraphRecorder;

// A call that replay makes again: the callable, its arguments (null where a tensor goes), and which parts of
// the result are tensors (none: the result is one tensor itself).
struct HostedCall {
  Ref callable;
  std::vector<Ref> arguments;
  bool returns_tuple = false;
  std::vector<Ref> results;  // of a tuple: null where a tensor stands
};

class Recorder final : public Observer {
 public:
  // args: the values of the call in vectorcall order (positional, then keyword values).
  // varies: which of them are known to change from call to call.
  Recorder(GraphRecorder& graph, PyObject* function, PyObject* const* args, size_t nargs,
           const std::vector<bool>& varies = {});
  ~Recorder() override;

  Pending before(EvalFrame& frame, const Operands& operands) override;
  Tag after(EvalFrame& frame, const Operands& operands, const Pending& pending, PyObject* result) override;
  PyObject* enter_frame(EvalFrame& frame) override;
  void leave_frame(EvalFrame& frame, PyObject* result) override;
  Tag returned(EvalFrame& frame, PyObject* value) override { return shadow_.returned(frame, value); }
  Tag built(EvalFrame&, PyObject* made, PyObject* const* slots, const Tag* tags, int count) override {
    return shadow_.built(made, slots, tags, count);
  }

  // Ends the recording. The first reason counts.
  void end(Break reason, std::string detail = {});
  bool ended() const { return ended_; }
  const BreakReport& report() const { return report_; }

  GuardTree& tree() { return tree_; }
  Shadow& shadow() { return shadow_; }
  GraphRecorder& graph() { return graph_; }
  bool is_exposed_address(PyObject* number) const;  // see expose_address
  NodeId node_of(PyObject* object) const {
    const NodeId* found = table_.find(object);
    return found == nullptr ? kNoNode : *found;
  }
  // A constant of the code that ran: the same object at each call.
  bool is_code_constant(PyObject* object) const;
  PyObject* object_of(NodeId node) const;  // linear; null when nothing in the table has that node
  std::vector<PyObject*> objects() const;  // by node; null likewise
  const std::vector<Effect>& effects() const { return effects_; }
  // Guards that keep mutated objects apart from others of their type.
  void finish_aliases();
  // What the closing audit must leave out: nodes whose objects the recording wrote to.
  std::vector<bool> audit_skips() const;
  // True when the object is one that existed before or a primitive, else fresh.
  bool is_sourced(PyObject* object) const { return table_.contains(object); }
  const std::vector<NodeId>& tensor_nodes() const { return tensor_nodes_; }
  std::string location() const;
  // Whether the recording wrote to the place, or to all of the storage.
  bool is_written(PyObject* storage, PyObject* key) const {
    return overlaid_whole(storage) || overlaid(storage, key);
  }
  // C code takes elements out of it while the program runs on.
  bool read_lazily(PyObject* container) const { return !lazy_.empty() && lazy_.contains(container); }
  bool makes_classes() const { return !fresh_classes_.empty(); }  // by class statements
  // Calls that stay calls, by the index their nodes name.
  std::vector<HostedCall> take_hosted_calls() { return std::move(hosted_calls_); }
  bool answers_tracing_queries = true;
  int64_t fail_at_event = 0;                         // tests: the event at which an internal check fails
  int64_t break_at_event = 0;                        // tests: the event at which the recording ends
  bool reads_abc_registry = false;                   // an isinstance() against an abstract base class
  std::vector<std::pair<Ref, Ref>> class_questions;  // such a class, and the one it was asked about
  bool reads_recursion_limit = false;
  // An import ran in place of the instruction, and raised this.
  KeptError failed_import;
  // Why no other process may use what was recorded: a hash, an order that hashes decide, facts of the
  // environment that nothing guards. Null: nothing of the kind was met.
  const char* process_local = nullptr;
  void keep_local(const char* why) {
    if (process_local == nullptr) process_local = why;
  }
  void keep_hash_order_local(PyObject* object);  // of what the program is about to iterate over
  void keep_class_facts_local(PyObject* name);
  void note_class_question(const EvalFrame& frame, PyObject* const* argv, Py_ssize_t n, bool of_instance);
  std::vector<Ref> evaluated_codes() const;
  BreakSink* sink = nullptr;
  CallTrace* trace = nullptr;  // told of every event
  // What was being handled when the call began, and whether what was recorded depends on there being any.
  OuterHandling outer;
  bool sees_outer = false;
  // Instructions before which the recording is to end: code object, byte offset.
  const FlatMap<std::pair<PyCodeObject*, size_t>, Nothing, InstructionHash>* break_before = nullptr;
  // Takes back end(), so that what was recorded can be finished.
  void reopen() { ended_ = false; }
  // The innermost frame of the last event, or null.
  EvalFrame* innermost() const { return frame_; }
  // The call that made a generator of this recording, for which there is no recipe; null for none. Should it
  // turn out that one would be needed, the recording has to end before that call.
  const std::pair<PyCodeObject*, size_t>* blamed() const {
    return blamed_ < 0 ? nullptr : &made_[blamed_].second;
  }
  void blame(PyObject* generator);
  // The recording ended at something that shows only below autograd.
  bool wants_base() const { return wants_base_; }
  // What came from outside has the history it had.
  bool histories_hold() const { return region_.holds(); }
  const Region& region() const { return region_; }
  bool keeps_slots = false;  // of frames that were running when the recording began
  // A generator whose frame was running when the recording began.
  void begin_running(PyObject* generator);
  // All frames are gone. A frame that raises through one that has not run yet is not told of one by one.
  void left() { frame_ = nullptr; }

 private:
  friend class Rules;

  // C code takes elements out of it while the program runs on: a change of it then ends the recording.
  void watch_lazily(PyObject* container);

  // recorder.cpp: events, sources
  template <typename Step>
  void guarded(Step&& step);
  void before_with_care(EvalFrame& frame, const Operands& operands, Pending& pending);
  void settle_before(EvalFrame& frame, const Operands& operands, bool followed, Pending& pending);
  void watch_before(EvalFrame& frame, const Operands& operands, Pending& pending);
  bool says_nothing(Event event, const Pending& pending, PyObject* result) const;
  void watch_after(const Operands& operands, const Pending& pending, PyObject* result);
  bool is_settled(const Operands& operands) const;
  bool is_opaque(PyObject* value) const;         // nothing but the type of it can be guarded
  NodeId observe(NodeId node, PyObject* value);  // enters a non-primitive and installs its basic guard
  void watch(PyObject* object, NodeId node);
  NodeId const_node(PyObject* object);
  bool once(PyObject* a, PyObject* b, int what = 0);  // true the first time this combination is seen
  bool once_at(PyObject* container, size_t index);    // the same, of an element
  void hold(PyObject* object) { held_.push_back(Ref::share(object)); }
  // Whether this read of an object in the table was recorded already, and nothing was written since.
  bool already_read(PyObject* object, PyObject* name) const;
  void note_read(PyObject* object, PyObject* name);
  void forget_reads();  // before each write to an object in the table
  void check_tensor_result(PyObject* result);

  // read_attr.cpp
  PyObject* type_lookup(PyTypeObject* type, PyObject* name);
  PyObject* type_lookup(PyTypeObject* type, const char* literal);  // a string literal
  void read_attr(PyObject* object, PyObject* name);
  void read_attr_once(PyObject* object, PyObject* name);
  void read_mapping_methods(PyObject* object);
  void read_function_mode(PyObject* mode);
  void read_getattr_hook(PyObject* o, PyTypeObject* type, PyObject* name);
  void read_generic_attr(PyObject* object, PyTypeObject* type, PyObject* name, bool getattr_hook);
  void read_type_attr(PyObject* type, PyObject* name);
  void read_super_attr(PyObject* super, PyObject* name);
  void read_bases(PyTypeObject* type);  // what it inherits from, which a program can change
  void read_whole_dict(PyObject* object);
  PyObject* thread_local_dict(PyObject* local, PyObject* name);
  void read_thread_local(PyObject* local, PyObject* name);
  void read_module_attr(PyObject* module, PyObject* name);
  void read_tensor_attr(PyObject* tensor, PyObject* name);
  void read_c_attr(PyObject* object, PyTypeObject* type, PyObject* name, PyObject* descriptor);
  void read_slot(PyObject* object, PyObject* descriptor, PyObject* value);
  void read_slots(PyObject* object);  // all of them, as C code does that copies it
  void read_descriptor(PyObject* descriptor);
  bool read_instance_dict(PyObject* object, PyObject* name);  // true when the instance has the name
  NodeId instance_dict_node(PyObject* object);

  // read_container.cpp
  bool lookup_key(PyObject* key);          // a key that can be looked up so; one told by address gets pinned
  bool hashable_key(PyObject* key) const;  // a key whose hash and equality run no Python code
  void read_dict_key(PyObject* dict, PyObject* key);
  void read_dict_value(NodeId node, PyObject* key, PyObject* value);  // value: null where there is none
  void read_dict_present(PyObject* dict, PyObject* key);
  bool read_item_apart(PyObject* c, PyObject* key);
  void read_elements(PyObject* container);  // length or keys, and every element
  bool read_deep(PyObject* object, int depth = 0);
  void read_keys(PyObject* dict);
  bool touched(PyObject* storage) const;  // some part of it was written
  void read_length(PyObject* container);
  void read_truth(PyObject* object);
  void read_iterable(PyObject* iterable);
  void read_iterable_if_container(PyObject* object);
  void read_subscript(PyObject* container, PyObject* key);
  void read_contains(PyObject* container, PyObject* item);
  void read_compare(int op, PyObject* a, PyObject* b);
  void read_identity(PyObject* a, PyObject* b);
  void read_binary(int op, PyObject* a, PyObject* b);
  void read_special(PyObject* object, const char* name);  // a method of its class that C code calls
  void read_operators_of(PyTypeObject* type);             // all that C code could call
  void read_binary_methods(int op, PyObject* a, PyObject* b);
  void read_unary_method(int opcode, PyObject* object);
  void read_index(PyObject* container, PyObject* key);  // an object that says which number it is
  void read_named_operator(std::string_view name, PyObject* const* args, Py_ssize_t count);

  void read_inside(PyObject* object);  // all that C code may learn of an element it was handed

  // read_identity.cpp: what C code compares or hashes by address
  void pin(PyObject* object);  // the very object, at each call
  bool may_pin(PyObject* object) const;
  void read_hash(PyObject* object);
  void read_address(PyObject* object);
  // Its address becomes a number of the program, which no replay may hand out.
  void expose_address(PyObject* object);
  void read_addresses(PyObject* object, int depth = 0);  // of everything in it, where containers are compared
  void read_order(PyObject* object);
  void read_compared(PyObject* a, PyObject* b);                // operands of == and its like
  void read_element_identity(PyObject* list, PyObject* item);  // a search for the item
  void read_fresh_key(PyObject* container, PyObject* key);     // a lookup in a dict or set made in the call
  void read_object_keys(PyObject* container);

  // read_format.cpp
  enum class Text : uint8_t { kFormat, kStr, kRepr };
  void read_text(PyObject* value, Text how, int depth = 0);
  void read_percent(PyObject* format, PyObject* values);

  // read_exception.cpp
  void read_raise(PyObject* exception);
  void read_exit(PyObject* exception, PyObject* traceback);  // the arguments of __exit__
  void read_handled();                                       // sys.exc_info()
  void read_exception_attr(PyObject* exception, PyObject* name);

  // read_match.cpp
  void read_match(const Operands& operands);

  // read_iterator.cpp
  bool is_builtin_iterator(PyObject* object) const { return py::is_known_iterator(Py_TYPE(object)); }
  bool read_iterator(PyObject* iterator);
  bool advance_iterator(PyObject* iterator);

  // read_generator.cpp
  bool read_generator(PyObject* generator);
  void expect_generator(EvalFrame& frame, PyObject* generator, FrameLink link);

  // write.cpp
  void write_attr(PyObject* object, PyObject* name, PyObject* value);
  void write_thread_local(PyObject* local, PyObject* name, PyObject* value);
  void change_filters();  // of the warnings module
  void write_generic_attr(PyObject* object, PyObject* name, PyObject* value);
  void write_type_attr(PyTypeObject* type, PyObject* name, PyObject* value);
  void write_tensor_attr(PyObject* tensor, PyObject* name, PyObject* value);
  void write_dict(PyObject* dict, PyObject* key, bool removing = false);
  void write_contents(PyObject* container);  // list, dict, set or deque: final contents as a whole
  // Before a container that was written in parts is read as a whole: guards what it held at entry, so that
  // there is nothing left to learn. False where that is not known any more.
  bool settle(PyObject* container);
  // The class of the type's resolution order that this recording gave the attribute; null: none provides it.
  PyTypeObject* written_provider(PyTypeObject* type, PyObject* name) const;
  void append_to_list(PyObject* list, PyObject* item);
  // A number takes the place of one that is known to change. False: it does not, and nothing was recorded.
  bool write_list_item(PyObject* list, PyObject* key, PyObject* value);
  bool written_in_items(PyObject* list) const;  // so, and in no other way
  void write_cell(PyObject* cell);
  void write_context_var(PyObject* var);
  void add_effect(Effect effect, PyObject* key);
  bool overlaid(PyObject* storage, PyObject* key) const {
    return !overlay_.empty() && is_overlaid(storage, key);
  }
  bool overlaid_whole(PyObject* storage) const {
    return !overlay_.empty() && overlay_.contains({storage, storage});
  }
  bool is_overlaid(PyObject* storage, PyObject* key) const;

  // call.cpp and rules/
  void call(EvalFrame& frame, const Operands& operands, Pending& pending);
  void end_disabled(PyObject* function, PyObject* message = nullptr);
  void resolve_call(EvalFrame& frame, PyObject* callable, PyObject* const* args, Py_ssize_t nargs,
                    PyObject* kwnames, Pending& pending, int depth);
  void call_type(PyTypeObject* type, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames,
                 EvalFrame* frame = nullptr, Pending* pending = nullptr);
  void after_call(const Operands& operands, const Pending& pending, PyObject* result);
  // call_marked.cpp: functions that say how they want to be compiled. True when nothing more is to be done.
  bool call_marked(EvalFrame& frame, PyObject* function, PyObject* const* args, Py_ssize_t n,
                   PyObject* kwnames, Pending& pending, int depth);
  void call_assumed_constant(PyObject* function, PyObject* const* args, Py_ssize_t n, PyObject* kwnames,
                             Pending& pending);
  void expect(EvalFrame& caller, PyObject* function, FrameLink link) {
    expected_ = {&caller, function, link};
  }
  void expect_attribute_code(EvalFrame& caller, PyObject* object, PyObject* name);
  bool is_fresh_class(PyObject* type) const { return fresh_classes_.contains(type); }
  bool shape_depends_on_data(PyObject* tensor) const;  // of a plain tensor
  // False where it does and cannot be expected to stay. The value of a tensor of one element likewise.
  bool settle_shape(PyObject* tensor, bool only_dims);
  bool may_read_value(PyObject* tensor) const;
  // call_function.cpp: autograd.Function
  void apply_function(EvalFrame& frame, PyObject* apply, PyObject* const* args, Py_ssize_t n,
                      PyObject* kwnames, Pending& pending);
  void after_function(const Operands& operands, PyObject* result);
  void call_torch(const char* name, PyObject* const* args, Py_ssize_t n, PyObject* kwnames);
  // call_engine.cpp: the autograd engine, and the gradients of leaves
  void need_base(std::string what);
  // Makes a call in place of the instruction that is about to make another one; its frames are recorded.
  void call_instead(PyObject* function, PyObject* const* args, Py_ssize_t n, PyObject* kwnames,
                    Pending& pending);
  void run_engine(PyObject* const* args, Py_ssize_t n, PyObject* kwnames);
  void read_grad(PyObject* tensor);
  void write_grad(PyObject* tensor);
  // call_cached.cpp: functools.lru_cache
  void call_cached(PyObject* wrapper, PyObject* const* args, Py_ssize_t n, PyObject* kwnames,
                   Pending& pending);
  void after_cached(const Pending& pending, PyObject* result);
  void pin_elements(PyObject* tuple);

  FlatMap<SuperKey, Nothing, SuperHash> super_keys_;  // kept alive by held_
  GraphRecorder& graph_;
  GuardTree tree_;
  Shadow shadow_{*this};
  FlatMap<PyObject*, NodeId, PointerHash> table_;  // keys kept alive by held_
  std::vector<Ref> held_;
  FlatMap<Question, Nothing, QuestionHash> once_;
  FlatMap<std::pair<PyObject*, PyObject*>, size_t, PairHash> overlay_;  // (storage, key) -> effect
  FlatSet<PyObject*> touched_;                                          // storages with an entry in overlay_
  std::vector<Effect> effects_;
  FlatSet<PyTypeObject*> ordinary_types_;  // of objects of which nothing but the type is guarded at first
  FlatSet<PyObject*> codes_;               // evaluated; kept alive by held_
  FlatSet<PyObject*> fresh_classes_;       // made by class statements; kept alive by held_
  std::vector<PyObject*> identified_;      // told apart by address; kept alive by held_
  FlatSet<PyObject*> exposed_;             // by their addresses; kept alive by held_
  // Generators, not kept alive, and where they were made.
  std::vector<std::pair<PyObject*, std::pair<PyCodeObject*, size_t>>> made_;
  int blamed_ = -1;
  FlatSet<PyObject*> lazy_;                                 // see watch_lazily; kept alive by held_
  std::unordered_map<PyObject*, Ref> keys_before_removal_;  // of a dict, in order
  FlatSet<PyObject*> settled_;  // dicts whose keys at entry are guarded after writes
  std::vector<PyTypeObject*> written_types_;
  // C code looks inside what Python frames hand it: generators' yields (1) or any frame's result (2).
  int reads_results_ = 0;
  std::vector<std::pair<const EvalFrame*, int>>
      reading_calls_;  // calls that do, and what held outside of each
  void read_results(int how, bool until_return);
  std::vector<CachedCall> cached_calls_;
  Ref cached_keys_;    // a set of (wrapper, key): what is guarded of caches
  size_t writes_ = 0;  // ever logged
  // Objects that may be carried about and not used; kept alive by held_. Every slot that holds one is tagged.
  FlatSet<PyObject*> opaque_;
  bool takes_opaque_ = false;  // what is read now is pushed, and gets its tag
  std::vector<NodeId> tensor_nodes_;
  BreakReport report_;
  EvalFrame* frame_ = nullptr;  // innermost frame, for locations
  ExpectedFrame expected_;
  bool in_before_ = false;
  bool sets_data_ = false;  // the store under way is one to a tensor's data
  size_t frames_entered_ = 0;
  uint64_t settled_stamp_ = 0;
  FlatMap<PyTypeObject*, uint64_t, PointerHash> plain_types_;  // classes whose modules may be plain, and when
  PyObject* plain_self_ = nullptr;  // the last module that was found to have no hooks, and when
  uint64_t plain_self_stamp_ = 0;
  uint64_t plain_globals_stamp_ = 0;  // when the hooks of all modules were looked at
  std::vector<NodeId> plain_calls_;   // instance dicts of modules that have no hooks
  bool ended_ = false;
  // Guards are checked under the mode then, and may not do what it answers.
  bool under_function_mode_ = false;
  // What after_call has to do; kept in Pending::word.
  static constexpr uint32_t kPendingCached = 1;
  static constexpr uint32_t kPendingLiteral = 2;
  static constexpr uint32_t kPendingTyping = 3;
  static constexpr uint32_t kPendingClass = 4;
  static constexpr uint32_t kPendingFunction = 5;
  static constexpr uint32_t kPendingItem = 6;
  std::vector<HostedCall> hosted_calls_;
  struct FrameSites;  // where in the program the graph's expectations were met
  std::unique_ptr<FrameSites> frame_sites_;
  Region region_;  // base level
  bool wants_base_ = false;
  size_t writes_before_call_ = 0;
  bool hosted_call_runs_ = false;
};

}  // namespace flashpoint
