#include "guard/steady_plan.h"

#include <c10/core/TensorImpl.h>

#include "guard/guard_tree.h"
#include "py/layout.h"
#include "py/torch_bridge.h"

namespace flashpoint {

namespace {

using Kind = SteadyPlan::Kind;

// Its class cannot be another one, short of the object's being another one.
bool has_fixed_class(PyObject* object) {
  return !PyType_HasFeature(Py_TYPE(object), Py_TPFLAGS_HEAPTYPE) && !PyModule_Check(object);
}

bool is_reached_by_tag(Step step) {
  return step == Step::kDictValue || step == Step::kTypeLookup || step == Step::kTupleItem ||
         step == Step::kSuperLookup;
}

// What an operation will look at, asked for in time: with cold caches guards are nothing but waiting. A hint
// only, addresses of what is gone do no harm.
void prefetch(const SteadyPlan::Operation& at, const std::vector<PlainCall>& plain_calls) {
  constexpr size_t kLine = 64;
  switch (at.kind) {
    case Kind::kInstanceDict:
      __builtin_prefetch(reinterpret_cast<const char*>(at.object) - 3 * sizeof(void*));
      __builtin_prefetch(static_cast<const char*>(at.expected) + sizeof(PyObject));
      break;
    case Kind::kTensor: {
      __builtin_prefetch(at.object);
      const auto* impl = reinterpret_cast<const char*>(at.tag);
      for (size_t line = 0; line < 4; ++line) __builtin_prefetch(impl + line * kLine);
      __builtin_prefetch(at.autograd);
      __builtin_prefetch(static_cast<const char*>(at.autograd) + 2 * kLine);
      break;
    }
    case Kind::kPlainCall:
      for (const PyObject* hooks : plain_calls[at.number].hooks()) __builtin_prefetch(hooks + 1);
      break;
    default:
      __builtin_prefetch(at.object == nullptr ? nullptr : at.object + 1);
  }
}

}  // namespace

void GuardTree::make_plan() {
  const size_t n = nodes_.size();
  plan_.changes.resize(n);
  if (plan_.calls >= SteadyPlan::kLong) plan_.changes.assign(n, 0);
  for (size_t i = 0; plan_.ready && i < n; ++i) {
    if (pass_[i].pending && pass_[i].tag != 0 && plan_.changes[i] < SteadyPlan::kPatience) ++plan_.changes[i];
  }
  plan_.calls = 0;
  plan_.values = values_;
  plan_.operations.clear();
  std::vector<bool> clean(n);     // its tag stands for its contents
  std::vector<bool> constant(n);  // the same object as at the last success, once its operations are through
  const auto add = [&](Kind kind, size_t node, int32_t number = -1, PyObject* object = nullptr,
                       const void* expected = nullptr, uint64_t tag = 0) {
    plan_.operations.push_back({kind, static_cast<int32_t>(node), number, object, expected, tag});
  };
  for (size_t i = 0; i < n; ++i) {
    const Node& node = nodes_[i];
    PyObject* v = values_[i];
    const bool below_clean = node.parent != kNoNode && clean[node.parent];
    constant[i] = node.step == Step::kConst || node.step == Step::kTypeRoot ||
                  (below_clean && is_reached_by_tag(node.step));
    const bool changes = plan_.changes[i] >= SteadyPlan::kPatience;
    const bool is_type = node.step == Step::kTypeRoot;
    const uint64_t tag = changes           ? 0
                         : is_type         ? py::type_tag(reinterpret_cast<PyTypeObject*>(v))
                         : PyDict_Check(v) ? py::dict_tag(v)
                                           : 0;
    clean[i] = tag != 0 || (below_clean && constant[i] && PyTuple_CheckExact(v));
    if (node.step == Step::kInstanceDict && constant[node.parent] && tag != 0) {
      add(Kind::kInstanceDict, i, -1, values_[node.parent], v, tag);
      constant[i] = true;
    } else {
      if (!constant[i]) add(Kind::kFetch, i);
      if (!constant[i] && tag != 0) add(Kind::kSame, i, -1, v);
      if (tag != 0) add(is_type ? Kind::kTypeTag : Kind::kDictTag, i, -1, v, nullptr, tag);
      constant[i] = constant[i] || tag != 0;
    }
    bool typed = false;
    for (int32_t c = node.checks; c >= 0; c = checks_[c].next) {
      const Check& check = checks_[c];
      if (constant[i]) {
        if (check.kind == CheckKind::kIs || check.kind == CheckKind::kValue) continue;
        if (check.kind == CheckKind::kTypeIs && has_fixed_class(v)) continue;
        if ((check.kind == CheckKind::kSameAs || check.kind == CheckKind::kNotSameAs) &&
            constant[check.number])
          continue;
        if (check.kind == CheckKind::kTypeIs) {
          add(Kind::kType, i, c, v, check.operand.get());
          typed = true;
          continue;
        }
        if (check.kind == CheckKind::kTensor && typed && plan_.operations.back().kind == Kind::kType) {
          plan_.operations.back().kind = Kind::kTensor;
          plan_.operations.back().number = check.number;
          plan_.operations.back().tag = reinterpret_cast<uint64_t>(tensor_impl(v));
          plan_.operations.back().autograd = tensor_impl(v)->autograd_meta();
          continue;
        }
        if (check.kind == CheckKind::kPlainCall) {
          add(Kind::kPlainCall, i, check.number, v);
          continue;
        }
      }
      add(Kind::kCheck, i, c);
    }
    for (int32_t c = tag != 0 ? -1 : node.tagged_checks; c >= 0; c = checks_[c].next) add(Kind::kCheck, i, c);
  }
  plan_.ready = true;
  plan_.stale = false;
}

SteadyPlan::Answer GuardTree::run_plan(PyObject* const* args, size_t nargs) {
  using Answer = SteadyPlan::Answer;
  if (plan_.stale || values_.size() != plan_.values.size()) values_ = plan_.values;
  plan_.stale = false;
  temporaries_.clear();
  const auto fails = [&](const SteadyPlan::Operation& at, int32_t check) {
    failed_node_ = at.node;
    failed_check_ = check;
    return Answer::kFails;
  };
  constexpr size_t kAhead = 24;
  const size_t count = plan_.operations.size();
  for (size_t i = 0; i < count; ++i) {
    const SteadyPlan::Operation& at = plan_.operations[i];
    if (i + kAhead < count) prefetch(plan_.operations[i + kAhead], plain_calls_);
    switch (at.kind) {
      case Kind::kFetch: {
        PyObject* v = fetch(nodes_[at.node], args, nargs);
        if (v == nullptr) return fails(at, -1);
        values_[at.node] = v;
        break;
      }
      case Kind::kSame:
        if (values_[at.node] != at.object) return Answer::kChanged;
        break;
      case Kind::kDictTag:
        if (py::dict_tag(at.object) != at.tag) return Answer::kChanged;
        break;
      case Kind::kTypeTag:
        if (py::type_tag(reinterpret_cast<PyTypeObject*>(at.object)) != at.tag) return Answer::kChanged;
        break;
      case Kind::kInstanceDict: {
        PyObject* dict = py::made_instance_dict(at.object);
        if (dict != at.expected || py::dict_tag(dict) != at.tag) return Answer::kChanged;
        break;
      }
      case Kind::kType:
        if (Py_TYPE(at.object) != at.expected) return fails(at, at.number);
        break;
      case Kind::kTensor:
        if (Py_TYPE(at.object) != at.expected || !metas_[at.number].matches_tensor(at.object))
          return Answer::kChanged;
        break;
      case Kind::kPlainCall:
        if (!plain_calls_[at.number].holds(at.object)) return Answer::kChanged;
        break;
      case Kind::kCheck:
        if (!holds(nodes_[at.node], checks_[at.number], values_[at.node])) return fails(at, at.number);
        break;
    }
  }
  ++plan_.calls;
  return Answer::kHolds;
}

}  // namespace flashpoint
