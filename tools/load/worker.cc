#include <levada/tools/load/worker.h>

#include <unistd.h>
#include <algorithm>
#include <array>

namespace levada::load {
namespace {

constexpr std::uint32_t max_in_handshake = 128;
constexpr std::uint32_t drain_ms = 2000;
constexpr std::uint32_t close_ms = 2000;

std::string refusal_kind(const ws::Connection& connection, const ws::Refusal& refusal) {
  if (refusal.failure == ws::UpgradeFailure::status_not_101 && refusal.response != nullptr) {
    return "handshake." + std::to_string(refusal.response->status());
  }
  if (refusal.failure != ws::UpgradeFailure::none)
    return std::string("handshake.") + ws::to_string(refusal.failure);
  return std::string(connection.connecting() ? "connect." : "handshake.") + to_string(refusal.error.code);
}

std::string refusal_words(const ws::Connection& connection, const ws::Refusal& refusal) {
  if (refusal.failure == ws::UpgradeFailure::status_not_101 && refusal.response != nullptr) {
    return "the server answered the handshake with HTTP status " + std::to_string(refusal.response->status());
  }
  if (refusal.failure != ws::UpgradeFailure::none) {
    return std::string("the server's answer to the handshake is wrong: ") + ws::to_string(refusal.failure);
  }
  if (connection.connecting()) return "cannot connect: " + refusal.error.message();
  if (refusal.error.code == Errc::timed_out) return "the server did not answer the handshake in time";
  if (refusal.error.code == Errc::protocol) return "the server does not speak HTTP";
  if (refusal.error.code == Errc::end_of_stream)
    return "the server closed the connection during the handshake";
  return "the handshake failed: " + refusal.error.message();
}

}  // namespace

Worker::Worker(const Options& options, const net::Address& address, const Payloads& payloads,
               std::uint32_t first, std::uint32_t count, int notify_fd)
    : options_(options),
      address_(address),
      payloads_(payloads),
      schedule_{options.depth},
      opcode_(options.text ? ws::Opcode::text : ws::Opcode::binary),
      notify_fd_(notify_fd) {
  clients_.reserve(count);
  for (std::uint32_t i = 0; i < count; i++) clients_.push_back({Ledger(payloads, first + i, options.depth)});
}

ws::ServiceOptions Worker::service_options() const {
  constexpr std::uint64_t unlimited = ~std::uint64_t{0} >> 1;
  ws::ServiceOptions service;
  service.max_message_bytes = std::max(service.max_message_bytes, 2 * options_.bytes);
  service.check_utf8 = false;  // every byte is compared
  // A server may stop reading until its echoes are taken, so ours must go on being read whatever is queued
  // here.
  service.max_buffered_bytes = unlimited;
  service.pause_above_bytes = unlimited;
  service.handshake_timeout_ms = options_.timeout_ms;
  service.close_timeout_ms = close_ms;
  return service;
}

Error Worker::start() {
  auto reactor = net::Reactor::create({.backend = options_.backend});
  if (!reactor) return reactor.error();
  reactor_ = std::move(*reactor);
  result_.backend = net::to_string(reactor_->backend().kind());
  service_ = std::make_unique<ws::Service>(*reactor_, ws::Role::client, *this, service_options());
  reactor_->post([this] {
    connect_begin_ns_ = reactor_->now_ns();
    dial_more();
  });
  thread_ = std::thread([this] { reactor_->run(); });
  return {};
}

void Worker::join() {
  if (thread_.joinable()) thread_.join();
}

void Worker::notify() const {
  const std::uint64_t one = 1;
  [[maybe_unused]] const auto written = write(notify_fd_, &one, sizeof one);
}

// ---- Connecting ----

// How many connections may have been begun by now.
std::uint32_t Worker::dial_limit() {
  const auto all = static_cast<std::uint32_t>(clients_.size());
  if (options_.connect_rate <= 0) return all;
  const double share = static_cast<double>(clients_.size()) / options_.connections;
  const double seconds = static_cast<double>(reactor_->now_ns() - connect_begin_ns_) / 1e9;
  return static_cast<std::uint32_t>(std::min<double>(all, 1 + seconds * options_.connect_rate * share));
}

void Worker::dial_more() {
  if (phase_ != Phase::connecting) return;
  const std::uint32_t limit = dial_limit();
  while (dialed_ < limit && in_handshake_ < max_in_handshake) dial(clients_[dialed_++]);
  if (dialed_ == limit && limit < clients_.size()) reactor_->after(1, [this] { dial_more(); });
  settle();
}

void Worker::dial(Client& client) {
  ws::DialOptions dial;
  dial.host = options_.target.host_field;
  dial.target = options_.target.request_target;
  dial.user_data = &client;
  const auto* connection = service_->dial(address_, dial);
  if (connection != nullptr) {
    in_handshake_++;
    return;
  }
  const Error& error = service_->last_error();
  result_.count(std::string("connect.") + to_string(error.code), 1, "cannot connect: " + error.message());
}

void Worker::settle() {
  if (phase_ != Phase::connecting || dialed_ < clients_.size() || in_handshake_ > 0) return;
  phase_ = Phase::ready;
  ready_.store(true, std::memory_order_release);
  notify();
}

void Worker::on_open(ws::Connection& connection) {
  static_cast<Client*>(connection.user_data())->connection = &connection;
  open_.fetch_add(1, std::memory_order_relaxed);
  result_.opened++;
  in_handshake_--;
  dial_more();
}

void Worker::on_refused(ws::Connection& connection, const ws::Refusal& refusal) {
  if (phase_ == Phase::done) return;
  result_.count(refusal_kind(connection, refusal), 1, refusal_words(connection, refusal));
  in_handshake_--;
  dial_more();
}

// ---- Loading ----

void Worker::load_begin() {
  reactor_->post([this] {
    phase_ = Phase::loading;
    for (Client& client : clients_) send_due(client, reactor_->now_ns());
  });
}

void Worker::measure_begin() {
  reactor_->post([this] {
    measured_from_ns_ = reactor_->now_ns();
    begin_time_ = own_thread_time();
    measuring_ = true;
  });
}

void Worker::measure_end() {
  reactor_->post([this] {
    measure_end_ns_ = reactor_->now_ns();
    if (measuring_) {
      result_.seconds = static_cast<double>(measure_end_ns_ - measured_from_ns_) / 1e9;
      result_.busiest = use_between(begin_time_, own_thread_time(), result_.seconds);
    }
    measuring_ = false;
    phase_ = Phase::draining;
    for (const Client& client : clients_) in_flight_ += client.ledger.in_flight();
    if (in_flight_ == 0) return begin_closing();
    reactor_->after(drain_ms, [this] { begin_closing(); });
  });
}

void Worker::send_due(Client& client, std::uint64_t now) {
  if (client.connection == nullptr) return;
  for (auto due = schedule_.due(client.ledger.in_flight()); due > 0; due--) send_one(client, now);
}

void Worker::send_one(Client& client, std::uint64_t now) {
  if (const std::uint64_t missing = client.ledger.expire(); missing != 0) lose(missing, now);
  const std::uint32_t number = client.ledger.connection();
  const std::uint64_t sequence = client.ledger.send(now);
  const Payloads::Stamp stamp = payloads_.stamp(number, sequence);
  const std::array<Bytes, 2> parts = {Bytes(stamp).first(payloads_.stamp_size()),
                                      payloads_.body(number, sequence)};
  client.connection->send(opcode_, parts);
}

void Worker::on_message(ws::Connection& connection, ws::Opcode opcode, Bytes payload) {
  Client& client = *static_cast<Client*>(connection.user_data());
  const std::uint64_t now = reactor_->now_ns();
  const std::uint64_t in_flight = client.ledger.in_flight();
  const auto answer =
      opcode == opcode_ ? client.ledger.receive(payload) : client.ledger.receive_wrong(Echo::corrupt);
  if (answer.echo == Echo::right || answer.echo == Echo::reordered) {
    result_.verified++;
    if (measuring_) {
      result_.messages++;
      result_.bytes += payload.size();
    }
    if (answer.planned_ns >= measured_from_ns_) result_.response.record(now - answer.planned_ns);
  }
  if (answer.echo != Echo::right) note_wrong(client, answer);
  if (phase_ == Phase::loading) return send_due(client, now);
  if (phase_ != Phase::draining) return;
  in_flight_ -= in_flight - client.ledger.in_flight();
  if (in_flight_ == 0) begin_closing();
}

void Worker::note_wrong(const Client& client, const Ledger::Answer& answer) {
  std::string words = "connection " + std::to_string(client.ledger.connection());
  if (answer.echo == Echo::foreign) {
    words += ", message " + std::to_string(answer.sequence) + " was answered with message " +
             std::to_string(answer.origin.sequence) + " of connection " +
             std::to_string(answer.origin.connection);
  } else {
    words += ", message " + std::to_string(answer.sequence);
  }
  result_.count(to_string(answer.echo), 1, std::move(words));
}

// ---- The end ----

// A message that will never be answered took at least until now.
void Worker::lose(std::uint64_t planned_ns, std::uint64_t now) {
  result_.count("lost", 1);
  if (planned_ns < measured_from_ns_) return;
  result_.response.record(now - planned_ns);
  result_.censored++;
}

void Worker::on_close(ws::Connection& connection, const ws::CloseInfo& info) {
  if (phase_ == Phase::done) return;
  Client& client = *static_cast<Client*>(connection.user_data());
  client.connection = nullptr;
  const std::uint32_t left = open_.fetch_sub(1, std::memory_order_relaxed) - 1;
  if (phase_ != Phase::closing) {
    std::string words = "the connection ended with code " + std::to_string(ws::number(info.code));
    if (!info.reason.empty()) words += " (" + std::string(info.reason) + ")";
    result_.count("closed." + std::to_string(ws::number(info.code)), 1, std::move(words));
    const std::uint64_t now = reactor_->now_ns();
    if (phase_ == Phase::draining) in_flight_ -= client.ledger.in_flight();
    client.ledger.give_up([&](std::uint64_t planned_ns) { lose(planned_ns, now); });
    if (phase_ == Phase::draining && in_flight_ == 0) return begin_closing();
  }
  if (left > 0) return;
  if (phase_ == Phase::closing) return finish();
  notify();
}

void Worker::begin_closing() {
  if (phase_ != Phase::draining) return;
  phase_ = Phase::closing;
  const std::uint64_t now = reactor_->now_ns();
  for (Client& client : clients_) {
    client.ledger.give_up([&](std::uint64_t planned_ns) { lose(planned_ns, now); });
    if (client.connection != nullptr) client.connection->close();
  }
  if (open() == 0) return finish();
  reactor_->after(close_ms + 500, [this] { finish(); });
}

void Worker::finish() {
  phase_ = Phase::done;
  for (const Client& client : clients_) result_.sent += client.ledger.sent();
  reactor_->stop();
}

void Worker::abort() {
  reactor_->post([this] { finish(); });
}

}  // namespace levada::load
