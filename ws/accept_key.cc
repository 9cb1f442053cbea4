// The text that is hashed is always 60 bytes: 24 of the key and 36 of the GUID. With its padding it fills two
// blocks of 64 bytes. Of the first only the key varies; the second is the same for every key (zeros and the
// length), so its message schedule is computed at compile time.
#include <levada/ws/accept_key.h>

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>
#define LEVADA_HAS_SHA_NI 1
#endif

#include <bit>
#include <cassert>
#include <cstring>

#include <levada/core/base64.h>

namespace levada::ws {
namespace {

using HashValue = std::array<std::uint32_t, 5>;
using MessageBlock = std::array<std::uint32_t, 16>;  // big-endian words, in the machine's order
using Schedule = std::array<std::uint32_t, 80>;      // FIPS 180-4 section 6.1.2

constexpr std::string_view guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
constexpr HashValue initial_state = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
constexpr std::array<std::uint32_t, 4> round_constants = {0x5a827999, 0x6ed9eba1, 0x8f1bbcdc, 0xca62c1d6};
constexpr std::uint32_t text_bits = (websocket_key_size + guid.size()) * 8;

constexpr std::uint32_t load_be(const char* at) {
  const auto byte = [at](int i) { return std::uint32_t{static_cast<unsigned char>(at[i])}; };
  return byte(0) << 24 | byte(1) << 16 | byte(2) << 8 | byte(3);
}

// The first block but for the key: the GUID and the first bit of the padding.
constexpr MessageBlock guid_block = [] {
  MessageBlock block{};
  for (std::size_t i = 0; i < guid.size() / 4; ++i)
    block[websocket_key_size / 4 + i] = load_be(guid.data() + 4 * i);
  block[15] = 0x80000000;
  return block;
}();

MessageBlock make_block(std::string_view key) {
  MessageBlock block = guid_block;
  for (std::size_t i = 0; i < websocket_key_size / 4; ++i) block[i] = load_be(key.data() + 4 * i);
  return block;
}

constexpr Schedule make_schedule(const MessageBlock& block) {
  Schedule words{};
  for (std::size_t i = 0; i < 16; ++i) words[i] = block[i];
  for (std::size_t i = 16; i < 80; ++i) {
    words[i] = std::rotl(words[i - 3] ^ words[i - 8] ^ words[i - 14] ^ words[i - 16], 1);
  }
  return words;
}

constexpr Schedule padding_schedule = make_schedule({0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, text_bits});

constexpr std::uint32_t choose(std::uint32_t b, std::uint32_t c, std::uint32_t d) {
  return d ^ (b & (c ^ d));
}
constexpr std::uint32_t parity(std::uint32_t b, std::uint32_t c, std::uint32_t d) {
  return b ^ c ^ d;
}
constexpr std::uint32_t majority(std::uint32_t b, std::uint32_t c, std::uint32_t d) {
  return (b & c) | (d & (b | c));
}

// Twenty rounds. Five at a time, because after five the variables are back in their places and nothing was
// moved.
template <auto mix, std::size_t phase>
void rounds(HashValue& state, const Schedule& words) {
  const auto round = [](auto a, auto& b, auto c, auto d, auto& e, std::uint32_t word) {
    e += std::rotl(a, 5) + mix(b, c, d) + round_constants[phase] + word;
    b = std::rotl(b, 30);
  };
  auto [a, b, c, d, e] = state;
  for (std::size_t i = 20 * phase; i < 20 * (phase + 1); i += 5) {
    round(a, b, c, d, e, words[i]);
    round(e, a, b, c, d, words[i + 1]);
    round(d, e, a, b, c, words[i + 2]);
    round(c, d, e, a, b, words[i + 3]);
    round(b, c, d, e, a, words[i + 4]);
  }
  state = {a, b, c, d, e};
}

void compress(HashValue& state, const Schedule& words) {
  HashValue s = state;
  rounds<choose, 0>(s, words);
  rounds<parity, 1>(s, words);
  rounds<majority, 2>(s, words);
  rounds<parity, 3>(s, words);
  for (std::size_t i = 0; i < s.size(); ++i) state[i] += s[i];
}

HashValue hash_scalar(std::string_view key) {
  HashValue state = initial_state;
  compress(state, make_schedule(make_block(key)));
  compress(state, padding_schedule);
  return state;
}

#if defined(LEVADA_HAS_SHA_NI)

#define LEVADA_TARGET_SHA __attribute__((target("sha,sse4.1")))

// abcd holds the state's first four words from the top lane down; e is the fifth, in the top lane.
struct VectorState {
  __m128i abcd;
  __m128i e;
};

// Four rounds. `words` has their schedule words, first in the top lane, without round constants, which the
// instruction adds. The next e is the current a rotated: sha1nexte derives it from `abcd` before the rounds.
template <int Phase>
LEVADA_TARGET_SHA inline void four_rounds(__m128i& abcd, __m128i& before, __m128i words) {
  const __m128i input = _mm_sha1nexte_epu32(before, words);
  before = abcd;
  abcd = _mm_sha1rnds4_epu32(abcd, input, Phase);
}

// The four schedule words that follow the sixteen in m0 to m3.
LEVADA_TARGET_SHA inline __m128i next_words(__m128i m0, __m128i m1, __m128i m2, __m128i m3) {
  return _mm_sha1msg2_epu32(_mm_xor_si128(_mm_sha1msg1_epu32(m0, m1), m2), m3);
}

template <int Phase>
LEVADA_TARGET_SHA inline void five_groups(__m128i& abcd, __m128i& before, const __m128i* words) {
  four_rounds<Phase>(abcd, before, words[0]);
  four_rounds<Phase>(abcd, before, words[1]);
  four_rounds<Phase>(abcd, before, words[2]);
  four_rounds<Phase>(abcd, before, words[3]);
  four_rounds<Phase>(abcd, before, words[4]);
}

LEVADA_TARGET_SHA inline void compress_ni(VectorState& state, const __m128i* words) {
  __m128i abcd = state.abcd;
  // The first group adds e as it is; sha1nexte would rotate it, so that group is written out.
  __m128i before = abcd;
  abcd = _mm_sha1rnds4_epu32(abcd, _mm_add_epi32(state.e, words[0]), 0);
  four_rounds<0>(abcd, before, words[1]);
  four_rounds<0>(abcd, before, words[2]);
  four_rounds<0>(abcd, before, words[3]);
  four_rounds<0>(abcd, before, words[4]);
  five_groups<1>(abcd, before, words + 5);
  five_groups<2>(abcd, before, words + 10);
  five_groups<3>(abcd, before, words + 15);
  state.e = _mm_sha1nexte_epu32(before, state.e);
  state.abcd = _mm_add_epi32(abcd, state.abcd);
}

struct alignas(16) Groups {
  std::array<std::uint32_t, 80> words;
};

// The second block's schedule as the instructions want it: the first of each four words in the top lane.
constexpr Groups padding_groups = [] {
  Groups groups{};
  for (std::size_t i = 0; i < 80; ++i) groups.words[i ^ 3] = padding_schedule[i];
  return groups;
}();

LEVADA_TARGET_SHA HashValue hash_ni(std::string_view key) {
  const auto load = [](const char* at) { return _mm_loadu_si128(reinterpret_cast<const __m128i*>(at)); };
  const __m128i reverse = _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  // What follows the key in the first block: 8 bytes that complete its second group, and two whole groups.
  static constexpr char rest[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11\x80\0\0";
  static_assert(sizeof rest == 40 && std::string_view(rest).starts_with(guid));
  const auto load_half = [](const char* at) { return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(at)); };
  const __m128i text[4] = {load(key.data()), _mm_unpacklo_epi64(load_half(key.data() + 16), load_half(rest)),
                           load(rest + 8), load(rest + 24)};

  __m128i words[20];
  for (int i = 0; i < 4; ++i) words[i] = _mm_shuffle_epi8(text[i], reverse);
  for (int i = 4; i < 20; ++i) words[i] = next_words(words[i - 4], words[i - 3], words[i - 2], words[i - 1]);

  VectorState state = {
      _mm_set_epi32(0x67452301, static_cast<int>(0xefcdab89), static_cast<int>(0x98badcfe), 0x10325476),
      _mm_set_epi32(static_cast<int>(0xc3d2e1f0), 0, 0, 0)};
  compress_ni(state, words);
  compress_ni(state, reinterpret_cast<const __m128i*>(padding_groups.words.data()));

  const auto lane = [](int word) { return static_cast<std::uint32_t>(word); };
  return {lane(_mm_extract_epi32(state.abcd, 3)), lane(_mm_extract_epi32(state.abcd, 2)),
          lane(_mm_extract_epi32(state.abcd, 1)), lane(_mm_extract_epi32(state.abcd, 0)),
          lane(_mm_extract_epi32(state.e, 3))};
}

bool detect_sha_ni() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0 || (c & bit_SSE4_1) == 0) return false;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) != 0 && (b & bit_SHA) != 0;
}

// Until it is set, during static initialisation, the scalar code serves.
const bool has_sha_ni = detect_sha_ni();

#else

HashValue hash_ni(std::string_view key) {
  return hash_scalar(key);
}
constexpr bool has_sha_ni = false;

#endif

AcceptKey encode(const HashValue& state) {
  std::array<std::uint8_t, 20> digest;
  for (std::size_t i = 0; i < state.size(); ++i) {
    for (std::size_t k = 0; k < 4; ++k)
      digest[4 * i + k] = static_cast<std::uint8_t>(state[i] >> (24 - 8 * k));
  }
  AcceptKey text;
  encode_base64(digest, text.data());
  return text;
}

constexpr auto is_base64 = [] {
  std::array<bool, 256> table{};
  for (const char c : base64_alphabet) table[static_cast<unsigned char>(c)] = true;
  return table;
}();

}  // namespace

bool is_websocket_key(std::string_view text) {
  if (text.size() != websocket_key_size || !text.ends_with("==")) return false;
  bool good = true;
  for (std::size_t i = 0; i < 22; ++i) good &= is_base64[static_cast<unsigned char>(text[i])];
  return good;
}

bool is_available(Sha1Tier tier) {
  return tier == Sha1Tier::scalar || has_sha_ni;
}

AcceptKey accept_key(std::string_view key, Sha1Tier tier) {
  assert(key.size() == websocket_key_size && is_available(tier));
  return encode(tier == Sha1Tier::sha_ni ? hash_ni(key) : hash_scalar(key));
}

AcceptKey accept_key(std::string_view key) {
  return accept_key(key, has_sha_ni ? Sha1Tier::sha_ni : Sha1Tier::scalar);
}

WebSocketKey make_key(std::span<const std::uint8_t, 16> random) {
  WebSocketKey key;
  encode_base64(random, key.data());
  return key;
}

}  // namespace levada::ws
