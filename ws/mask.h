// Masking of payload bytes (RFC 6455 section 5.3): byte i of the payload is XORed with byte i modulo 4 of the
// key. Doing it twice gives the bytes back, so masking and unmasking are one operation.
//
// Model: up to 64 bytes the work is inlined in the caller as a few overlapping words; above that it goes
// through one function pointer to the best kernel of the machine. Both see whole words only: the last word
// ends where the payload ends and overlaps the one before it. It is loaded before anything is stored, for in
// place the overlap would otherwise be masked twice.
//
// Invariants: a word's width is a multiple of the key's, so a word at a multiple of its width takes the key
// as given, and the last word, at `size - width`, takes the key rotated by `size`. No byte outside the given
// range is read or written.
#pragma once

#include <atomic>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

#include <levada/core/bytes.h>
#include <levada/core/cpu.h>

namespace levada::ws {

// The four key bytes as they stand on the wire, loaded with memcpy.
using MaskKey = std::uint32_t;

// The key as seen by the byte at `offset` of the payload: what masks the rest of a payload whose first
// `offset` bytes are done.
constexpr MaskKey rotate(MaskKey key, std::size_t offset) {
  const int bits = static_cast<int>(offset % 4) * 8;
  return std::endian::native == std::endian::little ? std::rotr(key, bits) : std::rotl(key, bits);
}

// One kernel: `to[i] = from[i] ^ key byte i % 4` for `size` bytes, at least `mask_kernel_min`. `to` and
// `from` are the same or do not overlap; any alignment. Returns whether every byte written is ASCII, which
// costs nothing here and saves the validation of most texts.
using MaskFunction = bool(std::uint8_t* to, const std::uint8_t* from, std::size_t size, MaskKey key);
using MaskKernel = SimdKernel<MaskFunction>;

inline constexpr std::size_t mask_kernel_min = 64;
inline constexpr std::size_t mask_inline_max = 64;

// The kernels that this machine runs, in ascending tiers, for tests and benchmarks; static storage.
std::span<const MaskKernel> mask_kernels();

namespace detail {

// The kernel in use. Constant-initialised to a function that picks the best kernel at the first call, stores
// it here and runs it: no guard and no order of initialisation. Threads may race for the store; all store the
// same.
extern constinit std::atomic<MaskFunction*> mask_kernel;

inline constexpr std::uint64_t high_bits = 0x8080'8080'8080'8080;

template <class Word>
Word load(const std::uint8_t* from) {
  Word word;
  std::memcpy(&word, from, sizeof word);
  return word;
}

template <class Word>
void store(std::uint8_t* to, Word word) {
  std::memcpy(to, &word, sizeof word);
}

constexpr std::uint64_t widen(MaskKey key) {
  return key * 0x1'0000'0001u;
}

// Two words of one width, for sizes from the width to twice the width. Returns the bytes written, ORed
// together.
template <class Word>
std::uint64_t mask_pair(std::uint8_t* to, const std::uint8_t* from, std::size_t size, Word key,
                        Word last_key) {
  const Word first = load<Word>(from) ^ key;
  const Word last = load<Word>(from + size - sizeof(Word)) ^ last_key;
  store(to, first);
  store(to + size - sizeof(Word), last);
  return first | last;
}

// 16 bytes in the compiler's own vector type: one register on x86-64 and AArch64, a pair elsewhere.
using Vector = std::uint64_t __attribute__((vector_size(16)));

inline Vector splat(MaskKey key) {
  return Vector{widen(key), widen(key)};
}

// Masks 16 bytes or more, meant for few. Returns the bytes written, ORed together.
inline std::uint64_t mask_vectors(std::uint8_t* to, const std::uint8_t* from, std::size_t size, MaskKey key) {
  const Vector last = load<Vector>(from + size - 16) ^ splat(rotate(key, size));
  Vector seen = last;
  for (std::size_t at = 0; at + 16 < size; at += 16) {
    const Vector word = load<Vector>(from + at) ^ splat(key);
    store(to + at, word);
    seen |= word;
  }
  store(to + size - 16, last);
  return seen[0] | seen[1];
}

// Masks any number of bytes, meant for few. Returns the bytes written, ORed together.
[[gnu::always_inline]] inline std::uint64_t mask_words(std::uint8_t* to, const std::uint8_t* from,
                                                       std::size_t size, MaskKey key) {
  if (size >= 16) return mask_vectors(to, from, size, key);
  if (size >= 8) return mask_pair<std::uint64_t>(to, from, size, widen(key), widen(rotate(key, size)));
  if (size >= 4) return mask_pair<std::uint32_t>(to, from, size, key, rotate(key, size));
  std::uint8_t key_bytes[4];
  std::memcpy(key_bytes, &key, 4);
  std::uint64_t seen = 0;
  for (std::size_t at = 0; at < size; ++at) {
    to[at] = from[at] ^ key_bytes[at];
    seen |= to[at];
  }
  return seen;
}

// Masks any number of bytes. Returns whether every byte written is ASCII.
[[gnu::always_inline]] inline bool mask(std::uint8_t* to, const std::uint8_t* from, std::size_t size,
                                        MaskKey key) {
  if (size <= mask_inline_max) return (mask_words(to, from, size, key) & high_bits) == 0;
  return mask_kernel.load(std::memory_order_relaxed)(to, from, size, key);
}

}  // namespace detail

// Masks or unmasks `data` where it lies. `offset` is the position of its first byte in the payload. Any
// alignment.
inline void mask_in_place(MutableBytes data, MaskKey key, std::size_t offset = 0) {
  detail::mask(data.data(), data.data(), data.size(), rotate(key, offset));
}

// Masks or unmasks `from` into the `from.size()` bytes at `to`, which are the same bytes or do not overlap
// `from`.
inline void mask_copy(std::uint8_t* to, Bytes from, MaskKey key, std::size_t offset = 0) {
  detail::mask(to, from.data(), from.size(), rotate(key, offset));
}

}  // namespace levada::ws
