#include <levada/ws/compression.h>

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include <levada/tests/support/deflating.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

constexpr DeflateOptions options{.enabled = true};
const CompressionOptions of_service{.deflate = options, .max_message_bytes = 1 << 20};

SlotId slot(std::uint32_t index) {
  SlotId id;
  id.index = index;
  return id;
}

}  // namespace

TEST_CASE("of the inflaters of a burst of messages some are kept, and serve the next ones") {
  BlockPool blocks(0);
  Compression compression(blocks);
  compression.add();
  const DeflateState state{DeflateAgreement{}};
  const std::string wire = RawDeflater(15).message(json_text(600));
  std::vector<Inflater*> taken;
  for (int round = 0; round < 2; round++) {
    for (std::uint32_t i = 0; i < 1000; i++) {
      taken.push_back(&compression.take_inflater(of_service, slot(i), state));
      Bytes in = to_bytes(wire).first(100);
      REQUIRE(taken.back()->next(in, false).event == InflateEvent::none);
    }
    const std::size_t each = taken.back()->memory_bytes();
    CHECK(blocks.bytes_in_use() == 1000 * each);
    for (Inflater* inflater : taken) compression.give_inflater(*inflater);
    taken.clear();
    CHECK(blocks.bytes_in_use() <= Compression::max_free_bytes);
    CHECK(blocks.bytes_in_use() >= Compression::max_free_bytes / 2);
  }
  Inflater& again = compression.take_inflater(of_service, slot(1), state);
  CHECK(inflate(again, wire).is(json_text(600)));
  compression.give_inflater(again);
  compression.remove(slot(1));
  CHECK(blocks.bytes_in_use() == 0);
}

TEST_CASE("of the deflaters of a burst of messages in fragments some are kept") {
  BlockPool blocks(0);
  Compression compression(blocks);
  compression.add();
  const DeflateState state{DeflateAgreement{}};
  const std::string text = json_text(600);
  std::string out(Deflater::bound(text.size()), '\0');
  const MutableBytes room(reinterpret_cast<std::uint8_t*>(out.data()), out.size());
  for (std::uint32_t i = 0; i < 100; i++)
    compression.deflater(options, slot(i), state, true).compress(to_bytes(text), false, room);
  CHECK(blocks.bytes_in_use() > 4 * Compression::max_free_bytes);
  for (std::uint32_t i = 0; i < 100; i++) {
    compression.deflater(options, slot(i), state, true).compress({}, true, room);
    compression.end_fragments(slot(i), state);
  }
  CHECK(blocks.bytes_in_use() <= Compression::max_free_bytes);
  CHECK(blocks.bytes_in_use() >= Compression::max_free_bytes / 2);
  compression.remove(slot(0));
  CHECK(blocks.bytes_in_use() == 0);
}

TEST_CASE("services with other options have other deflaters and limits, and the same inflaters") {
  BlockPool blocks(0);
  Compression compression(blocks);
  compression.add();
  const DeflateState state{DeflateAgreement{}};
  Deflater& first = compression.deflater(options, slot(1), state, false);
  CHECK(&compression.deflater(options, slot(2), state, false) == &first);
  Deflater& other = compression.deflater({.enabled = true, .level = 9}, slot(2), state, false);
  CHECK(&other != &first);
  CHECK(other.options().level == 9);
  CHECK(&compression.deflater(options, slot(1), state, false) == &first);

  const std::string wire = RawDeflater(15).message(json_text(600));
  Inflater& inflater = compression.take_inflater(of_service, slot(1), state);
  CHECK(inflate(inflater, wire).is(json_text(600)));
  compression.give_inflater(inflater);
  CompressionOptions small = of_service;
  small.max_message_bytes = 599;
  Inflater& limited = compression.take_inflater(small, slot(2), state);
  CHECK(&limited == &inflater);
  CHECK(inflate(limited, wire).error == FrameError::message_too_big);
  compression.give_inflater(limited);
  CHECK(inflate(compression.take_inflater(of_service, slot(1), state), wire).is(json_text(600)));
  compression.give_inflater(limited);
  compression.remove(slot(1));
}

TEST_CASE(
    "a connection that has sent messages in fragments, or stopped in the middle of one, leaves nothing") {
  BlockPool blocks(0);
  Compression compression(blocks);
  for (int i = 0; i < 3; i++) compression.add();
  const DeflateState state{DeflateAgreement{}};
  const std::string text = json_text(600);
  std::string out(Deflater::bound(text.size()), '\0');
  const MutableBytes room(reinterpret_cast<std::uint8_t*>(out.data()), out.size());
  const auto message = [&](std::uint32_t index, bool ends) {
    compression.deflater(options, slot(index), state, true).compress(to_bytes(text), false, room);
    if (!ends) return;
    compression.deflater(options, slot(index), state, true).compress({}, true, room);
    compression.end_fragments(slot(index), state);
  };
  message(0, true);
  const std::size_t in_use = blocks.bytes_in_use();
  for (std::uint32_t i = 1; i < 1000; i++) message(i, true);
  CHECK(blocks.bytes_in_use() == in_use);
  message(1000, false);
  compression.remove(slot(1000));
  message(1001, true);
  CHECK(blocks.bytes_in_use() == in_use);
  compression.remove(slot(1001));
  compression.remove(slot(0));
  CHECK(blocks.bytes_in_use() == 0);
}
