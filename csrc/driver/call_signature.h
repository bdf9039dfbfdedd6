// A number for what the arguments of a call look like: types, shapes, values of numbers and texts.
//
// Nothing is decided by it. Among many entries it says which one to try first, so calls that look alike may
// share a number, and calls that differ in what no entry looks at may have two.
// GIL: required.
#pragma once

#include <Python.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace flashpoint {

class Entry;

uint64_t call_signature(PyObject* const* args, size_t nargs, PyObject* kwnames);

// Which entry answered the last call of each signature; the newest of those that share a place.
class AnswerTable {
 public:
  const Entry* find(uint64_t signature) const {
    const Place& place = places_[signature % places_.size()];
    return place.signature == signature ? place.entry : nullptr;
  }
  void note(uint64_t signature, const Entry* entry) {
    places_[signature % places_.size()] = {signature, entry};
  }

 private:
  struct Place {
    uint64_t signature = 0;
    const Entry* entry = nullptr;  // it may be gone: only to be compared
  };
  std::array<Place, 1024> places_{};
};

}  // namespace flashpoint
