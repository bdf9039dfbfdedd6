// What a recording wrote to objects that existed before it: the log that replay commits last.
#pragma once

#include <cstdint>
#include <vector>

#include "guard/guard_tree.h"
#include "py/ref.h"

namespace flashpoint {

// One write to an object that existed before the call.
enum class EffectKind : uint8_t {
  kDictItem,       // owner = dict node, key; the final value, or deleted
  kDictContents,   // owner = dict node: all of it (keys were guarded)
  kListContents,   // owner = list node: all of it (length was guarded)
  kListAppend,     // owner = list node: items appended, in order
  kSetContents,    // owner = set node: all of it (contents were guarded)
  kCell,           // owner = cell node
  kDequeContents,  // owner = deque node: all of it (contents were guarded)
  kSlot,           // owner = object node, key = member descriptor
  kTypeAttr,       // owner = type node, key = name; the final value
  kTensorAttr,     // owner = tensor node, key = name, object = the tensor's dict; the final value, or deleted
  kTensorGrad,     // owner = tensor node; the final gradient, or None
  kContextVar,     // owner = context variable node, key = the value at entry or null
  kIteratorSteps,  // owner = iterator node: as many elements taken as there are items
  kCachedCall,  // owner = lru_cache wrapper node, key = keywords or null: asked for the items once more; or a
                // function that notes a change
  kGenerator,   // owner = generator node: where it stood at the end
  kListItem,    // owner = list node, key = index (length was guarded); the final value
};
// Stands for an index where places are told apart by an object: an odd number, which is nobody's address.
inline PyObject* index_place(Py_ssize_t index) {
  return reinterpret_cast<PyObject*>(static_cast<uintptr_t>(index) * 2 + 1);
}

struct Effect {
  EffectKind kind;
  NodeId owner = kNoNode;
  Ref object;  // the storage itself
  Ref key;
  std::vector<Ref> items;   // kListAppend; kCachedCall: arguments
  bool inserted = false;    // kDictItem: the key was not there at entry
  bool removed = false;     // kDictItem: deleted at some time
  bool moved = false;       // kDictItem: inserted anew after a deletion, so at the end of the dict's order
  bool superseded = false;  // another effect stands for it
};

}  // namespace flashpoint
