// The short way through a guard tree: that everything is as it was at the last success.
//
// Made from a tree that has just been evaluated. What hangs below unchanged version tags is the same object,
// so nothing is fetched there: what is left are the tags themselves, what can change without them (classes of
// objects, tensors' metadata, hooks, cells, lists), and what comes with the call. It answers "holds", "does
// not hold" with the check that failed, or "changed": then the tree is walked, and the plan made anew. Dicts
// that change from call to call lose their tags' meaning: they are looked into each time.
//
// Objects are borrowed: an operation touches one only behind those that prove it alive (GuardTree's header
// says how). GIL: required.
#pragma once

#include <Python.h>

#include <cstdint>
#include <vector>

namespace flashpoint {

struct SteadyPlan {
  enum class Kind : uint8_t {
    kFetch,         // values[node] = what the node reaches
    kSame,          // values[node] is `object`
    kDictTag,       // of `object`
    kTypeTag,       // of `object`
    kInstanceDict,  // `object` has the dict `expected`, with this tag
    kType,          // of `object`
    kTensor,        // `object` is of a type and has metadata
    kPlainCall,     // `object` is a module's dict
    kCheck,         // any check, on values[node]
  };
  struct Operation {
    Kind kind;
    int32_t node;
    int32_t number;  // check, metadata, or plain call
    PyObject* object;
    const void* expected;
    uint64_t tag;                    // of a tensor: where its metadata stand
    const void* autograd = nullptr;  // and where requires_grad does
  };
  static constexpr uint8_t kPatience = 4;  // how often a dict may change
  static constexpr uint32_t kLong = 256;   // calls after which earlier changes are forgotten

  bool ready = false;
  bool stale = false;  // the tree's values are not those of the last success
  uint32_t calls = 0;  // that it has answered
  std::vector<Operation> operations;
  std::vector<PyObject*> values;
  std::vector<uint8_t> changes;  // by node: how often its tag was another one

  enum class Answer : uint8_t { kHolds, kFails, kChanged };
};

}  // namespace flashpoint
