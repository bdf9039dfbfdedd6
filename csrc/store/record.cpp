#include "store/record.h"

#include <algorithm>

#include "store/bytes.h"
#include "store/host.h"

namespace flashpoint::store {
namespace {

constexpr std::string_view kMagic = "fpsr";
constexpr size_t kSmallestHead = 4 + 2 + 2 + 4 + 8 + 8 + 32 + 4 + 32;

void put_parts(std::string& out, const KeyParts& parts) {
  put_number(out, static_cast<uint32_t>(parts.size()));
  for (const auto& [name, value] : parts) {
    put_number(out, static_cast<uint32_t>(name.size()));
    out += name;
    put_number(out, static_cast<uint32_t>(value.size()));
    out += value;
  }
}

}  // namespace

bool valid_parts(const KeyParts& parts) {
  if (parts.empty() || parts.size() > kMaxParts) return false;
  size_t size = kSmallestHead;
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto& [name, value] = parts[i];
    if (name.empty() || (i > 0 && parts[i - 1].first >= name)) return false;
    if (name.size() > kMaxHead || value.size() > kMaxHead) return false;
    size += 8 + name.size() + value.size();
  }
  return size <= kMaxHead;
}

bool normalize(KeyParts& parts) {
  std::sort(parts.begin(), parts.end());
  return valid_parts(parts);
}

Digest key_of(const KeyParts& parts) {
  std::string text(kMagic);
  put_number(text, static_cast<uint16_t>(kFormatVersion));
  put_parts(text, parts);
  return sha256(text);
}

Head head_for(KeyParts parts, std::string_view payload, Origin origin, int64_t created) {
  return {std::move(parts), origin, created, payload.size(), sha256(payload)};
}

std::string encode_head(const Head& head) {
  std::string parts;
  put_parts(parts, head.parts);
  std::string out(kMagic);
  put_number(out, static_cast<uint16_t>(kFormatVersion));
  put_number(out, static_cast<uint16_t>(head.origin));
  put_number(out, static_cast<uint32_t>(kSmallestHead - 4 + parts.size()));
  put_number(out, static_cast<uint64_t>(head.created));
  put_number(out, head.payload_size);
  put_digest(out, head.payload_digest);
  out += parts;
  put_digest(out, sha256(out));
  return out;
}

Outcome decode_head(std::string_view bytes, Head& head) {
  if (bytes.substr(0, kMagic.size()) != kMagic) return Outcome::k_bad_magic;
  Reader reader(bytes);
  reader.take(kMagic.size());
  const auto version = reader.number<uint16_t>();
  if (!reader.ok()) return Outcome::k_bad_size;
  if (version != kFormatVersion) return Outcome::k_bad_version;
  if (bytes.size() < kSmallestHead || bytes.size() > kMaxHead) return Outcome::k_bad_size;
  const auto origin = reader.number<uint16_t>();
  if (reader.number<uint32_t>() != bytes.size()) return Outcome::k_bad_size;
  const std::string_view sealed = bytes.substr(0, bytes.size() - sizeof(Digest));
  if (!equal_digests(sha256(sealed), Reader(bytes.substr(sealed.size())).digest())) {
    return Outcome::k_bad_checksum;
  }
  head.origin = static_cast<Origin>(origin);
  head.created = static_cast<int64_t>(reader.number<uint64_t>());
  head.payload_size = reader.number<uint64_t>();
  head.payload_digest = reader.digest();
  if (origin > static_cast<uint16_t>(Origin::kUnsigned)) return Outcome::k_bad_parts;
  if (head.payload_size > kMaxPayload) return Outcome::k_bad_size;
  const auto count = reader.number<uint32_t>();
  if (count > kMaxParts) return Outcome::k_bad_parts;
  head.parts.clear();
  for (uint32_t i = 0; i < count; ++i) {
    const std::string_view name = reader.take(reader.number<uint32_t>());
    const std::string_view value = reader.take(reader.number<uint32_t>());
    if (!reader.ok()) return Outcome::k_bad_parts;
    head.parts.emplace_back(name, value);
  }
  if (!reader.ok() || reader.left() != sizeof(Digest) || !valid_parts(head.parts))
    return Outcome::k_bad_parts;
  return Outcome::k_hit;
}

Outcome check_payload(const Head& head, std::string_view payload) {
  if (payload.size() != head.payload_size) return Outcome::k_bad_size;
  return equal_digests(sha256(payload), head.payload_digest) ? Outcome::k_hit : Outcome::k_bad_checksum;
}

}  // namespace flashpoint::store
