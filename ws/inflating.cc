// Compressed messages of a Connection, both ways (RFC 7692).
//
// Receiving: the decoder hands on the pieces of a compressed message; an inflater makes messages of them, a slice in each
// turn, so that one that inflates to a thousand times its size does not hold the reactor, nor do many small ones. While it
// waits for its next slice the connection does not read, and what it had received lies in its Pending. The transport's end
// waits until that is used up:
//
//   input | done | rest of the piece, unmasked | frames behind it, as they came |
//                ^ parsed_bytes   <-inflating->
#include <algorithm>
#include <cstring>
#include <utility>

#include <levada/ws/encoder.h>
#include <levada/ws/service.h>
#include <levada/ws/tracing.h>

namespace levada::ws {

bool Connection::in_slices() const {
  return pending_ != nullptr && pending_->in_slices;
}

// A piece of a compressed message. Returns whether the frames behind it may be looked at.
bool Connection::receive_compressed(const Decoded& piece, MutableBytes behind) {
  if (phase_ != Phase::open) return true;
  Pending& own = pending();
  if (own.inflater == nullptr) {
    own.inflater = &service_->compression_.take_inflater(id(), deflate_);
    own.utf8.reset();
  }
  own.opcode = piece.opcode;
  own.last_piece = piece.fin;
  Bytes in = piece.payload;
  const bool more = inflate(in);
  if (closed() || phase_ == Phase::closed) return false;
  if (!more && (behind.empty() || own.inflated < service_->compression_.slice_bytes())) return true;
  keep_slices(piece.payload.last(in.size()), behind);
  return false;
}

// Inflates until the slice is used up. Returns whether there is more to be inflated.
bool Connection::inflate(Bytes& in) {
  Inflater& inflater = *pending_->inflater;
  const std::size_t slice_bytes = service_->compression_.slice_bytes();
  const bool text = pending_->opcode == Opcode::text && service_->options_.check_utf8;
  for (;;) {
    const Inflated out = inflater.next(in, pending_->last_piece, slice_bytes);
    pending_->inflated += out.fresh.size();
    if (out.event == InflateEvent::error) {
      fail(out.error);
      return false;
    }
    const bool ended = out.event == InflateEvent::message || (out.event == InflateEvent::fragment && out.fin);
    const bool valid = !text || (pending_->utf8.feed(out.fresh) && (!ended || pending_->utf8.complete()));
    if (!valid) {
      fail(FrameError::bad_text);
      return false;
    }
    if (out.event == InflateEvent::none) return false;
    if (out.event == InflateEvent::more) return true;
    service_->counters_.payload_bytes_received.add(out.payload.size());
    Decoded shown{.opcode = pending_->opcode,
                  .fin = ended,
                  .payload = out.payload,
                  .headroom = out.headroom,
                  .owner = out.owner};
    show(shown);
    if (closed() || phase_ == Phase::closed) return false;  // the inflater was given back
    inflater.release();
    if (!ended && pending_->inflated >= slice_bytes) return true;
    if (!ended) continue;
    service_->counters_.messages_received.add();
    service_->compression_.give_inflater(*std::exchange(pending_->inflater, nullptr));
    return false;
  }
}

// ---- Slices ----

void Connection::keep_slices(Bytes piece, Bytes behind) {
  Pending& own = *pending_;
  Block* input = reactor().blocks().allocate(piece.size() + behind.size());
  input->note_used(piece.size() + behind.size());
  if (!piece.empty()) std::memcpy(input->data(), piece.data(), piece.size());
  if (!behind.empty()) std::memcpy(input->data() + piece.size(), behind.data(), behind.size());
  own.input = input;
  own.input_bytes = piece.size() + behind.size();
  own.parsed_bytes = 0;
  own.inflating = piece.size();
  own.in_slices = true;
  service_->compression_.begin_slices();
  stop_reading();
  inflate_next_turn();
}

void Connection::inflate_next_turn() {
  handle().run([](Connection* connection) {
    if (connection != nullptr && connection->in_slices()) connection->inflate_slice();
  });
}

// The next slice, and behind the last one the transport's end, if that came in the meantime.
void Connection::inflate_slice() {
  const bool ended = pending_->ended;
  const Error end = pending_->end;
  pending_->inflated = 0;
  inflate_on();
  if (ended && !in_slices() && !closed()) on_end(end);
}

void Connection::inflate_on() {
  Pending& own = *pending_;
  Bytes in{own.input->data() + own.parsed_bytes, own.inflating};
  bool more = false;
  if (phase_ != Phase::open) {
    in = {};  // nobody will be shown the rest
  } else if (own.inflater != nullptr) {
    more = inflate(in);
  }
  if (closed() || phase_ == Phase::closed) return;
  own.parsed_bytes += own.inflating - in.size();
  own.inflating = in.size();
  if (more) return inflate_next_turn();
  leave_slices();
}

// The frames behind the message are received as if they came now.
void Connection::leave_slices() {
  Pending& own = *pending_;
  own.in_slices = false;
  service_->compression_.end_slices();
  Block* const input = std::exchange(own.input, nullptr);
  const std::size_t done = std::exchange(own.parsed_bytes, 0);
  const std::size_t size = std::exchange(own.input_bytes, 0) - done;
  std::uint8_t* rest = reserve(size);
  if (size > 0) std::memcpy(rest, input->data() + done, size);
  input->drop_reference();
  read_if_allowed();
  receive_frames({rest, size}, nullptr);
}

// ---- Sending ----

bool Connection::is_worth_deflating(Opcode opcode, std::size_t size, Compress compress) const {
  return compress == Compress::automatic && !is_control(opcode) &&
         size >= service_->options_.deflate.min_bytes;
}

// Queues a compressed frame. Returns false when the payload is better sent as it is.
bool Connection::queue_deflated(Opcode opcode, Bytes payload, bool fin, bool fragment) {
  Deflater& deflater = service_->compression_.deflater(id(), deflate_, fragment);
  const bool masked = role() == Role::client;
  std::uint8_t* const body = reserve(max_header_bytes + Deflater::bound(payload.size())) + max_header_bytes;
  const std::size_t size = deflater.compress(payload, fin, {body, Deflater::bound(payload.size())});
  if (fragment && fin) service_->compression_.end_fragments(id(), deflate_);
  if (size >= payload.size() && !fragment && !deflate_.own_takeover()) return false;
  service_->counters_.deflate_in_bytes.add(payload.size());
  service_->counters_.deflate_out_bytes.add(size);
  const MaskKey key = masked ? reactor().random().next_u32() : 0;
  if (masked) mask_in_place({body, size}, key);
  const std::uint8_t rsv = opcode == Opcode::continuation ? 0 : deflate_rsv;
  std::uint8_t* const frame = body - header_size_for(size, masked);
  write_header(frame,
               {.fin = fin, .rsv = rsv, .opcode = opcode, .masked = masked, .key = key, .length = size});
  // A message to which later ones refer must not be dropped.
  const net::Mark mark = deflate_.own_takeover() && mark_of(opcode, fin) != net::Mark::none
                             ? net::Mark::kept
                             : mark_of(opcode, fin);
  send_turn_memory({frame, static_cast<std::size_t>(body - frame) + size}, mark);
  trace(TraceKind::frame_queued, payload.size(), opcode);
  return true;
}

}  // namespace levada::ws
