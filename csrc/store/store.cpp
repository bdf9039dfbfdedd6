#include "store/store.h"

#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>

#include "store/background.h"
#include "store/directory.h"

namespace flashpoint::store {
namespace {

std::atomic<Store*> shared_store{nullptr};

// Worth dropping: a record that will be no better next time.
bool is_damage(Outcome outcome) {
  switch (outcome) {
    case Outcome::k_bad_magic:
    case Outcome::k_bad_version:
    case Outcome::k_bad_size:
    case Outcome::k_bad_parts:
    case Outcome::k_bad_checksum:
    case Outcome::k_other_key:
    case Outcome::k_lost_payload:
      return true;
    default:
      return false;
  }
}

size_t equal_parts(const KeyParts& a, const KeyParts& b) {
  size_t count = 0;
  for (auto i = a.begin(), j = b.begin(); i != a.end() && j != b.end();) {
    count += *i == *j;
    const int order = i->first.compare(j->first);
    if (order <= 0) ++i;
    if (order >= 0) ++j;
  }
  return count;
}

std::string absolute(std::string path) {
  if (path.empty() || path[0] == '/') return path;
  char* here = getcwd(nullptr, 0);
  if (here != nullptr) path = std::string(here) + "/" + path;
  std::free(here);
  return path;
}

Options with_absolute_paths(Options options) {
  options.directory = absolute(std::move(options.directory));
  options.base = absolute(std::move(options.base));
  return options;
}

}  // namespace

Store::Store(Options options)
    : options_(with_absolute_paths(std::move(options))),
      process_(getpid()),
      reader_(options_.directory, Database::Mode::kRead),
      writer_(options_.directory, Database::Mode::kWrite),
      background_(new Background) {
  register_for_fork();
}

Store::~Store() {
  flush(2000);
  unregister_from_fork();
  stop();
  if (process_ == getpid()) delete background_;
}

int64_t Store::now() const { return clock_ != 0 ? clock_ : static_cast<int64_t>(std::time(nullptr)); }

Outcome Store::usable() const {
  if (!options_.enabled) return Outcome::k_disabled;
  return process_ == getpid() ? Outcome::k_hit : Outcome::k_forked;
}

Outcome Store::with_reader(const std::function<Outcome(Database&)>& body) {
  Outcome outcome;
  {
    const std::lock_guard<std::mutex> lock(reader_mutex_);
    outcome = reader_.open();
    if (outcome == Outcome::k_hit) outcome = body(reader_);
    if (outcome == Outcome::k_bad_database) reader_.close();
  }
  if (outcome == Outcome::k_bad_database) request_replacement();
  return outcome;
}

Found Store::get_from_waiting(const KeyParts& parts, const Digest& key) {
  const std::lock_guard<std::mutex> lock(background_->mutex);
  const auto found = background_->waiting.find(key);
  if (found == background_->waiting.end()) return {};
  Head head;
  const Outcome outcome = decode_head(found->second->head, head);
  if (outcome != Outcome::k_hit || head.parts != parts) return {Outcome::k_other_key, Layer::kWaiting};
  return {Outcome::k_hit, Layer::kWaiting, head.origin, found->second->payload};
}

Found Store::get_from_user(const KeyParts& parts, const Digest& key, bool mark_used) {
  Found found;
  Head head;
  found.outcome =
      with_reader([&](Database& database) { return database.get(parts, key, head, found.payload); });
  found.origin = head.origin;
  const std::lock_guard<std::mutex> lock(background_->mutex);
  if (found.outcome == Outcome::k_hit && mark_used) background_->used.insert(key);
  if (is_damage(found.outcome)) background_->dropped.insert(key);
  return found;
}

Archive* Store::base() {
  if (options_.base.empty()) return nullptr;
  const std::lock_guard<std::mutex> lock(base_mutex_);
  if (!base_tried_) {
    base_tried_ = true;
    Outcome outcome;
    base_ = Archive::open(options_.base, true, outcome);
    if (base_ == nullptr) got_.count(outcome);
  }
  return base_.get();
}

Found Store::get_from_base(const KeyParts& parts, const Digest& key) {
  Found found;
  found.layer = Layer::kBase;
  const Archive* archive = base();
  const ptrdiff_t position = archive == nullptr ? -1 : archive->find(key);
  if (position < 0) return found;
  StoredRecord record;
  found.outcome = archive->read(static_cast<size_t>(position), record);
  if (found.outcome == Outcome::k_hit && record.head.parts != parts) found.outcome = Outcome::k_other_key;
  found.origin = Origin::kUnsigned;  // it came with the installation, whoever made it
  if (found.outcome == Outcome::k_hit) found.payload = std::move(record.payload);
  return found;
}

void Store::set_remote(std::shared_ptr<const Remote> remote) {
  const std::lock_guard<std::mutex> lock(remote_mutex_);
  remote_.swap(remote);
  asked_remote_.clear();
}

Found Store::get_from_remote(const KeyParts& parts, const Digest& key) {
  Found found;
  found.layer = Layer::kRemote;
  found.origin = Origin::kSigned;
  std::shared_ptr<const Remote> remote;
  {
    const std::lock_guard<std::mutex> lock(remote_mutex_);
    if (remote_ == nullptr || !asked_remote_.insert(key).second) return found;
    remote = remote_;
  }
  std::string bytes;
  found.outcome = remote->fetch(key, bytes);
  if (found.outcome != Outcome::k_hit) return found;
  StoredRecord record;
  Digest recorded;
  found.outcome = unpack_record(bytes, remote->secret, recorded, record);
  if (found.outcome != Outcome::k_hit) return found;
  if (record.head.parts != parts) {
    found.outcome = Outcome::k_other_key;
    return found;
  }
  found.payload = record.payload;
  put(std::move(record.head.parts), std::move(record.payload), Origin::kSigned);  // for the next process
  return found;
}

Outcome Store::pack(KeyParts parts, std::string_view secret, std::string& out) try {
  const Outcome fit = usable();
  if (fit != Outcome::k_hit) return fit;
  if (!normalize(parts)) return Outcome::k_bad_parts;
  const Digest key = key_of(parts);
  Found found = get_from_waiting(parts, key);
  if (found.outcome != Outcome::k_hit) found = get_from_user(parts, key, false);
  if (found.outcome != Outcome::k_hit) return found.outcome;
  if (found.origin != Origin::kOwn) return Outcome::k_absent;
  const Head head = head_for(std::move(parts), found.payload, Origin::kSigned, now());
  out = pack_record(key, head, found.payload, secret);
  return Outcome::k_hit;
} catch (const std::exception&) {
  return Outcome::k_internal;
}

Outcome Store::unpack(std::string_view bytes, std::string_view secret) try {
  StoredRecord record;
  Digest key;
  const Outcome outcome = unpack_record(bytes, secret, key, record);
  if (outcome != Outcome::k_hit) return put_.count(outcome);
  const Found present = get_from_user(record.head.parts, key, false);
  if (present.outcome == Outcome::k_hit && present.origin <= Origin::kSigned) return Outcome::k_hit;
  return put(std::move(record.head.parts), std::move(record.payload), Origin::kSigned);
} catch (const std::exception&) {
  return put_.count(Outcome::k_internal);
}

Found Store::get(KeyParts parts) try {
  Found found;
  found.outcome = usable();
  if (found.outcome == Outcome::k_hit && !normalize(parts)) found.outcome = Outcome::k_bad_parts;
  if (found.outcome == Outcome::k_hit) {
    const Digest key = key_of(parts);
    found = get_from_waiting(parts, key);
    if (found.outcome != Outcome::k_hit) found = get_from_user(parts, key, true);
    if (found.outcome != Outcome::k_hit) {
      Found other = get_from_base(parts, key);
      // The reason of the layer that had something to say; a base that stands in for damage hides none.
      if (other.outcome != Outcome::k_absent) {
        if (found.outcome != Outcome::k_absent) got_.count(found.outcome);
        found = std::move(other);
      }
    }
    if (found.outcome != Outcome::k_hit) {
      Found other = get_from_remote(parts, key);
      if (other.outcome != Outcome::k_absent) {
        if (found.outcome != Outcome::k_absent) got_.count(found.outcome);
        found = std::move(other);
      }
    }
  }
  if (found.outcome != Outcome::k_hit) found.payload.clear();
  got_.count(found.outcome);
  return found;
} catch (const std::exception&) {
  return {got_.count(Outcome::k_internal)};
}

Outcome Store::put(KeyParts parts, std::string payload, Origin origin, Merge merge) try {
  const Outcome fit = usable();
  if (fit != Outcome::k_hit) return put_.count(fit);
  if (!normalize(parts)) return put_.count(Outcome::k_bad_parts);
  if (payload.size() > std::min(kMaxPayload, options_.limit / 2)) return put_.count(Outcome::k_too_large);
  auto record = std::make_shared<Write>();
  record->key = key_of(parts);
  record->head = encode_head(head_for(std::move(parts), payload, origin, now()));
  record->payload = std::move(payload);
  record->merge = std::move(merge);
  const uint64_t bytes = record->head.size() + record->payload.size();
  {
    const std::lock_guard<std::mutex> lock(background_->mutex);
    if (background_->waiting_bytes + bytes > options_.max_waiting) return put_.count(Outcome::k_queue_full);
    background_->waiting_bytes += bytes;
    background_->waiting[record->key] = record;
    background_->queue.push_back(std::move(record));
    start();
  }
  background_->wake.notify_one();
  return put_.count(Outcome::k_queued);
} catch (const std::exception&) {
  return put_.count(Outcome::k_internal);
}

std::optional<KeyParts> Store::nearest(KeyParts parts) try {
  if (usable() != Outcome::k_hit || !normalize(parts)) return std::nullopt;
  std::optional<KeyParts> best;
  size_t most = 0;
  auto consider = [&](const Head& head) {
    const size_t count = equal_parts(head.parts, parts);
    if (count <= most) return;
    most = count;
    best = head.parts;
  };
  for (const Listed& row : list()) {
    if (row.outcome == Outcome::k_hit) consider(row.head);
  }
  return best;
} catch (const std::exception&) {
  got_.count(Outcome::k_internal);
  return std::nullopt;
}

std::vector<Listed> Store::list() {
  std::vector<Listed> rows;
  if (usable() != Outcome::k_hit) return rows;
  {
    const std::lock_guard<std::mutex> lock(background_->mutex);
    for (const auto& [key, record] : background_->waiting) {
      Listed row{Layer::kWaiting, key, Outcome::k_hit, {}};
      row.outcome = decode_head(record->head, row.head);
      rows.push_back(std::move(row));
    }
  }
  with_reader([&](Database& database) {
    return database.each([&](const Digest& key, Outcome outcome, const Head& head, int64_t) {
      rows.push_back({Layer::kUser, key, outcome, head});
      return true;
    });
  });
  const Archive* archive = base();
  for (size_t i = 0; archive != nullptr && i < archive->size(); ++i) {
    Listed row{Layer::kBase, {}, Outcome::k_hit, {}};
    row.outcome = archive->read_head(i, row.head);
    if (row.outcome == Outcome::k_hit) row.key = key_of(row.head.parts);
    rows.push_back(std::move(row));
  }
  return rows;
}

std::vector<Listed> Store::verify(Outcome& database) {
  database = with_reader([](Database& reader) { return reader.check(); });
  std::vector<Listed> rows = list();
  for (Listed& row : rows) {
    if (row.outcome != Outcome::k_hit) continue;
    if (row.layer == Layer::kUser) row.outcome = get_from_user(row.head.parts, row.key, false).outcome;
    if (row.layer == Layer::kBase) row.outcome = get_from_base(row.head.parts, row.key).outcome;
  }
  return rows;
}

Statistics Store::statistics() {
  Statistics all;
  for (size_t i = 0; i < kOutcomes; ++i) {
    all.got[i] = got_.of(i);
    all.put[i] = put_.of(i);
  }
  all.evicted = evicted_.load();
  if (usable() == Outcome::k_hit) {
    with_reader([&](Database& database) { return database.measure(all.bytes, all.records); });
  }
  return all;
}

Outcome Store::save(const std::string& path, std::string_view key, uint64_t& count) {
  const Outcome fit = usable();
  if (fit != Outcome::k_hit) return fit;
  flush(10000);
  ArchiveWriter writer(path, key);
  for (const Listed& row : list()) {
    if (row.outcome != Outcome::k_hit) continue;
    Found found = row.layer == Layer::kWaiting ? get_from_waiting(row.head.parts, row.key)
                  : row.layer == Layer::kUser  ? get_from_user(row.head.parts, row.key, false)
                                               : get_from_base(row.head.parts, row.key);
    if (found.outcome != Outcome::k_hit) continue;
    Head head = row.head;
    // It may have been written anew since it was listed.
    const Head now_there = head_for(head.parts, found.payload, found.origin, head.created);
    if (writer.add(now_there, found.payload) != Outcome::k_written) break;
  }
  count = writer.size();
  return writer.finish();
}

Outcome Store::load(const std::string& path, std::string_view key, uint64_t& count) {
  const Outcome fit = usable();
  if (fit != Outcome::k_hit) return fit;
  Outcome outcome;
  const std::unique_ptr<Archive> archive = Archive::open(path, false, outcome);
  if (archive == nullptr) return outcome;
  // What is verified must be what is read, even if someone writes to the file meanwhile.
  outcome = archive->pull_into_memory();
  if (outcome == Outcome::k_hit) outcome = archive->verify(key);
  if (outcome != Outcome::k_hit) return outcome;
  const Origin origin = archive->is_signed() ? Origin::kSigned : Origin::kUnsigned;
  for (size_t i = 0; i < archive->size(); ++i) {
    StoredRecord record;
    outcome = archive->read(i, record);
    if (outcome != Outcome::k_hit) return outcome;
    // What this user's own processes made is worth more than the same from elsewhere.
    const Found present = get_from_user(record.head.parts, key_of(record.head.parts), false);
    if (present.outcome == Outcome::k_hit && present.origin <= origin) continue;
    outcome = put(record.head.parts, record.payload, origin);
    if (outcome == Outcome::k_queue_full) {
      flush(10000);
      outcome = put(record.head.parts, std::move(record.payload), origin);
    }
    if (outcome != Outcome::k_queued) return outcome;
    ++count;
  }
  return flush(10000) ? last_write() : Outcome::k_busy;
}

Options Options::from_environment() {
  auto text = [](const char* name) {
    const char* value = std::getenv(name);
    return std::string(value == nullptr ? "" : value);
  };
  Options options;
  options.enabled = text("FLASHPOINT_CACHE") != "0";
  options.directory = default_directory();
  options.base = text("FLASHPOINT_CACHE_BASE");
  const std::string size = text("FLASHPOINT_CACHE_SIZE");
  char* end = nullptr;
  const unsigned long long mebibytes = std::strtoull(size.c_str(), &end, 10);
  if (end != size.c_str() && *end == '\0' && mebibytes > 0 && mebibytes < (1u << 24)) {
    options.limit = mebibytes << 20;
  }
  return options;
}

Store& Store::shared() {
  static Store* instance = [] {
    auto* made = new Store(Options::from_environment());  // outlives threads that run on past main
    shared_store.store(made);
    return made;
  }();
  return *instance;
}

Store* Store::shared_if_used() { return shared_store.load(); }

}  // namespace flashpoint::store
