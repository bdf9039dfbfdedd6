// What identifies a thing that a recording asked before, so that it is asked and guarded once; and what it
// remembers between an instruction and the call that the instruction makes.
//
// Pointers are addresses only, compared and hashed; the recorder keeps the objects alive while it has them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>

#include "base/flat_map.h"
#include "record/effects.h"
#include "record/observer.h"

namespace flashpoint {

// What was asked of a pair of objects: the kind of question is in the low bits of the second address.
struct Question {
  PyObject* object;
  size_t about;
  bool operator==(const Question&) const = default;
};
struct QuestionHash {
  size_t operator()(const Question& q) const {
    return mix_bits(reinterpret_cast<size_t>(q.object) * 31 + q.about);
  }
};

// An attribute looked up in a type's resolution order behind one of its classes.
struct SuperKey {
  PyObject* type;
  PyObject* after;
  PyObject* name;
  bool operator==(const SuperKey&) const = default;
};
struct SuperHash {
  size_t operator()(const SuperKey& k) const {
    return PairHash{}(std::pair{k.type, k.after}) * 31 + mix_bits(reinterpret_cast<size_t>(k.name));
  }
};

// A call of a functools.lru_cache wrapper that has been made.
struct CachedCall {
  Effect again;      // what a replay repeats
  uint64_t tag = 0;  // the cache's version before
};

// The Python function that the instruction being performed calls with nothing in between.
struct ExpectedFrame {
  EvalFrame* caller = nullptr;
  PyObject* function = nullptr;
  FrameLink link = FrameLink::kOpaque;
};

}  // namespace flashpoint
