// UTF-8 validation of text messages (RFC 6455 section 8.1), in pieces of any size, failing at the first byte
// that cannot be part of UTF-8 whatever follows.
//
// Model: a deterministic automaton after Unicode's table 3-7 ("Well-Formed UTF-8 Byte Sequences"). Its state
// is one byte: what may come next. ASCII short enough is tested inline, a word at a time; everything else
// goes through one function pointer to the best kernel of the machine, a function from a state and bytes to
// the next state, the same for each kernel.
//
// Invariants: after any bytes the state is that of the automaton fed byte by byte, so where a text is split
// makes no difference. `utf8_error` is never left. Overlong forms, surrogates and code points above U+10FFFF
// are errors.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include <levada/core/bytes.h>
#include <levada/core/cpu.h>
#include <levada/ws/mask.h>

namespace levada::ws {

// A state of the automaton; only these two are of interest outside ws/utf8.cc.
using Utf8State = std::uint8_t;
inline constexpr Utf8State utf8_error = 0;
inline constexpr Utf8State utf8_boundary = 6;  // between two code points

// One kernel: the state after `size` bytes of `text` from `state`. Any size, any alignment.
using Utf8Function = Utf8State(Utf8State state, const std::uint8_t* text, std::size_t size);
using Utf8Kernel = SimdKernel<Utf8Function>;

// The kernels that this machine runs, in ascending tiers, for tests and benchmarks; static storage.
std::span<const Utf8Kernel> utf8_kernels();

namespace detail {

inline constexpr std::size_t utf8_inline_max = 64;

// The kernel in use, set as `mask_kernel` is.
extern constinit std::atomic<Utf8Function*> utf8_kernel;

// The bytes of `text`, ORed together in no order: high bits are set in the result if and only if some byte is
// not ASCII.
inline std::uint64_t or_words(const std::uint8_t* text, std::size_t size) {
  std::uint64_t seen = 0;
  if (size >= 8) {
    for (std::size_t at = 0; at + 8 < size; at += 8) seen |= load<std::uint64_t>(text + at);
    return seen | load<std::uint64_t>(text + size - 8);
  }
  if (size >= 4) return load<std::uint32_t>(text) | load<std::uint32_t>(text + size - 4);
  for (std::size_t at = 0; at < size; ++at) seen |= text[at];
  return seen;
}

}  // namespace detail

// Validates one text given in pieces. One byte, trivially copyable; used by one thread at a time.
class Utf8Validator {
 public:
  // Appends `text`. False if the text so far cannot be the beginning of UTF-8, and from then on until
  // reset().
  bool feed(Bytes text) {
    const bool short_text = text.size() <= detail::utf8_inline_max && state_ == utf8_boundary;
    if (short_text && (detail::or_words(text.data(), text.size()) & detail::high_bits) == 0) return true;
    state_ = detail::utf8_kernel.load(std::memory_order_relaxed)(state_, text.data(), text.size());
    return state_ != utf8_error;
  }

  // Whether the text so far is UTF-8 as it stands: it may end here.
  bool complete() const { return state_ == utf8_boundary; }

  // Begins a new text.
  void reset() { state_ = utf8_boundary; }

 private:
  friend bool unmask_utf8(MutableBytes data, MaskKey key, std::size_t offset, Utf8Validator& validator);

  Utf8State state_ = utf8_boundary;
};

// Whether the whole of `text` is UTF-8.
inline bool is_utf8(Bytes text) {
  Utf8Validator validator;
  return validator.feed(text) && validator.complete();
}

namespace detail {

// The part of unmask_utf8() that is not inlined.
bool unmask_utf8_blocks(MutableBytes data, MaskKey key, Utf8Validator& validator);

}  // namespace detail

// mask_in_place(data, key, offset), then validator.feed(data), in one pass or in blocks that stay in the
// cache. If it returns false, the bytes after the first bad one may be left masked.
inline bool unmask_utf8(MutableBytes data, MaskKey key, std::size_t offset, Utf8Validator& validator) {
  key = rotate(key, offset);
  if (data.size() > mask_inline_max) return detail::unmask_utf8_blocks(data, key, validator);
  const bool ascii = detail::mask(data.data(), data.data(), data.size(), key);
  return (ascii && validator.complete()) || validator.feed(data);
}

}  // namespace levada::ws
