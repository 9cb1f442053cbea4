#include <levada/net/reactor.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <utility>

#include <levada/core/clock.h>
#include <levada/net/epoll.h>
#include <levada/net/io_uring.h>
#include <levada/net/thread.h>

namespace levada::net {
namespace {

std::uintptr_t current_thread() {
  static thread_local const char name = 0;
  return reinterpret_cast<std::uintptr_t>(&name);
}

// Whose turn the calling thread is in.
thread_local Reactor* running = nullptr;

// Lets the environment choose what the options leave open.
Error ask_environment(BackendKind& wanted) {
  const char* text = std::getenv("LEVADA_BACKEND");
  if (wanted != BackendKind::automatic || text == nullptr) return {};
  for (const BackendKind kind : {BackendKind::automatic, BackendKind::epoll, BackendKind::io_uring}) {
    if (std::string_view(text) != to_string(kind)) continue;
    wanted = kind;
    return {};
  }
  return {Errc::invalid_argument, "LEVADA_BACKEND"};
}

}  // namespace

const char* to_string(BackendKind kind) {
  switch (kind) {
    case BackendKind::automatic:
      return "auto";
    case BackendKind::epoll:
      return "epoll";
    case BackendKind::io_uring:
      return "io_uring";
    case BackendKind::simulated:
      return "simulated";
  }
  return "auto";
}

// ---- Endpoint, Listener, Stream ----

void Endpoint::close() {
  if (!closed_) reactor_->close(*this);
}

void Endpoint::set_timer(std::uint32_t delay_ms) {
  if (!closed_) reactor_->timers_.set(*this, reactor_->now_ms() + std::min(delay_ms, max_timer_ms));
}

void Endpoint::set_timer_no_later(std::uint32_t delay_ms) {
  if (armed() && static_cast<std::int32_t>(deadline - reactor_->now_ms() - delay_ms) <= 0) return;
  set_timer(delay_ms);
}

void Endpoint::cancel_timer() {
  reactor_->timers_.cancel(*this);
}

void Listener::pause() {
  if (closed_ || held_) return;
  held_ = true;
  if (paused_) return;
  paused_ = true;
  reactor().backend().pause(*this);
}

void Listener::resume() {
  if (closed_ || !held_) return;
  held_ = false;
  on_timer();
}

// After a pause, unless there is another reason for it.
void Listener::on_timer() {
  if (!paused_ || held_) return;
  if (reactor().accepting_is_over_budget()) return set_timer(retry_ms);
  paused_ = false;
  reactor().backend().resume(*this);
}

void Stream::send(Bytes bytes, Mark mark) {
  if (closed_ || finishing_ || bytes.empty()) return;
  std::uint8_t* memory = reserve(bytes.size());
  std::copy(bytes.begin(), bytes.end(), memory);
  send_turn_memory({memory, bytes.size()}, mark);
}

Error Stream::accept_tls(const TlsContext& context) {
  TlsLayer& layer = reactor().add_tls_layer(*this);
  return begin_tls(layer, layer.accept(context));
}

Error Stream::connect_tls(const TlsContext& context, std::string_view host, std::uint16_t port) {
  TlsLayer& layer = reactor().add_tls_layer(*this);
  return begin_tls(layer, layer.connect(context, host, port));
}

Error Stream::begin_tls(TlsLayer& layer, const Error& error) {
  if (error) {
    secured_ = false;
    layer.clear();
  }
  return error;
}

const TlsSession* Stream::tls() const {
  return secured_ ? &reactor().tls_layer(*this).session() : nullptr;
}

const SendQueue& Stream::plain() const {
  return reactor().tls_layer(*this).plain();
}

std::size_t Stream::secured_bytes() const {
  return reactor().tls_layer(*this).buffered();
}

bool Stream::secured_sent() const {
  return reactor().tls_layer(*this).all_sent();
}

std::size_t Stream::sole_bytes() const {
  return queue_.sole_bytes() + (secured_ ? plain().sole_bytes() : 0);
}

std::size_t Stream::drop_oldest(std::size_t size) {
  if (secured_) return reactor().tls_layer(*this).plain().drop_oldest(reactor().segments(), size);
  return in_flight_ ? 0 : queue_.drop_oldest(reactor().segments(), size);
}

void Stream::finish() {
  if (closed_ || finishing_) return;
  finishing_ = true;
  mark_dirty();
}

void Stream::pause() {
  if (closed_ || paused_) return;
  paused_ = true;
  reactor().backend().pause(*this);
}

void Stream::resume() {
  if (closed_ || !paused_) return;
  paused_ = false;
  reactor().backend().resume(*this);
}

Fd Stream::release() {
  assert(!closed_ && !connecting_ && queue_.empty() && !finishing_);
  Fd fd = reactor().backend().release(*this);
  close();
  return fd;
}

void Stream::receive_directly(bool on) {
  if (closed_) return;
  if (secured_) return reactor().tls_layer(*this).receive_directly(on);
  if (direct_ == on) return;
  direct_ = on;
  reactor().backend().set_direct(*this);
}

void Stream::receive_little() {
  if (closed_ || little_) return;
  little_ = true;
  if (!paused_) reactor().backend().pause(*this);  // what is armed begins anew
}

// ---- Reactor ----

Result<std::unique_ptr<Reactor>> Reactor::create(const ReactorOptions& options) {
  BackendKind wanted = options.backend;
  if (const Error error = ask_environment(wanted)) return error;
  if (options.cpu >= 0 && !may_use_cpu(options.cpu)) return Error{Errc::invalid_argument, "cpu"};
  std::string reason;
  if (wanted != BackendKind::epoll) {
    const IoUringAbilities abilities = io_uring_abilities();
    Error error = abilities.error;
    if (abilities.sufficient()) {
      auto make = [](Reactor& reactor, void* why) {
        return make_io_uring_backend(reactor, *static_cast<Error*>(why));
      };
      auto reactor = std::make_unique<Reactor>(options, make, &error);
      if (reactor->backend_ != nullptr) return reactor;
    }
    if (wanted == BackendKind::io_uring) return error;
    reason = "io_uring: " + error.message();
  }
  auto make = [](Reactor& reactor, void*) { return EpollBackend::make(reactor); };
  auto reactor = std::make_unique<Reactor>(options, make, nullptr);
  if (reactor->backend_ == nullptr) return Error{Errc::descriptor_limit, "epoll_create1"};
  reactor->fallback_reason_ = std::move(reason);
  return reactor;
}

Reactor::Reactor(const ReactorOptions& options, MakeBackend make_backend, void* context)
    : options_(options),
      blocks_(options.retain_bytes, options.budget.get()),
      turn_memory_(blocks_),
      record_(ReactorRecord::open(*this)) {
  bind_to_current_thread();
  backend_ = make_backend(*this, context);
  if (backend_ != nullptr) start_ns_ = backend_->now_ns();
}

Reactor::~Reactor() {
  bind_to_current_thread();
  discard_tasks();
  close_endpoints();
  record_.close();
  backend_.reset();
}

// on_closed() may add what has no descriptor.
void Reactor::close_endpoints() {
  ending_ = true;
  while (slots_.in_use() > 0) {
    for_each([](Endpoint& endpoint) { endpoint.close(); });
    destroy_closed();
  }
  ending_ = false;
}

void Reactor::bind_to_current_thread() {
  thread_.store(current_thread(), std::memory_order_relaxed);
  blocks_.bind_to_current_thread();
}

bool Reactor::on_own_thread() const {
  return thread_.load(std::memory_order_relaxed) == current_thread();
}

void Reactor::close_all() {
  close_endpoints();
  backend_->leave();
}

void Reactor::run() {
  bind_to_current_thread();
  const CpuBinding binding(options_.cpu);
  while (!stopping_.load(std::memory_order_acquire)) run_once(-1);
  backend_->leave();
  stopping_.store(false, std::memory_order_release);
}

void Reactor::run_once(int timeout_ms) {
  assert(running != this);
  Reactor* const outer = std::exchange(running, this);
  wait_began_ns_ = backend_->now_ns();
  backend_->poll(options_.spin_us != 0 && is_spinning() ? 0 : wait_limit(timeout_ms));
  if (budget() != nullptr && budget()->exceeded()) relieve_memory();
  if (has_tasks_.load(std::memory_order_acquire)) run_tasks();
  advance_timers();
  backend_->flush();
  if (!closed_.empty()) destroy_closed();
  if (accepting_is_over_budget()) pause_listeners();
  in_turn_ = false;
  running = outer;
}

int Reactor::wait_limit(int timeout_ms) const {
  if (has_dirty() || has_tasks_.load(std::memory_order_acquire) ||
      stopping_.load(std::memory_order_acquire)) {
    return 0;
  }
  const std::uint32_t next = timers_.next_event_ms();
  if (next == TimerWheel::none) return timeout_ms;
  const int limit = static_cast<int>(next);
  return timeout_ms < 0 ? limit : std::min(limit, timeout_ms);
}

bool Reactor::is_spinning() {
  const std::uint64_t events = counters_.receives.value() + counters_.accepted.value();
  const std::uint64_t now = monotonic_ns();
  if (std::exchange(events_before_spin_, events) != events) {
    spin_until_ns_ = now + std::uint64_t{options_.spin_us} * 1000;
  }
  return now < spin_until_ns_;
}

void Reactor::stop() {
  stopping_.store(true, std::memory_order_release);
  wake();
}

void Reactor::post(Task task) {
  push_task(task, 0);
}

bool Reactor::post_bounded(Task task, std::size_t bytes) {
  return push_task(task, bytes);
}

// A task that is not taken is dropped by the caller, without the lock: that may post again.
bool Reactor::push_task(Task& task, std::size_t bytes) {
  bool first = false;
  {
    const std::lock_guard lock(tasks_mutex_);
    if (discards_tasks_) return true;
    if (bytes > options_.max_posted_bytes - std::min(posted_bytes_, options_.max_posted_bytes)) {
      counters_.posts_refused.add();
      return false;
    }
    posted_bytes_ += bytes;
    first = tasks_.empty();
    tasks_.push_back(std::move(task));
    has_tasks_.store(true, std::memory_order_release);
  }
  if (first) wake();
  return true;
}

// A turn that this thread is in, and whose wait is over, is followed by one that looks before it waits.
void Reactor::wake() {
  if (running == this && in_turn_) return;
  backend_->wake();
}

void Reactor::discard_tasks() {
  std::vector<Task> discarded;
  {
    const std::lock_guard lock(tasks_mutex_);
    discards_tasks_ = true;
    discarded.swap(tasks_);
    has_tasks_.store(false, std::memory_order_release);
  }
}

void Reactor::run_tasks() {
  {
    const std::lock_guard lock(tasks_mutex_);
    running_tasks_.swap(tasks_);
    posted_bytes_ = 0;
    has_tasks_.store(false, std::memory_order_release);
  }
  for (Task& task : running_tasks_) task();
  running_tasks_.clear();
}

void Reactor::read_time() {
  turn_ns_ = backend_->now_ns();
  const std::uint64_t elapsed = turn_ns_ - start_ns_;
  now_ms_ = static_cast<std::uint32_t>(elapsed / nanoseconds_per_millisecond);
}

void Reactor::advance_timers() {
  read_time();
  if (now_ms_ == timers_.now()) return;
  timers_.advance(now_ms_, [](Timer& timer) { static_cast<Endpoint&>(timer).on_timer(); });
}

SlotId Reactor::after(std::uint32_t delay_ms, Task task) {
  Alarm* alarm = add<Alarm>(std::move(task));
  alarm->wait(delay_ms);
  return alarm->id();
}

bool Reactor::start(Endpoint& endpoint, SlotId id) {
  endpoint.reactor_ = this;
  endpoint.id_ = id;
  if (endpoint.kind() == EndpointKind::alarm) return true;
  last_error_ = ending_ ? Error{Errc::canceled, "add"} : backend_->start(endpoint);
  if (!last_error_) {
    if (endpoint.kind() == EndpointKind::listener) listeners_.push_back(id);
    return true;
  }
  const Fd close_it(endpoint.fd_);
  endpoint.~Endpoint();
  slots_.release(id.index);
  return false;
}

void Reactor::close(Endpoint& endpoint) {
  assert(on_own_thread());
  endpoint.closed_ = true;
  timers_.cancel(endpoint);
  if (endpoint.fd_ >= 0) backend_->stop(endpoint);
  closed_.push_back(endpoint.id_.index);
}

void Reactor::destroy_closed() {
  std::size_t told = 0;
  while (told < closed_.size()) {  // on_closed() may close more
    auto& endpoint = *static_cast<Endpoint*>(slots_.at(closed_[told++]));
    if (endpoint.kind() == EndpointKind::stream) clear_queues(static_cast<Stream&>(endpoint));
    endpoint.on_closed();
  }
  unlink_closed_dirty();
  for (const std::uint32_t index : closed_) {
    if (index < tls_layers_.size()) tls_layers_[index].reset();
    static_cast<Endpoint*>(slots_.at(index))->~Endpoint();
    slots_.release(index);
  }
  closed_.clear();
  if (!paused_listeners_.empty()) resume_listeners();
}

void Reactor::clear_queues(Stream& stream) {
  stream.queue_.clear(segments_);
  if (stream.secured_) tls_layer(stream).clear();
}

TlsLayer& Reactor::add_tls_layer(Stream& stream) {
  const std::size_t index = stream.id().index;
  if (tls_layers_.size() <= index)
    tls_layers_.resize(std::max<std::size_t>(index + 1, 2 * tls_layers_.size()));
  tls_layers_[index] = std::make_unique<TlsLayer>(stream);
  stream.secured_ = true;
  return *tls_layers_[index];
}

void Reactor::unlink_closed_dirty() {
  std::uint32_t index = std::exchange(dirty_head_, nothing);
  dirty_tail_ = nothing;
  while (index != nothing) {
    Stream& stream = stream_at(index);
    index = stream.next_dirty_;
    if (!stream.closed()) mark_dirty(stream);
  }
}

void Reactor::accepted(Listener& listener, Fd fd) {
  counters_.accepted.add();
  listener.accept_(listener.context_, listener, std::move(fd));
  if (!listener.closed() && accepting_is_over_budget())
    accept_failed(listener, {Errc::over_budget, "accept"});
}

bool Reactor::accepting_is_over_budget() const {
  return options_.budget != nullptr && options_.budget->exceeded();
}

void Reactor::relieve_memory() {
  blocks_.trim();
  if (!options_.budget->exceeded()) return;
  std::shared_ptr<Relief> heaviest;
  std::size_t most = 0;
  for (const auto& kept : reliefs_) {
    std::shared_ptr<Relief> relief = kept.lock();
    const std::size_t bytes = relief == nullptr ? 0 : relief->weigh(relief->context);
    if (bytes <= most) continue;
    most = bytes;
    heaviest = std::move(relief);
  }
  if (heaviest != nullptr) heaviest->relieve(heaviest->context);
}

// Before the next connection, which would otherwise be the one that finds it out.
void Reactor::pause_listeners() {
  std::erase_if(listeners_, [this](const SlotId id) { return find(id) == nullptr; });
  for (const SlotId id : listeners_) {
    auto& listener = *static_cast<Listener*>(find(id));
    if (!listener.paused_) accept_failed(listener, {Errc::over_budget, "accept"});
  }
}

std::shared_ptr<Reactor::Relief> Reactor::add_relief(const Relief& relief) {
  std::erase_if(reliefs_, [](const auto& kept) { return kept.expired(); });
  auto added = std::make_shared<Relief>(relief);
  reliefs_.push_back(added);
  return added;
}

void Reactor::measure_latency() {
  counters_.latency.record(backend_->now_ns() - ready_ns_);
}

void Reactor::accept_failed(Listener& listener, const Error& error) {
  counters_.accept_failures.add();
  listener.failures_++;
  listener.last_error_ = error;
  if (listener.paused_) return;
  listener.paused_ = true;
  backend_->pause(listener);
  listener.set_timer(Listener::retry_ms);
  if (std::find(paused_listeners_.begin(), paused_listeners_.end(), listener.id()) ==
      paused_listeners_.end()) {
    paused_listeners_.push_back(listener.id());
  }
}

void Reactor::resume_listeners() {
  if (accepting_is_over_budget()) return;
  for (const SlotId id : paused_listeners_) {
    if (Endpoint* endpoint = find(id)) endpoint->on_timer();
  }
  paused_listeners_.clear();
}

void Reactor::connected(Stream& stream) {
  stream.connecting_ = false;
  stream.on_connected();
  if (!stream.closed() && (!stream.all_sent() || stream.finishing_)) stream.mark_dirty();
}

void Reactor::ended(Stream& stream, const Error& reason) {
  if (stream.closed()) return;
  if (stream.secured_ && tls_layer(stream).failed()) return stream.close();
  const bool cut_short = stream.secured_ && reason.code == Errc::end_of_stream;
  const Error error = cut_short ? tls_layer(stream).transport_ended() : reason;
  const bool failed = error.code != Errc::end_of_stream;
  if (failed) drop_sends(stream);
  if (!stream.ended_) {
    stream.ended_ = true;
    stream.on_end(error);
  } else if (failed) {
    stream.close();
  }
}

void Reactor::drop_sends(Stream& stream) {
  clear_queues(stream);
  stream.blocked_ = stream.spilled_ = false;
  stream.finishing_ = stream.finished_ = true;
}

void Reactor::writable(Stream& stream) {
  stream.blocked_ = false;
  stream.mark_dirty();
}

void Reactor::sent(Stream& stream, std::size_t size, bool blocked) {
  counters_.sent_bytes.add(size);
  stream.queue_.advance(segments_, size);
  stream.blocked_ = blocked;
  if (stream.queue_.empty()) return;
  spill(stream);
  stream.spilled_ = true;
  if (!blocked) return;
  counters_.blocked.add();
  stream.stalled_since_ms_ = now_ms_;
  stream.on_blocked();
}

void Reactor::sending_done(Stream& stream) {
  if (stream.closed() || !stream.queue_.empty()) return;
  if (has_more(stream)) return stream.mark_dirty();
  if (!stream.all_sent()) return tls_layer(stream).wait_for_kernel();  // or it waits for the TLS handshake
  const bool had_waited = stream.spilled_;
  stream.spilled_ = false;
  if (stream.finishing_ && !stream.finished_) {
    stream.finished_ = true;
    backend_->shut_down(stream);
    if (stream.ended_) return stream.close();  // both directions are done
  }
  if (had_waited) stream.on_drained();
}

}  // namespace levada::net
