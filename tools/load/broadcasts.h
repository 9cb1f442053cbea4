// Broadcasts: which listener has heard which message of the publisher. No I/O.
//
// Model: broadcasts are numbered from 0. Those that some listener has not heard are open, and kept from the oldest
// on; a listener that left is not waited for. Every listener hears each broadcast once, in order.
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <vector>

#include <levada/tools/load/ledger.h>
#include <levada/tools/load/payload.h>
#include <levada/tools/load/result.h>

namespace levada::load {

class Broadcasts {
 public:
  // Listeners are numbered below `listeners`; the publisher is connection `publisher`. `payloads` must outlive it.
  Broadcasts(const Payloads& payloads, std::uint32_t publisher, std::uint32_t listeners)
      : payloads_(payloads), publisher_(publisher), gone_(listeners, true), heard_(listeners, 0) {}

  void join(std::uint32_t listener) { gone_[listener] = false; }

  // How many are not heard by all yet.
  std::uint64_t open() const { return open_; }
  std::uint64_t published() const { return first_ + kept_.size(); }
  std::uint64_t expected() const { return expected_; }  // deliveries, of all broadcasts

  // Notes the next broadcast, to all listeners that have joined; returns its number. `counts`: it is measured.
  std::uint64_t publish(std::uint64_t planned_ns, bool counts) {
    Kept kept{planned_ns, planned_ns, 0, counts, {}, std::vector<bool>(gone_.size(), true)};
    for (std::size_t i = 0; i < gone_.size(); i++) {
      if (gone_[i]) continue;
      kept.done[i] = false;
      kept.awaited++;
    }
    expected_ += kept.awaited;
    if (counts) {
      result_.published++;
      result_.expected += kept.awaited;
    }
    open_ += kept.awaited > 0;
    kept_.push_back(std::move(kept));
    return published() - 1;
  }

  // Notes when the kernel got it; returns when it was planned.
  std::uint64_t written(std::uint64_t number, std::uint64_t now) {
    if (number < first_) return 0;
    Kept& kept = kept_[number - first_];
    kept.written_ns = now;
    return kept.planned_ns;
  }

  // Notes what a listener heard. `planned_ns` of the answer is 0 if it was no broadcast that it had to hear.
  Ledger::Answer hear(std::uint32_t listener, Bytes payload, std::uint64_t now) {
    const auto origin = payloads_.origin(payload);
    if (!origin)
      return {.echo = payload.size() == payloads_.size(publisher_, heard_[listener]) ? Echo::corrupt
                                                                                     : Echo::wrong_size};
    if (origin->connection != publisher_) return {.echo = Echo::foreign, .origin = *origin};
    const std::uint64_t number = whole(origin->sequence);
    if (number >= published()) return {.echo = Echo::unexpected};
    if (number < first_ || kept_[number - first_].done[listener])
      return {.echo = Echo::duplicated, .sequence = number};
    Kept& kept = kept_[number - first_];
    kept.done[listener] = true;
    kept.after_ns.push_back(now - kept.planned_ns);
    if (kept.counts) result_.delivered++;
    const Ledger::Answer answer{.echo = number + 1 < heard_[listener] ? Echo::reordered : Echo::right,
                                .planned_ns = kept.planned_ns,
                                .written_ns = kept.written_ns,
                                .sequence = number};
    heard_[listener] = std::max(heard_[listener], number + 1);
    settle(kept);
    return answer;
  }

  // The listener is gone: calls `visit(planned_ns)` for each broadcast that it has not heard.
  template <class Visit>
  void leave(std::uint32_t listener, Visit&& visit) {
    gone_[listener] = true;
    for (Kept& kept : kept_) {
      if (kept.done[listener]) continue;
      kept.done[listener] = true;
      visit(kept.planned_ns);
      settle(kept);
    }
    drop_settled();
  }

  // Forgets those that everybody has heard. Not while a listener's message is being handled.
  void drop_settled() {
    while (!kept_.empty() && kept_.front().awaited == 0) {
      kept_.pop_front();
      first_++;
    }
  }

  // Gives up all that are open: calls `visit(planned_ns)` for each delivery that did not happen.
  template <class Visit>
  void give_up(Visit&& visit) {
    for (std::uint32_t listener = 0; listener < gone_.size(); listener++) leave(listener, visit);
  }

  const BroadcastResult& result() const { return result_; }

 private:
  struct Kept {
    std::uint64_t planned_ns;
    std::uint64_t written_ns;
    std::uint32_t awaited;  // listeners that have neither heard it nor left
    bool counts;
    std::vector<std::uint64_t> after_ns;
    std::vector<bool> done;  // by listener: it is not awaited (any more)
  };

  // The payload has the low bits of the number only.
  std::uint64_t whole(std::uint64_t low) const {
    const std::uint64_t distance = (published() - low) & Payloads::sequence_mask;
    return distance == 0 ? published() : published() - distance;
  }

  void settle(Kept& kept) {
    if (--kept.awaited > 0) return;
    open_--;
    if (!kept.counts || kept.after_ns.empty()) return;
    std::sort(kept.after_ns.begin(), kept.after_ns.end());
    const auto at = [&](std::size_t percent) {
      return kept.after_ns[(kept.after_ns.size() * percent + 99) / 100 - 1];
    };
    result_.first.record(kept.after_ns.front());
    result_.median.record(at(50));
    result_.p99.record(at(99));
    result_.last.record(kept.after_ns.back());
  }

  const Payloads& payloads_;
  std::uint32_t publisher_;
  std::vector<bool> gone_;
  std::vector<std::uint64_t> heard_;  // by listener: one more than the latest
  std::deque<Kept> kept_;
  std::uint64_t first_ = 0;  // number of the first that is kept
  std::uint64_t open_ = 0;
  std::uint64_t expected_ = 0;
  BroadcastResult result_;
};

}  // namespace levada::load
