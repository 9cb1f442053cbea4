// SharedBuffer: one receive buffer for all streams of a reactor, filled by system calls. Private to the backends.
//
// Model: a block of the reactor's pool. Each receive takes the next part of it, so that the same warm memory serves one
// stream after the other. When little is left the queues are flushed, in the middle of the batch if need be, and it is
// used again from its front. If somebody still refers to it then, it is left to them and another block taken.
//
// A stream that receives directly gets its bytes where it wants them, past the buffer.
#pragma once

#include <cstddef>

#include <levada/core/block_pool.h>
#include <levada/core/bytes.h>
#include <levada/core/error.h>
#include <levada/net/stream.h>

namespace levada::net {

// What one receive brought: bytes, or the error that ended the stream, or neither when nothing is there.
struct Receipt {
  MutableBytes bytes = {};
  Owner* memory = nullptr;  // what the bytes lie in; nullptr: the stream's receive_target()
  bool filled = false;      // all the room was used: there is probably more
  Error error = {};
};

// One thread.
class SharedBuffer {
 public:
  static constexpr std::size_t default_bytes = 256 * 1024;
  // Streams are asked this often in a row, so that none can starve the others.
  static constexpr int max_receives = 4;

  // `bytes`: 0 for the default; at least min_receive_bytes are taken.
  SharedBuffer(BlockPool& pool, std::size_t bytes);
  SharedBuffer(const SharedBuffer&) = delete;
  SharedBuffer& operator=(const SharedBuffer&) = delete;
  ~SharedBuffer() { buffer_->drop_reference(); }

  // Whether the queues have to be flushed and restart() called before the next receive().
  bool is_low() const { return bytes_ - used_ < min_receive_bytes; }

  // Receives what there is on `stream`, without waiting.
  Receipt receive(Stream& stream);

  // All that was queued has been sent or spilled: the buffer begins anew.
  void restart();

  std::size_t bytes() const { return bytes_; }

 private:
  // Flush rather than ask the kernel for less than this: a short buffer would split messages.
  static constexpr std::size_t min_receive_bytes = 64 * 1024;

  BlockPool& pool_;
  std::size_t bytes_;
  Block* buffer_;
  std::size_t used_ = 0;
};

}  // namespace levada::net
