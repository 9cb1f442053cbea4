#include <levada/tools/echo/options.h>

#include <algorithm>
#include <map>
#include <string>

#include <CLI/CLI.hpp>

#include <levada/tools/deflate_options.h>

namespace levada::echo {
namespace {

constexpr const char* limits = "Limits, times in milliseconds, 0: none";

void add_limits(CLI::App& app, Options& options) {
  ws::ServiceOptions& service = options.server.service;
  const auto add = [&app](const char* name, auto& value, const char* help) {
    app.add_option(name, value, help)->capture_default_str()->group(limits);
  };
  add("--idle-timeout", service.idle_timeout_ms, "close when nothing was received for so long");
  add("--ping-interval", service.ping_interval_ms, "ping when nothing was received for so long");
  add("--write-timeout", service.write_timeout_ms, "cut when the peer takes nothing for so long");
  add("--lifetime", service.max_lifetime_ms, "close so long after the handshake");
  add("--message-timeout", service.message_timeout_ms, "longest time for one message");
  add("--min-rate", service.min_bytes_per_s, "least bytes a second inside a message");
  app.add_option("--rate-window", service.rate_window_ms, "over which that is an average, at least 1")
      ->check(CLI::PositiveNumber)
      ->capture_default_str()
      ->group(limits);
  app.add_option("--max-buffered", options.max_buffered_bytes, "most bytes that wait for a client")
      ->check(CLI::Range(std::size_t{1}, std::size_t{1} << 32))
      ->group(limits);
  const std::map<std::string, ws::OutputPolicy> policies{{"report", ws::OutputPolicy::report},
                                                         {"drop-newest", ws::OutputPolicy::drop_newest},
                                                         {"drop-oldest", ws::OutputPolicy::drop_oldest},
                                                         {"close", ws::OutputPolicy::close}};
  app.add_option("--policy", service.output_policy, "what becomes of a message beyond that")
      ->transform(CLI::CheckedTransformer(policies))
      ->group(limits);
  add("--max-controls", service.max_controls_per_s, "most pings and pongs a second");
  add("--stop-timeout", options.stop_timeout_ms, "SIGINT and SIGTERM wait so long for connections to close");
}

}  // namespace

bool parse(int argc, char** argv, Options& options, int& status) {
  CLI::App app("A WebSocket echo server.", "levada-echo");
  std::string backend = "auto";
  bool same_origin = false;
  app.add_option("--host", options.server.host, "numeric address to listen on, or * for all")
      ->capture_default_str();
  app.add_option("--port", options.server.port, "TCP port; 0: any free one")->capture_default_str();
  app.add_option("--unix", options.server.unix_path, "listen on this Unix socket instead");
  app.add_option("--threads", options.server.threads, "reactor threads")
      ->check(CLI::Range(1, 1024))
      ->capture_default_str();
  app.add_option("--backend", backend, "auto, epoll or io_uring")
      ->check(CLI::IsMember({"auto", "epoll", "io_uring"}))
      ->capture_default_str();
  app.add_option("--max-message", options.max_message_bytes, "longest message accepted, in bytes")
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 31))  // what can be queued, twice
      ->capture_default_str();
  auto* cert =
      app.add_option("--cert", options.certificate.chain.file, "PEM file with the certificate chain: wss");
  auto* key = app.add_option("--key", options.certificate.key.file, "PEM file with its key");
  cert->needs(key);
  key->needs(cert);
  app.add_option("--trusted-proxies", options.server.service.trusted_proxies,
                 "addresses and networks, with commas, whose connections begin with a PROXY protocol header");
  app.add_flag("--pin", options.server.pin, "bind each thread to a CPU");
  app.add_option("--spin-us", options.server.reactor.spin_us,
                 "after receiving, look for more without waiting for so many microseconds");
  app.add_flag("--same-origin", same_origin, "refuse browsers' connections from pages of other hosts");
  app.add_flag("--broadcast", options.broadcast,
               "send each message to all connections of its thread instead");
  app.add_flag("--metrics", options.metrics, "answer GET /metrics with OpenMetrics text");
  add_limits(app, options);
  tools::add_deflate_options(app, options.server.service.deflate);
  app.add_flag("--quiet", options.quiet, "no summary at the end");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    status = app.exit(error) == 0 ? 0 : 2;
    return false;
  }
  auto& kind = options.server.reactor.backend;
  if (backend == "epoll") kind = net::BackendKind::epoll;
  if (backend == "io_uring") kind = net::BackendKind::io_uring;
  ws::ServiceOptions& service = options.server.service;
  // Nothing here depends on who asks, so pages of any host may connect unless they are told not to.
  service.origin_policy = same_origin ? ws::OriginPolicy::same_host : ws::OriginPolicy::any;
  service.max_message_bytes = options.max_message_bytes;
  // Every message that is accepted can be echoed behind what may be queued before reading pauses.
  service.max_buffered_bytes = options.max_buffered_bytes.value_or(
      std::max<std::uint64_t>(service.max_buffered_bytes, 2 * options.max_message_bytes));
  return true;
}

}  // namespace levada::echo
