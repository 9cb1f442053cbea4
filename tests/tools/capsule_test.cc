#include <levada/tools/load/capsule.h>

#include <doctest/doctest.h>

#include <levada/core/random.h>
#include <levada/tools/load/verdict.h>

namespace levada::load {
namespace {

Result full_result() {
  Result result;
  SeededRandom random(3);
  for (int i = 0; i < 20'000; i++) {
    for (const auto& [name, histogram] : result.histograms())
      histogram->record(random.next() >> (20 + random.below(44)));
  }
  result.response.record(Histogram::highest_ns + 5);
  result.errors = {{"lost", 3}, {"handshake.404", 2}};
  result.examples = {{"lost", "connection 3, message \"9\""}};
  result.close_codes = {{1000, 40}, {1006, 1}};
  result.http_status = {{101, 41}, {404, 2}};
  result.opened = 41;
  result.handshakes = 5;
  result.messages = 1000;
  result.bytes = 16'000;
  result.seconds = 2.5;
  result.sent = 1100;
  result.verified = 1090;
  result.held = 4;
  result.censored = 3;
  result.unsent = 2;
  result.broadcast.published = 7;
  result.broadcast.expected = 70;
  result.broadcast.delivered = 69;
  result.busiest = {0.5, 0.25};
  result.cpu_s = 1.25;
  result.backend = "epoll";
  result.connected = 50;
  result.compressed = 30;
  result.tls_resumed = 20;
  result.deflated_from_bytes = 900;
  result.deflated_to_bytes = 300;
  result.wire_sent_bytes = 1000;
  result.wire_received_bytes = 1001;
  result.targets = {{"ws://a/", 20, 500, 1}, {"ws://b/", 21, 590, 4}};
  result.open_loop = true;
  Second second;
  second.at_s = 1;
  second.messages = 500;
  second.errors = 1;
  second.open = 41;
  second.response = Sketch(result.service);
  result.series = {second, second};
  ServerSample server;
  server.cpu_s = 0.75;
  server.busiest = {0.7, 0.1};
  server.pss_bytes = 5'000'000;
  server.pss_before_bytes = 1'000'000;
  server.seconds = {{1, 0.5, 123456}};
  result.server = server;
  return result;
}

TEST_CASE("a capsule that is read and written again is the same") {
  const Options options;
  const Result result = full_result();
  const std::string json = write_capsule(options, result);
  std::string why;
  const auto capsule = read_capsule(json, why);
  REQUIRE_MESSAGE(capsule, why);
  const auto before = result.histograms(), after = capsule->result.histograms();
  for (std::size_t i = 0; i < before.size(); i++) {
    CAPTURE(before[i].first);
    CHECK(*before[i].second == *after[i].second);
  }
  CHECK(capsule->result.errors == result.errors);
  CHECK(capsule->result.close_codes == result.close_codes);
  CHECK(capsule->result.http_status == result.http_status);
  CHECK(capsule->result.server->pss_bytes == result.server->pss_bytes);
  CHECK(capsule->result.series[1].response.entries() == result.series[1].response.entries());
  // All but the time of writing.
  const auto without_time = [](std::string text) {
    const std::size_t at = text.find("\"time\"");
    return text.erase(at, text.find('\n', at) - at);
  };
  CHECK(without_time(write_capsule(options, capsule->result)) == without_time(json));
}

TEST_CASE("results that went through capsules add up as those that did not") {
  const Options options;
  const Result one = full_result();
  Result two = full_result();
  two.response.record(77);
  std::string why;
  Result through = read_capsule(write_capsule(options, one, true), why)->result;
  through.add(read_capsule(write_capsule(options, two, true), why)->result);
  Result direct = one;
  direct.add(two);
  CHECK(through.response == direct.response);
  CHECK(through.messages == direct.messages);
  CHECK(through.series[0].response.percentile(99) == direct.series[0].response.percentile(99));
  CHECK(through.error_count() == 10);
}

TEST_CASE("capsules are merged as if they had been one run") {
  Options options;
  options.target.url = "ws://a/";
  options.targets.resize(2);
  options.mode = Mode::ping;
  options.pace = Pace::poisson;
  options.rate = 50;
  options.connections = 41;
  options.sizes_text = "1-2";
  options.shape = Shape::batch;
  std::string why;
  const auto one = read_capsule(write_capsule(options, full_result()), why);
  REQUIRE_MESSAGE(one, why);
  const Capsule sum = merge_capsules({*one, *one, *one});
  Result direct = full_result();
  direct.add(full_result());
  direct.add(full_result());
  CHECK(sum.result.response == direct.response);
  CHECK(sum.result.deflated_from_bytes == 2700);
  CHECK(sum.result.targets[1].url == "ws://b/");
  CHECK(sum.result.targets[1].errors == 12);
  CHECK(sum.result.series[1].response.percentile(99) == direct.series[1].response.percentile(99));
  CHECK(sum.options.connections == 3 * 41);
  CHECK(sum.options.rate == 150);
  CHECK(sum.options.mode == Mode::ping);
  CHECK(sum.options.pace == Pace::poisson);
  CHECK(sum.options.shape == Shape::batch);
  CHECK(sum.options.sizes_text == "1-2");
  CHECK(sum.options.targets.size() == 2);
}

TEST_CASE("a capsule has all options, the machine and the version") {
  const std::string json = write_capsule(Options(), full_result());
  for (const char* key : {"\"levada\"", "\"sources\"", "\"sizes\"", "\"deflate\"", "\"takeover\"", "\"sni\"",
                          "\"kernel\"", "\"expectations\"", "\"server_pids\"", "\"urls\"", "\"backend\""})
    CHECK_MESSAGE(json.find(key) != std::string::npos, key);
}

TEST_CASE("what is no capsule is refused with a reason") {
  for (const char* text : {"", "{}", "[1, 2]", "{\"url\": 3}", "not json"}) {
    std::string why;
    CHECK_FALSE(read_capsule(text, why));
    CHECK_MESSAGE(!why.empty(), text);
  }
  std::string json = write_capsule(Options(), full_result()), why;
  for (const std::size_t at :
       {json.find("\"slots\": \""), json.rfind("\"slots\": \"")}) {  // of a second, of a histogram
    std::string damaged = json;
    damaged.replace(at + 10, 3, "1y2");
    CHECK_FALSE(read_capsule(damaged, why));
  }
}

// ---- Verdict ----

Result paced(std::uint64_t lag_ns, std::uint64_t response_ns) {
  Result result;
  result.open_loop = true;
  for (int i = 0; i < 1000; i++) {
    result.lag.record(lag_ns);
    result.response.record(response_ns);
  }
  return result;
}

TEST_CASE("a load that leaves late says that it is the limit") {
  CHECK(verdict(paced(10'000, 100'000)).name == "schedule-bound");
  CHECK(verdict(paced(300'000, 900'000)).name == "generator-limited");
  CHECK(verdict(paced(300'000, 900'000'000)).name ==
        "schedule-bound");  // nothing beside a response that long
  Result unsent = paced(10'000, 100'000);
  unsent.unsent = 1;
  CHECK(verdict(unsent).name == "generator-limited");
  CHECK(verdict(unsent).reason.find("1 message never left") != std::string::npos);
  Result closed = paced(300'000, 900'000);
  closed.open_loop = false;
  CHECK(verdict(closed).name == "unknown");
}

TEST_CASE("who always had something to do is the bound") {
  Result result;
  result.server = ServerSample{};
  result.busiest = {0.5, 0.45};
  CHECK(verdict(result).name == "client-bound");
  result.server->busiest = {0.95, 0};
  CHECK(verdict(result).name == "both-bound");
  result.busiest = {0.5, 0.1};
  CHECK(verdict(result).name == "server-bound");
}

}  // namespace
}  // namespace levada::load
