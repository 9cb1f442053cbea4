// Base64 (RFC 4648 section 4) of bytes that the caller has. Pure functions; any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include <levada/core/bytes.h>

namespace levada {

inline constexpr std::string_view base64_alphabet =
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// Characters for `size` bytes, the padding included.
constexpr std::size_t base64_size(std::size_t size) {
  return (size + 2) / 3 * 4;
}

namespace detail {

// The four characters for the three bytes in `bits`.
inline void put_base64_group(std::uint32_t bits, char* out) {
  out[0] = base64_alphabet[bits >> 18 & 63];
  out[1] = base64_alphabet[bits >> 12 & 63];
  out[2] = base64_alphabet[bits >> 6 & 63];
  out[3] = base64_alphabet[bits & 63];
}

}  // namespace detail

// Writes base64_size(in.size()) characters to `out`; a last group that is not full ends in '='.
inline void encode_base64(Bytes in, char* out) {
  for (; in.size() >= 3; in = in.subspan(3), out += 4) {
    detail::put_base64_group(std::uint32_t{in[0]} << 16 | std::uint32_t{in[1]} << 8 | in[2], out);
  }
  if (in.empty()) return;
  detail::put_base64_group(std::uint32_t{in[0]} << 16 | (in.size() == 2 ? std::uint32_t{in[1]} << 8 : 0),
                           out);
  if (in.size() == 1) out[2] = '=';
  out[3] = '=';
}

}  // namespace levada
