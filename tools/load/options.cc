#include <levada/tools/load/options.h>

#include <sys/resource.h>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <utility>

#include <CLI/CLI.hpp>

#include <levada/tools/load/payload.h>

namespace levada::load {
namespace {

using Unit = std::pair<std::string_view, double>;

constexpr Unit size_units[] = {{"", 1},        {"k", 1e3},        {"M", 1e6},          {"G", 1e9},
                               {"Ki", 1024.0}, {"Mi", 1048576.0}, {"Gi", 1073741824.0}};
constexpr Unit time_units[] = {{"", 1e9},  {"ns", 1},   {"us", 1e3},  {"ms", 1e6},
                               {"s", 1e9}, {"m", 60e9}, {"h", 3600e9}};

// A number and one of the units; at most `limit`.
template <std::size_t Count>
std::optional<std::uint64_t> parse_number(std::string_view text, const Unit (&units)[Count], double limit) {
  double number = 0;
  const char* const end = text.data() + text.size();
  const auto [at, error] = std::from_chars(text.data(), end, number, std::chars_format::fixed);
  if (error != std::errc{} || number < 0) return std::nullopt;
  const std::string_view unit(at, static_cast<std::size_t>(end - at));
  const auto* found =
      std::find_if(std::begin(units), std::end(units), [&](const Unit& u) { return u.first == unit; });
  if (found == std::end(units)) return std::nullopt;
  const double value = std::round(number * found->second);
  if (!(value <= limit)) return std::nullopt;
  return static_cast<std::uint64_t>(value);
}

// What was given as text and is checked after the parser.
struct Texts {
  std::string url, bytes = "16", duration = "10s", warmup, timeout = "10s", backend = "auto",
                   connections = "50", json;
};

constexpr const char* help_text =
    R"(Loads a WebSocket echo server, checks every echo, and tells how fast it was.

  levada-load URL [OPTIONS]      URL: ws://HOST[:PORT][/PATH] or ws+unix:/SOCKET[:/PATH]

  -c, --connections N    connections (50)
  -d, --duration TIME    how long to measure (10s)
  -b, --bytes SIZE       size of a message (16)
  -p, --depth N          messages in flight on each connection (1)
  -t, --threads N        threads, each with a reactor (1)
      --text             text messages instead of binary
      --warmup TIME      load that is not measured, before (a tenth of the duration, at most 1s)
      --connect-rate N   new connections per second (no limit)
      --timeout TIME     for a connection and its handshake (10s)
      --seed N           of the payloads (1)
      --backend KIND     auto, epoll or io_uring (auto)
      --server-pid PID   look at this process too: its CPU time and memory
      --json[=FILE]      print the result as JSON; with FILE, write it there and print the text
  -h, --help             this text

SIZE: 512, 10k (10000), 16Ki (16384), 1M, 1Mi. TIME: 100ms, 30s, 2m; a number alone is seconds.
Ctrl-C ends a run early. Exit status: 0; 1: errors, or nothing was echoed; 2: wrong usage.
)";

void describe(CLI::App& app, Options& options, Texts& texts) {
  app.formatter_fn(
      [](const CLI::App*, const std::string&, CLI::AppFormatMode) { return std::string(help_text); });
  app.add_option("URL", texts.url)->required();
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.add_option("-c,--connections", texts.connections);
  app.add_option("-d,--duration", texts.duration);
  app.add_option("-b,--bytes", texts.bytes);
  app.add_option("-p,--depth", options.depth)->check(CLI::Range(1u, 1u << 20));
  app.add_option("-t,--threads", options.threads)->check(CLI::Range(1, 1024));
  app.add_flag("--text", options.text);
  app.add_option("--warmup", texts.warmup);
  app.add_option("--connect-rate", options.connect_rate)->check(CLI::Range(0.0, 1e9));
  app.add_option("--timeout", texts.timeout);
  app.add_option("--seed", options.seed);
  app.add_option("--backend", texts.backend)->check(CLI::IsMember({"auto", "epoll", "io_uring"}));
  app.add_option("--server-pid", options.server_pid)->check(CLI::Range(1, 1 << 30));
  app.add_flag("--json{-}", texts.json);
}

// The descriptors that the connections need, and some for the rest of the program.
bool raise_descriptor_limit(std::uint64_t wanted, std::uint64_t& limit) {
  rlimit current{};
  getrlimit(RLIMIT_NOFILE, &current);
  if (current.rlim_cur < wanted) {
    current.rlim_cur = std::min<rlim_t>(current.rlim_max, wanted);
    setrlimit(RLIMIT_NOFILE, &current);
    getrlimit(RLIMIT_NOFILE, &current);
  }
  limit = current.rlim_cur;
  return limit >= wanted;
}

std::string check(const Texts& texts, Options& options) {
  constexpr std::uint64_t max_bytes = std::uint64_t{1} << 30;
  constexpr std::uint64_t second = 1'000'000'000;
  std::string why;
  if (!parse_target(texts.url, options.target, why)) return why;
  const auto connections = parse_size(texts.connections);
  if (!connections || *connections == 0 || *connections > Payloads::max_connections) {
    return "--connections: a number from 1 to " + std::to_string(Payloads::max_connections);
  }
  options.connections = static_cast<std::uint32_t>(*connections);
  const auto bytes = parse_size(texts.bytes);
  if (!bytes || *bytes > max_bytes) return "--bytes: a size from 0 to 1Gi, for example 512, 10k or 16Ki";
  options.bytes = *bytes;
  const auto duration = parse_duration(texts.duration);
  if (!duration || *duration < 1'000'000)
    return "--duration: a time of at least 1ms, for example 30s or 100ms";
  options.duration_ns = *duration;
  const auto warmup = texts.warmup.empty() ? std::min(*duration / 10, second) : parse_duration(texts.warmup);
  if (!warmup) return "--warmup: a time, for example 1s or 0";
  options.warmup_ns = *warmup;
  const auto timeout = parse_duration(texts.timeout);
  if (!timeout || *timeout < 1'000'000 || *timeout > 3600 * second) return "--timeout: a time from 1ms to 1h";
  options.timeout_ms = static_cast<std::uint32_t>(*timeout / 1'000'000);
  if (static_cast<std::uint32_t>(options.threads) > options.connections) {
    return "--threads: more threads than connections";
  }
  constexpr std::uint64_t own_descriptors = 32;
  std::uint64_t limit = 0;
  if (!raise_descriptor_limit(*connections + own_descriptors + 8u * static_cast<unsigned>(options.threads),
                              limit)) {
    return "--connections: the limit of open files (ulimit -n) is " + std::to_string(limit);
  }
  return {};
}

}  // namespace

std::optional<std::uint64_t> parse_size(std::string_view text) {
  if (text.ends_with('B')) text.remove_suffix(1);
  return parse_number(text, size_units, 9.2e18);
}

std::optional<std::uint64_t> parse_duration(std::string_view text) {
  return parse_number(text, time_units, 1000 * 3600e9);
}

bool parse_options(int argc, const char* const* argv, Options& options, int& status) {
  CLI::App app("", "levada-load");
  Texts texts;
  describe(app, options, texts);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    status = app.exit(error) == 0 ? 0 : 2;
    return false;
  }
  if (const std::string why = check(texts, options); !why.empty()) {
    std::fprintf(stderr, "levada-load: %s\n", why.c_str());
    status = 2;
    return false;
  }
  if (texts.backend == "epoll") options.backend = net::BackendKind::epoll;
  if (texts.backend == "io_uring") options.backend = net::BackendKind::io_uring;
  if (app.count("--json") > 0) options.json = texts.json;
  return true;
}

}  // namespace levada::load
