// Ledger: what one connection has sent and what came back. No I/O.
//
// Model: messages are numbered from 0; echoes are due in that order.
//
//   |------ answered, or skipped ------|------ in flight ------|
//                                   oldest_                  next_
//
// An echo of a later message than the oldest skips those between: they are missing, and either come late
// (reordered) or never (lost). The last window() messages are remembered; a missing one that falls out of
// them is lost. The window grows with what is in flight, so that none of these ever falls out.
// Invariant: sent() = right and reordered echoes + wrong ones that took a message's place + lost + missing + in
// flight.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <utility>
#include <vector>

#include <levada/tools/load/payload.h>

namespace levada::load {

enum class Echo : std::uint8_t {
  right,
  reordered,   // right, but after a later one
  duplicated,  // of a message that was answered before
  foreign,     // another connection's message
  corrupt,     // nobody's message; also right bytes as text instead of binary, or the other way round
  wrong_size,
  unexpected,  // nothing was in flight, and it is none of the last messages
};

// "reordered"; static storage.
constexpr const char* to_string(Echo echo) {
  switch (echo) {
    case Echo::right:
      return "right";
    case Echo::reordered:
      return "reordered";
    case Echo::duplicated:
      return "duplicated";
    case Echo::foreign:
      return "foreign";
    case Echo::corrupt:
      return "corrupt";
    case Echo::wrong_size:
      return "wrong_size";
    case Echo::unexpected:
      return "unexpected";
  }
  return "";
}

class Ledger {
 public:
  struct Times {
    std::uint64_t planned_ns = 0;  // when the message was to be sent; 0: it was answered, or given up
    std::uint64_t written_ns = 0;  // when it was handed to the kernel
  };

  struct Answer {
    Times times() const { return {planned_ns, written_ns}; }

    Echo echo = Echo::right;
    std::uint64_t planned_ns = 0;  // when the answered message was to be sent; 0: none of ours was answered
    std::uint64_t written_ns = 0;  // when it was handed to the kernel
    std::uint64_t sequence = 0;    // that message's number
    Origin origin = {};            // of a foreign message
  };

  // `payloads` must outlive the ledger. About `depth` messages will be in flight.
  Ledger(const Payloads& payloads, std::uint32_t connection, unsigned depth)
      : payloads_(&payloads), connection_(connection), times_(std::bit_ceil(depth * std::size_t{2} + 14)) {}

  std::uint32_t connection() const { return connection_; }
  std::uint64_t sent() const { return next_; }
  std::uint64_t in_flight() const { return next_ - oldest_; }
  std::size_t window() const { return times_.size(); }

  // Gives up the missing message whose place the next one takes: the time when it was planned, or 0 if there
  // is none.
  std::uint64_t expire() {
    if (2 * in_flight() + 14 > window()) grow();
    return std::exchange(times(next_).planned_ns, 0);
  }

  // Notes that the next message is sent, with the time in nanoseconds (not 0) when that was planned; returns
  // its number. What is in its place must have been expired.
  std::uint64_t send(std::uint64_t planned_ns) {
    times(next_) = {planned_ns, planned_ns};
    fetch(next_);
    return next_++;
  }

  // Notes when the kernel got the messages from `first` to before `end`. Calls `visit(planned_ns, times)` for those that
  // are not answered already, once for any that follow each other and were planned at the same time.
  template <class Visit>
  void written(std::uint64_t first, std::uint64_t end, std::uint64_t written_ns, Visit&& visit) {
    std::uint64_t planned_ns = 0, alike = 0;
    for (first = std::max(first, next_ - remembered()); first < end; first++) {
      times(first).written_ns = written_ns;
      if (times(first).planned_ns != planned_ns) {
        if (planned_ns != 0) visit(planned_ns, alike);
        planned_ns = times(first).planned_ns;
        alike = 0;
      }
      alike++;
    }
    if (planned_ns != 0) visit(planned_ns, alike);
  }

  // The usual case: what came back is the echo that is due. Its times; those of no message if it is not, which
  // receive() has to be told.
  Times receive_due(Bytes payload) {
    fetch(oldest_);
    if (oldest_ == next_ || !payloads_->matches(payload, connection_, oldest_)) return {};
    Times& due = times(oldest_++);
    return {std::exchange(due.planned_ns, 0), due.written_ns};
  }

  // Notes what came back. A wrong echo takes the place of the oldest message in flight, which is not waited
  // for any more.
  Answer receive(Bytes payload) {
    for (std::uint64_t sequence = oldest_; sequence < next_; sequence++) {
      if (payloads_->matches(payload, connection_, sequence)) return answer(Echo::right, sequence);
    }
    for (std::uint64_t sequence = oldest_; sequence-- > next_ - remembered();) {
      if (!payloads_->matches(payload, connection_, sequence)) continue;
      return answer(times(sequence).planned_ns == 0 ? Echo::duplicated : Echo::reordered, sequence);
    }
    const auto origin = payloads_->origin(payload);
    if (!origin) {
      const bool fits = payload.size() == payloads_->size(connection_, oldest_);
      return receive_wrong(fits ? Echo::corrupt : Echo::wrong_size);
    }
    if (origin->connection == connection_) return {.echo = Echo::duplicated};
    Answer foreign = receive_wrong(Echo::foreign);
    foreign.origin = *origin;
    return foreign;
  }

  // Notes an echo that is wrong whatever its bytes are.
  Answer receive_wrong(Echo echo) {
    if (oldest_ != next_) return answer(echo, oldest_);
    return {.echo = echo == Echo::corrupt ? Echo::unexpected : echo};
  }

  // Gives up all messages that were not answered: calls `visit(planned_ns)` for each.
  template <class Visit>
  void give_up(Visit&& visit) {
    for (Times& times : times_) {
      if (times.planned_ns != 0) visit(std::exchange(times.planned_ns, 0));
    }
    oldest_ = next_;
  }

 private:
  // How many of the last messages have times.
  std::uint64_t remembered() const { return std::min<std::uint64_t>(next_, window()); }

  // The times of later messages into the cache: with many connections they have left it since their last use.
  void fetch(std::uint64_t sequence) { __builtin_prefetch(&times(sequence + 8), 1); }

  Times& times(std::uint64_t sequence) { return times_[sequence & (times_.size() - 1)]; }

  void grow() {
    std::vector<Times> wider(2 * window());
    for (std::uint64_t i = next_ - remembered(); i < next_; i++) wider[i & (wider.size() - 1)] = times(i);
    times_ = std::move(wider);
  }

  Answer answer(Echo echo, std::uint64_t sequence) {
    if (sequence >= oldest_) oldest_ = sequence + 1;
    const Times found = times(sequence);
    times(sequence).planned_ns = 0;
    return {
        .echo = echo, .planned_ns = found.planned_ns, .written_ns = found.written_ns, .sequence = sequence};
  }

  const Payloads* payloads_;
  std::uint32_t connection_;
  std::uint64_t next_ = 0;
  std::uint64_t oldest_ = 0;
  std::vector<Times> times_;  // by sequence
};

}  // namespace levada::load
