#include "backend/native/program.h"

#include <ATen/core/Tensor.h>

#include <atomic>
#include <mutex>

#include "backend/eager/program.h"
#include "backend/native/expand.h"
#include "backend/native/jit.h"
#include "backend/native/kernel_call.h"
#include "backend/native/losses.h"
#include "base/check.h"
#include "base/counters.h"
#include "base/log.h"
#include "ir/printer.h"
#include "ir/schema.h"
#include "ir/verifier.h"

namespace flashpoint::native {
namespace {

// In the scheduled graph an input's source is its position in the recorded graph.
std::optional<Schedule> schedule_of(ir::Graph graph, const ScheduleOptions& options) {
  for (size_t i = 0; i < graph.inputs.size(); ++i) graph.inputs[i].source = static_cast<int32_t>(i);
  graph = without_losses(without_foreach(graph));
  if (strict_mode()) {
    const std::string violation = ir::verify(graph);
    FP_CHECK(violation.empty(), violation);
  }
  const auto lowered = lower(graph);
  if (!lowered) return std::nullopt;
  Schedule result = schedule(graph, *lowered, options);
  if (strict_mode()) {
    const std::string violation = ir::verify(result.graph);
    FP_CHECK(violation.empty(), violation);
  }
  return result;
}

eager::Options executor_options(const ScheduleOptions& options) {
  eager::Options result;
  result.poison_empty = options.poison_empty;
  result.functions = options.functions;
  return result;
}

// Saved by an operator that runs inside a kernel: its dispatch, and its walk over memory per element.
constexpr double kOperatorNanoseconds = 1000;
constexpr double kElementNanoseconds = 0.3;
constexpr double kKernelNanoseconds = 500;  // what calling a kernel costs

std::atomic<double> patience{0.1};

double saved_nanoseconds(const Schedule& schedule) {
  double saved = 0;
  for (const KernelSpec& spec : schedule.kernels) {
    const auto points = static_cast<double>(spec.kernel.rows()) * static_cast<double>(spec.kernel.columns());
    const double eager = spec.operators * (kOperatorNanoseconds + kElementNanoseconds * points);
    saved += std::max(0.0, eager - kKernelNanoseconds - kernel_nanoseconds(spec.kernel));
  }
  return saved;
}

// Per kernel node, by the number of its kernel: which inputs nobody uses afterwards.
std::vector<std::vector<bool>> dying_inputs(const Schedule& plan) {
  const ir::Graph& graph = plan.graph;
  std::vector<bool> used_later(graph.values.size());
  for (ir::ValueId id : graph.outputs) used_later[static_cast<size_t>(id)] = true;
  std::vector<std::vector<bool>> dying(plan.kernels.size());
  for (size_t i = graph.nodes.size(); i-- > 0;) {
    const ir::Node& node = graph.nodes[i];
    const auto pseudo = ir::pseudo_op(graph.ops[node.op]);
    if (pseudo == ir::PseudoOp::kernel || pseudo == ir::PseudoOp::update) {
      const auto& inputs = node.args[1].list;
      std::vector<bool>& of_kernel = dying[static_cast<size_t>(node.args[0].constant.toInt())];
      of_kernel.resize(inputs.size(), true);
      for (size_t k = 0; k < inputs.size(); ++k) {
        const auto same = [&](const ir::Arg& other) { return other.value == inputs[k].value; };
        if (used_later[static_cast<size_t>(inputs[k].value)] ||
            std::count_if(inputs.begin(), inputs.end(), same) > 1)
          of_kernel[k] = false;
      }
    }
    for (const ir::Arg& arg : node.args) {
      ir::for_each_value(arg, [&](ir::ValueId id) { used_later[static_cast<size_t>(id)] = true; });
    }
  }
  // Of a kernel whose node is gone, and of inputs that no node names.
  for (size_t i = 0; i < dying.size(); ++i) dying[i].resize(plan.kernels[i].inputs.size());
  return dying;
}

class Program final : public GraphProgram {
 public:
  Program(const ir::Graph& graph, const ScheduleOptions& options) : graph_(graph), options_(options) {}

  std::vector<at::Tensor> run(c10::ArrayRef<at::Tensor> inputs, RunStatus* status) const override {
    State state = state_.load(std::memory_order_acquire);
    // Compiling runs operators on meta tensors, which a mode of the user's must not see.
    if (state != State::kRecorded && !eager::dispatch_is_plain()) return recorded().run(inputs, status);
    if (state == State::kWaiting) state = consider();
    if (state != State::kNative || !as_recorded(inputs)) return recorded().run(inputs, status);
    std::vector<at::Tensor> used;
    used.reserve(inputs_.size());
    for (size_t i : inputs_) used.push_back(inputs[i]);
    return native_->run(used, status);
  }

  size_t node_count() const override { return graph_.nodes.size(); }

 private:
  enum class State : uint8_t {
    kWaiting,   // runs the recorded operators, and counts what kernels could have saved
    kRecorded,  // for good
    kNative,
  };

  const eager::Program& recorded() const {
    std::call_once(once_, [&] {
      recorded_ = std::make_unique<eager::Program>(eager::compile(graph_, executor_options(options_)));
    });
    return *recorded_;
  }

  // Once per run until it is decided. A thread that finds another one here does not wait: it may hold the GIL
  // that an operator on meta tensors asks for.
  State consider() const {
    const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
    if (!lock.owns_lock()) return State::kWaiting;
    State state = state_.load(std::memory_order_relaxed);
    if (state != State::kWaiting) return state;
    try {
      if (!plan_) plan();
      ++runs_;
      if (!plan_) {
        state = State::kRecorded;
      } else if (1e-6 * saved_ * runs_ >= patience.load(std::memory_order_relaxed) * compile_ms_) {
        build();
        state = State::kNative;
      }
    } catch (const std::exception& e) {  // ours or LLVM's defect: the recorded operators still do it
      if (strict_mode()) check_failed("compiling a graph threw", __FILE__, __LINE__, e.what());
      ++counters().internal_errors;
      state = State::kRecorded;
    }
    if (state != State::kWaiting) plan_.reset();
    state_.store(state, std::memory_order_release);
    return state;
  }

  void plan() const {
    auto made = schedule_of(graph_, options_);
    if (!made || made->kernels.empty()) return;
    saved_ = saved_nanoseconds(*made);
    std::vector<Kernel> kernels;
    for (const KernelSpec& spec : made->kernels) kernels.push_back(spec.kernel);
    compile_ms_ = compile_milliseconds(kernels);
    // Code that another process generated costs nothing: no run has to pay for it first.
    if (compile_ms_ > 0) stored_ = find_stored(kernels);
    if (!stored_.object.empty()) compile_ms_ = 0;
    plan_ = std::make_unique<Schedule>(std::move(*made));
  }

  void build() const {
    std::vector<Kernel> kernels;
    for (const KernelSpec& spec : plan_->kernels) kernels.push_back(spec.kernel);
    CompileStats stats;
    const auto functions = compile_kernels(kernels, &stats, &stored_);
    stored_ = {};
    eager::Options options = executor_options(options_);
    const auto dying = dying_inputs(*plan_);
    for (size_t i = 0; i < functions.size(); ++i) {
      options.kernels.push_back(std::make_shared<KernelCall>(plan_->kernels[i], functions[i], dying[i]));
    }
    for (const ir::Input& input : plan_->graph.inputs) inputs_.push_back(static_cast<size_t>(input.source));
    numbers_ = std::move(plan_->numbers);
    native_ = std::make_unique<eager::Program>(eager::compile(plan_->graph, options));
    counters().kernels_compiled += static_cast<uint64_t>(stats.compiled);
    counters().kernels_reused += static_cast<uint64_t>(stats.reused);
    counters().ops_lowered += plan_->operators_lowered;
    if (log_enabled(LogKind::kNative)) {
      log_line("native " + graph_.name + ": " + std::to_string(plan_->operators_lowered) + " of " +
               std::to_string(graph_.nodes.size()) + " ops in " + std::to_string(kernels.size()) +
               " kernels (" + std::to_string(stats.compiled) + " new, " + std::to_string(stats.loaded) +
               " from the store), emit " + std::to_string(stats.emit_ms) + " ms, codegen " +
               std::to_string(stats.codegen_ms) + " ms, link " + std::to_string(stats.link_ms) + " ms");
    }
  }

  bool as_recorded(c10::ArrayRef<at::Tensor> inputs) const {
    if (inputs.size() != graph_.inputs.size()) return false;
    for (size_t i = 0; i < inputs.size(); ++i) {
      const ir::Value& value = graph_.values[static_cast<size_t>(graph_.inputs[i].value)];
      if (value.kind != ir::ValueKind::kTensor) continue;
      const ir::TensorMeta& meta = value.meta;
      const at::Tensor& t = inputs[i];
      if (t.defined() != meta.defined()) return false;
      if (!t.defined()) continue;
      if (t.scalar_type() != meta.dtype || t.layout() != meta.layout ||
          t.device().type() != meta.device.type() || t.requires_grad() != meta.requires_grad ||
          t.is_conj() != meta.conj || t.is_neg() != meta.neg ||
          t.unsafeGetTensorImpl()->is_python_dispatch() || t.sizes() != at::IntArrayRef(meta.sizes)) {
        return false;
      }
      if (meta.layout == c10::kStrided && t.strides() != at::IntArrayRef(meta.strides)) return false;
    }
    // A number that an operator would refuse: it is to refuse it where it stands.
    return std::all_of(numbers_.begin(), numbers_.end(),
                       [&](const NumberUse& use) { return number_fits(inputs[use.input], use.dtype); });
  }

  const ir::Graph& graph_;
  const ScheduleOptions options_;
  mutable std::once_flag once_;
  mutable std::unique_ptr<eager::Program> recorded_;
  mutable std::atomic<State> state_{State::kWaiting};
  mutable std::mutex mutex_;  // of what follows, until the state is decided
  mutable std::unique_ptr<Schedule> plan_;
  mutable StoredObject stored_;
  mutable double saved_ = 0;  // by a run
  mutable double compile_ms_ = 0;
  mutable double runs_ = 0;
  mutable std::unique_ptr<eager::Program> native_;
  mutable std::vector<size_t> inputs_;  // positions of those the scheduled graph uses
  mutable std::vector<NumberUse> numbers_;
};

}  // namespace

void set_patience(double share) { patience.store(share, std::memory_order_relaxed); }

std::unique_ptr<GraphProgram> compile(const ir::Graph& graph, const ScheduleOptions& options) {
  return std::make_unique<Program>(graph, options);
}

Stages stages(const ir::Graph& graph, const ScheduleOptions& options) {
  Stages result;
  const ir::Graph numbered = without_losses(without_foreach(graph));
  const auto lowered = lower(numbered);
  if (!lowered) return result;
  result.lowered = lowered->text(numbered);
  const Schedule plan = schedule(numbered, *lowered, options);
  result.scheduled = ir::print(plan.graph);
  for (const KernelSpec& spec : plan.kernels) {
    result.kernels += spec.kernel.text();
    result.llvm += llvm_text(spec.kernel);
  }
  return result;
}

}  // namespace flashpoint::native
