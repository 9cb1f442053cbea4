#include <levada/tools/load/options.h>

#include <sys/resource.h>
#include <algorithm>
#include <cstdio>

#include <CLI/CLI.hpp>

#include <levada/tools/deflate_options.h>
#include <levada/tools/load/files.h>
#include <levada/tools/load/payload.h>
#include <levada/ws/handshake.h>

namespace levada::load {
namespace {

constexpr std::uint64_t second = 1'000'000'000;
constexpr std::uint64_t forever = 1000 * 3600 * second;

// What was given as text and is checked after the parser.
struct Texts {
  std::vector<std::string> urls;
  std::string bytes = "16", duration = "10s", warmup, drain = "2s", timeout = "10s", backend = "auto",
              connections = "50", mode = "echo", shape = "whole", payload = "random", count, rate,
              rate_per_conn, connect_rate, ping_every = "10s", slow, churners, against, search, sources, file,
              json;
  std::vector<std::string> fields, expectations;
  std::vector<int> pids;
  std::vector<std::string> compare, merge;
  bool poisson = false;
};

constexpr const char* help_text =
    R"(levada-load URL... [OPTIONS]     loads WebSocket servers, checks every echo, tells how fast they are
levada-load --compare A.json B.json, or --merge A.json B.json...
Load                                             URL: ws://HOST[:PORT][/PATH], wss:, ws+unix:/SOCKET
 -c, --connections N  connections (50)            -d, --duration TIME  how long to measure (10s)
 -p, --depth N   closed loop: in flight each (1)  -n, --count N        end after this many messages
 -R, --rate N    open loop: messages/s in all         --rate-per-conn N   or of each connection
     --poisson   open loop at random times            --warmup TIME    not measured (d/10, max. 1s)
 -t, --threads N     threads (1), --pin to CPUs       --processes N    processes (1)
     --connect-rate N  new connections/s              --source NET     local addresses, 127.0.0.0/8
Messages
 -b, --bytes SIZE    (16); 16,1Ki in turn; 16-1Ki -m TEXT, -f FILE     this message
     --text      instead of binary                    --payload json   like JSON (random)
     --shape KIND    whole fragments control bytes cuts batch (of --frames N) mix      --seed N (1)
Modes
     --mode MODE   echo ping broadcast handshake churn (--messages N each) hold (--ping-every TIME)
     --slow SHARE, --churners SHARE     of the connections read slowly; come and go
     --against URL [--blocks N]         A B B A: which one is faster, with a confidence interval
     --search FROM-TO                   the highest rate that keeps every --expect
Request: -H 'NAME: VALUE', --origin O, --subprotocol P, --timeout TIME (10s), --drain TIME (2s)
wss: --ca FILE, --insecure (accept any certificate), --sni NAME, --no-resume
--deflate: --takeover, --window-bits N, --peer-window-bits N, --level N, --memory-level N: see man
Reports: --json[=FILE] --html FILE --csv FILE --hgrm FILE -q --no-progress --server-pid PID[,PID]
     --expect 'p99<2ms'  (any number of these) exit status 1 if not; errors=0, lag.p99<1ms, rate>5k
SIZE 512 10k 16Ki 1M. TIME 100ms 30s 2m. --backend auto, epoll, io_uring. More: man levada-load
Exit status 1: errors, nothing echoed, an expectation missed; 2: wrong usage. Ctrl-C: end early.
)";

void describe_load(CLI::App& app, Options& options, Texts& texts) {
  app.add_option("URL", texts.urls);
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.add_option("-c,--connections", texts.connections);
  app.add_option("-d,--duration", texts.duration);
  app.add_option("-p,--depth", options.depth)->check(CLI::Range(1u, 1u << 20));
  app.add_option("-n,--count", texts.count);
  app.add_option("-R,--rate", texts.rate);
  app.add_option("--rate-per-conn", texts.rate_per_conn);
  app.add_flag("--poisson", texts.poisson);
  app.add_option("--warmup", texts.warmup);
  app.add_option("-t,--threads", options.threads)->check(CLI::Range(1, 1024));
  app.add_flag("--pin", options.pin);
  app.add_option("--processes", options.processes)->check(CLI::Range(1, 1024));
  app.add_option("--connect-rate", texts.connect_rate);
  app.add_option("--source", texts.sources);
  app.add_option("-b,--bytes", texts.bytes);
  app.add_option("-m,--message", options.literal);
  app.add_option("-f,--file", texts.file);
  app.add_flag("--text", options.text);
  app.add_option("--payload", texts.payload);
  app.add_option("--shape", texts.shape);
  app.add_option("--frames", options.frames)->check(CLI::Range(2u, 10'000u));
  app.add_option("--seed", options.seed);
  app.add_option("--mode", texts.mode);
  app.add_option("--messages", options.messages_per_connection)->check(CLI::Range(std::uint64_t{1}, forever));
  app.add_option("--ping-every", texts.ping_every);
  app.add_option("--slow", texts.slow);
  app.add_option("--churners", texts.churners);
  app.add_option("--against", texts.against);
  app.add_option("--blocks", options.blocks)->check(CLI::Range(2u, 10'000u));
  app.add_option("--search", texts.search);
}

void describe_reports(CLI::App& app, Options& options, Texts& texts) {
  app.add_option("--origin", options.origin);
  app.add_option("--ca", options.tls.ca.file);
  app.add_flag("--insecure", options.tls.insecure_no_verification);
  app.add_flag("!--no-resume", options.tls.resumption);
  app.add_option("--sni", options.sni);
  tools::add_deflate_options(app, options.deflate);
  app.add_option("--timeout", texts.timeout);
  app.add_option("--drain", texts.drain);
  app.add_option("--backend", texts.backend);
  app.add_flag("--json{-}", texts.json);
  app.add_option("--html", options.html);
  app.add_option("--csv", options.csv);
  app.add_option("--hgrm", options.hgrm);
  app.add_flag("-q,--quiet", options.quiet);
  app.add_flag("!--no-progress", options.progress);
  app.add_option("--server-pid", texts.pids)->delimiter(',')->check(CLI::Range(1, 1 << 30));
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  app.add_option("-H,--header", texts.fields)->expected(1);
  app.add_option("--subprotocol", options.subprotocols)->expected(1);
  app.add_option("--expect", texts.expectations)->expected(1);
  app.add_option("--compare", texts.compare)->expected(2);
  app.add_option("--merge", texts.merge)->expected(2, 1 << 20);
}

void describe(CLI::App& app, Options& options, Texts& texts) {
  app.formatter_fn(
      [](const CLI::App*, const std::string&, CLI::AppFormatMode) { return std::string(help_text); });
  describe_load(app, options, texts);
  describe_reports(app, options, texts);
}

// Sets `out` to what a name stands for.
template <class Value>
std::string choose(const char* option, const std::string& name,
                   const std::vector<std::pair<std::string, Value>>& values, Value& out) {
  std::string known;
  for (const auto& [each, value] : values) {
    if (each == name) {
      out = value;
      return {};
    }
    known += (known.empty() ? "" : ", ") + each;
  }
  return std::string(option) + ": one of " + known;
}

std::string choose_names(const Texts& texts, Options& options) {
  std::string why = choose<net::BackendKind>("--backend", texts.backend,
                                             {{"auto", net::BackendKind::automatic},
                                              {"epoll", net::BackendKind::epoll},
                                              {"io_uring", net::BackendKind::io_uring}},
                                             options.backend);
  if (why.empty()) {
    why = choose<Mode>("--mode", texts.mode,
                       {{"echo", Mode::echo},
                        {"ping", Mode::ping},
                        {"broadcast", Mode::broadcast},
                        {"handshake", Mode::churn},
                        {"churn", Mode::churn},
                        {"hold", Mode::hold}},
                       options.mode);
  }
  if (texts.mode == "handshake") options.messages_per_connection = 0;
  if (!why.empty()) return why;
  why = choose<PayloadText>("--payload", texts.payload,
                            {{"random", PayloadText::random}, {"json", PayloadText::json}},
                            options.payload_text);
  if (!why.empty()) return why;
  return choose<Shape>("--shape", texts.shape,
                       {{"whole", Shape::whole},
                        {"fragments", Shape::fragments},
                        {"control", Shape::control},
                        {"bytes", Shape::bytes},
                        {"cuts", Shape::cuts},
                        {"batch", Shape::batch},
                        {"mix", Shape::mix}},
                       options.shape);
}

std::string check_times(const Texts& texts, Options& options, bool duration_given) {
  if (!texts.count.empty()) {
    options.count = parse_size(texts.count);
    if (!options.count || *options.count == 0) return "--count: a number from 1, for example 20k";
  }
  const auto duration = parse_duration(texts.duration);
  if (!duration || *duration < 1'000'000)
    return "--duration: a time of at least 1ms, for example 30s or 100ms";
  options.duration_ns = options.count && !duration_given ? forever : *duration;
  // A count is of everything that is sent, so nothing of it is warm-up.
  const std::uint64_t usual = options.count ? 0 : std::min(options.duration_ns / 10, second);
  const auto warmup = texts.warmup.empty() ? usual : parse_duration(texts.warmup);
  if (!warmup) return "--warmup: a time, for example 1s or 0";
  options.warmup_ns = *warmup;
  const auto drain = parse_duration(texts.drain);
  if (!drain || *drain > 3600 * second) return "--drain: a time of at most 1h";
  options.drain_ns = *drain;
  const auto timeout = parse_duration(texts.timeout);
  if (!timeout || *timeout < 1'000'000 || *timeout > 3600 * second) return "--timeout: a time from 1ms to 1h";
  options.timeout_ms = static_cast<std::uint32_t>(*timeout / 1'000'000);
  return {};
}

// Whether each connection has something to do at times that can be told.
bool too_slow(double rate, const Options& options) {
  return rate > 0 && rate / options.connections < 1e9 / static_cast<double>(forever);
}
constexpr const char* why_too_slow = "a rate of at least one message of each connection in 1000 hours";

// A rate per second; 0 without a text. Below 0 if it is none.
double rate_of(const std::string& text) {
  return text.empty() ? 0 : parse_rate(text).value_or(-1);
}

std::string check_rates(const Texts& texts, Options& options, bool depth_given) {
  const double rate = rate_of(texts.rate), each = rate_of(texts.rate_per_conn);
  options.connect_rate = rate_of(texts.connect_rate);
  if (rate < 0) return "--rate: messages per second, for example 10k";
  if (each < 0) return "--rate-per-conn: messages per second, for example 0.5";
  if (options.connect_rate < 0) return "--connect-rate: connections per second, for example 500";
  if (rate > 0 && each > 0) return "--rate and --rate-per-conn say the same thing: give one of them";
  options.rate = rate > 0 ? rate : each * options.connections;
  if (too_slow(options.rate, options)) return std::string("--rate: ") + why_too_slow;
  const bool open = options.rate > 0 || !texts.search.empty();
  if (open && depth_given)
    return "--depth is of a closed loop, --rate of an open one: give one of "
           "them";
  if (texts.poisson && !open) return "--poisson needs a --rate";
  options.pace = !open ? Pace::closed : texts.poisson ? Pace::poisson : Pace::constant;
  return {};
}

std::string check_hold(const Texts& texts, Options& options) {
  const auto every = parse_duration(texts.ping_every);
  if (!every || *every < 1'000'000) return "--ping-every: a time of at least 1ms";
  if (options.open_loop()) return "--mode hold: its rate is --ping-every";
  if (options.count) return "--mode hold ends after its --duration, not a --count";
  options.pace = Pace::constant;
  options.rate = static_cast<double>(options.connections) * 1e9 / static_cast<double>(*every);
  if (options.bytes > 125) return "--mode hold: --bytes of a ping are at most 125";
  return {};
}

std::string check_mode(const Texts& texts, Options& options) {
  const bool plain = options.slow_share == 0 && options.churn_share == 0 && options.shape == Shape::whole;
  if (options.mode != Mode::echo && !plain)
    return "--slow, --churners and --shape are for echoes: --mode echo";
  if (options.mode == Mode::ping && options.bytes > 125) return "--mode ping: --bytes are at most 125";
  if (options.mode == Mode::hold) return check_hold(texts, options);
  if (options.mode == Mode::churn && options.open_loop())
    return "--mode " + texts.mode + ": its rate is --connect-rate";
  if (options.mode != Mode::broadcast) return {};
  if (options.threads > 1 || options.processes > 1)
    return "--mode broadcast has one thread, so that all times are of one "
           "clock";
  if (options.connections < 2) return "--mode broadcast: at least 2 connections";
  if (options.sizes.least() < Payloads::stamp_bytes || options.literal)
    return "--mode broadcast: messages of at least 8 generated bytes, to know "
           "one from the other";
  return {};
}

std::string check_series(const Texts& texts, Options& options) {
  std::string why;
  if (!texts.against.empty()) {
    Target other;
    if (!parse_target(texts.against, other, why)) return "--against: " + why;
    options.against = other;
    if (options.targets.size() > 1) return "--against compares two servers: give one other URL";
    if (!texts.search.empty()) return "--against and --search: give one of them";
  }
  if (options.against && options.server_pids.size() > 2) return "--server-pid: one for each URL";
  const bool files = !options.csv.empty() || !options.hgrm.empty() || !options.html.empty();
  if (files && (options.against || !texts.search.empty()))
    return "--html, --csv and --hgrm are of one run, --against and --search "
           "are many: --json has them all";
  if (texts.search.empty()) return {};
  const std::size_t dash = texts.search.find('-');
  options.search_from = rate_of(texts.search.substr(0, dash));
  options.search_to = dash == std::string::npos ? -1 : rate_of(texts.search.substr(dash + 1));
  if (!(options.search_from > 0 && options.search_to > options.search_from))
    return "--search: two rates, for example 1k-200k";
  if (too_slow(options.search_from, options)) return std::string("--search: ") + why_too_slow;
  if (options.expectations.empty()) return "--search needs an --expect, for example 'p99<5ms'";
  if (options.rate > 0) return "--search finds the rate: give no --rate";
  if (options.mode != Mode::echo && options.mode != Mode::ping) return "--search is for --mode echo and ping";
  return {};
}

std::string check_message(const Texts& texts, Options& options) {
  constexpr std::uint64_t max_bytes = std::uint64_t{1} << 30;
  const auto sizes = Sizes::parse(texts.bytes);
  if (!sizes || sizes->most() > max_bytes)
    return "--bytes: sizes from 0 to 1Gi, for example 512 or 16Ki, 16,1Ki in "
           "turn, or any of 16-1Ki";
  options.sizes = *sizes;
  options.sizes_text = texts.bytes;
  options.bytes = sizes->most();
  if (!texts.file.empty()) {
    if (!read_file(texts.file, options.literal.emplace())) return "--file: cannot read " + texts.file;
  }
  if (options.literal) options.bytes = options.literal->size();
  if (options.literal) options.sizes_text = std::to_string(options.bytes);
  return options.bytes > max_bytes ? "the message is longer than 1Gi" : "";
}

// A field of the request. Some the handshake writes itself, and the engine would leave them out.
std::string check_field(const std::string& field, Options& options) {
  const std::size_t colon = std::min(field.find(':'), field.size());
  const std::size_t begin = field.find_first_not_of(' ', colon + 1);
  const std::string name = field.substr(0, colon);
  const std::string value = begin == std::string::npos ? "" : field.substr(begin);
  if (colon == field.size() || !ws::is_writable(ws::HttpField{name, value})) return "--header: 'NAME: VALUE'";
  if (ws::identify(name) == ws::FieldId::host) {
    options.host = value;
  } else if (ws::identify(name) == ws::FieldId::origin) {
    options.origin = value;
  } else if (ws::identify(name) == ws::FieldId::other) {
    options.fields.emplace_back(name, value);
  } else {
    return "--header: " + name + " is written by the handshake itself";
  }
  return {};
}

// The whole of it, with a key that is one.
std::string check_upgrade_request(const Options& options) {
  ws::UpgradeRequest request{.host = options.target.host_field,
                             .target = options.target.request_target,
                             .key = "AAAAAAAAAAAAAAAAAAAAAA=="};
  if (!ws::is_writable(request)) return "the URL cannot be asked for";
  if (!options.host.empty()) request.host = options.host;
  if (!ws::is_writable(request)) return "--header: Host is HOST[:PORT]";
  request.origin = options.origin;
  if (!ws::is_writable(request)) return "--origin: one line of text";
  const std::vector<std::string_view> names(options.subprotocols.begin(), options.subprotocols.end());
  request.subprotocols = names;
  return ws::is_writable(request) ? ""
                                  : "--subprotocol: a name of letters, digits "
                                    "and signs, without spaces";
}

std::string check_request(const Texts& texts, Options& options) {
  std::string why;
  for (const std::string& field : texts.fields) {
    if (why = check_field(field, options); !why.empty()) return why;
  }
  if (why = check_upgrade_request(options); !why.empty()) return why;
  options.sources_text = texts.sources;
  if (!texts.sources.empty() && !options.sources.parse(texts.sources, why)) return "--source: " + why;
  for (const std::string& text : texts.expectations) {
    const auto expectation = parse_expectation(text, why);
    if (!expectation) return "--expect: " + why;
    options.expectations.push_back(*expectation);
  }
  return {};
}

std::string check_shares(const Texts& texts, Options& options) {
  const auto slow = texts.slow.empty() ? 0.0 : parse_share(texts.slow);
  const auto churners = texts.churners.empty() ? 0.0 : parse_share(texts.churners);
  if (!slow) return "--slow: a share, for example 10%";
  if (!churners) return "--churners: a share, for example 10%";
  options.slow_share = *slow;
  options.churn_share = *churners;
  return *slow + *churners < 1 ? "" : "--slow and --churners: somebody has to be left to measure";
}

// A closed loop keeps full what is in flight, so what one thread may have must be enough for it.
std::string check_in_flight(const Options& options) {
  if (options.open_loop() || options.mode == Mode::broadcast) return {};
  const auto threads =
      static_cast<std::uint64_t>(options.threads) * static_cast<std::uint64_t>(options.processes);
  const std::uint64_t each = (options.connections + threads - 1) / threads;
  if (each * options.depth <= most_in_flight(options.bytes)) return {};
  return "--depth: " + grouped(each * options.depth) + " messages in flight on a thread are more than " +
         grouped(most_in_flight(options.bytes)) + " (1 GiB, 8 million)";
}

std::string check_files(const Options& options) {
  const std::string json = options.json.value_or("-");
  for (const std::string& path : {json == "-" ? "" : json, options.csv, options.hgrm, options.html}) {
    if (!path.empty() && !can_write(path)) return "cannot write " + path;
  }
  return {};
}

// The descriptors that the connections of a process need, and some for the rest of the program.
std::string raise_descriptor_limit(const Options& options) {
  const auto processes = static_cast<std::uint32_t>(options.processes);
  const std::uint64_t wanted =
      (options.connections + processes - 1) / processes + 32u + 8u * static_cast<unsigned>(options.threads);
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  if (limit.rlim_cur < wanted) {
    limit.rlim_cur = std::min<rlim_t>(limit.rlim_max, wanted);
    setrlimit(RLIMIT_NOFILE, &limit);
    getrlimit(RLIMIT_NOFILE, &limit);
  }
  if (limit.rlim_cur >= wanted) return {};
  return "--connections: the limit of open files (ulimit -n) is " + std::to_string(limit.rlim_cur) +
         " in each process; see --processes";
}

std::string check_connections(const Texts& texts, Options& options) {
  const auto connections = parse_size(texts.connections);
  if (!connections || *connections == 0 || *connections > Payloads::max_connections) {
    return "--connections: a number from 1 to " + std::to_string(Payloads::max_connections);
  }
  options.connections = options.all_connections = static_cast<std::uint32_t>(*connections);
  if (static_cast<std::uint32_t>(options.threads * options.processes) > options.connections) {
    return "--threads: more threads than connections";
  }
  return raise_descriptor_limit(options);
}

bool any_secure(const Options& options) {
  const auto secure = [](const Target& target) { return target.secure; };
  return std::any_of(options.targets.begin(), options.targets.end(), secure) ||
         (options.against && options.against->secure);
}

// What is given is to mean something.
std::string check_effects(const CLI::App& app, const Options& options) {
  const bool comes_and_goes =
      options.churn_share > 0 ||
      (options.mode == Mode::churn && app.get_option("--mode")->as<std::string>() == "churn");
  const bool secure = any_secure(options);
  const bool by_ip = std::any_of(options.targets.begin(), options.targets.end(),
                                 [](const Target& target) { return target.unix_path.empty(); });
  const struct {
    const char* option;
    bool has_effect;
    const char* without;
  } all[] = {
      {"--ping-every", options.mode == Mode::hold, "--mode hold"},
      {"--messages", comes_and_goes, "--mode churn or --churners"},
      {"--blocks", options.against.has_value(), "--against"},
      {"--frames", options.shape == Shape::batch, "--shape batch"},
      {"--payload", !options.literal, "generated messages"},
      {"--bytes", !options.literal, "generated messages"},
      {"--file", app.count("--message") == 0, "one message: give -m or -f"},
      {"--text", options.mode != Mode::ping, "messages"},
      {"--ca", secure, "a wss URL"},
      {"--insecure", secure, "a wss URL"},
      {"--sni", secure, "a wss URL"},
      {"--no-resume", secure, "a wss URL"},
      {"--source", by_ip, "a server with an IP address"},
  };
  for (const auto& [option, has_effect, without] : all) {
    if (app.count(option) > 0 && !has_effect)
      return std::string(option) + " has no effect without " + without;
  }
  if (app.count("--ca") > 0 && app.count("--insecure") > 0) return "--ca has no effect with --insecure";
  return {};
}

// One context for all connections, so that a certificate that cannot be read is told before anything begins.
std::string check_tls(Options& options) {
  if (options.deflate.enabled && !ws::deflate_available()) return "--deflate: this build has no zlib";
  if (!any_secure(options)) return {};
  auto context = net::TlsContext::create(net::TlsRole::client, options.tls);
  if (!context) return context.error().message();
  options.context = std::move(*context);
  return {};
}

std::string check(const CLI::App& app, const Texts& texts, Options& options) {
  options.compare = texts.compare;
  options.merge = texts.merge;
  options.server_pids = texts.pids;
  if (!options.compare.empty()) return options.compare.size() == 2 ? "" : "--compare: two files";
  if (app.count("--json") > 0) options.json = texts.json;
  if (!options.merge.empty()) return options.merge.size() > 1 ? "" : "--merge: two files or more";
  std::string why;
  if (texts.urls.empty()) return "a URL is needed; see --help";
  for (const std::string& url : texts.urls) {
    if (!parse_target(url, options.targets.emplace_back(), why)) return why;
  }
  options.target = options.targets.front();
  why = check_connections(texts, options);
  if (why.empty()) why = check_message(texts, options);
  if (why.empty()) why = choose_names(texts, options);
  if (why.empty()) why = check_times(texts, options, app.count("--duration") > 0);
  if (why.empty()) why = check_shares(texts, options);
  if (why.empty()) why = check_rates(texts, options, app.count("--depth") > 0);
  if (why.empty()) why = check_mode(texts, options);
  if (why.empty()) why = check_request(texts, options);
  if (why.empty()) why = check_series(texts, options);
  if (why.empty()) why = check_effects(app, options);
  if (why.empty()) why = check_in_flight(options);
  if (why.empty()) why = check_files(options);
  if (why.empty()) why = check_tls(options);
  return why;
}

}  // namespace

const char* to_string(Mode mode) {
  constexpr const char* names[] = {"echo", "ping", "broadcast", "churn", "hold"};
  return names[static_cast<std::size_t>(mode)];
}

const char* to_string(Pace pace) {
  constexpr const char* names[] = {"closed", "constant", "poisson"};
  return names[static_cast<std::size_t>(pace)];
}

const char* to_string(Shape shape) {
  constexpr const char* names[] = {"whole", "fragments", "control", "bytes", "cuts", "batch", "mix"};
  return names[static_cast<std::size_t>(shape)];
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
  if (const std::string why = check(app, texts, options); !why.empty()) {
    std::fprintf(stderr, "levada-load: %s\n", why.c_str());
    status = 2;
    return false;
  }
  return true;
}

}  // namespace levada::load
