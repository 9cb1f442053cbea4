// PreparedMessage: a message encoded once and sent to many connections (of servers) by reference.
#pragma once

#include <levada/core/block_pool.h>
#include <levada/ws/deflate_negotiation.h>
#include <levada/ws/frame.h>

namespace levada::ws {

// A handle on an immutable, complete, unmasked frame. Copies share the bytes; connections that still have to send them
// hold references of their own. Copying, sending and destroying are safe on any thread.
class PreparedMessage {
 public:
  // Encodes `payload` as a message of `opcode` (text, binary, ping or pong). Copies it; allocates once. A text's
  // encoding is the caller's to get right.
  PreparedMessage(Opcode opcode, Bytes payload);
  PreparedMessage(const PreparedMessage& other)
      : owner_(OwnerRef::share(other.owner_.get())),
        frame_(other.frame_),
        compressed_(other.compressed_),
        window_bits_(other.window_bits_) {}
  PreparedMessage& operator=(const PreparedMessage& other) {
    owner_ = OwnerRef::share(other.owner_.get());
    frame_ = other.frame_;
    compressed_ = other.compressed_;
    window_bits_ = other.window_bits_;
    return *this;
  }
  PreparedMessage(PreparedMessage&&) = default;
  PreparedMessage& operator=(PreparedMessage&&) = default;

  // The same, and compressed once for all connections that agreed on permessage-deflate without taking our context over
  // and with a window of at least 2^window_bits bytes. One that takes it over compresses it by itself, as any message;
  // the others, and all clients but for their own options, get it as it is. Allocates more; without zlib, with options out of
  // range, or where it becomes no shorter, nothing is compressed here.
  PreparedMessage(Opcode opcode, Bytes payload, const DeflateOptions& deflate);

  // The compressed frame, empty if there is none, and the window that it needs; 0: it was not asked for.
  Bytes compressed_frame() const { return compressed_; }
  std::uint8_t window_bits() const { return window_bits_; }

  Opcode opcode() const { return static_cast<Opcode>(frame_[0] & 0x0F); }
  Bytes payload() const { return frame_.subspan(header_size(frame_[1])); }

  // The whole frame; lives as long as this or any copy.
  Bytes frame() const { return frame_; }
  // A new reference on the memory of frame(), which the caller has to drop.
  Owner* share() const { return OwnerRef::share(owner_.get()).release(); }

 private:
  void encode(Opcode opcode, Bytes payload, Bytes compressed);

  OwnerRef owner_;
  Bytes frame_;
  Bytes compressed_;  // behind it in the same memory
  std::uint8_t window_bits_ = 0;
};

}  // namespace levada::ws
