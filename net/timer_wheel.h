// Timer wheel: deadlines with a grain of one millisecond, O(1) to set, move and cancel.
//
// Model (Varghese and Lauck's hierarchical wheels): level 0 has a slot for each of the next 64 ms, level 1
// for each of the next 64 x 64 ms, and so on. A timer waits in the level whose span holds its deadline; when
// the time reaches a slot of a higher level, its timers move down. Invariants: a linked timer's deadline is
// after `now` or it is in the slot that is being expired; the bitmaps have a bit set exactly for the slots
// that are not empty.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cstdint>

namespace levada::net {

// A deadline in a list of the wheel. Lives inside the object that waits; that object cancels it before it
// dies.
struct Timer {
  Timer* next = nullptr;
  Timer** link = nullptr;      // the pointer that points here; nullptr when the timer is not set
  std::uint32_t deadline = 0;  // milliseconds of the wheel's time, modulo 2^32
  std::uint16_t slot = 0;

  bool armed() const { return link != nullptr; }
};

// One thread. Times are milliseconds since the wheel began; differences of up to 12 days (2^30 ms) are kept
// exactly.
class TimerWheel {
 public:
  static constexpr std::uint32_t max_delay_ms = (std::uint32_t{1} << 30) - 1;

  explicit TimerWheel(std::uint32_t now_ms = 0) : now_(now_ms) {}

  // Sets `timer` to expire at `deadline`, or moves it there. A deadline that is not after now expires at the
  // next advance() of at least 1 ms.
  void set(Timer& timer, std::uint32_t deadline_ms) {
    cancel(timer);
    std::uint32_t delay = deadline_ms - now_;
    if (delay - 1 >= max_delay_ms) {  // not after now, or too far: as near as can be kept
      delay = static_cast<std::int32_t>(delay) <= 0 ? 1 : max_delay_ms;
    }
    timer.deadline = now_ + delay;
    insert(timer);
  }

  void cancel(Timer& timer) {
    if (!timer.armed()) return;
    *timer.link = timer.next;
    if (timer.next != nullptr) timer.next->link = timer.link;
    const unsigned level = timer.slot / slots, slot = timer.slot % slots;
    if (heads_[level][slot] == nullptr) occupied_[level] &= ~(std::uint64_t{1} << slot);
    timer.link = nullptr;
    count_--;
  }

  // Moves the time to `now_ms` and calls `expire(Timer&)` for each timer due by then, earlier ones first. The
  // timer is not set any more when the call begins; the call may set and cancel any timer.
  template <class Expire>
  void advance(std::uint32_t now_ms, Expire&& expire) {
    while (now_ != now_ms) {
      const std::uint32_t left = now_ms - now_;
      const std::uint32_t step = steps_to_next_event(left);
      now_ += step;
      if (now_ % slots == 0) cascade();
      expire_slot(now_ % slots, expire);
    }
  }

  // Milliseconds until the wheel has to be advanced again, or `none` when no timer is set. It may be earlier
  // than the first deadline (a cascade), never later.
  static constexpr std::uint32_t none = ~std::uint32_t{0};
  std::uint32_t next_event_ms() const {
    if (count_ == 0) return none;
    return steps_to_next_event(max_delay_ms);
  }

  std::uint32_t now() const { return now_; }
  std::uint32_t count() const { return count_; }
  // How often a timer moved down, so far: at most once for each level above the lowest.
  std::uint64_t moves() const { return moves_; }

 private:
  static constexpr unsigned bits = 6, slots = 1u << bits, levels = 5;

  void insert(Timer& timer) {
    const std::uint32_t delay = timer.deadline - now_;
    const unsigned level = delay < slots ? 0 : static_cast<unsigned>(std::bit_width(delay) - 1) / bits;
    const unsigned slot = (timer.deadline >> (level * bits)) % slots;
    timer.slot = static_cast<std::uint16_t>(level * slots + slot);
    Timer*& head = heads_[level][slot];
    timer.next = head;
    timer.link = &head;
    if (head != nullptr) head->link = &timer.next;
    head = &timer;
    occupied_[level] |= std::uint64_t{1} << slot;
    count_++;
  }

  // How far the time may jump, at most `limit`, without passing a non-empty slot of level 0 or a cascade that
  // matters.
  std::uint32_t steps_to_next_event(std::uint32_t limit) const {
    const unsigned at = now_ % slots;
    std::uint32_t step = limit;
    if (occupied_[0] != 0) {
      const std::uint64_t ahead = std::rotr(occupied_[0], static_cast<int>((at + 1) % slots));
      step = std::min(step, static_cast<std::uint32_t>(std::countr_zero(ahead)) + 1);
    }
    for (unsigned level = 1; level < levels; level++) {
      if (occupied_[level] == 0) continue;
      const unsigned shift = level * bits;
      const unsigned slot = (now_ >> shift) % slots;
      const std::uint64_t ahead = std::rotr(occupied_[level], static_cast<int>((slot + 1) % slots));
      const auto turns = static_cast<std::uint32_t>(std::countr_zero(ahead)) + 1;
      const std::uint32_t start = ((now_ >> shift) + turns) << shift;
      step = std::min(step, start - now_);
    }
    return step;
  }

  // Moves down the timers of each level whose slot begins now.
  void cascade() {
    for (unsigned level = 1; level < levels; level++) {
      const unsigned slot = (now_ >> (level * bits)) % slots;
      Timer* timer = take_slot(level, slot);
      while (timer != nullptr) {
        Timer* next = timer->next;
        count_--;
        moves_++;
        insert(*timer);
        timer = next;
      }
      if (slot != 0) break;
    }
  }

  template <class Expire>
  void expire_slot(unsigned slot, Expire&& expire) {
    // One at a time from the head: the callback may cancel any other timer of this slot.
    while (Timer* timer = heads_[0][slot]) {
      cancel(*timer);
      expire(*timer);
    }
  }

  Timer* take_slot(unsigned level, unsigned slot) {
    Timer* first = heads_[level][slot];
    heads_[level][slot] = nullptr;
    occupied_[level] &= ~(std::uint64_t{1} << slot);
    return first;
  }

  std::array<std::array<Timer*, slots>, levels> heads_{};
  std::array<std::uint64_t, levels> occupied_{};
  std::uint32_t now_;
  std::uint32_t count_ = 0;
  std::uint64_t moves_ = 0;
};

}  // namespace levada::net
