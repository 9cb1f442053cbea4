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

  // Takes everything that was planned until `now`: calls `visit(planned_ns, times)`. Where that is much, it is visited
  // in about 256 groups with the time of their first; a Poisson process then has as many as it has on average.
  template <class Visit>
  void take_until(std::uint64_t now, Visit&& visit) {
    const auto left = [&] {
      return 1 + static_cast<std::uint64_t>(static_cast<double>(now - next_ns_) / interval_ns_);
    };
    if (next_ns_ > now) return;
    for (const std::uint64_t group = 1 + left() / 256; next_ns_ <= now;) {
      const std::uint64_t times = group == 1 ? 1 : std::min(group, left());
      visit(next_ns_, times);
      advance(group == 1 ? step() : static_cast<double>(times) * interval_ns_);
    }
  }

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
