// Schedule: when the messages of a connection are due. No I/O.
//
// Closed loop: each echo makes room for the next message, so a slow server is asked less, and its pauses hide.
// Open loop: each connection has a timetable of its own that begins at a random phase and goes on whatever comes
// back; its times are what latency is measured from. The worker keeps all its timetables in one DueQueue.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include <levada/core/random.h>

namespace levada::load {

// Closed loop with `depth` in flight.
struct ClosedLoop {
  unsigned depth = 1;

  // How many messages to send now.
  std::uint64_t due(std::uint64_t in_flight) const { return in_flight < depth ? depth - in_flight : 0; }
};

// The planned times of one connection: one every `interval_ns` on average, either evenly or as a Poisson process
// (what many independent users make). The same seed gives the same times after `begin_ns`.
class Timetable {
 public:
  Timetable() : random_(0) {}
  Timetable(std::uint64_t seed, std::uint64_t begin_ns, double interval_ns, bool poisson)
      : random_(seed), interval_ns_(interval_ns), next_ns_(begin_ns), poisson_(poisson) {
    advance(poisson ? step() : interval_ns * uniform());
  }

  // Nanoseconds; never 0.
  std::uint64_t next() const { return next_ns_; }
  void take() { advance(step()); }

 private:
  // In (0, 1].
  double uniform() { return (static_cast<double>(random_.next() >> 11) + 1) / 9007199254740992.0; }
  double step() { return poisson_ ? -std::log(uniform()) * interval_ns_ : interval_ns_; }

  // Whole nanoseconds, and what is left over for the next step, so that nothing adds up.
  void advance(double ns) {
    const double exact = ns + rest_;
    const auto whole = static_cast<std::uint64_t>(exact);
    rest_ = exact - static_cast<double>(whole);
    next_ns_ += whole;
  }

  SeededRandom random_;
  double interval_ns_ = 0;
  double rest_ = 0;
  std::uint64_t next_ns_ = 0;
  bool poisson_ = false;
};

// Which of many is due first: a heap of (time, number).
class DueQueue {
 public:
  bool empty() const { return heap_.empty(); }
  void clear() { heap_.clear(); }
  std::uint64_t first_ns() const { return heap_.front().ns; }
  std::uint32_t first() const { return heap_.front().number; }

  void push(std::uint64_t ns, std::uint32_t number) {
    heap_.push_back({ns, number});
    std::push_heap(heap_.begin(), heap_.end(), later);
  }

  void pop() {
    std::pop_heap(heap_.begin(), heap_.end(), later);
    heap_.pop_back();
  }

  // Gives the first one a new time.
  void postpone(std::uint64_t ns) {
    const std::uint32_t number = first();
    pop();
    push(ns, number);
  }

 private:
  struct Due {
    std::uint64_t ns;
    std::uint32_t number;
  };
  static bool later(const Due& a, const Due& b) { return a.ns > b.ns; }

  std::vector<Due> heap_;
};

}  // namespace levada::load
