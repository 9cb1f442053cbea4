#include <levada/tests/simulation/clocks.h>

#include <algorithm>
#include <utility>

namespace levada::ws::test {
namespace {

// Milliseconds until `limit` after `since`; for ever if there is no limit.
std::uint64_t left(std::uint64_t now, std::uint64_t since, std::uint64_t limit) {
  if (limit == 0) return ~std::uint64_t{0};
  return since + limit > now ? since + limit - now : 0;
}

}  // namespace

Clocks::Look Clocks::look(const Connection* connection) {
  if (connection == nullptr) return {};
  return {connection->buffered(), connection->blocked(), connection->stalled_since_ms()};
}

std::uint64_t Clocks::more_time(const Look& look, std::uint64_t now_ms) const {
  if (look.buffered == 0) return 0;
  const std::uint64_t taken_ms = look.blocked ? look.stalled_ms : now_ms;
  return std::min(left(now_ms, taken_ms, options_.close_timeout_ms),
                  left(now_ms, ending_since_ms_, options_.write_timeout_ms));
}

void Clocks::ending(std::uint64_t now_ms) {
  ending_ = true;
  ending_since_ms_ = now_ms;
  due_least_ms_ = due_most_ms_ = now_ms + options_.close_timeout_ms;
}

bool Clocks::after_turn(const Connection& connection, std::uint64_t now_ms) {
  if (!ending_) return true;
  const Look after = look(&connection);
  if (before_.buffered > 0 && after.buffered == 0) {
    due_most_ms_ = now_ms + options_.close_timeout_ms;
    if (before_.blocked) due_least_ms_ = due_most_ms_;
  }
  if (now_ms < due_least_ms_) return true;
  if (now_ms < due_most_ms_) {
    due_least_ms_ = due_most_ms_;
    return true;
  }
  const std::uint64_t more = more_time(after, now_ms);
  due_least_ms_ = due_most_ms_ = now_ms + more;
  return more != 0;
}

bool Clocks::may_give_up(const Connection* connection, std::uint64_t now_ms) const {
  const Look now = connection != nullptr ? look(connection) : before_;
  return ending_ && now_ms >= due_least_ms_ && more_time(now, now_ms) == 0;
}

// ---- Boundaries ----

bool Boundaries::feed(std::string_view bytes) {
  bool ended = false;
  while (!bytes.empty()) {
    if (missing_ == 0) {
      header_ += bytes.front();
      bytes.remove_prefix(1);
      if (!take_header()) continue;
    } else {
      const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(missing_, bytes.size()));
      missing_ -= size;
      bytes.remove_prefix(size);
    }
    if (missing_ != 0 || !ends_message_) continue;
    in_message_ = ends_message_ = false;
    ended = true;
  }
  return ended;
}

// Whether the header is whole.
bool Boundaries::take_header() {
  const auto at = [this](std::size_t i) { return static_cast<unsigned char>(header_[i]); };
  if (header_.size() < 2) return false;
  const std::size_t extra = (at(1) & 127) == 126 ? 2 : (at(1) & 127) == 127 ? 8 : 0;
  if (header_.size() < 2 + extra + ((at(1) & 128) != 0 ? 4 : 0)) return false;
  missing_ = extra == 0 ? at(1) & 127u : 0;
  for (std::size_t i = 0; i < extra; i++) missing_ = missing_ << 8 | at(2 + i);
  const bool control = (at(0) & 8) != 0;
  if (!control) in_message_ = true;
  ends_message_ = !control && (at(0) & 128) != 0;
  header_.clear();
  return true;
}

// ---- OpenClocks ----

void OpenClocks::received(std::string_view bytes, std::uint64_t now_ms, bool known) {
  received_ms_ = now_ms;
  const bool ended = boundaries_.feed(bytes);
  const bool was_unfinished = std::exchange(unfinished_, !boundaries_.idle());
  message_known_ = message_known_ && known;
  if (!unfinished_) return;
  if (was_unfinished && !ended) {
    window_bytes_ += bytes.size();
    return;
  }
  began_ms_ = window_began_ms_ = paused_ms_ = now_ms;
  window_bytes_ = 0;
  window_known_ = true;
}

void OpenClocks::resumed(std::uint64_t now_ms) {
  received_ms_ = window_began_ms_ = now_ms;
  began_ms_ += now_ms - paused_ms_;
  window_bytes_ = 0;
}

bool OpenClocks::lifetime_is_over(std::uint64_t now_ms) const {
  return left(now_ms, opened_ms_, options_.max_lifetime_ms) == 0;
}

bool OpenClocks::is_idle(std::uint64_t now_ms) const {
  return left(now_ms, received_ms_, options_.idle_timeout_ms) == 0;
}

bool OpenClocks::ping_is_due(std::uint64_t now_ms) const {
  return left(now_ms, received_ms_, options_.ping_interval_ms) == 0;
}

bool OpenClocks::is_stalled(const Connection& connection, std::uint64_t now_ms) const {
  return connection.blocked() && left(now_ms, connection.stalled_since_ms(), options_.write_timeout_ms) == 0;
}

bool OpenClocks::message_is_late(std::uint64_t now_ms) const {
  if (!message_known_) return true;
  return unfinished_ && !streams_ && left(now_ms, began_ms_, options_.message_timeout_ms) == 0;
}

bool OpenClocks::message_is_slow(std::uint64_t now_ms) const {
  if (!message_known_ || !window_known_) return true;
  if (!unfinished_ || options_.min_bytes_per_s == 0) return false;
  if (left(now_ms, window_began_ms_, options_.rate_window_ms) != 0) return false;
  return window_bytes_ < std::uint64_t{options_.min_bytes_per_s} * options_.rate_window_ms / 1000;
}

bool OpenClocks::is_overdue(const Connection& connection, std::uint64_t now_ms) const {
  if (is_stalled(connection, now_ms) || lifetime_is_over(now_ms)) return true;
  if (connection.paused()) return false;
  if (is_idle(now_ms)) return true;
  if (!message_known_) return false;
  return message_is_late(now_ms) || (window_known_ && message_is_slow(now_ms));
}

void OpenClocks::after_turn(const Connection& connection, std::uint64_t now_ms) {
  if (connection.paused() || !unfinished_ || options_.min_bytes_per_s == 0) return;
  if (left(now_ms, window_began_ms_, options_.rate_window_ms) != 0) return;
  window_began_ms_ = now_ms;
  window_bytes_ = 0;
}

}  // namespace levada::ws::test
