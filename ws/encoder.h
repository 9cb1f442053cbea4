// Encoding frames (RFC 6455 section 5.2) into memory that the caller has.
//
// A client's header is 4 bytes (the mask key) longer than the server's for the same length. So a server that
// answers with the payload it received writes the new header into the bytes of the old one:
//
//   received  | header 2-10 | key 4 | payload, unmasked in place |
//   sent              | header 2-10 | payload                    |
#pragma once

#include <cstddef>
#include <cstdint>

#include <levada/ws/frame.h>

namespace levada::ws {

// Bytes of the frame for a payload of `length`.
constexpr std::size_t frame_size(std::uint64_t length, bool masked) {
  return header_size_for(length, masked) + length;
}

// Writes an unmasked frame to `out`, which has frame_size(payload.size(), false) bytes; returns that size.
inline std::size_t write_frame(std::uint8_t* out, Opcode opcode, Bytes payload, bool fin = true,
                               std::uint8_t rsv = 0) {
  const std::size_t header =
      write_header(out, {.fin = fin, .rsv = rsv, .opcode = opcode, .length = payload.size()});
  mask_copy(out + header, payload, 0);  // a copy; of few bytes one without a call
  return header + payload.size();
}

// The same masked with `key`, which has to be fresh and unpredictable (sections 5.3 and 10.3).
inline std::size_t write_masked_frame(std::uint8_t* out, Opcode opcode, Bytes payload, MaskKey key,
                                      bool fin = true, std::uint8_t rsv = 0) {
  const std::size_t header = write_header(
      out, {.fin = fin, .rsv = rsv, .opcode = opcode, .masked = true, .key = key, .length = payload.size()});
  mask_copy(out + header, payload, key);
  return header + payload.size();
}

// Makes a frame of a payload where it lies: the header is written into the bytes before it, of which there
// must be at least header_size_for(size, false). Returns the whole frame.
inline Bytes frame_in_place(std::uint8_t* payload, std::size_t size, Opcode opcode, bool fin = true,
                            std::uint8_t rsv = 0) {
  const std::size_t header = header_size_for(size, false);
  write_header(payload - header, {.fin = fin, .rsv = rsv, .opcode = opcode, .length = size});
  return {payload - header, header + size};
}

}  // namespace levada::ws
