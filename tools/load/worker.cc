#include <levada/tools/load/worker.h>

#include <sys/timerfd.h>
#include <unistd.h>
#include <algorithm>
#include <utility>

#include <levada/net/thread.h>

namespace levada::load {
namespace {

constexpr std::uint32_t close_ms = 2000;
constexpr std::uint64_t unlimited = ~std::uint64_t{0} >> 1;

std::uint32_t milliseconds(std::uint64_t ns) {
  return static_cast<std::uint32_t>(ns / nanoseconds_per_millisecond);
}

}  // namespace

Worker::Worker(const Options& options, const Addresses& addresses, const Payloads& payloads,
               const Share& share, int notify_fd)
    : options_(options),
      addresses_(addresses),
      payloads_(payloads),
      share_(share),
      closed_loop_{options.depth},
      most_in_flight_(most_in_flight(options.bytes)),
      opcode_(options.text ? ws::Opcode::text : ws::Opcode::binary),
      notify_fd_(notify_fd),
      left_(share.count.value_or(unlimited)) {
  recorder_.result().open_loop = options.open_loop();
  for (const Target& target : options.targets) recorder_.result().targets.push_back({.url = target.url});
  make_clients();
  if (options.mode == Mode::broadcast)
    broadcasts_ = std::make_unique<Broadcasts>(payloads, share.first, share.connections);
}

void Worker::make_clients() {
  clients_.reserve(share_.connections);
  for (std::uint32_t i = 0; i < share_.connections; i++) {
    const std::uint32_t number = share_.first + i;
    const Character character = options_.mode == Mode::churn
                                    ? Character::churner
                                    : character_of(number, options_.slow_share, options_.churn_share);
    const auto target = static_cast<std::uint32_t>(number % options_.targets.size());
    clients_.emplace_back(payloads_, number, target, options_.open_loop() ? 1 : options_.depth, character);
  }
  // Churners alone begin when the load does.
  if (options_.mode == Mode::churn) return;
  for (Client& client : clients_) to_dial_.push_back(&client);
}

ws::ServiceOptions Worker::service_options() const {
  ws::ServiceOptions service;
  service.max_message_bytes = std::max(service.max_message_bytes, 2 * options_.bytes);
  service.check_utf8 = false;  // every byte is compared
  service.auto_pong = options_.shape == Shape::whole;
  // A server may stop reading until its echoes are taken, so ours must go on being read whatever is queued
  // here.
  service.max_buffered_bytes = unlimited;
  service.pause_above_bytes = unlimited;
  service.handshake_timeout_ms = options_.timeout_ms;
  service.close_timeout_ms = close_ms;
  service.subprotocols = options_.subprotocols;
  service.ping_interval_ms = service.idle_timeout_ms = service.write_timeout_ms =
      0;  // it is the server that is tested
  service.message_timeout_ms = 0;
  service.deflate = options_.deflate;
  return service;
}

Error Worker::start() {
  auto reactor = net::Reactor::create({.backend = options_.backend});
  if (!reactor) return reactor.error();
  reactor_ = std::move(*reactor);
  recorder_.result().backend = net::to_string(reactor_->backend().kind());
  service_ = std::make_unique<ws::Service>(*reactor_, ws::Role::client, *this, service_options());
  if (options_.shape != Shape::whole) {
    shaper_ = std::make_unique<Shaper>(options_.shape, options_.frames, options_.seed + share_.first,
                                       reactor_->random());
  }
  reactor_->post([this] {
    connect_begin_ns_ = reactor_->now_ns();
    dial_more();
  });
  thread_ = std::thread([this] { loop(); });
  return {};
}

void Worker::loop() {
  const net::CpuBinding binding(options_.pin ? cpu() : -1);
  reactor_->stop();
  reactor_->run();  // makes it this thread's, and returns at once
  while (phase_ != Phase::done) {
    reactor_->run_once(-1);
    arrived_for_ = nullptr;
    flushed();
  }
  reactor_->stop();
  reactor_->run();  // hands over what the last turn has only prepared
}

// The one of its number among those that the process may use.
int Worker::cpu() const {
  const std::vector<int> cpus = net::allowed_cpus();
  return cpus[static_cast<std::size_t>(share_.index) % cpus.size()];
}

// All that this turn has queued is with the kernel now, or waits there for a peer that does not read.
void Worker::flushed() {
  if (queued_.empty()) return;
  const std::uint64_t now = reactor_->now_ns();
  for (const auto& [client, first, end] : queued_) {
    const bool counts = measured(*client) && phase_ != Phase::checking;
    const auto visit = [&](std::uint64_t planned_ns, std::uint64_t times) {
      if (counts) recorder_.write(planned_ns, now, times);
    };
    if (!broadcasts_) {
      client->ledger.written(first, end, now, visit);
    } else if (const std::uint64_t planned_ns = broadcasts_->written(first, now); planned_ns != 0) {
      visit(planned_ns, 1);
    }
  }
  queued_.clear();
  if (broadcasts_) broadcasts_->drop_settled();
}

void Worker::join() {
  if (thread_.joinable()) thread_.join();
}

void Worker::notify() const {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = write(notify_fd_, &one, sizeof one);
}

void Worker::stop_if_idle() {
  if (phase_ != Phase::loading || idle()) return;
  const bool nobody = open() == 0 && in_handshake_ == 0;
  const bool answered = left_ == 0 && in_flight_ == 0 && (!counts_handshakes() || nobody);
  const bool gone = nobody && to_dial_.empty() && options_.mode != Mode::churn;
  if (!answered && !gone) return;
  idle_.store(true, std::memory_order_release);
  notify();
}

// ---- Phases ----

void Worker::load_begin() {
  reactor_->post([this] {
    phase_ = Phase::loading;
    hush(true);
    if (options_.mode == Mode::churn) {
      for (Client& client : clients_) to_dial_.push_back(&client);
      connect_begin_ns_ = reactor_->now_ns();
      dialed_ = 0;
      return dial_more();
    }
    if (options_.open_loop()) plan();
    const std::uint64_t now = reactor_->now_ns();
    for (Client& client : clients_) {
      if (!options_.open_loop() || comes_and_goes(client)) send_due(client, now);
    }
    stop_if_idle();
  });
}

void Worker::measure_begin() {
  reactor_->post([this] {
    recorder_.begin(reactor_->now_ns());
    begin_time_ = own_thread_time();
    reactor_->after(1000, [this] { tick(); });
  });
}

void Worker::tick() {
  if (!recorder_.measuring()) return;
  recorder_.tick(reactor_->now_ns(), open());
  notify();
  give_up_waiting();
  // As near to whole seconds of the measured time as the reactor's milliseconds allow.
  const std::uint64_t into = (reactor_->now_ns() - recorder_.from_ns()) % nanoseconds_per_second;
  const std::uint64_t wait =
      into > nanoseconds_per_second / 2 ? 2 * nanoseconds_per_second - into : nanoseconds_per_second - into;
  reactor_->after(milliseconds(wait), [this] { tick(); });
}

// A count may never be reached when answers are lost, or nobody is left: silence for the drain time ends the run, too.
void Worker::give_up_waiting() {
  if (!options_.count || phase_ != Phase::loading) return;
  const bool waits = in_flight_ > 0 || (open() == 0 && options_.mode != Mode::churn);
  silent_seconds_ = recorder_.latest()->messages == 0 && waits ? silent_seconds_ + 1 : 0;
  if (silent_seconds_ == 0 || silent_seconds_ * nanoseconds_per_second < options_.drain_ns || idle()) return;
  idle_.store(true, std::memory_order_release);
  notify();
}

void Worker::measure_end() {
  reactor_->post([this] {
    const std::uint64_t now = reactor_->now_ns();
    if (options_.open_loop()) send_planned(now);
    leave_unsent(now);
    if (recorder_.measuring()) {
      recorder_.end(now, open());
      const ThreadTime used = own_thread_time();
      recorder_.result().busiest = use_between(begin_time_, used, recorder_.result().seconds);
      recorder_.result().cpu_s = static_cast<double>(used.run_ns - begin_time_.run_ns) / 1e9;
    }
    phase_ = Phase::draining;
    to_dial_.clear();
    hush(true);
    if (in_flight_ == 0) return begin_checking();
    reactor_->after(milliseconds(options_.drain_ns), [this] {
      if (phase_ == Phase::draining) begin_checking();
    });
  });
}

// Hold: every connection has to echo once more, a few at a time.
void Worker::begin_checking() {
  if (phase_ != Phase::draining) return;
  if (options_.mode != Mode::hold) return begin_closing();
  const std::uint64_t now = reactor_->now_ns();
  for (Client& client : clients_) give_up(client, now);
  phase_ = Phase::checking;
  check_more();
  reactor_->after(options_.timeout_ms, [this] {
    if (phase_ == Phase::checking) begin_closing();
  });
}

void Worker::check_more() {
  constexpr std::uint64_t at_once = 256;
  while (checked_ < clients_.size() && in_flight_ < at_once) {
    Client& client = clients_[checked_++];
    client.checked = client.connection != nullptr;
    if (client.checked) send(client, 1, reactor_->now_ns(), reactor_->now_ns());
  }
  if (checked_ == clients_.size() && in_flight_ == 0) begin_closing();
}

void Worker::begin_closing() {
  if (phase_ != Phase::draining && phase_ != Phase::checking) return;
  phase_ = Phase::closing;
  const std::uint64_t now = reactor_->now_ns();
  if (broadcasts_) broadcasts_->give_up([&](std::uint64_t planned_ns) { recorder_.lose(planned_ns, now); });
  for (Client& client : clients_) {
    give_up(client, now);
    if (client.connection == nullptr) continue;
    recorder_.result().count("pong_missing", client.pings.unanswered(),
                             "connection " + std::to_string(client.number()));
    // Nothing may follow half a frame.
    if (client.trickle.empty()) {
      client.connection->close();
    } else {
      client.connection->terminate();
    }
  }
  if (open() == 0) return finish();
  reactor_->after(close_ms + 500, [this] { finish(); });
}

void Worker::finish() {
  phase_ = Phase::done;
  Result& result = recorder_.result();
  recorder_.finish();
  for (const Client& client : clients_) result.sent += client.ledger.sent();
  const ws::Counters& counters = service_->counters();
  result.deflated_from_bytes = counters.deflate_in_bytes.value();
  result.deflated_to_bytes = counters.deflate_out_bytes.value();
  result.wire_sent_bytes = reactor_->counters().sent_bytes.value();
  result.wire_received_bytes = reactor_->counters().received_bytes.value();
  if (!broadcasts_) return;
  result.sent += broadcasts_->expected();
  result.broadcast = broadcasts_->result();
}

void Worker::abort() {
  reactor_->post([this] { finish(); });
}

}  // namespace levada::load
