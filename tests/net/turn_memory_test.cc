#include <levada/net/turn_memory.h>

#include <sys/uio.h>
#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <levada/core/random.h>

using namespace levada;
using namespace levada::net;

TEST_CASE("pieces of a turn do not overlap, whatever their sizes, and reset keeps one block") {
  BlockPool blocks(1 << 20);
  {
    TurnMemory memory(blocks);
    SeededRandom random(2);
    for (int turn = 0; turn < 20; turn++) {
      std::vector<std::pair<std::uint8_t*, std::size_t>> pieces;
      for (std::size_t i = 0; i < 60; i++) {
        const std::size_t size = random.below(i % 10 == 0 ? 200'000 : 3000);
        pieces.push_back({memory.allocate(size), size});
        std::memset(pieces.back().first, static_cast<int>(i), size);
      }
      for (std::size_t i = 0; i < pieces.size(); i++) {
        const auto [data, size] = pieces[i];
        REQUIRE(std::all_of(data, data + size, [i](std::uint8_t byte) { return byte == i; }));
      }
      CHECK(memory.used_bytes() > 0);
      memory.reset();
      CHECK(memory.used_bytes() == 0);
      CHECK(blocks.blocks_in_use() == 1);
    }
  }
  CHECK(blocks.blocks_in_use() == 0);
}

TEST_CASE("arrays in turn memory are aligned behind pieces of any size") {
  BlockPool blocks(1 << 20);
  TurnMemory memory(blocks);
  for (std::size_t i = 0; i < 10'000; i++) {
    memory.allocate(i % 7);
    auto* vectors = memory.allocate_array<iovec>(3);
    REQUIRE(reinterpret_cast<std::uintptr_t>(vectors) % alignof(iovec) == 0);
    vectors[2] = {};
  }
}

TEST_CASE("scrub overwrites all that was handed out") {
  BlockPool blocks(1 << 20);
  TurnMemory memory(blocks);
  std::uint8_t* small = memory.allocate(10);
  std::uint8_t* large = memory.allocate(100'000);
  std::uint8_t* last = memory.allocate(10);
  memory.scrub(0xDB);
  for (std::uint8_t* data : {small, large, large + 99'990, last}) {
    CHECK(std::all_of(data, data + 10, [](std::uint8_t byte) { return byte == 0xDB; }));
  }
}
