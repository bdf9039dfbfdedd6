#include "portable/table.h"

#include <cstring>

#include "portable/parts.h"

namespace flashpoint::portable {

namespace {

using store::put_number;

constexpr bool kIdentity[] = {
#define X(name, identity, text) identity,
#include "portable/values.def"
#undef X
};
constexpr const char* kTexts[] = {
#define X(name, identity, text) text,
#include "portable/values.def"
#undef X
};

constexpr size_t kMaxParts = 1 << 16;
constexpr size_t kMaxText = 16 << 20;
constexpr size_t kMaxValues = 1 << 20;

PyObject* string_of(const std::string& bytes) {
  PyObject* text = PyUnicode_DecodeUTF8(bytes.data(), static_cast<Py_ssize_t>(bytes.size()), "surrogatepass");
  // As names and constants of code are.
  if (text != nullptr && bytes.size() <= 256) PyUnicode_InternInPlace(&text);
  return text;
}

}  // namespace

bool has_identity(ValueKind kind) { return kIdentity[static_cast<size_t>(kind)]; }

std::string name_of_value(const Value& value) {
  std::string out = kTexts[static_cast<size_t>(value.kind)];
  if (!value.text.empty()) out += " " + (value.name.empty() ? "" : value.name + ".") + value.text;
  return out;
}

ValueRef Table::fail(std::string why) {
  if (failure_.empty()) failure_ = std::move(why);
  return 0;
}

bool Table::differs(const Value& value, const char* what) {
  if (why_.empty()) why_ = name_of_value(value) + ": " + what;
  return false;
}

ValueRef Table::add(PyObject* object) {
  if (object == nullptr || !failure_.empty()) return 0;
  if (const ValueRef* known = index_.find(object)) return *known;
  Value value;
  // Values come behind what they are made of. Descriptions come first, since classes refer to themselves.
  const bool compound = PyTuple_Check(object) || PyRange_Check(object) || PyFrozenSet_CheckExact(object) ||
                        std::string_view(Py_TYPE(object)->tp_name) == "torch.device";
  const auto unknown = [&] {
    return fail(std::string("an object of type ") + Py_TYPE(object)->tp_name + " has no portable form");
  };
  if (compound && !describe(object, value)) return unknown();
  const auto ref = static_cast<ValueRef>(values_.size() + 1);
  index_.try_emplace(object, ref);
  values_.emplace_back();
  objects_.push_back(Ref::share(object));
  ready_.push_back(false);
  if (!compound && !describe(object, value)) return unknown();
  values_[ref - 1] = std::move(value);
  return ref;
}

ValueRef Table::add_constant(ValueRef code, Py_ssize_t index, PyObject* object) {
  const auto ref = static_cast<ValueRef>(values_.size() + 1);
  if (const auto [known, added] = index_.try_emplace(object, ref); !added) return *known;
  Value value;
  value.kind = ValueKind::kCodeConstant;
  value.number = index;
  value.parts = {code};
  values_.push_back(std::move(value));
  objects_.push_back(Ref::share(object));
  ready_.push_back(false);
  return ref;
}

void Table::mark_taken(ValueRef ref) {
  if (ref == 0 || ready_[ref - 1]) return;
  ready_[ref - 1] = true;
  // What taking it checks is taken with it.
  for (const ValueRef part : std::vector<ValueRef>(values_[ref - 1].parts)) mark_taken(part);
}

bool Table::is_obtainable(ValueRef ref) {
  if (ref == 0 || ready_[ref - 1]) return true;
  const Value& value = values_[ref - 1];
  if (!has_identity(value.kind)) {
    for (const ValueRef part : value.parts) {
      if (!is_obtainable(part)) return false;
    }
    return true;
  }
  if (value.kind != ValueKind::kType && value.kind != ValueKind::kFunction &&
      value.kind != ValueKind::kCachedFunction) {
    for (const ValueRef part : std::vector<ValueRef>(value.parts)) {
      if (!is_obtainable(part)) return false;
    }
  }
  if (find(values_[ref - 1]) != objects_[ref - 1].get()) return false;
  mark_taken(ref);
  return true;
}

void Table::write(std::string& out) const {
  put_number<uint32_t>(out, static_cast<uint32_t>(values_.size()));
  for (const Value& value : values_) {
    put_number<uint8_t>(out, static_cast<uint8_t>(value.kind));
    const bool with_digest = value.kind == ValueKind::kType || value.kind == ValueKind::kCode;
    const uint8_t has = static_cast<uint8_t>((value.number != 0 ? 1 : 0) | (value.second != 0 ? 2 : 0) |
                                             (!value.text.empty() ? 4 : 0) | (!value.name.empty() ? 8 : 0) |
                                             (with_digest ? 16 : 0) | (!value.parts.empty() ? 32 : 0));
    put_number<uint8_t>(out, has);
    if (value.number != 0) put_number<int64_t>(out, value.number);
    if (value.second != 0) put_number<int64_t>(out, value.second);
    for (const std::string* text : {&value.text, &value.name}) {
      if (text->empty()) continue;
      put_number<uint32_t>(out, static_cast<uint32_t>(text->size()));
      out += *text;
    }
    if (with_digest) store::put_digest(out, value.digest);
    if (value.parts.empty()) continue;
    put_number<uint32_t>(out, static_cast<uint32_t>(value.parts.size()));
    for (const ValueRef part : value.parts) put_number<uint32_t>(out, part);
  }
}

bool Table::parse(store::Reader& reader) {
  const auto count = reader.number<uint32_t>();
  if (!reader.ok() || count > kMaxValues || count > reader.left()) return false;
  values_.resize(count);
  objects_.resize(count);
  ready_.resize(count);
  for (uint32_t row = 0; row < count; ++row) {
    Value& value = values_[row];
    const auto kind = reader.number<uint8_t>();
    const auto has = reader.number<uint8_t>();
    if (!reader.ok() || kind >= kValueKinds || has >= 64) return false;
    value.kind = static_cast<ValueKind>(kind);
    if (has & 1) value.number = reader.number<int64_t>();
    if (has & 2) value.second = reader.number<int64_t>();
    for (std::string* text : {&value.text, &value.name}) {
      if (!(has & (text == &value.text ? 4 : 8))) continue;
      const auto size = reader.number<uint32_t>();
      if (size > kMaxText) return false;
      *text = reader.take(size);
    }
    if (has & 16) value.digest = reader.digest();
    if (has & 32) {
      const auto parts = reader.number<uint32_t>();
      if (parts > kMaxParts || parts * sizeof(uint32_t) > reader.left()) return false;
      for (uint32_t i = 0; i < parts; ++i) value.parts.push_back(reader.number<uint32_t>());
    }
    if (!reader.ok()) return false;
    for (const ValueRef part : value.parts) {
      // Values are made of earlier ones, so that making them ends; descriptions may refer to each other.
      if (part > count || (!has_identity(value.kind) && part > row)) return false;
    }
  }
  return true;
}

Ref Table::make(const Value& value) {
  const auto number = [](int64_t bits) {
    double real;
    std::memcpy(&real, &bits, sizeof real);
    return real;
  };
  const auto part = [&](size_t i) { return i < value.parts.size() ? obtain(value.parts[i]) : nullptr; };
  switch (value.kind) {
    case ValueKind::kNone:
      return Ref::share(Py_None);
    case ValueKind::kTrue:
      return Ref::share(Py_True);
    case ValueKind::kFalse:
      return Ref::share(Py_False);
    case ValueKind::kEllipsis:
      return Ref::share(Py_Ellipsis);
    case ValueKind::kNotImplemented:
      return Ref::share(Py_NotImplemented);
    case ValueKind::kInt:
      return Ref::steal(PyLong_FromLongLong(value.number));
    case ValueKind::kLongInt:
      return Ref::steal(PyLong_FromString(value.text.c_str(), nullptr, 16));
    case ValueKind::kFloat:
      return Ref::steal(PyFloat_FromDouble(number(value.number)));
    case ValueKind::kComplex:
      return Ref::steal(PyComplex_FromDoubles(number(value.number), number(value.second)));
    case ValueKind::kStr:
      return Ref::steal(string_of(value.text));
    case ValueKind::kBytes:
      return Ref::steal(
          PyBytes_FromStringAndSize(value.text.data(), static_cast<Py_ssize_t>(value.text.size())));
    case ValueKind::kFrozenSet:
    case ValueKind::kTuple:
    case ValueKind::kSize: {
      Ref tuple = Ref::steal(PyTuple_New(static_cast<Py_ssize_t>(value.parts.size())));
      for (size_t i = 0; tuple && i < value.parts.size(); ++i) {
        PyObject* item = part(i);
        if (item == nullptr) return Ref();
        if (value.kind == ValueKind::kSize && !PyLong_CheckExact(item)) return Ref();
        PyTuple_SET_ITEM(tuple.get(), static_cast<Py_ssize_t>(i), Py_NewRef(item));
      }
      if (!tuple || value.kind == ValueKind::kTuple) return tuple;
      if (value.kind == ValueKind::kFrozenSet) return Ref::steal(PyFrozenSet_New(tuple.get()));
      PyObject* size = find_by_name("torch", "Size");
      return size == nullptr ? Ref() : Ref::steal(PyObject_CallOneArg(size, tuple.get()));
    }
    case ValueKind::kRange: {
      PyObject *start = part(0), *stop = part(1), *step = part(2);
      if (start == nullptr || stop == nullptr || step == nullptr) return Ref();
      return Ref::steal(PyObject_CallFunctionObjArgs(reinterpret_cast<PyObject*>(&PyRange_Type), start, stop,
                                                     step, nullptr));
    }
    case ValueKind::kDevice: {
      PyObject *type = part(0), *index = part(1), *device = find_by_name("torch", "device");
      if (type == nullptr || index == nullptr || device == nullptr || !PyUnicode_CheckExact(type))
        return Ref();
      return Ref::steal(index == Py_None ? PyObject_CallOneArg(device, type)
                                         : PyObject_CallFunctionObjArgs(device, type, index, nullptr));
    }
    default:
      return Ref();
  }
}

PyObject* Table::obtain(ValueRef ref) {
  if (!is_valid(ref) || ref == 0) return nullptr;
  if (ready_[ref - 1]) return objects_[ref - 1].get();
  const Value& value = values_[ref - 1];
  if (!has_identity(value.kind)) {
    Ref made = make(value);
    if (!made) {
      PyErr_Clear();
      differs(value, "cannot be made");
      return nullptr;
    }
    objects_[ref - 1] = std::move(made);
    ready_[ref - 1] = true;
    return objects_[ref - 1].get();
  }
  PyObject* found = find(value);
  if (found == nullptr) {
    PyErr_Clear();
    differs(value, "is not there");
    return nullptr;
  }
  return take(ref, found) ? found : nullptr;
}

bool Table::take(ValueRef ref, PyObject* object) {
  if (!is_valid(ref) || ref == 0 || object == nullptr) return false;
  if (ready_[ref - 1]) {
    return objects_[ref - 1].get() == object || differs(values_[ref - 1], "is another object");
  }
  const Value& value = values_[ref - 1];
  if (!has_identity(value.kind)) return false;
  if (const auto [known, added] = index_.try_emplace(object, ref); !added && *known != ref)
    return differs(value, "is the same object as another one");
  ready_[ref - 1] = true;
  objects_[ref - 1] = Ref::share(object);
  return matches(value, object);
}

}  // namespace flashpoint::portable
