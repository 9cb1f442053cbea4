// Counters of a reactor: what it did since it was made. Written on its thread, read on any.
#pragma once

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>

#include <levada/core/counter.h>

namespace levada::net {

// How often a time was how long, in steps of a factor of two from 256 ns to 8.6 s.
class LatencyHistogram {
 public:
  static constexpr std::size_t buckets = 26;

  // The upper bound of a bucket in nanoseconds; the last bucket has none.
  static constexpr std::uint64_t bound_ns(std::size_t bucket) { return std::uint64_t{256} << bucket; }

  void record(std::uint64_t ns) {
    const auto width = static_cast<std::size_t>(std::bit_width(ns == 0 ? 0 : (ns - 1) >> 8));
    counts_[width < buckets ? width : buckets - 1].add();
    sum_ns_.add(ns);
  }
  std::uint64_t count(std::size_t bucket) const { return counts_[bucket].value(); }
  std::uint64_t sum_ns() const { return sum_ns_.value(); }

 private:
  std::array<Counter, buckets> counts_;
  Counter sum_ns_;
};

struct ReactorCounters {
  Counter turns;
  Counter accepted;
  Counter accept_failures;
  Counter receives;
  Counter received_bytes;
  Counter sent_bytes;     // that the kernel took
  Counter blocked;        // how often the kernel took less than was queued
  Counter posts_refused;  // by ReactorOptions::max_posted_bytes; written by any thread, one at a time
  // How long received bytes waited for the handler, of one receive in 16: since the wait that reported them ended; when
  // that was shorter than the turn before it, for they may have come in that turn, since the end of the wait before. So
  // what came while a turn ran counts as if it had come when the turn began: no more than that turn too much.
  LatencyHistogram latency;
};

}  // namespace levada::net
