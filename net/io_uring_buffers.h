// The receive buffers of an io_uring: provided to the kernel in a ring, taken back piece by piece. Private to the backend.
//
// Model: a buffer is either in the ring, or finished (the kernel is done with it, handlers of this turn may not be), or
// lent: somebody holds a reference beyond the turn. The ring holds one reference on each buffer that is not lent.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <levada/core/block_pool.h>
#include <levada/core/bytes.h>
#include <levada/core/error.h>
#include <levada/net/io_uring_compat.h>

namespace levada::net {

class Reactor;
class ReceiveRing;

class ReceiveBuffer : public Owner {
 public:
  ReceiveBuffer(ReceiveRing& ring, std::uint8_t* data, std::uint16_t number)
      : Owner(&ReceiveBuffer::give_back), ring_(ring), data_(data), number_(number) {}

 private:
  friend class ReceiveRing;
  static void give_back(Owner* owner);

  ReceiveRing& ring_;
  std::uint8_t* data_;
  std::size_t used_ = 0;
  std::uint16_t number_;
  bool lent_ = false;
  ReceiveBuffer* next_ = nullptr;
};

// One thread, the reactor's; a lent buffer may be given back on any.
class ReceiveRing {
 public:
  static constexpr std::uint16_t group = 0;

  explicit ReceiveRing(Reactor& reactor) : reactor_(reactor) {}
  ReceiveRing(const ReceiveRing&) = delete;
  ReceiveRing& operator=(const ReceiveRing&) = delete;
  ~ReceiveRing();

  // By the reactor's options. Returns false if the kernel refuses.
  Error make(io_uring& uring);
  // Before the io_uring is gone.
  void free();

  // What a completion with IORING_CQE_F_BUFFER brought, and who owns it.
  MutableBytes take(std::int32_t result, std::uint32_t flags, Owner*& memory);

  // The turn is over: finished buffers go back to the kernel, but those that somebody still refers to, and so do lent
  // ones that were given back. Returns whether there were any.
  bool retire();
  // Whether retire() would give back any.
  bool can_retire() const {
    return !finished_.empty() || returned_.load(std::memory_order_relaxed) != nullptr;
  }

  // Whether the kernel has no buffer, by the completions seen so far.
  bool empty() const { return in_ring_ == 0; }
  // Half of the ring stays the kernel's, whatever handlers keep: without any, nothing is received.
  bool can_lend() const;

  unsigned count() const { return count_; }
  std::size_t buffer_bytes() const { return buffer_bytes_; }
  bool incremental() const { return incremental_; }

 private:
  friend class ReceiveBuffer;
  void provide(ReceiveBuffer& buffer);
  void take_back(ReceiveBuffer* buffer);

  Reactor& reactor_;
  io_uring* uring_ = nullptr;
  io_uring_buf_ring* ring_ = nullptr;
  bool incremental_ = false;
  unsigned count_ = 0;
  unsigned in_ring_ = 0;
  std::size_t buffer_bytes_ = 0;
  Block* memory_ = nullptr;
  std::vector<std::unique_ptr<ReceiveBuffer>> buffers_;
  std::vector<ReceiveBuffer*> finished_;
  std::atomic<ReceiveBuffer*> returned_{nullptr};
};

}  // namespace levada::net
