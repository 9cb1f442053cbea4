#include <levada/core/memory_budget.h>

#include <thread>

#include <doctest/doctest.h>

#include <levada/core/block_pool.h>

using namespace levada;

namespace {

constexpr std::size_t small_block = BlockPool::min_block_bytes + BlockPool::slack_bytes;
constexpr std::size_t large = 1 << 20;

}  // namespace

TEST_CASE("a budget is exceeded by the first byte beyond its limit") {
  MemoryBudget budget(1000, BudgetPolicy::refuse_large);
  CHECK(budget.limit_bytes() == 1000);
  CHECK(budget.policy() == BudgetPolicy::refuse_large);
  budget.add(999);
  CHECK(!budget.exceeded());
  budget.add(1);
  CHECK(!budget.exceeded());
  budget.add(1);
  CHECK(budget.exceeded());
  budget.subtract(1);
  CHECK(!budget.exceeded());
  CHECK(budget.used_bytes() == 1000);
}

TEST_CASE("a small block counts whole from the time it is made until it goes back to the system") {
  MemoryBudget budget(1 << 30);
  {
    BlockPool pool(1 << 20, &budget);
    Block* block = pool.allocate(100);
    CHECK(budget.used_bytes() == small_block);
    block->note_used(50);
    CHECK(budget.used_bytes() == small_block);
    block->drop_reference();
    CHECK(budget.used_bytes() == small_block);  // kept for reuse
    pool.allocate(100)->drop_reference();
    CHECK(budget.used_bytes() == small_block);
    pool.trim();
    CHECK(budget.used_bytes() == 0);
    CHECK(pool.bytes_retained() == 0);
    Block* first = pool.allocate(3000);
    pool.allocate(10'000)->drop_reference();
    CHECK(budget.used_bytes() == 4096 + 16384 + 2 * BlockPool::slack_bytes);
    pool.trim();
    CHECK(budget.used_bytes() == 4096 + BlockPool::slack_bytes);
    first->drop_reference();
  }
  CHECK(budget.used_bytes() == 0);
}

TEST_CASE("a large block counts what was written to it, the most of its lives") {
  MemoryBudget budget(1 << 30);
  BlockPool pool(std::size_t{16} << 20, &budget);
  Block* block = pool.allocate(large);
  CHECK(budget.used_bytes() == 0);  // nothing is resident
  block->note_used(5000);
  CHECK(budget.used_bytes() == 5000);
  block->note_used(5000);
  block->note_used(100);
  CHECK(budget.used_bytes() == 5000);
  block->note_used(large);
  CHECK(budget.used_bytes() == large);
  block->drop_reference();
  CHECK(pool.allocate(large) == block);
  CHECK(budget.used_bytes() == large);
  block->note_used(1);
  CHECK(budget.used_bytes() == large);
  block->drop_reference();
  pool.trim();
  CHECK(budget.used_bytes() == 0);
}

TEST_CASE("while the budget is exceeded nothing is kept for reuse") {
  MemoryBudget budget(2 * small_block);
  BlockPool pool(1 << 20, &budget);
  Block* blocks[] = {pool.allocate(1), pool.allocate(1), pool.allocate(1)};
  CHECK(budget.exceeded());
  blocks[0]->drop_reference();
  CHECK(budget.used_bytes() == 2 * small_block);
  CHECK(pool.bytes_retained() == 0);
  blocks[1]->drop_reference();  // at the limit: kept
  CHECK(budget.used_bytes() == 2 * small_block);
  CHECK(pool.bytes_retained() == small_block);
  blocks[2]->drop_reference();
}

TEST_CASE("pools share a budget, and blocks that other threads let go are taken away once they are back") {
  MemoryBudget budget(1 << 30);
  {
    BlockPool first(0, &budget);
    BlockPool second(0, &budget);
    Block* block = first.allocate(1);
    Block* other = second.allocate(1);
    CHECK(budget.used_bytes() == 2 * small_block);
    std::thread([block] { block->drop_reference(); }).join();
    CHECK(budget.used_bytes() == 2 * small_block);
    first.collect_returned();
    CHECK(budget.used_bytes() == small_block);
    other->drop_reference();
    CHECK(budget.used_bytes() == 0);
    Block* last = first.allocate(large);
    last->note_used(777);
    std::thread([last] { last->drop_reference(); }).join();
    CHECK(budget.used_bytes() == 777);
  }
  CHECK(budget.used_bytes() == 0);
}
