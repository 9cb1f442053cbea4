// Clocks: when the deadlines of one connection are due, worked out from what was seen of it.
//
// Model: a turn has one time. Before and after each turn it is looked at what is queued and whether the kernel refused it;
// together with what the handlers were told, that says which deadlines the engine has to have. A connection that is
// ending has one: close_timeout_ms after it began to, or came to its next part, or after the last byte left of a queue
// that had waited. If the peer still takes bytes at that time, it is moved to close_timeout_ms after the last it took,
// but never beyond write_timeout_ms after the ending began.
//
// Where a turn does not show from outside whether the queue had waited in it, the deadline is one of two.
//
// One that is open (OpenClocks) has those of its options. They are exact: in the first turn in which one is over the
// engine does what belongs to it, and not before.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

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

// Where frames and messages end in what a peer sends; it has to keep to the rules.
class Boundaries {
 public:
  // Returns whether a message ended in these bytes.
  bool feed(std::string_view bytes);
  // Neither in a frame nor in a message.
  bool idle() const { return header_.empty() && missing_ == 0 && !in_message_; }

 private:
  bool take_header();

  std::string header_;
  std::uint64_t missing_ = 0;  // of the frame's payload
  bool in_message_ = false, ends_message_ = false;
};

class OpenClocks {
 public:
  // `streams`: the handler takes pieces.
  OpenClocks(const ServiceOptions& options, bool streams) : options_(options), streams_(streams) {}

  void opened(std::uint64_t now_ms) { opened_ms_ = received_ms_ = now_ms; }
  // The engine received bytes of frames. `known`: it looked at them at once.
  void received(std::string_view bytes, std::uint64_t now_ms, bool known);
  void paused(std::uint64_t now_ms) { paused_ms_ = now_ms; }
  void resumed(std::uint64_t now_ms);
  // Reading may have been paused and resumed in between.
  void drained() { window_known_ = false; }

  bool lifetime_is_over(std::uint64_t now_ms) const;
  bool is_idle(std::uint64_t now_ms) const;
  bool is_stalled(const Connection& connection, std::uint64_t now_ms) const;
  bool message_is_late(std::uint64_t now_ms) const;
  bool message_is_slow(std::uint64_t now_ms) const;
  bool ping_is_due(std::uint64_t now_ms) const;

  // Whether a connection that is open after a turn should not be.
  bool is_overdue(const Connection& connection, std::uint64_t now_ms) const;
  void after_turn(const Connection& connection, std::uint64_t now_ms);

 private:
  const ServiceOptions& options_;
  bool streams_;
  Boundaries boundaries_;
  std::uint64_t opened_ms_ = 0, received_ms_ = 0, paused_ms_ = 0;
  bool unfinished_ = false;                          // a message or frame is
  bool message_known_ = true, window_known_ = true;  // whether these are exact
  std::uint64_t began_ms_ = 0, window_began_ms_ = 0, window_bytes_ = 0;
};

}  // namespace levada::ws::test
