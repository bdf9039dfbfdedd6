// A record by itself, signed: what a tier beyond this machine holds, and how the store asks one.
//
//   "fppack" u16 version | key (32) | u32 size of the head | head | payload | HMAC-SHA-256 of all before
//
// Who holds the secret vouches for the content: a packed record is worth what one of a signed archive is. The
// key is within the signature, so a tier that answers with another record than the one asked for is noticed.
//
// Threads: no shared state; `Remote::fetch` is called from any thread, without locks of the store.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "store/archive.h"

namespace flashpoint::store {

std::string pack_record(const Digest& key, const Head& head, std::string_view payload,
                        std::string_view secret);
// k_hit: whole, signed with this secret, and for the key that its own parts give.
Outcome unpack_record(std::string_view bytes, std::string_view secret, Digest& key, StoredRecord& record);

struct Remote {
  std::string secret;
  // k_hit with the packed bytes, k_absent, or k_unreachable.
  std::function<Outcome(const Digest& key, std::string& bytes)> fetch;
};

}  // namespace flashpoint::store
