// PreparedMessage: a message encoded once and sent to many connections (of servers) by reference.
#pragma once

#include <levada/core/block_pool.h>
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
      : owner_(OwnerRef::share(other.owner_.get())), frame_(other.frame_) {}
  PreparedMessage& operator=(const PreparedMessage& other) {
    owner_ = OwnerRef::share(other.owner_.get());
    frame_ = other.frame_;
    return *this;
  }
  PreparedMessage(PreparedMessage&&) = default;
  PreparedMessage& operator=(PreparedMessage&&) = default;

  // The whole frame; lives as long as this or any copy.
  Bytes frame() const { return frame_; }
  // A new reference on the memory of frame(), which the caller has to drop.
  Owner* share() const { return OwnerRef::share(owner_.get()).release(); }

 private:
  OwnerRef owner_;
  Bytes frame_;
};

}  // namespace levada::ws
