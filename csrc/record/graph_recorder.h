// Builds an ir::Graph from the operators one thread runs while a TracerScope on the recorder is alive.
//
// The program runs for real; the recorder watches. Tensors that come from outside are declared with
// register_input (or, for literals built without operators, register_constant); every operator whose
// tensors are all known becomes a node. Whatever a graph could not repeat ends the recording with an
// enumerated reason: from then on operators just run, and finish() returns null.
//
// Invariants
//  - Never changes what the program does, keeps no tensor alive, and lets no exception of its own out.
//  - A value is used only while its tensor matches its seal (record/seal.h).
//  - Value ids given out while recording are the recorder's own; finish() renumbers. Outputs and inputs are
//    found again by position: outputs in the order marked, inputs by Input::source.
//
// Callers: the capture driver (register, mark, finish) and, through TracerScope, the dispatcher.
// Threads and GIL: all calls on the thread that made it. record() runs with the GIL released, finish() is
// called with it; nothing here touches Python objects.
#pragma once

#include <ATen/core/TensorBase.h>
#include <c10/util/ArrayRef.h>

#include <array>
#include <memory>
#include <string>
#include <thread>
#include <unordered_map>
#include <unordered_set>

#include "ir/graph.h"
#include "ir/schema.h"
#include "record/graph_breaks.h"
#include "record/identity_table.h"
#include "record/op_log.h"
#include "record/tracer_mode.h"

namespace at {
class Tensor;
}

namespace flashpoint {

class GraphRecorder final : public TracerSink {
 public:
  struct Options {
    int32_t max_nodes = 200'000;
    int64_t max_constant_bytes = int64_t{1} << 20;
    bool* observing = nullptr;  // cleared while an operator runs: Python code of kernels is not recorded
    bool expect_values = false;
    bool may_stop = true;                         // a run may end where a value is not the recorded one
    TracerLevel level = TracerLevel::kComposite;  // that of the TracerScope it is used with
    PositionSource* positions = nullptr;          // outlives the recorder
  };

  GraphRecorder();
  explicit GraphRecorder(const Options& options);
  ~GraphRecorder() override;

  // Declares a tensor from outside. The first registration of a tensor keeps its source; metadata is
  // taken now. A tensor the graph already knows is left as it is. False when it cannot be recorded.
  bool register_input(const at::Tensor& tensor, int source);

  // Declares a tensor whose data is a literal: it becomes a `flashpoint.constant` node with a copy of the
  // data, at this point of the graph. Build it under NoTracerDispatchMode. Returns the value, -1 on break.
  ir::ValueId register_constant(const at::Tensor& tensor);

  // What happens to tensors without an operator, in two steps where it changes them: `check_operand` before
  // (known and as it was left; breaks otherwise), the note once it is done.
  bool check_operand(const at::Tensor& tensor, const char* what);
  void note_data(const at::Tensor& tensor, const at::Tensor& data);      // data = tensor.data
  void note_set_data(const at::Tensor& tensor, const at::Tensor& data);  // tensor.data = data

  // Values that the program reads (a truth, a number, sizes that depend on data) are constants of the graph
  // behind a node that ends a run where they differ: allowed while no input has been written to. Reads that
  // show at the dispatcher need only the question; the others are told. False: the recording must break.
  bool may_expect() const;
  bool may_expect_number() const;  // of a tensor with one element
  // While on, also without Options::expect_values: where the program raises unless the value is as it
  // expects, and where a control-flow operator chooses by it.
  void set_asserts(bool on) { asserts_ = on; }
  bool asserts() const { return asserts_; }
  bool expect_late(ir::ValueId value, const c10::IValue& number);  // of a number that the graph made
  bool expect_values(const at::Tensor& tensor);                    // of all its elements
  bool expect_shape(const at::Tensor& tensor, bool only_dims);     // afterwards it depends on data no more
  // Where each expectation was met, by the site its node names.
  const std::vector<ProgramPosition>& sites() const { return sites_; }
  void set_site_source(PositionSource* source) { site_source_ = source; }

  // Numbers that replay computes anew. Which argument of the operators recorded since node `first` is this
  // number of the program's: null unless there is exactly one, whose value decides about no shape, type or
  // identity of a result. Then `bind_number` makes it an input of the graph. A literal made of the number
  // becomes an operator's result.
  struct NumberUse {
    bool is_float = false;
    int64_t integer = 0;
    double real = 0;
    int argument = -1;  // its place among the arguments of the only operator; -1: one of the first two
    const char* keyword = nullptr;  // its name there; `argument` says nothing then
    bool literal = false;           // it is what the only `flashpoint.constant` holds
    int element = -1;               // of that argument, a list
    bool as_tensor = false;         // a tensor without dimensions may stand for it
  };
  LoggedArg* find_number(int32_t first, const NumberUse& use);
  // False where no operator may take one.
  bool may_feed_numbers() const;
  static void bind_number(LoggedArg& arg, ir::ValueId value);

  // Late numbers (graph_late.cpp): what `item()` reads, and arithmetic on it, as nodes of the graph.
  bool may_note_item(const at::Tensor& tensor) const;
  ir::ValueId note_item(const at::Tensor& tensor, bool is_float);
  // A number as an operand of such arithmetic: a value of the graph, or the constant.
  struct NumberOperand {
    ir::ValueId value = ir::kNoValue;
    c10::IValue constant = {};
  };
  ir::ValueId note_number(const char* operation, bool is_float, c10::ArrayRef<NumberOperand> operands);
  ir::ValueId number_input(bool is_float, int32_t source);
  // The number leaves the graph. Returns its output position.
  int mark_number(ir::ValueId value);

  // Between the two a call runs that stays a call: the nodes in between are dropped, and the results are
  // those of a `flashpoint.host_call`.
  void begin_hosted();
  void end_hosted(int64_t function, c10::ArrayRef<at::Tensor> inputs, c10::ArrayRef<at::Tensor> outputs);
  bool wrote_input() const { return wrote_input_; }

  // While on, `x[i] = 5.0` or `x[[0, 2]]` is being run: the tensors that numbers and lists of numbers become
  // are literals. Only for an instruction whose Python operands are known to be plain numbers, since nothing
  // tells such a tensor from data of unknown origin.
  void set_number_store(bool on) { number_store_ = on; }

  // Base level: a tensor is also known by its memory, and a functorch wrapper by what it wraps.
  // The newest value that names the tensor; -1 when it is unknown.
  ir::ValueId value_of(const at::Tensor& tensor) const;
  bool is_known(const at::Tensor& tensor) const { return value_of(tensor) >= 0; }
  // The source of a registered input, -1 for anything else.
  int source_of(const at::Tensor& tensor) const;
  // Whether the value's shape depends on data: then it must not be taken for a constant.
  bool has_dynamic_shape(ir::ValueId value) const;

  // Compares a known tensor with its seal, at an escape; breaks when they differ.
  bool check_seal(const at::Tensor& tensor);
  // The tensor leaves the graph here. Returns its output position, -1 on break.
  int mark_output(const at::Tensor& tensor);

  bool* observing() const { return options_.observing; }
  bool is_base() const { return options_.level == TracerLevel::kBase; }

  // Whether an operator that may raise because of a size that depends on data follows a write to an input.
  // Once it is finished: whether something may fail behind a write, and where in the program that is, if
  // known.
  bool may_fail_after_write() const { return may_misfit_ || may_raise_after_write_; }
  ProgramPosition failing_position() const { return failing_position_; }
  const std::string& failing_operator() const { return failing_operator_; }

  int32_t node_count() const { return log_.call_count(); }
  // Names the torch-level callable of which node `index` is the only operator.
  void label_node(int32_t index, std::string_view callable);
  // The operator's traits, for callers that decide on effects; null for pseudo-operators.
  const ir::OpTraits* traits_of_node(int32_t index) const;

  // Lets go of every tensor it knows of: the recording is over, and weak references could be seen.
  void forget_tensors() { table_.clear(); }

  bool broken() const { return break_ != GraphBreak::none; }
  GraphBreak break_reason() const { return break_; }
  const std::string& break_detail() const { return break_detail_; }  // operator and argument, for messages
  ProgramPosition break_position() const { return break_position_; }
  void break_off(GraphBreak reason, std::string detail);  // the first reason stays

  // Process-wide settings the recording ran under (ir::global_flags); whoever keeps the graph guards them.
  uint64_t global_flags() const { return global_flags_; }

  // Ends the recording: marks `outputs`, checks every input's seal, drops dead code. Null when broken.
  // Graph inputs are the used ones; Graph::mutated_inputs() says which are written.
  std::unique_ptr<ir::Graph> finish(c10::ArrayRef<at::Tensor> outputs = {});

  void record(const c10::OperatorHandle& op, c10::DispatchKeySet keys,
              std::vector<c10::IValue>* stack) override;

 private:
  struct OpInfo;
  struct Call;

  const OpInfo& info_of(const c10::OperatorHandle& op);
  void check_dispatch_keys(const OpInfo& info);
  void check_base_keys(const std::string& name);
  IdentityTable::Index lookup(const at::Tensor& tensor) const;
  ir::ValueId name_escape(const at::Tensor& tensor);
  bool ambient_is_plain(const OpInfo& info);
  bool is_number_store(const OpInfo& info, const std::vector<c10::IValue>& stack);
  bool is_literal_fill(const OpInfo& info, const std::vector<c10::IValue>& stack) const;
  bool begin_call(const c10::OperatorHandle& op, const std::vector<c10::IValue>& stack, Call& call);
  bool note(const c10::IValue& value, bool written, Call& call, LoggedArg& arg);
  bool note_tensor(const c10::IValue& value, bool written, Call& call, LoggedArg& arg);
  void end_call(const std::vector<c10::IValue>& stack, Call& call);
  void note_state();
  void settle_mutations(Call& call);
  bool add_output(const c10::IValue& value, Call& call, int32_t node, LoggedOutput& output);
  void add_output_tensor(const at::Tensor& tensor, Call& call, int32_t node);
  bool is_recordable(const at::TensorBase& tensor, const char* what);
  bool seal_holds(IdentityTable::Index index, const char* what);
  ir::ValueId add_value(const at::TensorBase& tensor, int32_t node, bool dynamic);

  static constexpr std::array<int32_t, ir::kPseudoOps> no_pseudo_ops() {
    std::array<int32_t, ir::kPseudoOps> none{};
    none.fill(-1);
    return none;
  }
  int32_t pseudo_op(ir::PseudoOp op);
  LoggedArg* open_literal(int32_t first, const NumberUse& use);
  int32_t detach_op();
  LoggedCall* begin_pseudo(ir::PseudoOp op, size_t arguments, size_t outputs);
  void note_operand(const at::Tensor& tensor, LoggedArg& arg);
  LoggedCall* begin_expectation(ir::PseudoOp op, const at::Tensor& tensor);
  void expect_number(const at::Tensor& tensor, const c10::IValue& number);

  Options options_;
  std::thread::id thread_;
  int graph_task_;
  size_t saved_tensor_hooks_;  // on this thread's stack when the recording began
  // The log's op indices of pseudo-operators, once there are any.
  std::array<int32_t, ir::kPseudoOps> pseudo_ops_ = no_pseudo_ops();
  OpLog log_;
  IdentityTable table_;
  std::vector<ir::ValueId> outputs_;
  std::vector<bool> dynamic_;                            // per value
  std::vector<std::unique_ptr<OpInfo>> infos_;           // by the log's op index; null for pseudo-operators
  std::unordered_map<const void*, int32_t> info_index_;  // by the address of the operator's name
  ir::StateReader state_reader_;
  uint32_t state_ = 0;
  uint64_t global_flags_ = 0;
  uint64_t flags_ = 0;        // at the newest operator
  uint64_t state_flags_ = 0;  // those of state_
  GraphBreak break_ = GraphBreak::none;
  std::string break_detail_;
  ProgramPosition break_position_;
  std::vector<ProgramPosition> sites_;
  PositionSource* site_source_ = nullptr;
  int32_t hosted_from_ = -1;  // first node of a call that stays one
  bool finished_ = false;
  std::unordered_set<ir::ValueId> names_escapes_;  // values that tensors known by their memory were given
  int32_t detach_op_ = -1;
  bool base_inference_ = false;  // whether a recording at base level began in inference mode
  bool number_store_ = false;
  bool wrote_input_ = false;
  bool may_misfit_ = false;
  bool may_raise_after_write_ = false;
  std::vector<std::pair<uint32_t, ProgramPosition>>
      raising_;  // operators (their index) behind a write that may
  ProgramPosition failing_position_;
  std::string failing_operator_;
  bool asserts_ = false;
};

}  // namespace flashpoint
