// Recorder: what one thread writes down while messages come and go; no I/O.
//
// Model: begin() and end() mark the time that counts. A message belongs to the histograms if it was planned in that
// time, however late its echo comes, and to the throughput if its echo came in that time. Each tick() ends a second of
// the series. Response times are gathered for a second and then added to the result.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>

#include <levada/tools/load/ledger.h>
#include <levada/tools/load/result.h>

namespace levada::load {

class Recorder {
 public:
  Result& result() { return result_; }
  const Result& result() const { return result_; }

  bool measuring() const { return measuring_; }
  bool counts(std::uint64_t planned_ns) const { return planned_ns >= from_ns_; }
  std::uint64_t from_ns() const { return from_ns_; }

  void begin(std::uint64_t now) {
    from_ns_ = now;
    measuring_ = true;
  }

  void end(std::uint64_t now, std::uint64_t open) {
    if (!measuring_) return;
    result_.seconds = static_cast<double>(now - from_ns_) / 1e9;
    // A short rest belongs to the second before it.
    const bool joins = result_.seconds - last_tick_s_ <= 0.1 && !result_.series.empty();
    tick(now, open);
    measuring_ = false;
    if (!joins) return;
    Second rest = std::move(result_.series.back());
    result_.series.pop_back();
    if (rest.messages + rest.errors + rest.response.count() == 0) return;
    result_.series.back().open = 0;  // it is the rest's
    result_.series.back().add(rest);
  }

  // A right echo of `bytes` bytes.
  void echo(const Ledger::Times& message, std::size_t bytes, std::uint64_t now) {
    result_.verified++;
    if (measuring_) {
      result_.messages++;
      result_.bytes += bytes;
    }
    if (!counts(message.planned_ns)) return;
    const Course course{message.planned_ns, message.written_ns, now};
    if (course != alike_) record_alike();
    alike_ = course;
    alike_count_++;
  }

  // Messages that were planned then were handed to the kernel now.
  void write(std::uint64_t planned_ns, std::uint64_t now, std::uint64_t times = 1) {
    if (counts(planned_ns)) result_.lag.record(now - planned_ns, times);
  }

  // A message that will never be answered took at least until now.
  void lose(std::uint64_t planned_ns, std::uint64_t now) {
    result_.count("lost", 1);
    censor(planned_ns, now);
  }

  // Messages that were due and never sent: the load's own fault. They would have taken at least until now.
  void leave_unsent(std::uint64_t planned_ns, std::uint64_t now, std::uint64_t times = 1) {
    if (!counts(planned_ns)) return;
    result_.unsent += times;
    result_.lag.record(now - planned_ns, times);
    censor(planned_ns, now, times);
  }

  // A second is over.
  void tick(std::uint64_t now, std::uint64_t open) {
    if (!measuring_) return;
    record_alike();
    Second second;
    second.at_s = last_tick_s_ = static_cast<double>(now - from_ns_) / 1e9;
    second.messages = result_.messages - messages_before_;
    const std::uint64_t errors = result_.error_count();
    second.errors = errors - errors_before_;
    second.open = open;
    second.response = Sketch(second_);
    messages_before_ = result_.messages;
    errors_before_ = errors;
    gather();
    result_.series.push_back(second);
    const std::lock_guard lock(latest_mutex_);
    latest_ = std::move(second);
  }

  // No message will come any more.
  void finish() {
    record_alike();
    gather();
  }

  // Any thread: the last second that is over.
  std::optional<Second> latest() const {
    const std::lock_guard lock(latest_mutex_);
    return latest_;
  }

 private:
  struct Course {
    std::uint64_t planned_ns = 0;
    std::uint64_t written_ns = 0;
    std::uint64_t echoed_ns = 0;
    bool operator==(const Course&) const = default;
  };

  // Messages that were planned, written, and answered together, as those of a deep closed loop are, count at once.
  void record_alike() {
    if (alike_count_ == 0) return;
    second_.record(alike_.echoed_ns - alike_.planned_ns, alike_count_);
    result_.service.record(alike_.echoed_ns - alike_.written_ns, alike_count_);
    alike_count_ = 0;
  }

  void censor(std::uint64_t planned_ns, std::uint64_t now, std::uint64_t times = 1) {
    if (!counts(planned_ns)) return;
    second_.record(now - planned_ns, times);
    result_.censored += times;
  }

  void gather() {
    result_.response.add(second_);
    second_.clear();
  }

  Result result_;
  bool measuring_ = false;
  std::uint64_t from_ns_ = ~std::uint64_t{0};
  Histogram second_;
  Course alike_;
  std::uint64_t alike_count_ = 0;  // not recorded yet
  double last_tick_s_ = 0;
  std::uint64_t messages_before_ = 0;
  std::uint64_t errors_before_ = 0;
  mutable std::mutex latest_mutex_;
  std::optional<Second> latest_;  // guarded by latest_mutex_
};

}  // namespace levada::load
