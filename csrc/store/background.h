// What a store and its writing thread share: what waits to be written, under one mutex.
//
// A forked child has no thread and perhaps a half-waited condition variable: it leaves the old Background as
// it is and begins with a new one.
#pragma once

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <thread>

#include "store/store.h"

namespace flashpoint::store {

// What is written in one transaction.
struct Store::Batch {
  std::vector<std::shared_ptr<const Write>> records;
  std::vector<Digest> dropped;
  std::vector<Digest> used;
  bool replace = false;
  bool last = false;  // nothing else waits
  Outcome outcome = Outcome::k_busy;
};

struct Store::Background {
  std::mutex mutex;
  std::condition_variable wake;
  std::condition_variable done;
  std::thread thread;
  bool running = false;
  bool stop = false;
  int urgent = 0;        // who waits in flush: no collecting of more
  bool working = false;  // a batch is being written
  bool replace = false;  // the database was found damaged

  std::deque<std::shared_ptr<const Write>> queue;          // in the order of put
  std::map<Digest, std::shared_ptr<const Write>> waiting;  // the same, the last one for each key
  uint64_t waiting_bytes = 0;
  std::set<Digest> used;
  std::set<Digest> dropped;

  Outcome last_write = Outcome::k_written;

  // Both with the mutex held.
  Batch take(size_t records, uint64_t bytes);
  void finish(const Batch& batch);

  bool idle() const { return queue.empty() && used.empty() && dropped.empty() && !replace && !working; }
};

}  // namespace flashpoint::store
