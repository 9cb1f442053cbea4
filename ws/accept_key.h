// The two keys of the opening handshake (RFC 6455 section 4.1 point 7 and section 4.2.2 point 5.4):
//   Sec-WebSocket-Key     base64 of 16 random bytes, chosen by the client
//   Sec-WebSocket-Accept  base64(SHA-1(key + a fixed GUID)), the server's proof that it read the key
//
// Pure functions without state; any thread may call them. SHA-1 serves as this checksum and for nothing else.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

namespace levada::ws {

inline constexpr std::size_t websocket_key_size = 24;
inline constexpr std::size_t accept_key_size = 28;

using WebSocketKey = std::array<char, websocket_key_size>;
using AcceptKey = std::array<char, accept_key_size>;

// Whether `text` is base64 of exactly 16 bytes: 22 characters of the alphabet and "==". The 4 bits of the
// last character that carry nothing may have any value (RFC 4648 section 3.5 leaves that to the decoder).
bool is_websocket_key(std::string_view text);

// The Sec-WebSocket-Accept for `key`, which must have 24 characters.
AcceptKey accept_key(std::string_view key);

// The key for 16 bytes, which have to come from a cryptographically strong generator and are used once.
WebSocketKey make_key(std::span<const std::uint8_t, 16> random);

// The implementations of SHA-1. accept_key() takes the best that this processor has; tests and benchmarks
// name one.
enum class Sha1Tier : std::uint8_t { scalar, sha_ni };

bool is_available(Sha1Tier tier);

// As accept_key(key). `tier` must be available.
AcceptKey accept_key(std::string_view key, Sha1Tier tier);

}  // namespace levada::ws
