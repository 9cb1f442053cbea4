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
  CHECK(options.server_pid == 17);
  CHECK(options.json == "out.json");
}

TEST_CASE("--json alone does not take the URL for a file") {
  Options options;
  CHECK(parse({"--json", "ws://h:1/"}, options) == -1);
  CHECK(options.json == "-");
  CHECK(options.target.host == "h");
}

TEST_CASE("impossible options end with status 2") {
  const std::vector<std::vector<const char*>> wrong = {
      {},
      {"wss://h/"},
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
      {"ws://h/", "ws://i/"},
  };
  for (const auto& arguments : wrong) {
    Options options;
    CHECK_MESSAGE(parse(arguments, options) == 2, (arguments.empty() ? "no URL" : arguments.back()));
  }
}

TEST_CASE("help ends with status 0") {
  Options options;
  CHECK(parse({"--help"}, options) == 0);
}

}  // namespace
}  // namespace levada::load
