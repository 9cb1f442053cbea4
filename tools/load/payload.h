// Payloads: what each message carries, as a function of (seed, connection, sequence), and the check of an
// echo.
//
//   | stamp: 8 bytes | body: a slice of a random pool |        cut to the size that is asked for
//
// Model: the stamp is a 48-bit number, six bits a byte: the connection's number (22 bits) over the message's
// sequence (26 bits), both moved by the seed. The body begins in the pool where (connection, sequence) say.
// So a message can be written and checked at the speed of a comparison, and a stray one tells whose it is.
// All bytes are printable ASCII: the same messages serve for text and binary.
//
// With a literal every message is that text: then what is not told apart by its bytes is not told apart.
//
// A message shorter than the stamp has its first bytes, which hold the sequence's low bits: what cannot be
// told apart in n bytes is not told apart, and empty messages are only counted. Immutable once built; any
// thread.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string_view>
#include <vector>

#include <levada/core/bytes.h>
#include <levada/core/random.h>

namespace levada::load {

// The connection and message that a payload belongs to.
struct Origin {
  std::uint32_t connection = 0;
  std::uint64_t sequence = 0;  // its low 26 bits
};

class Payloads {
 public:
  static constexpr std::size_t stamp_bytes = 8;
  static constexpr std::uint32_t max_connections = 1u << 22;
  static constexpr std::uint64_t sequence_mask = (std::uint64_t{1} << 26) - 1;

  using Stamp = std::array<std::uint8_t, stamp_bytes>;

  // Messages of `bytes` bytes for connections numbered below `connections`.
  Payloads(std::size_t bytes, std::uint32_t connections, std::uint64_t seed)
      : bytes_(bytes), body_bytes_(bytes > stamp_bytes ? bytes - stamp_bytes : 0), connections_(connections) {
    SeededRandom random(seed);
    connection_key_ = static_cast<std::uint32_t>(random.next()) % max_connections;
    sequence_key_ = random.next();
    pool_.resize(body_bytes_ + offsets - 1);
    for (std::uint8_t& byte : pool_) byte = static_cast<std::uint8_t>(first_char + (random.next() & 63));
  }

  // Every message is `literal`.
  explicit Payloads(std::string_view literal)
      : bytes_(literal.size()), body_bytes_(literal.size()), connections_(0), literal_(true) {
    pool_.assign(literal.begin(), literal.end());
  }

  std::size_t bytes() const { return bytes_; }
  std::size_t stamp_size() const { return bytes_ - body_bytes_; }

  Stamp stamp(std::uint32_t connection, std::uint64_t sequence) const {
    const std::uint64_t high = connection ^ connection_key_;
    const std::uint64_t low = (sequence + shift_of(connection)) & sequence_mask;
    return std::bit_cast<Stamp>(little_endian(spread(high << 26 | low) + all_first_chars));
  }

  // Lives as long as this object.
  Bytes body(std::uint32_t connection, std::uint64_t sequence) const {
    if (literal_) return {pool_.data(), body_bytes_};
    const std::uint64_t mixed =
        (sequence & sequence_mask) * 0x9E3779B97F4A7C15u + connection * std::uint64_t{0xBF58476D1CE4E5B9u};
    return {pool_.data() + (mixed >> 52), body_bytes_};
  }

  // Whether these are the bytes of that message.
  bool matches(Bytes payload, std::uint32_t connection, std::uint64_t sequence) const {
    if (payload.size() != bytes_) return false;
    if (literal_) return payload.empty() || std::memcmp(payload.data(), pool_.data(), bytes_) == 0;
    const Stamp expected = stamp(connection, sequence);
    if (bytes_ < stamp_bytes)
      return payload.empty() || std::memcmp(payload.data(), expected.data(), bytes_) == 0;
    if (std::memcmp(payload.data(), expected.data(), stamp_bytes) != 0) return false;
    return std::memcmp(payload.data() + stamp_bytes, body(connection, sequence).data(), body_bytes_) == 0;
  }

  // Whose message this is, if it is one of ours in every byte.
  std::optional<Origin> origin(Bytes payload) const {
    if (payload.size() != bytes_ || bytes_ < stamp_bytes || literal_) return std::nullopt;
    std::uint64_t lanes;
    std::memcpy(&lanes, payload.data(), sizeof lanes);
    const std::uint64_t number = gather(little_endian(lanes) - all_first_chars);
    const auto connection = static_cast<std::uint32_t>(number >> 26) ^ connection_key_;
    if (connection >= connections_) return std::nullopt;
    const std::uint64_t sequence = (number - shift_of(connection)) & sequence_mask;
    if (!matches(payload, connection, sequence)) return std::nullopt;
    return Origin{connection, sequence};
  }

 private:
  static constexpr std::size_t offsets = 4096;
  static constexpr std::uint8_t first_char = '0';
  static constexpr std::uint64_t all_first_chars = 0x0101010101010101u * first_char;

  static constexpr std::uint64_t little_endian(std::uint64_t value) {
    return std::endian::native == std::endian::little ? value : __builtin_bswap64(value);
  }

  // 48 bits to the low six bits of eight bytes, and back.
  static constexpr std::uint64_t spread(std::uint64_t x) {
    x = (x & 0x0000000000FFFFFFu) | (x & 0x0000FFFFFF000000u) << 8;
    x = (x & 0x00000FFF00000FFFu) | (x & 0x00FFF00000FFF000u) << 4;
    return (x & 0x003F003F003F003Fu) | (x & 0x0FC00FC00FC00FC0u) << 2;
  }
  static constexpr std::uint64_t gather(std::uint64_t x) {
    x = (x & 0x003F003F003F003Fu) | (x & 0x3F003F003F003F00u) >> 2;
    x = (x & 0x00000FFF00000FFFu) | (x & 0x0FFF00000FFF0000u) >> 4;
    return (x & 0x0000000000FFFFFFu) | (x & 0x00FFFFFF00000000u) >> 8;
  }

  // Each connection counts from somewhere else, so that short messages of different connections differ.
  std::uint64_t shift_of(std::uint32_t connection) const {
    return sequence_key_ + connection * std::uint64_t{0x9E3779B1u};
  }

  std::size_t bytes_;
  std::size_t body_bytes_;
  std::uint32_t connections_;
  bool literal_ = false;
  std::uint32_t connection_key_ = 0;
  std::uint64_t sequence_key_ = 0;
  std::vector<std::uint8_t> pool_;
};

}  // namespace levada::load
