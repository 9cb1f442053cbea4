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
    own.inflater = &service_->compression_.take_inflater(service_->compression_options_, id(), deflate_);
    own.utf8.reset();
  }
  own.opcode = piece.opcode;
  own.last_piece = piece.fin;
  Bytes in = piece.payload;
  const bool more = inflate(in);
  if (closed() || phase_ == Phase::closed) return false;
  if (!more && (behind.empty() || !is_slice_used_up())) return true;
  keep_slices(piece.payload.last(in.size()), behind);
  return false;
}

// Whether this connection has had its part of the turn.
bool Connection::is_slice_used_up() const {
  const DeflateOptions& options = service_->options_.deflate;
  const Compression& compression = service_->compression_;
  return compression.in_slices_turn() ? compression.is_used_up(options)
                                      : pending_->inflated >= compression.slice_bytes(options);
}

// Inflates until the slice is used up. Returns whether there is more to be inflated.
bool Connection::inflate(Bytes& in) {
  Inflater& inflater = *pending_->inflater;
  Compression& compression = service_->compression_;
  const bool text = pending_->opcode == Opcode::text && service_->options_.check_utf8;
  for (;;) {
    const std::size_t most = compression.slice_bytes(service_->options_.deflate);
    const Inflated out = inflater.next(in, pending_->last_piece, most);
    pending_->inflated += out.cost;
    compression.use(out.cost);
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
    if (!ended && is_slice_used_up()) return true;
    if (!ended) continue;
    service_->counters_.messages_received.add();
    compression.give_inflater(*std::exchange(pending_->inflater, nullptr));
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
  stop_reading();
  wait_for_slice();
}

void Connection::wait_for_slice() {
  if (service_->compression_.wait(id())) ask_for_slices(reactor(), service_->compression_);
}

void Connection::ask_for_slices(net::Reactor& reactor, Compression& compression) {
  reactor.post([&reactor, &compression] { inflate_slices(reactor, compression); });
}

// A turn's share of all messages that are inflated in slices.
void Connection::inflate_slices(net::Reactor& reactor, Compression& compression) {
  compression.begin_slices_turn();
  for (std::size_t left = compression.waiting(); left > 0; left--) {
    auto* const connection = static_cast<Connection*>(reactor.find(compression.longest_waiting()));
    const bool is_there = connection != nullptr && connection->in_slices();
    if (is_there && !compression.begin_slice(connection->service_->options_.deflate)) break;
    compression.end_wait();
    if (is_there) connection->inflate_slice();
  }
  compression.end_slices_turn();
  if (compression.is_waiting()) ask_for_slices(reactor, compression);
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
  if (more) return wait_for_slice();
  leave_slices();
}

// The frames behind the message are received as if they came now.
void Connection::leave_slices() {
  Pending& own = *pending_;
  own.in_slices = false;
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
  if (is_control(opcode) || compress == Compress::never) return false;
  if (compress == Compress::automatic && size < service_->options_.deflate.min_bytes) return false;
  return !deflate_.own_takeover() || may_become_longer(size);
}

// Whether so many bytes may be queued when they become as long as compressed ones can.
bool Connection::may_become_longer(std::size_t size) const {
  return frame_size(Deflater::bound(size), role() == Role::client) <= service_->options_.max_buffered_bytes;
}

// Queues a compressed frame. Returns false when the payload is better sent as it is.
bool Connection::queue_deflated(Opcode opcode, Bytes payload, bool fin, bool fragment) {
  Deflater& deflater = service_->compression_.deflater(service_->options_.deflate, id(), deflate_, fragment);
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
