// The guards of one entry: a flat tree of the objects a recording read, with checks on each.
//
// A node says how an object is reached (a step from its parent) and what must hold of it. Parents come
// before children, so one pass over the array evaluates everything; values()[i] is the object node i
// reached, which replay uses as inputs. Nothing in evaluation runs Python code.
//
// Version tags. After a successful evaluation each dict (and type) node remembers the object and its
// version tag. While both are unchanged, checks marked `tagged` hold and children fetched through it are
// the same objects, so neither is looked at again. Dict tags are unique in the process and never reused:
// an equal tag read through a live pointer proves that it is the same dict in the same state, which is
// also what keeps the remembered children alive. A recording remembers what it reaches in the same way, so
// that its closing audit looks only at what has changed since. Remembered pointers are therefore never owned,
// and never followed unless the parent was proven unchanged in the same pass. Remembered state is committed
// only when the whole evaluation succeeded.
//
// Ownership: keys and operands are owned (types, code objects, names, primitives, module dicts); objects
// the user passes in are not.
// GIL: required throughout.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_set>
#include <vector>

#include "base/flat_map.h"
#include "guard/plain_call.h"
#include "guard/steady_plan.h"
#include "guard/tensor_meta.h"
#include "py/ref.h"

namespace flashpoint {

using NodeId = int32_t;
constexpr NodeId kNoNode = -1;

enum class Step : uint8_t {
#define X(name, portable, text) k##name,
#include "guard/steps.def"
#undef X
};

enum class CheckKind : uint8_t {
#define X(name, tagged, operands, text) k##name,
#include "guard/checks.def"
#undef X
};

struct Check {
  CheckKind kind;
  int32_t number = 0;  // length, truth, index, other node, or index of tensor metadata
  int32_t next = -1;   // the node's next check of the same list
  Ref operand;
  Ref second = {};  // the value, where `operand` names a place
};

struct Node {
  Step step;
  NodeId parent = kNoNode;
  int32_t index = 0;
  Ref key;
  // Heads and tails of lists through GuardTree's checks, -1 when empty.
  int32_t checks = -1, last_check = -1;                // every time
  int32_t tagged_checks = -1, last_tagged_check = -1;  // only when the version tag changed
  // What the last successful evaluation saw; see the header comment.
  PyObject* seen = nullptr;
  uint64_t seen_tag = 0;
};

// What leads to the value that a check of a place is about.
Step step_to_place(CheckKind kind);

class GuardTree {
 public:
  // The node reached from parent by (step, key, index); made on first use.
  NodeId child(NodeId parent, Step step, PyObject* key = nullptr, int32_t index = 0);
  NodeId find_child(NodeId parent, Step step, PyObject* key, int32_t index) const;

  // Adds a check unless the same one is there already. Operands are shared.
  void check(NodeId node, CheckKind kind, PyObject* operand = nullptr, int32_t number = 0);
  // Adds a check that a place (a key, a name, an index) holds a value; the caller asks for each place once.
  void check_place(NodeId node, CheckKind kind, PyObject* place, PyObject* value, int32_t index = 0);
  void check_tensor(NodeId node, TensorMeta meta);
  void check_plain_call(NodeId instance_dict);  // once for each

  // True when every guard holds for these arguments. On false, failed_node/failed_check say which.
  bool evaluate(PyObject* const* args, size_t nargs);
  // Once nobody reads values() any more: what was made on the way to them (a gradient) may die.
  void let_go() { temporaries_.clear(); }
  // A recording reached this object, before it reads anything through it: what keeps its version tag until
  // the end is as it was read.
  void saw(NodeId node, PyObject* object);
  // Evaluates, leaving out the marked nodes and their checks (closing audit).
  bool audit(PyObject* const* args, size_t nargs, const std::vector<bool>& skip_node);

  // After a miss: the places whose numbers are others than recorded, as far as everything before them holds.
  void changed_numbers(PyObject* const* args, size_t nargs, std::unordered_set<std::string>& places);
  // Whether the argument is a slice or a range, and another one than `now`.
  bool expects_other_slice(size_t argument, PyObject* now) const;
  // The name of the place that a check of this kind is about; the same in any tree that reads it alike.
  std::string place(NodeId node, CheckKind kind, PyObject* key, int32_t index = 0) const;

  const std::vector<PyObject*>& values() const { return values_; }
  const Node& node(NodeId id) const { return nodes_[id]; }
  size_t size() const { return nodes_.size(); }
  size_t check_count() const;
  // Evaluates one check on a given object (used when a check is about to be added: it must hold).
  bool holds(const Node& node, const Check& check, PyObject* value) const;

  std::string path(NodeId id) const;
  std::string text() const;
  std::string text_of(const Check& check) const;
  std::string explain_failure() const;

  int traverse(visitproc visit, void* arg) const;

 private:
  friend struct GuardAccess;
  struct Key {
    NodeId parent;
    Step step;
    int32_t index;
    PyObject* key;  // interned by nodes_ (kept alive there)
    bool operator==(const Key&) const = default;
  };
  struct KeyHash {
    size_t operator()(const Key& k) const {
      const size_t small = (static_cast<size_t>(static_cast<uint32_t>(k.parent)) << 40) ^
                           (static_cast<size_t>(k.step) << 32) ^ static_cast<uint32_t>(k.index);
      return mix_bits(small * 31 + (reinterpret_cast<size_t>(k.key) >> 4));
    }
  };
  struct PassState {
    bool clean = false;
    bool pending = false;
    uint64_t tag = 0;
  };

  PyObject* fetch(const Node& node, PyObject* const* args, size_t nargs);
  bool run(PyObject* const* args, size_t nargs, bool use_tags, const std::vector<bool>* skip,
           std::unordered_set<std::string>* changed = nullptr);
  bool is_other_number(const Check& check, PyObject* value) const;
  // Whether the recording wrote to what the check is about.
  bool writes_hooks(size_t node, const std::vector<bool>& written) const;

  Check& add_check(NodeId node, CheckKind kind);
  int32_t add_meta(TensorMeta meta);  // or the number of an equal one
  // Of what the last evaluation saw, which succeeded (guard/steady_plan.cpp).
  void make_plan();
  SteadyPlan::Answer run_plan(PyObject* const* args, size_t nargs);

  std::vector<Node> nodes_;
  std::vector<Check> checks_;
  FlatMap<Key, NodeId, KeyHash> index_;
  std::vector<TensorMeta> metas_;
  mutable std::vector<PlainCall> plain_calls_;  // they remember
  std::vector<PyObject*> values_;  // borrowed from the objects reached; valid right after evaluate()
  std::vector<Ref> temporaries_;   // keep-alive for the few steps that make a new object
  std::vector<PassState> pass_;
  SteadyPlan plan_;
  NodeId failed_node_ = kNoNode;
  int32_t failed_check_ = -1;  // index into checks_; -1: the node could not be reached
};

// A primitive's value is all there is to it: None, bool, int, float, complex, str, bytes, Ellipsis,
// NotImplemented (exact types).
bool is_rare_primitive(PyObject* object);
inline bool is_primitive(PyObject* object) {
  const PyTypeObject* type = Py_TYPE(object);
  if (type == &PyUnicode_Type || type == &PyLong_Type || object == Py_None || type == &PyBool_Type ||
      type == &PyFloat_Type)
    return true;
  return !PyType_HasFeature(const_cast<PyTypeObject*>(type), Py_TPFLAGS_HEAPTYPE) &&
         is_rare_primitive(object);
}
// Same type and same value; floats by their bits, so that 0.0 and -0.0 differ and a NaN equals itself.
bool primitives_equal(PyObject* a, PyObject* b);

}  // namespace flashpoint
