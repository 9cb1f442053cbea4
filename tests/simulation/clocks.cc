#include <levada/tests/simulation/clocks.h>

#include <algorithm>

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

}  // namespace levada::ws::test
