// The user layer: one SQLite database in WAL mode, shared by all processes of a user.
//
//   entries(id, key, head, size, used)    head and key as in record.h; used: a counter, highest = used last
//   payloads(id, data)                    apart, so that reading heads and marking use touch no payload
//
// The database is data: triggers and views are off, its schema must be, letter for letter, the one we create.
// It comes into being complete, by rename under a lock file. One that is damaged or has another layout is
// removed under the same lock and made anew; what other processes still have open goes on as an unlinked
// file. Use is counted, not timed, so no clock can confuse what is evicted.
//
// Every function gives an outcome; k_bad_database asks the owner to call `replace`.
//
// Threads: one at a time; the owner locks. Connections must be closed before a fork (see store.h).
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "store/outcome.h"
#include "store/record.h"

struct sqlite3;
struct sqlite3_stmt;

namespace flashpoint::store {

struct Write {
  Digest key;
  std::string head;
  std::string payload;
  Merge merge;  // may be empty: it takes the present one's place
};

class Database {
 public:
  enum class Mode { kRead, kWrite };

  Database(std::string directory, Mode mode);
  ~Database();
  Database(const Database&) = delete;
  Database& operator=(const Database&) = delete;

  // Opens if it is not open. A writer makes the directory and the database; for a reader, none is k_absent.
  Outcome open();
  void close();
  bool is_open() const { return connection_ != nullptr; }
  // Removes the files that `open` or a later access found damaged, unless another process has by now.
  void replace();

  Outcome get(const KeyParts& parts, const Digest& key, Head& head, std::string& payload);
  // Heads, used last first; stops when `visit` returns false. `valid` tells whether head.parts may be used.
  Outcome each(
      const std::function<bool(const Digest& key, Outcome valid, const Head& head, int64_t used)>& visit);

  // One transaction: stores the records, merged with what is there and trusted, removes
  // `dropped` keys, marks `used` keys, then evicts what was not used for longest until the sizes of all
  // records fit `limit` bytes. Counts evicted records into `evicted`.
  Outcome write(const std::vector<const Write*>& records, const std::vector<Digest>& dropped,
                const std::vector<Digest>& used, uint64_t limit, uint64_t& evicted);
  // Moves everything from the log into the database file, if no other process is in the way.
  void checkpoint();
  // The same, after giving the disk what is free inside the file.
  void compact();
  // SQLite's own check of the whole file.
  Outcome check();
  // Sum of the records' sizes, and their number.
  Outcome measure(uint64_t& bytes, uint64_t& count);

 private:
  Outcome create();
  Outcome read(const KeyParts& parts, const Digest& key, Head& head, std::string& payload);
  Outcome write_record(const Write& record, int64_t use);
  Outcome remove(const Digest& key);
  Outcome run(sqlite3_stmt* statement);
  Outcome connect(const std::string& path, bool creating);
  Outcome check_layout();
  Outcome outcome_of(int code);
  Outcome fail(int code);
  bool is_current() const;
  Outcome evict(uint64_t limit, uint64_t& evicted);
  Outcome execute(const char* sql);
  sqlite3_stmt* statement(int index);

  std::string directory_;
  std::string path_;
  Mode mode_;
  sqlite3* connection_ = nullptr;
  bool fixed_ = false;  // opened where nothing can be written
  std::vector<sqlite3_stmt*> statements_;
  uint64_t file_id_[2] = {0, 0};  // device and inode of what was opened
};

// Bytes that a record counts for, beyond its head and payload: rows, keys, pages.
inline constexpr uint64_t kRecordOverhead = 256;

// "store-<format version>.db": versions of the format live side by side.
std::string database_name();

}  // namespace flashpoint::store
