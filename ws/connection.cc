#include <levada/ws/connection.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cstring>
#include <utility>

#include <levada/ws/encoder.h>
#include <levada/ws/service.h>

namespace levada::ws {
namespace {

// A message with at least this much missing is received straight into its assembly.
constexpr std::size_t direct_from_bytes = 32 * 1024;

}  // namespace

// ---- Handle ----

Connection* Handle::get() const {
  return reactor_ == nullptr ? nullptr : static_cast<Connection*>(reactor_->find(id_));
}

void Handle::send(Opcode opcode, Bytes payload, void (*result)(Handle, SendStatus)) const {
  send(PreparedMessage(opcode, payload), result);
}

void Handle::send(PreparedMessage message, void (*result)(Handle, SendStatus)) const {
  auto deliver = [handle = *this, message = std::make_unique<PreparedMessage>(std::move(message)), result] {
    Connection* connection = handle.get();
    const SendStatus status = connection == nullptr ? SendStatus::closed : connection->send(*message);
    if (result != nullptr) result(handle, status);
  };
  reactor_->post(std::move(deliver));
}

void Handle::close(CloseCode code) const {
  run([code](Connection* connection) {
    if (connection != nullptr) connection->close(code);
  });
}

// ---- State ----

bool Connection::is_open() const {
  return phase_ == Phase::open && !closed();
}

Role Connection::role() const {
  return service_->role();
}

std::string_view Connection::subprotocol() const {
  return subprotocol_ == 0 ? std::string_view{} : service_->subprotocols_[subprotocol_ - 1u];
}

Pending& Connection::pending() {
  if (pending_ == nullptr) pending_ = &service_->take_pending();
  return *pending_;
}

void Connection::drop_pending() {
  if (pending_ != nullptr) service_->give_pending(*std::exchange(pending_, nullptr));
}

// ---- Sending ----

// A refusal is followed by on_drain, also when the kernel then takes everything at once.
bool Connection::has_room(std::size_t bytes) {
  if (buffered() + bytes <= service_->options_.max_buffered_bytes) return true;
  report_when_drained();
  return false;
}

SendStatus Connection::send_frame(Opcode opcode, Bytes payload, bool fin) {
  if (phase_ != Phase::open || closed()) return SendStatus::closed;
  assert(is_control(opcode) || !fragmenting_ || opcode == Opcode::continuation);
  if (!has_room(frame_size(payload.size(), role() == Role::client))) return SendStatus::full;
  const bool in_place = payload.size() >= copy_below_bytes && queue_in_place(opcode, payload, fin);
  if (!in_place) queue_frame(opcode, payload, fin);
  return SendStatus::queued;
}

void Connection::queue_frame(Opcode opcode, Bytes payload, bool fin) {
  const bool masked = role() == Role::client;
  const std::size_t size = frame_size(payload.size(), masked);
  std::uint8_t* out = reserve(size);
  if (masked) {
    write_masked_frame(out, opcode, payload, reactor().random().next_u32(), fin);
  } else {
    write_frame(out, opcode, payload, fin);
  }
  send_turn_memory({out, size});
}

// Frames the payload that a handler is being shown where it lies. A second time it is copied: the first frame is it.
bool Connection::queue_in_place(Opcode opcode, Bytes payload, bool fin) {
  Decoded* const shown = service_->shown_;
  if (shown == nullptr || payload.data() != shown->payload.data() || role() == Role::client) return false;
  if (header_size_for(payload.size(), false) > shown->headroom) return false;
  const Bytes frame = frame_in_place(shown->payload.data(), payload.size(), opcode, fin);
  shown->headroom = 0;
  if (shown->owner == nullptr) {
    send_turn_memory(frame);
  } else {
    send_owned(frame, OwnerRef::share(shown->owner).release());
  }
  return true;
}

SendStatus Connection::send(Opcode opcode, std::span<const Bytes> parts) {
  if (phase_ != Phase::open || closed()) return SendStatus::closed;
  assert(!fragmenting_);
  std::size_t length = 0;
  for (const Bytes part : parts) length += part.size();
  const bool masked = role() == Role::client;
  if (!has_room(frame_size(length, masked))) return SendStatus::full;
  const MaskKey key = masked ? reactor().random().next_u32() : 0;
  std::uint8_t* const out = reserve(frame_size(length, masked));
  std::uint8_t* at =
      out + write_header(out, {.opcode = opcode, .masked = masked, .key = key, .length = length});
  std::size_t offset = 0;
  for (const Bytes part : parts) {
    mask_copy(at + offset, part, key, offset);
    offset += part.size();
  }
  send_turn_memory({out, static_cast<std::size_t>(at - out) + length});
  return SendStatus::queued;
}

SendStatus Connection::send(const PreparedMessage& message) {
  const Bytes frame = message.frame();
  if (role() == Role::client) {
    FrameHeader header;
    const std::size_t size = parse_header(frame, header);
    return send_frame(header.opcode, frame.subspan(size), true);
  }
  if (phase_ != Phase::open || closed()) return SendStatus::closed;
  assert(!fragmenting_);
  if (!has_room(frame.size())) return SendStatus::full;
  if (frame.size() < copy_below_bytes) {
    Stream::send(frame);
  } else {
    send_owned(frame, message.share());
  }
  return SendStatus::queued;
}

SendStatus Connection::send(Opcode opcode, PayloadRef payload) {
  if (role() == Role::client || payload.bytes().size() < copy_below_bytes)
    return send(opcode, payload.bytes());
  if (phase_ != Phase::open || closed()) return SendStatus::closed;
  assert(!fragmenting_);
  const std::size_t length = payload.bytes().size();
  if (!has_room(frame_size(length, false))) return SendStatus::full;
  std::uint8_t* header = reserve(max_header_bytes);
  send_turn_memory({header, write_header(header, {.opcode = opcode, .length = length})});
  send_owned(payload.bytes(), payload.owner_.release());
  return SendStatus::queued;
}

SendStatus Connection::send_fragment(Opcode opcode, Bytes piece, bool last) {
  const SendStatus status = send_frame(fragmenting_ ? Opcode::continuation : opcode, piece, last);
  if (status == SendStatus::queued) fragmenting_ = !last;
  return status;
}

SendStatus Connection::send_control(Opcode opcode, Bytes payload) {
  assert(payload.size() <= max_control_bytes);
  return send_frame(opcode, payload, true);
}

SendStatus Connection::ping(Bytes payload) {
  return send_control(Opcode::ping, payload);
}
SendStatus Connection::pong(Bytes payload) {
  return send_control(Opcode::pong, payload);
}

// ---- Closing ----

void Connection::close(CloseCode code, std::string_view reason) {
  assert(code == CloseCode::no_status || is_valid_on_wire(code));
  if (phase_ != Phase::open || closed()) return;
  std::array<std::uint8_t, max_control_bytes> payload;
  queue_frame(Opcode::close, {payload.data(), write_close(payload.data(), code, reason)}, true);
  close_sent_ = true;
  phase_ = Phase::closing;
  set_timer(service_->options_.close_timeout_ms);
}

// Nothing is sent or delivered any more. A server ends TCP, so that the peer is not the one left waiting (RFC 6455
// section 7.1.1); what the peer still sends is read and dropped until it ends too, for closing a socket with unread
// bytes would reset the connection and could take our close frame with it.
void Connection::end_sending() {
  phase_ = Phase::closed;
  drop_pending();
  receive_directly(false);
  Stream::resume();
  if (role() == Role::server) finish();
  set_timer(service_->options_.close_timeout_ms);
}

void Connection::fail(FrameError error) {
  const CloseCode code = close_code(error);
  if (phase_ == Phase::open) close(code);
  end_sending();
  if (role() == Role::client) finish();
  report({.code = code,
          .reason = to_string(error),
          .by = ClosedBy::local,
          .error = {Errc::protocol, "receive"}});
}

void Connection::receive_close(Bytes payload) {
  const ClosePayload close_payload = parse_close(payload);
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
  if (service_->table_.close != nullptr) service_->table_.close(service_->handler_, *this, info);
}

// ---- Events of the stream ----

void Connection::on_receive(MutableBytes bytes, Owner* memory) {
  switch (phase_) {
    case Phase::handshake:
      return role() == Role::server ? receive_request(bytes, memory) : receive_response(bytes, memory);
    case Phase::held:
      return hold_back(bytes);
    case Phase::open:
    case Phase::closing:
      return receive_frames(bytes, memory);
    case Phase::closed:
      return;
  }
}

void Connection::receive_frames(MutableBytes bytes, Owner* memory) {
  // The shared decoder is not idle when a handler that is shown a message of its adopts another connection.
  const bool shared = pending_ == nullptr && service_->decoder_.idle();
  Decoder& decoder = shared ? service_->decoder_ : pending().decoder;
  service_->shown_memory_ = memory;
  for (;;) {
    Decoded decoded = decoder.next(bytes);
    if (decoded.event == DecoderEvent::none) return keep_decoder(decoder);
    dispatch(decoded);
    if (closed() || phase_ == Phase::closed) {
      // end_sending() gave the connection's own decoder back; the shared one has to forget this connection.
      if (shared) service_->decoder_.reset();
      return;
    }
  }
}

void Connection::dispatch(Decoded& decoded) {
  const HandlerTable& table = service_->table_;
  switch (decoded.event) {
    case DecoderEvent::message:
    case DecoderEvent::fragment:
      return show(decoded);
    case DecoderEvent::ping:
      if (phase_ != Phase::open) return;
      if (table.ping != nullptr) table.ping(service_->handler_, *this, decoded.payload);
      if (service_->options_.auto_pong) pong(decoded.payload);
      return;
    case DecoderEvent::pong:
      if (phase_ == Phase::open && table.pong != nullptr)
        table.pong(service_->handler_, *this, decoded.payload);
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
  service_->shown_ = &decoded;
  if (table.message != nullptr) {
    table.message(service_->handler_, *this, decoded.opcode, decoded.payload);
  } else if (table.fragment != nullptr) {
    table.fragment(service_->handler_, *this, decoded.opcode, decoded.payload, decoded.fin);
  }
  service_->shown_ = nullptr;
}

// After the input is used up: a message that is under way keeps a decoder of its own, any other gives it back.
void Connection::keep_decoder(Decoder& decoder) {
  if (decoder.idle()) {
    if (pending_ != nullptr) drop_pending();
  } else if (pending_ == nullptr) {
    Pending& own = pending();
    own.decoder.~Decoder();
    ::new (&own.decoder) Decoder(std::move(decoder));
  }
  receive_directly(pending_ != nullptr && pending_->decoder.assembly_target().size() >= direct_from_bytes);
  if (blocked() && !paused() && buffered() > service_->options_.pause_above_bytes) {
    paused_by_output_ = true;
    Stream::pause();
  }
}

void Connection::pause() {
  paused_by_user_ = true;
  Stream::pause();
}

void Connection::resume() {
  paused_by_user_ = false;
  if (!paused_by_output_ && phase_ != Phase::held) Stream::resume();
}

net::ReceiveTarget Connection::receive_target() {
  return {pending_->decoder.assembly_target(), pending_->decoder.assembly_owner()};
}

void Connection::on_drained() {
  if (paused_by_output_) {
    paused_by_output_ = false;
    if (!paused_by_user_) Stream::resume();
  }
  if (phase_ == Phase::open && service_->table_.drain != nullptr)
    service_->table_.drain(service_->handler_, *this);
}

void Connection::on_end(const Error& error) {
  if (phase_ == Phase::handshake && role() == Role::client) refuse({.error = error});
  if (closed()) return;
  const bool was_closed = std::exchange(phase_, Phase::closed) == Phase::closed;
  report({.code = CloseCode::abnormal, .reason = {}, .by = ClosedBy::transport, .error = error});
  const bool can_send = error.code == Errc::end_of_stream && buffered() > 0;
  if (!can_send) return terminate();
  if (!was_closed) end_sending();  // what is queued still leaves; then the stream closes
  finish();
}

void Connection::on_timer() {
  if (phase_ == Phase::handshake && role() == Role::client) {
    refuse({.error = {Errc::timed_out, "handshake"}});
    return;
  }
  phase_ = Phase::closed;
  report({.code = CloseCode::abnormal,
          .reason = {},
          .by = ClosedBy::transport,
          .error = {Errc::timed_out, "close"}});
  terminate();
}

void Connection::on_closed() {
  report({.code = CloseCode::abnormal,
          .reason = {},
          .by = ClosedBy::local,
          .error = {Errc::canceled, "terminate"}});
  drop_pending();
  service_->connections_--;
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
  if (!payload.empty()) std::memcpy(block->data(), payload.data(), payload.size());
  return {{block->data(), payload.size()}, OwnerRef::adopt(block)};
}

}  // namespace levada::ws
