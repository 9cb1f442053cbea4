// Shaper: puts messages on the wire in unusual, but legal shapes, as frames of its own making.
//
// Model: a message becomes pieces of bytes, each of which is to be a write of its own; a connection's pieces wait in its
// Trickle, and the worker sends one of them in each turn of its loop. A piece may end anywhere in a frame, so
// everything that such a connection sends goes through its Trickle, pongs too.
#pragma once

#include <cstdint>
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

class Trickle {
 public:
  bool empty() const { return !pieces_ || pieces_->empty(); }
  void add(Piece piece) {
    if (!pieces_) pieces_ = std::make_unique<std::deque<Piece>>();
    pieces_->push_back(std::move(piece));
  }
  Piece take() {
    Piece first = std::move(pieces_->front());
    pieces_->pop_front();
    return first;
  }
  void clear() { pieces_.reset(); }

 private:
  std::unique_ptr<std::deque<Piece>> pieces_;  // few connections have one
};

class Shaper {
 public:
  // `keys` makes the mask keys and must outlive this object.
  Shaper(Shape shape, std::uint64_t seed, SecureRandom& keys) : shape_(shape), random_(seed), keys_(keys) {}

  // Adds the pieces of the connection's message number `sequence`.
  void add_message(Trickle& trickle, ws::Opcode opcode, Bytes payload, std::uint64_t sequence);

  // Adds one whole control frame.
  void add_control(Trickle& trickle, ws::Opcode opcode, Bytes payload);

 private:
  void append(Piece& piece, ws::Opcode opcode, Bytes payload, bool fin);
  Piece fragments(ws::Opcode opcode, Bytes payload, bool with_control);

  Shape shape_;
  SeededRandom random_;
  SecureRandom& keys_;
};

}  // namespace levada::load
