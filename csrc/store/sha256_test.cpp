#include "store/sha256.h"

#include <string>

#include "unit.h"

namespace flashpoint::store {
namespace {

std::string portable(const std::string& text) { return hex(Sha256(true).update(text).finish()); }

TEST(sha256_gives_the_published_digests) {
  const struct {
    std::string text;
    const char* digest;
  } rows[] = {
      {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
      {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
      {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
       "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
      {std::string(1000000, 'a'), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"},
  };
  for (const auto& row : rows) {
    EXPECT(hex(sha256(row.text)) == row.digest);
    EXPECT(portable(row.text) == row.digest);
  }
}

TEST(sha256_does_not_depend_on_how_the_text_is_cut) {
  std::string text;
  for (int i = 0; i < 300; ++i) text += static_cast<char>(i * 7);
  for (size_t size = 0; size <= text.size(); ++size) {
    const std::string part = text.substr(0, size);
    const std::string whole = hex(sha256(part));
    EXPECT(portable(part) == whole);
    for (size_t cut = 0; cut <= size; cut += 13) {
      EXPECT(hex(Sha256().update(part.substr(0, cut)).update(part.substr(cut)).finish()) == whole);
    }
  }
}

TEST(hmac_gives_the_published_signatures) {
  EXPECT(hex(HmacSha256(std::string(20, '\x0b')).update("Hi There").finish()) ==
         "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
  EXPECT(hex(HmacSha256("Jefe").update("what do ya want ").update("for nothing?").finish()) ==
         "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT(hex(HmacSha256(std::string(131, '\xaa'))
                 .update("Test Using Larger Than Block-Size Key - Hash Key First")
                 .finish()) == "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(digests_are_compared_whole) {
  Digest one = sha256("x");
  for (size_t i = 0; i < one.size(); ++i) {
    Digest other = one;
    other[i] ^= 1;
    EXPECT(!equal_digests(one, other));
  }
  EXPECT(equal_digests(one, sha256("x")));
}

}  // namespace
}  // namespace flashpoint::store
