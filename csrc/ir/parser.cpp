#include "ir/parser.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/Tensor.h>
#include <ATen/core/jit_type.h>

#include <algorithm>
#include <limits>
#include <unordered_map>

#include "ir/constants.h"
#include "ir/cursor.h"
#include "ir/schema.h"
#include "ir/tensor_literal.h"

namespace flashpoint::ir {
namespace {

const c10::Type* without_optional(const c10::Type* type) {
  if (auto* optional = type->castRaw<c10::OptionalType>())
    return without_optional(optional->getElementType().get());
  return type;
}

bool is_number_char(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '.' || c == '-' || c == '+';
}

class Parser {
 public:
  explicit Parser(std::string_view text) : in_(text) {}

  Graph run() {
    in_.skip_empty_lines();
    keyword("graph");
    graph_.name = in_.word();
    in_.expect('(');
    while (!in_.accept(')')) {
      if (!graph_.inputs.empty()) in_.expect(',');
      parse_input();
    }
    in_.expect('{');
    in_.end_of_line();
    for (;;) {
      in_.skip_empty_lines();
      if (in_.peek_word() == "return") break;
      parse_node();
    }
    in_.word();
    while (in_.peek() == '%') {
      graph_.outputs.push_back(use());
      if (!in_.accept(',')) break;
    }
    in_.end_of_line();
    in_.skip_empty_lines();
    in_.expect('}');
    in_.skip_empty_lines();
    if (in_.peek() != '\0') in_.fail("text after the graph");
    return std::move(graph_);
  }

 private:
  void keyword(std::string_view wanted) {
    if (in_.word() != wanted) in_.fail("expected '" + std::string(wanted) + "'");
  }

  int64_t number() {
    in_.expect('%');
    return in_.integer();
  }

  ValueId use() {
    const int64_t n = number();
    const auto it = ids_.find(n);
    if (it == ids_.end()) in_.fail("%" + std::to_string(n) + " is not defined");
    return it->second;
  }

  ValueId define(int64_t n, Value value) {
    const ValueId id = graph_.add_value(std::move(value));
    if (!ids_.emplace(n, id).second) in_.fail("%" + std::to_string(n) + " is defined twice");
    return id;
  }

  void parse_input() {
    const int64_t n = number();
    in_.expect(':');
    Value value = parse_type();
    Input input;
    input.value = define(n, std::move(value));
    input.source = static_cast<int32_t>(graph_.inputs.size());
    if (in_.peek_word() == "src") {
      in_.word();
      in_.expect('=');
      input.source = static_cast<int32_t>(in_.integer());
    }
    graph_.inputs.push_back(input);
  }

  Dims parse_dims() {
    Dims dims;
    in_.expect('[');
    while (!in_.accept(']')) {
      if (!dims.empty()) in_.expect(',');
      dims.push_back(in_.integer());
    }
    return dims;
  }

  c10::Device parse_device(std::string_view name) {
    const auto type = device_type_of(name);
    if (!type) in_.fail("unknown device '" + std::string(name) + "'");
    if (in_.raw() != ':') return c10::Device(*type);
    in_.expect(':');
    return c10::Device(*type, static_cast<c10::DeviceIndex>(in_.integer()));
  }

  Value parse_type() {
    Value value;
    const auto word = in_.word();
    if (in_.raw() != '[') {
      if (word == "int")
        value.kind = ValueKind::kInt;
      else if (word == "float")
        value.kind = ValueKind::kFloat;
      else if (word == "bool")
        value.kind = ValueKind::kBool;
      else if (word != "undef")
        in_.fail("unknown type '" + std::string(word) + "'");
      return value;
    }
    const auto dtype = dtype_of(word);
    if (!dtype) in_.fail("unknown dtype '" + std::string(word) + "'");
    TensorMeta& meta = value.meta;
    meta.dtype = *dtype;
    meta.sizes = parse_dims();
    const bool explicit_strides = in_.raw() == ':';
    if (explicit_strides) {
      in_.expect(':');
      meta.strides = parse_dims();
      if (meta.strides.size() != meta.sizes.size()) in_.fail("sizes and strides differ in length");
    }
    meta.device = parse_device(in_.word());
    for (;;) {
      const auto flag = in_.peek_word();
      if (flag == "grad")
        meta.requires_grad = true;
      else if (flag == "conj")
        meta.conj = true;
      else if (flag == "neg")
        meta.neg = true;
      else if (const auto layout = layout_of(flag))
        meta.layout = *layout;
      else
        break;
      in_.word();
    }
    if (!explicit_strides && meta.layout == c10::kStrided) meta.strides = contiguous_strides(meta.sizes);
    return value;
  }

  std::string parse_string() {
    std::string text;
    in_.expect('"');
    for (;;) {
      char c = in_.next_raw();
      if (c == '"') return text;
      if (c == '\n') in_.fail("string runs over the end of the line");
      if (c == '\\') {
        c = in_.next_raw();
        if (c == 'x') {
          const char digits[3] = {in_.next_raw(), in_.next_raw(), '\0'};
          int code = 0;
          if (std::from_chars(digits, digits + 2, code, 16).ptr != digits + 2) in_.fail("bad \\x escape");
          c = static_cast<char>(code);
        }
      }
      text.push_back(c);
    }
  }

  double parse_double(std::string_view token) {
    double value = 0;
    const auto end = token.data() + token.size();
    const auto result = std::from_chars(token.data(), end, value);
    if (result.ec == std::errc::result_out_of_range || result.ptr != end || token.empty()) {
      in_.fail("expected a number");
    }
    return value;
  }

  c10::IValue parse_number() {
    const auto token = in_.take(is_number_char);
    if (token == "nan") return std::numeric_limits<double>::quiet_NaN();
    if (token.find_first_of(".einf") != std::string_view::npos) return parse_double(token);
    int64_t value = 0;
    const auto end = token.data() + token.size();
    const auto result = std::from_chars(token.data(), end, value);
    if (result.ec != std::errc() || result.ptr != end) in_.fail("expected a number");
    return value;
  }

  c10::IValue parse_complex() {
    in_.expect('(');
    const double real = parse_number().toDouble();
    in_.expect(',');
    const double imag = parse_number().toDouble();
    in_.expect(')');
    return c10::complex<double>(real, imag);
  }

  c10::IValue parse_literal() {
    in_.expect('(');
    const Value type = parse_type();
    in_.expect(',');
    in_.expect('[');
    const bool is_unsigned_long = type.meta.dtype == c10::ScalarType::UInt64;
    std::vector<LiteralElement> elements;
    while (!in_.accept(']')) {
      if (!elements.empty()) in_.expect(',');
      LiteralElement element;
      if (in_.at_word() && in_.peek_word() != "inf" && in_.peek_word() != "nan") {
        element.integer = in_.word() == "true" ? 1 : 0;
      } else if (is_unsigned_long) {
        const auto token = in_.take(is_number_char);
        if (std::from_chars(token.data(), token.data() + token.size(), element.integer).ec != std::errc()) {
          in_.fail("expected an integer");
        }
      } else {
        const c10::IValue number = parse_number();
        if (number.isInt())
          element.integer = static_cast<uint64_t>(number.toInt());
        else
          element.real = number.toDouble();
      }
      elements.push_back(element);
    }
    in_.expect(')');
    auto tensor = build_literal(type.meta, elements);
    if (!tensor) in_.fail("elements do not fit the literal's type");
    return *tensor;
  }

  c10::IValue parse_name() {
    const auto word = in_.word();
    if (word == "None") return {};
    if (word == "true") return true;
    if (word == "false") return false;
    if (word == "inf") return std::numeric_limits<double>::infinity();
    if (word == "nan") return std::numeric_limits<double>::quiet_NaN();
    if (word == "undef") return at::Tensor();
    if (word == "complex") return parse_complex();
    if (word == "tensor") return parse_literal();
    if (word == "default_generator") return at::detail::getDefaultCPUGenerator();
    if (const auto dtype = dtype_of(word)) return static_cast<int64_t>(*dtype);
    if (const auto layout = layout_of(word)) return static_cast<int64_t>(*layout);
    if (const auto format = memory_format_of(word)) return static_cast<int64_t>(*format);
    return parse_device(word);
  }

  Arg parse_arg(const c10::Type* type) {
    const char c = in_.peek();
    if (c == '%') return Arg::of_value(use());
    if (c == '"') return Arg::of_constant(parse_string());
    if (c == '[') return parse_list(type);
    if (!in_.at_word()) return Arg::of_constant(parse_number());
    if (in_.peek_word() != "wrap") return Arg::of_constant(parse_name());
    in_.word();
    in_.expect('(');
    Arg inner = parse_arg(type);
    in_.expect(')');
    if (inner.kind != Arg::Kind::kConstant) in_.fail("wrap() takes a number");
    return Arg::wrapped(inner.constant);
  }

  Arg parse_list(const c10::Type* type) {
    const auto* list_type = without_optional(type)->castRaw<c10::ListType>();
    if (list_type == nullptr) in_.fail("a list where the schema has none");
    const c10::Type* element = list_type->getElementType().get();
    std::vector<Arg> items;
    in_.expect('[');
    while (!in_.accept(']')) {
      if (!items.empty()) in_.expect(',');
      items.push_back(parse_arg(element));
    }
    const auto all = [&](auto&& test) {
      return std::all_of(items.begin(), items.end(),
                         [&](const Arg& a) { return a.kind == Arg::Kind::kConstant && test(a.constant); });
    };
    const auto gather = [&](auto list, auto&& get) {
      for (const Arg& item : items) list.push_back(get(item.constant));
      return Arg::of_constant(std::move(list));
    };
    if (element->kind() == c10::TypeKind::IntType && all([](const auto& v) { return v.isInt(); })) {
      return gather(c10::List<int64_t>(), [](const auto& v) { return v.toInt(); });
    }
    if (element->kind() == c10::TypeKind::FloatType && all([](const auto& v) { return v.isDouble(); })) {
      return gather(c10::List<double>(), [](const auto& v) { return v.toDouble(); });
    }
    if (element->kind() == c10::TypeKind::BoolType && all([](const auto& v) { return v.isBool(); })) {
      return gather(c10::List<bool>(), [](const auto& v) { return v.toBool(); });
    }
    return Arg::of_list(std::move(items));
  }

  Op parse_op(std::string_view* schema_text, const c10::FunctionSchema** schema) {
    const auto text = in_.take(
        [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '.'; });
    *schema_text = text;
    // namespace.name, or namespace.name.overload; a namespace may itself have dots, so the longest wins.
    std::vector<size_t> dots;
    for (size_t i = 0; i < text.size(); ++i) {
      if (text[i] == '.') dots.push_back(i);
    }
    const auto with_colons = [](std::string_view part) {
      std::string name;
      for (char c : part) name += c == '.' ? std::string("::") : std::string(1, c);
      return name;
    };
    Op op{with_colons(text), ""};
    if ((*schema = find_schema(op)) != nullptr) return op;
    if (dots.size() >= 2) {
      op = Op{with_colons(text.substr(0, dots.back())), std::string(text.substr(dots.back() + 1))};
      if ((*schema = find_schema(op)) != nullptr) return op;
    }
    in_.fail("unknown operator '" + std::string(text) + "'");
  }

  void parse_args(Node& node, const c10::FunctionSchema& schema) {
    const auto& arguments = schema.arguments();
    std::vector<std::optional<Arg>> found(arguments.size());
    size_t position = 0;
    in_.expect('(');
    bool first = true;
    while (!in_.accept(')')) {
      if (!first) in_.expect(',');
      first = false;
      size_t index = position;
      const auto word = in_.peek_word();
      for (size_t i = 0; i < arguments.size() && !word.empty(); ++i) {
        if (arguments[i].kwarg_only() && arguments[i].name() == word) index = i;
      }
      if (index != position || (index < arguments.size() && arguments[index].kwarg_only())) {
        if (index >= arguments.size() || arguments[index].name() != word)
          in_.fail("expected a keyword argument");
        in_.word();
        in_.expect('=');
      } else {
        ++position;
      }
      if (index >= arguments.size()) in_.fail("too many arguments for " + schema.name());
      if (found[index]) in_.fail("argument '" + arguments[index].name() + "' given twice");
      found[index] = parse_arg(arguments[index].type().get());
    }
    for (size_t i = 0; i < arguments.size(); ++i) {
      if (!found[i]) {
        if (!arguments[i].default_value()) in_.fail("missing argument '" + arguments[i].name() + "'");
        found[i] = Arg::of_constant(*arguments[i].default_value());
      }
      node.args.push_back(std::move(*found[i]));
    }
  }

  void parse_state(Node& node) {
    NodeState state;
    while (!in_.accept('}')) {
      const auto key = in_.word();
      in_.expect('=');
      if (key == "mutates") {
        in_.expect('[');
        while (!in_.accept(']')) {
          if (!node.mutates.empty()) in_.expect(',');
          node.mutates.push_back(use());
        }
      } else if (key == "autocast") {
        do {
          const auto device = device_type_of(in_.word());
          in_.expect(':');
          const auto dtype = dtype_of(in_.word());
          if (!device || !dtype) in_.fail("bad autocast");
          state.autocast.push_back({*device, *dtype});
        } while (in_.accept('+'));
      } else if (key == "flags") {
        state.flags = 0;
        do {
          const auto name = in_.word();
          const auto flag = flag_of(name);
          if (!flag && name != "none") in_.fail("unknown flag '" + std::string(name) + "'");
          *state.flags |= flag.value_or(0);
        } while (in_.accept('+'));
      } else {
        const bool on = in_.word() == "on";
        if (key == "grad")
          state.grad = on;
        else if (key == "inference")
          state.inference = on;
        else if (key == "base")
          state.base = on;
        else if (key == "cache")
          state.autocast_cache = on;
        else
          in_.fail("unknown state '" + std::string(key) + "'");
      }
      in_.accept(',');
    }
    node.state = graph_.intern_state(state);
  }

  struct Named {
    bool is_list;
    std::vector<int64_t> numbers;
  };

  void parse_node() {
    std::vector<Named> names;
    if (in_.peek() == '%' || in_.peek() == '[') {
      do {
        Named named{in_.accept('['), {}};
        if (!named.is_list) {
          named.numbers.push_back(number());
        } else {
          while (!in_.accept(']')) {
            if (!named.numbers.empty()) in_.expect(',');
            named.numbers.push_back(number());
          }
        }
        names.push_back(std::move(named));
      } while (in_.accept(','));
      in_.expect('=');
    }
    Node node;
    std::string_view text;
    const c10::FunctionSchema* schema = nullptr;
    node.op = graph_.intern_op(parse_op(&text, &schema));
    parse_args(node, *schema);
    if (!names.empty()) parse_outputs(node, names);
    if (in_.accept('{')) parse_state(node);
    if (in_.accept('@')) {
      node.callable = graph_.intern_string(in_.take([](char c) { return c != ' ' && c != '\n'; }));
    }
    if (in_.accept('#')) node.location = graph_.intern_string(in_.rest_of_line());
    in_.end_of_line();
    graph_.nodes.push_back(std::move(node));
  }

  void parse_outputs(Node& node, const std::vector<Named>& names) {
    in_.expect(':');
    for (size_t i = 0; i < names.size(); ++i) {
      if (i > 0) in_.expect(',');
      Output output;
      output.is_list = names[i].is_list;
      output.first = static_cast<ValueId>(graph_.values.size());
      output.count = static_cast<int32_t>(names[i].numbers.size());
      if (output.is_list) in_.expect('[');
      for (size_t k = 0; k < names[i].numbers.size(); ++k) {
        if (k > 0) in_.expect(',');
        Value value = parse_type();
        value.node = static_cast<int32_t>(graph_.nodes.size());
        define(names[i].numbers[k], std::move(value));
      }
      if (output.is_list) in_.expect(']');
      node.outputs.push_back(output);
    }
  }

  Cursor in_;
  Graph graph_;
  std::unordered_map<int64_t, ValueId> ids_;
};

}  // namespace

ParseResult parse(std::string_view text) {
  ParseResult result;
  try {
    result.graph = Parser(text).run();
  } catch (const ParseError& error) {
    result.error = error.what();
  }
  return result;
}

}  // namespace flashpoint::ir
