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

SlotId slot(std::uint32_t index) {
  SlotId id;
  id.index = index;
  return id;
}

}  // namespace

TEST_CASE("of the inflaters of a burst of messages some are kept, and serve the next ones") {
  BlockPool blocks(0);
  Compression compression(options, 1 << 20, false, blocks);
  const DeflateState state{DeflateAgreement{}};
  const std::string wire = RawDeflater(15).message(json_text(600));
  std::vector<Inflater*> taken;
  for (int round = 0; round < 2; round++) {
    for (std::uint32_t i = 0; i < 1000; i++) {
      taken.push_back(&compression.take_inflater(slot(i), state));
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
  Inflater& again = compression.take_inflater(slot(1), state);
  CHECK(inflate(again, wire).is(json_text(600)));
  compression.give_inflater(again);
  compression.clear();
  CHECK(blocks.bytes_in_use() == 0);
}

TEST_CASE("of the deflaters of a burst of messages in fragments some are kept") {
  BlockPool blocks(0);
  Compression compression(options, 1 << 20, false, blocks);
  const DeflateState state{DeflateAgreement{}};
  const std::string text = json_text(600);
  std::string out(Deflater::bound(text.size()), '\0');
  const MutableBytes room(reinterpret_cast<std::uint8_t*>(out.data()), out.size());
  for (std::uint32_t i = 0; i < 100; i++)
    compression.deflater(slot(i), state, true).compress(to_bytes(text), false, room);
  CHECK(blocks.bytes_in_use() > 4 * Compression::max_free_bytes);
  for (std::uint32_t i = 0; i < 100; i++) {
    compression.deflater(slot(i), state, true).compress({}, true, room);
    compression.end_fragments(slot(i), state);
    compression.remove(slot(i));
  }
  CHECK(blocks.bytes_in_use() <= Compression::max_free_bytes);
  CHECK(blocks.bytes_in_use() >= Compression::max_free_bytes / 2);
  compression.clear();
  CHECK(blocks.bytes_in_use() == 0);
}
