// levada-load: loads a WebSocket server, checks every echo, and tells how fast it was.
#include <algorithm>
#include <cstdio>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include <levada/tools/load/capsule.h>
#include <levada/tools/load/controller.h>
#include <levada/tools/load/exports.h>
#include <levada/tools/load/files.h>
#include <levada/tools/load/html.h>
#include <levada/tools/load/options.h>
#include <levada/tools/load/processes.h>
#include <levada/tools/load/progress.h>
#include <levada/tools/load/report.h>
#include <levada/tools/load/run.h>
#include <levada/tools/load/search.h>
#include <levada/tools/load/versus.h>

namespace {

using namespace levada::load;

int fail(const std::string& why) {
  std::fprintf(stderr, "levada-load: %s\n", why.c_str());
  return 1;
}

// Whether the run had something to show for itself.
bool did_something(const Options& options, const Result& result) {
  if (options.mode == Mode::churn && options.messages_per_connection == 0) return result.handshakes > 0;
  return result.verified > 0;
}

// Says on stderr what went wrong. Returns the exit status.
int judge(const Options& options, const Result& result) {
  int status = result.errors.empty() ? 0 : 1;
  for (const auto& [kind, times] : result.errors) {
    const auto example = result.examples.find(kind);
    std::fprintf(stderr, "levada-load: %s: %llu%s%s\n", kind.c_str(), static_cast<unsigned long long>(times),
                 example == result.examples.end() ? "" : ", first: ",
                 example == result.examples.end() ? "" : example->second.c_str());
  }
  if (!did_something(options, result)) status = fail("nothing was echoed");
  for (const Expectation& expectation : options.expectations) {
    if (!holds(expectation, result)) status = fail("expected " + explain(expectation, result));
  }
  return status;
}

// To standard output.
int print(const std::string& text) {
  if (std::fputs(text.c_str(), stdout) >= 0 && std::fflush(stdout) == 0) return 0;
  return fail("cannot write to standard output");
}

// A text to standard output; JSON in its place, or to a file.
int print(const Options& options, const std::string& text, const std::string& json) {
  const int printed = print(options.json == "-" ? json
                            : options.quiet     ? text.substr(0, text.find('\n') + 1)
                                                : text);
  if (options.json && options.json != "-" && !write_file(*options.json, json))
    return fail("cannot write " + *options.json);
  return printed;
}

// Writes all reports that were asked for.
int report(const Options& options, const Result& result) {
  const std::string capsule = options.json || !options.html.empty() ? write_capsule(options, result) : "";
  const int printed = print(options, text_report(options, result), capsule);
  int status = std::max(printed, judge(options, result));
  if (!options.csv.empty() && !write_file(options.csv, write_csv(result)))
    status = fail("cannot write " + options.csv);
  if (!options.hgrm.empty() && !write_file(options.hgrm, write_hgrm(result.response)))
    status = fail("cannot write " + options.hgrm);
  if (!options.html.empty() && !write_file(options.html, html_report(options, result, capsule)))
    status = fail("cannot write " + options.html);
  return status;
}

// Makes a run, in this process or in several.
bool run_once(const Options& options, Progress& progress, Result& result, std::string& why) {
  Controller controller;
  const RunHooks hooks{.connecting = [&](std::uint32_t open) { progress.connecting(open); },
                       .ready = {},
                       .begins = {},
                       .second = [&](const Second& second) { progress.second(second); },
                       .ended = {}};
  const auto run_it = options.processes > 1 ? run_processes : run;
  return run_it(options, controller, result, why, hooks);
}

int run_alone(const Options& options) {
  Result result;
  std::string why;
  {
    Progress progress(options);
    if (!run_once(options, progress, result, why)) return fail(why);
  }
  return report(options, result);
}

// Makes one of several runs.
class Runner {
 public:
  explicit Runner(const Options& options) : progress_(options) {}

  bool operator()(const Options& options, Result& result) {
    runs_++;
    progress_.label("run " + std::to_string(runs_));
    return run_once(options, progress_, result, why_);
  }
  const std::string& why() const { return why_; }

 private:
  Progress progress_;
  unsigned runs_ = 0;
  std::string why_;
};

int run_against(const Options& options) {
  Versus versus;
  Runner runner(options);
  if (!compare_servers(options, std::ref(runner), versus)) {
    judge(options, versus.result_a);
    judge(options, versus.result_b);
    return fail(runner.why().empty() ? "the comparison ended early" : runner.why());
  }
  const int printed = print(options, text_report(options, versus), json_report(options, versus));
  return std::max({printed, judge(options, versus.result_a), judge(options, versus.result_b)});
}

int run_search(const Options& options) {
  Runner runner(options);
  const Search search = search_rate(options, std::ref(runner));
  if (!runner.why().empty()) return fail(runner.why());
  if (search.trials.empty()) return fail("the search ended early");
  const int printed = print(options, text_report(options, search), json_report(options, search));
  return search.best > 0 ? printed : 1;
}

std::optional<Capsule> capsule_in(const std::string& path) {
  std::string text, why = "cannot read it";
  auto capsule = read_file(path, text) ? read_capsule(text, why) : std::nullopt;
  if (!capsule) fail(path + ": " + why);
  return capsule;
}

int compare(const Options& options) {
  const auto a = capsule_in(options.compare[0]), b = capsule_in(options.compare[1]);
  return a && b ? print(compare_capsules(*a, *b)) : 1;
}

int merge(const Options& options) {
  std::vector<Capsule> capsules;
  for (const std::string& path : options.merge) {
    auto capsule = capsule_in(path);
    if (!capsule) return 1;
    capsules.push_back(std::move(*capsule));
  }
  Capsule sum = merge_capsules(capsules);
  sum.options.quiet = options.quiet;
  sum.options.json = options.json;
  sum.options.csv = options.csv;
  sum.options.hgrm = options.hgrm;
  sum.options.html = options.html;
  return report(sum.options, sum.result);
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  int status = 0;
  if (!parse_options(argc, argv, options, status)) return status;
  if (!options.compare.empty()) return compare(options);
  if (!options.merge.empty()) return merge(options);
  if (options.against) return run_against(options);
  if (options.search_to > 0) return run_search(options);
  return run_alone(options);
}
