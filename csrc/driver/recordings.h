// Recordings in the store: what a process recorded is there for the next one.
//
// A record belongs to a function, or to a position behind one of its breaks: its key names the function's
// code, the class of a module, the options and the surroundings (flashpoint/store/recordings.py), and the
// position (driver/position_key.h); its payload holds the last entries, newest first. Where no entry of the
// process answers, the record is read, once, and each of its entries is tried (driver/entry_reader.h); one
// that fits joins the code object's loaded entries, or those of the position. The others wait for a call that
// they fit.
//
// Entries are written a while after they were recorded, from the main thread (a pending call that a timer
// asks for), when their function goes, or at exit: never within the call that records.
//
// Threads: the GIL is required for everything here, except in the timer.
#pragma once

#include <Python.h>

#include <string>
#include <unordered_map>
#include <vector>

#include "driver/code_extra.h"
#include "driver/entry_reader.h"
#include "store/record.h"

namespace flashpoint {

// What a compiled function knows of one of its records.
struct StoredRecord {
  store::KeyParts key;  // empty: there can be none
  bool has_key = false;
  bool trusted = true;  // this user's own processes wrote it, or somebody whose signature was verified
  bool found = false;
  using Blob = std::shared_ptr<const std::string>;
  std::vector<Blob> waiting;           // read, and not used yet
  std::vector<Blob> used;              // read and used, or written; newest first
  std::vector<store::Digest> refused;  // out of date or malformed: not to be kept
};

struct StoredEntries {
  StoredRecord start;
  std::unordered_map<std::string, StoredRecord> positions;  // by their keys
  std::vector<std::string> history;  // how accesses ended, the last of them, for people
};

struct RecordedFunction {
  CodeState& state;
  CodeExtra& extra;
  PyObject* code;  // of the frames that its calls are
};

bool recordings_enabled();
void set_recordings_enabled(bool enabled);

// Looks for entries of the store that fit the call and adds them to the loaded ones. True if there was one;
// false with an error set where a Python backend raised.
bool load_entries(const RecordedFunction& function, const StoredCall& call);
// The same for a position behind a break: the entry, null where there is none, or with an error set.
std::shared_ptr<Entry> load_entry_at(CodeState& state, const std::string& position, const StoredCall& call);
// Its positions may be looked for, whichever entry answers its call.
void know_function(const RecordedFunction& function, const StoredCall& call);
// The entry that was just loaded missed all the same.
void note_missed_entry(const RecordedFunction& function);
// Entries of the state that were recorded since the last time will be written.
void keep_entries(const std::shared_ptr<CodeState>& state);
// Writes what waits: all of it, or what belongs to one function.
void write_kept_entries(const CodeState* of = nullptr);
// At exit: writes what waits; nothing is written afterwards.
void stop_recordings();

}  // namespace flashpoint
