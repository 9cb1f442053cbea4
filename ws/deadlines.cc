// The clocks of a Connection: one timer, and the deadlines that it stands for.
//
// Model: events only note when they happened. The timer is set for the earliest deadline that could come, and when it
// fires the notes tell what is due; if nothing is, it is set anew. So a busy connection costs nothing but its notes.
#include <algorithm>
#include <array>
#include <cstring>

#include <levada/ws/service.h>
#include <levada/ws/tracing.h>

namespace levada::ws {
namespace {

constexpr std::uint32_t no_deadline = ~std::uint32_t{0};
constexpr std::uint32_t milliseconds_per_second = 1000;
// What the engine's own pings begin with, so that their pongs can be told from those of the handler's, however late.
constexpr std::array<std::uint8_t, 8> rtt_mark{'l', 'e', 'v', 'a', 'd', 'a', 0xF7, ' '};

// Milliseconds until `limit` ms after `since`; none for a limit of 0.
std::uint32_t left(std::uint32_t now, std::uint32_t since, std::uint32_t limit) {
  if (limit == 0) return no_deadline;
  const std::uint32_t elapsed = now - since;
  return elapsed < limit ? limit - elapsed : 0;
}

constexpr std::uint64_t number(TraceLimit limit) {
  return static_cast<std::uint64_t>(limit);
}

std::uint32_t now_us(net::Reactor& reactor) {
  return static_cast<std::uint32_t>(reactor.now_ns() / 1000);
}

}  // namespace

void Connection::on_timer() {
  switch (phase_) {
    case Phase::handshake:
    case Phase::held:
      service_->counters_.handshake_timeouts.add();
      trace(TraceKind::timed_out, number(TraceLimit::handshake));
      if (role() == Role::client) return handshake_over({Errc::timed_out, "handshake"});
      return terminate();
    case Phase::open:
      return check_open();
    case Phase::closing:
    case Phase::closed:
      return check_closing();
  }
}

// A peer that is still taking what was queued before the close frame gets the time of a slow reader.
void Connection::check_closing() {
  const ServiceOptions& options = service_->options_;
  const std::uint32_t now = reactor().now_ms();
  std::uint32_t more = 0;
  const bool can_send = tls() == nullptr || tls()->is_open();  // else the peer has yet to do its part of TLS
  if (!all_sent() && can_send) {  // not blocked: the kernel has just reported room, and this turn fills it
    const std::uint32_t stalled_ms = blocked() ? stalled_since_ms() : now;
    more = std::min(left(now, stalled_ms, options.close_timeout_ms),
                    left(now, since_ms_, options.write_timeout_ms));
  }
  if (more != 0) return set_timer(more);
  trace(TraceKind::timed_out, number(TraceLimit::close));
  cut(service_->counters_.close_timeouts, {Errc::timed_out, "close"});
}

void Connection::check_open() {
  const ServiceOptions& options = service_->options_;
  Counters& counters = service_->counters_;
  const std::uint32_t now = reactor().now_ms();
  if (blocked() && left(now, stalled_since_ms(), options.write_timeout_ms) == 0) {
    trace(TraceKind::timed_out, number(TraceLimit::write));
    return cut(counters.write_timeouts, {Errc::timed_out, "send"});
  }
  if (left(now, since_ms_, options.max_lifetime_ms) == 0) {
    counters.lifetimes_over.add();
    trace(TraceKind::timed_out, number(TraceLimit::lifetime));
    return close(CloseCode::going_away, "lifetime is over");
  }
  if (!paused()) {
    if (left(now, received_ms_, options.idle_timeout_ms) == 0) {
      counters.idle_timeouts.add();
      trace(TraceKind::timed_out, number(TraceLimit::idle));
      return close(CloseCode::going_away, "idle");
    }
    if (!check_message(now)) return;
    const std::uint32_t ping_ms = options.ping_interval_ms;
    if (left(now, received_ms_, ping_ms) == 0 && !ping_is_recent(ping_ms)) measure_rtt();
  }
  arm_timer();
}

// Whether the unfinished message, if there is one, keeps its bounds; else the connection has failed.
bool Connection::check_message(std::uint32_t now) {
  if (pending_ == nullptr || !pending_->clock_runs) return true;
  const ServiceOptions& options = service_->options_;
  const Error error{Errc::timed_out, "receive"};
  if (left(now, pending_->began_ms, message_timeout_ms()) == 0) {
    service_->counters_.message_timeouts.add();
    trace(TraceKind::timed_out, number(TraceLimit::message));
    fail(CloseCode::policy_violation, "message_timeout", error);
    return false;
  }
  if (options.min_bytes_per_s == 0 || left(now, pending_->window_began_ms, options.rate_window_ms) != 0)
    return true;
  const std::uint64_t wanted =
      std::uint64_t{options.min_bytes_per_s} * options.rate_window_ms / milliseconds_per_second;
  if (pending_->window_bytes < wanted) {
    service_->counters_.rates_too_low.add();
    trace(TraceKind::timed_out, number(TraceLimit::rate));
    fail(CloseCode::policy_violation, "message_too_slow", error);
    return false;
  }
  pending_->window_began_ms = now;
  pending_->window_bytes = 0;
  return true;
}

// A streamed message may take as long as it likes: nothing of it is kept.
std::uint32_t Connection::message_timeout_ms() const {
  return service_->table_.fragment != nullptr ? 0 : service_->options_.message_timeout_ms;
}

// `bytes` came, and after them a message is unfinished: a new one, or still the same.
void Connection::restart_message_clock(bool is_new, std::size_t bytes) {
  if (!is_new && pending_->clock_runs) {
    pending_->window_bytes += bytes;
    return;
  }
  pending_->clock_runs = true;
  // Also of a pause: a message may begin behind the one whose handler paused reading.
  pending_->began_ms = pending_->window_began_ms = pending_->paused_ms = reactor().now_ms();
  pending_->window_bytes = 0;
  arm_timer();
}

void Connection::arm_timer() {
  if (phase_ != Phase::open) return;  // what it stands for then is the close handshake's
  const std::uint32_t delay = next_deadline_ms();
  if (delay != no_deadline) set_timer_no_later(delay);
}

std::uint32_t Connection::next_deadline_ms() const {
  const ServiceOptions& options = service_->options_;
  const std::uint32_t now = reactor().now_ms();
  std::uint32_t soonest = left(now, since_ms_, options.max_lifetime_ms);
  if (blocked()) soonest = std::min(soonest, left(now, stalled_since_ms(), options.write_timeout_ms));
  if (paused()) return soonest;
  soonest = std::min(soonest, left(now, received_ms_, options.idle_timeout_ms));
  const std::uint32_t ping = left(now, received_ms_, options.ping_interval_ms);
  soonest = std::min(soonest, ping != 0 ? ping : options.ping_interval_ms);
  if (pending_ == nullptr || !pending_->clock_runs) return soonest;
  soonest = std::min(soonest, left(now, pending_->began_ms, message_timeout_ms()));
  const std::uint32_t window = options.min_bytes_per_s == 0 ? 0 : options.rate_window_ms;
  return std::min(soonest, left(now, pending_->window_began_ms, window));
}

void Connection::on_blocked() {
  trace(TraceKind::blocked, buffered());
  arm_timer();
}

// ---- Reading ----

// While reading is paused, by us, the peer's clocks stand still.
void Connection::stop_reading() {
  if (paused()) return;
  if (pending_ != nullptr) pending_->paused_ms = reactor().now_ms();
  trace(TraceKind::paused);
  Stream::pause();
}

void Connection::read_if_allowed() {
  if (!paused_by_user_ && !paused_by_output_ && !in_slices() && phase_ != Phase::held) go_on_reading();
}

void Connection::go_on_reading() {
  if (!paused()) return;
  trace(TraceKind::resumed);
  Stream::resume();
  const std::uint32_t now = reactor().now_ms();
  note_received(now);
  if (pending_ != nullptr) {
    pending_->began_ms += now - pending_->paused_ms;
    pending_->window_began_ms = now;
    pending_->window_bytes = 0;
  }
  arm_timer();
}

// Bytes came, or may come again. Each second of the reactor's time has its own count of control frames.
void Connection::note_received(std::uint32_t now) {
  if (controls_ != 0 && now / milliseconds_per_second != received_ms_ / milliseconds_per_second)
    controls_ = 0;
  received_ms_ = now;
}

bool Connection::too_many_controls() {
  const std::uint32_t limit = service_->options_.max_controls_per_s;
  if (limit == 0) return false;
  if (controls_ < limit) {
    controls_++;
    return false;
  }
  service_->counters_.control_floods.add();
  fail(CloseCode::policy_violation, "too_many_controls", {Errc::protocol, "receive"});
  return true;
}

// ---- Round trips ----

SendStatus Connection::measure_rtt() {
  const std::uint32_t sent_us = now_us(reactor());
  std::array<std::uint8_t, rtt_mark.size() + sizeof sent_us> payload;
  std::memcpy(std::copy(rtt_mark.begin(), rtt_mark.end(), payload.begin()), &sent_us, sizeof sent_us);
  const SendStatus status = ping(payload);
  if (status != SendStatus::queued) return status;
  service_->counters_.pings_sent.add();
  ping_us_ = sent_us;
  ping_sent_ = true;
  return status;
}

bool Connection::ping_is_recent(std::uint32_t interval_ms) const {
  return ping_sent_ && (now_us(reactor()) - ping_us_) / 1000 < interval_ms;
}

// Whether this pong answers a ping that was sent to measure the round trip. Only the last one's measures it; that of an
// older one, or a second one, is not the handler's either.
bool Connection::receive_rtt(Bytes payload) {
  if (payload.size() != rtt_mark.size() + sizeof ping_us_) return false;
  if (!std::equal(rtt_mark.begin(), rtt_mark.end(), payload.begin())) return false;
  if (!ping_sent_ || std::memcmp(payload.data() + rtt_mark.size(), &ping_us_, sizeof ping_us_) != 0)
    return true;
  ping_us_ = now_us(reactor()) - ping_us_;
  ping_sent_ = false;
  has_rtt_ = true;
  trace(TraceKind::round_trip, ping_us_);
  service_->counters_.rtt.record(std::uint64_t{ping_us_} * 1000);
  return true;
}

std::optional<std::uint32_t> Connection::rtt_us() const {
  if (!has_rtt_ || ping_sent_) return std::nullopt;
  return ping_us_;
}

}  // namespace levada::ws
