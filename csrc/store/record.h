// One record: a key made of named parts, and a payload of bytes. What the store keeps is the payload as it is
// and a head that describes and seals it:
//
//   "fpsr" | u16 version | u16 origin | u32 size of the head | i64 created (Unix time, for people only)
//   | u64 size of the payload | SHA-256 of the payload
//   | u32 number of parts | per part: u32 size, name, u32 size, value     (names in ascending order)
//   | SHA-256 of all of the head before
//
// Numbers are little-endian. Decoding trusts nothing: any bytes give a head or an outcome. A head that
// decodes was written by this version and is unchanged, so the payload is what its digest says.
//
// Threads: no shared state.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "store/outcome.h"
#include "store/sha256.h"

namespace flashpoint::store {

// Where a record was made: code may be run only from what this user's own processes or a verified file gave.
enum class Origin : uint16_t { kOwn = 0, kSigned = 1, kUnsigned = 2 };

using KeyParts = std::vector<std::pair<std::string, std::string>>;

inline constexpr size_t kMaxHead = 1 << 20;
inline constexpr size_t kMaxParts = 256;
inline constexpr uint64_t kMaxPayload = uint64_t{512} << 20;

// What is written where there is a record of that key already, and both say something. Called on the writing
// thread, within the transaction.
using Merge = std::function<std::string(std::string_view present, std::string_view fresh)>;

struct Head {
  KeyParts parts;
  Origin origin = Origin::kOwn;
  int64_t created = 0;
  uint64_t payload_size = 0;
  Digest payload_digest{};
};

// Names in ascending order, each once and none empty, within the limits.
bool valid_parts(const KeyParts& parts);
// Sorts; false if the parts are not valid even so.
bool normalize(KeyParts& parts);

// Names the record. The parts must be valid.
Digest key_of(const KeyParts& parts);

Head head_for(KeyParts parts, std::string_view payload, Origin origin, int64_t created);
std::string encode_head(const Head& head);
Outcome decode_head(std::string_view bytes, Head& head);  // k_hit when good
// k_hit when the payload is the one that the head describes.
Outcome check_payload(const Head& head, std::string_view payload);

}  // namespace flashpoint::store
