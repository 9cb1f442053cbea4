// Frames (RFC 6455 section 5.2): parse, check and write a header, each as a function of its own.
//
//    0 1 2 3 4 5 6 7   8 9 ...                                                payload, masked by the client
//   |F|R R R| opcode | |M| length 7 | [length 16 | length 64] | [mask key 32] | ...
//    2 bytes                           0, 2 or 8 bytes          0 or 4 bytes
//
// parse_header() tells what the bytes say, check_header() whether the RFC allows it at this point: parsing
// never fails. Pure functions over the caller's memory; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include <levada/core/bytes.h>
#include <levada/ws/close.h>
#include <levada/ws/mask.h>

namespace levada::ws {

// RFC 6455 section 5.2 and 11.8. 3-7 and 11-15 are reserved.
enum class Opcode : std::uint8_t { continuation = 0, text = 1, binary = 2, close = 8, ping = 9, pong = 10 };

// Control frames may come between the fragments of a message and carry at most 125 bytes (section 5.5).
constexpr bool is_control(Opcode opcode) {
  return (static_cast<unsigned>(opcode) & 8) != 0;
}
constexpr bool is_reserved(Opcode opcode) {
  const auto number = static_cast<unsigned>(opcode);
  return (number & 7) > 2;
}

// Whose side of the connection this is. A client masks what it sends, a server does not (section 5.1).
enum class Role : std::uint8_t { server, client };

inline constexpr std::size_t max_header_bytes = 14;
inline constexpr std::size_t max_control_bytes = 125;

struct FrameHeader {
  bool fin = true;
  std::uint8_t rsv = 0;  // RSV1 is 4, RSV2 is 2, RSV3 is 1
  Opcode opcode = Opcode::binary;
  bool masked = false;
  MaskKey key = 0;                // when masked
  std::uint64_t length = 0;       // of the payload, in bytes
  std::uint8_t length_bytes = 0;  // how the length was written: 0 (within the second byte), 2 or 8 more bytes
};

// Bytes of the header whose second byte this is.
constexpr std::size_t header_size(std::uint8_t second) {
  const unsigned length = second & 0x7F;
  return 2u + (length == 126 ? 2u : length == 127 ? 8u : 0u) + ((second & 0x80) != 0 ? 4u : 0u);
}

// Bytes of the header that write_header() writes for a payload of `length`.
constexpr std::size_t header_size_for(std::uint64_t length, bool masked) {
  return (length < 126 ? 2u : length <= 0xFFFF ? 4u : 10u) + (masked ? 4u : 0u);
}

namespace detail {

constexpr std::uint16_t from_big_endian(std::uint16_t value) {
  return std::endian::native == std::endian::little ? __builtin_bswap16(value) : value;
}
constexpr std::uint64_t from_big_endian(std::uint64_t value) {
  return std::endian::native == std::endian::little ? __builtin_bswap64(value) : value;
}

}  // namespace detail

// Reads the header at the front of `in`. Returns its size, or 0 while bytes of it are missing; `out` is valid
// then for what the first two bytes tell, if there are two.
inline std::size_t parse_header(Bytes in, FrameHeader& out) {
  if (in.size() < 2) return 0;
  const std::uint8_t* at = in.data();
  out.fin = (at[0] & 0x80) != 0;
  out.rsv = (at[0] >> 4) & 7;
  out.opcode = static_cast<Opcode>(at[0] & 0x0F);
  out.masked = (at[1] & 0x80) != 0;
  out.length = at[1] & 0x7F;
  out.length_bytes = out.length == 126 ? 2 : out.length == 127 ? 8 : 0;
  const std::size_t size = header_size(at[1]);
  if (in.size() < size) return 0;
  at += 2;
  if (out.length_bytes == 2) {
    out.length = detail::from_big_endian(detail::load<std::uint16_t>(at));
  } else if (out.length_bytes == 8) {
    out.length = detail::from_big_endian(detail::load<std::uint64_t>(at));
  }
  if (out.masked) out.key = detail::load<std::uint32_t>(at + out.length_bytes);
  return size;
}

// What is wrong with a frame; each has the close code that answers it (close_code()).
enum class FrameError : std::uint8_t {
  none,
  reserved_bits,         // RSV bits without an extension that gives them a meaning (section 5.2)
  reserved_opcode,       // section 5.2
  not_masked,            // a client's frame without a mask (section 5.1)
  masked,                // a server's frame with one (section 5.1)
  length_not_minimal,    // section 5.2: the minimal number of bytes must be used
  length_too_large,      // the most significant bit of a 64-bit length is set (section 5.2)
  control_too_long,      // section 5.5
  control_fragmented,    // section 5.5
  nothing_to_continue,   // a continuation outside a message (section 5.4)
  message_not_finished,  // a new message inside another (section 5.4)
  bad_close_payload,     // one byte (section 5.5.1)
  bad_close_code,        // a code that must not be sent (section 7.4)
  bad_text,              // not UTF-8 (section 8.1)
  message_too_big,       // longer than this endpoint allows (section 7.4.1, 1009)
  too_many_fragments,    // more than this endpoint allows
  bad_deflate,           // compressed data that cannot be inflated (RFC 7692 section 7.2.2)
  inflates_too_much,     // for its compressed size, more than this endpoint allows
};

// "reserved_bits"; static storage.
const char* to_string(FrameError error);

// The code that the connection is closed with: 1002, 1007, 1008 or 1009.
CloseCode close_code(FrameError error);

// Whether a header may stand here. `role` is ours; `in_message` tells that a fragmented message is open;
// `allowed_rsv` are the bits that negotiated extensions use. With `complete` false only what the first two
// bytes tell is checked.
inline FrameError check_header(const FrameHeader& header, Role role, bool in_message,
                               std::uint8_t allowed_rsv = 0, bool complete = true) {
  if ((header.rsv & ~allowed_rsv) != 0) return FrameError::reserved_bits;
  if (is_reserved(header.opcode)) return FrameError::reserved_opcode;
  if (header.masked != (role == Role::server))
    return role == Role::server ? FrameError::not_masked : FrameError::masked;
  if (is_control(header.opcode)) {
    if (header.rsv != 0) return FrameError::reserved_bits;
    if (!header.fin) return FrameError::control_fragmented;
    if (header.length_bytes != 0) return FrameError::control_too_long;
    return FrameError::none;
  }
  if (header.opcode == Opcode::continuation) {
    if (!in_message) return FrameError::nothing_to_continue;
    if (header.rsv != 0) return FrameError::reserved_bits;
  } else if (in_message) {
    return FrameError::message_not_finished;
  }
  if (!complete || header.length_bytes == 0) return FrameError::none;
  if (header.length >> 63 != 0) return FrameError::length_too_large;
  if (header.length < (header.length_bytes == 2 ? 126u : 0x10000u)) return FrameError::length_not_minimal;
  return FrameError::none;
}

// Writes the header in its shortest form to `out`, which has header_size_for(header.length, header.masked)
// bytes or more; returns that size. length_bytes is not looked at.
inline std::size_t write_header(std::uint8_t* out, const FrameHeader& header) {
  out[0] = static_cast<std::uint8_t>((header.fin ? 0x80u : 0u) | (unsigned{header.rsv} << 4) |
                                     static_cast<unsigned>(header.opcode));
  const unsigned mask_bit = header.masked ? 0x80 : 0;
  std::size_t size = 2;
  if (header.length < 126) {
    out[1] = static_cast<std::uint8_t>(mask_bit | header.length);
  } else if (header.length <= 0xFFFF) {
    out[1] = static_cast<std::uint8_t>(mask_bit | 126);
    detail::store(out + 2, detail::from_big_endian(static_cast<std::uint16_t>(header.length)));
    size = 4;
  } else {
    out[1] = static_cast<std::uint8_t>(mask_bit | 127);
    detail::store(out + 2, detail::from_big_endian(static_cast<std::uint64_t>(header.length)));
    size = 10;
  }
  if (header.masked) {
    detail::store(out + size, header.key);
    size += 4;
  }
  return size;
}

}  // namespace levada::ws
