#include <levada/tools/load/search.h>

#include <algorithm>
#include <cmath>

#include <levada/tools/load/capsule_json.h>
#include <levada/tools/load/units.h>
#include <levada/tools/load/verdict.h>

namespace levada::load {
namespace {

constexpr double precision = 1.05;

std::string rate_text(double rate) {
  return rate < 10 ? fixed(rate, 2) : grouped(static_cast<std::uint64_t>(std::llround(rate)));
}

std::string conditions(const Options& options) {
  std::string text;
  for (const Expectation& expectation : options.expectations)
    text += (text.empty() ? "" : " and ") + expectation.text;
  return text;
}

}  // namespace

Search search_rate(const Options& options, const std::function<bool(const Options&, Result&)>& run_one) {
  Search search;
  const auto trial = [&](double rate) -> const Trial* {
    Options at = options;
    at.rate = rate;
    Trial done{rate, false, false, {}};
    if (!run_one(at, done.result) || done.result.interrupted) return nullptr;
    const bool expected = std::all_of(options.expectations.begin(), options.expectations.end(),
                                      [&](const auto& each) { return holds(each, done.result); });
    done.kept = expected && done.result.errors.empty() && done.result.unsent == 0;
    done.limited = !done.kept && verdict(done.result).name == "generator-limited";
    search.trials.push_back(std::move(done));
    return &search.trials.back();
  };
  double low = options.search_from, high = options.search_to;
  const Trial* at = trial(low);
  if (at == nullptr) return search;
  search.limited = at->limited;
  if (!at->kept) return search;
  search.best = low;
  at = trial(high);
  if (at == nullptr) return search;
  search.limited = at->limited;
  if (at->kept) {
    search.best = high;
    return search;
  }
  while (high / low > precision) {
    const double middle = std::sqrt(low * high);
    at = trial(middle);
    if (at == nullptr) return search;
    if (at->kept) {
      search.best = low = middle;
    } else {
      high = middle;
      search.limited = at->limited;
    }
  }
  return search;
}

std::string text_report(const Options& options, const Search& search) {
  std::string text = search.best > 0 ? rate_text(search.best) + " msg/s is the highest rate with "
                                     : "not even " + rate_text(options.search_from) + " msg/s keeps ";
  text += conditions(options);
  if (search.limited) text += "; beyond it the load itself was late (generator-limited)";
  text += "\n  " + options.target.url +
          "\n       msg/s        done         p50         p99     lag p99   "
          "errors\n";
  for (const Trial& trial : search.trials) {
    const Result& result = trial.result;
    text += "  " + right(rate_text(trial.rate), 10) + right(rate_text(result.rate(result.messages)), 12) +
            right(duration_text(result.response.percentile(50)), 12) +
            right(duration_text(result.response.percentile(99)), 12) +
            right(duration_text(result.lag.percentile(99)), 12) + right(grouped(result.error_count()), 9) +
            (trial.kept      ? "  kept"
             : trial.limited ? "  load was late"
                             : "  missed") +
            "\n";
  }
  return text;
}

std::string json_report(const Options& options, const Search& search) {
  nlohmann::ordered_json trials = nlohmann::ordered_json::array();
  for (const Trial& trial : search.trials) {
    const Result& result = trial.result;
    trials.push_back({{"rate", trial.rate},
                      {"kept", trial.kept},
                      {"generator_limited", trial.limited},
                      {"messages_per_s", result.rate(result.messages)},
                      {"response_p99_us", static_cast<double>(result.response.percentile(99)) / 1e3},
                      {"lag_p99_us", static_cast<double>(result.lag.percentile(99)) / 1e3},
                      {"errors", result.errors},
                      {"histograms", histograms_to_json(result)}});
  }
  const nlohmann::ordered_json json = {{"mode", "search"},
                                       {"url", options.target.url},
                                       {"conditions", conditions(options)},
                                       {"best_rate", search.best},
                                       {"generator_limited", search.limited},
                                       {"trials", trials},
                                       {"options", options_to_json(options)},
                                       {"machine", machine_to_json()}};
  return json.dump(2) + "\n";
}

}  // namespace levada::load
