// Worker, part 2: connections that come and go.
#include <algorithm>

#include <levada/tools/load/worker.h>

namespace levada::load {
namespace {

constexpr std::uint32_t max_in_handshake = 128;
constexpr std::uint32_t retry_ms = 10;

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

// Whether the ramp allows one more by now.
bool Worker::may_dial() const {
  if (options_.mode != Mode::churn && in_handshake_ >= max_in_handshake) return false;
  if (options_.connect_rate <= 0) return true;
  const double share = static_cast<double>(share_.connections) / options_.connections;
  const double seconds = static_cast<double>(reactor_->now_ns() - connect_begin_ns_) / 1e9;
  return static_cast<double>(dialed_) < 1 + seconds * options_.connect_rate * share;
}

void Worker::dial_more() {
  if (phase_ != Phase::connecting && phase_ != Phase::loading) return;
  while (!to_dial_.empty() && may_dial()) {
    if (left_ == 0 && options_.mode == Mode::churn) {
      to_dial_.clear();
      return stop_if_idle();
    }
    Client& client = *to_dial_.front();
    to_dial_.pop_front();
    dial(client);
  }
  if (!to_dial_.empty() && options_.connect_rate > 0 && !dial_planned_) {
    dial_planned_ = true;
    reactor_->after(1, [this] {
      dial_planned_ = false;
      dial_more();
    });
  }
  settle();
}

void Worker::dial(Client& client) {
  std::vector<ws::HttpField> fields;
  for (const auto& [name, value] : options_.fields) fields.push_back({name, value});
  std::optional<net::Address> source;
  if (!options_.sources.empty()) source = options_.sources.address(client.number());
  const Target& target = options_.targets[client.target];
  ws::DialOptions dial;
  dial.host = options_.host.empty() ? target.host_field : options_.host;
  dial.target = target.request_target;
  dial.origin = options_.origin;
  dial.fields = fields;
  dial.source = source ? &*source : nullptr;
  dial.user_data = &client;
  if (target.secure) {
    dial.tls = options_.context;
    dial.tls_host = options_.sni.empty() ? target.host : options_.sni;
    dial.tls_port = target.port;
  }
  dialed_++;
  if (counts_handshakes() && !std::exchange(client.tries_on, false)) left_--;
  client.dialed_ns = reactor_->now_ns();
  if (service_->dial(addresses_[client.target][client.address], dial) != nullptr) {
    in_handshake_++;
    return;
  }
  if (try_next_address(client)) return;
  const Error& error = service_->last_error();
  result_of(client).errors++;
  recorder_.result().count(std::string("connect.") + to_string(error.code), 1,
                           "cannot connect: " + error.message());
  give_up_attempt();
  if (comes_and_goes(client) && phase_ == Phase::loading) dial_again(client, retry_ms);
}

// A name may have several addresses, of which the server listens on some.
bool Worker::try_next_address(Client& client) {
  if (client.address + 1 >= addresses_[client.target].size()) {
    client.address = 0;
    return false;
  }
  client.address++;
  client.tries_on = true;
  dial(client);
  return true;
}

// The messages that a churner would have sent count as tried, so that a count is reached whoever answers.
void Worker::give_up_attempt() {
  if (options_.mode == Mode::churn) left_ -= std::min(left_, options_.messages_per_connection);
}

void Worker::dial_again(Client& client, std::uint32_t delay_ms) {
  if (left_ == 0) return stop_if_idle();
  if (delay_ms == 0) {
    to_dial_.push_back(&client);
    return dial_more();
  }
  reactor_->after(delay_ms, [this, &client] {
    if (phase_ == Phase::loading) dial_again(client, 0);
  });
}

void Worker::settle() {
  if (phase_ != Phase::connecting || !to_dial_.empty() || in_handshake_ > 0) return;
  phase_ = Phase::ready;
  ready_.store(true, std::memory_order_release);
  notify();
}

void Worker::on_connected(ws::Connection& connection) {
  Client& client = client_of(connection);
  client.connected_ns = client.secured_ns = reactor_->now_ns();
}

void Worker::on_secured(ws::Connection& connection) {
  client_of(connection).secured_ns = reactor_->now_ns();
}

void Worker::on_open(ws::Connection& connection) {
  Client& client = client_of(connection);
  const std::uint64_t now = reactor_->now_ns();
  Result& result = recorder_.result();
  client.connection = &connection;
  client.begun = client.answered = 0;
  open_.fetch_add(1, std::memory_order_relaxed);
  in_handshake_--;
  result.opened += !client.known;
  result_of(client).connections += !client.known;
  client.known = true;
  result.http_status[101]++;
  result.connected++;
  result.compressed += connection.compresses();
  if (const net::TlsSession* tls = static_cast<net::Stream&>(connection).tls())
    result.tls_resumed += tls->resumed();
  result.handshakes += recorder_.measuring();
  if (phase_ == Phase::connecting || recorder_.counts(client.dialed_ns)) {
    result.connect.record(client.connected_ns - client.dialed_ns);
    if (options_.targets[client.target].secure) result.tls.record(client.secured_ns - client.connected_ns);
    result.upgrade.record(now - client.secured_ns);
    result.handshake.record(now - client.dialed_ns);
  }
  if (broadcasts_ && &client != &clients_.front()) broadcasts_->join(client.number() - share_.first);
  if (client.character == Character::slow) connection.pause();
  if (phase_ == Phase::loading && comes_and_goes(client)) go_on(client, now);
  if (phase_ == Phase::draining || phase_ == Phase::closing) connection.close();
  dial_more();
}

void Worker::note_refusal(const ws::Connection& connection, const ws::Refusal& refusal) {
  if (refusal.response != nullptr) recorder_.result().http_status[refusal.response->status()]++;
  recorder_.result().count(refusal_kind(connection, refusal), 1, refusal_words(connection, refusal));
}

void Worker::on_refused(ws::Connection& connection, const ws::Refusal& refusal) {
  if (phase_ == Phase::done) return;
  in_handshake_--;
  // What has not opened when the load ends is not waited for.
  if (phase_ == Phase::draining || phase_ == Phase::closing) return;
  Client& client = client_of(connection);
  if (connection.connecting() && try_next_address(client)) return dial_more();
  note_refusal(connection, refusal);
  result_of(client).errors++;
  give_up_attempt();
  if (comes_and_goes(client) && phase_ == Phase::loading) dial_again(client, retry_ms);
  dial_more();
}

void Worker::close_churner(Client& client) {
  if (client.trickle.empty()) return client.connection->close();
  client.connection->terminate();
}

void Worker::on_close(ws::Connection& connection, const ws::CloseInfo& info) {
  if (phase_ == Phase::done) return;
  Client& client = client_of(connection);
  const bool own = phase_ == Phase::closing || (comes_and_goes(client) && info.by == ws::ClosedBy::local &&
                                                info.code == ws::CloseCode::normal);
  client.connection = nullptr;
  client.trickle.clear();
  client.pings.forget();
  open_.fetch_sub(1, std::memory_order_relaxed);
  recorder_.result().close_codes[ws::number(info.code)]++;
  if (!own) {
    std::string words = "the connection ended with code " + std::to_string(ws::number(info.code));
    if (!info.reason.empty()) words += " (" + std::string(info.reason) + ")";
    recorder_.result().count("closed." + std::to_string(ws::number(info.code)), 1, std::move(words));
    result_of(client).errors++;
    const std::uint64_t now = reactor_->now_ns();
    give_up(client, now);
    if (broadcasts_) {
      broadcasts_->leave(client.number() - share_.first,
                         [&](std::uint64_t planned_ns) { recorder_.lose(planned_ns, now); });
      in_flight_ = broadcasts_->open();
    }
  }
  if (phase_ == Phase::loading && comes_and_goes(client)) return dial_again(client, own ? 0 : retry_ms);
  stop_if_idle();
  if (phase_ == Phase::draining && in_flight_ == 0) return begin_checking();
  if (phase_ == Phase::checking) return check_more();
  if (phase_ == Phase::closing && open() == 0) finish();
}

// Slow readers read for 2 ms in each 100; at the end they read all.
void Worker::hush(bool reading) {
  if (options_.slow_share == 0) return;
  for (Client& client : clients_) {
    if (client.character != Character::slow || client.connection == nullptr) continue;
    if (reading) {
      client.connection->resume();
    } else {
      client.connection->pause();
    }
  }
  if (phase_ == Phase::loading)
    reactor_->after(reading ? 2 : 98, [this, reading] {
      if (phase_ == Phase::loading) hush(!reading);
    });
}

}  // namespace levada::load
