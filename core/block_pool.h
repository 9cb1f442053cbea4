// Pooled memory that is shared by reference: Owner (a reference count), Block (memory with an Owner),
// BlockPool.
//
// Model: whoever queues bytes without copying them holds a reference on their Owner; the last one to let go
// gives the memory back to where it came from. Block sizes are powers of two plus room for a frame header, so
// that a payload of 64 KiB does not need 128. Large blocks are mapped, not touched: the kernel makes a page
// resident when the first byte is written to it, so a block that was sized for a declared length costs what
// was really received. Freed blocks are kept, last in first out, up to a bound; what is beyond it is
// unmapped.
#pragma once

#include <array>
#include <atomic>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <utility>

#include <levada/core/bytes.h>
#include <levada/core/memory_budget.h>

namespace levada {

// A reference count with a way to give the memory back. Starts with one reference. Any thread may add and
// drop.
class Owner {
 public:
  explicit Owner(void (*release)(Owner*)) : release_(release) {}
  Owner(const Owner&) = delete;
  Owner& operator=(const Owner&) = delete;

  void add_reference() { references_.fetch_add(1, std::memory_order_relaxed); }
  void drop_reference() {
    // A sole owner needs no read-modify-write: nobody else can add a reference to what nobody else holds.
    if (references_.load(std::memory_order_acquire) == 1 ||
        references_.fetch_sub(1, std::memory_order_acq_rel) == 1) {
      references_.store(1, std::memory_order_relaxed);  // ready for its next life
      release_(this);
    }
  }
  std::uint32_t references() const { return references_.load(std::memory_order_acquire); }

 protected:
  bool is_released_by(void (*release)(Owner*)) const { return release_ == release; }

 private:
  std::atomic<std::uint32_t> references_{1};
  void (*release_)(Owner*);
};

// Holds one reference on an Owner. Empty when it holds none.
class OwnerRef {
 public:
  OwnerRef() = default;
  // Takes over a reference that the caller holds.
  static OwnerRef adopt(Owner* owner) {
    OwnerRef ref;
    ref.owner_ = owner;
    return ref;
  }
  // Adds a reference of its own.
  static OwnerRef share(Owner* owner) {
    if (owner != nullptr) owner->add_reference();
    return adopt(owner);
  }
  OwnerRef(OwnerRef&& other) noexcept : owner_(other.release()) {}
  OwnerRef& operator=(OwnerRef&& other) noexcept {
    if (this != &other) {
      reset();
      owner_ = other.release();
    }
    return *this;
  }
  ~OwnerRef() { reset(); }

  Owner* get() const { return owner_; }
  Owner* release() { return std::exchange(owner_, nullptr); }
  void reset() {
    if (Owner* owner = release()) owner->drop_reference();
  }
  explicit operator bool() const { return owner_ != nullptr; }

 private:
  Owner* owner_ = nullptr;
};

class BlockPool;

// Memory of a power of two bytes and `slack_bytes`. Its header lies apart from the data.
class Block : public Owner {
 public:
  std::uint8_t* data() { return data_; }
  std::size_t capacity() const { return capacity_; }

  // The first `bytes` have been or are about to be written: they count against the budget. Small blocks count whole.
  void note_used(std::size_t bytes) {
    if (bytes > counted_bytes_) count_used(bytes);
  }
  // What counts, in bytes.
  std::size_t counted_bytes() const { return counted_bytes_; }

  // `owner` if it is a block of a pool, else nullptr.
  static Block* of(Owner* owner) {
    const bool is_block = owner != nullptr && static_cast<Block*>(owner)->is_released_by(&Block::give_back);
    return is_block ? static_cast<Block*>(owner) : nullptr;
  }

 private:
  friend class BlockPool;
  Block(BlockPool& pool, std::uint8_t* data, std::size_t capacity);
  static void give_back(Owner* owner);
  void count_used(std::size_t bytes);

  BlockPool* pool_;
  std::uint8_t* data_;
  std::size_t capacity_;
  std::size_t counted_bytes_ = 0;  // by the budget, until the memory goes back to the system
  Block* next_ = nullptr;  // in a free list, or in the list of blocks that came back from other threads
};

// Hands out Blocks. allocate() belongs to one thread (the reactor's); the last reference may be dropped on
// any thread, and the block then comes back at the next allocate(). Every block has to be back before the
// pool is destroyed.
class BlockPool {
 public:
  static constexpr std::size_t min_block_bytes = 512;
  static constexpr std::size_t slack_bytes = 64;
  static constexpr std::size_t max_block_bytes = std::size_t{1} << 40;

  // `retain_bytes`: how much freed memory is kept for reuse, in bytes of capacity. `budget`, if any, outlives the pool.
  explicit BlockPool(std::size_t retain_bytes, MemoryBudget* budget = nullptr);
  BlockPool(const BlockPool&) = delete;
  BlockPool& operator=(const BlockPool&) = delete;
  ~BlockPool();

  // A block of at least `bytes`, with one reference that the caller owns. Contents are unspecified.
  Block* allocate(std::size_t bytes);

  // A block of at least `bytes` that begins with the first `used` bytes of `block`, whose only reference it takes over.
  // They are copied to a free block if one is large enough; else a large block is mapped anew where it is, so that
  // nothing is resident twice, and a small one is copied.
  Block* grow(Block* block, std::size_t used, std::size_t bytes);

  // The pool's thread is the one that constructed it; a reactor that moves to its own thread says so here.
  void bind_to_current_thread();

  std::size_t blocks_in_use() const { return blocks_in_use_; }
  std::size_t bytes_in_use() const { return bytes_in_use_; }
  std::size_t bytes_retained() const { return bytes_retained_; }

  // Takes in what other threads have let go of, so that the counts above are exact.
  void collect_returned();

  // Gives back to the system what is kept for reuse.
  void trim();

 private:
  friend class Block;
  static constexpr std::size_t class_count = 32;

  static std::size_t capacity_for(std::size_t bytes);
  Block* take_free(std::size_t from_class, std::size_t end_class);
  bool remap(Block& block, std::size_t capacity);
  void take_back(Block* block);
  void recycle(Block* block);
  void destroy(Block* block);
  Block* create(std::size_t capacity);

  std::array<Block*, class_count> free_{};
  std::size_t retain_bytes_;
  MemoryBudget* budget_;
  std::size_t blocks_in_use_ = 0;
  std::size_t bytes_in_use_ = 0;
  std::size_t bytes_retained_ = 0;
  std::atomic<std::uintptr_t> thread_;  // read by other threads that drop a reference
  std::atomic<Block*> returned_{nullptr};
};

}  // namespace levada
