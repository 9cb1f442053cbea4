#include <levada/core/block_pool.h>

#include <cstring>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

using namespace levada;

TEST_CASE("a block holds at least what was asked for, at every size") {
  BlockPool pool(0);
  for (std::size_t size = 0; size < 3'000'000; size = size * 3 / 2 + 1) {
    for (const std::size_t wanted : {size, size + BlockPool::slack_bytes}) {
      Block* block = pool.allocate(wanted);
      REQUIRE(block->capacity() >= wanted);
      REQUIRE(reinterpret_cast<std::uintptr_t>(block->data()) % BlockPool::slack_bytes == 0);
      std::memset(block->data(), 1, block->capacity());
      block->drop_reference();
    }
  }
  CHECK(pool.blocks_in_use() == 0);
  CHECK(pool.bytes_retained() == 0);
}

TEST_CASE("a payload of a power of two and its header do not take the next size") {
  BlockPool pool(0);
  Block* block = pool.allocate((64 << 10) + 14);
  CHECK(block->capacity() == (64 << 10) + BlockPool::slack_bytes);
  block->drop_reference();
}

TEST_CASE("a freed block is handed out again, the last one first") {
  BlockPool pool(1 << 20);
  Block* first = pool.allocate(4096);
  Block* second = pool.allocate(4096);
  CHECK(pool.blocks_in_use() == 2);
  CHECK(pool.bytes_in_use() == first->capacity() + second->capacity());
  first->drop_reference();
  second->drop_reference();
  CHECK(pool.bytes_retained() == 2 * (4096 + BlockPool::slack_bytes));
  CHECK(pool.allocate(4096) == second);
  CHECK(pool.allocate(4096) == first);
  first->drop_reference();
  second->drop_reference();
}

TEST_CASE("freed memory is kept only up to the bound") {
  const std::size_t each = 4096 + BlockPool::slack_bytes;
  BlockPool pool(3 * each);
  std::vector<Block*> blocks;
  for (int i = 0; i < 10; i++) blocks.push_back(pool.allocate(4096));
  for (Block* block : blocks) block->drop_reference();
  CHECK(pool.bytes_retained() == 3 * each);
}

TEST_CASE("a block that grows keeps its bytes, and is not resident twice where it was mapped") {
  for (const std::size_t size : {std::size_t{1000}, std::size_t{100'000}}) {
    BlockPool pool(1 << 20);
    Block* block = pool.allocate(size);
    std::memset(block->data(), 7, size);
    for (const std::size_t larger : {4 * size, 30 * size}) {
      block = pool.grow(block, size, larger);
      REQUIRE(block->capacity() >= larger);
      CHECK(block->data()[0] == 7);
      CHECK(block->data()[size - 1] == 7);
      std::memset(block->data(), 7, larger);
      CHECK(pool.blocks_in_use() == 1);
      CHECK(pool.bytes_in_use() == block->capacity());
      if (size == 100'000) CHECK(pool.bytes_retained() == 0);  // nothing was left behind
    }
    block->drop_reference();
    CHECK(pool.blocks_in_use() == 0);
    CHECK(pool.bytes_in_use() == 0);
  }
}

TEST_CASE("a block grows into a free one that is large enough before more is mapped") {
  BlockPool pool(64 << 20);
  Block* const large = pool.allocate(8 << 20);
  const std::size_t capacity = large->capacity();
  large->drop_reference();
  Block* block = pool.allocate(100'000);
  const std::size_t first = block->capacity();
  std::memset(block->data(), 9, 100'000);
  block = pool.grow(block, 100'000, 400'000);
  CHECK(block == large);
  CHECK(block->data()[99'999] == 9);
  CHECK(pool.bytes_in_use() == capacity);
  CHECK(pool.bytes_retained() == first);
  block->drop_reference();
  CHECK(pool.bytes_retained() == first + capacity);
}

TEST_CASE("a block returns when the last of its references goes") {
  BlockPool pool(1 << 20);
  Block* block = pool.allocate(100);
  OwnerRef shared = OwnerRef::share(block);
  OwnerRef moved = std::move(shared);
  CHECK_FALSE(shared);
  CHECK(block->references() == 2);
  block->drop_reference();
  CHECK(pool.blocks_in_use() == 1);
  moved.reset();
  CHECK(pool.blocks_in_use() == 0);
}

TEST_CASE("blocks that other threads let go come back to the pool") {
  BlockPool pool(1 << 24);
  constexpr int rounds = 50, each = 40;
  for (int round = 0; round < rounds; round++) {
    std::vector<Block*> blocks;
    for (int i = 0; i < each; i++) {
      blocks.push_back(pool.allocate(600));
      std::memset(blocks.back()->data(), round, 600);
      blocks.back()->add_reference();
    }
    auto drop = [&blocks] {
      for (Block* block : blocks) block->drop_reference();
    };
    std::thread first(drop), second(drop);
    first.join();
    second.join();
    pool.collect_returned();
    REQUIRE(pool.blocks_in_use() == 0);
  }
}
