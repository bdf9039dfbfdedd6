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
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "guard/guard_tree.h"
#include "record/observer.h"

namespace flashpoint {

class GraphRecorder;

enum class Break : uint8_t {
#define X(name, message, hint) k_##name,
#include "record/breaks.def"
#undef X
};
std::string graph_break_text(const GraphRecorder& graph);
const char* break_name(Break b);
const char* break_message(Break b);
const char* break_hint(Break b);

struct BreakReport {
  Break reason = Break::k_internal;
  std::string detail;
  std::string location;  // file:line, innermost frame
  std::string function;
};

// One write to an object that existed before the call.
enum class EffectKind : uint8_t {
  kDictItem,      // owner = dict node, key; the final value, or deleted
  kDictContents,  // owner = dict node: all of it (keys were guarded)
  kListContents,  // owner = list node: all of it (length was guarded)
  kListAppend,    // owner = list node: items appended, in order
  kSetContents,   // owner = set node: all of it (contents were guarded)
  kCell,          // owner = cell node
  kSlot,          // owner = object node, key = member descriptor
  kContextVar,    // owner = context variable node, key = the value at entry or null
  kGradMode,      // number = the mode at the end
};
struct Effect {
  EffectKind kind;
  NodeId owner = kNoNode;
  Ref object;  // the storage itself
  Ref key;
  std::vector<Ref> items;  // kListAppend
};

class Recorder final : public Observer {
 public:
  // args: the values of the call in vectorcall order (positional, then keyword values).
  Recorder(GraphRecorder& graph, PyObject* function, PyObject* const* args, size_t nargs);
  ~Recorder() override;

  Pending before(EvalFrame& frame, const Operands& operands) override;
  Tag after(EvalFrame& frame, const Operands& operands, Pending pending, PyObject* result) override;
  PyObject* enter_frame(EvalFrame& frame) override;
  void leave_frame(EvalFrame& frame, PyObject* result) override;

  // Ends the recording. The first reason counts.
  void end(Break reason, std::string detail = {});
  bool ended() const { return ended_; }
  const BreakReport& report() const { return report_; }

  // For finishing: what was recorded.
  GuardTree& tree() { return tree_; }
  GraphRecorder& graph() { return graph_; }
  NodeId node_of(PyObject* object) const;
  // A constant of the code that ran: the same object at each call.
  bool is_code_constant(PyObject* object) const;
  PyObject* object_of(NodeId node) const;  // linear; null when nothing in the table has that node
  const std::vector<Effect>& effects() const { return effects_; }
  // Guards that keep mutated objects apart from others of their type.
  void finish_aliases();
  // What the closing audit must leave out: nodes whose objects the recording wrote to.
  std::vector<bool> audit_skips() const;
  // True when the object is one that existed before or a primitive, else fresh.
  bool is_sourced(PyObject* object) const { return table_.count(object) != 0; }
  const std::vector<NodeId>& tensor_nodes() const { return tensor_nodes_; }
  std::string location() const;
  bool answers_tracing_queries = true;
  int64_t fail_at_event = 0;        // tests: the event at which an internal check fails
  bool reads_abc_registry = false;  // an isinstance() against an abstract base class
  void (*on_end)() = nullptr;       // called once when the recording ends early

 private:
  friend class Rules;

  // recorder.cpp: events, sources
  template <typename Step>
  void guarded(Step&& step);
  Pending watch_before(EvalFrame& frame, const Operands& operands);
  void watch_after(const Operands& operands, Pending pending, PyObject* result);
  NodeId observe(NodeId node, PyObject* value);  // enters a non-primitive and installs its basic guard
  void watch(PyObject* object, NodeId node);
  NodeId const_node(PyObject* object);
  bool once(PyObject* a, PyObject* b, int what = 0);  // true the first time this combination is seen
  void hold(PyObject* object) { held_.push_back(Ref::share(object)); }
  void check_tensor_result(PyObject* result);

  // read_attr.cpp
  PyObject* type_lookup(PyTypeObject* type, PyObject* name);
  PyObject* type_lookup(PyTypeObject* type, const char* literal);  // a string literal
  void read_attr(PyObject* object, PyObject* name);
  void read_generic_attr(PyObject* object, PyTypeObject* type, PyObject* name, bool getattr_hook);
  void read_type_attr(PyObject* type, PyObject* name);
  void read_super_attr(PyObject* super, PyObject* name);
  void read_module_attr(PyObject* module, PyObject* name);
  void read_tensor_attr(PyObject* tensor, PyObject* name);
  void read_c_attr(PyObject* object, PyTypeObject* type, PyObject* name, PyObject* descriptor);
  void read_descriptor(PyObject* descriptor);
  bool read_instance_dict(PyObject* object, PyObject* name);  // true when the instance has the name
  NodeId instance_dict_node(PyObject* object);

  // read_container.cpp
  bool hashable_key(PyObject* key) const;  // a key whose hash and equality run no Python code
  void read_dict_key(PyObject* dict, PyObject* key);
  void read_dict_present(PyObject* dict, PyObject* key);
  void read_elements(PyObject* container);  // length or keys, and every element
  bool read_deep(PyObject* object, int depth = 0);
  void read_keys(PyObject* dict);
  bool touched(PyObject* storage) const;  // some part of it was written
  void read_length(PyObject* container);
  void read_truth(PyObject* object);
  void read_iterable(PyObject* iterable);
  void read_iterable_if_container(PyObject* object);
  void read_hash(PyObject* object);
  void read_address(PyObject* object);
  void read_object_keys(PyObject* container);
  void read_subscript(PyObject* container, PyObject* key);
  void read_contains(PyObject* container, PyObject* item);
  void read_compare(int op, PyObject* a, PyObject* b);
  void read_identity(PyObject* a, PyObject* b);
  void read_binary(int op, PyObject* a, PyObject* b);
  void read_format(PyObject* value, PyObject* spec);

  // write.cpp
  void write_attr(PyObject* object, PyObject* name, PyObject* value);
  void write_generic_attr(PyObject* object, PyObject* name, PyObject* value);
  void write_dict(PyObject* dict, PyObject* key);
  void write_contents(PyObject* container);  // list, dict or set: final contents as a whole
  void append_to_list(PyObject* list, PyObject* item);
  void write_cell(PyObject* cell);
  void write_context_var(PyObject* var);
  void add_effect(Effect effect, PyObject* key);
  bool overlaid(PyObject* storage, PyObject* key) const;
  bool overlaid_whole(PyObject* storage) const;

  // call.cpp and rules/
  Pending call(EvalFrame& frame, const Operands& operands);
  void resolve_call(EvalFrame& frame, PyObject* callable, PyObject* const* args, Py_ssize_t nargs,
                    PyObject* kwnames, Pending& pending, int depth);
  void call_type(PyTypeObject* type, PyObject* const* args, Py_ssize_t nargs, PyObject* kwnames,
                 EvalFrame* frame = nullptr, Pending* pending = nullptr);
  void after_call(const Operands& operands, Pending pending, PyObject* result);
  bool is_fresh_class(PyObject* type) const { return fresh_classes_.count(type) != 0; }
  bool shape_depends_on_data(PyObject* tensor) const;  // of a plain tensor
  void call_torch(const char* name, PyObject* const* args, Py_ssize_t n, PyObject* kwnames);

  struct PairHash {
    size_t operator()(const std::pair<PyObject*, PyObject*>& p) const {
      return (reinterpret_cast<size_t>(p.first) >> 4) * 0x9E3779B97F4A7C15ull ^
             (reinterpret_cast<size_t>(p.second) >> 4);
    }
  };

  struct SuperKey {
    PyObject* type;
    PyObject* after;
    PyObject* name;
    bool operator==(const SuperKey&) const = default;
  };
  struct SuperHash {
    size_t operator()(const SuperKey& k) const {
      return PairHash{}({k.type, k.after}) * 31 + (reinterpret_cast<size_t>(k.name) >> 4);
    }
  };

  std::unordered_map<SuperKey, PyObject*, SuperHash> super_keys_;  // kept alive by held_
  GraphRecorder& graph_;
  GuardTree tree_;
  std::unordered_map<PyObject*, NodeId> table_;  // keys kept alive by held_
  std::vector<Ref> held_;
  std::unordered_set<std::pair<PyObject*, PyObject*>, PairHash> once_[8];
  std::unordered_map<std::pair<PyObject*, PyObject*>, size_t, PairHash> overlay_;  // (storage, key) -> effect
  std::unordered_set<PyObject*> touched_;  // storages with an entry in overlay_
  std::vector<Effect> effects_;
  std::unordered_set<PyObject*> codes_;          // evaluated; kept alive by held_
  std::unordered_set<PyObject*> fresh_classes_;  // made by class statements; kept alive by held_
  std::vector<PyObject*> identified_;            // told apart by address; kept alive by held_
  std::vector<NodeId> tensor_nodes_;
  BreakReport report_;
  EvalFrame* frame_ = nullptr;  // innermost frame, for locations
  size_t frames_entered_ = 0;
  bool ended_ = false;
  // Guards are checked under the mode then, and may not do what it answers.
  bool under_function_mode_ = false;
  // What after_call has to do; kept in Pending::word.
  static constexpr uint32_t kPendingCached = 1;
  static constexpr uint32_t kPendingLiteral = 2;
  static constexpr uint32_t kPendingClass = 3;
};

}  // namespace flashpoint
