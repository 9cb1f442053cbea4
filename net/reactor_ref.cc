#include <levada/net/reactor_ref.h>

#include <mutex>
#include <thread>
#include <vector>

#include <levada/net/reactor.h>

namespace levada::net {
namespace {

// Those that no reactor has. Never destroyed: names may be used until the process ends.
struct Unused {
  std::mutex mutex;
  std::vector<ReactorRecord*> records;
};
Unused& unused() {
  static auto& instance = *new Unused;
  return instance;
}

}  // namespace

ReactorRecord& ReactorRecord::open(Reactor& reactor) {
  Unused& others = unused();
  const std::lock_guard lock(others.mutex);
  if (others.records.empty()) others.records.push_back(new ReactorRecord);
  ReactorRecord& record = *others.records.back();
  others.records.pop_back();
  record.reactor_ = &reactor;
  return record;
}

// Who has entered before the life ends is seen here, and who enters later sees that it has ended: both are sequentially
// consistent.
void ReactorRecord::close() {
  life_.fetch_add(1);
  while (users_.load() != 0) std::this_thread::yield();
  Unused& others = unused();
  const std::lock_guard lock(others.mutex);
  others.records.push_back(this);
}

Posted ReactorRef::post(Task& task, std::size_t bytes) const {
  if (record_ == nullptr) return Posted::gone;
  Posted posted = Posted::gone;
  record_->users_.fetch_add(1);
  if (record_->life_.load() == life_) {
    posted = record_->reactor_->push_task(task, bytes) ? Posted::taken : Posted::full;
  }
  record_->users_.fetch_sub(1);
  return posted;
}

}  // namespace levada::net
