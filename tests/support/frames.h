// Frames as a test writes and reads them: with code of its own, so that the engine is not tested against
// itself, and also the frames that no encoder would write.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <levada/core/random.h>
#include <levada/ws/close.h>
#include <levada/ws/frame.h>

namespace levada::ws::test {

struct FrameShape {
  bool fin = true;
  unsigned rsv = 0;
  int length_bytes = -1;                     // 0, 2 or 8: how to write the length; -1: the shortest way
  std::optional<std::uint64_t> length = {};  // what to write; the payload's size if empty
};

inline constexpr char mask_bytes[] = {'\x37', '\xfa', '\x21', '\x3d'};

inline std::string big_endian(std::uint64_t value, int bytes) {
  std::string text;
  for (int i = bytes - 1; i >= 0; i--) text += static_cast<char>(value >> (8 * i));
  return text;
}

inline std::string masked(std::string_view payload) {
  std::string text(payload);
  for (std::size_t i = 0; i < text.size(); i++) text[i] = static_cast<char>(text[i] ^ mask_bytes[i % 4]);
  return text;
}

// One frame from a client (masked) or from a server. `opcode` may be any number up to 15.
inline std::string raw_frame(unsigned opcode, std::string_view payload, bool mask,
                             const FrameShape& shape = {}) {
  const std::uint64_t length = shape.length.value_or(payload.size());
  const int length_bytes = shape.length_bytes >= 0 ? shape.length_bytes
                           : length < 126          ? 0
                           : length < 65536        ? 2
                                                   : 8;
  std::string text;
  text += static_cast<char>((shape.fin ? 0x80u : 0u) | (shape.rsv << 4) | opcode);
  const unsigned short_length = length_bytes == 2   ? 126u
                                : length_bytes == 8 ? 127u
                                                    : static_cast<unsigned>(length);
  text += static_cast<char>((mask ? 0x80u : 0u) | short_length);
  text += big_endian(length, length_bytes);
  if (!mask) return text + std::string(payload);
  return text.append(mask_bytes, 4) + masked(payload);
}

inline std::string client_frame(Opcode opcode, std::string_view payload, const FrameShape& shape = {}) {
  return raw_frame(static_cast<unsigned>(opcode), payload, true, shape);
}
inline std::string server_frame(Opcode opcode, std::string_view payload, const FrameShape& shape = {}) {
  return raw_frame(static_cast<unsigned>(opcode), payload, false, shape);
}

inline std::string close_payload(unsigned code, std::string_view reason = {}) {
  return big_endian(code, 2) + std::string(reason);
}

// A frame as it was read.
struct Frame {
  unsigned opcode = 0;
  std::string payload = {};
  bool fin = true;
  unsigned rsv = 0;
  bool masked = false;

  bool operator==(const Frame&) const = default;
};

// Takes the first frame off `bytes`; nothing while it is not whole.
inline std::optional<Frame> take_frame(std::string& bytes) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  if (bytes.size() < 2) return {};
  Frame frame{
      .opcode = at(0) & 15u, .fin = at(0) >> 7 != 0, .rsv = at(0) >> 4 & 7u, .masked = at(1) >> 7 != 0};
  std::uint64_t length = at(1) & 127u;
  std::size_t header = 2;
  const std::size_t more = length == 126 ? 2 : length == 127 ? 8 : 0;
  if (bytes.size() < header + more) return {};
  if (more != 0) length = 0;
  for (std::size_t i = 0; i < more; i++) length = length << 8 | at(header + i);
  header += more;
  const std::size_t key = header;
  if (frame.masked) header += 4;
  if (bytes.size() < header || bytes.size() - header < length) return {};
  frame.payload = bytes.substr(header, length);
  for (std::size_t i = 0; frame.masked && i < length; i++) {
    frame.payload[i] = static_cast<char>(frame.payload[i] ^ bytes[key + i % 4]);
  }
  bytes.erase(0, header + length);
  return frame;
}

// Bytes, or letters, that differ from place to place and from seed to seed.
inline std::string random_bytes(std::size_t size, std::uint64_t seed = 1) {
  SeededRandom random(seed);
  std::string text(size, '\0');
  for (char& byte : text) byte = static_cast<char>(random.next());
  return text;
}
inline std::string random_letters(std::size_t size, std::uint64_t seed = 1) {
  SeededRandom random(seed);
  std::string text(size, '\0');
  for (char& byte : text) byte = static_cast<char>('a' + random.below(26));
  return text;
}

}  // namespace levada::ws::test
