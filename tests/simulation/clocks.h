// Clocks: when the deadlines of one connection are due, worked out from what was seen of it.
//
// Model: a turn has one time. Before and after each turn it is looked at what is queued and whether the kernel refused it;
// together with what the handlers were told, that says which deadlines the engine has to have. A connection that is
// ending has one: close_timeout_ms after it began to, or came to its next part, or after the last byte left of a queue
// that had waited. If the peer still takes bytes at that time, it is moved to close_timeout_ms after the last it took,
// but never beyond write_timeout_ms after the ending began.
//
// Where a turn does not show from outside whether the queue had waited in it, the deadline is one of two.
#pragma once

#include <cstddef>
#include <cstdint>

#include <levada/ws/service.h>

namespace levada::ws::test {

class Clocks {
 public:
  explicit Clocks(const ServiceOptions& options) : options_(options) {}

  // It begins to end, or came to the next part of that.
  void ending(std::uint64_t now_ms);
  bool is_ending() const { return ending_; }

  void before_turn(const Connection* connection) { before_ = look(connection); }
  // It is still there after a turn. False when it should not be.
  bool after_turn(const Connection& connection, std::uint64_t now_ms);
  // It was given up: in its handler (`connection`), or it is just gone (nullptr). False when that was too early.
  bool may_give_up(const Connection* connection, std::uint64_t now_ms) const;

 private:
  struct Look {
    std::size_t buffered = 0;
    bool blocked = false;
    std::uint64_t stalled_ms = 0;
  };
  static Look look(const Connection* connection);
  // How long a peer that has not taken everything is still given; 0: no longer.
  std::uint64_t more_time(const Look& look, std::uint64_t now_ms) const;

  const ServiceOptions& options_;
  Look before_;
  bool ending_ = false;
  std::uint64_t ending_since_ms_ = 0;
  std::uint64_t due_least_ms_ = 0, due_most_ms_ = 0;  // the deadline is one of these
};

}  // namespace levada::ws::test
