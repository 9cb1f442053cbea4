#include <levada/tests/simulation/link.h>

#include <algorithm>

#include <levada/ws/encoder.h>

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
  if (!can_speak()) {
    outbox_.clear();
    return said_.clear();
  }
  const std::size_t size = std::min(most, outbox_.size());
  if (size == 0) return;
  const std::string_view piece = std::string_view(outbox_).substr(0, size);
  peer.write(piece);
  journal_.note("peer writes", number, static_cast<std::int64_t>(size));
  const std::size_t head = std::min(head_bytes_, size);
  head_bytes_ -= head;
  if (!wild_ && expected_status_ == 101) {
    feed(piece.substr(head));
    flying_ += piece;
    head_flying_ += head;
  }
  outbox_.erase(0, size);
}

void Link::say(std::string_view bytes, std::string_view plain) {
  outbox_ += bytes;
  said_.push_back({bytes.size(), std::string(plain), bytes == plain});
}

// What the bytes that were written mean.
void Link::feed(std::string_view bytes) {
  while (!bytes.empty()) {
    Said& said = said_.front();
    const std::size_t size = std::min(said.bytes, bytes.size());
    said.bytes -= size;
    const std::string_view plain = said.bytes == 0 ? std::string_view(said.plain) : std::string_view();
    const std::string_view piece = said.same ? bytes.substr(0, size) : plain;
    for (const char byte : piece) {
      if (!wire_.feed(static_cast<unsigned char>(byte))) break;
    }
    bytes.remove_prefix(size);
    if (said.bytes == 0) said_.pop_front();
  }
}

void Link::read() {
  const std::string bytes = peer.read();
  if (!bytes.empty()) journal_.note("peer reads", number, static_cast<std::int64_t>(bytes.size()));
  if (wild_) return;
  in_ += bytes;
  if (spoils && !bytes.empty()) {
    in_.back() = static_cast<char>(in_.back() ^ 0x55);
    spoils = false;
  }
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
    const bool over_budget = status == 503 && (may_be_refused || may_be_shed);
    if (over_budget) plain_ = 0;
    const unsigned expected = plain_ > 0 ? 200 : over_budget ? status : expected_status_;
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
    if (take_keepalive(*frame)) continue;
    if (!require(!owed_.empty(), "no frame comes that was not queued", size)) return;
    require(is_owed(*frame, owed_.front().frame), "frames come in order and unchanged", size);
    owed_.pop_front();
    if (frame->opcode != 8) continue;
    received_close_ = true;
    if (!polite || sent_close) continue;
    say(raw_frame(8, frame->payload, !engine_is_client_));
    sent_close = true;
  }
}

// A ping of the engine's own; most are answered.
bool Link::take_keepalive(const Frame& frame) {
  if (frame.opcode != 9 || !frame.payload.starts_with(keepalive_mark)) return false;
  keepalive_pings++;
  const bool answers = polite || keepalive_pings % 2 == 0;
  if (answers && !sent_close && can_speak()) say(raw_frame(10, frame.payload, !engine_is_client_));
  return true;
}

// A message that is compressed is compared when it has come to its end.
bool Link::is_owed(const Frame& frame, const Frame& owed) {
  const bool begins = compresses() && frame.rsv == 4 && frame.opcode < 3 && frame.opcode != 0;
  if (!begins && (!inflating_ || frame.opcode != 0)) return frame == owed;
  deflated_ += frame.payload;
  inflated_ += owed.payload;
  inflating_ = !frame.fin;
  bool right = frame.opcode == owed.opcode && frame.fin == owed.fin && frame.masked == owed.masked &&
               frame.rsv == (begins ? 4u : 0u);
  if (!frame.fin) return right;
  right = right && inflater_->inflate(deflated_) == inflated_;
  deflated_.clear();
  inflated_.clear();
  return right;
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

// The next thing that the handler is to be told. Answers to the engine's own pings are not.
const Event* Link::next_event() {
  const auto& events = wire_.events();
  for (; taken_ < events.size() && events[taken_].event == DecoderEvent::pong &&
         events[taken_].payload.starts_with(keepalive_mark);
       taken_++)
    keepalive_pongs_++;
  return taken_ < events.size() ? &events[taken_] : nullptr;
}

void Link::opened(Connection& connection, std::uint64_t now_ms) {
  journal_.note("on_open", number);
  require(!opened_, "on_open is called once");
  require(expected_status_ == 101 && head_bytes_ == 0, "only a whole and right handshake opens a connection");
  opened_ = true;
  held = false;
  handle_ = connection.handle();
  open_.opened(now_ms);
  notice(connection, now_ms);
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

void Link::control_delivered(std::uint64_t now_ms) {
  const std::uint64_t second = now_ms / 1000;
  controls_ = second == controls_second_ ? controls_ + 1 : 1;
  controls_second_ = second;
  // What is inflated in slices is looked at later than it came.
  require(max_controls_per_s_ == 0 || controls_ <= max_controls_per_s_ || compresses(),
          "no more control frames are delivered in a second than the bound", controls_);
}

void Link::closed_for_controls(const CloseInfo& info, std::uint64_t now_ms) {
  require(levada::ws::number(info.code) == 1008, "too many control frames are closed with 1008");
  const Event* const next = next_event();
  const bool control =
      next != nullptr && (next->event == DecoderEvent::ping || next->event == DecoderEvent::pong);
  const unsigned delivered = now_ms / 1000 == controls_second_ ? controls_ : 0;
  require(max_controls_per_s_ != 0 &&
              (compresses() || keepalive_pongs_ > 0 || (control && delivered == max_controls_per_s_)),
          "only one control frame too many closes a connection for that", delivered);
  if (close_queued_) return;
  queued(Opcode::close, close_payload(1008));
  close_queued_ = true;
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

void Link::queued(Opcode opcode, std::string_view payload, bool fin, std::size_t size, bool droppable) {
  journal_.note("queued", number, static_cast<std::int64_t>(payload.size()));
  require(!close_queued_, "nothing is queued behind a close frame");
  owed_.push_back({{.opcode = static_cast<unsigned>(opcode),
                    .payload = std::string(payload),
                    .fin = fin,
                    .masked = engine_is_client_},
                   size != 0 ? size : frame_size(payload.size(), engine_is_client_),
                   droppable});
}

Link::Dropped Link::drop_oldest(std::size_t buffered, std::size_t needed) {
  std::size_t first = owed_.size();  // that has not begun to leave
  for (std::size_t behind = 0; first > 0 && behind + owed_[first - 1].size <= buffered; first--)
    behind += owed_[first - 1].size;
  std::size_t all = 0;
  for (std::size_t i = first; i < owed_.size(); i++) all += owed_[i].droppable ? owed_[i].size : 0;
  Dropped dropped;
  for (std::size_t i = first; all >= needed && dropped.bytes < needed;) {
    if (!owed_[i].droppable) {
      i++;
      continue;
    }
    dropped.messages++;
    dropped.bytes += owed_[i].size;
    owed_.erase(owed_.begin() + static_cast<std::ptrdiff_t>(i));
  }
  return dropped;
}

// ---- What is seen of the engine ----

void Link::observe(std::uint64_t now_ms) {
  if (gone || peer.failed() || flying_.size() <= peer.unreceived()) return;
  const std::size_t size = flying_.size() - peer.unreceived();
  const std::size_t head = std::min(head_flying_, size);
  head_flying_ -= head;
  arrived_.append(flying_, head, size - head);
  flying_.erase(0, size);
  if (!opened_ || arrived_.empty()) return;
  open_.received(arrived_, now_ms, !compresses());
  arrived_.clear();
}

void Link::notice(const Connection& connection, std::uint64_t now_ms) {
  if (!is_open() || connection.closed()) return;
  observe(now_ms);
  const bool reads = !connection.paused();
  if (reads != reads_) reads ? open_.resumed(now_ms) : open_.paused(now_ms);
  reads_ = reads;
  if (close_queued_ || terminated || connection.is_open()) return;
  if (compresses() && peer.failed()) return;  // what was inflated in slices is shown before its end is told
  const bool lifetime = open_.lifetime_is_over(now_ms);
  require(lifetime || open_.is_idle(now_ms), "a connection closes by itself only when its time is over");
  closing(CloseCode::going_away, lifetime ? "lifetime is over" : "idle", now_ms);
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
  const bool by_a_limit = info.error.code == Errc::over_budget || info.error.code == Errc::timed_out;
  observe(now_ms);
  if (info.by == ClosedBy::local && !info.error) notice(connection, now_ms);
  closed_ = true;
  if (info.by == ClosedBy::peer) closed_by_peer(info);
  if (info.by == ClosedBy::local) by_a_limit ? closed_at_a_limit(info, now_ms) : closed_here(info, now_ms);
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

void Link::closed_at_a_limit(const CloseInfo& info, std::uint64_t now_ms) {
  const bool budget = info.error.code == Errc::over_budget;
  const bool unseen = gone || peer.failed();  // how much of what was written has been received
  const CloseCode code = budget ? CloseCode::try_again_later : CloseCode::policy_violation;
  require(info.code == code, "a limit has its close code", levada::ws::number(info.code));
  if (budget) {
    require(may_be_refused || may_be_shed, "the budget ends connections only when its policy says so");
    lossy_ = lossy_ || may_be_shed;
  } else if (info.reason == "message_timeout") {
    require(unseen || open_.message_is_late(now_ms), "a message's timeout is not early");
  } else {
    require(unseen || open_.message_is_slow(now_ms), "a message is only too slow when it is");
  }
  if (close_queued_) return;
  queued(Opcode::close, close_payload(levada::ws::number(code)));
  close_queued_ = true;
}

void Link::closed_here(const CloseInfo& info, std::uint64_t now_ms) {
  if (info.error.code == Errc::canceled) {
    require(terminated, "a connection is only terminated if somebody does that");
    return;
  }
  if (info.reason == "too_many_controls") return closed_for_controls(info, now_ms);
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
  require(
      clocks_.is_ending() ? clocks_.may_give_up(&connection, now_ms) : open_.is_stalled(connection, now_ms),
      "a timeout is not early");
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

// After a turn: what is due has been done.
void Link::check_open(const Connection& connection, std::uint64_t now_ms) {
  notice(connection, now_ms);
  if (!is_open() || close_queued_ || gone || peer.failed()) return;
  require(!open_.is_overdue(connection, now_ms), "a connection that is open keeps its times");
  const bool pinged = !connection.rtt_us().has_value();
  const bool due = open_.ping_is_due(now_ms) && !connection.paused() && connection.buffered() == 0;
  require(pinged || !due, "a silent peer is pinged");
  open_.after_turn(connection, now_ms);
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
    // The budget sheds connections that are closing, too, and nobody is told.
    lossy_ =
        lossy_ || terminated || gone || may_be_shed || peer.failed() || clocks_.may_give_up(nullptr, now_ms);
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

void Link::check_at_rest(bool accepting) {
  if (wild_ || over_ || peer.failed() || gone) return;
  const bool answered = status_ != 0 || held || head_bytes_ != 0 || expected_status_ == 0;
  require(answered || !accepting, "a whole handshake is answered");
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
