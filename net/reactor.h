// Reactor: one thread, one loop, one backend; the home of endpoints.
//
// One turn of the loop:
//   poll      the backend waits and reports; endpoints' handlers run and queue what they send
//   tasks     what other threads posted
//   timers    deadlines that have passed
//   flush     all queues to the kernel
//   end       turn memory is void, closed endpoints are destroyed
// Everything is called on the reactor's thread unless it says "any thread".
//
// A process that forks does so before it makes reactors: the child would share their descriptors, and cannot use an
// io_uring of its parent.
#pragma once

#include <atomic>
#include <cassert>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <levada/core/block_pool.h>
#include <levada/core/error.h>
#include <levada/core/random.h>
#include <levada/core/slab.h>
#include <levada/core/task.h>
#include <levada/net/backend.h>
#include <levada/net/counters.h>
#include <levada/net/endpoint.h>
#include <levada/net/reactor_ref.h>
#include <levada/net/stream.h>
#include <levada/net/timer_wheel.h>
#include <levada/net/turn_memory.h>

namespace levada::net {

struct ReactorOptions {
  // `automatic` takes io_uring when the kernel can do what is needed, else epoll; the environment variable
  // LEVADA_BACKEND (auto, epoll, io_uring) overrides it.
  BackendKind backend = BackendKind::automatic;
  // CPU that run() binds its thread to until it returns; -1 for none.
  int cpu = -1;
  // Freed blocks that are kept for reuse, in bytes.
  std::size_t retain_bytes = std::size_t{64} << 20;
  // epoll: the size of the receive buffer shared by all connections. io_uring: the size of each buffer of the
  // ring. 0 takes the backend's default. In bytes.
  std::size_t receive_buffer_bytes = 0;
  // io_uring: how many receive buffers, a power of two; 0 takes the default.
  unsigned receive_buffers = 0;
  // After it has received bytes or a connection, the reactor looks for more without waiting for so many microseconds: no
  // wake-up delays them, and the CPU is busy as long. 0: it waits at once.
  std::uint32_t spin_us = 0;
  // What Handle::send() may have waiting here, in bytes: messages of other threads that this one has not come to yet.
  std::size_t max_posted_bytes = std::size_t{64} << 20;
  // Shared with the other reactors of an engine; nullptr: no bound on memory as a whole.
  std::shared_ptr<MemoryBudget> budget = nullptr;
};

class Reactor {
 public:
  // Makes a reactor with the backend that the options ask for. Errors: Errc::not_supported when io_uring was
  // asked for by name and the kernel cannot; invalid_argument when LEVADA_BACKEND names none, or the
  // calling thread may not use the CPU that the options name; descriptor_limit, no_memory.
  static Result<std::unique_ptr<Reactor>> create(const ReactorOptions& options = {});

  // With a backend made by the caller (the simulated one).
  using MakeBackend = std::unique_ptr<Backend> (*)(Reactor& reactor, void* context);
  Reactor(const ReactorOptions& options, MakeBackend make_backend, void* context);

  Reactor(const Reactor&) = delete;
  Reactor& operator=(const Reactor&) = delete;
  // Closes every endpoint, and drops the tasks that did not run. Call it on the thread that ran the loop last, or when
  // that thread has ended. All references on received memory have been dropped by then, also those that tasks of other
  // reactors hold (discard_tasks()). What on_closed() and its like begin meanwhile is refused or dropped.
  ~Reactor();

  // Runs turns until stop(); what was sent in the last one is still handed to the kernel. Binds the reactor
  // to the calling thread; with io_uring, all turns of a reactor's life are of one thread.
  void run();

  // One turn that waits at most `timeout_ms` milliseconds (-1: forever) for something to happen; not at all while the
  // reactor spins (ReactorOptions::spin_us). Not inside a turn of the same reactor (asserted).
  void run_once(int timeout_ms);

  // Closes every endpoint, and returns when the kernel has let go of their descriptors: only the thread that ran the
  // loop can make an io_uring do that at once. After run(). Until it returns, add() refuses what has a descriptor.
  void close_all();

  // Drops the tasks that did not run, and from now on those that are posted. When no thread runs the loop any more:
  // tasks may hold memory of another reactor, so of several all are told before the first is destroyed.
  void discard_tasks();

  // Any thread, while the reactor is there. Makes run() return after its turn; if it does not run, the next one.
  void stop();

  // Any thread, while the reactor is there: who posts sees to that. Runs `task` on the reactor's thread in its next turn.
  // Tasks of one thread run in their order. What has not run when the reactor ends is dropped without being called.
  // Never refused: bounding what is posted is the caller's part, or post_bounded()'s.
  void post(Task task);

  // The same for a task that holds `bytes` of memory. Returns false, and drops it, when more than
  // ReactorOptions::max_posted_bytes would wait.
  bool post_bounded(Task task, std::size_t bytes);

  // A name for this reactor that any thread may use, also when it is gone: it can post, too.
  ReactorRef ref() const { return ReactorRef(record_); }

  // Who can give back memory. In each turn that begins while the memory budget is exceeded, all are asked how many bytes
  // that would be, and the one with most, if it is more than 0, is told to do it: as long as the result is kept, which may
  // be longer than the reactor.
  struct Relief {
    std::size_t (*weigh)(void* context);
    void (*relieve)(void* context);  // follows weigh()
    void* context;
  };
  std::shared_ptr<Relief> add_relief(const Relief& relief);
  MemoryBudget* budget() { return options_.budget.get(); }

  // Runs `task` once, `delay_ms` milliseconds from now, unless its id is closed before. Dropped when the reactor ends.
  SlotId after(std::uint32_t delay_ms, Task task);

  // Builds an endpoint of type T in a slot and starts it. On an error the descriptor is closed, and nullptr
  // comes back; last_error() says why: canceled while the reactor ends, else the kernel's. `arguments` are T's
  // constructor's.
  template <class T, class... Arguments>
  T* add(Arguments&&... arguments) {
    static_assert(sizeof(T) <= endpoint_slot_bytes,
                  "an endpoint is two cache lines: keep the rest behind a pointer");
    const SlotId id = slots_.allocate();
    T* endpoint = ::new (slots_.at(id.index)) T(std::forward<Arguments>(arguments)...);
    return start(*endpoint, id) ? endpoint : nullptr;
  }
  // The same for a socket whose connect() is under way: on_connected() or on_end() tells how it went.
  template <class T, class... Arguments>
  T* add_connecting(Arguments&&... arguments) {
    static_assert(sizeof(T) <= endpoint_slot_bytes);
    const SlotId id = slots_.allocate();
    T* endpoint = ::new (slots_.at(id.index)) T(std::forward<Arguments>(arguments)...);
    static_cast<Endpoint*>(endpoint)->connecting_ = true;
    return start(*endpoint, id) ? endpoint : nullptr;
  }
  // Why the last add() returned nullptr.
  const Error& last_error() const { return last_error_; }

  // The endpoint of that id, or nullptr when it is closed or gone.
  Endpoint* find(SlotId id) {
    auto* endpoint = static_cast<Endpoint*>(slots_.find(id));
    return endpoint != nullptr && !endpoint->closed() ? endpoint : nullptr;
  }

  // Calls `visit(Endpoint&)` for every endpoint that is not closed.
  template <class Visit>
  void for_each(Visit&& visit) {
    for_each_slot([&](Endpoint& endpoint) {
      if (!endpoint.closed()) visit(endpoint);
    });
  }
  // The same for those too that are closed and will be destroyed at the end of the turn.
  template <class Visit>
  void for_each_slot(Visit&& visit) {
    for (std::uint32_t i = 0; i < slots_.capacity(); i++) {
      if (slots_.used(i)) visit(*static_cast<Endpoint*>(slots_.at(i)));
    }
  }

  // Milliseconds since the reactor began, modulo 2^32: inside a turn as of its beginning, outside of one read
  // now.
  std::uint32_t now_ms() {
    if (!in_turn_) read_time();
    return now_ms_;
  }
  // Nanoseconds by the backend's clock, read now.
  std::uint64_t now_ns() { return backend_->now_ns(); }
  // Seconds since 1970 (UTC), read now.
  std::uint64_t unix_seconds() { return backend_->unix_seconds(); }

  // Whether the calling thread is the one that runs this reactor. Any thread.
  bool on_own_thread() const;

  Backend& backend() { return *backend_; }
  // Why the backend is not the one that `automatic` prefers; empty when it is.
  const std::string& fallback_reason() const { return fallback_reason_; }

  BlockPool& blocks() { return blocks_; }
  TurnMemory& turn_memory() { return turn_memory_; }
  SegmentPool& segments() { return segments_; }
  SecureRandom& random() { return random_; }
  const ReactorOptions& options() const { return options_; }
  // What happened so far. Any thread.
  const ReactorCounters& counters() const { return counters_; }
  std::size_t endpoints() const { return slots_.in_use(); }
  // Whatever the layer above keeps once for each reactor: it goes with the reactor, behind the last endpoint.
  std::shared_ptr<void>& attachment() { return attachment_; }

  // ---- For backends ----

  // The wait of poll() is over. Called before anything is reported, so that handlers do not count their
  // deadlines from the time before the wait.
  void begin_turn() {
    in_turn_ = true;
    counters_.turns.add();
    const std::uint64_t last_ns = poll_ended_ns_;
    read_time();
    poll_ended_ns_ = turn_ns_;
    const bool waited = turn_ns_ - wait_began_ns_ >= wait_began_ns_ - last_ns;
    ready_ns_ = waited || last_ns == 0 ? turn_ns_ : last_ns;
  }

  void accepted(Listener& listener, Fd fd);
  void accept_failed(Listener& listener, const Error& error);
  void connected(Stream& stream);
  void received(Stream& stream, MutableBytes bytes, Owner* memory) {
    if (stream.closed() || stream.ended_) return;
    counters_.receives.add();
    counters_.received_bytes.add(bytes.size());
    if (counters_.receives.value() % latency_sample == 0) measure_latency();
    if (stream.secured_) return tls_layer(stream).receive(bytes, memory);
    stream.on_receive(bytes, memory);
  }
  void ended(Stream& stream, const Error& error);
  void readable(Watch& watch) { watch.readable_(watch.context_, watch); }
  void writable(Stream& stream);

  // The kernel took `size` bytes of the stream's queue; with `blocked` it refused the next ones and will say
  // when there is room. What is left is spilled. Calls no handler.
  void sent(Stream& stream, std::size_t size, bool blocked);
  // Follows sent(), at once or later: if nothing is left, ends the sending side if that was asked for, and
  // tells the stream, which may send again.
  void sending_done(Stream& stream);
  // The kernel refused the stream's bytes for good, or the connection failed: the queue is dropped, nothing
  // is sent any more. ended() tells the stream.
  void drop_sends(Stream& stream);

  // The next stream with something to send, no longer in the list, or nullptr.
  Stream* take_dirty();
  bool has_dirty() const { return dirty_head_ != nothing; }
  // Ends the turn's memory: all that was queued has been sent or spilled.
  void end_turn() { turn_memory_.reset(); }
  // Copies what the stream has queued in turn memory to memory of its own.
  void spill(Stream& stream) { stream.queue_.spill(segments_, blocks_); }
  // Whether a stream that has sent all of its queue goes on with more.
  bool has_more(const Stream& stream) const { return stream.secured_ && tls_layer(stream).can_go_on(); }

  // The endpoint of that id whether closed or not, or nullptr when its slot was released.
  Endpoint* slot(SlotId id) { return static_cast<Endpoint*>(slots_.find(id)); }

 private:
  friend class Endpoint;
  friend class Listener;
  friend class ReactorRef;
  friend class Stream;
  friend class TlsLayer;
  static constexpr std::uint32_t nothing = ~std::uint32_t{0};
  static constexpr std::uint64_t latency_sample = 16;  // one receive in so many is timed

  TlsLayer& add_tls_layer(Stream& stream);
  TlsLayer& tls_layer(const Stream& stream) const { return *tls_layers_[stream.id().index]; }
  bool start(Endpoint& endpoint, SlotId id);
  void close(Endpoint& endpoint);
  void destroy_closed();
  void close_endpoints();
  void clear_queues(Stream& stream);
  void unlink_closed_dirty();
  void resume_listeners();
  bool accepting_is_over_budget() const;
  void relieve_memory();
  void pause_listeners();
  void measure_latency();
  void read_time();
  bool push_task(Task& task, std::size_t bytes);
  void wake();
  void run_tasks();
  void advance_timers();
  int wait_limit(int timeout_ms) const;
  bool is_spinning();
  void mark_dirty(Stream& stream);
  Stream& stream_at(std::uint32_t index) {
    return *static_cast<Stream*>(static_cast<Endpoint*>(slots_.at(index)));
  }
  void bind_to_current_thread();

  ReactorOptions options_;
  BlockPool blocks_;
  SegmentPool segments_;
  TurnMemory turn_memory_;
  SecureRandom random_;
  std::uint64_t spin_until_ns_ = 0;
  std::uint64_t events_before_spin_ = 0;  // of those that is_spinning() has seen
  Slab<endpoint_slot_bytes> slots_;
  TimerWheel timers_;
  std::unique_ptr<Backend> backend_;
  std::uint64_t start_ns_ = 0;
  std::uint64_t turn_ns_ = 0;  // when the time was read
  std::uint64_t wait_began_ns_ = 0;
  std::uint64_t poll_ended_ns_ = 0;  // the wait of this turn
  std::uint64_t ready_ns_ = 0;       // from when the latency of this turn's receives counts
  std::uint32_t now_ms_ = 0;
  bool in_turn_ = false;
  bool ending_ = false;  // add() refuses

  std::uint32_t dirty_head_ = nothing;
  std::uint32_t dirty_tail_ = nothing;
  std::vector<std::uint32_t> closed_;
  std::vector<SlotId> listeners_;
  std::vector<SlotId> paused_listeners_;
  std::vector<std::weak_ptr<Relief>> reliefs_;
  ReactorCounters counters_;
  std::vector<std::unique_ptr<TlsLayer>> tls_layers_;  // by slot
  Error last_error_;
  std::string fallback_reason_;
  std::shared_ptr<void> attachment_;

  std::mutex tasks_mutex_;
  std::vector<Task> tasks_;          // guarded by tasks_mutex_
  std::size_t posted_bytes_ = 0;     // of them; guarded by tasks_mutex_
  bool discards_tasks_ = false;      // guarded by tasks_mutex_
  std::vector<Task> running_tasks_;  // the reactor's thread only
  std::atomic<bool> has_tasks_{false};
  ReactorRecord& record_;
  std::atomic<bool> stopping_{false};
  std::atomic<std::uintptr_t> thread_{0};
};

inline std::uint8_t* Stream::reserve(std::size_t size) {
  return reactor().turn_memory().allocate(size);
}

inline void Stream::mark_dirty() {
  if (!dirty_) reactor().mark_dirty(*this);
}

inline void Stream::enqueue(Bytes bytes, Owner* owner, Mark mark) {
  if (closed_ || finishing_) {
    if (owner != nullptr) owner->drop_reference();
    return;
  }
  SendQueue& queue = secured_ ? reactor().tls_layer(*this).plain() : queue_;
  queue.append(reactor().segments(), bytes, owner, mark);
  mark_dirty();
}

inline void Stream::send_raw(Bytes bytes) {
  queue_.append(reactor().segments(), bytes);
  mark_dirty();
}

inline void Reactor::mark_dirty(Stream& stream) {
  stream.dirty_ = true;
  stream.next_dirty_ = nothing;
  if (dirty_tail_ == nothing) {
    dirty_head_ = stream.id().index;
  } else {
    stream_at(dirty_tail_).next_dirty_ = stream.id().index;
  }
  dirty_tail_ = stream.id().index;
}

inline Stream* Reactor::take_dirty() {
  while (dirty_head_ != nothing) {
    Stream& stream = stream_at(dirty_head_);
    dirty_head_ = stream.next_dirty_;
    if (dirty_head_ == nothing) dirty_tail_ = nothing;
    if (stream.secured_ && !stream.closed()) tls_layer(stream).flush();
    stream.dirty_ = false;
    if (!stream.closed()) return &stream;
  }
  return nullptr;
}

}  // namespace levada::net
