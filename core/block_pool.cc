#include <levada/core/block_pool.h>

#include <sys/mman.h>
#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>

namespace levada {
namespace {

constexpr std::size_t map_from_bytes = 64 * 1024;

// A cheap name for the calling thread.
std::uintptr_t current_thread() {
  static thread_local const char name = 0;
  return reinterpret_cast<std::uintptr_t>(&name);
}

std::size_t class_of(std::size_t capacity) {
  return static_cast<std::size_t>(
      std::countr_zero((capacity - BlockPool::slack_bytes) / BlockPool::min_block_bytes));
}

std::uint8_t* allocate_memory(std::size_t capacity) {
  void* memory = nullptr;
  if (capacity >= map_from_bytes) {
    memory =
        mmap(nullptr, capacity, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) memory = nullptr;
  } else {
    memory = std::aligned_alloc(BlockPool::slack_bytes, capacity);
  }
  if (memory == nullptr) std::abort();  // as std::bad_alloc would
  return static_cast<std::uint8_t*>(memory);
}

void free_memory(std::uint8_t* memory, std::size_t capacity) {
  if (capacity >= map_from_bytes) {
    munmap(memory, capacity);
  } else {
    std::free(memory);
  }
}

}  // namespace

Block::Block(BlockPool& pool, std::uint8_t* data, std::size_t capacity)
    : Owner(&Block::give_back), pool_(&pool), data_(data), capacity_(capacity) {}

void Block::give_back(Owner* owner) {
  auto* block = static_cast<Block*>(owner);
  block->pool_->take_back(block);
}

void Block::count_used(std::size_t bytes) {
  if (pool_->budget_ != nullptr) pool_->budget_->add(bytes - counted_bytes_);
  counted_bytes_ = bytes;
}

BlockPool::BlockPool(std::size_t retain_bytes, MemoryBudget* budget)
    : retain_bytes_(retain_bytes), budget_(budget), thread_(current_thread()) {}

BlockPool::~BlockPool() {
  trim();
  assert(blocks_in_use_ == 0);
}

void BlockPool::trim() {
  collect_returned();
  for (Block*& head : free_) {
    while (head != nullptr) destroy(std::exchange(head, head->next_));
  }
  bytes_retained_ = 0;
}

void BlockPool::bind_to_current_thread() {
  thread_.store(current_thread(), std::memory_order_relaxed);
}

std::size_t BlockPool::capacity_for(std::size_t bytes) {
  assert(bytes <= max_block_bytes);
  return std::bit_ceil(std::max(bytes, min_block_bytes + slack_bytes) - slack_bytes) + slack_bytes;
}

Block* BlockPool::allocate(std::size_t bytes) {
  assert(thread_.load(std::memory_order_relaxed) == current_thread());
  if (returned_.load(std::memory_order_relaxed) != nullptr) collect_returned();
  const std::size_t capacity = capacity_for(bytes);
  const std::size_t size_class = class_of(capacity);
  if (Block* block = take_free(size_class, size_class + 1)) return block;
  blocks_in_use_++;
  bytes_in_use_ += capacity;
  return create(capacity);
}

// A free block of the smallest of these classes that has one, or nullptr.
Block* BlockPool::take_free(std::size_t from_class, std::size_t end_class) {
  for (std::size_t size_class = from_class; size_class < end_class; size_class++) {
    Block* const block = free_[size_class];
    if (block == nullptr) continue;
    free_[size_class] = block->next_;
    bytes_retained_ -= block->capacity_;
    blocks_in_use_++;
    bytes_in_use_ += block->capacity_;
    return block;
  }
  return nullptr;
}

Block* BlockPool::grow(Block* block, std::size_t used, std::size_t bytes) {
  assert(block->pool_ == this && block->references() == 1 && used <= block->capacity_);
  if (returned_.load(std::memory_order_relaxed) != nullptr) collect_returned();
  const std::size_t capacity = capacity_for(bytes);
  Block* larger = take_free(class_of(capacity), class_count);
  if (larger == nullptr && remap(*block, capacity)) return block;
  if (larger == nullptr) larger = allocate(bytes);
  std::memcpy(larger->data_, block->data_, used);
  block->drop_reference();
  return larger;
}

// Makes a mapped block larger. False for one of malloc's.
bool BlockPool::remap(Block& block, std::size_t capacity) {
  if (block.capacity_ < map_from_bytes) return false;
  void* const memory = mremap(block.data_, block.capacity_, capacity, MREMAP_MAYMOVE);
  if (memory == MAP_FAILED) std::abort();  // as std::bad_alloc would
  bytes_in_use_ += capacity - block.capacity_;
  block.data_ = static_cast<std::uint8_t*>(memory);
  block.capacity_ = capacity;
  return true;
}

Block* BlockPool::create(std::size_t capacity) {
  auto* block = new Block(*this, allocate_memory(capacity), capacity);
  if (capacity < map_from_bytes) block->note_used(capacity);
  return block;
}

void BlockPool::destroy(Block* block) {
  if (budget_ != nullptr) budget_->subtract(block->counted_bytes_);
  free_memory(block->data_, block->capacity_);
  delete block;
}

void BlockPool::take_back(Block* block) {
  if (thread_.load(std::memory_order_relaxed) == current_thread()) return recycle(block);
  block->next_ = returned_.load(std::memory_order_relaxed);
  while (!returned_.compare_exchange_weak(block->next_, block, std::memory_order_release,
                                          std::memory_order_relaxed)) {
  }
}

void BlockPool::recycle(Block* block) {
  blocks_in_use_--;
  bytes_in_use_ -= block->capacity_;
  const bool over_budget = budget_ != nullptr && budget_->exceeded();
  if (over_budget || bytes_retained_ + block->capacity_ > retain_bytes_) return destroy(block);
  bytes_retained_ += block->capacity_;
  Block*& head = free_[class_of(block->capacity_)];
  block->next_ = head;
  head = block;
}

void BlockPool::collect_returned() {
  Block* block = returned_.exchange(nullptr, std::memory_order_acquire);
  while (block != nullptr) recycle(std::exchange(block, block->next_));
}

}  // namespace levada
