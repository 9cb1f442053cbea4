// The server's counters as OpenMetrics text.
#include <levada/ws/server.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace levada::ws {
namespace {

std::string with_label(std::string labels, const char* name, const std::string& value) {
  return std::move(labels.append(",").append(name).append("=\"").append(value).append("\""));
}

class Text {
 public:
  void family(const char* name, const char* type, const char* help) {
    name_ = name;
    text_ +=
        std::string("# TYPE levada_") + name + ' ' + type + "\n# HELP levada_" + name + ' ' + help + '\n';
  }
  void sample(const char* suffix, const std::string& labels, const std::string& value) {
    text_.append("levada_").append(name_).append(suffix).append("{").append(labels);
    text_.append("} ").append(value).append("\n");
  }
  void sample(const char* suffix, const std::string& labels, std::uint64_t value) {
    sample(suffix, labels, std::to_string(value));
  }
  void histogram(const std::string& labels, const net::LatencyHistogram& histogram) {
    std::uint64_t sum = 0;
    for (std::size_t i = 0; i < net::LatencyHistogram::buckets; i++) {
      sum += histogram.count(i);
      const bool last = i + 1 == net::LatencyHistogram::buckets;
      const std::string bound = last ? "+Inf" : seconds(net::LatencyHistogram::bound_ns(i));
      sample("_bucket", with_label(labels, "le", bound), sum);
    }
    sample("_count", labels, sum);
    sample("_sum", labels, seconds(histogram.sum_ns()));
  }
  std::string finish() { return std::move(text_) + "# EOF\n"; }

 private:
  static std::string seconds(std::uint64_t ns) {
    std::array<char, 32> text;
    std::snprintf(text.data(), text.size(), "%.9g", static_cast<double>(ns) / 1e9);
    return text.data();
  }

  const char* name_ = "";
  std::string text_;
};

// A label's value.
std::string escaped(std::string_view value) {
  std::string text;
  for (const char c : value) {
    if (c == '"' || c == '\\') text += '\\';
    text += c;
  }
  return text;
}

struct ReactorFamily {
  const char* name;
  const char* help;
  Counter net::ReactorCounters::*counter;
};
constexpr ReactorFamily reactor_families[] = {
    {"turns", "Turns of the loop.", &net::ReactorCounters::turns},
    {"accepted", "Sockets accepted.", &net::ReactorCounters::accepted},
    {"accept_failures", "Accepts that the system could not serve.", &net::ReactorCounters::accept_failures},
    {"receives", "Receives that brought bytes.", &net::ReactorCounters::receives},
    {"received_bytes", "Bytes received.", &net::ReactorCounters::received_bytes},
    {"sent_bytes", "Bytes that the kernel took.", &net::ReactorCounters::sent_bytes},
    {"blocked_sends", "Sends of which the kernel took only a part.", &net::ReactorCounters::blocked},
    {"posts_refused", "Messages of other threads refused at the limit.",
     &net::ReactorCounters::posts_refused},
};

struct ServiceFamily {
  const char* name;
  const char* help;
  Counter Counters::*counter;
};
constexpr ServiceFamily service_families[] = {
    {"connections_opened", "Connections whose handshake was accepted.", &Counters::opened},
    {"connections_closed", "Connections that ended after that.", &Counters::closed},
    {"handshakes_rejected", "Handshakes answered with an HTTP error.", &Counters::rejected},
    {"accept_pauses", "Pauses of accepting at the limit of connections.", &Counters::accept_pauses},
    {"messages_received", "Messages received.", &Counters::messages_received},
    {"payload_received_bytes", "Bytes in those messages.", &Counters::payload_bytes_received},
    {"deflate_in_bytes", "Bytes of messages sent compressed, before.", &Counters::deflate_in_bytes},
    {"deflate_out_bytes", "And after.", &Counters::deflate_out_bytes},
    {"messages_sent", "Messages queued.", &Counters::messages_sent},
    {"pings_sent", "Keepalive pings sent.", &Counters::pings_sent},
    {"sends_refused", "Sends refused because the queue was full.", &Counters::sends_refused},
    {"messages_dropped", "Messages dropped by the output policy.", &Counters::messages_dropped},
    {"controls_dropped", "Pings and pongs for which there was no room.", &Counters::controls_dropped},
    {"reading_pauses", "Pauses of reading until the peer takes what is queued.", &Counters::pauses},
    {"violations", "Connections failed because the peer broke a rule or a bound.", &Counters::violations},
    {"handshake_timeouts", "Handshakes not finished in time.", &Counters::handshake_timeouts},
    {"close_timeouts", "Close handshakes not finished in time.", &Counters::close_timeouts},
    {"idle_timeouts", "Connections closed because nothing was received.", &Counters::idle_timeouts},
    {"write_timeouts", "Connections cut because nothing could be sent.", &Counters::write_timeouts},
    {"message_timeouts", "Connections failed because a message was not whole in time.",
     &Counters::message_timeouts},
    {"message_rates_too_low", "Connections failed because a message came too slowly.",
     &Counters::rates_too_low},
    {"control_floods", "Connections failed because of too many pings and pongs.", &Counters::control_floods},
    {"slow_peers_closed", "Connections closed because the queue was full.", &Counters::slow_peers_closed},
    {"lifetimes_over", "Connections closed because of their age.", &Counters::lifetimes_over},
    {"connections_shed", "Connections ended by the memory budget.", &Counters::shed},
};

}  // namespace

std::string Server::openmetrics() const {
  const std::lock_guard lock(ending_);
  if (loops_.empty()) return {};
  Text text;
  const auto each_reactor = [this](auto&& visit) {
    for (std::size_t i = 0; i < loops_.size(); i++) {
      visit("reactor=\"" + std::to_string(i) + '"', *loops_[i]);
    }
  };
  const auto each_service = [&](auto&& visit) {
    each_reactor([&](const std::string& labels, const Loop& loop) {
      for (std::size_t i = 0; i < loop.services.size(); i++) {
        visit(labels + ",route=\"" + escaped(route_names_[i]) + '"', loop.services[i]->counters());
      }
    });
  };
  for (const ReactorFamily& family : reactor_families) {
    text.family(family.name, "counter", family.help);
    each_reactor([&](const std::string& labels, const Loop& loop) {
      text.sample("_total", labels, (loop.reactor->counters().*family.counter).value());
    });
  }
  text.family("handler_latency_seconds", "histogram",
              "From when bytes could be received to the handler, at most, of one receive in 16.");
  each_reactor([&](const std::string& labels, const Loop& loop) {
    text.histogram(labels, loop.reactor->counters().latency);
  });
  for (const ServiceFamily& family : service_families) {
    text.family(family.name, "counter", family.help);
    each_service([&](const std::string& labels, const Counters& counters) {
      text.sample("_total", labels, (counters.*family.counter).value());
    });
  }
  text.family("connections", "gauge", "Connections that are open.");
  each_service([&](const std::string& labels, const Counters& counters) {
    // Read in this order, and while others count: never fewer opened than closed.
    const std::uint64_t closed = counters.closed.value();
    text.sample("", labels, std::max(counters.opened.value(), closed) - closed);
  });
  text.family("closes", "counter", "Ends of connections by close code.");
  each_service([&](const std::string& labels, const Counters& counters) {
    for (std::size_t i = 0; i < Counters::codes; i++) {
      const std::string code = i + 1 == Counters::codes ? "other" : std::to_string(1000 + i);
      const std::uint64_t count = counters.closed_by_code[i].value();
      if (count != 0) text.sample("_total", with_label(labels, "code", code), count);
    }
  });
  text.family("round_trip_seconds", "histogram", "Round trips of keepalive pings.");
  each_service(
      [&](const std::string& labels, const Counters& counters) { text.histogram(labels, counters.rtt); });
  if (const MemoryBudget* budget = options_.reactor.budget.get()) {
    text.family("memory_used_bytes", "gauge", "Memory counted by the budget.");
    text.sample("", "", budget->used_bytes());
    text.family("memory_limit_bytes", "gauge", "The budget.");
    text.sample("", "", budget->limit_bytes());
  }
  return text.finish();
}

}  // namespace levada::ws
