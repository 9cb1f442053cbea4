// Sending on a Connection: what a message has to pass (admit) and how its frame is queued: framed where it lies, by
// reference, or copied to the turn's memory.
#include <algorithm>
#include <cassert>
#include <utility>

#include <levada/ws/encoder.h>
#include <levada/ws/service.h>
#include <levada/ws/tracing.h>

namespace levada::ws {

// The most that the frame of a message has. What was compressed with takeover has to be sent, also when it became longer.
inline std::size_t Connection::most_bytes(std::size_t size, bool deflated) const {
  return frame_size(deflated && deflate_.own_takeover() ? Deflater::bound(size) : size,
                    service_->role() == Role::client);
}

// The frame may be queued, or not: then this is what becomes of the message.
inline SendStatus Connection::admit(std::size_t size, bool whole) {
  if (buffered() + size <= service_->options_.max_buffered_bytes) return SendStatus::queued;
  return refuse_to_queue(size, whole);
}

SendStatus Connection::refuse_to_queue(std::size_t size, bool whole) {
  Counters& counters = service_->counters_;
  const std::size_t limit = service_->options_.max_buffered_bytes;
  const auto dropped = [&](std::size_t messages) {
    counters.messages_dropped.add(messages);
    if (messages > 0) trace(TraceKind::dropped, messages);
  };
  switch (whole ? service_->options_.output_policy : OutputPolicy::report) {
    case OutputPolicy::report:
      break;
    case OutputPolicy::drop_oldest:
      if (size <= limit) dropped(drop_oldest(buffered() + size - limit));
      if (buffered() + size <= limit) return SendStatus::queued;
      [[fallthrough]];
    case OutputPolicy::drop_newest:
      dropped(1);
      return SendStatus::dropped;
    case OutputPolicy::close:
      counters.slow_peers_closed.add();
      close(CloseCode::policy_violation, "too slow");
      return SendStatus::closed;
  }
  counters.sends_refused.add();
  trace(TraceKind::would_exceed, size);
  report_when_drained();  // also when the kernel then takes everything at once
  return SendStatus::full;
}

net::Mark Connection::mark_of(Opcode opcode, bool fin) const {
  if (service_->options_.output_policy != OutputPolicy::drop_oldest) return net::Mark::none;
  const bool message = fin && !is_control(opcode) && opcode != Opcode::continuation;
  return message ? net::Mark::message : net::Mark::kept;
}

// The frame's bytes where they were reserved.
inline void Connection::fill_frame(std::uint8_t* out, Opcode opcode, Bytes payload, bool fin, bool masked) {
  if (masked) {
    write_masked_frame(out, opcode, payload, reactor().random().next_u32(), fin);
  } else {
    write_frame(out, opcode, payload, fin);
  }
  trace(TraceKind::frame_queued, payload.size(), opcode);
}

// The case that matters: a short frame, neither compressed nor on TLS, that no policy may take back. Its bytes are written
// last, for a byte may alias all that was looked at.
inline bool Connection::send_short(Opcode opcode, Bytes payload, bool fin) {
  if (payload.size() > max_control_bytes || secured() || deflate_.agreed()) return false;
  const bool masked = service_->role() == Role::client;
  const std::size_t size = frame_size(payload.size(), masked);
  if (buffered() + size > service_->short_frames_until_bytes_) return false;
  service_->counters_.messages_sent.add();
  std::uint8_t* const out = reserve(size);
  send_raw({out, size});
  fill_frame(out, opcode, payload, fin, masked);
  return true;
}

// `whole`: a message of its own and not a piece, for which OutputPolicy holds.
SendStatus Connection::send_frame(Opcode opcode, Bytes payload, bool fin, Compress compress, bool whole) {
  if (!is_open()) return SendStatus::closed;
  assert(!fragmenting_ || opcode == Opcode::continuation);
  if (send_short(opcode, payload, fin)) return SendStatus::queued;
  const bool deflated = whole && is_deflated(opcode, payload.size(), compress);
  const SendStatus status = admit(most_bytes(payload.size(), deflated), whole);
  if (status != SendStatus::queued) return status;
  service_->counters_.messages_sent.add();
  if (deflated && queue_deflated(opcode, payload, true, false)) return status;
  const bool in_place = payload.size() >= copy_below_bytes && queue_in_place(opcode, payload, fin);
  if (!in_place) queue_frame(opcode, payload, fin);
  return status;
}

void Connection::queue_frame(Opcode opcode, Bytes payload, bool fin) {
  const bool masked = service_->role() == Role::client;
  const std::size_t size = frame_size(payload.size(), masked);
  std::uint8_t* const out = reserve(size);
  send_turn_memory({out, size}, mark_of(opcode, fin));
  fill_frame(out, opcode, payload, fin, masked);
}

// Frames the payload that a handler is being shown where it lies. A second time it is copied: the first frame is it.
bool Connection::queue_in_place(Opcode opcode, Bytes payload, bool fin) {
  Decoded* const shown = service_->shown_;
  if (shown == nullptr || payload.data() != shown->payload.data() || service_->role() == Role::client)
    return false;
  if (header_size_for(payload.size(), false) > shown->headroom) return false;
  const Bytes frame = frame_in_place(shown->payload.data(), payload.size(), opcode, fin);
  shown->headroom = 0;
  if (shown->owner == nullptr) {
    send_turn_memory(frame, mark_of(opcode, fin));
  } else {
    send_owned(frame, OwnerRef::share(shown->owner).release(), mark_of(opcode, fin));
  }
  trace(TraceKind::frame_queued, payload.size(), opcode);
  return true;
}

SendStatus Connection::send(Opcode opcode, std::span<const Bytes> parts, Compress compress) {
  if (!is_open()) return SendStatus::closed;
  assert(!fragmenting_);
  std::size_t length = 0;
  for (const Bytes part : parts) length += part.size();
  const bool masked = service_->role() == Role::client;
  const bool deflated = is_deflated(opcode, length, compress);
  const SendStatus status = admit(most_bytes(length, deflated));
  if (status != SendStatus::queued) return status;
  service_->counters_.messages_sent.add();
  if (deflated) {
    std::uint8_t* const joined = reserve(length);
    std::uint8_t* end = joined;
    for (const Bytes part : parts) end = std::copy(part.begin(), part.end(), end);
    if (queue_deflated(opcode, {joined, length}, true, false)) return status;
  }
  const MaskKey key = masked ? reactor().random().next_u32() : 0;
  std::uint8_t* const out = reserve(frame_size(length, masked));
  std::uint8_t* at =
      out + write_header(out, {.opcode = opcode, .masked = masked, .key = key, .length = length});
  std::size_t offset = 0;
  for (const Bytes part : parts) {
    mask_copy(at + offset, part, key, offset);
    offset += part.size();
  }
  send_turn_memory({out, static_cast<std::size_t>(at - out) + length}, mark_of(opcode, true));
  trace(TraceKind::frame_queued, length, opcode);
  return status;
}

// A client masks, and what is taken over has to pass the connection's own deflater: both make a frame of their own. So does
// no other, for whom compressing it once is enough.
SendStatus Connection::send(const PreparedMessage& message, Compress compress) {
  const Opcode opcode = message.opcode();
  if (is_control(opcode)) return send_control(opcode, message.payload());
  const bool client = service_->role() == Role::client;
  const bool for_all = message.window_bits() != 0;
  const bool deflated = for_all && is_deflated(opcode, message.payload().size(), compress);
  if (client || (deflated && deflate_.own_takeover()))
    return send_frame(opcode, message.payload(), true, compress);
  if (!is_open()) return SendStatus::closed;
  assert(!fragmenting_);
  const bool fits = deflate_.agreed() && !deflate_.own_takeover() && compress != Compress::never &&
                    !message.compressed_frame().empty() &&
                    message.window_bits() <= deflate_.own_window_bits();
  const Bytes frame = fits ? message.compressed_frame() : message.frame();
  const SendStatus status = admit(frame.size());
  if (status != SendStatus::queued) return status;
  service_->counters_.messages_sent.add();
  if (frame.size() < copy_below_bytes) {
    Stream::send(frame, mark_of(opcode, true));
  } else {
    send_owned(frame, message.share(), mark_of(opcode, true));
  }
  trace(TraceKind::frame_queued, message.frame().size() - header_size(message.frame()[1]), opcode);
  return status;
}

// What Handle::send() has copied: where it is not compressed, it is sent by reference.
SendStatus Connection::send_copied(const PreparedMessage& message, Compress compress) {
  const Bytes payload = message.payload();
  if (!is_deflated(message.opcode(), payload.size(), compress)) return send(message, Compress::never);
  return send_frame(message.opcode(), payload, true, compress);
}

SendStatus Connection::send(Opcode opcode, PayloadRef payload, Compress compress) {
  const std::size_t size = payload.bytes().size();
  if (service_->role() == Role::client || size < copy_below_bytes || is_deflated(opcode, size, compress)) {
    return send(opcode, payload.bytes(), compress);
  }
  if (!is_open()) return SendStatus::closed;
  assert(!fragmenting_);
  const std::size_t length = payload.bytes().size();
  const SendStatus status = admit(frame_size(length, false));
  if (status != SendStatus::queued) return status;
  service_->counters_.messages_sent.add();
  std::uint8_t* header = reserve(max_header_bytes);
  send_turn_memory({header, write_header(header, {.opcode = opcode, .length = length})},
                   mark_of(opcode, true));
  send_owned(payload.bytes(), payload.owner_.release());
  trace(TraceKind::frame_queued, length, opcode);
  return status;
}

SendStatus Connection::send_fragment(Opcode opcode, Bytes piece, bool last, Compress compress) {
  const bool deflated =
      fragmenting_ ? deflate_.in_fragments
                   : deflate_.agreed() && compress != Compress::never && may_become_longer(piece.size());
  if (fragmenting_) opcode = Opcode::continuation;
  const SendStatus status = deflated ? send_deflated_fragment(opcode, piece, last)
                                     : send_frame(opcode, piece, last, Compress::never, false);
  if (status != SendStatus::queued) return status;
  fragmenting_ = !last;
  deflate_.in_fragments = deflated && !last;
  return status;
}

// A piece cannot be taken back once it was compressed, so it has to fit whatever becomes of it.
SendStatus Connection::send_deflated_fragment(Opcode opcode, Bytes piece, bool last) {
  if (!is_open()) return SendStatus::closed;
  const SendStatus status =
      admit(frame_size(Deflater::bound(piece.size()), service_->role() == Role::client), false);
  if (status != SendStatus::queued) return status;
  service_->counters_.messages_sent.add();
  queue_deflated(opcode, piece, last, true);
  return status;
}

// Control frames may go beyond the limit for messages, but leave room for the close frame.
SendStatus Connection::send_control(Opcode opcode, Bytes payload) {
  assert(payload.size() <= max_control_bytes);
  if (!is_open()) return SendStatus::closed;
  constexpr std::size_t reserve_bytes = control_reserve_bytes - close_reserve_bytes;
  const std::size_t size = frame_size(payload.size(), service_->role() == Role::client);
  if (buffered() + size > service_->options_.max_buffered_bytes + reserve_bytes) {
    service_->counters_.controls_dropped.add();
    trace(TraceKind::dropped, 1, opcode);
    return SendStatus::dropped;
  }
  queue_frame(opcode, payload, true);
  return SendStatus::queued;
}

SendStatus Connection::ping(Bytes payload) {
  return send_control(Opcode::ping, payload);
}
SendStatus Connection::pong(Bytes payload) {
  return send_control(Opcode::pong, payload);
}

}  // namespace levada::ws
