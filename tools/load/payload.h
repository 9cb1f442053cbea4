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
// How long it is follows from the same (Sizes). The pool is random text, or JSON records, which can be compressed.
//
// With a literal every message is that text: then what is not told apart by its bytes is not told apart.
//
// A message shorter than the stamp has its first bytes, which hold the sequence's low bits: what cannot be
// told apart in n bytes is not told apart, and empty messages are only counted. Immutable once built; any
// thread.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <levada/core/bytes.h>
#include <levada/core/random.h>
#include <levada/tools/load/sizes.h>

namespace levada::load {

// The connection and message that a payload belongs to.
struct Origin {
  std::uint32_t connection = 0;
  std::uint64_t sequence = 0;  // its low 26 bits
};

enum class PayloadText : std::uint8_t { random, json };

class Payloads {
 public:
  static constexpr std::size_t stamp_bytes = 8;
  static constexpr std::uint32_t max_connections = 1u << 22;
  static constexpr std::uint64_t sequence_mask = (std::uint64_t{1} << 26) - 1;

  using Stamp = std::array<std::uint8_t, stamp_bytes>;
  using Short = std::array<std::uint8_t, 128>;  // room for a short message

  // Messages of these sizes for connections numbered below `connections`.
  Payloads(Sizes sizes, std::uint32_t connections, std::uint64_t seed, PayloadText text = PayloadText::random)
      : sizes_(std::move(sizes)), seed_(seed), connections_(connections) {
    SeededRandom random(seed);
    connection_key_ = static_cast<std::uint32_t>(random.next()) % max_connections;
    sequence_key_ = random.next();
    const std::size_t size = body_of(sizes_.most()) + offsets - 1;
    if (text == PayloadText::json) {
      fill_with_json(random, size);
      return;
    }
    pool_.resize(size + short_body);
    for (std::uint8_t& byte : pool_) byte = static_cast<std::uint8_t>(first_char + (random.next() & 63));
  }

  // Every message is `literal`.
  explicit Payloads(std::string_view literal) : sizes_(literal.size()), literal_(true) {
    pool_.assign(literal.begin(), literal.end());
    pool_.resize(literal.size() + short_body);
  }

  std::size_t size(std::uint32_t connection, std::uint64_t sequence) const {
    return sizes_.of(seed_, connection, sequence & sequence_mask);
  }
  // Of a message of `size` bytes.
  std::size_t stamp_size(std::size_t size) const { return size - body_of(size); }

  Stamp stamp(std::uint32_t connection, std::uint64_t sequence) const {
    const std::uint64_t high = connection ^ connection_key_;
    const std::uint64_t low = (sequence + shift_of(connection)) & sequence_mask;
    return std::bit_cast<Stamp>(little_endian(spread(high << 26 | low) + all_first_chars));
  }

  // Lives as long as this object. `size`: of the whole message.
  Bytes body(std::uint32_t connection, std::uint64_t sequence, std::size_t size) const {
    if (literal_) return {pool_.data(), size};
    const std::uint64_t mixed =
        (sequence & sequence_mask) * 0x9E3779B97F4A7C15u + connection * std::uint64_t{0xBF58476D1CE4E5B9u};
    return {pool_.data() + (mixed >> 52), body_of(size)};
  }

  // That message of `size` bytes in one piece, which is written to `out` and must fit in there.
  Bytes write(Short& out, std::uint32_t connection, std::uint64_t sequence, std::size_t size) const {
    const Stamp head = stamp(connection, sequence);
    const Bytes rest = body(connection, sequence, size);
    std::uint8_t* const at = out.data() + stamp_size(size);
    std::memcpy(out.data(), head.data(), head.size());
    if (rest.size() <= short_body) {  // the usual: a copy of known size
      std::memcpy(at, rest.data(), short_body);
    } else {
      std::memcpy(at, rest.data(), rest.size());
    }
    return Bytes(out).first(size);
  }

  // Whether these are the bytes of that message.
  bool matches(Bytes payload, std::uint32_t connection, std::uint64_t sequence) const {
    const std::size_t size = payload.size();
    if (size != this->size(connection, sequence)) return false;
    if (literal_) return equal(payload.data(), pool_.data(), size);
    const Stamp expected = stamp(connection, sequence);
    if (size < stamp_bytes) return equal(payload.data(), expected.data(), size);
    if (std::memcmp(payload.data(), expected.data(), stamp_bytes) != 0) return false;
    const Bytes rest = body(connection, sequence, size);
    return equal(payload.data() + stamp_bytes, rest.data(), rest.size());
  }

  // Whose message this is, if it is one of ours in every byte.
  std::optional<Origin> origin(Bytes payload) const {
    if (payload.size() < stamp_bytes || literal_) return std::nullopt;
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
  static constexpr std::size_t short_body = 16;  // the pool goes on for as many bytes behind the last body
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

  // 8 to 16 bytes are compared as two words that may overlap.
  static bool equal(const std::uint8_t* a, const std::uint8_t* b, std::size_t size) {
    if (size - 8 > 8) return size == 0 || std::memcmp(a, b, size) == 0;
    const auto word = [](const std::uint8_t* at) {
      std::uint64_t bytes;
      std::memcpy(&bytes, at, sizeof bytes);
      return bytes;
    };
    return ((word(a) ^ word(b)) | (word(a + size - 8) ^ word(b + size - 8))) == 0;
  }

  std::size_t body_of(std::size_t size) const { return literal_ ? size : size - std::min(size, stamp_bytes); }

  // Records of a few members, of which names and shape repeat and values do not.
  void fill_with_json(SeededRandom& random, std::size_t size) {
    constexpr std::string_view words[] = {"alpha", "bravo",   "charlie", "delta",
                                          "echo",  "foxtrot", "golf",    "hotel"};
    while (pool_.size() < size) {
      const std::uint64_t bits = random.next();
      const std::string record = "{\"id\":" + std::to_string(bits >> 40) + ",\"user\":\"" +
                                 std::string(words[bits & 7]) +
                                 "\",\"price\":" + std::to_string(bits >> 20 & 0xFFFF) + ".5,\"tags\":[\"" +
                                 std::string(words[bits >> 3 & 7]) + "\"],\"ok\":true},";
      pool_.insert(pool_.end(), record.begin(), record.end());
    }
    pool_.resize(size + short_body);
  }

  Sizes sizes_;
  std::uint64_t seed_ = 0;
  std::uint32_t connections_ = 0;
  bool literal_ = false;
  std::uint32_t connection_key_ = 0;
  std::uint64_t sequence_key_ = 0;
  std::vector<std::uint8_t> pool_;
};

}  // namespace levada::load
