// Worker, part 3: messages and their echoes.
#include <sys/timerfd.h>
#include <algorithm>
#include <utility>

#include <levada/tools/load/worker.h>

namespace levada::load {
namespace {

// Messages that one turn may send, so that echoes are read in between.
constexpr unsigned max_planned_a_turn = 1024;

}  // namespace

// ---- Open loop ----

// Gives each connection its timetable.
void Worker::plan() {
  const auto steady = [](const Client& client) { return client.character != Character::churner; };
  const double paced =
      broadcasts_ ? 1 : std::max(1.0, static_cast<double>(options_.connections) * (1 - options_.churn_share));
  const double interval_ns = 1e9 * paced / options_.rate;
  const std::uint64_t now = reactor_->now_ns();
  for (std::uint32_t i = 0; i < clients_.size() && (!broadcasts_ || i == 0); i++) {
    Client& client = clients_[i];
    if (client.connection == nullptr || !steady(client)) continue;
    SeededRandom seeds(options_.seed ^ (client.number() + 1) * 0x9E3779B97F4A7C15u);
    client.timetable = Timetable(seeds.next(), now, interval_ns, options_.pace == Pace::poisson);
    due_.push(client.timetable.next(), i);
  }
  Fd timer(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC));
  timer_ = reactor_->add<net::Watch>(
      std::move(timer), [](void* self, net::Watch&) { static_cast<Worker*>(self)->send_planned_now(); },
      this);
  arm_timer();
}

// Setting the timer also takes back that it has expired, so nothing needs to be read from it.
void Worker::arm_timer() {
  if (timer_ == nullptr) return;
  itimerspec at{};
  if (!due_.empty()) {
    at.it_value.tv_sec = static_cast<time_t>(due_.first_ns() / nanoseconds_per_second);
    at.it_value.tv_nsec = static_cast<long>(due_.first_ns() % nanoseconds_per_second);
  }
  timerfd_settime(timer_->native_fd(), TFD_TIMER_ABSTIME, &at, nullptr);
}

void Worker::send_planned(std::uint64_t now) {
  if (phase_ != Phase::loading) due_.clear();
  for (unsigned i = 0; i < max_planned_a_turn && !due_.empty() && due_.first_ns() <= now; i++) {
    Client& client = clients_[due_.first()];
    if (client.connection == nullptr || left_ == 0) {
      due_.pop();
      continue;
    }
    send(client, 1, client.timetable.next(), now);
    client.timetable.take();
    due_.postpone(client.timetable.next());
  }
  arm_timer();
}

// The load did not get to what was planned until now.
void Worker::leave_unsent(std::uint64_t now) {
  for (; !due_.empty() && due_.first_ns() <= now; due_.pop()) {
    Client& client = clients_[due_.first()];
    if (client.connection == nullptr || left_ == 0) continue;
    client.timetable.take_until(now, [&](std::uint64_t planned_ns, std::uint64_t times) {
      recorder_.leave_unsent(planned_ns, now, times);
    });
  }
  due_.clear();
  arm_timer();
}

// ---- Sending ----

void Worker::send_due(Client& client, std::uint64_t now) {
  if (client.connection == nullptr) return;
  if (broadcasts_) {
    if (&client != &clients_.front()) return;
    return send(client, closed_loop_.due(broadcasts_->open()), now, now);
  }
  auto due = closed_loop_.due(client.ledger.in_flight());
  if (comes_and_goes(client)) due = std::min(due, options_.messages_per_connection - client.begun);
  send(client, due, now, now);
}

// The client has room. What came together is answered together, when another client's turn comes or this loop's ends.
void Worker::refill_later(Client& client, std::uint64_t now) {
  if (refill_ == nullptr) {
    reactor_->post([this] { refill(); });
  } else {
    send_due(*refill_, refill_ns_);
  }
  refill_ = &client;
  refill_ns_ = now;
}

void Worker::refill() {
  Client* const client = std::exchange(refill_, nullptr);
  if (phase_ != Phase::loading) return;
  send_due(*client, refill_ns_);
  if (left_ == 0) stop_if_idle();
}

// So much is unanswered that the next message is not sent. False.
bool Worker::overrun(const Client& client) {
  Result& result = recorder_.result();
  result.count("overrun", 1,
               result.examples.contains("overrun")
                   ? std::string{}
                   : "connection " + std::to_string(client.number()) + ": a message was not sent, since " +
                         std::to_string(in_flight_) + " are unanswered");
  return false;
}

// Up to `count` messages that were planned then, as far as the share's count goes.
void Worker::send(Client& client, std::uint64_t count, std::uint64_t planned_ns, std::uint64_t now) {
  count = std::min(count, left_);
  if (count == 0) return;
  left_ -= count;
  if (broadcasts_) {
    for (; count > 0; count--) publish(client, planned_ns);
    return;
  }
  const std::uint64_t first = client.ledger.sent();
  for (; count > 0; count--) {
    if (!has_room(client)) continue;
    if (const std::uint64_t missing = client.ledger.expire(); missing != 0) recorder_.lose(missing, now);
    in_flight_++;
    transmit(client, client.ledger.send(planned_ns));
  }
  const std::uint64_t end = client.ledger.sent();
  client.begun += end - first;
  queued_.push_back({&client, first, end});
}

// A short message is put together first: masking both parts at once costs less than the copy.
void Worker::transmit(Client& client, std::uint64_t sequence) {
  const std::uint32_t number = client.number();
  const std::size_t size = payloads_.size(number, sequence);
  const bool shaped = sends_pings() || shaper_;
  Payloads::Short whole;
  if (size <= whole.size() && !shaped) {
    client.connection->send(opcode_, payloads_.write(whole, number, sequence, size));
    return;
  }
  const Payloads::Stamp stamp = payloads_.stamp(number, sequence);
  const std::array<Bytes, 2> parts = {Bytes(stamp).first(payloads_.stamp_size(size)),
                                      payloads_.body(number, sequence, size)};
  if (shaped) return transmit_shaped(client, sequence, parts);
  client.connection->send(opcode_, parts);
}

// As a ping, or in pieces.
void Worker::transmit_shaped(Client& client, std::uint64_t sequence, const std::array<Bytes, 2>& parts) {
  scratch_.assign(parts[0].begin(), parts[0].end());
  scratch_.insert(scratch_.end(), parts[1].begin(), parts[1].end());
  if (sends_pings()) {
    client.connection->ping(scratch_);
    return;
  }
  trickle(client);
  shaper_->add_message(client.trickle, client.pings, opcode_, scratch_, sequence);
}

void Worker::publish(Client& client, std::uint64_t planned_ns) {
  if (!has_room(client)) return;
  const std::uint64_t number = broadcasts_->publish(planned_ns, recorder_.counts(planned_ns));
  in_flight_ = broadcasts_->open();
  queued_.push_back({&client, number, number + 1});
  transmit(client, number);
}

// Something is about to be added to the client's trickle.
void Worker::trickle(Client& client) {
  if (trickling_.empty()) reactor_->post([this] { pump(); });
  if (client.trickle.empty()) trickling_.push_back(&client);
}

// Sends one piece of each message that leaves in pieces, and comes back in the next turn.
void Worker::pump() {
  std::erase_if(trickling_, [](Client* client) {
    if (!client->trickle.empty()) {
      const Piece piece = client->trickle.take();
      static_cast<net::Stream*>(client->connection)->send(piece);
    }
    return client->trickle.empty();
  });
  if (!trickling_.empty()) reactor_->post([this] { pump(); });
}

// ---- Receiving ----

void Worker::on_message(ws::Connection& connection, ws::Opcode opcode, Bytes payload) {
  Client& client = client_of(connection);
  if (broadcasts_) return hear(client, payload);
  receive(client, payload, opcode == opcode_ && !sends_pings());
}

void Worker::on_pong(ws::Connection& connection, Bytes payload) {
  Client& client = client_of(connection);
  if (sends_pings()) receive(client, payload, true);
  if (shaper_) client.pings.answer(payload);
}

// With shapes, the engine does not answer pings: its pong might come into the middle of a frame.
void Worker::on_ping(ws::Connection& connection, Bytes payload) {
  if (!shaper_) return;
  Client& client = client_of(connection);
  trickle(client);
  shaper_->add_control(client.trickle, ws::Opcode::pong, payload);
}

// When a message came. The few that one turn brings on one connection came in one piece, so the clock is read once.
std::uint64_t Worker::arrival(const Client& client) {
  constexpr unsigned most = 32;
  if (arrived_for_ != &client || arrived_ == most) {
    arrived_for_ = &client;
    arrived_ns_ = reactor_->now_ns();
    arrived_ = 0;
  }
  arrived_++;
  return arrived_ns_;
}

void Worker::receive(Client& client, Bytes payload, bool right_kind) {
  const std::uint64_t now = arrival(client);
  if (right_kind) {
    const Ledger::Times message = client.ledger.receive_due(payload);
    if (message.planned_ns != 0) {
      note_answered(client, 1);
      note_verified(client, message, payload.size(), now);
      return go_on(client, now);
    }
  }
  const std::uint64_t in_flight = client.ledger.in_flight();
  const auto answer =
      right_kind ? client.ledger.receive(payload) : client.ledger.receive_wrong(Echo::corrupt);
  note_answered(client, in_flight - client.ledger.in_flight());
  if (answer.echo == Echo::right || answer.echo == Echo::reordered)
    note_verified(client, answer.times(), payload.size(), now);
  if (answer.echo != Echo::right) note_wrong(client, answer);
  go_on(client, now);
}

void Worker::note_answered(Client& client, std::uint64_t count) {
  in_flight_ -= count;
  client.answered += count;
}

void Worker::note_verified(const Client& client, const Ledger::Times& message, std::size_t bytes,
                           std::uint64_t now) {
  result_of(client).verified++;
  if (measured(client) && phase_ != Phase::checking) return recorder_.echo(message, bytes, now);
  recorder_.result().verified++;
  if (phase_ == Phase::checking && client.checked) recorder_.result().held++;
}

// What a connection does next.
void Worker::go_on(Client& client, std::uint64_t now) {
  if (refill_ == &client) return;
  if (phase_ == Phase::loading) {
    const bool churner = comes_and_goes(client);
    if (churner && client.answered >= options_.messages_per_connection) return close_churner(client);
    if (churner) {
      send_due(client, now);
    } else if (!options_.open_loop()) {
      refill_later(client, now);
    }
    if (left_ == 0) stop_if_idle();
    return;
  }
  if (phase_ == Phase::draining && in_flight_ == 0) begin_checking();
  if (phase_ == Phase::checking) check_more();
}

void Worker::hear(Client& client, Bytes payload) {
  if (&client == &clients_.front()) return;  // what the publisher says may come back to it, or not
  const std::uint64_t now = reactor_->now_ns();
  const auto answer = broadcasts_->hear(client.number() - share_.first, payload, now);
  if (answer.planned_ns != 0) recorder_.echo(answer.times(), payload.size(), now);
  if (answer.echo != Echo::right) note_wrong(client, answer);
  in_flight_ = broadcasts_->open();
  if (phase_ == Phase::loading && !options_.open_loop()) send_due(clients_.front(), now);
  if (left_ == 0) stop_if_idle();
  if (phase_ == Phase::draining && in_flight_ == 0) begin_checking();
}

void Worker::note_wrong(const Client& client, const Ledger::Answer& answer) {
  std::string words = "connection " + std::to_string(client.number());
  if (answer.echo == Echo::foreign) {
    words += ", message " + std::to_string(answer.sequence) + " was answered with message " +
             std::to_string(answer.origin.sequence) + " of connection " +
             std::to_string(answer.origin.connection);
  } else {
    words += ", message " + std::to_string(answer.sequence);
  }
  recorder_.result().count(to_string(answer.echo), 1, std::move(words));
  result_of(client).errors++;
}

void Worker::give_up(Client& client, std::uint64_t now) {
  in_flight_ -= client.ledger.in_flight();
  client.ledger.give_up([&](std::uint64_t planned_ns) {
    recorder_.lose(planned_ns, now);
    result_of(client).errors++;
  });
}

}  // namespace levada::load
