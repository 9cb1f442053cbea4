// Counter: a number that one thread advances and any thread may read, at the price of a plain addition.
#pragma once

#include <atomic>
#include <cstdint>

namespace levada {

class Counter {
 public:
  // One thread only, always the same.
  void add(std::uint64_t count = 1) {
    value_.store(value_.load(std::memory_order_relaxed) + count, std::memory_order_relaxed);
  }
  // Any thread.
  std::uint64_t value() const { return value_.load(std::memory_order_relaxed); }

 private:
  std::atomic<std::uint64_t> value_{0};
};

}  // namespace levada
