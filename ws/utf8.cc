#include <levada/ws/utf8.h>

#include <algorithm>
#include <array>

#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace levada::ws {
namespace {

// unmask_utf8() masks and validates in blocks of this size, in bytes, so that the second look at them is in
// the first-level cache. The mask kernel says whether its output is ASCII, so ASCII is not looked at twice:
// it costs half of two passes.
constexpr std::size_t block_size = 16384;

// The automaton. A state is a shift count; the row of a byte holds, in 6 bits at each state's count, the
// state that follows. So one step is one shift, and the load of the row waits for the text only, not for the
// step before: 0.35 ns a byte.
enum State : Utf8State {
  error = utf8_error,
  boundary = utf8_boundary,
  one_more = 12,  // continuation bytes that are missing
  two_more = 18,
  three_more = 24,
  after_e0 = 30,  // the second byte is A0..BF: no overlong forms
  after_ed = 36,  // 80..9F: no surrogates
  after_f0 = 42,  // 90..BF: no overlong forms
  after_f4 = 48,  // 80..8F: nothing above U+10FFFF
};

struct Transition {
  State from;
  std::uint8_t first;
  std::uint8_t last;
  State to;
};

// Unicode's table 3-7, column by column; what is not here leads to `error`.
constexpr Transition transitions[] = {
    {boundary, 0x00, 0x7f, boundary}, {boundary, 0xc2, 0xdf, one_more},   {boundary, 0xe0, 0xe0, after_e0},
    {boundary, 0xe1, 0xec, two_more}, {boundary, 0xed, 0xed, after_ed},   {boundary, 0xee, 0xef, two_more},
    {boundary, 0xf0, 0xf0, after_f0}, {boundary, 0xf1, 0xf3, three_more}, {boundary, 0xf4, 0xf4, after_f4},
    {one_more, 0x80, 0xbf, boundary}, {two_more, 0x80, 0xbf, one_more},   {three_more, 0x80, 0xbf, two_more},
    {after_e0, 0xa0, 0xbf, one_more}, {after_ed, 0x80, 0x9f, one_more},   {after_f0, 0x90, 0xbf, two_more},
    {after_f4, 0x80, 0x8f, two_more},
};

constexpr auto rows = [] {
  std::array<std::uint64_t, 256> table{};
  for (const Transition& each : transitions) {
    for (std::size_t byte = each.first; byte <= each.last; ++byte)
      table[byte] |= std::uint64_t{each.to} << each.from;
  }
  return table;
}();

Utf8State step_each(Utf8State state, const std::uint8_t* text, std::size_t size) {
  std::uint64_t shifted = state;  // only the low 6 bits count, here and in the shift
  for (std::size_t at = 0; at < size; ++at) shifted = rows[text[at]] >> (shifted & 63);
  return shifted & 63;
}

Utf8State utf8_scalar(Utf8State state, const std::uint8_t* text, std::size_t size) {
  std::size_t at = 0;
  for (; at + 16 <= size; at += 16) {
    const bool ascii = (detail::or_words(text + at, 16) & detail::high_bits) == 0;
    if (ascii && state == boundary) continue;
    state = step_each(state, text + at, 16);
  }
  return step_each(state, text + at, size - at);
}

// The vector kernel. Given that all bytes before it are fine, whether a byte is depends on it and the three
// before it only:
// - the pair with the byte before must not be one of `bad_pairs`, each a product of a set of high and low
// nibbles of the first and
//   a set of high nibbles of the second: three lookups of 16 bytes, ANDed, give a bit for each kind of bad
//   pair;
// - a continuation after a continuation is right exactly where a lead byte E0.. stands two before or F0..
// three before. So `pairs ^ needed` is zero for good text, where `needed` has the bit of the second rule. The
// three bytes before are loaded from memory again rather than shifted in from the previous vector: three
// loads are cheaper than four shuffles beside the three of the lookups. So the vectors start at the text's
// fourth byte, and the last may overlap the one before it to end where the text ends. The automaton takes the
// first three bytes, and the last three for the state at the end.
//
// Written for AVX2 and NEON. There is no tier between scalar and AVX2: SSE2 has no byte lookup, and the few
// x86-64 machines without AVX2 are served by the automaton.
struct BadPair {
  std::uint8_t kind;  // one bit
  std::uint8_t first_low, first_high, second_low, second_high;
};

constexpr std::uint8_t continuations = 0x80;

constexpr BadPair bad_pairs[] = {
    {0x01, 0xc0, 0xff, 0x00, 0x7f},  // a continuation is missing: ASCII
    {0x01, 0xc0, 0xff, 0xc0, 0xff},  // or a lead byte
    {0x02, 0x00, 0x7f, 0x80, 0xbf},  // a continuation of nothing
    {0x04, 0xc0, 0xc1, 0x80, 0xbf},  // overlong, two bytes
    {0x08, 0xe0, 0xe0, 0x80, 0x9f},  // overlong, three bytes
    {0x10, 0xed, 0xed, 0xa0, 0xbf},  // a surrogate
    {0x20, 0xf0, 0xf0, 0x80, 0x8f},  // overlong, four bytes
    {0x20, 0xf5, 0xff, 0x80, 0x8f},  // above U+10FFFF
    {0x40, 0xf4, 0xff, 0x90, 0xbf}, {continuations, 0x80, 0xbf, 0x80, 0xbf},
};

struct Nibbles {
  alignas(16) std::uint8_t first_high[16];
  alignas(16) std::uint8_t first_low[16];
  alignas(16) std::uint8_t second_high[16];
};

constexpr Nibbles nibbles = [] {
  Nibbles table{};
  for (const BadPair& each : bad_pairs) {
    for (int byte = each.first_low; byte <= each.first_high; ++byte) {
      table.first_high[byte >> 4] |= each.kind;
      table.first_low[byte & 15] |= each.kind;
    }
    for (int byte = each.second_low; byte <= each.second_high; ++byte)
      table.second_high[byte >> 4] |= each.kind;
  }
  return table;
}();

#if defined(__x86_64__)

#define LEVADA_VECTOR __attribute__((target("avx2")))
constexpr SimdTier vector_tier = SimdTier::avx2;
using Vector = __m256i;
constexpr std::size_t width = sizeof(Vector);

LEVADA_VECTOR Vector load(const std::uint8_t* from) {
  return _mm256_loadu_si256(reinterpret_cast<const Vector*>(from));
}
LEVADA_VECTOR Vector load_table(const std::uint8_t* from) {
  return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(from)));
}
LEVADA_VECTOR Vector splat(std::uint8_t byte) {
  return _mm256_set1_epi8(static_cast<char>(byte));
}
LEVADA_VECTOR Vector both(Vector a, Vector b) {
  return _mm256_and_si256(a, b);
}
LEVADA_VECTOR Vector either(Vector a, Vector b) {
  return _mm256_or_si256(a, b);
}
LEVADA_VECTOR Vector differ(Vector a, Vector b) {
  return _mm256_xor_si256(a, b);
}
LEVADA_VECTOR Vector subtract_to_zero(Vector a, Vector b) {
  return _mm256_subs_epu8(a, b);
}
LEVADA_VECTOR Vector low_nibbles(Vector a) {
  return both(a, splat(15));
}
LEVADA_VECTOR Vector high_nibbles(Vector a) {
  return low_nibbles(_mm256_srli_epi16(a, 4));
}
LEVADA_VECTOR Vector look_up(Vector table, Vector index) {
  return _mm256_shuffle_epi8(table, index);
}
LEVADA_VECTOR bool is_zero(Vector a) {
  return _mm256_testz_si256(a, a) != 0;
}
LEVADA_VECTOR bool is_ascii(Vector a) {
  return _mm256_movemask_epi8(a) == 0;
}

#elif defined(__aarch64__)

#define LEVADA_VECTOR
constexpr SimdTier vector_tier = SimdTier::neon;
using Vector = uint8x16_t;
constexpr std::size_t width = sizeof(Vector);

Vector load(const std::uint8_t* from) {
  return vld1q_u8(from);
}
Vector load_table(const std::uint8_t* from) {
  return vld1q_u8(from);
}
Vector splat(std::uint8_t byte) {
  return vdupq_n_u8(byte);
}
Vector both(Vector a, Vector b) {
  return vandq_u8(a, b);
}
Vector either(Vector a, Vector b) {
  return vorrq_u8(a, b);
}
Vector differ(Vector a, Vector b) {
  return veorq_u8(a, b);
}
Vector subtract_to_zero(Vector a, Vector b) {
  return vqsubq_u8(a, b);
}
Vector low_nibbles(Vector a) {
  return both(a, splat(15));
}
Vector high_nibbles(Vector a) {
  return vshrq_n_u8(a, 4);
}
Vector look_up(Vector table, Vector index) {
  return vqtbl1q_u8(table, index);
}
bool is_zero(Vector a) {
  return vmaxvq_u8(a) == 0;
}
bool is_ascii(Vector a) {
  return vmaxvq_u8(a) < 0x80;
}

#endif

#if defined(LEVADA_VECTOR)

struct Tables {
  Vector first_high, first_low, second_high;
};

// Not zero where a byte of the vector at `text` is wrong after the three bytes before it.
LEVADA_VECTOR inline Vector wrong(const std::uint8_t* text, const Tables& tables) {
  const Vector first = load(text - 1);
  const Vector pairs = both(
      both(look_up(tables.first_high, high_nibbles(first)), look_up(tables.first_low, low_nibbles(first))),
      look_up(tables.second_high, high_nibbles(load(text))));
  const Vector third = subtract_to_zero(load(text - 2), splat(0xe0 - continuations));
  const Vector fourth = subtract_to_zero(load(text - 3), splat(0xf0 - continuations));
  return differ(pairs, both(either(third, fourth), splat(continuations)));
}

// Whether the bytes from text[3] on are right, those before being so.
LEVADA_VECTOR bool right_from_fourth(const std::uint8_t* text, std::size_t size) {
  const Tables tables = {load_table(nibbles.first_high), load_table(nibbles.first_low),
                         load_table(nibbles.second_high)};
  Vector bad = splat(0);
  bool clean = false;  // the bytes before are ASCII: nothing hangs on them
  std::size_t at = 3;
  for (; at + 2 * width < size; at += 2 * width) {
    const bool ascii = is_ascii(either(load(text + at), load(text + at + width)));
    if (!ascii || !clean)
      bad = either(bad, either(wrong(text + at, tables), wrong(text + at + width, tables)));
    clean = ascii;
  }
  for (; at + width < size; at += width) bad = either(bad, wrong(text + at, tables));
  return is_zero(either(bad, wrong(text + size - width, tables)));
}

// The last bytes of valid text that may be an unfinished code point, or finish one.
std::size_t last_lead(const std::uint8_t* text, std::size_t size) {
  for (std::size_t back = 1; back <= 3; ++back) {
    if (text[size - back] >= 0xc0) return back;
  }
  return 0;
}

// The length of the ASCII that `text` begins with, in whole vectors, or `size` if it is ASCII to its end.
// `size` >= `width`.
LEVADA_VECTOR std::size_t leading_ascii(const std::uint8_t* text, std::size_t size) {
  std::size_t at = 0;
  for (; at + 2 * width <= size; at += 2 * width) {
    if (!is_ascii(either(load(text + at), load(text + at + width)))) return at;
  }
  if (at + width < size && !is_ascii(load(text + at))) return at;
  return is_ascii(load(text + size - width)) ? size : at;
}

Utf8State utf8_vector(Utf8State state, const std::uint8_t* text, std::size_t size) {
  if (state == boundary && size >= width) {
    const std::size_t ascii = leading_ascii(text, size);
    text += ascii;
    size -= ascii;
  }
  if (size < 3 + width) return step_each(state, text, size);
  if (step_each(state, text, 3) == error || !right_from_fourth(text, size)) return error;
  const std::size_t back = last_lead(text, size);
  return step_each(boundary, text + size - back, back);
}

#endif

constexpr std::array all_utf8_kernels = {
    Utf8Kernel{SimdTier::scalar, utf8_scalar},
#if defined(LEVADA_VECTOR)
    Utf8Kernel{vector_tier, utf8_vector},
#endif
};

Utf8State utf8_first_call(Utf8State state, const std::uint8_t* text, std::size_t size) {
  Utf8Function* best = utf8_kernels().back().run;
  detail::utf8_kernel.store(best, std::memory_order_relaxed);
  return best(state, text, size);
}

}  // namespace

bool detail::unmask_utf8_blocks(MutableBytes data, MaskKey key, Utf8Validator& validator) {
  while (!data.empty()) {
    const MutableBytes block = data.first(std::min(data.size(), block_size));
    const bool ascii = mask(block.data(), block.data(), block.size(), key);
    if (!(ascii && validator.complete()) && !validator.feed(block)) return false;
    data = data.subspan(block.size());
  }
  return true;
}

constinit std::atomic<Utf8Function*> detail::utf8_kernel{utf8_first_call};

std::span<const Utf8Kernel> utf8_kernels() {
  return runnable(all_utf8_kernels);
}

}  // namespace levada::ws
