// The writing side of a store: its thread, batches, replacement of a damaged database, forks.
#include "store/background.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <chrono>

namespace flashpoint::store {
namespace {

constexpr size_t kBatchRecords = 64;
constexpr uint64_t kBatchBytes = 32 << 20;
constexpr size_t kManyUsed = 256;  // marks of use wait for something to be written, or until they are many
constexpr int kBusyRetries = 8;
constexpr auto kCollect = std::chrono::milliseconds(20);

}  // namespace

// One registration for the process; stores come and go.
struct ForkHandlers {
  std::mutex mutex;
  std::set<Store*> stores;

  static ForkHandlers& instance() {
    static auto* handlers = [] {
      auto* made = new ForkHandlers;  // a fork may come at any time, at exit too
      pthread_atfork(
          before, [] { after(false); }, [] { after(true); });
      return made;
    }();
    return *handlers;
  }
  static void before() {
    ForkHandlers& self = instance();
    self.mutex.lock();
    for (Store* store : self.stores) store->before_fork();
  }
  static void after(bool child) {
    ForkHandlers& self = instance();
    for (Store* store : self.stores) store->after_fork(child);
    self.mutex.unlock();
  }
};

void Store::register_for_fork() {
  ForkHandlers& handlers = ForkHandlers::instance();
  const std::lock_guard<std::mutex> lock(handlers.mutex);
  handlers.stores.insert(this);
}

void Store::unregister_from_fork() {
  ForkHandlers& handlers = ForkHandlers::instance();
  const std::lock_guard<std::mutex> lock(handlers.mutex);
  handlers.stores.erase(this);
}

// SQLite's connections, and what it remembers about locks of the process, must not reach a child: there must
// be no connection at the moment of the fork.
void Store::before_fork() {
  writer_mutex_.lock();
  reader_mutex_.lock();
  base_mutex_.lock();
  background_->mutex.lock();
  if (process_ != getpid()) return;  // see usable: nothing here is ours to close
  reader_.close();
  writer_.close();
}

void Store::after_fork(bool child) {
  if (child) {
    background_ = new Background;  // the old one's thread is not here; what waited is the parent's to write
    if (!reader_.is_open() && !writer_.is_open()) process_ = getpid();
  } else {
    background_->mutex.unlock();
  }
  base_mutex_.unlock();
  reader_mutex_.unlock();
  writer_mutex_.unlock();
}

// With the mutex of the background held.
void Store::start() {
  if (background_->running) return;
  // Signals are for the program's own threads.
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  try {
    background_->thread = std::thread([this, background = background_] { run(*background); });
    background_->running = true;
  } catch (const std::system_error&) {
    put_.count(Outcome::k_internal);  // what waits is tried again at the next put or flush
  }
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
}

void Store::stop() {
  if (process_ != getpid()) return;
  {
    const std::lock_guard<std::mutex> lock(background_->mutex);
    background_->stop = true;
  }
  background_->wake.notify_all();
  if (background_->thread.joinable()) background_->thread.join();
}

bool Store::flush(int milliseconds) {
  if (usable() != Outcome::k_hit) return true;
  Background& background = *background_;
  std::unique_lock<std::mutex> lock(background.mutex);
  if (background.idle()) return true;
  start();
  ++background.urgent;
  background.wake.notify_all();
  const bool done = background.done.wait_for(lock, std::chrono::milliseconds(milliseconds),
                                             [&] { return background.idle(); });
  --background.urgent;
  return done;
}

void Store::request_replacement() {
  {
    const std::lock_guard<std::mutex> lock(background_->mutex);
    background_->replace = true;
    start();
  }
  background_->wake.notify_one();
}

Outcome Store::last_write() {
  const std::lock_guard<std::mutex> lock(background_->mutex);
  return background_->last_write;
}

void Store::run(Background& background) {
  std::unique_lock<std::mutex> lock(background.mutex);
  auto something = [&] {
    return background.stop || background.urgent > 0 || background.replace || !background.queue.empty() ||
           !background.dropped.empty() || background.used.size() >= kManyUsed;
  };
  while (!background.stop) {
    background.wake.wait(lock, something);
    // What comes in one after the other is written together.
    background.wake.wait_for(lock, kCollect, [&] { return background.stop || background.urgent > 0; });
    while (!background.stop && !background.idle()) {
      background.working = true;
      Batch batch = background.take(kBatchRecords, kBatchBytes);
      lock.unlock();
      write_batch(batch);
      lock.lock();
      background.finish(batch);
      background.working = false;
      if (background.urgent == 0 && background.queue.empty() && !background.replace) break;
    }
    background.done.notify_all();
    if (background.urgent > 0 && background.idle()) {
      background.wake.wait(lock,
                           [&] { return background.stop || background.urgent == 0 || !background.idle(); });
    }
  }
}

Store::Batch Store::Background::take(size_t records, uint64_t bytes) {
  Batch batch;
  uint64_t size = 0;
  while (!queue.empty() && batch.records.size() < records && (batch.records.empty() || size < bytes)) {
    size += queue.front()->payload.size();
    batch.records.push_back(std::move(queue.front()));
    queue.pop_front();
  }
  batch.used.assign(used.begin(), used.end());
  used.clear();
  batch.dropped.assign(dropped.begin(), dropped.end());
  dropped.clear();
  batch.replace = std::exchange(replace, false);
  batch.last = queue.empty();
  return batch;
}

void Store::Background::finish(const Batch& batch) {
  for (const auto& record : batch.records) {
    waiting_bytes -= record->head.size() + record->payload.size();
    const auto found = waiting.find(record->key);
    if (found != waiting.end() && found->second == record) waiting.erase(found);
  }
  if (!batch.records.empty()) last_write = batch.outcome;
}

void Store::write_batch(Batch& batch) {
  std::vector<const Write*> records;
  for (const auto& record : batch.records) records.push_back(record.get());
  uint64_t evicted = 0;
  bool replaced = false;
  Outcome outcome = Outcome::k_busy;
  for (int attempt = 0; attempt < kBusyRetries && outcome == Outcome::k_busy; ++attempt) {
    // Held for one attempt at a time: a fork waits for it.
    const std::lock_guard<std::mutex> lock(writer_mutex_);
    auto attempt_once = [&] {
      evicted = 0;
      if (batch.replace && !replaced) {
        // Only if it is still damaged: another process may have been faster.
        writer_.close();
        Outcome checked = writer_.open();
        if (checked == Outcome::k_hit) checked = writer_.check();
        if (checked == Outcome::k_bad_database) return checked;
      }
      const Outcome opened = writer_.open();
      if (opened != Outcome::k_hit) return opened;
      return writer_.write(records, batch.dropped, batch.used, options_.limit, evicted);
    };
    outcome = attempt_once();
    if (outcome == Outcome::k_bad_database && !replaced) {
      replaced = true;
      writer_.replace();
      {
        const std::lock_guard<std::mutex> reading(reader_mutex_);
        reader_.close();
      }
      outcome = attempt_once();
    }
    // Marks of use alone are not worth the wait for the disk.
    if (outcome == Outcome::k_hit && batch.last && !records.empty()) writer_.checkpoint();
  }
  evicted_ += evicted;
  batch.outcome = outcome == Outcome::k_hit ? Outcome::k_written : outcome;
  for (size_t i = 0; i < records.size(); ++i) put_.count(batch.outcome);
}

Outcome Store::collect(uint64_t limit) {
  const Outcome fit = usable();
  if (fit != Outcome::k_hit) return fit;
  flush(10000);
  std::vector<Digest> dropped;
  Outcome database;
  for (const Listed& row : verify(database)) {
    if (row.layer == Layer::kUser && row.outcome != Outcome::k_hit) dropped.push_back(row.key);
  }
  if (database == Outcome::k_bad_database) flush(10000);  // replaces it
  const std::lock_guard<std::mutex> lock(writer_mutex_);
  Outcome outcome = writer_.open();
  uint64_t evicted = 0;
  if (outcome == Outcome::k_hit) outcome = writer_.write({}, dropped, {}, limit, evicted);
  evicted_ += evicted;
  if (outcome == Outcome::k_hit) writer_.compact();
  return outcome;
}

}  // namespace flashpoint::store
