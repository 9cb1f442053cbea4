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

// What happens while more is used than the limit. All of them first give back what is only kept for reuse.
enum class BudgetPolicy : std::uint8_t {
  stop_accepting,  // listeners pause, from the turn on in which it is exceeded
  refuse_large,  // the largest message under way, if it is over 64 KiB, is refused with 1013; one each turn of a reactor
  shed_slowest,  // the connection that holds most memory, queued and received, is cut; one each turn of a reactor
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
