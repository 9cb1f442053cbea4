#include <levada/tools/load/run.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <vector>

#include <levada/core/clock.h>
#include <levada/tools/load/process.h>
#include <levada/tools/load/worker.h>

namespace levada::load {
namespace {

using Workers = std::vector<std::unique_ptr<Worker>>;

std::uint32_t open_connections(const Workers& workers) {
  std::uint32_t open = 0;
  for (const auto& worker : workers) open += worker->open();
  return open;
}

// `whole` in `parts`, of which this is number `index`.
template <class Number>
Number part(Number whole, Number parts, Number index) {
  return whole / parts + (index < whole % parts ? 1 : 0);
}

Error start(Workers& workers, const Options& options, const Addresses& addresses, const Payloads& payloads,
            int notify_fd) {
  const auto threads = static_cast<std::uint32_t>(options.threads);
  std::uint32_t first = options.first_connection;
  for (std::uint32_t i = 0; i < threads; i++) {
    Share share{options.first_thread + static_cast<int>(i), first, part(options.connections, threads, i), {}};
    if (options.count) share.count = part<std::uint64_t>(*options.count, threads, i);
    workers.push_back(std::make_unique<Worker>(options, addresses, payloads, share, notify_fd));
    if (const Error error = workers.back()->start()) return error;
    first += share.connections;
  }
  return {};
}

// The latest second that is over for all of them; at 0 before the first.
Second latest(const Workers& workers) {
  Second sum;
  double at_s = 1e9;
  for (const auto& worker : workers) {
    const Second second = worker->latest().value_or(Second{});
    at_s = std::min(at_s, std::round(second.at_s));
    sum.add(second);
  }
  sum.at_s = at_s;
  return sum;
}

// From the first message to the last echo.
void load(const Workers& workers, const Options& options, Controller& controller, ServerProcesses& server,
          Result& result, const RunHooks& hooks) {
  const auto idle = [&] {
    return std::all_of(workers.begin(), workers.end(), [](const auto& worker) { return worker->idle(); });
  };
  const auto measure = [&] {
    for (const auto& worker : workers) worker->measure_begin();
  };
  const bool warms_up = options.warmup_ns > 0;
  if (!warms_up) measure();  // before the load begins: every message counts
  for (const auto& worker : workers) worker->load_begin();
  if (warms_up) {
    controller.wait(options.warmup_ns, idle);
    measure();
  }
  server.begin();
  if (hooks.begins) hooks.begins();
  const std::uint64_t begin = monotonic_ns();
  double shown_s = 0;
  const auto show_and_ask = [&] {
    const Second now = hooks.second ? latest(workers) : Second{};
    if (now.at_s > shown_s) hooks.second(now);
    shown_s = now.at_s;
    return idle();
  };
  controller.wait(options.duration_ns, show_and_ask, [&](double at_s) { server.second(at_s); });
  const double seconds = static_cast<double>(monotonic_ns() - begin) / 1e9;
  server.second(seconds);
  result.server = server.end(seconds);
  if (hooks.ended) hooks.ended();
  for (const auto& worker : workers) worker->measure_end();
}

}  // namespace

bool run(const Options& options, Controller& controller, Result& result, std::string& why,
         const RunHooks& hooks) {
  Addresses addresses;
  for (const Target& target : options.targets) {
    if (!resolve(target, addresses.emplace_back(), why)) return false;
  }
  ServerProcesses server;
  if (!server.open(options.server_pids, why)) return false;
  const Payloads payloads =
      options.literal ? Payloads(*options.literal)
                      : Payloads(options.sizes, options.all_connections, options.seed, options.payload_text);
  Workers workers;
  const Error error = start(workers, options, addresses, payloads, controller.notify_fd());
  const auto all_ready = [&] {
    return std::all_of(workers.begin(), workers.end(), [](const auto& worker) { return worker->ready(); });
  };
  std::function<void(double)> connecting;
  if (hooks.connecting) connecting = [&](double) { hooks.connecting(open_connections(workers)); };
  if (!error) controller.wait(~std::uint64_t{0} >> 1, all_ready, connecting);
  const std::uint32_t open = open_connections(workers);
  bool go = !error && !controller.interrupted() && (open > 0 || options.mode == Mode::churn);
  if (hooks.ready) go = hooks.ready(open) && go;
  if (go) {
    load(workers, options, controller, server, result, hooks);
  } else {
    for (const auto& worker : workers) worker->abort();
  }
  for (const auto& worker : workers) {
    worker->join();
    result.add(worker->result());
  }
  result.interrupted = controller.interrupted();
  why = error ? error.message() : "";
  return !error;
}

}  // namespace levada::load
