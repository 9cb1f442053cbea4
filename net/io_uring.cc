#include <levada/net/io_uring.h>

#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <algorithm>
#include <atomic>
#include <cerrno>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include <levada/core/clock.h>
#include <levada/core/fd.h>
#include <levada/net/io_uring_buffers.h>
#include <levada/net/io_uring_compat.h>
#include <levada/net/reactor.h>
#include <levada/net/shared_buffer.h>
#include <levada/net/socket.h>

namespace levada::net {
namespace {

constexpr unsigned submission_entries = 1024;
constexpr unsigned completion_entries = 8192;
constexpr int io_uring_segments = 256;
// A stream whose messages were large is received from by multishot again when less than this comes at once.
constexpr std::size_t large_from_bytes = 16 * 1024;

enum class Operation : std::uint8_t { ignored, accept, receive, readable, writable, watch, wake, send };

// user_data: generation (32 bits), operation (4), slot index (28).
constexpr unsigned index_bits = 28;

bool is_failure(std::int32_t result) {
  return result < 0 && result != -EAGAIN && result != -EINTR;
}

std::uint64_t tag(Operation operation, SlotId id) {
  return (std::uint64_t{id.generation} << 32) |
         (std::uint64_t{static_cast<unsigned>(operation)} << index_bits) | id.index;
}
Operation operation_of(std::uint64_t data) {
  return static_cast<Operation>((data >> index_bits) & 0xF);
}
SlotId id_of(std::uint64_t data) {
  return {static_cast<std::uint32_t>(data) & ((1u << index_bits) - 1),
          static_cast<std::uint32_t>(data >> 32)};
}

// Nobody waits for how it ends.
void complete_silently(io_uring_sqe* request) {
  request->flags |= IOSQE_CQE_SKIP_SUCCESS;
  request->user_data = tag(Operation::ignored, {});
}

}  // namespace

// A send that the next enter submits, and what became of it.
struct Flight {
  SlotId id;
  std::uint32_t bytes;
  std::int32_t result;
};

struct Completion {
  std::uint64_t data;
  std::int32_t result;
  std::uint32_t flags;
};

class IoUringBackend final : public Backend {
 public:
  explicit IoUringBackend(Reactor& reactor)
      : reactor_(reactor), buffers_(reactor), large_buffer_(reactor.blocks(), 0) {}
  ~IoUringBackend() override;
  Error init();

  BackendKind kind() const override { return BackendKind::io_uring; }
  Error start(Endpoint& endpoint) override;
  void stop(Endpoint& endpoint) override;
  // Nothing but the poll that has just ended was under way.
  Fd release(Stream& stream) override { return Fd(std::exchange(stream.fd_, -1)); }
  void pause(Endpoint& endpoint) override;
  void resume(Endpoint& endpoint) override;
  void set_direct(Stream& stream) override;
  void flush() override;
  void leave() override;
  void poll(int timeout_ms) override;
  void shut_down(Stream& stream) override { ::shutdown(stream.fd_, SHUT_WR); }
  void wake() override;
  std::uint64_t now_ns() override { return monotonic_ns(); }
  bool can_lend() const override { return buffers_.can_lend(); }
  std::string describe() const override;

 private:
  void bind();
  bool submit();
  io_uring_sqe* next_request();
  void arm_receive(Stream& stream);
  void arm_accept(Listener& listener);
  void arm_poll(int fd, short events, Operation operation, SlotId id);
  Operation receiving(const Endpoint& endpoint) const;
  void cancel(Operation operation, SlotId id);

  void prepare_send(Stream& stream);
  void enter(int timeout_ms);
  void settle();
  void collect_completions();
  void retire_sends();
  void report_sends();
  void restart_starved();

  void handle(const Completion& completion);
  void handle_accept(const Completion& completion);
  void handle_receive(const Completion& completion);
  void handle_readable(const Completion& completion);
  void receive_large(Stream& stream);
  void flush_now();
  void handle_writable(const Completion& completion);
  void after_receive(Stream& stream, std::int32_t result);
  void receive_again(Stream& stream);
  Stream* find_stream(std::uint64_t data) { return static_cast<Stream*>(reactor_.find(id_of(data))); }

  Reactor& reactor_;
  io_uring ring_{};
  bool ring_made_ = false;
  bool bound_ = false;
  pthread_t thread_{};  // whom the ring belongs to once it is bound
  Fd event_;
  std::deque<io_uring_sqe> early_;  // requests made before that

  ReceiveRing buffers_;
  SharedBuffer large_buffer_;

  bool settle_first_ =
      false;  // the next turn must not wait: it depends on how sends end, or has completions already
  std::vector<Flight> flights_;
  std::vector<Completion> completions_;
  std::vector<SlotId> starved_;
};

// ---- Setting up ----

Error IoUringBackend::init() {
  const int made = init_ring(ring_, submission_entries, completion_entries);
  if (made < 0) return Error::from_os("io_uring_setup", -made);
  ring_made_ = true;
  event_ = Fd(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
  if (!event_) return Error::from_os("eventfd", errno);
  if (const Error error = buffers_.make(ring_)) return error;
  completions_.reserve(completion_entries);  // grown by use otherwise, in the middle of the work
  flights_.reserve(completion_entries);
  starved_.reserve(completion_entries);
  arm_poll(event_.get(), POLLIN, Operation::wake, {});
  return {};
}

// The ring belongs to the thread that enables it: the one that runs the loop, not the one that made the
// reactor.
void IoUringBackend::bind() {
  if (bound_) return;
  bound_ = true;
  thread_ = pthread_self();
  enable_ring(ring_);
  io_uring_register_ring_fd(&ring_);  // saves a descriptor look-up a turn; goes without if refused
  for (const io_uring_sqe& request : early_) *next_request() = request;
  early_.clear();
}

IoUringBackend::~IoUringBackend() {
  if (ring_made_) {
    bind();
    leave();  // descriptors that are still to be closed, requests to be cancelled
    for (const Completion& completion : completions_) {
      if (operation_of(completion.data) == Operation::accept) const Fd nobody_wants_it(completion.result);
    }
    buffers_.free();
    io_uring_queue_exit(&ring_);
  }
}

std::string IoUringBackend::describe() const {
  const char* use = buffers_.incremental() ? " used incrementally"
                                           : ", one receive each (the kernel cannot use them incrementally)";
  return "multishot accept and receive, " + std::to_string(buffers_.count()) + " buffers of " +
         std::to_string(buffers_.buffer_bytes() / 1024) + " KiB" + use;
}

void IoUringBackend::wake() {
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(event_.get(), &one, sizeof one);
}

// ---- Requests ----

// Whether another try may do better. One that fails otherwise fails always: the ring is another thread's.
bool IoUringBackend::submit() {
  const int result = io_uring_submit(&ring_);
  return result >= 0 || result == -EAGAIN || result == -EBUSY || result == -EINTR;
}

// Before the ring is bound, which submitting would do, there may be more of them than it has entries.
io_uring_sqe* IoUringBackend::next_request() {
  if (!bound_) return &early_.emplace_back();
  io_uring_sqe* request = io_uring_get_sqe(&ring_);
  while (request == nullptr) {
    if (!submit()) return &early_.emplace_back();  // nothing will come of it
    request = io_uring_get_sqe(&ring_);
  }
  return request;
}

void IoUringBackend::arm_receive(Stream& stream) {
  stream.armed_receive_ = true;
  if (stream.large_) return arm_poll(stream.fd_, POLLIN, Operation::readable, stream.id());
  io_uring_sqe* request = next_request();
  if (stream.little_) {
    io_uring_prep_recv(request, stream.fd_, nullptr, Stream::little_receive_bytes, 0);
  } else {
    io_uring_prep_recv_multishot(request, stream.fd_, nullptr, 0, 0);
  }
  request->flags |= IOSQE_BUFFER_SELECT;
  request->buf_group = ReceiveRing::group;
  request->user_data = tag(Operation::receive, stream.id());
}

void IoUringBackend::arm_accept(Listener& listener) {
  io_uring_sqe* request = next_request();
  io_uring_prep_multishot_accept(request, listener.fd_, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  request->user_data = tag(Operation::accept, listener.id());
  listener.armed_receive_ = true;
}

void IoUringBackend::arm_poll(int fd, short events, Operation operation, SlotId id) {
  io_uring_sqe* request = next_request();
  io_uring_prep_poll_add(request, fd, static_cast<unsigned>(events));
  request->user_data = tag(operation, id);
}

// What an endpoint with armed_receive_ waits in, unless that is being cancelled already.
Operation IoUringBackend::receiving(const Endpoint& endpoint) const {
  switch (endpoint.kind()) {
    case EndpointKind::listener:
      return Operation::accept;
    case EndpointKind::watch:
      return Operation::watch;
    case EndpointKind::stream:
      return endpoint.large_ ? Operation::readable : Operation::receive;
    case EndpointKind::alarm:
      break;
  }
  return Operation::ignored;
}

void IoUringBackend::cancel(Operation operation, SlotId id) {
  io_uring_sqe* request = next_request();
  io_uring_prep_cancel64(request, tag(operation, id), 0);
  complete_silently(request);
}

Error IoUringBackend::start(Endpoint& endpoint) {
  switch (endpoint.kind()) {
    case EndpointKind::listener:
      arm_accept(static_cast<Listener&>(endpoint));
      break;
    case EndpointKind::watch:
      arm_poll(endpoint.fd_, POLLIN, Operation::watch, endpoint.id());
      endpoint.armed_receive_ = true;
      break;
    case EndpointKind::stream:
      if (endpoint.connecting_) {
        arm_poll(endpoint.fd_, POLLOUT, Operation::writable, endpoint.id());
        endpoint.armed_writable_ = true;
      } else {
        arm_receive(static_cast<Stream&>(endpoint));
      }
      break;
    case EndpointKind::alarm:
      break;
  }
  return {};
}

void IoUringBackend::stop(Endpoint& endpoint) {
  if (bound_ && !pthread_equal(thread_, pthread_self())) {  // the reactor is destroyed by another thread
    ::close(std::exchange(endpoint.fd_, -1));
    return;
  }
  // Its queue is about to be cleared, while requests that point to it wait for the enter.
  if (endpoint.in_flight_) io_uring_submit(&ring_);
  // By name: the kernel would look for all requests of a descriptor among those of every other one.
  if (endpoint.armed_receive_) cancel(receiving(endpoint), endpoint.id());
  if (endpoint.armed_writable_) cancel(Operation::writable, endpoint.id());
  io_uring_sqe* request = next_request();
  io_uring_prep_close(request, endpoint.fd_);
  complete_silently(request);
  endpoint.fd_ = -1;
}

void IoUringBackend::pause(Endpoint& endpoint) {
  if (!endpoint.armed_receive_) return;
  cancel(receiving(endpoint), endpoint.id());
}

// If the request is still armed, its cancellation is under way: it starts again when that is reported.
void IoUringBackend::resume(Endpoint& endpoint) {
  if (endpoint.armed_receive_ || endpoint.connecting_) return;
  if (endpoint.kind() == EndpointKind::listener) return arm_accept(static_cast<Listener&>(endpoint));
  receive_again(static_cast<Stream&>(endpoint));
}

// A large message comes: from here on the stream is received from by system calls.
void IoUringBackend::set_direct(Stream& stream) {
  if (!stream.direct_ || stream.large_) return;
  if (stream.armed_receive_) cancel(Operation::receive, stream.id());
  stream.large_ = true;
}

// ---- Sending ----

void IoUringBackend::flush() {
  while (Stream* stream = reactor_.take_dirty()) {
    if (stream->blocked_ || stream->connecting_) {
      reactor_.spill(*stream);
    } else if (stream->queue_.empty()) {
      reactor_.sending_done(*stream);
    } else if (stream->in_flight_) {
      settle_first_ =
          true;  // two sends in one submission could overtake each other: the second waits for the first
    } else {
      prepare_send(*stream);
    }
  }
}

void IoUringBackend::prepare_send(Stream& stream) {
  // With MSG_WAITALL a send that is taken in part fails. The kernel's TLS refuses the flag: its sends tell how they end.
  const int flags = MSG_DONTWAIT | MSG_NOSIGNAL | (stream.ktls_ ? 0 : MSG_WAITALL);
  io_uring_sqe* request = next_request();
  std::size_t total = 0;
  if (const Bytes only = stream.queue_.single(); !only.empty()) {
    io_uring_prep_send(request, stream.fd_, only.data(), only.size(), flags);
    total = only.size();
  } else {
    iovec gathered[io_uring_segments];
    const auto count = static_cast<std::size_t>(stream.queue_.gather(gathered, io_uring_segments, total));
    auto* message = reactor_.turn_memory().allocate_array<msghdr>(1);
    *message = {};
    message->msg_iov = reactor_.turn_memory().allocate_array<iovec>(count);
    message->msg_iovlen = count;
    std::copy_n(gathered, count, message->msg_iov);
    io_uring_prep_sendmsg(request, stream.fd_, message, static_cast<unsigned>(flags));
  }
  if (!stream.ktls_) request->flags |= IOSQE_CQE_SKIP_SUCCESS;
  request->user_data = tag(Operation::send, {static_cast<std::uint32_t>(flights_.size()), 0});
  flights_.push_back({stream.id(), static_cast<std::uint32_t>(total), static_cast<std::int32_t>(total)});
  stream.in_flight_ = true;
  // Sends that succeed complete nothing: if the stream goes on after them, the enter must not wait.
  const bool goes_on = total < stream.queue_.bytes() || reactor_.has_more(stream);
  if (stream.finishing_ || stream.spilled_ || goes_on) settle_first_ = true;
}

// Every send has ended in the enter: a failed one left its result, the others were taken in full. Afterwards
// no queue refers to the turn's memory. No handler runs before that memory has been given back: what it sends
// is of a new turn.
void IoUringBackend::retire_sends() {
  for (const Flight& flight : flights_) {
    auto* stream = static_cast<Stream*>(reactor_.find(flight.id));
    if (stream == nullptr) continue;
    stream->in_flight_ = false;
    if (is_failure(flight.result)) {
      reactor_.drop_sends(*stream);
      continue;
    }
    const auto taken = static_cast<std::uint32_t>(std::max(flight.result, 0));
    const bool blocked = taken < flight.bytes;
    if (blocked && !stream->armed_writable_) {
      arm_poll(stream->fd_, POLLOUT, Operation::writable, stream->id());
      stream->armed_writable_ = true;
    }
    reactor_.sent(*stream, taken, blocked);
    if (!blocked && !stream->queue_.empty()) reactor_.writable(*stream);
  }
}

void IoUringBackend::report_sends() {
  for (const Flight& flight : flights_) {
    auto* stream = static_cast<Stream*>(reactor_.find(flight.id));
    if (stream == nullptr) continue;
    if (is_failure(flight.result)) {
      reactor_.ended(*stream, Error::from_os("send", -flight.result));
    } else {
      reactor_.sending_done(*stream);
    }
  }
  flights_.clear();
}

// ---- The turn ----

void IoUringBackend::poll(int timeout_ms) {
  bind();
  flush();  // what was queued since the loop's flush
  // Streams that starve go on when buffers return, which happens behind the enter: then it must not wait.
  const bool at_once = std::exchange(settle_first_, false) || (!starved_.empty() && buffers_.can_retire());
  enter(at_once ? 0 : timeout_ms);
  reactor_.begin_turn();
  settle();
  // Handling may settle again, and so add more. Those are the next turn's, so that tasks and timers come between.
  const std::size_t count = completions_.size();
  for (std::size_t i = 0; i < count; i++) {
    const Completion completion = completions_[i];
    handle(completion);
  }
  completions_.erase(completions_.begin(), completions_.begin() + static_cast<std::ptrdiff_t>(count));
  if (!completions_.empty()) settle_first_ = true;
}

// Behind an enter: its sends have ended, so that all memory of the turn that made them is free again.
void IoUringBackend::settle() {
  collect_completions();
  retire_sends();
  if (buffers_.retire() && !starved_.empty()) restart_starved();
  reactor_.end_turn();
  large_buffer_.restart();
  report_sends();
}

void IoUringBackend::leave() {
  flush();
  settle_first_ = true;  // the next enter must not wait for more than what is collected here
  // Submitting is not enough: a cancelled request keeps its socket open until the kernel has run its end,
  // which it does for a few requests at a time. What completes is handled if there is another turn.
  constexpr int enough = 1024;
  for (int i = 0; i < enough; i++) {
    const std::size_t before = completions_.size();
    io_uring_submit_and_get_events(&ring_);
    collect_completions();
    if (completions_.size() == before) return;
  }
}

void IoUringBackend::enter(int timeout_ms) {
  if (timeout_ms == 0) {
    io_uring_submit(&ring_);
    io_uring_get_events(&ring_);
  } else if (timeout_ms < 0) {
    io_uring_submit_and_wait(&ring_, 1);
  } else {
    __kernel_timespec limit{.tv_sec = timeout_ms / 1000, .tv_nsec = (timeout_ms % 1000) * 1'000'000LL};
    io_uring_cqe* first = nullptr;
    io_uring_submit_and_wait_timeout(&ring_, &first, 1, &limit, nullptr);
  }
  // A send counts as done only if it was submitted: the kernel may stop early for want of memory.
  while (io_uring_sq_ready(&ring_) > 0) {
    if (submit()) continue;
    for (Flight& flight : flights_) flight.result = -ECANCELED;
    return;
  }
}

// Takes all completions, also those that the kernel kept back because the ring was full: which sends failed
// has to be known before any is taken for done.
void IoUringBackend::collect_completions() {
  for (;;) {
    io_uring_cqe* completion = nullptr;
    unsigned head = 0;
    unsigned count = 0;
    io_uring_for_each_cqe(&ring_, head, completion) {
      count++;
      const std::uint64_t data = io_uring_cqe_get_data64(completion);
      if (operation_of(data) == Operation::send) {
        flights_[id_of(data).index].result = completion->res;
      } else if (operation_of(data) != Operation::ignored) {
        completions_.push_back({data, completion->res, completion->flags});
      }
    }
    io_uring_cq_advance(&ring_, count);
    if ((__atomic_load_n(ring_.sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_CQ_OVERFLOW) == 0) return;
    io_uring_get_events(&ring_);
  }
}

void IoUringBackend::handle(const Completion& completion) {
  switch (operation_of(completion.data)) {
    case Operation::accept:
      return handle_accept(completion);
    case Operation::receive:
      return handle_receive(completion);
    case Operation::readable:
      return handle_readable(completion);
    case Operation::writable:
      return handle_writable(completion);
    case Operation::watch:
      if (auto* watch = static_cast<Watch*>(reactor_.find(id_of(completion.data)))) {
        reactor_.readable(*watch);
        if (!watch->closed()) arm_poll(watch->fd_, POLLIN, Operation::watch, watch->id());
      }
      return;
    case Operation::wake: {
      std::uint64_t ignored;
      [[maybe_unused]] const ssize_t got = read(event_.get(), &ignored, sizeof ignored);
      return arm_poll(event_.get(), POLLIN, Operation::wake, {});
    }
    case Operation::ignored:
    case Operation::send:
      return;
  }
}

void IoUringBackend::handle_accept(const Completion& completion) {
  Fd fd(completion.result);
  auto* listener = static_cast<Listener*>(reactor_.find(id_of(completion.data)));
  if (listener == nullptr) return;
  if ((completion.flags & IORING_CQE_F_MORE) == 0) listener->armed_receive_ = false;
  if (fd) {
    reactor_.accepted(*listener, std::move(fd));
  } else if (accepting_is_impossible(-completion.result)) {
    reactor_.accept_failed(*listener, Error::from_os("accept", -completion.result));
  }
  if (!listener->closed() && !listener->armed_receive_ && !listener->paused_) arm_accept(*listener);
}

void IoUringBackend::handle_receive(const Completion& completion) {
  Owner* memory = nullptr;
  const MutableBytes bytes =
      buffers_.take(completion.result, completion.flags, memory);  // also for a stream that is gone
  Stream* stream = find_stream(completion.data);
  if (stream == nullptr) return;
  if ((completion.flags & IORING_CQE_F_MORE) == 0) stream->armed_receive_ = false;
  if (!bytes.empty()) reactor_.received(*stream, bytes, memory);
  after_receive(*stream, completion.result);
}

void IoUringBackend::handle_readable(const Completion& completion) {
  Stream* stream = find_stream(completion.data);
  if (stream == nullptr) return;
  stream->armed_receive_ = false;
  if (completion.result > 0) receive_large(*stream);
  if (!stream->closed()) receive_again(*stream);
}

void IoUringBackend::receive_large(Stream& stream) {
  for (int i = 0; i < SharedBuffer::max_receives; i++) {
    if (large_buffer_.is_low()) flush_now();
    if (stream.closed() || stream.paused_ || stream.ended_) return;
    const Receipt receipt = large_buffer_.receive(stream);
    if (!receipt.bytes.empty()) {
      if (!stream.direct_ && receipt.bytes.size() < large_from_bytes) stream.large_ = false;
      reactor_.received(stream, receipt.bytes, receipt.memory);
    }
    if (receipt.error) return reactor_.ended(stream, receipt.error);
    if (!receipt.filled) return;
  }
}

// In the middle of a turn, so that the same warm memory serves the next stream.
void IoUringBackend::flush_now() {
  flush();
  io_uring_submit(&ring_);
  settle();
}

// Tells that there is nothing more to receive, or goes on.
void IoUringBackend::after_receive(Stream& stream, std::int32_t result) {
  if (stream.closed() || stream.ended_) return;
  if (result == 0) return reactor_.ended(stream, {Errc::end_of_stream, "recv"});
  if (result < 0 && result != -ENOBUFS && result != -ECANCELED && result != -EINTR && result != -EAGAIN) {
    return reactor_.ended(stream, Error::from_os("recv", -result));
  }
  // Buffers may have come back since the kernel found none.
  if (result == -ENOBUFS && buffers_.empty() && !stream.large_ && !stream.starved_) {
    stream.starved_ = true;
    starved_.push_back(stream.id());
  }
  receive_again(stream);
}

void IoUringBackend::receive_again(Stream& stream) {
  if (!stream.armed_receive_ && !stream.paused_ && !stream.starved_ && !stream.ended_) arm_receive(stream);
}

void IoUringBackend::handle_writable(const Completion& completion) {
  Stream* stream = find_stream(completion.data);
  if (stream == nullptr) return;
  stream->armed_writable_ = false;
  if (!stream->connecting_) return reactor_.writable(*stream);
  const Error error = take_socket_error(stream->fd_, "connect");
  if (error) return reactor_.ended(*stream, error);
  reactor_.connected(*stream);
  if (!stream->closed()) receive_again(*stream);
}

void IoUringBackend::restart_starved() {
  for (const SlotId id : starved_) {
    auto* stream = static_cast<Stream*>(reactor_.find(id));
    if (stream == nullptr) continue;
    stream->starved_ = false;
    receive_again(*stream);
  }
  starved_.clear();
}

std::unique_ptr<Backend> make_io_uring_backend(Reactor& reactor, Error& error) {
  auto backend = std::make_unique<IoUringBackend>(reactor);
  error = backend->init();
  if (error) return nullptr;
  return backend;
}

}  // namespace levada::net
