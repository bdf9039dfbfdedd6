// Which values of a graph may share memory: a union of everything that a call could have aliased, and the
// writes to whole tensors that have not happened yet, at most one per set.
//
// Caller: lower.cpp. Threads: one object, one thread; no GIL needed.
#pragma once

#include <algorithm>
#include <unordered_map>
#include <utility>
#include <vector>

#include "backend/native/lower.h"
#include "base/check.h"

namespace flashpoint::native {

// A write to a whole tensor that nobody has looked for yet.
struct Waiting {
  ir::ValueId root = ir::kNoValue;
  ExprId expr = kNoExpr;
  int32_t versions = 0;
  int32_t first = -1;
  int32_t node = -1;
};

// Which values may share memory: a union of everything that a call could have aliased. At most one write
// waits per set.
class AliasSets {
 public:
  explicit AliasSets(size_t count) : set_(count), members_(count) {
    for (size_t i = 0; i < count; ++i) {
      set_[i] = i;
      members_[i] = {static_cast<ir::ValueId>(i)};
    }
  }

  const std::vector<ir::ValueId>& members(ir::ValueId v) const {
    return members_[set_[static_cast<size_t>(v)]];
  }
  int32_t id(ir::ValueId v) const { return static_cast<int32_t>(set_[static_cast<size_t>(v)]); }

  Waiting* waiting(ir::ValueId v) {
    const auto it = waiting_.find(set_[static_cast<size_t>(v)]);
    return it == waiting_.end() ? nullptr : &it->second;
  }
  void wait(const Waiting& write) { waiting_[set_[static_cast<size_t>(write.root)]] = write; }
  void done(ir::ValueId v) { waiting_.erase(set_[static_cast<size_t>(v)]); }
  std::vector<Waiting> all_waiting() const {
    std::vector<Waiting> all;
    for (const auto& [set, write] : waiting_) all.push_back(write);
    std::sort(all.begin(), all.end(), [](const Waiting& a, const Waiting& b) { return a.node < b.node; });
    return all;
  }

  // Two sets with writes that wait cannot become one.
  void join(ir::ValueId a, ir::ValueId b) {
    size_t into = set_[static_cast<size_t>(a)];
    size_t from = set_[static_cast<size_t>(b)];
    if (into == from) return;
    if (members_[into].size() < members_[from].size()) std::swap(into, from);
    if (auto write = waiting_.extract(from); !write.empty()) {
      FP_CHECK(waiting_.count(into) == 0, "two writes to one memory wait");
      write.key() = into;
      waiting_.insert(std::move(write));
    }
    for (ir::ValueId v : members_[from]) {
      set_[static_cast<size_t>(v)] = into;
      members_[into].push_back(v);
    }
    members_[from].clear();
  }

 private:
  std::vector<size_t> set_;
  std::vector<std::vector<ir::ValueId>> members_;
  std::unordered_map<size_t, Waiting> waiting_;
};

}  // namespace flashpoint::native
