// What runs in its scope is not recorded: frames of Python code go to CPython.
#pragma once

#include <utility>

#include "record/graph_recorder.h"

namespace flashpoint {

class Unobserved {
 public:
  explicit Unobserved(const GraphRecorder& graph)
      : observing_(graph.observing()), saved_(observing_ != nullptr && std::exchange(*observing_, false)) {}
  ~Unobserved() {
    if (observing_ != nullptr) *observing_ = saved_;
  }
  Unobserved(const Unobserved&) = delete;
  Unobserved& operator=(const Unobserved&) = delete;

 private:
  bool* observing_;
  bool saved_;
};

}  // namespace flashpoint
