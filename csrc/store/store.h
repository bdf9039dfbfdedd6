// The store of one user: what was compiled, kept for the next process.
//
// A record is found by its key parts and is bytes to the store; what they mean is its user's business.
// Reading runs nothing. Whatever is wrong with the disk, the files or other processes, the answer is a miss
// with a counted reason (outcomes.def), never an exception, and no wait is longer than about a second.
//
// Layers: what waits to be written, then the user's database, then a read-only base, an archive that comes
// with an image or an installation (FLASHPOINT_CACHE_BASE), then a remote tier if one was set. Records go to
// the database, from a background thread, also those that the remote tier had; `flush` waits for it and is
// called at exit.
//
// Threads: every function may be called from any; none needs the GIL or calls Python. Fork: connections are
// closed before and opened again after it, on both sides; what waited to be written is written by the parent.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "store/archive.h"
#include "store/database.h"
#include "store/outcome.h"
#include "store/record.h"
#include "store/remote.h"

namespace flashpoint::store {

struct Options {
  bool enabled = true;
  std::string directory;                       // of the user layer
  std::string base;                            // an archive, or empty
  uint64_t limit = uint64_t{1} << 30;          // bytes of all records in the database
  uint64_t max_waiting = uint64_t{256} << 20;  // bytes of records waiting to be written

  // FLASHPOINT_CACHE, FLASHPOINT_CACHE_DIR, FLASHPOINT_CACHE_BASE, FLASHPOINT_CACHE_SIZE (MiB).
  static Options from_environment();
};

enum class Layer { kWaiting, kUser, kBase, kRemote };

struct Found {
  Outcome outcome = Outcome::k_absent;
  Layer layer = Layer::kUser;
  Origin origin = Origin::kOwn;
  std::string payload;
};

// A record's head as it stands in a layer, good or not.
struct Listed {
  Layer layer;
  Digest key;
  Outcome outcome;
  Head head;
};

struct Statistics {
  uint64_t got[kOutcomes] = {};
  uint64_t put[kOutcomes] = {};
  uint64_t evicted = 0;
  uint64_t records = 0;  // in the database
  uint64_t bytes = 0;
};

class Store {
 public:
  explicit Store(Options options);
  ~Store();  // writes what waits
  Store(const Store&) = delete;
  Store& operator=(const Store&) = delete;

  // The process's own, from the environment; lives as long as the process.
  static Store& shared();
  static Store* shared_if_used();  // null until then

  Found get(KeyParts parts);
  // k_queued, or why the record is not kept. Without `merge` it takes the place of what is there.
  Outcome put(KeyParts parts, std::string payload, Origin origin = Origin::kOwn, Merge merge = {});
  // The parts of the record that has most parts equal to these, used last among equals.
  std::optional<KeyParts> nearest(KeyParts parts);

  // Waits until all that was put before is written or given up; false if that took longer.
  bool flush(int milliseconds);

  // Asked for what no layer has, once for each key. Null: none any more.
  void set_remote(std::shared_ptr<const Remote> remote);
  // This user's own record of the key, signed; k_absent for what came from elsewhere.
  Outcome pack(KeyParts parts, std::string_view secret, std::string& out);
  // Adds a packed record unless there is one; k_hit where there is.
  Outcome unpack(std::string_view bytes, std::string_view secret);

  // For the command: every record of every layer; all whole; evict to the limit; move the log into the file.
  std::vector<Listed> list();
  std::vector<Listed> verify(Outcome& database);
  Outcome collect(uint64_t limit);
  Statistics statistics();
  const Options& options() const { return options_; }

  Outcome save(const std::string& path, std::string_view key, uint64_t& count);
  Outcome load(const std::string& path, std::string_view key, uint64_t& count);

  // For tests: what stands for the time; 0 means the system's.
  void set_clock(int64_t now) { clock_ = now; }

 private:
  friend struct ForkHandlers;
  struct Batch;
  struct Background;  // what the writing thread shares, see background.h

  Outcome usable() const;
  int64_t now() const;
  Outcome with_reader(const std::function<Outcome(Database&)>& body);
  Found get_from_waiting(const KeyParts& parts, const Digest& key);
  Found get_from_user(const KeyParts& parts, const Digest& key, bool mark_used);
  Found get_from_base(const KeyParts& parts, const Digest& key);
  Found get_from_remote(const KeyParts& parts, const Digest& key);
  Archive* base();

  void start();
  void stop();
  void run(Background& background);
  void write_batch(Batch& batch);
  void request_replacement();
  Outcome last_write();

  void register_for_fork();
  void unregister_from_fork();
  void before_fork();
  void after_fork(bool child);

  const Options options_;
  int64_t clock_ = 0;
  int process_;
  OutcomeCounts got_;
  OutcomeCounts put_;
  std::atomic<uint64_t> evicted_{0};

  std::mutex reader_mutex_;
  Database reader_;
  std::mutex writer_mutex_;  // taken before reader_mutex_ where both are
  Database writer_;
  std::mutex base_mutex_;
  std::unique_ptr<Archive> base_;
  bool base_tried_ = false;
  std::mutex remote_mutex_;
  std::shared_ptr<const Remote> remote_;
  std::set<Digest> asked_remote_;
  Background* background_;
};

}  // namespace flashpoint::store
