#include <levada/tests/simulation/link.h>

#include <algorithm>

namespace levada::ws::test {
namespace {

// Sections 7.4.1 and 5 of RFC 6455, and 1008 for what only this engine limits.
unsigned code_for(FrameError error) {
  if (error == FrameError::bad_text) return 1007;
  if (error == FrameError::message_too_big) return 1009;
  if (error == FrameError::too_many_fragments) return 1008;
  return 1002;
}

std::string payload_for(CloseCode code, std::string_view reason) {
  return code == CloseCode::no_status ? std::string() : close_payload(number(code), reason);
}

}  // namespace

// ---- The peer ----

void Link::begin_handshake(std::string_view head, unsigned plain, unsigned status) {
  outbox_ = head;
  head_bytes_ = head.size();
  plain_ = plain;
  expected_status_ = status;
}

void Link::begin_wild(std::string_view bytes) {
  outbox_ = bytes;
  wild_ = true;
}

void Link::write(std::size_t most) {
  if (!can_speak()) return outbox_.clear();
  const std::size_t size = std::min(most, outbox_.size());
  if (size == 0) return;
  const std::string_view piece = std::string_view(outbox_).substr(0, size);
  peer.write(piece);
  journal_.note("peer writes", number, static_cast<std::int64_t>(size));
  const std::size_t head = std::min(head_bytes_, size);
  head_bytes_ -= head;
  const bool frames = !wild_ && expected_status_ == 101;
  for (const char byte : piece.substr(head)) {
    if (!frames || !wire_.feed(static_cast<unsigned char>(byte))) break;
  }
  outbox_.erase(0, size);
}

void Link::read() {
  const std::string bytes = peer.read();
  if (!bytes.empty()) journal_.note("peer reads", number, static_cast<std::int64_t>(bytes.size()));
  if (wild_) return;
  in_ += bytes;
  if (status_ == 0) take_answers();
  if (status_ == 101) take_frames();
  const bool server_part = engine_is_client_ && sent_close && received_close_ && outbox_.empty();
  if (polite && can_speak() && (peer.ended() || server_part)) shut_down();
}

void Link::take_answers() {
  while (status_ == 0) {
    const std::size_t head = in_.find("\r\n\r\n");
    if (head == std::string::npos) return;
    const std::size_t length_at = in_.find("Content-Length: ");
    const std::size_t length = length_at < head ? std::stoul(in_.substr(length_at + 16)) : 0;
    if (in_.size() < head + 4 + length) return;
    const auto status = static_cast<unsigned>(std::stoi(in_.substr(9, 3)));
    journal_.note("answered", number, status);
    const unsigned expected = plain_ > 0 ? 200 : expected_status_;
    require(status == expected, "a handshake is answered with the status that it calls for", status);
    const bool accepted = in_.find("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n") < head;
    require(status != 101 || accepted, "a handshake is accepted with the key's answer");
    in_.erase(0, head + 4 + length);
    if (plain_ > 0) {
      plain_--;
    } else {
      status_ = status;
    }
  }
}

void Link::take_frames() {
  while (const std::optional<Frame> frame = take_frame(in_)) {
    const auto size = static_cast<std::int64_t>(frame->payload.size());
    journal_.note("peer gets a frame", number, size);
    if (!require(!owed_.empty(), "no frame comes that was not queued", size)) return;
    require(*frame == owed_.front(), "frames come in order and unchanged", size);
    owed_.pop_front();
    if (frame->opcode != 8) continue;
    received_close_ = true;
    if (!polite || sent_close) continue;
    say(raw_frame(8, frame->payload, !engine_is_client_));
    sent_close = true;
  }
}

void Link::shut_down() {
  journal_.note("peer shuts down", number);
  peer.shut_down();
  ended = true;
}

void Link::close() {
  journal_.note("peer closes", number);
  peer.close();
  gone = lossy_ = true;
}

void Link::reset() {
  journal_.note("peer resets", number);
  peer.reset();
  gone = lossy_ = true;
}

// ---- What the engine does ----

void Link::opened(Handle handle) {
  journal_.note("on_open", number);
  require(!opened_, "on_open is called once");
  require(expected_status_ == 101 && head_bytes_ == 0, "only a whole and right handshake opens a connection");
  opened_ = true;
  held = false;
  handle_ = handle;
}

void Link::delivered(DecoderEvent event, Opcode opcode, Bytes payload) {
  const auto size = static_cast<std::int64_t>(payload.size());
  journal_.note(event == DecoderEvent::message ? "on_message"
                : event == DecoderEvent::ping  ? "on_ping"
                                               : "on_pong",
                number, size);
  require(is_open() && !close_queued_, "nothing is delivered but between on_open and the close frame", size);
  const Event* const next = next_event();
  if (!require(next != nullptr, "nothing is delivered that the peer has not sent", size)) return;
  require(next->event == event && next->payload == to_text(payload),
          "what the peer sends arrives in order and unchanged", size);
  require(event != DecoderEvent::message || next->opcode == opcode, "a message has the opcode that was sent",
          size);
  taken_++;
}

void Link::delivered_piece(Opcode opcode, Bytes piece, bool last) {
  journal_.note("on_fragment", number, static_cast<std::int64_t>(piece.size()));
  pieces_ += to_text(piece);
  if (!last) {
    require(is_open() && !close_queued_, "no piece is delivered but between on_open and the close frame");
    return;
  }
  delivered(DecoderEvent::message, opcode, to_bytes(pieces_));
  pieces_.clear();
}

void Link::queued(Opcode opcode, std::string_view payload, bool fin) {
  journal_.note("queued", number, static_cast<std::int64_t>(payload.size()));
  require(!close_queued_, "nothing is queued behind a close frame");
  owed_.push_back({.opcode = static_cast<unsigned>(opcode),
                   .payload = std::string(payload),
                   .fin = fin,
                   .masked = engine_is_client_});
}

void Link::closing(CloseCode code, std::string_view reason, std::uint64_t now_ms) {
  journal_.note("close", number, levada::ws::number(code));
  queued(Opcode::close, payload_for(code, reason));
  close_queued_ = true;
  clocks_.ending(now_ms);
}

void Link::closed(Connection& connection, const CloseInfo& info, std::uint64_t now_ms) {
  journal_.note("on_close", number, levada::ws::number(info.code));
  require(opened_, "on_close comes only after on_open");
  require(!closed_, "on_close is called once");
  closed_ = true;
  if (info.by == ClosedBy::peer) closed_by_peer(info);
  if (info.by == ClosedBy::local) closed_here(info);
  if (info.by == ClosedBy::transport) closed_by_transport(connection, info, now_ms);
  clocks_.ending(now_ms);
}

// The close frame or the error that the peer's bytes end with; messages before it are not delivered once our close frame
// is queued.
const Event* Link::skip_to_end() {
  const auto is_end = [](const Event& event) {
    return event.event == DecoderEvent::close || event.event == DecoderEvent::error;
  };
  while (close_queued_ && next_event() != nullptr && !is_end(*next_event())) taken_++;
  return next_event();
}

void Link::closed_by_peer(const CloseInfo& info) {
  require(!close_queued_, "who closes first has begun the handshake");
  const Event* const end = next_event();
  if (!require(end != nullptr && end->event == DecoderEvent::close,
               "a close is reported when the peer sent one"))
    return;
  require(end->payload == payload_for(info.code, info.reason), "the peer's code and reason are reported");
  taken_++;
  queued(Opcode::close, payload_for(info.code, {}));
  close_queued_ = true;
}

void Link::closed_here(const CloseInfo& info) {
  if (info.error.code == Errc::canceled) {
    require(terminated, "a connection is only terminated if somebody does that");
    return;
  }
  const Event* const end = skip_to_end();
  const DecoderEvent kind = info.error ? DecoderEvent::error : DecoderEvent::close;
  if (!require(end != nullptr && end->event == kind, "a close is reported as what it was")) return;
  taken_++;
  if (!info.error) {
    require(close_queued_, "the peer has answered our close frame");
    require(end->payload == payload_for(info.code, info.reason), "the peer's code and reason are reported");
    return;
  }
  const unsigned code = code_for(end->error);
  require(levada::ws::number(info.code) == code, "a rule that is broken has its close code",
          levada::ws::number(info.code));
  if (close_queued_) return;
  queued(Opcode::close, close_payload(code));
  close_queued_ = true;
}

void Link::closed_by_transport(const Connection& connection, const CloseInfo& info, std::uint64_t now_ms) {
  require(info.code == CloseCode::abnormal, "TCP's end without a close frame is 1006");
  if (info.error.code == Errc::end_of_stream) {
    require(ended || gone, "the end is reported when the peer has ended");
    return;
  }
  lossy_ = true;
  if (info.error.code != Errc::timed_out || peer.failed()) {
    require(peer.failed(), "a failure is reported when there was one");
    return;
  }
  require(clocks_.may_give_up(&connection, now_ms), "a timeout is not early");
}

// ---- Rules ----

void Link::before_turn() {
  clocks_.before_turn(connection());
  was_paused_ = paused && is_open() && !close_queued_;
  unreceived_ = peer.unreceived();
}

void Link::check_pause() {
  if (!was_paused_ || !is_open() || close_queued_ || terminated || peer.failed()) return;
  require(peer.unreceived() == unreceived_, "nothing is received while reading is paused",
          static_cast<std::int64_t>(unreceived_ - peer.unreceived()));
}

void Link::check(std::uint64_t now_ms) {
  if (wild_) over_ = done_ = peer.closed();
  if (done_ || wild_) return;
  const bool alive = opened_ ? connection() != nullptr : !peer.closed();
  if (alive) {
    if (opened_) require(clocks_.after_turn(*connection(), now_ms), "a connection closes in time");
    return;
  }
  if (!over_) {
    over_ = true;
    journal_.note("over", number);
    lossy_ = lossy_ || terminated || gone || peer.failed() || clocks_.may_give_up(nullptr, now_ms);
    require(opened_ == closed_, "every on_open has an on_close when the connection is gone");
  }
  finish();
}

void Link::finish() {
  read();
  done_ = true;
  if (opened_ && !lossy_) {
    require(owed_.empty() && in_.empty(), "who closes in good order has sent everything",
            static_cast<std::int64_t>(owed_.size()));
    require(!peer.was_reset(), "who closes in good order does not reset the connection");
  }
  outbox_.clear();
  owed_.clear();
  in_.clear();
}

void Link::check_at_rest() {
  if (wild_ || over_ || peer.failed() || gone) return;
  const bool answered = status_ != 0 || held || head_bytes_ != 0 || expected_status_ == 0;
  require(answered, "a whole handshake is answered");
  if (!opened_) return;
  require(engine_is_client_ || !closed_ || peer.ended(),
          "a server ends TCP when the close handshake is done");
  require(owed_.empty() && in_.empty(), "at rest, everything that was queued has arrived",
          static_cast<std::int64_t>(owed_.size()));
  const bool told = close_queued_ || next_event() == nullptr;
  require(told, "at rest, everything that the peer sent was delivered");
  require(closed_ || close_queued_ || !wants_drain, "a refused send is followed by on_drain");
}

}  // namespace levada::ws::test
