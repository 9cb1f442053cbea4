#include <levada/tools/load/versus.h>

#include <algorithm>
#include <cmath>

#include <levada/tools/load/capsule_json.h>
#include <levada/tools/load/units.h>

namespace levada::load {
namespace {

// The value of a run: its CPU efficiency if the servers are looked at, else its latency if a rate is given, else its
// throughput. 0: nothing was measured.
double value_of_run(const Options& options, const Result& result) {
  const bool handshakes = options.mode == Mode::churn && options.messages_per_connection == 0;
  const auto done = static_cast<double>(handshakes ? result.handshakes : result.messages);
  if (result.server) return result.server->cpu_s > 0 ? done / result.server->cpu_s : 0;
  if (options.open_loop()) return static_cast<double>(result.response.percentile(99));
  return result.seconds > 0 ? done / result.seconds : 0;
}

std::string metric_of(const Options& options) {
  const bool handshakes = options.mode == Mode::churn && options.messages_per_connection == 0;
  const std::string done = handshakes ? "handshakes" : "messages";
  if (!options.server_pids.empty()) return done + " per server CPU second";
  if (options.open_loop()) return "response p99 in ns";
  return done + " per second";
}

std::string share(double ratio) {
  return fixed(ratio, 3);
}

std::string answer(const Versus& versus) {
  const Interval& ratio = versus.ratio;
  const std::string numbers =
      share(ratio.middle) + " (99 %: " + share(ratio.low) + " to " + share(ratio.high) + ")";
  if (ratio.low <= 1 && ratio.high >= 1) return "no difference can be told: B / A " + numbers;
  const bool better = (ratio.middle > 1) == versus.more_is_better;
  return std::string("B is ") + (better ? "better" : "worse") + " than A: B / A " + numbers;
}

std::string side(const char* name, const std::string& url, const std::vector<double>& values,
                 const Result& result) {
  return std::string("  ") + name + "         " + fixed(median(values), 0) + " (" +
         fixed(*std::min_element(values.begin(), values.end()), 0) + " to " +
         fixed(*std::max_element(values.begin(), values.end()), 0) + "), " +
         plural(result.error_count(), "error") + "  " + url + "\n";
}

}  // namespace

bool compare_servers(const Options& options, const std::function<bool(const Options&, Result&)>& run_one,
                     Versus& versus) {
  Options a = options, b = options;
  b.target = *options.against;
  b.targets = {b.target};
  if (options.server_pids.size() == 2) {
    a.server_pids = {options.server_pids[0]};
    b.server_pids = {options.server_pids[1]};
  }
  versus.metric = metric_of(options);
  versus.more_is_better = !options.open_loop() || !options.server_pids.empty();
  for (unsigned block = 0; block < options.blocks; block++) {
    for (const bool second : {false, true, true, false}) {
      Result result;
      if (!run_one(second ? b : a, result)) return false;
      const double value = value_of_run(options, result);
      (second ? versus.b : versus.a).push_back(value);
      (second ? versus.result_b : versus.result_a).add(result);
      if (result.interrupted || value <= 0) return false;
    }
  }
  evaluate(versus, options.seed);
  return true;
}

void evaluate(Versus& versus, std::uint64_t seed) {
  for (std::size_t i = 0; i + 1 < versus.a.size(); i += 2) {
    versus.ratios.push_back(std::sqrt(versus.b[i] * versus.b[i + 1] / versus.a[i] / versus.a[i + 1]));
    versus.a_to_a.push_back(versus.a[i + 1] / versus.a[i]);
  }
  versus.ratio = bootstrap(versus.ratios, 0.99, seed);
  versus.floor_low = *std::min_element(versus.a_to_a.begin(), versus.a_to_a.end());
  versus.floor_high = *std::max_element(versus.a_to_a.begin(), versus.a_to_a.end());
}

std::string text_report(const Options& options, const Versus& versus) {
  std::string text = answer(versus) + "\n";
  text +=
      "  compared  " + versus.metric + (versus.more_is_better ? ", more is better\n" : ", less is better\n");
  text += side("A", options.target.url, versus.a, versus.result_a);
  text += side("B", options.against->url, versus.b, versus.result_b);
  text += "  blocks    " + std::to_string(versus.ratios.size()) + " of A B B A, " +
          duration_text(options.duration_ns) + " each run; B / A of each:";
  for (const double ratio : versus.ratios) text += " " + share(ratio);
  return text + "\n  A/A floor " + share(versus.floor_low) + " to " + share(versus.floor_high) +
         ": what a ratio of 1 looked like\n";
}

std::string json_report(const Options& options, const Versus& versus) {
  const nlohmann::ordered_json json = {{"mode", "against"},
                                       {"a", options.target.url},
                                       {"b", options.against->url},
                                       {"metric", versus.metric},
                                       {"more_is_better", versus.more_is_better},
                                       {"ratio", versus.ratio.middle},
                                       {"confidence", 0.99},
                                       {"interval", {versus.ratio.low, versus.ratio.high}},
                                       {"difference", versus.ratio.low > 1 || versus.ratio.high < 1},
                                       {"a_to_a", {versus.floor_low, versus.floor_high}},
                                       {"values_a", versus.a},
                                       {"values_b", versus.b},
                                       {"ratios", versus.ratios},
                                       {"errors_a", versus.result_a.errors},
                                       {"errors_b", versus.result_b.errors},
                                       {"seed", options.seed},
                                       {"options", options_to_json(options)},
                                       {"machine", machine_to_json()},
                                       {"histograms_a", histograms_to_json(versus.result_a)},
                                       {"histograms_b", histograms_to_json(versus.result_b)}};
  return json.dump(2) + "\n";
}

}  // namespace levada::load
