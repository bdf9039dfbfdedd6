#include "backend/fx/export.h"

#include <ATen/core/jit_type.h>

#include <string>

#include "ir/constants.h"
#include "ir/schema.h"
#include "py/ref.h"
#include "py/torch_bridge.h"

namespace flashpoint::fx {
namespace {

// Appends what `make` gives to a list; false with a Python error set.
bool append(PyObject* list, Ref item) { return item && PyList_Append(list, item.get()) == 0; }

Ref text(const std::string& s) {
  return Ref::steal(PyUnicode_FromStringAndSize(s.data(), static_cast<Py_ssize_t>(s.size())));
}

Ref number(int64_t value) { return Ref::steal(PyLong_FromLongLong(value)); }

template <typename Range, typename Each>
Ref list_of(const Range& range, Each&& each) {
  Ref list = Ref::steal(PyList_New(0));
  if (!list) return list;
  for (const auto& item : range) {
    if (!append(list.get(), each(item))) return Ref();
  }
  return list;
}

template <typename... Items>
Ref tuple_of(const Items&... items) {
  if (!(items && ...)) return Ref();
  return Ref::steal(PyTuple_Pack(sizeof...(items), items.get()...));
}

Ref boolean(bool value) { return Ref::share(value ? Py_True : Py_False); }

Ref dims(const ir::Dims& sizes) {
  const Ref list = list_of(sizes, number);
  return list ? Ref::steal(PyList_AsTuple(list.get())) : Ref();
}

Ref value(const ir::Value& v) {
  if (v.kind != ir::ValueKind::kTensor || !v.meta.defined()) return Ref::share(Py_None);
  return tuple_of(dims(v.meta.sizes), dims(v.meta.strides), Ref::steal(wrap_dtype(v.meta.dtype)),
                  Ref::steal(to_python(c10::IValue(v.meta.device))), Ref::steal(wrap_layout(v.meta.layout)),
                  boolean(v.meta.requires_grad));
}

// What the schema says an int stands for.
Ref constant(const c10::IValue& held, const c10::Type* type) {
  while (type != nullptr && type->kind() == c10::TypeKind::OptionalType)
    type = type->castRaw<c10::OptionalType>()->getElementType().get();
  if (held.isInt() && type != nullptr) {
    switch (type->kind()) {
      case c10::TypeKind::ScalarTypeType:
        return Ref::steal(wrap_dtype(static_cast<c10::ScalarType>(held.toInt())));
      case c10::TypeKind::LayoutType:
        return Ref::steal(wrap_layout(static_cast<c10::Layout>(held.toInt())));
      case c10::TypeKind::MemoryFormatType:
        return Ref::steal(wrap_memory_format(static_cast<c10::MemoryFormat>(held.toInt())));
      default:
        break;
    }
  }
  return Ref::steal(to_python(held));
}

Ref argument(const ir::Arg& arg, const c10::Type* type) {
  switch (arg.kind) {
    case ir::Arg::Kind::kValue:
      return tuple_of(text("%"), number(arg.value));
    case ir::Arg::Kind::kConstant:
      return tuple_of(text("="), constant(arg.constant, type));
    case ir::Arg::Kind::kWrapped:
      return tuple_of(text("#"), constant(arg.constant, nullptr));
    case ir::Arg::Kind::kList:
      break;
  }
  return tuple_of(text("["), list_of(arg.list, [](const ir::Arg& item) { return argument(item, nullptr); }));
}

Ref output(const ir::Output& o) {
  if (!o.is_list) return number(o.first);
  Ref list = Ref::steal(PyList_New(0));
  for (int32_t i = 0; list && i < o.count; ++i) {
    if (!append(list.get(), number(o.first + i))) return Ref();
  }
  return list;
}

Ref node(const ir::Graph& graph, const ir::Node& n) {
  const ir::Op& op = graph.ops[n.op];
  const c10::FunctionSchema* schema = ir::find_schema(op);
  Ref arguments = Ref::steal(PyList_New(0));
  for (size_t i = 0; arguments && i < n.args.size(); ++i) {
    const bool known = schema != nullptr && i < schema->arguments().size();
    const c10::Type* type = known ? schema->arguments()[i].real_type().get() : nullptr;
    if (!append(arguments.get(), argument(n.args[i], type))) return Ref();
  }
  return tuple_of(text(op.name), text(op.overload), arguments, list_of(n.outputs, output), number(n.state),
                  text(graph.strings[n.location]), text(graph.strings[n.callable]),
                  list_of(n.mutates, number));
}

Ref state(const ir::NodeState& s) {
  const Ref autocast = list_of(s.autocast, [](const ir::Autocast& a) {
    return tuple_of(text(ir::device_type_name(a.device)), Ref::steal(wrap_dtype(a.dtype)));
  });
  return tuple_of(boolean(s.grad), boolean(s.inference), boolean(s.autocast_cache), autocast,
                  s.flags ? number(*s.flags) : Ref::share(Py_None));
}

}  // namespace

PyObject* export_graph(const ir::Graph& graph) {
  Ref dict = Ref::steal(PyDict_New());
  const auto set = [&](const char* key, const Ref& item) {
    if (!dict || !item || PyDict_SetItemString(dict.get(), key, item.get()) < 0) dict = Ref();
  };
  set("name", text(graph.name));
  set("values", list_of(graph.values, value));
  set("inputs", list_of(graph.inputs, [](const ir::Input& input) { return number(input.value); }));
  set("outputs", list_of(graph.outputs, number));
  set("nodes", list_of(graph.nodes, [&](const ir::Node& n) { return node(graph, n); }));
  set("states", list_of(graph.states, state));
  return dict.release();
}

}  // namespace flashpoint::fx
