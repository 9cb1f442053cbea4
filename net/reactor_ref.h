// ReactorRef: a name for a reactor that any thread may keep and use, also when the reactor is gone.
//
// Model: each reactor has a ReactorRecord, which outlives it: it is never freed, only used again by another reactor in a
// further life. So a name {record, life} may be kept for ever and costs no reference count.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

#include <levada/core/task.h>

namespace levada::net {

class Reactor;

enum class Posted : std::uint8_t {
  taken,
  full,  // ReactorOptions::max_posted_bytes would wait
  gone,  // there is no such reactor
};

class ReactorRecord {
 public:
  // One for a reactor that begins.
  static ReactorRecord& open(Reactor& reactor);
  // Its reactor ends: returns when no other thread uses it any more by this record.
  void close();

 private:
  friend class ReactorRef;

  Reactor* reactor_ = nullptr;
  std::atomic<std::uint32_t> life_{1};
  std::atomic<unsigned> users_{0};
};

class ReactorRef {
 public:
  ReactorRef() = default;  // of no reactor
  explicit ReactorRef(ReactorRecord& record)
      : record_(&record), life_(record.life_.load(std::memory_order_relaxed)) {}

  bool operator==(const ReactorRef&) const = default;

  // Any thread. As Reactor::post_bounded(); a task that is not taken stays with the caller.
  Posted post(Task& task, std::size_t bytes = 0) const;

  // Any thread. Whether the reactor has ended, or is about to.
  bool is_gone() const {
    return record_ == nullptr || record_->life_.load(std::memory_order_relaxed) != life_;
  }

  // The reactor's thread: nullptr when it is gone.
  Reactor* get() const { return is_gone() ? nullptr : record_->reactor_; }

 private:
  ReactorRecord* record_ = nullptr;
  std::uint32_t life_ = 0;
};

}  // namespace levada::net
