#include "store/record.h"

#include <string>

#include "store/bytes.h"
#include "unit.h"

namespace flashpoint::store {
namespace {

const KeyParts kParts = {{"code", "f"}, {"host", "x86-64"}};

TEST(a_head_reads_back) {
  const Head head = head_for(kParts, "payload", Origin::kSigned, -5);
  Head back;
  EXPECT(decode_head(encode_head(head), back) == Outcome::k_hit);
  EXPECT(back.parts == kParts && back.origin == Origin::kSigned && back.created == -5);
  EXPECT(check_payload(back, "payload") == Outcome::k_hit);
  EXPECT(check_payload(back, "payloae") == Outcome::k_bad_checksum);
  EXPECT(check_payload(back, "payloa") == Outcome::k_bad_size);
}

TEST(a_changed_head_does_not_read_back) {
  const std::string good = encode_head(head_for(kParts, "payload", Origin::kOwn, 0));
  Head back;
  for (size_t at = 0; at < good.size(); ++at) {
    std::string changed = good;
    changed[at] = static_cast<char>(changed[at] ^ 1);
    EXPECT(decode_head(changed, back) != Outcome::k_hit);
    EXPECT(decode_head(good.substr(0, at), back) != Outcome::k_hit);
  }
  EXPECT(decode_head(good + '\0', back) == Outcome::k_bad_size);
}

TEST(parts_are_sorted_named_and_named_once) {
  KeyParts parts = {{"b", "1"}, {"a", "2"}};
  EXPECT(!valid_parts(parts));
  EXPECT(normalize(parts) && parts[0].first == "a");
  for (KeyParts bad : {KeyParts{}, KeyParts{{"", "x"}}, KeyParts{{"a", "1"}, {"a", "2"}}}) {
    EXPECT(!normalize(bad));
  }
}

TEST(keys_tell_apart_where_parts_end) {
  EXPECT(key_of({{"a", "bc"}}) != key_of({{"ab", "c"}}));
  EXPECT(key_of({{"a", "1"}, {"b", "2"}}) != key_of({{"a", "1b2"}}));
  EXPECT(key_of(kParts) == key_of(kParts));
}

TEST(a_reader_never_goes_past_the_end) {
  Reader reader("\1\2\3");
  EXPECT(reader.number<uint16_t>() == 0x0201 && reader.ok());
  EXPECT(reader.number<uint32_t>() == 0 && !reader.ok());
  EXPECT(reader.left() == 0 && reader.take(1).empty() && !reader.ok());
}

}  // namespace
}  // namespace flashpoint::store
