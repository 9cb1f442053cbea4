// What zlib allocates, in pooled Blocks: so that it is counted, and used again by the next context. Internal.
#pragma once

#include <zlib.h>

#include <array>
#include <cassert>
#include <cstddef>
#include <utility>

#include <levada/core/block_pool.h>

namespace levada::ws::detail {

// The memory of one z_stream. zlib takes all of it when the stream is made, or when it is first used, and gives
// it back at the end only; its sizes are powers of two, but for two small ones. The pool's thread.
class ZlibMemory {
 public:
  explicit ZlibMemory(BlockPool& blocks) : pool_(&blocks) {}
  ZlibMemory(const ZlibMemory&) = delete;
  ZlibMemory& operator=(const ZlibMemory&) = delete;
  ~ZlibMemory() { assert(bytes() == 0); }

  // Lets `stream` allocate here; before its init function.
  void attach(z_stream& stream) {
    stream.zalloc = &ZlibMemory::allocate;
    stream.zfree = &ZlibMemory::release;
    stream.opaque = this;
  }

  std::size_t bytes() const {
    std::size_t sum = 0;
    for (Block* block : blocks_) sum += block == nullptr ? 0 : block->capacity();
    return sum;
  }

 private:
  static void* allocate(void* opaque, unsigned count, unsigned size) {
    auto* self = static_cast<ZlibMemory*>(opaque);
    for (Block*& block : self->blocks_) {
      if (block != nullptr) continue;
      block = self->pool_->allocate(std::size_t{count} * size);
      block->note_used(std::size_t{count} * size);  // zlib writes to all of it
      return block->data();
    }
    assert(false && "zlib allocates more than it ever did");
    return nullptr;
  }

  static void release(void* opaque, void* memory) {
    for (Block*& block : static_cast<ZlibMemory*>(opaque)->blocks_) {
      if (block != nullptr && block->data() == memory) return std::exchange(block, nullptr)->drop_reference();
    }
  }

  BlockPool* pool_;
  std::array<Block*, 8> blocks_{};  // a deflater has 5, an inflater 2
};

}  // namespace levada::ws::detail
