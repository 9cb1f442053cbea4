#include <levada/ws/inflate.h>

#include <doctest/doctest.h>

#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

#include <levada/tests/support/deflating.h>
#include <levada/tests/support/frames.h>
#include <levada/tests/support/resident.h>
#include <levada/ws/utf8.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

std::string bytes(std::initializer_list<int> values) {
  std::string text;
  for (const int value : values) text += static_cast<char>(value);
  return text;
}

struct Example {
  std::string wire, text;
};

// RFC 7692 section 7.2.3.
const Example hello = {bytes({0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00}), "Hello"};
const Example again = {bytes({0xf2, 0x00, 0x11, 0x00, 0x00}), "Hello"};  // behind `hello`
const Example stored = {bytes({0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00}), "Hello"};
const Example final_block = {bytes({0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00}), "Hello"};
const Example two_blocks = {
    bytes({0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00}), "Hello"};
const Example empty = {bytes({0x00}), ""};

// Messages that one after another refer to those before.
std::vector<Example> conversation() {
  std::vector<Example> all = {hello, again, stored, final_block, two_blocks, empty, again};
  RawDeflater peer(15);
  for (const std::string& text :
       {json_text(300), json_text(310), random_bytes(200), std::string(5000, 'x')}) {
    all.push_back({peer.message(text), text});
  }
  return all;
}

// `size` bytes of nothing, as a message: about a thousandth of it.
std::string bomb(std::size_t size) {
  RawDeflater peer(15, 9);
  const std::string zeros(1 << 20, '\0');
  std::string wire;
  for (std::size_t at = 0; at < size; at += zeros.size()) wire += peer.run(zeros, Z_BLOCK);
  wire += peer.run("", Z_SYNC_FLUSH);
  return wire.substr(0, wire.size() - 4);
}

}  // namespace

TEST_CASE("the examples of RFC 7692 section 7.2.3 are inflated, however they are cut") {
  BlockPool blocks(1 << 20);
  for (const bool streaming : {false, true}) {
    for (std::size_t piece = 1; piece < 20; piece++) {
      Inflater inflater({.takeover = true, .streaming = streaming}, blocks);
      for (const Example& example : {hello, again, stored, final_block, two_blocks, empty}) {
        CHECK(inflate_pieces(inflater, example.wire, piece).is(example.text));
      }
    }
  }
}

TEST_CASE("every cut of a message in two, in the midst of others, gives the same") {
  BlockPool blocks(1 << 20);
  const std::vector<Example> all = conversation();
  for (const bool streaming : {false, true}) {
    for (std::size_t which = 0; which < all.size(); which++) {
      const std::string& wire = all[which].wire;
      for (std::size_t cut = 0; cut <= wire.size(); cut++) {
        Inflater inflater({.takeover = true, .streaming = streaming}, blocks);
        for (std::size_t i = 0; i < which; i++) REQUIRE(inflate(inflater, all[i].wire).is(all[i].text));
        std::string text;
        for (const bool last : {false, true}) {
          const std::string part = last ? wire.substr(cut) : wire.substr(0, cut);
          Bytes in = to_bytes(part);
          Inflated out;
          do {
            out = inflater.next(in, last);
            text += to_text(out.payload);
          } while (out.event == InflateEvent::fragment && !out.fin);
          CHECK(in.empty());
          CHECK((out.event != InflateEvent::none) == last);
        }
        CHECK(text == all[which].text);
      }
    }
  }
}

TEST_CASE("what raw zlib makes with every window is inflated with that window, with and without takeover") {
  BlockPool blocks(1 << 20);
  for (std::uint8_t bits = 9; bits <= max_window_bits; bits++) {
    for (const bool takeover : {false, true}) {
      for (const bool streaming : {false, true}) {
        for (const std::size_t piece : std::initializer_list<std::size_t>{1000000, 700}) {
          CAPTURE(int{bits});
          CAPTURE(takeover);
          CAPTURE(streaming);
          CAPTURE(piece);
          RawDeflater peer(bits, bits % 9 + 1);
          Inflater inflater({.window_bits = takeover ? bits : max_window_bits,
                             .takeover = takeover,
                             .streaming = streaming,
                             .slice_bytes = 1 << 20},
                            blocks);
          for (const std::size_t size :
               std::initializer_list<std::size_t>{16, 125, 126, 1000, 4096, 16384, 65536, 131072}) {
            for (const std::string& text : {json_text(size, size), random_bytes(size, size)}) {
              if (!takeover) peer.reset();
              CHECK(inflate_pieces(inflater, peer.message(text), piece).is(text));
            }
          }
        }
      }
    }
  }
}

TEST_CASE("deflater and inflater understand each other with every window, takeover and cut") {
  BlockPool blocks(1 << 20);
  for (std::uint8_t bits = min_window_bits; bits <= max_window_bits; bits++) {
    for (const bool takeover : {false, true}) {
      for (const bool final_blocks : {false, true}) {
        Deflater deflater({.window_bits = bits, .takeover = takeover, .final_blocks = final_blocks}, blocks);
        Inflater inflater({.window_bits = bits, .takeover = takeover}, blocks);
        for (std::size_t size = 16; size <= 131072; size *= 2) {
          const std::string text = json_text(size, size);
          CHECK(inflate(inflater, compress(deflater, text)).is(text));
          CHECK(inflate_pieces(inflater, compress(deflater, text, {size / 2}), 1000).is(text));
        }
      }
    }
  }
}

TEST_CASE("final blocks may stand anywhere, and what follows may refer to what was before") {
  BlockPool blocks(1 << 20);
  RawDeflater peer(15);
  const std::string text = json_text(5000);
  for (const bool takeover : {false, true}) {
    Inflater inflater({.takeover = takeover}, blocks);
    const std::string final_first = peer.run(text, Z_FINISH);
    CHECK(inflate(inflater, final_first + hello.wire).is(text + "Hello"));
    CHECK(inflate(inflater, final_first + final_first + empty.wire).is(text + text));
    CHECK(inflate(inflater, final_first.substr(0) + bytes({0x00})).is(text));
    CHECK(inflate(inflater, bytes({0x01})).is(""));  // the 4 bytes themselves make it a whole block
    CHECK(inflate(inflater, final_block.wire).is("Hello"));
    CHECK(inflate(inflater, final_block.wire.substr(0, 7) + again.wire).is("HelloHello"));
    if (takeover) CHECK(inflate(inflater, again.wire).is("Hello"));
  }
}

TEST_CASE("without takeover no message may refer to an earlier one") {
  BlockPool blocks(1 << 20);
  Inflater inflater({}, blocks);
  CHECK(inflate(inflater, hello.wire).is("Hello"));
  CHECK(inflate(inflater, again.wire).error == FrameError::bad_deflate);
}

TEST_CASE("a message of no bytes is empty, and changes nothing") {
  BlockPool blocks(1 << 20);
  for (const bool streaming : {false, true}) {
    Inflater inflater({.takeover = true, .streaming = streaming}, blocks);
    CHECK(inflate(inflater, "").is(""));
    CHECK(inflate(inflater, hello.wire).is("Hello"));
    CHECK(inflate(inflater, "").is(""));
    CHECK(inflate(inflater, again.wire).is("Hello"));
    Bytes none;
    CHECK(inflater.next(none, false).event == InflateEvent::none);
    CHECK(inflater.next(none, false).event == InflateEvent::none);
    CHECK(!inflater.idle());
    CHECK(inflater.next(none, true).event == (streaming ? InflateEvent::fragment : InflateEvent::message));
  }
}

TEST_CASE("a message that does not end where a block ends is bad") {
  BlockPool blocks(1 << 20);
  RawDeflater peer(15);
  const std::string text = json_text(600), wire = peer.message(text);
  for (const bool streaming : {false, true}) {
    Inflater inflater({.streaming = streaming}, blocks);
    const auto is_bad = [&](const std::string& message) {
      const Outcome outcome = inflate(inflater, message);
      inflater.reset();
      return outcome.error == FrameError::bad_deflate;
    };
    for (std::size_t size = 1; size < wire.size(); size++) CHECK(is_bad(wire.substr(0, size)));
    for (std::size_t size = 1; size < hello.wire.size(); size++) CHECK(is_bad(hello.wire.substr(0, size)));
    CHECK(is_bad(wire + deflate_ending));          // the 4 bytes were not removed
    CHECK(is_bad(final_block.wire.substr(0, 7)));  // a final block, and no byte behind it
    CHECK(is_bad(stored.wire.substr(0, 9)));       // stored bytes are missing
    CHECK(inflate(inflater, wire).is(text));
  }
  CHECK(close_code(FrameError::bad_deflate) == CloseCode::invalid_payload);
}

TEST_CASE("data that is no DEFLATE is bad, and the inflater is as new after reset()") {
  BlockPool blocks(1 << 20);
  Inflater inflater({.takeover = true}, blocks);
  for (const std::string& wire :
       {bytes({0x06, 0x00}),                          // block type 3
        bytes({0x00, 0x05, 0x00, 0xfa, 0xfe, 0x48}),  // a length and its complement differ
        bytes({0xfc, 0xff, 0xff, 0xff, 0xff, 0xff}),  // too many codes
        again.wire,                                   // refers to what never was
        random_bytes(500, 3), random_bytes(3000, 4)}) {
    CHECK(inflate(inflater, wire).error == FrameError::bad_deflate);
    inflater.reset();
    CHECK(inflater.idle());
    CHECK(inflate(inflater, hello.wire).is("Hello"));
    inflater.reset();
  }
}

TEST_CASE("a message with a wrong bit is judged as zlib judges it") {
  BlockPool blocks(1 << 20);
  RawDeflater peer(15);
  SeededRandom random(5);
  Inflater inflater({}, blocks);
  int bad = 0;
  for (int round = 0; round < 3000; round++) {
    peer.reset();
    std::string wire = peer.message(json_text(100 + random.below(600), random.next()));
    char& byte = wire[random.below(wire.size())];
    byte = static_cast<char>(byte ^ 1 << random.below(8));
    RawInflater raw(15);
    const std::string wanted = raw.message(wire);
    const Outcome outcome = inflate(inflater, wire);
    bad += outcome.error != FrameError::none ? 1 : 0;
    if (wanted == "error") CHECK(outcome.error == FrameError::bad_deflate);
    if (outcome.error == FrameError::none) CHECK(outcome.text == wanted);
    inflater.reset();
  }
  CHECK(bad > 1000);
}

TEST_CASE("a message may have the limit's bytes and not one more, in whatever pieces it comes") {
  BlockPool blocks(1 << 20);
  for (const bool streaming : {false, true}) {
    for (const std::size_t limit :
         std::initializer_list<std::size_t>{0, 1, 100, 16384, 20'000, 65536, 100'000}) {
      for (const std::size_t piece : std::initializer_list<std::size_t>{1'000'000, 100}) {
        CAPTURE(limit);
        Inflater inflater({.streaming = streaming, .max_message_bytes = limit, .slice_bytes = 7000}, blocks);
        const auto run = [&](const std::string& text) {
          RawDeflater peer(15, 1);
          const Outcome outcome = inflate_pieces(inflater, peer.message(text), piece);
          inflater.reset();
          return outcome;
        };
        CHECK(run(json_text(limit)).is(json_text(limit)));
        CHECK(run(random_bytes(limit)).is(random_bytes(limit)));
        CHECK(run(json_text(limit + 1)).error == FrameError::message_too_big);
        CHECK(run(random_bytes(limit + 100)).error == FrameError::message_too_big);
      }
    }
  }
  CHECK(close_code(FrameError::message_too_big) == CloseCode::message_too_big);
}

TEST_CASE("a call inflates no more than a slice, whatever is in the input") {
  BlockPool blocks(1 << 20);
  const std::string text = json_text(300'000);
  RawDeflater peer(15);
  const std::string wire = peer.message(text);
  for (const std::size_t slice : std::initializer_list<std::size_t>{1, 1000, 65536}) {
    const std::size_t size = slice == 1 ? 2000 : text.size();
    RawDeflater own(15);
    const std::string message = own.message(text.substr(0, size));
    Inflater inflater({.slice_bytes = slice}, blocks);
    Bytes in = to_bytes(message);
    std::size_t calls = 0, inflated = 0;
    for (;;) {
      const Inflated out = inflater.next(in, true);
      CHECK(out.fresh.size() <= slice);
      inflated += out.fresh.size();
      calls++;
      if (out.event == InflateEvent::message) {
        CHECK(to_text(out.payload) == text.substr(0, size));
        break;
      }
      REQUIRE(out.event == InflateEvent::more);
    }
    CHECK(inflated == size);
    CHECK(calls >= size / slice);
    CHECK(calls <= size / slice + Inflater::input_weight * message.size() / slice + 2);
  }
}

TEST_CASE("a call takes no more of the input than an eighth of its slice, and says what it cost") {
  BlockPool blocks(1 << 20);
  constexpr std::size_t slice = 65536, weight = Inflater::input_weight;
  struct Row {
    std::string wire, text;
    std::size_t calls;
  };
  const std::string noise = random_bytes(100'000);
  for (const Row& row : {Row{empty_blocks(80'000), "", 80'000 / (slice / weight) + 1},
                         Row{RawDeflater(15).message(noise), noise, 100'000 / (slice / weight) + 1},
                         Row{RawDeflater(15).message(std::string(100, 'x')), std::string(100, 'x'), 1}}) {
    Inflater inflater({}, blocks);
    Bytes in = to_bytes(row.wire);
    for (std::size_t calls = 1;; calls++) {
      const std::size_t before = in.size();
      const Inflated out = inflater.next(in, true);
      CHECK(before - in.size() <= slice / weight);
      CHECK(out.cost == std::max(out.fresh.size(), weight * (before - in.size())));
      if (out.event == InflateEvent::message) {
        CHECK(to_text(out.payload) == row.text);
        CHECK(calls == row.calls);
        break;
      }
      REQUIRE(out.event == InflateEvent::more);
    }
    Bytes none = to_bytes(row.wire);
    CHECK(inflater.next(none, true, 0).event == InflateEvent::more);
    CHECK(none.size() == row.wire.size());
  }
}

TEST_CASE("messages that inflate to much more than they are come whole, one after another") {
  BlockPool blocks(1 << 20);
  Inflater inflater({}, blocks);
  RawDeflater peer(15);
  for (int i = 0; i < 100; i++) {
    const auto size = static_cast<std::size_t>(i % 7 == 6 ? 400'000 : i % 3 == 0 ? 6'000 : 60'000);
    std::string text = json_text(2000, static_cast<std::uint64_t>(i));
    while (text.size() < size) text += text.substr(0, size - text.size());
    peer.reset();
    const std::string wire = peer.message(text);
    if (size > 6'000) CHECK(8 * wire.size() < text.size());
    CHECK(inflate(inflater, wire).is(text));
  }
}

TEST_CASE("a bomb of 1 GiB is refused at the limit, with the limit's memory and no more than 64 KiB beside") {
  const std::string wire = bomb(std::size_t{1} << 30);
  (void)levada::test::resident_bytes();  // what reading it takes is not counted
  CHECK(wire.size() < 1'100'000);
  for (const std::size_t limit : {std::size_t{16} << 20, std::size_t{5'000'000}, std::size_t{100'000}}) {
    for (const std::size_t piece : {wire.size(), std::size_t{1400}}) {
      CAPTURE(limit);
      CAPTURE(piece);
      BlockPool blocks(0);
      Inflater inflater({.max_message_bytes = limit}, blocks);
      const std::size_t before = levada::test::resident_bytes();
      std::size_t most = 0, calls = 0;
      FrameError error = FrameError::none;
      for (std::size_t at = 0; at < wire.size() && error == FrameError::none; at += piece) {
        Bytes in = to_bytes(wire).subspan(at, std::min(piece, wire.size() - at));
        Inflated out;
        do {
          out = inflater.next(in, at + piece >= wire.size());
          most = std::max(most, levada::test::resident_bytes() - before);
          calls++;
          CHECK(out.fresh.size() <= 64 * 1024);
        } while (out.event == InflateEvent::more);
        error = out.error;
      }
      CHECK(error == FrameError::message_too_big);
      if (levada::test::resident_is_exact) {
        CHECK(most <= limit + 64 * 1024);
        CHECK(most >= limit);  // it was counted
      }
      CHECK(calls >= limit / 65536);
    }
  }
}

TEST_CASE("a bomb that is streamed is refused at the limit, too, and never held") {
  const std::string wire = bomb(std::size_t{64} << 20);
  BlockPool blocks(1 << 20);
  Inflater inflater({.streaming = true, .max_message_bytes = 1 << 20}, blocks);
  const Outcome outcome = inflate(inflater, wire);
  CHECK(outcome.error == FrameError::message_too_big);
  CHECK(outcome.text.size() + Inflater::fragment_bytes >= std::size_t{1} << 20);
  CHECK(outcome.peak <= 64 * 1024);
}

TEST_CASE("the ratio is bounded beyond the first 64 KiB") {
  BlockPool blocks(1 << 20);
  Inflater inflater({.max_ratio = 100}, blocks);
  const Outcome outcome = inflate(inflater, bomb(1 << 20));
  CHECK(outcome.error == FrameError::inflates_too_much);
  CHECK(close_code(outcome.error) == CloseCode::message_too_big);
  inflater.reset();
  RawDeflater peer(15);
  const std::string small(60'000, 'x'), normal = json_text(1 << 20);
  CHECK(inflate(inflater, peer.message(small)).is(small));
  peer.reset();
  CHECK(inflate(inflater, peer.message(normal)).is(normal));
}

TEST_CASE("a message that inflates to just the ratio's bytes is taken") {
  BlockPool blocks(1 << 20);
  RawDeflater peer(15);
  const std::string text(200'000, 'x'), wire = peer.message(text);
  // The bytes that it ends with stand for nothing, and may come behind the last that is inflated.
  constexpr std::size_t ending = 8;
  const auto fails = [&](std::size_t ratio) {
    Inflater inflater({.max_ratio = static_cast<std::uint32_t>(ratio)}, blocks);
    return inflate(inflater, wire).error == FrameError::inflates_too_much;
  };
  CHECK(fails(text.size() / (wire.size() + 1)));
  CHECK_FALSE(fails(text.size() / (wire.size() - ending) + 1));
}

TEST_CASE("a payload lives as long as a reference on its owner") {
  BlockPool blocks(1 << 20);
  for (const bool streaming : {false, true}) {
    Inflater inflater({.takeover = true, .streaming = streaming}, blocks);
    Bytes in = to_bytes(hello.wire);
    const Inflated first = inflater.next(in, true);
    const OwnerRef kept = OwnerRef::share(first.owner);
    const Bytes payload = first.payload;
    CHECK(inflate(inflater, again.wire).is("Hello"));
    inflater.release();
    CHECK(to_text(payload) == "Hello");
  }
  CHECK(blocks.blocks_in_use() == 0);
}

TEST_CASE("between messages an inflater holds its window and no more") {
  BlockPool blocks(1 << 20);
  for (const auto& [bits, most] : {std::pair{15, 41'216}, {12, 12'544}, {9, 8'960}, {8, 8'960}}) {
    Inflater inflater({.window_bits = static_cast<std::uint8_t>(bits), .takeover = true}, blocks);
    CHECK(inflater.memory_bytes() == 0);
    RawDeflater peer(std::max(bits, 9));
    for (int i = 0; i < 3; i++) {
      CHECK(inflate_pieces(inflater, peer.message(json_text(40'000)), 999).text.size() == 40'000);
    }
    CHECK(inflater.memory_bytes() == blocks.bytes_in_use());
    CHECK(inflater.memory_bytes() <= static_cast<std::size_t>(most));
  }
  CHECK(blocks.bytes_in_use() == 0);
}

TEST_CASE("text is validated on what each call inflates, and fails at the first slice that is no UTF-8") {
  BlockPool blocks(1 << 20);
  std::string text;
  while (text.size() < 300'000) text += "\xc3\xa1gua \xf0\x9f\x92\xa7 ";
  for (const bool good : {true, false}) {
    if (!good) text[100'000] = '\xff';
    RawDeflater peer(15);
    const std::string wire = peer.message(text);
    Inflater inflater({}, blocks);
    Utf8Validator utf8;
    Bytes in = to_bytes(wire);
    std::size_t seen = 0;
    for (;;) {
      const Inflated out = inflater.next(in, true);
      seen += out.fresh.size();
      const bool valid = utf8.feed(out.fresh);
      if (!valid) break;
      if (out.event == InflateEvent::message) break;
    }
    CHECK(utf8.complete() == good);
    CHECK((seen == text.size()) == good);
    CHECK(seen <= (good ? text.size() : 100'000 + 65536));
  }
}
