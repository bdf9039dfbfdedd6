#include "driver/position_key.h"

#include <cstring>

#include "portable/fingerprint.h"
#include "portable/parts.h"
#include "store/bytes.h"

namespace flashpoint {

std::string position_key(const std::vector<PositionFrame>& frames, const std::vector<PyObject*>& args) {
  const auto count = static_cast<uint32_t>(frames.size());
  std::string key(reinterpret_cast<const char*>(&count), sizeof count);
  for (const PositionFrame& frame : frames) key.append(reinterpret_cast<const char*>(&frame), sizeof frame);
  // Nothing guards an empty slot, so which ones are is part of the position.
  for (size_t i = 0; i < args.size(); i += 8) {
    unsigned char empty = 0;
    for (size_t k = i; k < args.size() && k < i + 8; ++k) empty |= (args[k] == nullptr) << (k - i);
    key.push_back(static_cast<char>(empty));
  }
  return key;
}

std::vector<PositionFrame> frames_of_position(std::string_view key) {
  uint32_t count;
  std::memcpy(&count, key.data(), sizeof count);
  std::vector<PositionFrame> frames(count);
  std::memcpy(frames.data(), key.data() + sizeof count, count * sizeof(PositionFrame));
  return frames;
}

std::string portable_position(std::string_view key) {
  const std::vector<PositionFrame> frames = frames_of_position(key);
  std::string names, bytes;
  store::put_number<uint32_t>(bytes, static_cast<uint32_t>(frames.size()));
  for (const PositionFrame& frame : frames) {
    portable::Digest digest;
    if (!portable::fingerprint_code(reinterpret_cast<PyObject*>(frame.code), &digest)) return {};
    store::put_digest(bytes, digest);
    store::put_number<int32_t>(bytes, frame.at);
    store::put_number<int16_t>(bytes, frame.slots);
    store::put_number<int16_t>(bytes, frame.link);
    names += portable::utf8(frame.code->co_qualname) + '+' + std::to_string(frame.at) + ' ';
  }
  bytes += key.substr(sizeof(uint32_t) + frames.size() * sizeof(PositionFrame));
  return names + store::hex(store::sha256(bytes));
}

}  // namespace flashpoint
