// Many records in one portable file, which is never changed once written: what `save` and `load` exchange,
// and the read-only base layer of a store.
//
//   "fparch" u16 version | heads and payloads, one record after the other
//   | index: per record, in ascending order of keys: key (32) u64 offset u32 head size u64 payload size
//   | u64 offset of the index | u64 number of records | u32 1 if signed
//   | SHA-256 of the first 8 bytes and everything from the index on
//   | seal: SHA-256 of all before, or HMAC-SHA-256 if signed
//
// Opening checks the index, reading a record checks the record, `verify` checks the seal over the whole file.
// Files are read with pread, not mapped: a file that someone truncates is an outcome, not a signal.
//
// Threads: an Archive may be read from many; a writer belongs to one.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "store/outcome.h"
#include "store/record.h"

namespace flashpoint::store {

struct StoredRecord {
  Head head;
  std::string payload;
};

class Archive {
 public:
  // Null with `outcome` saying why. `trusted`: only a file that is this user's or root's.
  static std::unique_ptr<Archive> open(const std::string& path, bool trusted, Outcome& outcome);
  ~Archive();
  Archive(const Archive&) = delete;
  Archive& operator=(const Archive&) = delete;

  // k_hit if the whole file is as it was written. With a key it must be signed with that key; without one a
  // signed file is k_bad_signature.
  Outcome verify(std::string_view key) const;
  bool is_signed() const { return signed_; }

  // Reads the whole file now; everything after this is about what was read.
  Outcome pull_into_memory();

  size_t size() const { return index_.size(); }
  // The position of a key's record, -1 if there is none.
  ptrdiff_t find(const Digest& key) const;
  Outcome read_head(size_t position, Head& head) const;
  Outcome read(size_t position, StoredRecord& record) const;

 private:
  struct Item {
    Digest key;
    uint64_t offset;
    uint32_t head_size;
    uint64_t payload_size;
  };
  Archive(int file, uint64_t size) : file_(file), file_size_(size) {}
  Outcome read_index();
  bool read_bytes(uint64_t offset, uint64_t size, std::string& out) const;

  int file_;
  uint64_t file_size_;
  std::string memory_;  // the whole file, if it was pulled
  bool signed_ = false;
  std::vector<Item> index_;
};

// Writes beside the target and renames when all is on the disk: the target is the old file or the whole new
// one.
class ArchiveWriter {
 public:
  ArchiveWriter(std::string path, std::string_view key);
  ~ArchiveWriter();
  ArchiveWriter(const ArchiveWriter&) = delete;
  ArchiveWriter& operator=(const ArchiveWriter&) = delete;

  // Outcomes are sticky: after a failure nothing is written and finish says the same. A second record for the
  // same key is left out.
  Outcome add(const Head& head, std::string_view payload);
  Outcome finish();  // k_written
  size_t size() const { return index_.size(); }

 private:
  void write(std::string_view bytes);
  void write_unsealed(std::string_view bytes);

  std::string path_;
  std::string temporary_;
  int file_ = -1;
  bool signed_;
  Sha256 plain_seal_;
  HmacSha256 signed_seal_;
  uint64_t offset_ = 0;
  std::map<Digest, std::string> index_;
  Outcome outcome_ = Outcome::k_written;
};

Outcome outcome_of_errno(int error);

}  // namespace flashpoint::store
