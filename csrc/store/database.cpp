#include "store/database.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>

#include "store/archive.h"
#include "store/directory.h"
#include "store/host.h"

namespace flashpoint::store {
namespace {

constexpr int kApplication = 0x66707374;  // "fpst"
constexpr int kReadPatience = 100;        // milliseconds that another process may hold us up
constexpr int kWritePatience = 250;
constexpr int kLockPatience = 1000;
constexpr int64_t kMaxUse = int64_t{1} << 60;
constexpr int64_t kJournalLimit = 16 << 20;

// In the order of their names, as the check of the layout reads them.
constexpr const char* kLayout[] = {
    "CREATE INDEX by_use ON entries(used, size)",
    "CREATE TABLE entries(id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, head BLOB NOT NULL, "
    "size INTEGER NOT NULL, used INTEGER NOT NULL)",
    "CREATE TABLE payloads(id INTEGER PRIMARY KEY, data BLOB NOT NULL)",
};
constexpr int kLayoutOrder[] = {1, 0, 2};

enum Statement {
#define X(name, sql) s_##name,
#include "store/statements.def"
#undef X
  kStatements
};
constexpr const char* kSql[] = {
#define X(name, sql) sql,
#include "store/statements.def"
#undef X
};

// Holds a prepared statement for one use, whatever way it ends.
class Use {
 public:
  explicit Use(sqlite3_stmt* statement) : statement_(statement) {}
  ~Use() {
    if (statement_ == nullptr) return;
    sqlite3_reset(statement_);
    sqlite3_clear_bindings(statement_);
  }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

  sqlite3_stmt* get() const { return statement_; }
  explicit operator bool() const { return statement_ != nullptr; }
  Use& blob(int at, const void* data, size_t size) {
    sqlite3_bind_blob64(statement_, at, size == 0 ? "" : data, size, SQLITE_STATIC);
    return *this;
  }
  Use& key(int at, const Digest& key) { return blob(at, key.data(), key.size()); }
  Use& number(int at, int64_t value) {
    sqlite3_bind_int64(statement_, at, value);
    return *this;
  }
  int step() { return sqlite3_step(statement_); }
  // Null when the value is not a blob or there is no memory for it.
  bool column(int at, std::string_view& value) {
    if (sqlite3_column_type(statement_, at) != SQLITE_BLOB) return false;
    const void* data = sqlite3_column_blob(statement_, at);
    const int size = sqlite3_column_bytes(statement_, at);
    value = {static_cast<const char*>(data), static_cast<size_t>(size)};
    return data != nullptr || size == 0;
  }
  int64_t column_number(int at) { return sqlite3_column_int64(statement_, at); }
  double column_real(int at) { return sqlite3_column_double(statement_, at); }
  const char* column_text(int at) {
    return reinterpret_cast<const char*>(sqlite3_column_text(statement_, at));
  }

 private:
  sqlite3_stmt* statement_;
};

// Whoever makes or removes the database holds this alone, whoever opens it together with others who do: the
// database and its log are two files, and opening must find those that belong together. Gives up after a
// while.
class FileLock {
 public:
  FileLock(const std::string& directory, int kind)
      : file_(::open((directory + "/lock").c_str(), O_RDONLY | O_CREAT | O_CLOEXEC, 0600)) {
    for (int waited = 0; file_ >= 0 && flock(file_, kind | LOCK_NB) != 0; waited += 5) {
      if (waited < kLockPatience && (errno == EWOULDBLOCK || errno == EINTR)) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        continue;
      }
      error_ = errno;
      ::close(file_);
      file_ = -1;
      return;
    }
    if (file_ < 0) error_ = errno;
  }
  ~FileLock() {
    if (file_ >= 0) ::close(file_);
  }
  FileLock(const FileLock&) = delete;
  FileLock& operator=(const FileLock&) = delete;
  bool held() const { return file_ >= 0; }
  Outcome why_not() const { return error_ == EWOULDBLOCK ? Outcome::k_busy : outcome_of_errno(error_); }

 private:
  int file_;
  int error_ = 0;
};

bool same_file(const std::string& path, const uint64_t id[2]) {
  struct stat info;
  return stat(path.c_str(), &info) == 0 && info.st_dev == id[0] && info.st_ino == id[1];
}

// A path inside a URI.
std::string escaped(const std::string& path) {
  std::string text;
  for (const char c : path) {
    if (c == '%' || c == '?' || c == '#') {
      text += '%';
      text += hex(reinterpret_cast<const uint8_t*>(&c), 1);
    } else {
      text += c;
    }
  }
  return text;
}

void remove_files(const std::string& path) {
  for (const char* suffix : {"", "-wal", "-shm", "-journal"}) unlink((path + suffix).c_str());
}

}  // namespace

std::string database_name() { return "store-" + std::to_string(kFormatVersion) + ".db"; }

Database::Database(std::string directory, Mode mode)
    : directory_(std::move(directory)), path_(directory_ + "/" + database_name()), mode_(mode) {}

Database::~Database() { close(); }

void Database::close() {
  for (sqlite3_stmt* statement : statements_) sqlite3_finalize(statement);
  statements_.clear();
  if (connection_ != nullptr) sqlite3_close_v2(std::exchange(connection_, nullptr));
}

sqlite3_stmt* Database::statement(int index) {
  if (statements_.empty()) statements_.resize(kStatements);
  sqlite3_stmt*& prepared = statements_[static_cast<size_t>(index)];
  if (prepared == nullptr) {
    sqlite3_prepare_v3(connection_, kSql[index], -1, SQLITE_PREPARE_PERSISTENT, &prepared, nullptr);
  }
  return prepared;
}

Outcome Database::outcome_of(int code) {
  switch (code & 0xff) {
    case SQLITE_OK:
    case SQLITE_ROW:
    case SQLITE_DONE:
      return Outcome::k_hit;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
      return Outcome::k_busy;
    case SQLITE_FULL:
      return Outcome::k_disk_full;
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return Outcome::k_read_only;
    case SQLITE_CANTOPEN:
      return Outcome::k_cannot_open;
    case SQLITE_TOOBIG:
      return Outcome::k_too_large;
    case SQLITE_IOERR: {
      if (code == SQLITE_IOERR_CORRUPTFS || code == SQLITE_IOERR_SHORT_READ) return Outcome::k_bad_database;
      const int error = sqlite3_system_errno(connection_);
      return error == ENOSPC || error == EDQUOT ? Outcome::k_disk_full : Outcome::k_io_error;
    }
    case SQLITE_NOMEM:
      return Outcome::k_io_error;
    case SQLITE_MISUSE:
    case SQLITE_INTERNAL:
      return Outcome::k_internal;
    default:  // corrupt, not a database, and errors in SQL that only another layout can cause
      return Outcome::k_bad_database;
  }
}

Outcome Database::fail(int code) {
  const int extended = sqlite3_extended_errcode(connection_);
  return outcome_of((extended & 0xff) == (code & 0xff) ? extended : code);
}

Outcome Database::execute(const char* sql) {
  const int code = sqlite3_exec(connection_, sql, nullptr, nullptr, nullptr);
  return code == SQLITE_OK ? Outcome::k_hit : fail(code);
}

Outcome Database::connect(const std::string& path, bool creating) {
  // Where nothing can be written there is no log either: then the file is all there is, and does not change.
  fixed_ = !creating && mode_ == Mode::kRead && access(directory_.c_str(), W_OK) != 0;
  const int flags = (fixed_ ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE) | SQLITE_OPEN_URI |
                    SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_PRIVATECACHE | SQLITE_OPEN_NOFOLLOW;
  const std::string name = "file:" + escaped(path) + (fixed_ ? "?immutable=1" : "");
  const int code = sqlite3_open_v2(name.c_str(), &connection_, flags, nullptr);
  if (connection_ == nullptr) return Outcome::k_io_error;
  if (code != SQLITE_OK) {
    const Outcome outcome = fail(code);
    close();
    return outcome;
  }
  sqlite3_extended_result_codes(connection_, 1);
  sqlite3_db_config(connection_, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(connection_, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  sqlite3_db_config(connection_, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, nullptr);
  sqlite3_db_config(connection_, SQLITE_DBCONFIG_ENABLE_VIEW, 0, nullptr);
  sqlite3_db_config(connection_, SQLITE_DBCONFIG_ENABLE_LOAD_EXTENSION, 0, nullptr);
  // The log outlives its users: removing it could hit the log of a database that replaced this one.
  sqlite3_db_config(connection_, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, creating ? 0 : 1, nullptr);
  sqlite3_limit(connection_, SQLITE_LIMIT_ATTACHED, 0);
  sqlite3_busy_timeout(connection_, mode_ == Mode::kWrite ? kWritePatience : kReadPatience);
  if (creating) return Outcome::k_hit;
  const std::string settings =
      "PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0; PRAGMA synchronous = NORMAL; "
      "PRAGMA temp_store = MEMORY; PRAGMA journal_size_limit = " +
      std::to_string(kJournalLimit) + (mode_ == Mode::kRead ? "; PRAGMA query_only = ON" : "");
  Outcome outcome = execute(settings.c_str());
  if (outcome == Outcome::k_hit) outcome = check_layout();
  return outcome;
}

Outcome Database::check_layout() {
  int values[2] = {0, 0};
  const char* questions[2] = {"PRAGMA application_id", "PRAGMA user_version"};
  for (int i = 0; i < 2; ++i) {
    sqlite3_stmt* asked = nullptr;
    int code = sqlite3_prepare_v2(connection_, questions[i], -1, &asked, nullptr);
    if (code == SQLITE_OK) code = sqlite3_step(asked);
    if (code == SQLITE_ROW) values[i] = sqlite3_column_int(asked, 0);
    sqlite3_finalize(asked);
    if (code != SQLITE_ROW) return fail(code);
  }
  if (values[0] != kApplication || values[1] != static_cast<int>(kFormatVersion))
    return Outcome::k_bad_database;
  Use layout(statement(s_layout));
  if (!layout) return fail(sqlite3_errcode(connection_));
  for (const char* wanted : kLayout) {
    const int code = layout.step();
    if (code != SQLITE_ROW) return code == SQLITE_DONE ? Outcome::k_bad_database : fail(code);
    const char* found = layout.column_text(0);
    if (found == nullptr || std::strcmp(found, wanted) != 0) return Outcome::k_bad_database;
  }
  const int code = layout.step();
  if (code == SQLITE_ROW) return Outcome::k_bad_database;
  return code == SQLITE_DONE ? Outcome::k_hit : fail(code);
}

Outcome Database::create() {
  const FileLock lock(directory_, LOCK_EX);
  if (!lock.held()) return lock.why_not();
  if (check_file(path_) != Outcome::k_absent) return Outcome::k_hit;  // another process was first
  remove_files(path_);                                                // a log without its database
  const std::string fresh = path_ + ".new";
  remove_files(fresh);
  const int file = ::open(fresh.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  if (file < 0) return outcome_of_errno(errno);
  ::close(file);
  Outcome outcome = connect(fresh, true);
  // A database that is not there yet can be thrown away at any time: nothing needs to be synced before its
  // end.
  std::string sql =
      "PRAGMA synchronous = OFF; PRAGMA page_size = 4096; PRAGMA auto_vacuum = INCREMENTAL; "
      "PRAGMA journal_mode = WAL; BEGIN; PRAGMA application_id = " +
      std::to_string(kApplication) + "; PRAGMA user_version = " + std::to_string(kFormatVersion) + "; ";
  for (const int index : kLayoutOrder) sql += std::string(kLayout[index]) + "; ";
  sql += "COMMIT";
  if (outcome == Outcome::k_hit) outcome = execute(sql.c_str());
  close();  // moves the log into the file and removes it
  if (outcome == Outcome::k_hit && rename(fresh.c_str(), path_.c_str()) != 0)
    outcome = outcome_of_errno(errno);
  if (outcome != Outcome::k_hit) remove_files(fresh);
  return outcome;
}

// Not when it was replaced, when the user has emptied the cache, or when a fixed one can be written to again.
bool Database::is_current() const {
  return is_open() && same_file(path_, file_id_) && !(fixed_ && access(directory_.c_str(), W_OK) == 0);
}

Outcome Database::open() {
  if (is_current()) return Outcome::k_hit;
  close();
  Outcome outcome = mode_ == Mode::kWrite ? prepare_directory(directory_) : Outcome::k_hit;
  if (outcome != Outcome::k_hit) return outcome;
  outcome = check_file(path_);
  if (outcome == Outcome::k_absent && mode_ == Mode::kWrite) {
    outcome = create();
    if (outcome == Outcome::k_hit) outcome = check_file(path_);
  }
  if (outcome != Outcome::k_hit) return outcome;
  if (mode_ == Mode::kRead) outcome = prepare_directory(directory_);
  if (outcome != Outcome::k_hit) return outcome;
  const FileLock lock(directory_, LOCK_SH);
  if (!lock.held() && lock.why_not() != Outcome::k_read_only) return lock.why_not();
  struct stat info;
  if (stat(path_.c_str(), &info) != 0) return Outcome::k_absent;  // removed just now
  file_id_[0] = info.st_dev;
  file_id_[1] = info.st_ino;
  outcome = connect(path_, false);
  const bool writes = mode_ == Mode::kWrite;
  if (outcome == Outcome::k_hit && writes && sqlite3_db_readonly(connection_, "main") != 0) {
    outcome = Outcome::k_read_only;
  }
  if (outcome != Outcome::k_hit) close();
  return outcome;
}

void Database::replace() {
  close();
  const FileLock lock(directory_, LOCK_EX);
  if (lock.held() && same_file(path_, file_id_)) remove_files(path_);
}

Outcome Database::get(const KeyParts& parts, const Digest& key, Head& head, std::string& payload) {
  // One transaction, so that the payload belongs to the head.
  Outcome outcome = execute("BEGIN");
  if (outcome != Outcome::k_hit) return outcome;
  outcome = read(parts, key, head, payload);
  execute("COMMIT");
  return outcome;
}

Outcome Database::read(const KeyParts& parts, const Digest& key, Head& head, std::string& payload) {
  Use entry(statement(s_get_head));
  if (!entry) return fail(sqlite3_errcode(connection_));
  int code = entry.key(1, key).step();
  if (code == SQLITE_DONE) return Outcome::k_absent;
  if (code != SQLITE_ROW) return fail(code);
  std::string_view bytes;
  if (!entry.column(1, bytes)) return Outcome::k_bad_magic;
  const Outcome decoded = decode_head(bytes, head);
  if (decoded != Outcome::k_hit) return decoded;
  if (head.parts != parts) return Outcome::k_other_key;
  Use data(statement(s_get_payload));
  if (!data) return fail(sqlite3_errcode(connection_));
  code = data.number(1, entry.column_number(0)).step();
  if (code == SQLITE_DONE) return Outcome::k_lost_payload;
  if (code != SQLITE_ROW) return fail(code);
  if (!data.column(0, bytes)) return Outcome::k_lost_payload;
  const Outcome checked = check_payload(head, bytes);
  if (checked == Outcome::k_hit) payload = bytes;
  return checked;
}

Outcome Database::each(const std::function<bool(const Digest&, Outcome, const Head&, int64_t)>& visit) {
  Use rows(statement(s_each));
  if (!rows) return fail(sqlite3_errcode(connection_));
  for (;;) {
    const int code = rows.step();
    if (code == SQLITE_DONE) return Outcome::k_hit;
    if (code != SQLITE_ROW) return fail(code);
    std::string_view key_bytes;
    std::string_view bytes;
    Digest key{};
    Head head;
    Outcome valid = Outcome::k_bad_size;
    if (rows.column(0, key_bytes) && key_bytes.size() == key.size()) {
      std::memcpy(key.data(), key_bytes.data(), key.size());
      valid = rows.column(1, bytes) ? decode_head(bytes, head) : Outcome::k_bad_magic;
      if (valid == Outcome::k_hit && key_of(head.parts) != key) valid = Outcome::k_other_key;
    }
    if (!visit(key, valid, head, rows.column_number(2))) return Outcome::k_hit;
  }
}

Outcome Database::run(sqlite3_stmt* statement) {
  if (statement == nullptr) return fail(sqlite3_errcode(connection_));
  const int code = sqlite3_step(statement);
  return code == SQLITE_DONE || code == SQLITE_ROW ? Outcome::k_hit : fail(code);
}

Outcome Database::remove(const Digest& key) {
  for (const Statement index : {s_remove_payload, s_remove_entry}) {
    Use use(statement(index));
    if (use) use.key(1, key);
    const Outcome removed = run(use.get());
    if (removed != Outcome::k_hit) return removed;
  }
  return Outcome::k_hit;
}

Outcome Database::write_record(const Write& record, int64_t use) {
  std::string head = record.head;
  std::string payload = record.payload;
  Head fresh;
  if (record.merge && decode_head(head, fresh) == Outcome::k_hit) {
    Head present;
    std::string there;
    const Outcome found = read(fresh.parts, record.key, present, there);
    // What nobody vouches for does not become this user's own by being merged.
    if (found == Outcome::k_hit && (present.origin != Origin::kUnsigned || fresh.origin == present.origin)) {
      payload = record.merge(there, record.payload);
      head = encode_head(head_for(std::move(fresh.parts), payload, fresh.origin, fresh.created));
    }
  }
  const Outcome removed = remove(record.key);
  if (removed != Outcome::k_hit) return removed;
  Use entry(statement(s_add_entry));
  if (entry) {
    entry.key(1, record.key).blob(2, head.data(), head.size());
    entry.number(3, static_cast<int64_t>(head.size() + payload.size() + kRecordOverhead)).number(4, use);
  }
  const Outcome added = run(entry.get());
  if (added != Outcome::k_hit) return added;
  Use data(statement(s_add_payload));
  if (data) {
    data.number(1, sqlite3_last_insert_rowid(connection_));
    data.blob(2, payload.data(), payload.size());
  }
  return run(data.get());
}

Outcome Database::write(const std::vector<const Write*>& records, const std::vector<Digest>& dropped,
                        const std::vector<Digest>& used, uint64_t limit, uint64_t& evicted) {
  Outcome outcome = execute("BEGIN IMMEDIATE");
  if (outcome != Outcome::k_hit) return outcome;
  outcome = [&] {
    int64_t last = 0;
    {
      Use use(statement(s_last_use));
      const Outcome asked = run(use.get());
      if (asked != Outcome::k_hit) return asked;
      last = use.column_number(0);
    }
    if (last < 0 || last > kMaxUse) {
      Use use(statement(s_forget_use));
      const Outcome forgotten = run(use.get());
      if (forgotten != Outcome::k_hit) return forgotten;
      last = 0;
    }
    for (const Digest& key : dropped) {
      const Outcome removed = remove(key);
      if (removed != Outcome::k_hit) return removed;
    }
    for (const Digest& key : used) {
      Use use(statement(s_mark_used));
      if (use) use.key(1, key).number(2, ++last);
      const Outcome marked = run(use.get());
      if (marked != Outcome::k_hit) return marked;
    }
    for (const Write* record : records) {
      const Outcome done = write_record(*record, ++last);
      if (done != Outcome::k_hit) return done;
    }
    return evict(limit, evicted);
  }();
  if (outcome == Outcome::k_hit) outcome = execute("COMMIT");
  if (outcome != Outcome::k_hit && sqlite3_get_autocommit(connection_) == 0) execute("ROLLBACK");
  return outcome;
}

Outcome Database::evict(uint64_t limit, uint64_t& evicted) {
  uint64_t bytes = 0;
  uint64_t count = 0;
  Outcome outcome = measure(bytes, count);
  if (outcome != Outcome::k_hit || bytes <= limit) return outcome;
  const uint64_t goal = limit - limit / 10;  // not one by one at each write
  uint64_t removed_now = 0;
  while (bytes > goal && count > 0) {
    std::vector<std::pair<int64_t, uint64_t>> oldest;
    {
      Use rows(statement(s_oldest));
      if (!rows) return fail(sqlite3_errcode(connection_));
      int code;
      while ((code = rows.step()) == SQLITE_ROW) {
        oldest.emplace_back(rows.column_number(0), static_cast<uint64_t>(rows.column_number(2)));
      }
      if (code != SQLITE_DONE) return fail(code);
    }
    if (oldest.empty()) return Outcome::k_bad_database;
    for (const auto& [id, size] : oldest) {
      if (bytes <= goal || count == 0) break;
      const std::string text = std::to_string(id);
      outcome = execute(("DELETE FROM payloads WHERE id = " + text).c_str());
      if (outcome == Outcome::k_hit) outcome = execute(("DELETE FROM entries WHERE id = " + text).c_str());
      if (outcome != Outcome::k_hit) return outcome;
      bytes -= std::min(bytes, size);
      --count;
      ++removed_now;
    }
  }
  evicted += removed_now;
  return execute("PRAGMA incremental_vacuum(4096)");
}

Outcome Database::measure(uint64_t& bytes, uint64_t& count) {
  Use use(statement(s_total));
  if (!use) return fail(sqlite3_errcode(connection_));
  const int code = use.step();
  if (code != SQLITE_ROW) return code == SQLITE_DONE ? Outcome::k_bad_database : fail(code);
  const double total = use.column_real(0);
  if (!(total >= 0 && total < 1e18)) return Outcome::k_bad_database;
  bytes = static_cast<uint64_t>(total);
  count = static_cast<uint64_t>(use.column_number(1));
  return Outcome::k_hit;
}

void Database::checkpoint() {
  if (is_open())
    sqlite3_wal_checkpoint_v2(connection_, nullptr, SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr);
}

void Database::compact() {
  execute("PRAGMA incremental_vacuum");
  checkpoint();
}

Outcome Database::check() {
  Use use(statement(s_check));
  if (!use) return fail(sqlite3_errcode(connection_));
  const int code = use.step();
  if (code != SQLITE_ROW) return code == SQLITE_DONE ? Outcome::k_bad_database : fail(code);
  const char* text = use.column_text(0);
  return text != nullptr && std::strcmp(text, "ok") == 0 ? Outcome::k_hit : Outcome::k_bad_database;
}

}  // namespace flashpoint::store
