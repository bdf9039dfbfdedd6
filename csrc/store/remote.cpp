#include "store/remote.h"

#include "store/bytes.h"
#include "store/host.h"

namespace flashpoint::store {

namespace {

constexpr std::string_view kMagic = "fppack";
constexpr size_t kSeal = 32;
constexpr size_t kSmallest = 8 + 32 + 4 + kSeal;

}  // namespace

std::string pack_record(const Digest& key, const Head& head, std::string_view payload,
                        std::string_view secret) {
  const std::string head_bytes = encode_head(head);
  std::string out(kMagic);
  put_number(out, static_cast<uint16_t>(kFormatVersion));
  put_digest(out, key);
  put_number(out, static_cast<uint32_t>(head_bytes.size()));
  out += head_bytes;
  out += payload;
  put_digest(out, HmacSha256(secret).update(out).finish());
  return out;
}

Outcome unpack_record(std::string_view bytes, std::string_view secret, Digest& key, StoredRecord& record) {
  if (bytes.substr(0, kMagic.size()) != kMagic) return Outcome::k_bad_magic;
  if (bytes.size() < kSmallest) return Outcome::k_bad_size;
  const std::string_view content = bytes.substr(0, bytes.size() - kSeal);
  Reader seal(bytes.substr(content.size()));
  if (secret.empty() || !equal_digests(HmacSha256(secret).update(content).finish(), seal.digest()))
    return Outcome::k_bad_signature;
  Reader reader(content.substr(kMagic.size()));
  if (reader.number<uint16_t>() != kFormatVersion) return Outcome::k_bad_version;
  key = reader.digest();
  const std::string_view head = reader.take(reader.number<uint32_t>());
  if (!reader.ok()) return Outcome::k_bad_size;
  Outcome outcome = decode_head(head, record.head);
  if (outcome != Outcome::k_hit) return outcome;
  outcome = check_payload(record.head, reader.rest());
  if (outcome != Outcome::k_hit) return outcome;
  if (!equal_digests(key_of(record.head.parts), key)) return Outcome::k_other_key;
  record.payload = reader.rest();
  return Outcome::k_hit;
}

}  // namespace flashpoint::store
