// Lookup as the compiled callable does it, from many threads: a mutex stands for the GIL, and is let go of
// while an entry runs. For the thread sanitizer above all.
#include "driver/entry_list.h"

#include <atomic>
#include <mutex>
#include <random>
#include <thread>

#include "base/flat_map.h"
#include "driver/answer_table.h"
#include "unit.h"

namespace flashpoint {
namespace {

struct Recorded {
  explicit Recorded(int shape) : shape(shape) { ++living; }
  ~Recorded() { --living; }
  Recorded(const Recorded&) = delete;
  Recorded& operator=(const Recorded&) = delete;
  const int shape;
  int runs = 0;  // under the lock
  static inline std::atomic<int> living{0};
};

struct State {
  EntryList<Recorded> list;
  AnswerTable answers;
  FlatMap<int, int, BitsHash> recorded;  // by shape: how often
};

class Callable {
 public:
  // True when the entry that answered was one for this shape.
  bool call(int shape) {
    std::unique_lock lock(gil_);
    const std::shared_ptr<State> state = state_;
    EntryList<Recorded>& list = state->list;
    const uint64_t signature = mix_bits(static_cast<size_t>(shape) + 1);
    const size_t guess = list.find(state->answers.find(signature));
    for (size_t n = 0; n < list.entries.size(); ++n) {
      const size_t i = EntryList<Recorded>::nth(n, guess);
      const std::shared_ptr<Recorded> entry = list.entries[i];
      if (entry->shape != shape) continue;
      lock.unlock();
      const int ran = entry->shape;
      std::this_thread::yield();
      lock.lock();
      ++entry->runs;
      ++hits;
      state->answers.note(signature, entry.get());
      list.count_hit(i, entry.get(), true);
      return ran == shape;
    }
    lock.unlock();  // while it is recorded
    auto made = std::make_shared<Recorded>(shape);
    lock.lock();
    list.insert_first(std::move(made));
    ++state->recorded[shape];
    ++recordings;
    return true;
  }

  void reset() {
    std::shared_ptr<State> old = std::make_shared<State>();
    const std::lock_guard lock(gil_);
    std::swap(state_, old);
  }

  void invalidate(std::mt19937& random) {
    std::shared_ptr<Recorded> gone;  // dropped behind the lock
    const std::lock_guard lock(gil_);
    auto& entries = state_->list.entries;
    if (!entries.empty()) gone = state_->list.remove(entries[random() % entries.size()].get());
  }

  // Every entry is there once, beside its number of hits.
  bool is_whole() {
    const std::lock_guard lock(gil_);
    const EntryList<Recorded>& list = state_->list;
    bool good = list.entries.size() == list.hits.size();
    for (size_t i = 0; i < list.entries.size(); ++i)
      good = good && list.entries[i] && list.find(list.entries[i].get()) == i;
    return good;
  }

  int hits = 0, recordings = 0;

 private:
  std::mutex gil_;
  std::shared_ptr<State> state_ = std::make_shared<State>();
};

TEST(threads_look_up_record_invalidate_and_reset) {
  {
    Callable callable;
    std::atomic<int> wrong{0};
    std::vector<std::thread> threads;
    for (unsigned seed = 0; seed < 6; ++seed) {
      threads.emplace_back([&, seed] {
        std::mt19937 random(seed);
        for (int step = 0; step < 4000; ++step) {
          const unsigned what = random() % 100;
          if (what == 0) callable.reset();
          if (what < 5) callable.invalidate(random);
          if (!callable.call(static_cast<int>(random() % 40))) ++wrong;
          if (step % 500 == 0 && !callable.is_whole()) ++wrong;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT(wrong == 0 && callable.is_whole());
    EXPECT(callable.hits > 6000 && callable.recordings > 100);
    EXPECT(callable.hits + callable.recordings == 6 * 4000);
  }
  EXPECT(Recorded::living == 0);
}

TEST(a_hit_counts_only_where_the_entry_still_is) {
  EntryList<Recorded> list;
  const auto first = std::make_shared<Recorded>(1), second = std::make_shared<Recorded>(2);
  list.insert_first(first);
  list.insert_first(second);  // second, first
  list.count_hit(1, first.get(), true);
  EXPECT(list.entries[0] == first && list.hits[0] == 1 && list.hits[1] == 0);
  list.count_hit(1, first.get(), true);  // it has moved meanwhile
  EXPECT(list.hits[0] == 1 && list.hits[1] == 0);
  EXPECT(list.remove(first.get()) == first && list.remove(first.get()) == nullptr);
  list.count_hit(1, first.get(), true);
  EXPECT(list.entries.size() == 1 && list.hits == std::vector<uint64_t>{0});
}

TEST(the_guess_is_tried_first_and_nothing_twice) {
  for (size_t guess = 0; guess < 5; ++guess) {
    std::vector<bool> tried(5);
    for (size_t n = 0; n < 5; ++n) tried[EntryList<Recorded>::nth(n, guess)] = true;
    EXPECT(EntryList<Recorded>::nth(0, guess) == guess);
    EXPECT(std::count(tried.begin(), tried.end(), true) == 5);
  }
}

TEST(answers_of_hundreds_of_signatures_are_kept) {
  AnswerTable table;
  std::vector<int> entries(600);
  const auto signature = [](size_t i) { return mix_bits(i + 1); };
  for (size_t i = 0; i < entries.size(); ++i) table.note(signature(i), &entries[i]);
  for (size_t i = 0; i < entries.size(); ++i) EXPECT(table.find(signature(i)) == &entries[i]);
  table.note(signature(3), &entries[4]);
  EXPECT(table.find(signature(3)) == &entries[4] && table.find(signature(4)) == &entries[4]);
  EXPECT(table.find(signature(1000)) == nullptr);
}

TEST(many_threads_read_one_map) {
  FlatMap<int, int, BitsHash> map;
  for (int i = 0; i < 1000; ++i) map[i * 7] = i;
  std::atomic<int> wrong{0};
  std::vector<std::thread> threads;
  for (int seed = 0; seed < 4; ++seed) {
    threads.emplace_back([&, seed] {
      for (int i = seed; i < 7000; ++i) {
        const int* found = map.find(i);
        if ((found == nullptr) != (i % 7 != 0) || (found != nullptr && *found != i / 7)) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT(wrong == 0);
}

}  // namespace
}  // namespace flashpoint
