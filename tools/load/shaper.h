// Shaper: puts messages on the wire in unusual, but legal shapes, as frames of its own making.
//
// Model: a message becomes pieces of bytes, each of which is to be a write of its own; a connection's pieces wait in its
// Trickle, and the worker sends one of them in each turn of its loop. A piece may end anywhere in a frame, so
// everything that such a connection sends goes through its Trickle, pongs too.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include <levada/core/bytes.h>
#include <levada/core/random.h>
#include <levada/tools/load/options.h>
#include <levada/ws/frame.h>

namespace levada::load {

using Piece = std::vector<std::uint8_t>;

// The pings of one connection, numbered in their payload. A pong answers all pings up to its own (RFC 6455 section
// 5.5.3 lets an endpoint answer only the latest).
class Pings {
 public:
  using Payload = std::array<std::uint8_t, 8>;

  // The payload of the next one.
  Payload next() {
    sent_++;
    return std::bit_cast<Payload>(sent_);
  }
  // A pong came. One that answers none of them is legal, and means nothing.
  void answer(Bytes payload) {
    std::uint64_t number = 0;
    if (payload.size() != sizeof number) return;
    std::memcpy(&number, payload.data(), sizeof number);
    if (number > answered_ && number <= sent_) answered_ = number;
  }
  std::uint64_t unanswered() const { return sent_ - answered_; }
  // On another connection.
  void forget() { answered_ = sent_; }

 private:
  std::uint64_t sent_ = 0;
  std::uint64_t answered_ = 0;
};

class Trickle {
 public:
  bool empty() const { return !pieces_ || pieces_->empty(); }
  void add(Piece piece) {
    if (!pieces_) pieces_ = std::make_unique<std::deque<Piece>>();
    pieces_->push_back(std::move(piece));
    frames_ = 1;
  }
  // To the last piece, until `most` are in it.
  void join(Piece frame, unsigned most) {
    if (empty() || frames_ >= most) return add(std::move(frame));
    pieces_->back().insert(pieces_->back().end(), frame.begin(), frame.end());
    frames_++;
  }
  Piece take() {
    Piece first = std::move(pieces_->front());
    pieces_->pop_front();
    return first;
  }
  void clear() { pieces_.reset(); }

 private:
  std::unique_ptr<std::deque<Piece>> pieces_;  // few connections have one
  unsigned frames_ = 0;                        // joined in the last one
};

class Shaper {
 public:
  // `keys` makes the mask keys and must outlive this object. `frames`: of one write of a batch, at most.
  Shaper(Shape shape, unsigned frames, std::uint64_t seed, SecureRandom& keys)
      : shape_(shape), frames_(frames), random_(seed), keys_(keys) {}

  // Adds the pieces of the connection's message number `sequence`, and to `pings` those that are in it.
  void add_message(Trickle& trickle, Pings& pings, ws::Opcode opcode, Bytes payload, std::uint64_t sequence);

  // Adds one whole control frame.
  void add_control(Trickle& trickle, ws::Opcode opcode, Bytes payload);

 private:
  void append(Piece& piece, ws::Opcode opcode, Bytes payload, bool fin);
  Piece fragments(ws::Opcode opcode, Bytes payload, Pings* pings);

  Shape shape_;
  unsigned frames_;
  SeededRandom random_;
  SecureRandom& keys_;
};

}  // namespace levada::load
