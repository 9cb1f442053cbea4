// The server's counters as OpenMetrics text: that it is that, and says what happened.
#include <cctype>
#include <cmath>
#include <map>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include <levada/core/clock.h>
#include <levada/net/io_uring.h>
#include <levada/tests/support/blocking_client.h>
#include <levada/ws/server.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

// A parser of OpenMetrics 1.0 text that takes nothing else: families that are declared once, samples that belong to
// the family above them, counters that end in _total, cumulative buckets, one "# EOF" at the end.
class Metrics {
 public:
  explicit Metrics(const std::string& text) {
    REQUIRE(text.ends_with("\n# EOF\n"));
    std::string_view rest(text);
    rest.remove_suffix(6);
    while (!rest.empty()) {
      const std::size_t end = rest.find('\n');
      REQUIRE(end != std::string_view::npos);
      line(std::string(rest.substr(0, end)));
      rest.remove_prefix(end + 1);
    }
    end_family();
  }

  bool has_family(const std::string& name) const { return types_.contains(name); }
  double value(const std::string& sample) const {
    CAPTURE(sample);
    REQUIRE(values_.contains(sample));
    return values_.at(sample);
  }
  // Of all label sets.
  double sum(const std::string& name) const {
    double sum = 0;
    bool found = false;
    for (const auto& [sample, value] : values_) {
      if (!sample.starts_with(name + "{")) continue;
      sum += value;
      found = true;
    }
    CAPTURE(name);
    CHECK(found);
    return sum;
  }
  std::size_t samples() const { return values_.size(); }

 private:
  struct Buckets {
    double bound = -1, count = 0, infinity = -1, total = -1;
    bool has_sum = false;
  };

  void line(const std::string& text) {
    CAPTURE(text);
    if (text.starts_with("# TYPE ")) return type(text.substr(7));
    if (text.starts_with("# HELP ")) {
      REQUIRE(text.substr(7).starts_with(family_ + " "));
      REQUIRE(text.size() > 8 + family_.size());
      return;
    }
    REQUIRE(!text.starts_with("#"));
    sample(text);
  }

  void type(const std::string& text) {
    end_family();
    const std::size_t space = text.find(' ');
    REQUIRE(space != std::string::npos);
    family_ = text.substr(0, space);
    REQUIRE(is_name(family_));
    const std::string type = text.substr(space + 1);
    REQUIRE((type == "counter" || type == "gauge" || type == "histogram"));
    REQUIRE(types_.emplace(family_, type).second);
  }

  void sample(const std::string& text) {
    const std::size_t brace = text.find('{');
    REQUIRE(brace != std::string::npos);
    const std::string name = text.substr(0, brace);
    REQUIRE(name.starts_with(family_));
    const std::string suffix = name.substr(family_.size());
    std::size_t at = brace + 1;
    std::string others, bound;
    while (text[at] != '}') {
      if (at > brace + 1) REQUIRE(text[at++] == ',');
      const std::size_t equals = text.find("=\"", at);
      REQUIRE(equals != std::string::npos);
      const std::string label = text.substr(at, equals - at);
      REQUIRE(is_name(label));
      at = equals + 2;
      std::string value;
      for (; text.at(at) != '"'; at++) {
        if (text[at] == '\\') at++;
        value += text.at(at);
      }
      at++;
      (label == "le" ? bound : others) += label == "le" ? value : label + "=" + value + ";";
    }
    REQUIRE(text.at(at + 1) == ' ');
    std::size_t used = 0;
    const std::string number = text.substr(at + 2);
    const double value = std::stod(number, &used);
    REQUIRE(used == number.size());
    REQUIRE(std::isfinite(value));
    REQUIRE(value >= 0);
    REQUIRE(values_.emplace(text.substr(0, at + 1), value).second);
    const std::string& kind = types_.at(family_);
    if (kind == "counter") REQUIRE(suffix == "_total");
    if (kind == "gauge") REQUIRE(suffix.empty());
    if (kind == "histogram") histogram(buckets_[others], suffix, bound, value);
  }

  static void histogram(Buckets& buckets, const std::string& suffix, const std::string& bound, double value) {
    REQUIRE((suffix == "_bucket" || suffix == "_count" || suffix == "_sum"));
    if (suffix == "_count") buckets.total = value;
    if (suffix == "_sum") buckets.has_sum = true;
    if (suffix != "_bucket") return;
    REQUIRE(buckets.infinity < 0);  // it comes last
    REQUIRE(value >= buckets.count);
    buckets.count = value;
    if (bound == "+Inf") {
      buckets.infinity = value;
      return;
    }
    REQUIRE(std::stod(bound) > buckets.bound);
    buckets.bound = std::stod(bound);
  }

  void end_family() {
    for (const auto& [labels, buckets] : buckets_) {
      REQUIRE(buckets.infinity >= 0);
      REQUIRE(buckets.total == buckets.infinity);
      REQUIRE(buckets.has_sum);
    }
    buckets_.clear();
  }

  static bool is_name(const std::string& text) {
    if (text.empty() || std::isdigit(static_cast<unsigned char>(text[0])) != 0) return false;
    for (const char c : text) {
      if (std::isalnum(static_cast<unsigned char>(c)) == 0 && c != '_') return false;
    }
    return true;
  }

  std::string family_;
  std::map<std::string, std::string> types_;
  std::map<std::string, double> values_;
  std::map<std::string, Buckets> buckets_;  // of this family, by the other labels
};

struct Echo {
  void on_message(Connection& connection, Opcode opcode, Bytes payload) {
    if (to_text(payload) == "ping me") {
      connection.measure_rtt();
    } else if (to_text(payload) == "much") {
      for (int i = 0; i < 3; i++) connection.send(Opcode::binary, to_bytes(std::string(2000, 'x')));
    } else {
      connection.send(opcode, payload);
    }
  }
};

template <class Test>
void on_each_backend(Test&& test) {
  for (const net::BackendKind kind : {net::BackendKind::epoll, net::BackendKind::io_uring}) {
    if (kind == net::BackendKind::io_uring && !net::io_uring_abilities().sufficient()) continue;
    CAPTURE(std::string(net::to_string(kind)));
    ServerOptions options;
    options.reactor.backend = kind;
    test(options);
  }
}

net::Address address_of(const Server& server) {
  return *net::Address::ip("127.0.0.1", server.port());
}

}  // namespace

TEST_CASE("a histogram's buckets end at powers of two times 256 ns, and hold what is not above their bound") {
  using Histogram = net::LatencyHistogram;
  Histogram histogram;
  const auto bucket_of = [&histogram](std::uint64_t ns) {
    std::vector<std::uint64_t> before;
    for (std::size_t i = 0; i < Histogram::buckets; i++) before.push_back(histogram.count(i));
    histogram.record(ns);
    for (std::size_t i = 0; i < Histogram::buckets; i++) {
      if (histogram.count(i) != before[i]) return i;
    }
    return Histogram::buckets;
  };
  CHECK(bucket_of(0) == 0);
  CHECK(bucket_of(1) == 0);
  for (std::size_t i = 0; i + 1 < Histogram::buckets; i++) {
    CHECK(bucket_of(Histogram::bound_ns(i) - 1) == i);
    CHECK(bucket_of(Histogram::bound_ns(i)) == i);
    CHECK(bucket_of(Histogram::bound_ns(i) + 1) == i + 1);
  }
  CHECK(bucket_of(~std::uint64_t{0} / 4) == Histogram::buckets - 1);
  Histogram sums;
  sums.record(300);
  sums.record(700);
  CHECK(sums.sum_ns() == 1000);
}

TEST_CASE("close codes have a counter each from 1000 to 1015, and one for all others") {
  CHECK(Counters::index_of(CloseCode::normal) == 0);
  CHECK(Counters::index_of(static_cast<CloseCode>(1015)) == 15);
  CHECK(Counters::index_of(static_cast<CloseCode>(1016)) == 16);
  CHECK(Counters::index_of(static_cast<CloseCode>(999)) == 16);
  CHECK(Counters::index_of(static_cast<CloseCode>(4999)) == 16);
}

TEST_CASE("counters tell what happened") {
  on_each_backend([](ServerOptions options) {
    options.service.max_message_bytes = 5000;
    options.service.max_buffered_bytes = 5000;
    options.service.output_policy = OutputPolicy::drop_newest;
    Server server(options);
    server.route("", [](int) { return Echo{}; });
    server.route("/quo\"te\\d", [](int) { return Echo{}; });
    REQUIRE(!server.start());
    {
      BlockingClient client(address_of(server)), breaks(address_of(server)), refused(address_of(server)),
          own(address_of(server));
      client.upgrade();
      breaks.upgrade();
      for (int i = 0; i < 10; i++) {
        client.send(Opcode::text, "12345");
        CHECK(client.frame().payload == "12345");
      }
      client.send(Opcode::text, "ping me");
      const Frame ping = client.frame();
      CHECK(ping.opcode == 9);
      client.send(Opcode::pong, ping.payload);
      client.send(Opcode::text, "much");
      for (int i = 0; i < 2; i++) CHECK(client.frame().payload.size() == 2000);
      breaks.write(raw_frame(2, "", true, {.length = 5001}));
      CHECK(breaks.frame().payload == close_payload(1009));
      own.upgrade();
      own.send(Opcode::close, close_payload(4001));
      CHECK(own.frame().opcode == 8);
      refused.write("GET / HTTP/1.1\r\nHost: x\r\n\r\n");
      CHECK(refused.head().starts_with("HTTP/1.1 426"));
    }
    const auto read = [&server] { return Metrics(server.openmetrics()); };
    const std::uint64_t limit = monotonic_ns() + 10 * nanoseconds_per_second;
    while (read().sum("levada_connections") > 0 && monotonic_ns() < limit) std::this_thread::yield();
    const Metrics metrics = read();
    const std::string root = "reactor=\"0\",route=\"\"";
    const auto counter = [&](const std::string& name) {
      return metrics.value("levada_" + name + "_total{" + root + "}");
    };
    CHECK(counter("connections_opened") == 3);
    CHECK(counter("connections_closed") == 3);
    CHECK(metrics.value("levada_connections{" + root + "}") == 0);
    CHECK(counter("handshakes_rejected") == 1);
    CHECK(counter("messages_received") == 12);
    CHECK(counter("payload_received_bytes") == 10 * 5 + 7 + 4);
    CHECK(counter("messages_sent") == 12);
    CHECK(counter("messages_dropped") == 1);
    CHECK(counter("sends_refused") == 0);
    CHECK(counter("pings_sent") == 1);
    CHECK(counter("violations") == 1);
    CHECK(metrics.value("levada_closes_total{" + root + ",code=\"1009\"}") == 1);
    CHECK(metrics.value("levada_closes_total{" + root + ",code=\"other\"}") == 1);
    CHECK(metrics.sum("levada_closes_total") == 3);
    CHECK(metrics.value("levada_round_trip_seconds_count{" + root + "}") == 1);
    CHECK(metrics.value("levada_round_trip_seconds_sum{" + root + "}") > 0);
    CHECK(metrics.value("levada_round_trip_seconds_sum{" + root + "}") < 10);
    CHECK(metrics.sum("levada_accepted_total") == 4);
    CHECK(metrics.sum("levada_turns_total") > 0);
    CHECK(metrics.sum("levada_received_bytes_total") > 500);
    CHECK(metrics.sum("levada_sent_bytes_total") > 4000);
    CHECK(metrics.value("levada_connections_opened_total{reactor=\"0\",route=\"/quo\\\"te\\\\d\"}") == 0);
    CHECK(!metrics.has_family("levada_memory_used_bytes"));
    server.stop();
    server.wait();
    CHECK(server.openmetrics() == "");
  });
}

TEST_CASE("each bound in time and number that ends a connection has a counter") {
  on_each_backend([](ServerOptions options) {
    Server server(options);
    server.route("/time", [](int) { return Echo{}; }, {.message_timeout_ms = 20});
    server.route("/rate", [](int) { return Echo{}; }, {.min_bytes_per_s = 1000, .rate_window_ms = 20});
    server.route("/controls", [](int) { return Echo{}; }, {.max_controls_per_s = 1});
    server.route("/slow", [](int) { return Echo{}; },
                 {.max_buffered_bytes = 5000, .output_policy = OutputPolicy::close});
    REQUIRE(!server.start());
    const auto is_closed = [&](const char* target, std::string_view wire) {
      BlockingClient client(address_of(server));
      client.upgrade(target);
      client.write(wire);
      Frame frame = client.frame();
      while (frame.opcode != 8) frame = client.frame();
      return frame.payload.substr(0, 2) == close_payload(1008);
    };
    const std::string beginning = raw_frame(2, "x", true, {.length = 100}), ping = raw_frame(9, "", true);
    CHECK(is_closed("/time", beginning));
    CHECK(is_closed("/rate", beginning));
    CHECK(is_closed("/controls", ping + ping + ping + ping + ping));
    CHECK(is_closed("/slow", raw_frame(1, "much", true)));
    const Metrics metrics(server.openmetrics());
    const auto counter = [&](const std::string& name, const std::string& route) {
      return metrics.value("levada_" + name + "_total{reactor=\"0\",route=\"" + route + "\"}");
    };
    CHECK(counter("message_timeouts", "/time") == 1);
    CHECK(counter("message_rates_too_low", "/rate") == 1);
    CHECK(counter("control_floods", "/controls") == 1);
    CHECK(counter("slow_peers_closed", "/slow") == 1);
    for (const char* const name :
         {"message_timeouts", "message_rates_too_low", "control_floods", "slow_peers_closed"})
      CHECK(metrics.sum(std::string("levada_") + name + "_total") == 1);
  });
}

TEST_CASE("each reactor has counters of its own, and a budget is told") {
  on_each_backend([](ServerOptions options) {
    options.threads = 3;
    options.reactor.budget = std::make_shared<MemoryBudget>(123'456'789);
    Server server(options);
    server.route("", [](int) { return Echo{}; });
    REQUIRE(!server.start());
    std::vector<std::unique_ptr<BlockingClient>> clients;
    for (int i = 0; i < 40; i++) {
      clients.push_back(std::make_unique<BlockingClient>(address_of(server)));
      clients.back()->upgrade();
      for (int round = 0; round < 20; round++) clients.back()->send(Opcode::text, "hello");
      for (int round = 0; round < 20; round++) CHECK(clients.back()->frame().payload == "hello");
    }
    const Metrics metrics(server.openmetrics());
    CHECK(metrics.sum("levada_connections") == 40);
    CHECK(metrics.sum("levada_messages_received_total") == 800);
    CHECK(metrics.sum("levada_handler_latency_seconds_count") > 0);
    for (int i = 0; i < 3; i++) {
      CHECK(metrics.value("levada_accepted_total{reactor=\"" + std::to_string(i) + "\"}") > 0);
    }
    CHECK(metrics.value("levada_memory_limit_bytes{}") == 123'456'789);
    CHECK(metrics.has_family("levada_memory_used_bytes"));
  });
}
