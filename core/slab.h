// Slab: fixed-size slots addressed by index, each with a generation.
//
// Slots live in chunks that are never moved or unmapped while the slab lives, so a pointer to a slot stays
// good memory and a stale id is recognised by its generation instead of being chased. A generation is odd
// while its slot is in use and even while it is free: an id made of zeros never names anything.
#pragma once

#include <sys/mman.h>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

namespace levada {

struct SlotId {
  std::uint32_t index = 0;
  std::uint32_t generation = 0;

  bool operator==(const SlotId&) const = default;

  std::uint64_t packed() const { return (std::uint64_t{generation} << 32) | index; }
  static SlotId unpack(std::uint64_t packed) {
    return {static_cast<std::uint32_t>(packed), static_cast<std::uint32_t>(packed >> 32)};
  }
};

// Raw memory of `slot_bytes` a slot; what is built inside is the caller's. One thread at a time.
// Memory comes from the kernel in chunks of `chunk_slots`, and pages of it become resident as slots are first
// used.
template <std::size_t slot_bytes>
class Slab {
 public:
  static constexpr std::uint32_t chunk_slots = 4096;

  Slab() = default;
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;
  ~Slab() {
    for (Slot* chunk : chunks_) munmap(chunk, chunk_bytes);
  }

  // A free slot, or one of a new chunk; the last one freed comes first, since its memory is warm.
  SlotId allocate() {
    if (free_head_ == none) add_chunk();
    const std::uint32_t index = free_head_;
    free_head_ = next_free_[index];
    in_use_++;
    return {index, ++generations_[index]};
  }

  // Gives the slot back. Every id of it is dead from now on.
  void release(std::uint32_t index) {
    assert(generations_[index] & 1);
    generations_[index]++;
    next_free_[index] = free_head_;
    free_head_ = index;
    in_use_--;
  }

  void* at(std::uint32_t index) { return chunks_[index / chunk_slots] + index % chunk_slots; }

  // The slot's memory, or nullptr when the id is dead.
  void* find(SlotId id) {
    if (id.index >= generations_.size() || generations_[id.index] != id.generation) return nullptr;
    return (id.generation & 1) ? at(id.index) : nullptr;
  }

  std::size_t in_use() const { return in_use_; }
  std::uint32_t capacity() const { return static_cast<std::uint32_t>(generations_.size()); }
  bool used(std::uint32_t index) const { return generations_[index] & 1; }
  std::uint32_t generation(std::uint32_t index) const { return generations_[index]; }

 private:
  struct alignas(64) Slot {
    std::byte bytes[slot_bytes];
  };
  static constexpr std::size_t chunk_bytes = chunk_slots * sizeof(Slot);
  static constexpr std::uint32_t none = ~std::uint32_t{0};

  void add_chunk() {
    void* memory = mmap(nullptr, chunk_bytes, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) std::abort();  // as std::bad_alloc would
    const std::uint32_t first = capacity();
    chunks_.push_back(static_cast<Slot*>(memory));
    generations_.resize(first + chunk_slots, 0);
    next_free_.resize(first + chunk_slots);
    for (std::uint32_t i = 0; i < chunk_slots; i++) next_free_[first + i] = first + i + 1;
    next_free_[first + chunk_slots - 1] = free_head_;
    free_head_ = first;
  }

  std::vector<Slot*> chunks_;
  std::vector<std::uint32_t> generations_;
  std::vector<std::uint32_t> next_free_;
  std::uint32_t free_head_ = none;
  std::size_t in_use_ = 0;
};

}  // namespace levada
