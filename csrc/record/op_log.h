// The notes a recording takes while the program runs: calls, arguments and values as plain data.
//
// Kept apart from ir::Graph so that taking a note costs little and allocates nothing on the heap (see
// record/arena.h); `build` turns the log into a graph once the program is done. Constants that are no plain
// numbers (strings, devices, literals) are kept as IValues on the side.
//
// Invariant: value ids are handed out in order; a call's outputs are added right after the call.
//
// Callers: GraphRecorder only. Threads: the recording's; no GIL needed.
#pragma once

#include <ATen/core/TensorBase.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "ir/graph.h"
#include "record/arena.h"

namespace flashpoint {

// Where in the program an operator was called; opaque to the recorder.
struct ProgramPosition {
  const void* code = nullptr;
  int32_t instruction = 0;
  bool operator==(const ProgramPosition&) const = default;
};

class PositionSource {
 public:
  virtual ~PositionSource() = default;
  virtual ProgramPosition current() noexcept = 0;                     // per node; GIL released
  virtual std::string describe(const ProgramPosition& position) = 0;  // "model.py:12"; in finish()
};

struct LoggedArg {
  enum class Kind : uint8_t { kNone, kValue, kInt, kDouble, kBool, kBoxed, kInts, kDoubles, kBools, kList };
  Kind kind = Kind::kNone;
  bool wrapped = false;  // a Python number in a tensor's place
  uint32_t count = 0;    // of a list
  union {
    int64_t integer = 0;  // kValue: value id; kInt; kBool; kBoxed: index
    double real;
    const int64_t* integers;  // kInts, kBools
    const double* reals;
    LoggedArg* items;
  };
};

struct LoggedOutput {
  bool is_list = false;
  int32_t first = 0;
  int32_t count = 1;
};

// One graph input whose memory a call wrote; a list in arena memory.
struct LoggedWrite {
  int32_t input;  // position among the log's inputs
  LoggedWrite* next = nullptr;
};

struct LoggedCall {
  int32_t op = 0;  // index by OpLog::add_op
  uint32_t state = 0;
  uint32_t callable = 0;
  uint32_t arg_count = 0;
  uint32_t output_count = 0;
  bool no_op = false;  // proved to return its own argument and nothing else
  LoggedArg* args = nullptr;
  LoggedOutput* outputs = nullptr;
  LoggedWrite* writes = nullptr;
  ProgramPosition position;
};

class OpLog {
 public:
  OpLog();

  int32_t add_op(ir::Op op);
  uint32_t add_state(const ir::NodeState& state);
  uint32_t add_callable(std::string_view name);

  // A value of this tensor's metadata; an undefined tensor has none.
  ir::ValueId add_value(const at::TensorBase& tensor, int32_t call);
  ir::ValueId add_number(ir::ValueKind kind, int32_t call = ir::kNoNode);
  int32_t add_input(ir::ValueId value, int32_t source);
  LoggedCall* new_call(size_t arguments, size_t outputs);  // not yet in the log
  int32_t append(LoggedCall* call);
  void add_write(LoggedCall& call, int32_t input);

  // A constant's note; false when a graph cannot hold it. Lists of tensors are the recorder's.
  bool note_constant(const c10::IValue& constant, LoggedArg& arg);
  const c10::IValue& boxed(const LoggedArg& arg) const { return boxed_[static_cast<size_t>(arg.integer)]; }
  LoggedArg* new_items(size_t count) { return arena_.make<LoggedArg>(count); }

  int32_t call_count() const { return static_cast<int32_t>(calls_.size()); }
  LoggedCall& call(int32_t i) const { return *calls_[static_cast<size_t>(i)]; }
  // Whether few operators on tensors of few elements make the value of what comes from outside.
  bool is_small(ir::ValueId value) const;
  // Whether the tensor's type is that of the result beside a number without dimensions, whatever type such a
  // number has: it has dimensions itself, and is not an integer where the number is a float.
  bool outranks_number(ir::ValueId value, bool is_float) const;
  int32_t producer(ir::ValueId value) const { return values_[static_cast<size_t>(value)]->call; }
  ir::ValueId value_count() const { return static_cast<ir::ValueId>(values_.size()); }
  const ir::Input& input(int32_t i) const { return inputs_[static_cast<size_t>(i)]; }
  const std::vector<ir::Op>& ops() const { return ops_; }
  int32_t input_count() const { return static_cast<int32_t>(inputs_.size()); }

  // The log as a graph: dead code dropped, values renumbered. `positions` may be null.
  ir::Graph build(const std::vector<ir::ValueId>& outputs, PositionSource* positions) const;

 private:
  struct LoggedValue {
    int32_t call = ir::kNoNode;
    int32_t dims = 0;
    int64_t* sizes = nullptr;  // sizes, then strides
    c10::ScalarType dtype = c10::ScalarType::Undefined;
    c10::Layout layout = c10::kStrided;
    c10::Device device = c10::Device(c10::kCPU);
    ir::ValueKind kind = ir::ValueKind::kTensor;
    bool requires_grad = false;
    bool conj = false;
    bool neg = false;
  };

  bool is_small(ir::ValueId value, int* budget) const;
  static void mark(const LoggedArg& arg, std::vector<bool>& used);
  ir::Arg build_arg(const LoggedArg& arg, const std::vector<ir::ValueId>& renamed) const;
  static ir::Value build_value(const LoggedValue& value);

  Arena arena_;
  std::vector<ir::Op> ops_;
  std::vector<ir::NodeState> states_{1};
  std::vector<std::string> callables_{1};
  std::unordered_map<std::string, uint32_t> callable_index_;
  std::vector<ir::Input> inputs_;
  std::vector<LoggedValue*> values_;
  std::vector<LoggedCall*> calls_;
  std::vector<c10::IValue> boxed_;
};

}  // namespace flashpoint
