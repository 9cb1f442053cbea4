#include <levada/ws/connection.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <utility>

#include <levada/ws/encoder.h>
#include <levada/ws/service.h>
#include <levada/ws/tracing.h>

namespace levada::ws {
namespace {

constexpr std::uint16_t status_unavailable = 503;
// A message with at least this much missing is received straight into its assembly.
constexpr std::size_t direct_from_bytes = 32 * 1024;

}  // namespace

// ---- Handle ----

Connection* Handle::get() const {
  net::Reactor* const reactor = reactor_.get();
  return reactor == nullptr ? nullptr : static_cast<Connection*>(reactor->find(id_));
}

SendStatus Handle::send(Opcode opcode, Bytes payload, Result result, Compress compress) const {
  return post_message(PreparedMessage(opcode, payload), true, result, compress);
}

SendStatus Handle::send(PreparedMessage message, Result result, Compress compress) const {
  return post_message(std::move(message), false, result, compress);
}

SendStatus Handle::post_message(PreparedMessage message, bool copied, Result result,
                                Compress compress) const {
  struct Delivery {
    Handle to;
    PreparedMessage message;
    bool copied;
    Result result;
    Compress compress;

    void operator()(Connection* connection) const {
      SendStatus status = SendStatus::closed;
      if (connection != nullptr)
        status = copied ? connection->send_copied(message, compress) : connection->send(message, compress);
      if (result != nullptr) result(to, status);
    }
  };
  if (*this == Handle()) {
    if (result != nullptr) result(*this, SendStatus::closed);
    return SendStatus::closed;
  }
  const std::size_t bytes = message.frame().size() + sizeof(Task);
  auto delivery = std::make_unique<Delivery>(Delivery{*this, std::move(message), copied, result, compress});
  Delivery& kept = *delivery;
  Task task = detail::Visit(*this, [delivery = std::move(delivery)](Connection* to) { (*delivery)(to); });
  const net::Posted posted = reactor_.post(task, bytes);
  if (posted == net::Posted::full) kept.result = nullptr;  // nothing is done
  if (posted == net::Posted::taken) return SendStatus::queued;
  return posted == net::Posted::full ? SendStatus::full : SendStatus::closed;
}

void Handle::close(CloseCode code) const {
  run([code](Connection* connection) {
    if (connection != nullptr) connection->close(code);
  });
}

// ---- State ----

Result<net::Address> Connection::remote_address() const {
  if (proxied_) return service_->proxied_addresses_.at(id().packed());
  return net::Address::of_peer(native_fd());
}

Role Connection::role() const {
  return service_->role();
}

std::string_view Connection::subprotocol() const {
  return subprotocol_ == 0 ? std::string_view{} : service_->subprotocols_[subprotocol_ - 1u];
}

const DecoderOptions& Connection::decoder_options() const {
  return deflate_.agreed() ? service_->deflate_decoder_options_ : service_->decoder_options_;
}

Pending& Connection::pending() {
  if (pending_ == nullptr) {
    pending_ = &service_->take_pending();
    pending_->decoder.use(decoder_options());
  }
  return *pending_;
}

void Connection::drop_pending() {
  if (pending_ != nullptr) service_->give_pending(*std::exchange(pending_, nullptr));
}

// ---- Closing ----

void Connection::close(CloseCode code, std::string_view reason) {
  assert(code == CloseCode::no_status || is_valid_on_wire(code));
  if (phase_ == Phase::handshake && role() == Role::client) return terminate();
  if (phase_ != Phase::open || closed()) return;
  std::array<std::uint8_t, max_control_bytes> payload;
  queue_frame(Opcode::close, {payload.data(), write_close(payload.data(), code, reason)}, true);
  close_sent_ = true;
  trace(TraceKind::close_sent, number(code));
  phase_ = Phase::closing;
  since_ms_ = reactor().now_ms();
  set_timer(service_->options_.close_timeout_ms);
  paused_by_user_ = false;  // the peer's close frame has to be read; messages before it are not delivered
  read_if_allowed();
}

// The service ends: as close() when there is somebody to tell, and a refusal when there is not yet. To a server that was not
// asked yet nothing is owed, neither what is queued nor the time to end by itself.
void Connection::shut_down() {
  if (phase_ == Phase::open) return close(CloseCode::going_away);
  if (phase_ != Phase::handshake && phase_ != Phase::held) return;
  if (role() == Role::server) return reject(status_unavailable);
  refuse({.error = {Errc::canceled, "shut_down"}});
  terminate();
}

// Nothing is sent or delivered any more. A server ends TCP, so that the peer is not the one left waiting (RFC 6455
// section 7.1.1). A client lets it, also when the server broke a rule: many servers take the end of our side for the end
// of both, and could not answer our close frame. What the peer still sends is read and dropped until it ends too, for
// closing a socket with unread bytes would reset the connection and could take our close frame with it.
void Connection::end_sending() {
  phase_ = Phase::closed;
  receive_directly(false);  // first: the kernel may be writing into what is pending
  drop_pending();
  Stream::resume();
  if (role() == Role::server) finish();
  since_ms_ = reactor().now_ms();
  set_timer(service_->options_.close_timeout_ms);
}

void Connection::fail(FrameError error) {
  fail(close_code(error), to_string(error), {Errc::protocol, "receive"});
}

// The peer broke a rule or a bound: it is told the code, and nothing it sends counts any more.
void Connection::fail(CloseCode code, const char* reason, const Error& error) {
  service_->counters_.violations.add();
  trace(TraceKind::failed, number(code));
  if (phase_ == Phase::open) close(code);
  end_sending();
  report({.code = code, .reason = reason, .by = ClosedBy::local, .error = error});
}

// Ends the connection at once: the peer does not take what it would have to be told.
void Connection::cut(Counter& counter, const Error& error) {
  counter.add();
  if (service_->shutting_down_ && !is_over()) service_->cut_by_shut_down_++;
  phase_ = Phase::closed;
  report({.code = CloseCode::abnormal, .reason = {}, .by = ClosedBy::transport, .error = error});
  terminate();
}

void Connection::receive_close(Bytes payload) {
  const ClosePayload close_payload = parse_close(payload);
  trace(TraceKind::close_received, number(close_payload.code));
  const ClosedBy by = close_sent_ ? ClosedBy::local : ClosedBy::peer;
  if (phase_ == Phase::open) close(close_payload.code);
  // The reason lies in the payload, which may be the pending decoder's: report before that is dropped.
  phase_ = Phase::closed;
  report({.code = close_payload.code, .reason = close_payload.reason, .by = by, .error = {}});
  if (!closed()) end_sending();
}

// Calls on_close, once for each on_open.
void Connection::report(const CloseInfo& info) {
  if (!opened_) return;
  opened_ = false;
  trace(TraceKind::closed, number(info.code));
  Counters& counters = service_->counters_;
  counters.closed.add();
  counters.closed_by_code[Counters::index_of(info.code)].add();
  if (service_->dial_observer_ != nullptr) service_->dial_observer_->closed(*this, info);
  if (service_->table_.close != nullptr) service_->table_.close(service_->handler_, *this, info);
}

// ---- Events of the stream ----

void Connection::on_receive(MutableBytes bytes, Owner* memory) {
  note_received(reactor().now_ms());
  switch (phase_) {
    case Phase::handshake:
      return role() == Role::server ? receive_request(bytes, memory) : receive_response(bytes, memory);
    case Phase::held:
      return hold_back(bytes);
    case Phase::open:
    case Phase::closing:
      if (in_slices()) return append_input(*pending_, reactor().blocks(), bytes);
      if (pending_ != nullptr) pending_->inflated = 0;
      return receive_frames(bytes, memory);
    case Phase::closed:
      return;
  }
}

void Connection::receive_frames(MutableBytes bytes, Owner* memory) {
  // The shared decoder is not idle when a handler that is shown a message of its adopts another connection.
  Decoder& common = deflate_.agreed() ? service_->deflate_decoder_ : service_->decoder_;
  const bool shared = pending_ == nullptr && common.idle();
  Decoder& decoder = shared ? common : pending().decoder;
  service_->shown_memory_ = memory;
  const std::size_t size = bytes.size();
  std::size_t messages = 0;
  std::size_t payload_bytes = 0;
  bool message_ended = false;
  for (;;) {
    Decoded decoded = decode(decoder, bytes);
    if (decoded.event == DecoderEvent::none) break;
    if (decoded.event <= DecoderEvent::fragment) message_ended |= decoded.fin;
    if (decoded.compressed) {
      if (!receive_compressed(decoded, bytes)) break;
    } else {
      if (decoded.event <= DecoderEvent::fragment) {
        messages += decoded.fin ? 1 : 0;
        payload_bytes += decoded.payload.size();
      }
      dispatch(decoded);
    }
    if (closed() || phase_ == Phase::closed) break;
  }
  service_->counters_.messages_received.add(messages);
  service_->counters_.payload_bytes_received.add(payload_bytes);
  if (closed() || phase_ == Phase::closed) {
    // end_sending() gave the connection's own decoder back; the shared one has to forget this connection.
    if (shared) common.reset();
    return;
  }
  keep_decoder(decoder, message_ended, size);
}

void Connection::dispatch(Decoded& decoded) {
  const HandlerTable& table = service_->table_;
  switch (decoded.event) {
    case DecoderEvent::message:
    case DecoderEvent::fragment:
      return show(decoded);
    case DecoderEvent::ping:
      if (phase_ != Phase::open) return;
      if (too_many_controls()) return;
      if (table.ping != nullptr) table.ping(service_->handler_, *this, decoded.payload);
      if (service_->options_.auto_pong) pong(decoded.payload);
      return;
    case DecoderEvent::pong:
      if (phase_ != Phase::open || too_many_controls() || receive_rtt(decoded.payload)) return;
      if (table.pong != nullptr) table.pong(service_->handler_, *this, decoded.payload);
      return;
    case DecoderEvent::close:
      return receive_close(decoded.payload);
    case DecoderEvent::error:
      return fail(decoded.error);
    case DecoderEvent::none:
      return;
  }
}

void Connection::show(Decoded& decoded) {
  if (phase_ != Phase::open) return;
  const HandlerTable& table = service_->table_;
  trace(TraceKind::delivered, decoded.payload.size(), decoded.opcode);
  service_->shown_ = &decoded;
  if (table.message != nullptr) {
    table.message(service_->handler_, *this, decoded.opcode, decoded.payload);
  } else if (table.fragment != nullptr) {
    table.fragment(service_->handler_, *this, decoded.opcode, decoded.payload, decoded.fin);
  }
  service_->shown_ = nullptr;
}

// After the input is used up: a message that is under way keeps a decoder of its own, any other gives it back.
void Connection::keep_decoder(Decoder& decoder, bool message_ended, std::size_t bytes) {
  if (decoder.idle()) {
    if (pending_ != nullptr) pending_->clock_runs = false;
    if (pending_ != nullptr && !in_slices()) drop_pending();
  } else {
    Pending& own = pending();
    if (&own.decoder != &decoder) {
      own.decoder.~Decoder();
      ::new (&own.decoder) Decoder(std::move(decoder));
      message_ended = true;
    }
    restart_message_clock(message_ended, bytes);
  }
  receive_directly(pending_ != nullptr && pending_->decoder.assembly_target().size() >= direct_from_bytes);
  if (blocked() && !paused() && buffered() > service_->options_.pause_above_bytes) {
    paused_by_output_ = true;
    service_->counters_.pauses.add();
    stop_reading();
  }
}

void Connection::pause() {
  if (phase_ == Phase::closing || phase_ == Phase::closed) return;
  paused_by_user_ = true;
  stop_reading();
}

void Connection::resume() {
  paused_by_user_ = false;
  read_if_allowed();
}

net::ReceiveTarget Connection::receive_target() {
  return {pending_->decoder.assembly_target(), pending_->decoder.assembly_owner()};
}

void Connection::on_drained() {
  trace(TraceKind::drained);
  // Only now has a slow peer been given the close frame: it gets the whole time for its part.
  if (phase_ == Phase::closing || phase_ == Phase::closed) set_timer(service_->options_.close_timeout_ms);
  if (paused_by_output_) {
    paused_by_output_ = false;
    read_if_allowed();
  }
  if (phase_ == Phase::open && service_->table_.drain != nullptr)
    service_->table_.drain(service_->handler_, *this);
}

void Connection::on_end(const Error& error) {
  if (phase_ == Phase::handshake && role() == Role::client) handshake_over(error);
  if (closed()) return;
  if (in_slices()) {  // what has arrived before is handled first
    pending_->ended = true;
    pending_->end = error;
    return;
  }
  const bool was_closed = std::exchange(phase_, Phase::closed) == Phase::closed;
  report({.code = CloseCode::abnormal, .reason = {}, .by = ClosedBy::transport, .error = error});
  if (was_closed && !all_sent()) return finish();
  let_leave();
}

// What is queued still leaves, then the stream closes. A transport that failed has nothing queued; with TLS that failed
// it is the alert. With TLS that works, the peer is owed a close_notify (RFC 8446 section 6.1).
void Connection::let_leave() {
  const bool owes_close_notify = tls() != nullptr && tls()->is_open() && !finishing_;
  if (all_sent() && !owes_close_notify) return terminate();
  end_sending();
  finish();
}

// The service ends before its reactor.
void Connection::leave_service() {
  terminate();
  on_closed();
  service_ = nullptr;
}

void Connection::on_closed() {
  if (service_ == nullptr) return;  // it ended first
  if (phase_ == Phase::handshake && role() == Role::client) refuse({.error = {Errc::canceled, "terminate"}});
  const bool ended = pending_ != nullptr && pending_->ended;  // and then failed, before its slices were done
  report({.code = CloseCode::abnormal,
          .reason = {},
          .by = ended ? ClosedBy::transport : ClosedBy::local,
          .error = ended ? pending_->end : Error{Errc::canceled, "terminate"}});
  if (!was_open_ && user_data_ != nullptr && role() == Role::server && service_->table_.gone != nullptr) {
    service_->table_.gone(service_->handler_, *this);
  }
  trace(TraceKind::gone);
  drop_pending();
  if (deflate_.agreed()) service_->compression_.remove(id());
  if (proxied_) service_->proxied_addresses_.erase(id().packed());
  service_->went();
  if (service_->connections_ == 0 && service_->on_empty_) service_->on_empty_();
}

// ---- Memory ----

// The memory budget is exceeded, and this connection has to go: told why, but with `cut` not waited for.
void Connection::shed(bool cut) {
  const Error error{Errc::over_budget, "receive"};
  if (!shakes_hands()) {
    fail(CloseCode::try_again_later, "over_budget", error);
    if (cut) terminate();
  } else if (role() == Role::client) {
    refuse({.error = error});
  } else if (blocked()) {  // by answers to plain requests, and would not read this one
    terminate();
  } else {
    reject(status_unavailable);
  }
}

// Of what is not whole yet: a handshake's head or a message, as it came and inflated.
std::size_t Connection::received_bytes() const {
  if (pending_ == nullptr) return 0;
  const std::size_t inflated = pending_->inflater == nullptr ? 0 : pending_->inflater->message_bytes();
  const std::size_t input = pending_->input == nullptr ? 0 : pending_->input->counted_bytes();
  return pending_->decoder.assembled_bytes() + inflated + input;
}

std::size_t Connection::held_bytes() const {
  return sole_bytes() + received_bytes();
}

// ---- Keeping payloads ----

PayloadRef Connection::keep(Bytes payload) {
  const Decoded* const shown = service_->shown_;
  const Bytes whole = shown == nullptr ? Bytes{} : Bytes{shown->payload};
  const bool inside =
      payload.data() >= whole.data() && payload.data() + payload.size() <= whole.data() + whole.size();
  if (inside && shown != nullptr && shown->owner != nullptr) return {payload, OwnerRef::share(shown->owner)};
  // A reference on a receive buffer keeps all of it out of use: worth it only for a good part of one.
  constexpr std::size_t worth_a_buffer = 16 * 1024;
  Owner* const memory = service_->shown_memory_;
  if (inside && memory != nullptr && payload.size() >= worth_a_buffer && reactor().backend().can_lend()) {
    return {payload, OwnerRef::share(memory)};
  }
  Block* block = reactor().blocks().allocate(payload.size());
  block->note_used(payload.size());
  if (!payload.empty()) std::memcpy(block->data(), payload.data(), payload.size());
  return {{block->data(), payload.size()}, OwnerRef::adopt(block)};
}

}  // namespace levada::ws
