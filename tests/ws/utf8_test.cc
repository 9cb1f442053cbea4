#include <levada/ws/utf8.h>

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

using namespace levada;
using namespace levada::ws;

namespace {

using Text = std::vector<std::uint8_t>;

// Unicode's table 3-7 as it is printed: the rows of well-formed sequences, each a range per byte.
struct Range {
  std::uint8_t first, last;
};

struct Row {
  std::size_t size;
  Range bytes[4];
};

constexpr Row table_3_7[] = {
    {1, {{0x00, 0x7f}}},
    {2, {{0xc2, 0xdf}, {0x80, 0xbf}}},
    {3, {{0xe0, 0xe0}, {0xa0, 0xbf}, {0x80, 0xbf}}},
    {3, {{0xe1, 0xec}, {0x80, 0xbf}, {0x80, 0xbf}}},
    {3, {{0xed, 0xed}, {0x80, 0x9f}, {0x80, 0xbf}}},
    {3, {{0xee, 0xef}, {0x80, 0xbf}, {0x80, 0xbf}}},
    {4, {{0xf0, 0xf0}, {0x90, 0xbf}, {0x80, 0xbf}, {0x80, 0xbf}}},
    {4, {{0xf1, 0xf3}, {0x80, 0xbf}, {0x80, 0xbf}, {0x80, 0xbf}}},
    {4, {{0xf4, 0xf4}, {0x80, 0x8f}, {0x80, 0xbf}, {0x80, 0xbf}}},
};

// What the table says of a text: the position of the first byte that fits no row, or the size; and whether it
// ends a row.
struct Verdict {
  std::size_t good;
  bool complete;

  bool operator==(const Verdict&) const = default;
};

Verdict reference(Bytes text) {
  std::size_t at = 0;
  while (at < text.size()) {
    std::size_t longest = 0;
    bool done = false;
    for (const Row& row : table_3_7) {
      const auto fits = [&](std::size_t i) {
        return row.bytes[i].first <= text[at + i] && text[at + i] <= row.bytes[i].last;
      };
      std::size_t fit = 0;
      while (fit < row.size && at + fit < text.size() && fits(fit)) ++fit;
      longest = std::max(longest, fit);
      done |= fit == row.size;
    }
    if (!done) return {at + longest, false};
    at += longest;
  }
  return {at, true};
}

// The same found with the validator, by feeding byte after byte.
Verdict bytewise(Bytes text) {
  Utf8Validator validator;
  for (std::size_t at = 0; at < text.size(); ++at) {
    if (!validator.feed(text.subspan(at, 1))) return {at, false};
  }
  return {text.size(), validator.complete()};
}

// The state that a kernel must reach, by the reference: whether an error, and else what byte by byte leads
// to.
Utf8State expected_state(Bytes text) {
  if (reference(text).good < text.size()) return utf8_error;
  const Utf8Kernel& scalar = utf8_kernels().front();
  Utf8State state = utf8_boundary;
  for (const std::uint8_t byte : text) state = scalar.run(state, &byte, 1);
  return state;
}

void append_code_point(Text& text, std::uint32_t code) {
  const auto put = [&](std::uint32_t byte) { text.push_back(static_cast<std::uint8_t>(byte)); };
  if (code < 0x80) return put(code);
  if (code < 0x800) {
    put(0xc0 | code >> 6);
  } else {
    if (code < 0x10000) {
      put(0xe0 | code >> 12);
    } else {
      put(0xf0 | code >> 18);
      put(0x80 | (code >> 12 & 63));
    }
    put(0x80 | (code >> 6 & 63));
  }
  put(0x80 | (code & 63));
}

// Puts `piece` into ASCII so that every kernel meets it with its vectors, at a place that moves with `salt`.
Text embedded(Bytes piece, std::size_t salt) {
  Text text(48 + salt % 67, 'a');
  text.insert(text.end(), piece.begin(), piece.end());
  text.resize(text.size() + 40 + salt % 31, 'z');
  return text;
}

class Random {
 public:
  explicit Random(unsigned seed) : engine_(seed) {}
  std::size_t below(std::size_t end) { return engine_() % end; }

 private:
  std::mt19937 engine_;
};

// Valid text of about `size` bytes, in runs of one script as real text is.
Text random_text(Random& random, std::size_t size) {
  static constexpr std::uint32_t starts[] = {0x20, 0x80, 0x800, 0xac00, 0xe000, 0x10000, 0x10ff00};
  static constexpr std::uint32_t counts[] = {0x5f, 0x780, 0x4000, 0x2c00, 0x2000, 0x100000, 0x100};
  Text text;
  while (text.size() < size) {
    const std::size_t script = random.below(3) == 0 ? 0 : random.below(7);
    for (std::size_t run = random.below(60); run > 0; --run) {
      append_code_point(text, starts[script] + static_cast<std::uint32_t>(random.below(counts[script])));
    }
  }
  return text;
}

bool fed_in_two(Bytes text, std::size_t split, Verdict expected) {
  Utf8Validator validator;
  const bool first = validator.feed(text.first(split));
  if (first != (expected.good >= split)) return false;
  const bool second = validator.feed(text.subspan(split));
  return second == (expected.good == text.size()) && validator.complete() == expected.complete;
}

constexpr std::string_view mixed =
    "ASCII that is long enough to fill a vector or two, \xc3\xa1gua \xe6\xb0\xb4\xe8\xb7\xaf "
    "\xf0\x9f\x92\xa7\xf0\x9f\x8f\x94 and "
    "\xe6\xb0\xb4\xe8\xb7\xaf\xe6\xb0\xb4\xe8\xb7\xaf\xe6\xb0\xb4\xe8\xb7\xaf\xe6\xb0\xb4\xe8\xb7\xaf\xe6\xb0"
    "\xb4\xe8\xb7\xaf "
    "ASCII again so that a block of it may be skipped after something that was not, and then \xc2\xa9 "
    "\xef\xbf\xbd \xf4\x8f\xbf\xbf.";

}  // namespace

static_assert(sizeof(Utf8Validator) <= 8);
static_assert(std::is_trivially_copyable_v<Utf8Validator>);

TEST_CASE("each code point is UTF-8 but the surrogates") {
  for (std::uint32_t code = 0; code < 0x110000; ++code) {
    Text text;
    append_code_point(text, code);
    const bool surrogate = code >= 0xd800 && code < 0xe000;
    if (is_utf8(text) == surrogate) FAIL_CHECK(code);
  }
}

TEST_CASE("each kernel accepts all code points in one text and refuses it with any surrogate") {
  Text text;
  for (std::uint32_t code = 0; code < 0x110000; ++code) {
    if (code < 0xd800 || code >= 0xe000) append_code_point(text, code);
  }
  for (const Utf8Kernel& kernel : utf8_kernels()) {
    CHECK(kernel.run(utf8_boundary, text.data(), text.size()) == utf8_boundary);
    for (std::uint32_t code = 0xd800; code < 0xe000; ++code) {
      Text piece;
      append_code_point(piece, code);
      const Text bad = embedded(piece, code);
      REQUIRE(kernel.run(utf8_boundary, bad.data(), bad.size()) == utf8_error);
    }
  }
}

TEST_CASE("all sequences of two and three bytes fail where table 3-7 says, in each kernel") {
  for (std::uint32_t value = 0; value < (1u << 24); ++value) {
    const std::uint8_t bytes[] = {static_cast<std::uint8_t>(value >> 16),
                                  static_cast<std::uint8_t>(value >> 8), static_cast<std::uint8_t>(value)};
    const Bytes piece = value < 0x10000 ? Bytes(bytes).subspan(1) : Bytes(bytes);
    // After a first byte that is a code point, it is the two-byte case again; one ASCII byte in the third
    // place stands for all.
    if (piece.size() == 3 && (bytes[0] < 0x80 || bytes[2] < 0x7f)) continue;
    const Verdict expected = reference(piece);
    if (bytewise(piece) != expected) FAIL_CHECK("bytewise ", value);
    const Text text = embedded(piece, value * 7 + value / 256);
    const Utf8State state = expected.complete ? utf8_boundary : utf8_error;
    for (const Utf8Kernel& kernel : utf8_kernels()) {
      if (kernel.run(utf8_boundary, text.data(), text.size()) != state)
        FAIL_CHECK(to_string(kernel.tier), " ", value);
    }
  }
}

TEST_CASE("sequences of four bytes of boundary values fail where table 3-7 says, in each kernel") {
  static constexpr std::uint8_t values[] = {0x00, 0x7f, 0x80, 0x81, 0x8f, 0x90, 0x9f, 0xa0, 0xbf,
                                            0xc0, 0xc1, 0xc2, 0xdf, 0xe0, 0xe1, 0xec, 0xed, 0xee,
                                            0xef, 0xf0, 0xf1, 0xf3, 0xf4, 0xf5, 0xff};
  std::size_t salt = 0;
  for (const std::uint8_t a : values) {
    for (const std::uint8_t b : values) {
      for (const std::uint8_t c : values) {
        for (const std::uint8_t d : values) {
          const Text piece = {a, b, c, d};
          const Text text = embedded(piece, ++salt);
          const Verdict expected = reference(piece);
          if (bytewise(piece) != expected) FAIL_CHECK("bytewise ", salt);
          const Utf8State state = expected.complete ? utf8_boundary : utf8_error;
          for (const Utf8Kernel& kernel : utf8_kernels()) {
            if (kernel.run(utf8_boundary, text.data(), text.size()) != state)
              FAIL_CHECK(to_string(kernel.tier), " ", salt);
          }
        }
      }
    }
  }
}

TEST_CASE("feed fails at the first byte that cannot be right whatever follows") {
  const std::string_view bad[] = {"\xe0\x80", "\xe0\x9f", "\xed\xa0", "\xed\xbf", "\xf0\x80", "\xf0\x8f",
                                  "\xf4\x90", "\xf4\xbf", "\xf5",     "\xf8",     "\xff",     "\xc0",
                                  "\xc1",     "\x80",     "\xbf",     "\xc3("};
  for (const std::string_view piece : bad) {
    for (std::size_t before = 0; before < 140; ++before) {
      const std::string text = std::string(before, 'a') + std::string(piece);
      Utf8Validator whole;
      REQUIRE(!whole.feed(to_bytes(text)));
      Utf8Validator parts;  // the last byte is the culprit
      REQUIRE(parts.feed(to_bytes(text).first(text.size() - 1)));
      REQUIRE(!parts.feed(to_bytes(text).last(1)));
      REQUIRE(!parts.complete());
      REQUIRE(!parts.feed(to_bytes("a")));
      REQUIRE(!parts.feed({}));
      parts.reset();
      REQUIRE(parts.feed(to_bytes("a")));
      REQUIRE(parts.complete());
    }
  }
}

TEST_CASE("a text may be split at every byte and cut at every byte") {
  const Bytes text = to_bytes(mixed);
  CHECK(is_utf8(text));
  for (std::size_t size = 0; size <= text.size(); ++size) {
    const Bytes cut = text.first(size);
    const Verdict expected = reference(cut);
    // A cut code point is no error yet: the reference counts its bytes as good.
    REQUIRE(expected.good == size);
    for (std::size_t split = 0; split <= size; ++split) REQUIRE(fed_in_two(cut, split, expected));
  }
}

TEST_CASE("a wrong byte at any place is found there whatever the split") {
  const Bytes text = to_bytes(mixed);
  for (std::size_t at = 0; at < text.size(); ++at) {
    for (const int wrong : {0x41, 0x80, 0xa0, 0xc0, 0xe0, 0xf0, 0xf5}) {
      Text bad(text.begin(), text.end());
      bad[at] = static_cast<std::uint8_t>(wrong);
      const Verdict expected = reference(bad);
      REQUIRE(bytewise(bad) == expected);
      for (std::size_t split = at % 5; split <= bad.size(); split += 5)
        REQUIRE(fed_in_two(bad, split, expected));
    }
  }
}

TEST_CASE(
    "each kernel reaches the reference's state on random mixtures from every state at every alignment") {
  Random random(2);
  for (int round = 0; round < 20000; ++round) {
    Text memory = random_text(random, random.below(400));
    for (std::size_t errors = random.below(3); errors > 0 && !memory.empty(); --errors) {
      memory[random.below(memory.size())] = static_cast<std::uint8_t>(random.below(256));
    }
    // Begins and ends anywhere, with a prefix fed first so that the kernel starts in any state.
    const std::size_t prefix = std::min(random.below(5), memory.size());
    const std::size_t size = prefix + random.below(memory.size() - prefix + 1);
    const Bytes text = Bytes(memory).first(size);
    const Utf8State expected = expected_state(text);
    const Utf8State before = expected_state(text.first(prefix));
    for (const Utf8Kernel& kernel : utf8_kernels()) {
      REQUIRE(kernel.run(before, text.data() + prefix, size - prefix) == expected);
    }
  }
}

TEST_CASE("unmasking with validation equals unmasking, then validation") {
  Random random(3);
  const MaskKey key = 0x9b3dfa21;
  for (int round = 0; round < 20000; ++round) {
    const std::size_t size = round % 100 == 0 ? random.below(40000) : random.below(300);
    Text plain = random.below(2) == 0 ? Text(size, 'x') : random_text(random, size);
    if (random.below(3) == 0 && !plain.empty())
      plain[random.below(plain.size())] = static_cast<std::uint8_t>(random.below(256));
    const std::size_t offset = random.below(9);
    const std::size_t split = random.below(plain.size() + 1);
    Text data = plain;
    mask_in_place(data, key, offset);

    Utf8Validator expected, validator;
    const MutableBytes whole(data);
    const bool good = expected.feed(Bytes(plain).first(split));
    REQUIRE(unmask_utf8(whole.first(split), key, offset, validator) == good);
    const bool all_good = expected.feed(Bytes(plain).subspan(split));
    REQUIRE(unmask_utf8(whole.subspan(split), key, offset + split, validator) == all_good);
    REQUIRE(validator.complete() == expected.complete());
    if (all_good) REQUIRE(data == plain);
  }
}
