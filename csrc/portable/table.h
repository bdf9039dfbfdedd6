// The objects that an entry refers to, each once, as data: primitives by value, everything with an identity
// by a description.
//
// Writing: `add` describes an object. Reading: `parse`, then each described object is either *taken* (found
// where a guard reads it, and checked against its description) or *obtained* (found by name in what is
// already imported, and checked likewise). Different rows are different objects: an object that was taken for
// one row is no other's. Nothing is imported, evaluated or unpickled, and no code of the program runs.
//
// What is known again how: modules by name; classes by name, metaclass, method resolution order and
// fingerprint; code by fingerprint; functions by code, number of defaults and module; C functions and
// descriptors by name and owner.
//
// Ownership: a table keeps what it describes, and what was found, alive. GIL: required.
#pragma once

#include <Python.h>

#include <string>
#include <vector>

#include "base/flat_map.h"
#include "portable/fingerprint.h"
#include "py/ref.h"
#include "store/bytes.h"

namespace flashpoint::portable {

// Of a row of the table, plus one; 0 is no object.
using ValueRef = uint32_t;

enum class ValueKind : uint8_t {
#define X(name, identity, text) k##name,
#include "portable/values.def"
#undef X
};
constexpr uint8_t kValueKinds = 0
#define X(name, identity, text) +1
#include "portable/values.def"
#undef X
    ;

bool has_identity(ValueKind kind);

struct Value {
  ValueKind kind = ValueKind::kNone;
  int64_t number = 0;
  int64_t second = 0;
  std::string text;
  std::string name;
  Digest digest{};
  std::vector<ValueRef> parts;
};

class Table {
 public:
  explicit Table(PyObject* root) : root_(root) {}

  // Writing. 0 for null; 0 with failure() where the object has no portable form.
  ValueRef add(PyObject* object);
  // The index-th constant of a code object that is in the table.
  ValueRef add_constant(ValueRef code, Py_ssize_t index, PyObject* object);
  // What will be taken before it is needed.
  void mark_taken(ValueRef ref);
  // Whether it can be had when it is needed: it was taken, or is found by name.
  bool is_obtainable(ValueRef ref);
  void write(std::string& out) const;
  // The classes of the table that are at hand.
  template <typename Visit>
  void for_each_class(Visit&& visit) const {
    for (size_t i = 0; i < values_.size(); ++i) {
      if (values_[i].kind == ValueKind::kType && ready_[i]) visit(objects_[i].get());
    }
  }
  // The code objects whose fingerprints the reader checks.
  template <typename Visit>
  void for_each_taken_code(Visit&& visit) const {
    for (size_t i = 0; i < values_.size(); ++i) {
      if (values_[i].kind == ValueKind::kCode && ready_[i]) visit(objects_[i].get());
    }
  }

  // Reading. False: malformed.
  bool parse(store::Reader& reader);
  bool is_valid(ValueRef ref) const { return ref <= values_.size(); }
  bool is_kind(ValueRef ref, ValueKind kind) const {
    return ref != 0 && ref <= values_.size() && values_[ref - 1].kind == kind;
  }
  const Value& value(ValueRef ref) const { return values_[ref - 1]; }
  // False, with why(), when the object is not what the row describes.
  bool take(ValueRef ref, PyObject* object);
  // Not the class that the row is about, but one of another name: the row may be right all the same.
  bool is_another_class(ValueRef ref, PyTypeObject* type);
  // Borrowed from the table; null, with why(), when there is no such object.
  PyObject* obtain(ValueRef ref);

  const std::string& failure() const { return failure_; }
  // What was looked for and is otherwise now; empty as long as everything was found.
  const std::string& why() const { return why_; }

 private:
  ValueRef fail(std::string why);
  bool differs(const Value& value, const char* what);
  bool describe(PyObject* object, Value& value);
  bool describe_type(PyTypeObject* type, Value& value);
  bool matches(const Value& value, PyObject* object);
  bool is_same(ValueRef ref, PyObject* found);
  bool matches_type(const Value& value, PyTypeObject* type);
  Ref make(const Value& value);
  PyObject* find(const Value& value);  // borrowed; by name
  PyObject* find_function(const Value& value) const;
  bool is_ours(const std::vector<ValueRef>& parts) const;

  PyObject* root_;
  std::vector<Value> values_;
  std::vector<Ref> objects_;  // described, or found
  std::vector<bool> ready_;   // taken or obtained
  FlatMap<PyObject*, ValueRef, PointerHash> index_;
  std::string failure_;
  std::string why_;
};

std::string name_of_value(const Value& value);

}  // namespace flashpoint::portable
