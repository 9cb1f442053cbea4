#include <levada/tools/load/verdict.h>

#include <levada/tools/load/units.h>

namespace levada::load {
namespace {

std::string words(const ThreadUse& use) {
  return "ran " + fixed(100 * use.ran, 0) + " % and waited " + fixed(100 * use.waited, 0) +
         " % of the time for a CPU";
}

bool late(const Result& result) {
  constexpr std::uint64_t tolerable_ns = 200'000;
  const std::uint64_t lag = result.lag.percentile(99.9);
  return result.open_loop &&
         (result.unsent > 0 || (lag > tolerable_ns && lag > result.response.percentile(99.9) / 10));
}

std::string lateness(const Result& result) {
  std::string text = "messages left late: lag p99.9 " + duration_text(result.lag.percentile(99.9)) +
                     " of a response p99.9 of " + duration_text(result.response.percentile(99.9));
  if (result.unsent > 0) text += ", " + plural(result.unsent, "message") + " never left";
  return text + "; ";
}

}  // namespace

Verdict verdict(const Result& result) {
  constexpr double always = 0.9;
  const bool client = result.busiest.wanted() >= always;
  const bool server = result.server && result.server->busiest.wanted() >= always;
  std::string reason = late(result) ? lateness(result) : "";
  reason += "the busiest load thread " + words(result.busiest);
  reason += result.server ? ", the server's busiest " + words(result.server->busiest)
                          : std::string("; the server was not looked at (--server-pid)");
  const char* name = late(result)       ? "generator-limited"
                     : client && server ? "both-bound"
                     : client           ? "client-bound"
                     : server           ? "server-bound"
                     : result.open_loop ? "schedule-bound"
                                        : "unknown";
  return {name, reason};
}

}  // namespace levada::load
