#include "store/archive.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>

#include "store/bytes.h"
#include "store/directory.h"
#include "store/host.h"

namespace flashpoint::store {
namespace {

constexpr std::string_view kMagic = "fparch";
constexpr uint64_t kStart = 8;
constexpr uint64_t kItem = 32 + 8 + 4 + 8;
constexpr uint64_t kFooter = 8 + 8 + 4 + 32 + 32;

std::string start_bytes() {
  std::string start(kMagic);
  put_number(start, static_cast<uint16_t>(kFormatVersion));
  return start;
}

}  // namespace

Outcome outcome_of_errno(int error) {
  switch (error) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return Outcome::k_disk_full;
    case EROFS:
    case EACCES:
    case EPERM:
      return Outcome::k_read_only;
    default:
      return Outcome::k_io_error;
  }
}

std::unique_ptr<Archive> Archive::open(const std::string& path, bool trusted, Outcome& outcome) {
  if (trusted) {
    outcome = check_file(path, true);
    if (outcome != Outcome::k_hit) return nullptr;
  }
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat info;
  if (file < 0 || fstat(file, &info) != 0 || !S_ISREG(info.st_mode)) {
    outcome = file < 0 && errno == ENOENT ? Outcome::k_absent : Outcome::k_cannot_open;
    if (file >= 0) close(file);
    return nullptr;
  }
  std::unique_ptr<Archive> archive(new Archive(file, static_cast<uint64_t>(info.st_size)));
  outcome = archive->read_index();
  return outcome == Outcome::k_hit ? std::move(archive) : nullptr;
}

Archive::~Archive() { close(file_); }

bool Archive::read_bytes(uint64_t offset, uint64_t size, std::string& out) const {
  if (offset > file_size_ || size > file_size_ - offset) return false;
  if (!memory_.empty()) {
    out = memory_.substr(offset, size);
    return true;
  }
  out.resize(size);
  for (uint64_t done = 0; done < size;) {
    const ssize_t got = pread(file_, out.data() + done, size - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return false;
    done += static_cast<uint64_t>(got);
  }
  return true;
}

Outcome Archive::pull_into_memory() {
  std::string bytes;
  if (!read_bytes(0, file_size_, bytes)) return Outcome::k_io_error;
  memory_ = std::move(bytes);
  index_.clear();
  return read_index();
}

Outcome Archive::read_index() {
  std::string start, footer, index;
  if (file_size_ < kStart || !read_bytes(0, kStart, start)) return Outcome::k_bad_magic;
  if (start.compare(0, kMagic.size(), kMagic) != 0) return Outcome::k_bad_magic;
  if (start != start_bytes()) return Outcome::k_bad_version;
  if (file_size_ < kStart + kFooter) return Outcome::k_bad_size;
  const uint64_t footer_at = file_size_ - kFooter;
  if (!read_bytes(footer_at, kFooter, footer)) return Outcome::k_io_error;
  Reader reader(footer);
  const auto index_at = reader.number<uint64_t>();
  const auto count = reader.number<uint64_t>();
  const auto flags = reader.number<uint32_t>();
  const Digest digest = reader.digest();
  if (index_at < kStart || index_at > footer_at) return Outcome::k_bad_size;
  if (count > file_size_ / kItem || count * kItem != footer_at - index_at) return Outcome::k_bad_size;
  if (!read_bytes(index_at, count * kItem, index)) return Outcome::k_io_error;
  const Digest actual = Sha256().update(start).update(index).update(footer.substr(0, 20)).finish();
  if (!equal_digests(actual, digest) || flags > 1) return Outcome::k_bad_checksum;
  signed_ = flags == 1;
  Reader items(index);
  index_.reserve(count);
  for (uint64_t i = 0; i < count; ++i) {
    Item item;
    item.key = items.digest();
    item.offset = items.number<uint64_t>();
    item.head_size = items.number<uint32_t>();
    item.payload_size = items.number<uint64_t>();
    const bool inside = item.offset >= kStart && item.offset <= index_at &&
                        item.head_size <= index_at - item.offset &&
                        item.payload_size <= index_at - item.offset - item.head_size;
    if (!inside || item.head_size > kMaxHead || item.payload_size > kMaxPayload) return Outcome::k_bad_size;
    if (!index_.empty() && index_.back().key >= item.key) return Outcome::k_bad_parts;
    index_.push_back(item);
  }
  return Outcome::k_hit;
}

Outcome Archive::verify(std::string_view key) const {
  if (signed_ == key.empty()) return Outcome::k_bad_signature;
  Sha256 plain;
  HmacSha256 with_key(key);
  std::string block;
  const uint64_t end = file_size_ - sizeof(Digest);
  for (uint64_t at = 0; at < end; at += block.size()) {
    if (!read_bytes(at, std::min<uint64_t>(1 << 20, end - at), block)) return Outcome::k_io_error;
    if (signed_) {
      with_key.update(block);
    } else {
      plain.update(block);
    }
  }
  if (!read_bytes(end, sizeof(Digest), block)) return Outcome::k_io_error;
  const Digest seal = Reader(block).digest();
  if (equal_digests(seal, signed_ ? with_key.finish() : plain.finish())) return Outcome::k_hit;
  return signed_ ? Outcome::k_bad_signature : Outcome::k_bad_checksum;
}

ptrdiff_t Archive::find(const Digest& key) const {
  const auto found = std::lower_bound(index_.begin(), index_.end(), key,
                                      [](const Item& item, const Digest& k) { return item.key < k; });
  return found == index_.end() || found->key != key ? -1 : found - index_.begin();
}

Outcome Archive::read_head(size_t position, Head& head) const {
  const Item& item = index_[position];
  std::string bytes;
  if (!read_bytes(item.offset, item.head_size, bytes)) return Outcome::k_io_error;
  const Outcome outcome = decode_head(bytes, head);
  if (outcome != Outcome::k_hit) return outcome;
  if (head.payload_size != item.payload_size) return Outcome::k_bad_size;
  return key_of(head.parts) == item.key ? Outcome::k_hit : Outcome::k_other_key;
}

Outcome Archive::read(size_t position, StoredRecord& record) const {
  const Outcome outcome = read_head(position, record.head);
  if (outcome != Outcome::k_hit) return outcome;
  const Item& item = index_[position];
  if (!read_bytes(item.offset + item.head_size, item.payload_size, record.payload))
    return Outcome::k_io_error;
  return check_payload(record.head, record.payload);
}

ArchiveWriter::ArchiveWriter(std::string path, std::string_view key)
    : path_(std::move(path)), signed_(!key.empty()), signed_seal_(key) {
  temporary_ = path_ + ".XXXXXX";
  file_ = mkostemp(temporary_.data(), O_CLOEXEC);  // mode 0600
  if (file_ < 0) outcome_ = errno == ENOENT ? Outcome::k_no_directory : outcome_of_errno(errno);
  write(start_bytes());
}

ArchiveWriter::~ArchiveWriter() {
  if (file_ < 0) return;
  close(file_);
  unlink(temporary_.c_str());
}

void ArchiveWriter::write_unsealed(std::string_view bytes) {
  while (!bytes.empty() && outcome_ == Outcome::k_written) {
    const ssize_t done = ::write(file_, bytes.data(), bytes.size());
    if (done < 0 && errno != EINTR) outcome_ = outcome_of_errno(errno);
    if (done > 0) bytes.remove_prefix(static_cast<size_t>(done));
  }
}

void ArchiveWriter::write(std::string_view bytes) {
  if (signed_) {
    signed_seal_.update(bytes);
  } else {
    plain_seal_.update(bytes);
  }
  offset_ += bytes.size();
  write_unsealed(bytes);
}

Outcome ArchiveWriter::add(const Head& head, std::string_view payload) {
  const auto [place, is_new] = index_.try_emplace(key_of(head.parts));
  if (!is_new) return outcome_;
  const std::string bytes = encode_head(head);
  put_number(place->second, offset_);
  put_number(place->second, static_cast<uint32_t>(bytes.size()));
  put_number(place->second, static_cast<uint64_t>(payload.size()));
  write(bytes);
  write(payload);
  return outcome_;
}

Outcome ArchiveWriter::finish() {
  const uint64_t index_at = offset_;
  std::string index;
  for (const auto& [key, item] : index_) {
    put_digest(index, key);
    index += item;
  }
  std::string footer;
  put_number(footer, index_at);
  put_number(footer, static_cast<uint64_t>(index_.size()));
  put_number(footer, static_cast<uint32_t>(signed_ ? 1 : 0));
  put_digest(footer, Sha256().update(start_bytes()).update(index).update(footer).finish());
  write(index);
  write(footer);
  const Digest seal = signed_ ? signed_seal_.finish() : plain_seal_.finish();
  write_unsealed({reinterpret_cast<const char*>(seal.data()), seal.size()});
  if (outcome_ == Outcome::k_written &&
      (fsync(file_) != 0 || rename(temporary_.c_str(), path_.c_str()) != 0)) {
    outcome_ = outcome_of_errno(errno);
  }
  if (outcome_ != Outcome::k_written) return outcome_;
  close(std::exchange(file_, -1));
  return outcome_;
}

}  // namespace flashpoint::store
