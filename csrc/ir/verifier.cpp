#include "ir/verifier.h"

#include <ATen/core/jit_type.h>

#include <algorithm>

#include "ir/constants.h"
#include "ir/schema.h"

namespace flashpoint::ir {
namespace {

struct Violation {
  std::string text;
};

class Verifier {
 public:
  explicit Verifier(const Graph& graph) : graph_(graph) {}

  void run() {
    for (const Input& input : graph_.inputs) define(input.value, kNoNode);
    for (size_t i = 0; i < graph_.nodes.size(); ++i) {
      where_ = "node " + std::to_string(i);
      check_node(graph_.nodes[i], static_cast<int32_t>(i));
    }
    where_ = "graph";
    require(defined_ == static_cast<ValueId>(graph_.values.size()), "values that nothing defines");
    for (ValueId id : graph_.outputs) use(id);
  }

 private:
  void require(bool condition, const std::string& text) {
    if (!condition) throw Violation{where_ + ": " + text};
  }

  void define(ValueId id, int32_t node) {
    require(id == defined_, "value %" + std::to_string(id) + " is out of order");
    require(id < static_cast<ValueId>(graph_.values.size()), "value id out of range");
    require(graph_.values[static_cast<size_t>(id)].node == node, "wrong producer of %" + std::to_string(id));
    ++defined_;
  }

  const Value& use(ValueId id) {
    require(id >= 0 && id < defined_, "%" + std::to_string(id) + " is used before it is defined");
    return graph_.values[static_cast<size_t>(id)];
  }

  void check_node(const Node& node, int32_t index) {
    require(node.op < graph_.ops.size() && node.state < graph_.states.size() &&
                node.location < graph_.strings.size() && node.callable < graph_.strings.size(),
            "table index out of range");
    const Op& op = graph_.ops[node.op];
    where_ += " (" + op.name + (op.overload.empty() ? "" : "." + op.overload) + ")";
    const c10::FunctionSchema* schema = find_schema(op);
    require(schema != nullptr, "unknown operator");
    require(node.args.size() == schema->arguments().size(), "has " + std::to_string(node.args.size()) +
                                                                " arguments, its schema " +
                                                                std::to_string(schema->arguments().size()));
    const bool literals = pseudo_op(op).has_value();
    for (size_t i = 0; i < node.args.size(); ++i) {
      const auto& argument = schema->arguments()[i];
      require(fits(node.args[i], *argument.real_type(), literals),
              "argument '" + argument.name() + "' is no " + argument.real_type()->str());
    }
    require(node.outputs.size() == schema->returns().size(), "wrong number of outputs");
    for (size_t i = 0; i < node.outputs.size(); ++i) {
      const Output& output = node.outputs[i];
      const auto kind = schema->returns()[i].real_type()->kind();
      require(output.is_list == (kind == c10::TypeKind::ListType), "list output against the schema");
      require(output.is_list ? output.count >= 0 : output.count == 1, "wrong output count");
      for (int32_t k = 0; k < output.count; ++k) define(output.first + k, index);
    }
    require(std::is_sorted(node.mutates.begin(), node.mutates.end()), "mutates is not sorted");
    for (ValueId id : node.mutates) {
      require(use(id).node == kNoNode, "mutates names %" + std::to_string(id) + ", which is no input");
    }
  }

  bool fits(const Arg& arg, const c10::Type& type, bool literals) {
    using c10::TypeKind;
    if (auto* optional = type.castRaw<c10::OptionalType>()) {
      if (arg.kind == Arg::Kind::kConstant && arg.constant.isNone()) return true;
      return fits(arg, *optional->getElementType(), literals);
    }
    switch (arg.kind) {
      case Arg::Kind::kValue:
        return value_fits(use(arg.value), type);
      case Arg::Kind::kWrapped:
        return type.kind() == TypeKind::TensorType && (arg.constant.isScalar() || arg.constant.isBool());
      case Arg::Kind::kList: {
        const auto* list = type.castRaw<c10::ListType>();
        return list != nullptr && std::all_of(arg.list.begin(), arg.list.end(), [&](const Arg& item) {
                 return fits(item, *list->getElementType(), literals);
               });
      }
      case Arg::Kind::kConstant:
        return constant_fits(arg.constant, type, literals);
    }
    return false;
  }

  static bool value_fits(const Value& value, const c10::Type& type) {
    const auto kind = type.kind();
    switch (value.kind) {
      case ValueKind::kTensor:
        return kind == c10::TypeKind::TensorType;
      // In a tensor's place a number becomes a 0-dim tensor of weak dtype.
      case ValueKind::kInt:
        return kind == c10::TypeKind::IntType || kind == c10::TypeKind::SymIntType ||
               kind == c10::TypeKind::NumberType || kind == c10::TypeKind::TensorType;
      case ValueKind::kFloat:
        return kind == c10::TypeKind::FloatType || kind == c10::TypeKind::NumberType ||
               kind == c10::TypeKind::TensorType;
      case ValueKind::kBool:
        return kind == c10::TypeKind::BoolType || kind == c10::TypeKind::NumberType;
    }
    return false;
  }

  static bool constant_fits(const c10::IValue& constant, const c10::Type& type, bool literals) {
    using c10::TypeKind;
    switch (type.kind()) {
      case TypeKind::TensorType:
        // A tensor literal belongs to a pseudo-operator; elsewhere only the undefined tensor is a constant.
        return constant.isTensor() && (literals || !constant.toTensor().defined());
      case TypeKind::IntType:
      case TypeKind::SymIntType:
      case TypeKind::ScalarTypeType:
      case TypeKind::LayoutType:
      case TypeKind::MemoryFormatType:
        return constant.isInt();
      case TypeKind::FloatType:
        return constant.isDouble();
      case TypeKind::BoolType:
        return constant.isBool();
      case TypeKind::NumberType:
        return constant.isScalar();
      case TypeKind::StringType:
        return constant.isString();
      case TypeKind::DeviceObjType:
        return constant.isDevice();
      case TypeKind::GeneratorType:
        return constant.isGenerator();
      case TypeKind::ListType:
        return constant.isIntList() || constant.isDoubleList() || constant.isBoolList();
      default:
        return false;
    }
  }

  const Graph& graph_;
  ValueId defined_ = 0;
  std::string where_ = "graph";
};

}  // namespace

std::string verify(const Graph& graph) {
  try {
    Verifier(graph).run();
  } catch (const Violation& violation) {
    return violation.text;
  }
  return {};
}

}  // namespace flashpoint::ir
