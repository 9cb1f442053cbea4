// MemoryBudget: how much memory all reactors of an engine together use for messages, and how much they may.
//
// Model: every BlockPool adds what its blocks really occupy (a large one what was written to it, not what was declared)
// and takes it away when it gives a block back to the system. Nothing is refused here: who allocates goes on, and the
// engine relieves the pressure by its policy. Any thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace levada {

// What happens while more is used than the limit. All of them first give back what is only kept for reuse, and listeners
// pause from the turn on in which it is exceeded. What a connection holds is the pooled memory that would come back with
// it: not a PreparedMessage or a kept payload that others refer to. One connection goes each turn of a reactor. All opening
// handshakes together count as one: if that is the heaviest, the heaviest of them is refused with 503.
enum class BudgetPolicy : std::uint8_t {
  stop_accepting,  // no more than that
  refuse_large,    // the largest message under way, if it holds more than 64 KiB, is refused with 1013
  shed_slowest,    // the connection that holds most, queued and received, is cut
};

class MemoryBudget {
 public:
  explicit MemoryBudget(std::size_t limit_bytes, BudgetPolicy policy = BudgetPolicy::stop_accepting)
      : limit_bytes_(limit_bytes), policy_(policy) {}

  void add(std::size_t bytes) { used_bytes_.fetch_add(bytes, std::memory_order_relaxed); }
  void subtract(std::size_t bytes) { used_bytes_.fetch_sub(bytes, std::memory_order_relaxed); }

  std::size_t used_bytes() const { return used_bytes_.load(std::memory_order_relaxed); }
  std::size_t limit_bytes() const { return limit_bytes_; }
  BudgetPolicy policy() const { return policy_; }
  bool exceeded() const { return used_bytes() > limit_bytes_; }

 private:
  std::atomic<std::size_t> used_bytes_{0};
  std::size_t limit_bytes_;
  BudgetPolicy policy_;
};

}  // namespace levada
