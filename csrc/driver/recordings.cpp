#include "driver/recordings.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>

#include "base/counters.h"
#include "base/log.h"
#include "driver/compiled_function.h"
#include "driver/entry_writer.h"
#include "driver/position_key.h"
#include "driver/session.h"
#include "driver/stance.h"
#include "portable/fingerprint.h"
#include "py/released.h"
#include "store/bytes.h"
#include "store/store.h"

namespace flashpoint {

namespace {

constexpr size_t kMostEntries = 8;
constexpr size_t kMostAtPosition = 64;  // a loop has one for each step
constexpr size_t kMostHistory = 32;
constexpr uint32_t kPayloadVersion = 1;
constexpr auto kDelay = std::chrono::milliseconds(50);

bool& enabled() {
  static bool on = [] {
    const char* value = std::getenv("FLASHPOINT_RECORDINGS");
    return value == nullptr || std::strcmp(value, "0") != 0;
  }();
  return on;
}

// Asks for a pending call a while after it was told to. Lives as long as the process; a forked child starts
// its own thread when it needs one.
class Timer {
 public:
  static Timer& shared() {
    static auto* timer = new Timer();
    return *timer;
  }

  void start() {
    if (process_ != getpid()) forget_parent();
    const std::lock_guard<std::mutex> lock(*mutex_);
    if (stopped_) return;
    due_ = std::chrono::steady_clock::now() + kDelay;
    asked_ = true;
    if (!thread_.joinable()) {
      try {
        thread_ = std::thread([this] { run(); });
      } catch (const std::system_error&) {
        return;  // it is written at exit
      }
    }
    wake_->notify_one();
  }

  void stop() {
    if (process_ != getpid()) forget_parent();
    {
      const std::lock_guard<std::mutex> lock(*mutex_);
      stopped_ = true;
      wake_->notify_one();
    }
    if (thread_.joinable()) released([&] { thread_.join(); });
  }

 private:
  // The parent's thread is not here, and its mutex may be locked for ever.
  void forget_parent() {
    process_ = getpid();
    new (&thread_) std::thread();
    mutex_ = new std::mutex();
    wake_ = new std::condition_variable();
    asked_ = false;
  }

  void run() {
    std::unique_lock<std::mutex> lock(*mutex_);
    while (!stopped_) {
      if (!asked_) {
        wake_->wait(lock);
      } else if (std::chrono::steady_clock::now() < due_) {
        wake_->wait_until(lock, due_);
      } else {
        asked_ = false;
        Py_AddPendingCall(
            [](void*) {
              write_kept_entries();
              return 0;
            },
            nullptr);
      }
    }
  }

  pid_t process_ = getpid();
  std::thread thread_;
  std::mutex* mutex_ = new std::mutex();
  std::condition_variable* wake_ = new std::condition_variable();
  std::chrono::steady_clock::time_point due_;
  bool asked_ = false;
  bool stopped_ = false;
};

struct Kept {
  std::weak_ptr<CodeState> state;
  const CodeState* address;
  std::weak_ptr<Entry> entry;
  std::string position;  // empty: the start
};

std::vector<Kept>& kept() {
  static auto* list = new std::vector<Kept>();
  return *list;
}

bool stopped = false;

std::string text_of(PyObject* text) {
  const char* utf8 = text != nullptr && PyUnicode_Check(text) ? PyUnicode_AsUTF8(text) : nullptr;
  if (utf8 == nullptr) PyErr_Clear();
  return utf8 == nullptr ? "?" : utf8;
}

std::string digest_of(PyObject* code) {
  portable::Digest digest{};
  return portable::fingerprint_code(code, &digest) ? store::hex(digest) : std::string();
}

std::string class_of(PyObject* object) {
  if (object == nullptr) return "";
  PyTypeObject* type = Py_TYPE(object);
  if (!PyType_HasFeature(type, Py_TPFLAGS_HEAPTYPE)) return type->tp_name;
  return text_of(PyDict_GetItemString(type->tp_dict, "__module__")) + "." +
         text_of(reinterpret_cast<PyHeapTypeObject*>(type)->ht_qualname);
}

// The parts that do not depend on the function, from flashpoint.store.recordings.
bool add_surroundings(store::KeyParts& parts) {
  PyObject* modules = PyImport_GetModuleDict();
  PyObject* module =
      modules == nullptr ? nullptr : PyDict_GetItemString(modules, "flashpoint.store.recordings");
  if (module == nullptr) return false;
  const Ref dict = Ref::steal(PyObject_CallMethod(module, "surroundings", nullptr));
  if (!dict || !PyDict_Check(dict.get())) return PyErr_Clear(), false;
  PyObject *name, *value;
  for (Py_ssize_t pos = 0; PyDict_Next(dict.get(), &pos, &name, &value);)
    parts.emplace_back(text_of(name), text_of(value));
  return true;
}

const char* name_of_backend(const CodeState& state) {
  if (state.compiler) return "torch.compile";  // whichever it is: the graph is what it is called with
  return state.backend == Backend::kNative ? "native" : "eager";
}

bool make_key(store::KeyParts& parts, PyObject* function, PyObject* code, PyObject* first,
              const CodeState& state) {
  if (!PyFunction_Check(function) || code == nullptr) return false;
  const auto* f = reinterpret_cast<PyFunctionObject*>(function);
  const DriverConfig& config = driver_config();
  const auto flag = [](bool on) { return std::string(on ? "1" : "0"); };
  parts = {
      {"kind", "recording"},
      {"function.name", text_of(f->func_module) + "." + text_of(f->func_qualname)},
      {"function.code", digest_of(f->func_code)},
      {"code.name", text_of(reinterpret_cast<PyCodeObject*>(code)->co_qualname)},
      {"code.code", digest_of(code)},
      {"class", f->func_code == code ? std::string() : class_of(first)},
      {"position", "start"},
      {"options", std::string(name_of_backend(state)) + " queries=" + flag(config.tracing_state_queries) +
                      " values=" + flag(config.value_guards) + " scalars=" + flag(config.capture_scalars)}};
  if (parts[2].second.empty() || parts[4].second.empty()) return false;
  return add_surroundings(parts);
}

StoredEntries& stored(CodeState& state) {
  if (!state.stored) state.stored = std::make_shared<StoredEntries>();
  return *state.stored;
}

void note(CodeState& state, std::string line) {
  StoredEntries& mine = stored(state);
  if (log_enabled(LogKind::kStore)) log_line("store: " + line);
  if (mine.history.size() >= kMostHistory) mine.history.erase(mine.history.begin());
  mine.history.push_back(std::move(line));
}

std::string join_payload(const std::vector<std::string_view>& entries) {
  std::string payload;
  store::put_number<uint32_t>(payload, kPayloadVersion);
  store::put_number<uint32_t>(payload, static_cast<uint32_t>(entries.size()));
  for (const std::string_view entry : entries) {
    store::put_number<uint64_t>(payload, entry.size());
    payload += entry;
  }
  return payload;
}

std::string join_payload(const StoredRecord& mine, size_t most) {
  std::vector<std::string_view> chosen;
  for (const auto* list : {&mine.used, &mine.waiting}) {
    for (const StoredRecord::Blob& blob : *list) {
      if (chosen.size() < most) chosen.push_back(*blob);
    }
  }
  return join_payload(chosen);
}

bool split_payload(std::string_view payload, std::vector<std::string_view>& entries) {
  store::Reader in(payload);
  if (in.number<uint32_t>() != kPayloadVersion) return false;
  const auto count = in.number<uint32_t>();
  if (!in.ok() || count > kMostAtPosition) return false;
  for (uint32_t i = 0; i < count; ++i) {
    const auto size = in.number<uint64_t>();
    if (size > in.left()) return false;
    entries.push_back(in.take(size));
  }
  return in.ok() && in.left() == 0;
}

// Two processes that write at once: behind the entries of the one, newest first, those of the other that the
// one has neither, nor found to be of no use. On the store's thread, without the GIL.
std::string merge_payloads(std::string_view present, std::string_view fresh,
                           const std::vector<store::Digest>& refused, size_t most) {
  std::vector<std::string_view> entries;
  std::vector<std::string_view> others;
  if (!split_payload(fresh, entries) || !split_payload(present, others)) return std::string(fresh);
  for (const std::string_view other : others) {
    if (entries.size() >= most) break;
    if (std::find(entries.begin(), entries.end(), other) != entries.end()) continue;
    if (!refused.empty() && std::find(refused.begin(), refused.end(), store::sha256(other)) != refused.end())
      continue;
    entries.push_back(other);
  }
  return join_payload(entries);
}

bool take_payload(const std::string& payload, StoredRecord& mine) {
  std::vector<std::string_view> entries;
  if (!split_payload(payload, entries)) return false;
  for (const std::string_view entry : entries)
    mine.waiting.push_back(std::make_shared<const std::string>(entry));
  return true;
}

bool make_position_key(store::KeyParts& parts, const StoredEntries& mine, std::string_view position) {
  std::string where = portable_position(position);
  if (mine.start.key.empty() || where.empty()) return false;
  parts = mine.start.key;
  for (auto& [name, value] : parts) {
    if (name == "position") value = std::move(where);
  }
  return true;
}

StoredRecord& record_of(CodeState& state, const std::string& position) {
  StoredEntries& mine = stored(state);
  if (position.empty()) return mine.start;
  StoredRecord& record = mine.positions[position];
  if (!std::exchange(record.has_key, true) && !make_position_key(record.key, mine, position))
    record.key.clear();
  return record;
}

size_t most_of(const std::string& position) { return position.empty() ? kMostEntries : kMostAtPosition; }

// False for an entry that stays here.
bool encode_entry(CodeState& state, Entry& entry, const std::string& position) {
  StoredRecord& mine = record_of(state, position);
  if (mine.key.empty()) return false;
  std::string reason;
  std::string blob = write_entry(entry, position, &reason);
  entry.trace.reset();
  if (blob.empty()) {
    ++counters().entries_process_local;
    note(state, std::string(position.empty() ? "an entry" : "an entry behind a break") +
                    " stays in this process: " + reason);
    return false;
  }
  std::erase_if(mine.used, [&](const StoredRecord::Blob& other) { return *other == blob; });
  mine.used.insert(mine.used.begin(), std::make_shared<const std::string>(std::move(blob)));
  if (mine.used.size() > most_of(position)) mine.used.pop_back();
  return true;
}

void put_record(CodeState& state, const std::string& position, size_t entries) {
  StoredRecord& mine = record_of(state, position);
  const size_t most = most_of(position);
  std::string payload = join_payload(mine, most);
  const size_t size = payload.size();
  store::Merge merge = [refused = mine.refused, most](std::string_view present, std::string_view fresh) {
    return merge_payloads(present, fresh, refused, most);
  };
  const store::Outcome outcome = released([&] {
    return store::Store::shared().put(mine.key, std::move(payload), store::Origin::kOwn, std::move(merge));
  });
  if (outcome == store::Outcome::k_queued) counters().entries_stored += entries;
  note(state, std::string(position.empty() ? "" : "behind a break: ") +
                  (entries == 1 ? "an entry was" : std::to_string(entries) + " entries were") + " written, " +
                  std::to_string(size) + " bytes: " + store::name_of(outcome));
}

// Reads the record of this key; what it holds waits from then on.
void ask(CodeState& state, StoredRecord& mine) {
  store::Found found = released([&] { return store::Store::shared().get(mine.key); });
  mine.trusted = found.origin != store::Origin::kUnsigned;
  if (found.outcome != store::Outcome::k_hit) {
    ++counters().store_misses;
    note(state, std::string("no record: ") + store::name_of(found.outcome));
  } else if (!mine.trusted && found.layer != store::Layer::kBase) {
    // What a recording writes, and where, is what its bytes say.
    ++counters().store_misses;
    note(state, "the record came from a file without a signature");
  } else if (!take_payload(found.payload, mine)) {
    ++counters().entries_refused;
    note(state, "a malformed record");
  } else {
    mine.found = true;
  }
}

// The first of those that wait that fits the call. The last one recorded comes first, as among the entries of
// a process. Oldest first, where they are wanted in the order in which they were recorded: the steps of a
// loop, and what a Python backend is called for.
std::shared_ptr<Entry> first_fitting(CodeState& state, StoredRecord& mine, const StoredCall& call) {
  const bool oldest_first = call.frames != nullptr || state.compiler;
  std::vector<StoredRecord::Blob> waiting = mine.waiting;  // reading may let other threads run
  if (oldest_first) std::reverse(waiting.begin(), waiting.end());
  ReadOptions options;
  options.backend = state.backend;
  options.compiler = state.compiler;
  options.poison_empty = driver_config().poison_empty;
  options.trusted = mine.trusted;
  options.may_break = may_resume(state) && !errors_on_graph_break();
  for (const StoredRecord::Blob& blob : waiting) {
    auto [entry, outcome, why, below_autograd] = read_entry(*blob, call, options);
    if (outcome == ReadOutcome::kOtherCall) {
      note(state, "an entry does not fit this call: " + why);
      // What another process has learned need not be learned again by a recording that is dropped.
      PositionEntries& start = state.start;
      if (below_autograd && call.frames == nullptr && call.now.grad_mode && start.entries.empty() &&
          !start.base_refused)
        start.level = TracerLevel::kBase;
      continue;
    }
    if (outcome == ReadOutcome::kRaised) {
      note(state, "the backend raised for an entry");
      return nullptr;
    }
    std::erase(mine.waiting, blob);
    if (outcome == ReadOutcome::kRead) {
      entry->loaded_by = &state;
      entry->loaded_backend = state.backend_number();
      entry->kept = true;
      mine.used.insert(oldest_first ? mine.used.begin() : mine.used.end(), blob);
      ++counters().entries_loaded;
      note(state, call.frames == nullptr ? "an entry was loaded" : "an entry behind a break was loaded");
      return entry;
    }
    ++counters().entries_refused;
    mine.refused.push_back(store::sha256(*blob));
    note(state,
         (outcome == ReadOutcome::kChanged ? "an entry is out of date: " : "a malformed entry: ") + why);
  }
  return nullptr;
}

void know(const RecordedFunction& function, const StoredCall& call) {
  StoredRecord& mine = stored(function.state).start;
  if (std::exchange(mine.has_key, true)) return;
  PyObject* first = call.nargs == 0 ? nullptr : call.args[0];
  if (!store::Store::shared().options().enabled ||
      !make_key(mine.key, call.function, function.code, first, function.state)) {
    mine.key.clear();
    return;
  }
  ask(function.state, mine);
}

bool load(const RecordedFunction& function, const StoredCall& call) {
  know(function, call);
  StoredRecord& mine = stored(function.state).start;
  std::shared_ptr<Entry> entry = first_fitting(function.state, mine, call);
  if (entry == nullptr) return false;
  function.extra.precompiled.push_back(std::move(entry));
  return true;
}

bool uses_recordings(const CodeState& state) { return recordings_enabled() && state.uses_store; }

}  // namespace

bool recordings_enabled() { return enabled() && !stopped; }
void set_recordings_enabled(bool on) { enabled() = on; }

bool load_entries(const RecordedFunction& function, const StoredCall& call) {
  if (!uses_recordings(function.state)) return false;
  try {
    return load(function, call);
  } catch (const std::exception&) {  // no memory: a miss like any other
    ++counters().store_misses;
    return false;
  }
}

void know_function(const RecordedFunction& function, const StoredCall& call) {
  if (!uses_recordings(function.state) || (function.state.stored && function.state.stored->start.has_key))
    return;
  try {
    know(function, call);
  } catch (const std::exception&) {
    ++counters().store_misses;
  }
}

std::shared_ptr<Entry> load_entry_at(CodeState& state, const std::string& position, const StoredCall& call) {
  // What has no record has none of its positions.
  if (!uses_recordings(state) || !state.stored || !state.stored->start.found) return nullptr;
  try {
    const bool first = !state.stored->positions.contains(position);
    StoredRecord& mine = record_of(state, position);
    if (mine.key.empty()) return nullptr;
    const std::vector<PositionFrame> frames = frames_of_position(position);
    if (first) {
      ask(state, mine);
      // The position names them by address.
      for (const PositionFrame& frame : frames)
        state.kept.push_back(Ref::share(reinterpret_cast<PyObject*>(frame.code)));
    }
    if (mine.waiting.empty()) return nullptr;
    StoredCall there = call;
    there.frames = &frames;
    return first_fitting(state, mine, there);
  } catch (const std::exception&) {
    ++counters().store_misses;
    return nullptr;
  }
}

void note_missed_entry(const RecordedFunction& function) {
  const auto& loaded = function.extra.precompiled;
  if (!loaded.empty()) note(function.state, "the loaded entry missed: " + loaded.back()->explain_miss());
}

void keep_entries(const std::shared_ptr<CodeState>& state) {
  if (!uses_recordings(*state)) return;
  if (stored(*state).start.key.empty()) return;  // it was asked for before the recording
  bool any = false;
  const auto keep = [&](const PositionEntries& position, const std::string& key) {
    for (auto entry = position.entries.rbegin(); entry != position.entries.rend(); ++entry) {
      if (std::exchange((*entry)->kept, true)) continue;
      kept().push_back({state, state.get(), *entry, key});
      any = true;
    }
  };
  keep(state->start, "");
  for (const auto& [key, position] : state->positions) keep(position, key);
  if (any) Timer::shared().start();
}

void write_kept_entries(const CodeState* of) {
  if (stopped || kept().empty()) return;
  if (capturing()) return Timer::shared().start();
  PyObject *type, *value, *traceback;
  PyErr_Fetch(&type, &value, &traceback);
  std::vector<Kept> now;
  std::vector<Kept> later;
  for (Kept& item : std::exchange(kept(), {})) {
    (of == nullptr || item.address == of ? now : later).push_back(std::move(item));
  }
  kept() = std::move(later);
  std::map<std::pair<std::shared_ptr<CodeState>, std::string>, size_t> written;
  for (const Kept& item : now) {
    const std::shared_ptr<CodeState> state = item.state.lock();
    const std::shared_ptr<Entry> entry = item.entry.lock();
    if (state == nullptr || entry == nullptr) continue;
    try {
      if (encode_entry(*state, *entry, item.position)) ++written[{state, item.position}];
    } catch (const std::exception&) {  // no memory: nobody asked for it
      ++counters().entries_process_local;
    }
  }
  for (const auto& [where, entries] : written) {
    try {
      put_record(*where.first, where.second, entries);
    } catch (const std::exception&) {
      counters().entries_process_local += entries;
    }
  }
  PyErr_Restore(type, value, traceback);
}

void stop_recordings() {
  write_kept_entries();
  stopped = true;
  Timer::shared().stop();
}

}  // namespace flashpoint
