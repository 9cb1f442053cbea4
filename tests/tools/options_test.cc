#include <levada/tools/load/options.h>

#include <vector>

#include <doctest/doctest.h>

namespace levada::load {
namespace {

constexpr std::uint64_t ms = 1'000'000;
constexpr std::uint64_t second = 1'000 * ms;

// Reads a command line; -1 when the run may begin, else the exit status.
int parse(std::vector<const char*> arguments, Options& options) {
  arguments.insert(arguments.begin(), "levada-load");
  int status = -1;
  const bool go_on = parse_options(static_cast<int>(arguments.size()), arguments.data(), options, status);
  CHECK(go_on == (status == -1));
  return status;
}

TEST_CASE("sizes are numbers with a decimal or binary unit") {
  CHECK(parse_size("0") == 0);
  CHECK(parse_size("512") == 512);
  CHECK(parse_size("10k") == 10'000);
  CHECK(parse_size("16Ki") == 16'384);
  CHECK(parse_size("16KiB") == 16'384);
  CHECK(parse_size("1.5M") == 1'500'000);
  CHECK(parse_size("2Mi") == 2'097'152);
  CHECK(parse_size("1Gi") == 1'073'741'824);
  for (const char* text :
       {"", "k", "10 k", "10K", "-1", "0x10", "1e3", "10kk", "ten", "99999999999G", "nan", "inf"}) {
    CHECK_MESSAGE(!parse_size(text), text);
  }
}

TEST_CASE("times are numbers with a unit, and seconds without one") {
  CHECK(parse_duration("30s") == 30 * second);
  CHECK(parse_duration("30") == 30 * second);
  CHECK(parse_duration("0.3s") == 300 * ms);
  CHECK(parse_duration("100ms") == 100 * ms);
  CHECK(parse_duration("250us") == 250'000);
  CHECK(parse_duration("7ns") == 7);
  CHECK(parse_duration("2m") == 120 * second);
  CHECK(parse_duration("1h") == 3600 * second);
  for (const char* text : {"", "s", "-1s", "1 s", "1d", "1sec", "1001h"})
    CHECK_MESSAGE(!parse_duration(text), text);
}

TEST_CASE("a URL alone is a whole command line") {
  Options options;
  CHECK(parse({"ws://127.0.0.1:9001/"}, options) == -1);
  CHECK(options.target.port == 9001);
  CHECK(options.connections == 50);
  CHECK(options.threads == 1);
  CHECK(options.depth == 1);
  CHECK(options.bytes == 16);
  CHECK(options.duration_ns == 10 * second);
  CHECK(options.warmup_ns == second);
  CHECK(options.backend == net::BackendKind::automatic);
  CHECK(options.mode == Mode::echo);
  CHECK(options.pace == Pace::closed);
  CHECK_FALSE(options.json);
}

TEST_CASE("every option reaches its place") {
  Options options;
  CHECK(parse({"ws://h/",
               "-c",
               "2k",
               "-d",
               "300ms",
               "-b",
               "4Ki",
               "-p",
               "16",
               "-t",
               "2",
               "--text",
               "--warmup",
               "50ms",
               "--seed",
               "9",
               "--connect-rate",
               "500",
               "--timeout",
               "2s",
               "--backend",
               "epoll",
               "--server-pid",
               "17",
               "--drain",
               "3s",
               "-H",
               "X-Token: abc",
               "-H",
               "X-More:",
               "--origin",
               "http://o",
               "--subprotocol",
               "a",
               "--subprotocol",
               "b",
               "--expect",
               "p99<2ms",
               "--expect",
               "errors=0",
               "--source",
               "127.0.0.0/8",
               "--shape",
               "cuts",
               "--slow",
               "10%",
               "--churners",
               "0.25",
               "--messages",
               "9",
               "--html",
               "r.html",
               "--pin",
               "-q",
               "--no-progress",
               "--json=out.json"},
              options) == -1);
  CHECK(options.connections == 2000);
  CHECK(options.duration_ns == 300 * ms);
  CHECK(options.bytes == 4096);
  CHECK(options.depth == 16);
  CHECK(options.threads == 2);
  CHECK(options.text);
  CHECK(options.warmup_ns == 50 * ms);
  CHECK(options.seed == 9);
  CHECK(options.connect_rate == 500);
  CHECK(options.timeout_ms == 2000);
  CHECK(options.backend == net::BackendKind::epoll);
  CHECK(options.server_pids == std::vector<int>{17});
  CHECK(options.drain_ns == 3 * second);
  CHECK(options.fields ==
        std::vector<std::pair<std::string, std::string>>{{"X-Token", "abc"}, {"X-More", ""}});
  CHECK(options.origin == "http://o");
  CHECK(options.subprotocols == std::vector<std::string>{"a", "b"});
  CHECK(options.expectations.size() == 2);
  CHECK_FALSE(options.sources.empty());
  CHECK(options.shape == Shape::cuts);
  CHECK(options.slow_share == doctest::Approx(0.1));
  CHECK(options.churn_share == doctest::Approx(0.25));
  CHECK(options.messages_per_connection == 9);
  CHECK(options.html == "r.html");
  CHECK(options.pin);
  CHECK(options.quiet);
  CHECK_FALSE(options.progress);
  CHECK(options.json == "out.json");
}

TEST_CASE("--json alone does not take the URL for a file") {
  Options options;
  CHECK(parse({"--json", "ws://h:1/"}, options) == -1);
  CHECK(options.json == "-");
  CHECK(options.target.host == "h");
}

TEST_CASE("a rate makes an open loop, a count ends a run") {
  Options rate;
  CHECK(parse({"ws://h/", "-R", "10k", "--poisson"}, rate) == -1);
  CHECK(rate.pace == Pace::poisson);
  CHECK(rate.rate == 10'000);
  Options each;
  CHECK(parse({"ws://h/", "--rate-per-conn", "0.5", "-c", "100"}, each) == -1);
  CHECK(each.pace == Pace::constant);
  CHECK(each.rate == 50);
  Options count;
  CHECK(parse({"ws://h/", "-n", "20k"}, count) == -1);
  CHECK(count.count == 20'000);
  CHECK(count.warmup_ns == 0);
  CHECK(count.duration_ns > 3600 * second);
  Options both;
  CHECK(parse({"ws://h/", "-n", "20k", "-d", "5s"}, both) == -1);
  CHECK(both.duration_ns == 5 * second);
}

TEST_CASE("several URLs are targets in turn") {
  Options options;
  CHECK(parse({"ws://h/", "ws://i/", "wss://j/", "-c", "3", "--sni", "k", "--no-resume"}, options) == -1);
  CHECK(options.targets.size() == 3);
  CHECK(options.target.host == "h");
  CHECK(options.targets[2].secure);
  CHECK(options.sni == "k");
  CHECK_FALSE(options.tls.resumption);
}

TEST_CASE("messages have sizes, and compression has parameters") {
  Options options;
  CHECK(parse({"ws://h/", "-b", "16-1Ki", "--payload", "json", "--deflate", "--takeover", "--window-bits",
               "9", "--level", "7", "--deflate-from", "10", "--shape", "batch", "--frames", "4"},
              options) == -1);
  CHECK(options.sizes.least() == 16);
  CHECK(options.bytes == 1024);
  CHECK(options.payload_text == PayloadText::json);
  CHECK(options.deflate.enabled);
  CHECK(options.deflate.deflater == ws::DeflateContext::dedicated);
  CHECK(options.deflate.window_bits == 9);
  CHECK(options.deflate.level == 7);
  CHECK(options.deflate.min_bytes == 10);
  CHECK(options.frames == 4);
  Options merge;
  CHECK(parse({"--merge", "a.json", "b.json", "c.json"}, merge) == -1);
  CHECK(merge.merge.size() == 3);
}

TEST_CASE("the Host and the Origin of the request can be others") {
  Options options;
  CHECK(parse({"ws://h/", "-H", "Host: other.example:80", "-H", "origin: http://o"}, options) == -1);
  CHECK(options.host == "other.example:80");
  CHECK(options.origin == "http://o");
  CHECK(options.fields.empty());
}

TEST_CASE("what may be in flight is bounded by number and by memory") {
  CHECK(most_in_flight(0) == 8'000'000);
  CHECK(most_in_flight(134) == 8'000'000);
  CHECK(most_in_flight(1 << 20) == 1024);
  CHECK(most_in_flight(1 << 30) == 1);
  Options options;
  CHECK(parse({"ws://h/", "-b", "1Mi", "-p", "512", "-c", "4", "-t", "2"}, options) == -1);
}

TEST_CASE("modes set what they need") {
  Options handshake;
  CHECK(parse({"ws://h/", "--mode", "handshake"}, handshake) == -1);
  CHECK(handshake.mode == Mode::churn);
  CHECK(handshake.messages_per_connection == 0);
  Options hold;
  CHECK(parse({"ws://h/", "--mode", "hold", "-c", "100", "--ping-every", "5s"}, hold) == -1);
  CHECK(hold.rate == doctest::Approx(20));
  CHECK(hold.pace == Pace::constant);
  Options search;
  CHECK(parse({"ws://h/", "--search", "1k-50k", "--expect", "p99<5ms"}, search) == -1);
  CHECK(search.search_from == 1000);
  CHECK(search.search_to == 50'000);
  CHECK(search.open_loop());
  Options against;
  CHECK(parse({"ws://h/", "--against", "ws://i/", "--blocks", "4", "--server-pid", "1,2"}, against) == -1);
  CHECK(against.against->host == "i");
  CHECK(against.blocks == 4);
  CHECK(against.server_pids == std::vector<int>{1, 2});
  Options compare;
  CHECK(parse({"--compare", "a.json", "b.json"}, compare) == -1);
  CHECK(compare.compare == std::vector<std::string>{"a.json", "b.json"});
}

TEST_CASE("impossible options end with status 2") {
  const std::vector<std::vector<const char*>> wrong = {
      {},
      {"wss://h/", "--ca", "/no/such/file"},
      {"ws://h/", "--takeover"},
      {"ws://h/", "-c", "0"},
      {"ws://h/", "-c", "5000000"},
      {"ws://h/", "-c", "4Mi"},  // more than the limit of open files
      {"ws://h/", "-c", "2", "-t", "3"},
      {"ws://h/", "-t", "0"},
      {"ws://h/", "-p", "0"},
      {"ws://h/", "-b", "-1"},
      {"ws://h/", "-b", "2Gi"},
      {"ws://h/", "-d", "0"},
      {"ws://h/", "-d", "soon"},
      {"ws://h/", "--warmup", "x"},
      {"ws://h/", "--timeout", "0"},
      {"ws://h/", "--backend", "kqueue"},
      {"ws://h/", "--server-pid", "0"},
      {"ws://h/", "--no-such-option"},
      {"ws://h/", "ws://i/", "--against", "ws://j/"},
      {"ws://h/", "http://i/"},
      {"ws://h/", "--ping-every", "1s"},
      {"ws://h/", "--messages", "2"},
      {"ws://h/", "--mode", "handshake", "--messages", "2"},
      {"ws://h/", "--blocks", "2"},
      {"ws://h/", "--frames", "2"},
      {"ws://h/", "-m", "a", "-b", "2"},
      {"ws://h/", "-m", "a", "--payload", "json"},
      {"ws://h/", "-m", "a", "-f", "/dev/null"},
      {"ws://h/", "--payload", "xml"},
      {"ws://h/", "--insecure"},
      {"ws://h/", "--sni", "a"},
      {"ws://h/", "--no-resume"},
      {"ws://h/", "--level", "9"},
      {"ws+unix:/s", "--source", "127.0.0.0/8"},
      {"ws://h/", "-b", "16-"},
      {"ws://h/", "-b", "16,2Gi"},
      {"--merge", "a.json"},
      {"ws://h/", "-R", "0"},
      {"ws://h/", "-R", "fast"},
      {"ws://h/", "-R", "5", "--rate-per-conn", "5"},
      {"ws://h/", "-R", "5", "-p", "2"},
      {"ws://h/", "--poisson"},
      {"ws://h/", "-n", "x"},
      {"ws://h/", "-n", "0"},
      {"ws://h/", "-R", "0.0000000001"},
      {"ws://h/", "--search", "0.0000000001-1", "--expect", "p99<1ms"},
      {"ws://h/", "-b", "1Mi", "-p", "1000", "-c", "2"},
      {"ws://h/", "-b", "1", "-p", "1000000", "-c", "9"},
      {"ws://h/", "--against", "ws://i/", "--html", "r.html"},
      {"ws://h/", "--search", "1k-50k", "--expect", "p99<1ms", "--csv", "r.csv"},
      {"ws://h/", "--hgrm", "/nonexistent/r.hgrm"},
      {"ws://h/", "--json=/"},
      {"ws://h/", "--mode", "dance"},
      {"ws://h/", "--mode", "ping", "-b", "126"},
      {"ws://h/", "--mode", "ping", "--shape", "cuts"},
      {"ws://h/", "--mode", "churn", "-R", "5"},
      {"ws://h/", "--mode", "hold", "-R", "5"},
      {"ws://h/", "--mode", "hold", "-n", "5"},
      {"ws://h/", "--mode", "broadcast", "-t", "2"},
      {"ws://h/", "--mode", "broadcast", "-c", "1"},
      {"ws://h/", "--mode", "broadcast", "-b", "7"},
      {"ws://h/", "--shape", "round"},
      {"ws://h/", "--slow", "60%", "--churners", "40%"},
      {"ws://h/", "--slow", "x"},
      {"ws://h/", "-H", "no colon"},
      {"ws://h/", "-H", "X: a\r\nY: b"},
      {"ws://h/", "-H", "Bad Name: a"},
      {"ws://h/", "-H", ": a"},
      {"ws://h/", "-H", "Sec-WebSocket-Key: a"},
      {"ws://h/", "-H", "Host: no host"},
      {"ws://h/", "--origin", "a\nb"},
      {"ws://h/", "--subprotocol", "a b"},
      {"ws://h/", "-f", "/nonexistent/file"},
      {"ws://h/", "-f", "/"},
      {"ws://h/", "--source", "nowhere"},
      {"ws://h/", "--expect", "p99"},
      {"ws://h/", "--against", "http://i/"},
      {"ws://h/", "--search", "1k-50k"},
      {"ws://h/", "--search", "50k-1k", "--expect", "p99<1ms"},
      {"ws://h/", "--search", "1k-2k", "--expect", "p99<1ms", "--against", "ws://i/"},
      {"ws://h/", "--against", "ws://i/", "--server-pid", "1,2,3"},
      {"--compare", "a.json"},
  };
  for (const auto& arguments : wrong) {
    Options options;
    CHECK_MESSAGE(parse(arguments, options) == 2,
                  std::string(arguments.empty() ? "no URL" : arguments.back()));
  }
}

TEST_CASE("help ends with status 0") {
  Options options;
  CHECK(parse({"--help"}, options) == 0);
}

}  // namespace
}  // namespace levada::load
