// Turn memory: bump allocation for one turn of the loop.
//
// Model: what a handler sends without owning memory for it is written here, one after the other for all
// connections, so that the bytes of a turn lie close together and nothing is freed piece by piece. When the
// turn's sends have been handed to the kernel the whole is reset; what the kernel did not take has been moved
// to memory of its own before (SendQueue::spill).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <vector>

#include <levada/core/block_pool.h>

namespace levada::net {

class TurnMemory {
 public:
  static constexpr std::size_t block_bytes = 64 * 1024;

  explicit TurnMemory(BlockPool& blocks) : blocks_(blocks) { start(blocks_.allocate(block_bytes)); }
  TurnMemory(const TurnMemory&) = delete;
  TurnMemory& operator=(const TurnMemory&) = delete;
  ~TurnMemory() {
    for (Block* block : used_) block->drop_reference();
  }

  // `size` bytes, unaligned, that live until reset().
  std::uint8_t* allocate(std::size_t size) {
    if (size > static_cast<std::size_t>(end_ - next_)) start_for(size);
    std::uint8_t* memory = next_;
    next_ += size;
    return memory;
  }

  // Memory for `count` objects of a trivial type, aligned for it.
  template <class T>
  T* allocate_array(std::size_t count) {
    std::uint8_t* memory = allocate(count * sizeof(T) + alignof(T));
    const auto misaligned = reinterpret_cast<std::uintptr_t>(memory) % alignof(T);
    return reinterpret_cast<T*>(memory + (misaligned == 0 ? 0 : alignof(T) - misaligned));
  }

  // How many bytes were taken since the last reset, in whole blocks but for the last.
  std::size_t used_bytes() const {
    return (used_.size() - 1) * block_bytes + static_cast<std::size_t>(next_ - used_.back()->data());
  }

  // Overwrites everything handed out since the last reset: so that a simulation finds who uses it too late.
  void scrub(std::uint8_t value) {
    for (Block* block : used_)
      std::memset(block->data(), value, block == used_.back() ? last_used() : block->capacity());
  }

  // Everything handed out is void; the first block is kept.
  void reset() {
    while (used_.size() > 1) {
      used_.back()->drop_reference();
      used_.pop_back();
    }
    next_ = used_.front()->data();
    end_ = next_ + used_.front()->capacity();
  }

 private:
  std::size_t last_used() const { return static_cast<std::size_t>(next_ - used_.back()->data()); }

  void start_for(std::size_t size) {
    start(blocks_.allocate(size < block_bytes ? block_bytes : size));
    used_.back()->note_used(size);
  }

  void start(Block* block) {
    used_.push_back(block);
    next_ = block->data();
    end_ = next_ + block->capacity();
  }

  BlockPool& blocks_;
  std::vector<Block*> used_;
  std::uint8_t* next_ = nullptr;
  std::uint8_t* end_ = nullptr;
};

}  // namespace levada::net
