#include <levada/tools/load/shaper.h>

#include <algorithm>
#include <set>
#include <string>

#include <doctest/doctest.h>

#include <levada/tests/support/reference_decoder.h>

namespace levada::load {
namespace {

using ws::DecoderEvent;
using ws::test::ReferenceDecoder;

// What a server gets of `count` messages of `size` bytes.
struct Wire {
  Wire(Shape shape, std::size_t size, std::uint64_t count, std::uint64_t seed = 1) {
    SecureRandom keys;
    Shaper shaper(shape, 3, seed, keys);
    Pings pings;
    Trickle trickle;
    for (std::uint64_t i = 0; i < count; i++) {
      sent.emplace_back(size, static_cast<char>('a' + i % 26));
      shaper.add_message(trickle, pings, ws::Opcode::text, to_bytes(sent.back()), i);
      std::vector<std::size_t> sizes;
      while (!trickle.empty()) {
        const Piece piece = trickle.take();
        sizes.push_back(piece.size());
        for (const std::uint8_t byte : piece) decoder.feed(byte);
      }
      pieces.push_back(sizes);
    }
  }
  std::size_t count(DecoderEvent wanted) const {
    std::size_t found = 0;
    for (const auto& event : decoder.events()) found += event.event == wanted;
    return found;
  }
  std::vector<std::string> messages() const {
    std::vector<std::string> found;
    for (const auto& event : decoder.events()) {
      if (event.event == DecoderEvent::message) found.push_back(event.payload);
    }
    return found;
  }

  std::vector<std::string> sent;
  std::vector<std::vector<std::size_t>> pieces;  // of each message
  ws::DecoderOptions options{.role = ws::Role::server, .max_message_bytes = 1 << 20};
  ReferenceDecoder decoder{options};
};

TEST_CASE("every shape is legal, and the server gets the messages") {
  for (const Shape shape : {Shape::whole, Shape::fragments, Shape::control, Shape::bytes, Shape::cuts,
                            Shape::batch, Shape::mix}) {
    for (const std::size_t size : {0u, 1u, 16u, 125u, 126u, 3000u}) {
      CAPTURE(to_string(shape));
      CAPTURE(size);
      const Wire wire(shape, size, 50);
      CHECK_FALSE(wire.decoder.failed());
      CHECK(wire.decoder.idle());
      CHECK(wire.messages() == wire.sent);
    }
  }
}

TEST_CASE("shapes are what they are called") {
  const Wire bytes(Shape::bytes, 10, 1);
  CHECK(bytes.pieces[0] == std::vector<std::size_t>(16, 1));
  const Wire cuts(Shape::cuts, 10, 16);
  for (std::size_t i = 0; i < 16; i++) {
    REQUIRE(cuts.pieces[i].size() == 2);
    CHECK(cuts.pieces[i][0] == 1 + i % 15);  // behind each byte in turn
  }
  const Wire whole(Shape::whole, 10, 3);
  CHECK(whole.pieces[2] == std::vector<std::size_t>{16});
  const Wire fragments(Shape::fragments, 1000, 20);
  for (const auto& pieces : fragments.pieces) {
    REQUIRE(pieces.size() == 1);
    CHECK(pieces[0] > 1008);  // more than one header
  }
  const Wire control(Shape::control, 100, 20);
  CHECK(control.count(DecoderEvent::ping) >= 20);
  CHECK(fragments.count(DecoderEvent::ping) == 0);
}

TEST_CASE("a mix has every shape in turn") {
  const Wire mix(Shape::mix, 100, 10);
  CHECK(mix.pieces[0].size() == 1);
  CHECK(mix.pieces[3].size() == 106);
  CHECK(mix.pieces[4].size() == 2);
  CHECK(mix.pieces[8].size() == 106);
  CHECK(mix.count(DecoderEvent::ping) >= 2);
}

TEST_CASE("a mix cuts behind every byte, whatever the size of the frame") {
  const Wire mix(Shape::mix, 10,
                 5 * 15);  // a frame of 16 bytes has 15 places, which 5 divides
  std::set<std::size_t> cuts;
  for (std::size_t i = 4; i < mix.pieces.size(); i += 5) cuts.insert(mix.pieces[i].front());
  CHECK(cuts.size() == 15);
}

TEST_CASE("a batch has up to so many frames in a write") {
  SecureRandom keys;
  Shaper shaper(Shape::batch, 3, 1, keys);
  Trickle trickle;
  Pings pings;
  for (std::uint64_t i = 0; i < 8; i++)
    shaper.add_message(trickle, pings, ws::Opcode::binary, to_bytes("0123456789"), i);
  CHECK(trickle.take().size() == 3 * 16);
  CHECK(trickle.take().size() == 3 * 16);
  CHECK(trickle.take().size() == 2 * 16);
  CHECK(trickle.empty());
}

TEST_CASE("a pong answers the pings up to its own") {
  Pings pings;
  CHECK(pings.unanswered() == 0);
  const auto first = pings.next(), second = pings.next(), third = pings.next();
  pings.answer(second);  // and with it the first
  CHECK(pings.unanswered() == 1);
  pings.answer(first);
  pings.answer(to_bytes("between"));
  pings.answer(to_bytes("12345678"));
  CHECK(pings.unanswered() == 1);
  pings.answer(third);
  CHECK(pings.unanswered() == 0);
  static_cast<void>(pings.next());
  pings.forget();
  CHECK(pings.unanswered() == 0);
}

TEST_CASE("a control frame is one piece") {
  SecureRandom keys;
  Shaper shaper(Shape::bytes, 3, 1, keys);
  Trickle trickle;
  CHECK(trickle.empty());
  shaper.add_control(trickle, ws::Opcode::pong, to_bytes("hello"));
  CHECK(trickle.take().size() == 11);
  CHECK(trickle.empty());
}

}  // namespace
}  // namespace levada::load
