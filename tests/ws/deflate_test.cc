#include <levada/ws/deflate.h>

#include <doctest/doctest.h>

#include <string>
#include <string_view>
#include <vector>

#include <levada/tests/support/deflating.h>
#include <levada/tests/support/frames.h>
#include <levada/ws/whole_deflate.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

constexpr std::size_t sizes[] = {16, 125, 126, 1000, 1024, 4096, 16384, 65536, 131072};

std::string hex(std::string_view bytes) {
  constexpr char digits[] = "0123456789abcdef";
  std::string text;
  for (const char character : bytes) {
    const auto byte = static_cast<unsigned char>(character);
    if (!text.empty()) text += ' ';
    text += digits[byte >> 4];
    text += digits[byte & 15];
  }
  return text;
}

}  // namespace

TEST_CASE("messages are compressed as in the examples of RFC 7692 sections 7.2.3.1, 7.2.3.2 and 7.2.3.6") {
  BlockPool blocks(1 << 20);
  Deflater deflater({.takeover = true, .level = 6}, blocks);
  CHECK(hex(compress(deflater, "Hello")) == "f2 48 cd c9 c9 07 00");
  CHECK(hex(compress(deflater, "Hello")) == "f2 00 11 00 00");
  CHECK(hex(compress(deflater, "")) == "00");
  Deflater alone({.level = 6}, blocks);
  CHECK(hex(compress(alone, "Hello")) == "f2 48 cd c9 c9 07 00");
  CHECK(hex(compress(alone, "Hello")) == "f2 48 cd c9 c9 07 00");
}

TEST_CASE("zlib inflates what every window, takeover and level makes of every size, within that window") {
  BlockPool blocks(1 << 20);
  std::vector<std::string> texts;
  for (const std::size_t size : sizes) {
    texts.push_back(json_text(size, size));
    texts.push_back(random_bytes(size, size));
  }
  for (std::uint8_t bits = min_window_bits; bits <= max_window_bits; bits++) {
    for (const bool takeover : {false, true}) {
      for (const auto& levels : {std::pair{1, 8}, {6, 8}, {9, 1}, {3, 9}}) {
        const auto level = static_cast<std::uint8_t>(levels.first);
        const auto memory_level = static_cast<std::uint8_t>(levels.second);
        CAPTURE(int{bits});
        CAPTURE(takeover);
        CAPTURE(int{level});
        Deflater deflater({.window_bits = bits,
                           .takeover = takeover,
                           .level = level,
                           .memory_level = memory_level,
                           .final_blocks = level == 3},
                          blocks);
        RawInflater peer(bits);
        for (const std::string& text : texts) {
          const std::size_t size = text.size();
          if (!takeover) peer.reset();
          const std::string wire = compress(deflater, text);
          CHECK(peer.message(wire) == text);
          if (!takeover) peer.reset();
          CHECK(peer.message(compress(deflater, text, {size / 3, size / 3, size / 2})) == text);
        }
      }
    }
  }
}

TEST_CASE(
    "zlib itself makes no raw stream with a window of 256 bytes, but its next larger one is small enough") {
  z_stream stream{};
  CHECK(deflateInit2(&stream, 6, Z_DEFLATED, -8, 8, Z_DEFAULT_STRATEGY) == Z_STREAM_ERROR);
  // The same words again and again at distances around 256: whoever would refer further back is found out.
  std::string text;
  for (std::size_t distance = 230; distance < 300; distance++) {
    const std::string words = random_letters(distance, distance);
    text += words + words + words.substr(0, 60);
  }
  BlockPool blocks(1 << 20);
  for (std::uint8_t level = 1; level <= 9; level++) {
    Deflater eight({.window_bits = 8, .level = level}, blocks);
    const std::string wire = compress(eight, text);
    CHECK(wire.size() < text.size() * 9 / 10);
    RawInflater peer(8);
    CHECK(peer.message(wire) == text);
    // The check can fail: the same with a larger window.
    RawDeflater nine(10, level);
    RawInflater strict(8);
    CHECK(strict.message(nine.message(text)) == "error");
  }
}

TEST_CASE("takeover refers to earlier messages, and without it nothing does") {
  BlockPool blocks(1 << 20);
  const std::string text = json_text(1000);
  Deflater dedicated({.takeover = true}, blocks), shared({}, blocks);
  const std::string first = compress(dedicated, text);
  CHECK(compress(shared, text) == first);
  CHECK(compress(dedicated, text).size() < 40);
  CHECK(compress(shared, text) == first);
  dedicated.reset();
  CHECK(compress(dedicated, text) == first);
}

TEST_CASE("a peer can inflate each piece of a message when it arrives") {
  BlockPool blocks(1 << 20);
  for (const bool takeover : {false, true}) {
    Deflater deflater({.takeover = takeover}, blocks);
    RawInflater peer(15);
    for (int round = 0; round < 3; round++) {
      if (!takeover) peer.reset();
      const std::string text = json_text(5000, static_cast<std::uint64_t>(round));
      for (std::size_t at = 0; at < text.size(); at += 1000) {
        std::string out(Deflater::bound(1000), '\0');
        const MutableBytes memory(reinterpret_cast<std::uint8_t*>(out.data()), out.size());
        out.resize(deflater.compress(to_bytes(text).subspan(at, 1000), false, memory));
        CHECK(peer.run(out) == text.substr(at, 1000));
        CHECK(!deflater.idle());
      }
      std::uint8_t end[Deflater::bound(0)];
      REQUIRE(deflater.compress({}, true, end) == 1);
      CHECK(peer.message({reinterpret_cast<char*>(end), 1}).empty());
      CHECK(deflater.idle());
    }
  }
}

TEST_CASE("an empty piece in the middle adds nothing, and a message of empty pieces is empty") {
  BlockPool blocks(1 << 20);
  Deflater deflater({.takeover = true}, blocks);
  CHECK(hex(compress(deflater, "", {0, 0})) == "00");
  const std::string text = json_text(100);
  RawInflater peer(15);
  CHECK(peer.message(compress(deflater, text, {0, 50, 50, 100})) == text);
}

TEST_CASE("no message grows beyond the bound") {
  BlockPool blocks(1 << 20);
  std::vector<std::string> texts;
  for (const std::size_t size : std::initializer_list<std::size_t>{1, 7, 64, 1000, 1024, 70'000, 300'000}) {
    texts.push_back(random_bytes(size, size));
    for (char& byte : texts.back())
      byte = static_cast<char>(byte | 0x90);  // literals of 9 bits in fixed codes
  }
  for (std::uint8_t bits = min_window_bits; bits <= max_window_bits; bits++) {
    for (const std::uint8_t memory_level : std::initializer_list<std::uint8_t>{1, 2, 8, 9}) {
      for (const std::uint8_t level : std::initializer_list<std::uint8_t>{1, 6}) {
        Deflater deflater(
            {.window_bits = bits, .takeover = true, .level = level, .memory_level = memory_level}, blocks);
        for (const std::string& text : texts) {
          CHECK(compress(deflater, text).size() <= Deflater::bound(text.size()));
        }
      }
    }
  }
}

TEST_CASE("whole messages that end with a final block end with the byte that has to follow it") {
  BlockPool blocks(1 << 20);
  int finals = 0;
  for (std::uint8_t bits = min_window_bits; bits <= max_window_bits; bits++) {
    Deflater deflater({.window_bits = bits, .final_blocks = true}, blocks);
    for (const std::size_t size :
         std::initializer_list<std::size_t>{1, 1023, 1024, 1025, 4096, 40'000, 200'000}) {
      const std::string text = json_text(size, size);
      const std::string wire = compress(deflater, text);
      if ((wire[0] & 1) != 0) {  // libdeflate's, in one block
        finals++;
        CHECK(wire.back() == 0);
      }
      RawInflater peer(bits);
      CHECK(peer.message(wire) == text);
    }
  }
  std::uint8_t out[4096];
  const bool built_in = detail::WholeDeflater(1).compress(to_bytes(json_text(2000)), 15, out) != 0;
  CHECK((finals > 0) == built_in);
}

TEST_CASE("memory is taken with the first message, as documented, and given back") {
  BlockPool blocks(0);
  for (const auto& [bits, memory_level] : {std::pair{15, 8}, {15, 9}, {12, 5}, {9, 1}}) {
    const DeflaterOptions options{.window_bits = static_cast<std::uint8_t>(bits),
                                  .takeover = true,
                                  .memory_level = static_cast<std::uint8_t>(memory_level)};
    Deflater deflater(options, blocks);
    CHECK(deflater.memory_bytes() == 0);
    CHECK(blocks.bytes_in_use() == 0);
    compress(deflater, "x");
    const std::size_t documented =
        (std::size_t{1} << (bits + 2)) + (std::size_t{1} << (memory_level + 9)) + 8192;
    CHECK(deflater.memory_bytes() == blocks.bytes_in_use());
    CHECK(deflater.memory_bytes() <= documented + 5 * BlockPool::slack_bytes);
    CHECK(deflater.memory_bytes() >= documented);
    const std::size_t before = deflater.memory_bytes();
    for (int i = 0; i < 10; i++) compress(deflater, json_text(5000));
    CHECK(deflater.memory_bytes() == before);
  }
  CHECK(blocks.bytes_in_use() == 0);
}
