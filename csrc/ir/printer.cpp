#include "ir/printer.h"

#include <ATen/core/jit_type.h>

#include "ir/constants.h"
#include "ir/schema.h"

namespace flashpoint::ir {
namespace {

std::string op_text(const Op& op) {
  std::string text = op.name;
  for (size_t at = text.find("::"); at != std::string::npos; at = text.find("::")) text.replace(at, 2, ".");
  return op.overload.empty() ? text : text + "." + op.overload;
}

class Printer {
 public:
  explicit Printer(const Graph& graph) : graph_(graph), schemas_(graph.ops.size(), nullptr) {
    for (size_t i = 0; i < graph.ops.size(); ++i) schemas_[i] = find_schema(graph.ops[i]);
  }

  std::string run() {
    out_ = "graph " + graph_.name + "(";
    for (size_t i = 0; i < graph_.inputs.size(); ++i) {
      const Input& input = graph_.inputs[i];
      if (i > 0) out_ += ", ";
      value(input.value);
      out_ += ": ";
      type(input.value);
      if (input.source != static_cast<int32_t>(i)) out_ += " src=" + std::to_string(input.source);
    }
    out_ += ") {\n";
    for (const Node& node : graph_.nodes) print_node(node);
    out_ += "  return";
    for (size_t i = 0; i < graph_.outputs.size(); ++i) {
      out_ += i == 0 ? " " : ", ";
      value(graph_.outputs[i]);
    }
    out_ += "\n}\n";
    return std::move(out_);
  }

 private:
  void value(ValueId id) { out_ += "%" + std::to_string(id); }

  void type(ValueId id) {
    const Value& v = graph_.values[static_cast<size_t>(id)];
    switch (v.kind) {
      case ValueKind::kTensor:
        return print_meta(out_, v.meta);
      case ValueKind::kInt:
        out_ += "int";
        return;
      case ValueKind::kFloat:
        out_ += "float";
        return;
      case ValueKind::kBool:
        out_ += "bool";
        return;
    }
  }

  void print_arg(const Arg& arg, const c10::Type* type) {
    switch (arg.kind) {
      case Arg::Kind::kValue:
        return value(arg.value);
      case Arg::Kind::kConstant:
        return print_constant(out_, arg.constant, type);
      case Arg::Kind::kWrapped:
        out_ += "wrap(";
        print_constant(out_, arg.constant, nullptr);
        out_ += ')';
        return;
      case Arg::Kind::kList:
        out_ += '[';
        for (size_t i = 0; i < arg.list.size(); ++i) {
          if (i > 0) out_ += ", ";
          print_arg(arg.list[i], nullptr);
        }
        out_ += ']';
        return;
    }
  }

  template <typename Each>
  void print_outputs(const Node& node, Each&& each) {
    bool first = true;
    for (const Output& output : node.outputs) {
      if (!first) out_ += ", ";
      first = false;
      if (output.is_list) out_ += '[';
      for (int32_t i = 0; i < output.count; ++i) {
        if (i > 0) out_ += ", ";
        each(output.first + i);
      }
      if (output.is_list) out_ += ']';
    }
  }

  void print_state(const Node& node) {
    const NodeState& state = graph_.states[node.state];
    std::string text;
    const auto item = [&](const std::string& one) { text += (text.empty() ? "" : ", ") + one; };
    if (!state.grad) item("grad=off");
    if (state.inference) item("inference=on");
    if (state.base) item("base=on");
    if (!state.autocast.empty()) {
      std::string list;
      for (const Autocast& autocast : state.autocast) {
        list += (list.empty() ? "" : "+") + std::string(device_type_name(autocast.device)) + ":" +
                dtype_name(autocast.dtype);
      }
      item("autocast=" + list);
    }
    if (!state.autocast_cache) item("cache=off");
    if (state.flags) item("flags=" + flag_names(*state.flags));
    if (!node.mutates.empty()) {
      std::string list;
      for (ValueId id : node.mutates) list += (list.empty() ? "%" : ", %") + std::to_string(id);
      item("mutates=[" + list + "]");
    }
    if (!text.empty()) out_ += " {" + text + "}";
  }

  void print_node(const Node& node) {
    out_ += "  ";
    if (!node.outputs.empty()) {
      print_outputs(node, [&](ValueId id) { value(id); });
      out_ += " = ";
    }
    out_ += op_text(graph_.ops[node.op]) + "(";
    const c10::FunctionSchema* schema = schemas_[node.op];
    for (size_t i = 0; i < node.args.size(); ++i) {
      if (i > 0) out_ += ", ";
      const c10::Type* arg_type = nullptr;
      if (schema != nullptr && i < schema->arguments().size()) {
        const auto& argument = schema->arguments()[i];
        if (argument.kwarg_only()) out_ += argument.name() + "=";
        arg_type = argument.real_type().get();
      }
      print_arg(node.args[i], arg_type);
    }
    out_ += ')';
    if (!node.outputs.empty()) {
      out_ += " : ";
      print_outputs(node, [&](ValueId id) { type(id); });
    }
    print_state(node);
    if (node.callable != 0) out_ += " @" + graph_.strings[node.callable];
    if (node.location != 0) out_ += "  # " + graph_.strings[node.location];
    out_ += '\n';
  }

  const Graph& graph_;
  std::vector<const c10::FunctionSchema*> schemas_;
  std::string out_;
};

void print_dims(std::string& out, const Dims& dims) {
  out += '[';
  for (size_t i = 0; i < dims.size(); ++i) {
    if (i > 0) out += ',';
    out += std::to_string(dims[i]);
  }
  out += ']';
}

}  // namespace

std::string print(const Graph& graph) { return Printer(graph).run(); }

void print_meta(std::string& out, const TensorMeta& meta) {
  if (!meta.defined()) {
    out += "undef";
    return;
  }
  const char* dtype = dtype_name(meta.dtype);
  out += dtype != nullptr ? dtype : "unknown";
  print_dims(out, meta.sizes);
  if (meta.layout == c10::kStrided && meta.strides != contiguous_strides(meta.sizes)) {
    out += ':';
    print_dims(out, meta.strides);
  }
  out += ' ';
  out += device_name(meta.device);
  if (meta.layout != c10::kStrided) out += std::string(" ") + layout_name(meta.layout);
  if (meta.requires_grad) out += " grad";
  if (meta.conj) out += " conj";
  if (meta.neg) out += " neg";
}

TensorMeta meta_of(const at::TensorBase& tensor) {
  TensorMeta meta;
  if (!tensor.defined()) return meta;
  meta.dtype = tensor.scalar_type();
  meta.device = tensor.device();
  meta.layout = tensor.layout();
  meta.requires_grad = tensor.requires_grad();
  meta.conj = tensor.is_conj();
  meta.neg = tensor.is_neg();
  const auto sizes = tensor.sizes();
  meta.sizes.assign(sizes.begin(), sizes.end());
  if (meta.layout == c10::kStrided) {
    const auto strides = tensor.strides();
    meta.strides.assign(strides.begin(), strides.end());
  }
  return meta;
}

}  // namespace flashpoint::ir
