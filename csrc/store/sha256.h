// SHA-256 (FIPS 180-4) and HMAC-SHA-256 (RFC 2104): names of records, checksums, signatures of portable
// files.
//
// Our own, because the core must not depend on a cryptographic library being installed, and because keys have
// to be equal to those of hashlib. Uses the processor's SHA instructions where it has them; both ways are
// tested against the published vectors and each other.
//
// Threads: no shared state.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace flashpoint::store {

using Digest = std::array<uint8_t, 32>;

class Sha256 {
 public:
  // `portable`: never the processor's own instructions (for tests).
  explicit Sha256(bool portable = false);

  Sha256& update(const void* data, size_t size);
  Sha256& update(std::string_view text) { return update(text.data(), text.size()); }
  Digest finish();  // once

 private:
  using Compress = void (*)(uint32_t* state, const uint8_t* blocks, size_t count);

  Compress compress_;
  uint32_t state_[8];
  uint64_t length_ = 0;
  size_t pending_ = 0;
  uint8_t block_[64];
};

Digest sha256(std::string_view text);

class HmacSha256 {
 public:
  explicit HmacSha256(std::string_view key);
  HmacSha256& update(std::string_view text);
  Digest finish();  // once

 private:
  Sha256 inner_;
  uint8_t outer_key_[64];
};

// Takes the same time wherever the difference is.
bool equal_digests(const Digest& a, const Digest& b);

std::string hex(const uint8_t* bytes, size_t size);
inline std::string hex(const Digest& digest) { return hex(digest.data(), digest.size()); }

}  // namespace flashpoint::store
