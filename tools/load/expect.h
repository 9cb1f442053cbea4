// Expectations: conditions on a result, as "p99<2ms" or "errors=0", that decide the exit status.
//
//   METRIC OP VALUE      OP: <  <=  >  >=  =
//
// Metrics: mean, p50, p75, p90, p99, p99.9, p99.99, max of the response time, or of another with its name in front
// (service.p99, lag.p99.9, connect.p99, upgrade.p99, handshake.p99, last.p99); errors, rate (messages per second),
// handshakes (per second), reach (of broadcasts, 0 to 1), connections, lost.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <levada/tools/load/result.h>

namespace levada::load {

struct Expectation {
  std::string text;    // as it was given
  std::string metric;  // "p99"
  std::string op;
  double value = 0;  // times in nanoseconds
};

// On failure returns nothing and says why.
std::optional<Expectation> parse_expectation(std::string_view text, std::string& why);

// What the result has of a metric; none if nothing of it was measured.
std::optional<double> value_of(const std::string& metric, const Result& result);

// Whether the result is as expected. A metric that was not measured is not.
bool holds(const Expectation& expectation, const Result& result);

// "p99<2ms: 3.10 ms"
std::string explain(const Expectation& expectation, const Result& result);

}  // namespace levada::load
