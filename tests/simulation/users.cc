// What the users of the engine do in a simulation: handlers, and callers from outside of them.
#include <algorithm>

#include <levada/tests/simulation/simulator.h>
#include <levada/ws/encoder.h>

namespace levada::ws::test {
namespace {

Link* link_of(const Connection& connection) {
  return static_cast<Link*>(connection.user_data());
}

}  // namespace

// ---- Handlers ----

void Actor::on_upgrade(Upgrade& upgrade) {
  Simulator& sim = simulator_;
  const Simulator::Inside inside(sim);
  const std::string_view text = upgrade.request().find("X-Link");
  const auto found = std::find_if(sim.live_.begin(), sim.live_.end(),
                                  [&](const Link* link) { return text == link_name(link->number); });
  if (found == sim.live_.end()) return;  // a wild one
  Link* const link = *found;
  upgrade.set_user_data(link);
  if (sim.choices_.one_in(4)) upgrade.add_field("X-Field", "of the answer");
  const std::string_view path = upgrade.request().path();
  if (path == "/forbidden") return upgrade.reject(403, "no\n");
  if (path != "/held") return;
  sim.count("held handshake");
  link->held = true;
  sim.held_.push_back({upgrade.hold(), link});
}

void Actor::on_http(HttpExchange& exchange) {
  const Simulator::Inside inside(simulator_);
  exchange.respond(200, "text/plain", "plain\n");
}

void Actor::on_open(Connection& connection) {
  Simulator& sim = simulator_;
  const Simulator::Inside inside(sim);
  Link* const link = link_of(connection);
  if (link == nullptr) {
    sim.wild_opened_++;
    return;
  }
  sim.count("open");
  link->opened(connection, sim.turn_ms());
  if (sim.choices_.one_in(3)) sim.act(*link, connection);
}

void MessageActor::on_message(Connection& connection, Opcode opcode, Bytes payload) {
  const Simulator::Inside inside(simulator_);
  simulator_.count("message received");
  Link* const link = link_of(connection);
  if (link != nullptr) link->delivered(DecoderEvent::message, opcode, payload);
  simulator_.act_or_echo(link, connection, opcode, payload);
}

void PieceActor::on_fragment(Connection& connection, Opcode opcode, Bytes piece, bool last) {
  Simulator& sim = simulator_;
  const Simulator::Inside inside(sim);
  sim.count("piece received");
  Link* const link = link_of(connection);
  if (link == nullptr) return;
  link->delivered_piece(opcode, piece, last);
  // Sends it on as a message of its own, framed where it lies if there is room.
  if (sim.choices_.one_in(2) && !link->fragmenting) return sim.send(*link, connection, Opcode::binary, piece);
  sim.act(*link, connection);
}

void Actor::on_ping(Connection& connection, Bytes payload) {
  const Simulator::Inside inside(simulator_);
  Link* const link = link_of(connection);
  if (link == nullptr) return;
  link->delivered(DecoderEvent::ping, Opcode::binary, payload);
  link->control_delivered(simulator_.turn_ms());
  if (simulator_.choices_.one_in(4)) simulator_.act(*link, connection);
  simulator_.auto_pong(*link, connection, payload);
}

void Actor::on_pong(Connection& connection, Bytes payload) {
  const Simulator::Inside inside(simulator_);
  Link* const link = link_of(connection);
  if (link == nullptr) return;
  link->delivered(DecoderEvent::pong, Opcode::binary, payload);
  link->control_delivered(simulator_.turn_ms());
  if (simulator_.choices_.one_in(4)) simulator_.act(*link, connection);
}

void Actor::on_drain(Connection& connection) {
  const Simulator::Inside inside(simulator_);
  Link* const link = link_of(connection);
  if (link == nullptr) return;
  simulator_.count("drain");
  simulator_.journal_.note("on_drain", link->number);
  link->drained();
  link->notice(connection, simulator_.turn_ms());
  simulator_.journal_.require(link->is_open(), "on_drain comes only while a connection is open",
                              link->number);
  link->wants_drain = false;
  if (simulator_.choices_.one_in(3)) simulator_.act(*link, connection);
}

void Actor::on_close(Connection& connection, const CloseInfo& info) {
  Simulator& sim = simulator_;
  Link* const link = link_of(connection);
  if (link == nullptr) {
    sim.wild_closed_++;
    return;
  }
  sim.count("close");
  if (info.reason == "message_timeout") sim.count("limit: message timeout");
  if (info.reason == "message_too_slow") sim.count("limit: least rate");
  if (info.reason == "too_many_controls") sim.count("limit: control frames");
  if (info.error.code == Errc::over_budget && link->may_be_shed) {
    sim.journal_.require(link->held_bytes == sim.heaviest_, "the connection that holds most is shed",
                         link->number, static_cast<std::int64_t>(link->held_bytes));
  }
  link->closed(connection, info, sim.now_ms());
  // Nothing can be sent any more, and it says so.
  if (sim.choices_.one_in(4)) {
    const bool refused = connection.send_text("late") == SendStatus::closed;
    sim.journal_.require(refused, "on_close is too late for sending", link->number);
  }
  if (sim.choices_.one_in(8)) sim.broadcast();  // to the others, also at the very end of a turn
  if (!sim.choices_.one_in(16)) return;
  link->terminated = true;
  connection.terminate();
}

// ---- Sending ----

std::size_t Simulator::queue_limit(const Connection& connection) const {
  return connection.service().options().max_buffered_bytes;
}

// The most that a frame takes of the queue: what has to fit.
std::size_t Simulator::most_bytes(const Link& link, const Connection& connection, const Sending& what) const {
  const bool client = connection.role() == Role::client;
  const std::size_t size = what.payload.size();
  const bool control = is_control(what.opcode);
  const std::size_t plain = frame_size(size, client), longest = frame_size(Deflater::bound(size), client);
  if (!link.compresses() || control || what.prepared) return plain;
  // What might never fit goes as it is.
  const bool fits = longest <= queue_limit(connection);
  if (!what.whole) return (link.fragmenting ? link.compresses_fragments : fits) ? longest : plain;
  const bool worth_it = size >= connection.service().options().deflate.min_bytes;
  return worth_it && link.own_takeover && fits ? longest : plain;
}

// A failed transport takes nothing, even if messages are still shown, which is so only while some are inflated in slices.
bool Simulator::may_send(const Link& link, const Connection& connection) const {
  if (!link.is_open() || link.close_queued() || connection.closed()) return false;
  return connection.is_open() || !link.compresses();
}

// What has to become of a frame; the oldest messages that have to be dropped for it are.
SendStatus Simulator::expect(Link& link, Connection& connection, const Sending& what,
                             Link::Dropped& dropped) {
  if (!may_send(link, connection)) return SendStatus::closed;
  const bool control = is_control(what.opcode);
  const std::size_t size = most_bytes(link, connection, what), limit = queue_limit(connection);
  const std::size_t after = connection.buffered() + size;
  if (control) {
    const bool fits = after <= limit + control_reserve_bytes - close_reserve_bytes;
    return fits ? SendStatus::queued : SendStatus::dropped;
  }
  if (after <= limit) return SendStatus::queued;
  switch (what.whole ? connection.service().options().output_policy : OutputPolicy::report) {
    case OutputPolicy::report:
      return SendStatus::full;
    case OutputPolicy::drop_oldest:
      if (size <= limit) dropped = link.drop_oldest(connection.buffered(), after - limit);
      if (after - dropped.bytes <= limit) return SendStatus::queued;
      [[fallthrough]];
    case OutputPolicy::drop_newest:
      return SendStatus::dropped;
    case OutputPolicy::close:
      return SendStatus::closed;
  }
  return SendStatus::closed;
}

// Compares a send's answer with what was to be expected, and remembers what is owed to the peer.
template <class Send>
SendStatus Simulator::send(Link& link, Connection& connection, const Sending& what, Send&& send) {
  link.notice(connection, turn_ms());
  const Counters& counters = connection.service().counters();
  const bool was_open = may_send(link, connection);
  Link::Dropped dropped;
  const SendStatus expected = expect(link, connection, what, dropped);
  const std::size_t most = most_bytes(link, connection, what), before = connection.buffered();
  const std::uint64_t dropped_before = counters.messages_dropped.value();
  const SendStatus status = send();
  journal_.require(status == expected, "a send says what becomes of it", link.number,
                   static_cast<std::int64_t>(status));
  const bool drops = status == SendStatus::dropped && !is_control(what.opcode);
  journal_.require(counters.messages_dropped.value() - dropped_before == dropped.messages + (drops ? 1 : 0),
                   "what is dropped is counted", link.number, static_cast<std::int64_t>(dropped.messages));
  if (drops) count("newest message dropped");
  if (dropped.messages > 0) count("oldest messages dropped");
  if (status == SendStatus::full) {
    count("send refused: full");
    link.wants_drain = before > 0;
  }
  if (status == SendStatus::closed && was_open) {
    count("too slow a peer closed");
    link.closing(CloseCode::policy_violation, "too slow", now_ms());
  }
  if (status != SendStatus::queued) return status;
  count("frame queued");
  const std::size_t size = connection.buffered() + dropped.bytes - before;
  const bool exact = !link.compresses() || is_control(what.opcode) || what.prepared;
  journal_.require(exact ? size == most : size <= most, "buffered() grows by the frame", link.number,
                   static_cast<std::int64_t>(size));
  // Later messages may refer to one that was compressed, which needs room for more than it has. A piece that is all of its
  // message is one like any other.
  const bool compressed = most > frame_size(what.payload.size(), connection.role() == Role::client);
  const bool message = what.fin && !is_control(what.opcode) && what.opcode != Opcode::continuation;
  link.queued(what.opcode, what.payload, what.fin, size, message && !(compressed && link.own_takeover));
  return status;
}

void Simulator::send(Link& link, Connection& connection, Opcode opcode, Bytes payload) {
  const std::string copy(to_text(payload));
  send(link, connection, {opcode, copy}, [&] { return connection.send(opcode, payload); });
}

void Simulator::send_parts(Link& link, Connection& connection) {
  Bytes parts[4];
  std::string whole;
  for (Bytes& part : parts) {
    part = to_bytes(random_payload(Content::bytes));
    whole += to_text(part);
  }
  send(link, connection, {Opcode::binary, whole}, [&] { return connection.send(Opcode::binary, parts); });
}

void Simulator::send_fragment(Link& link, Connection& connection, bool may_go_on) {
  const std::string_view piece = may_go_on ? random_payload(Content::letters) : "end";
  const bool last = !may_go_on || choices_.one_in(3);
  const Opcode opcode = link.fragmenting ? Opcode::continuation : Opcode::text;
  const Sending what{opcode, piece, last, false};
  const bool compresses =
      most_bytes(link, connection, what) > frame_size(piece.size(), connection.role() == Role::client);
  const SendStatus status = send(
      link, connection, what, [&] { return connection.send_fragment(Opcode::text, to_bytes(piece), last); });
  if (status == SendStatus::queued) link.compresses_fragments = compresses;
  if (status == SendStatus::queued) link.fragmenting = !last;
}

void Simulator::send_control(Link& link, Connection& connection) {
  const std::string mark = std::to_string(++next_mark_);
  const bool ping = choices_.one_in(2);
  send(link, connection, {ping ? Opcode::ping : Opcode::pong, mark},
       [&] { return ping ? connection.ping(to_bytes(mark)) : connection.pong(to_bytes(mark)); });
}

// The engine answers a ping after the handler was told, as far as there is room.
void Simulator::auto_pong(Link& link, Connection& connection, Bytes payload) {
  if (!connection.service().options().auto_pong || link.close_queued() || !link.is_open() ||
      connection.closed())
    return;
  const std::size_t size = frame_size(payload.size(), connection.role() == Role::client);
  if (connection.buffered() + size > queue_limit(connection) + control_reserve_bytes - close_reserve_bytes)
    return count("pong dropped");
  count("pong by itself");
  link.queued(Opcode::pong, to_text(payload));
}

void Simulator::send_kept(Link& link, Connection& connection) {
  if (kept_.empty()) return;
  Kept kept = std::move(kept_.front());
  kept_.pop_front();
  count("kept payload sent");
  send(link, connection, {Opcode::binary, kept.copy},
       [&] { return connection.send(Opcode::binary, std::move(kept.payload)); });
}

void Simulator::broadcast() {
  count("broadcast");
  const std::string_view text = random_payload(Content::letters);
  const PreparedMessage message(Opcode::text, to_bytes(text));
  message_service_->for_each([&](Connection& each) {
    Link* const link = link_of(each);
    if (link == nullptr || link->fragmenting) return;
    send(*link, each, {.opcode = Opcode::text, .payload = text, .prepared = true},
         [&] { return each.send(message); });
  });
}

void Simulator::close(Link& link, Connection& connection) {
  count("close by the user");
  const auto code = static_cast<CloseCode>(choices_.of({1000, 1001, 1013, 4000, 1005}));
  const std::string_view reason = code == CloseCode::no_status
                                      ? std::string_view{}
                                      : payload(choices_, choices_.below(100), Content::letters);
  const bool open = connection.is_open();
  connection.close(code, reason);
  if (open) link.closing(code, reason, now_ms());
}

// ---- Acts ----

void Simulator::act_or_echo(Link* link, Connection& connection, Opcode opcode, Bytes payload) {
  if (link == nullptr) {
    connection.send(opcode, payload);
    return;
  }
  const std::uint64_t kind = choices_.below(8);
  if (kind < 4 && !link->fragmenting) {
    send(*link, connection, opcode, payload);
    // The first one was framed where it lies; the second has to be a copy, also when it is another message.
    if (kind == 3) {
      const std::size_t size = payload.size() - choices_.below(payload.size() + 1) / 2;
      send(*link, connection, choices_.one_in(2) ? Opcode::binary : Opcode::text, payload.first(size));
    }
    return;
  }
  if (kind == 6 && kept_.size() < 30) {
    count("payload kept");
    const std::size_t from = choices_.one_in(2) ? choices_.below(payload.size() + 1) : 0;
    PayloadRef kept = connection.keep(payload.subspan(from));
    std::string copy(to_text(kept.bytes()));
    journal_.require(to_text(payload.subspan(from)) == copy, "a kept payload is the payload", link->number);
    kept_.push_back({std::move(kept), std::move(copy)});
    if (choices_.one_in(3) && !link->fragmenting) send_kept(*link, connection);
    return;
  }
  act(*link, connection);
}

// Something at random, on the reactor's thread, in a handler or outside.
void Simulator::act(Link& link, Connection& connection) {
  link.notice(connection, turn_ms());
  const std::uint64_t kind = choices_.below(32);
  if (kind == 0) return;
  if (kind <= 3) return send_control(link, connection);
  if (kind <= 6) return send_fragment(link, connection, !calm_);
  if (kind == 7) return post(*random_link());
  if (kind == 31) return calm_ ? void() : close(link, connection);
  if (kind == 30) {
    if (calm_ || !choices_.one_in(2)) return;
    count("terminate");
    journal_.note("terminate", link.number);
    link.terminated = true;
    return connection.terminate();
  }
  if (kind >= 28) {
    if (calm_) return;
    count("pause");
    journal_.note("pause", link.number);
    link.paused = true;
    connection.pause();
    return link.notice(connection, turn_ms());
  }
  if (kind >= 25) {
    journal_.note("resume", link.number);
    link.resumed();
    connection.resume();
    return link.notice(connection, turn_ms());
  }
  if (kind == 24) return broadcast();
  if (link.fragmenting) return;
  if (kind == 23) return send_parts(link, connection);
  if (kind >= 21) return send_kept(link, connection);
  send(link, connection, Opcode::binary, to_bytes(random_payload(Content::bytes)));
}

// A task by way of a handle, of which the connection may be gone.
void Simulator::post(Link& link) {
  Link& target = links_.size() > 1 && choices_.one_in(4) ? links_[choices_.below(links_.size())] : link;
  if (!target.was_opened()) return;
  count("post");
  journal_.note("post", target.number);
  target.handle().run([this, link = &target](Connection* connection) {
    journal_.require(connection == nullptr || !link->is_over(), "a handle of a dead connection finds none",
                     link->number);
    count(connection == nullptr ? "post to a dead connection" : "post to a live connection");
    if (connection != nullptr) act(*link, *connection);
  });
}

// Decides a held handshake, or some that are gone.
void Simulator::decide() {
  if (held_.empty()) return;
  const std::size_t at = choices_.below(held_.size());
  const Held held = held_[at];
  held_.erase(held_.begin() + static_cast<std::ptrdiff_t>(at));
  count("held handshake decided");
  if (!held.link->peer.closed()) held.link->held = false;
  if (choices_.one_in(3)) {
    held.link->expect_rejection(503);
    held.ticket.reject(503, "later\n");
  } else {
    held.ticket.accept();
  }
}

}  // namespace levada::ws::test
