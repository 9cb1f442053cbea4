// levada-echo: a WebSocket echo server, with a page that tries it out.
#include <algorithm>
#include <atomic>
#include <cstdio>
#include <string>

#include <levada/tools/echo/options.h>
#include <levada/tools/echo/page.h>
#include <levada/ws/prepared.h>
#include <levada/ws/server.h>

namespace {

using namespace levada;

class Echo {
 public:
  Echo(const ws::Server& server, bool metrics, bool broadcast, std::atomic<std::uint64_t>& compressed)
      : server_(server), metrics_(metrics), broadcast_(broadcast), compressed_(compressed) {}

  void on_http(ws::HttpExchange& exchange) {
    const ws::HttpRequest& request = exchange.request();
    if (request.method() != "GET" && request.method() != "HEAD") return refuse_method(exchange);
    if (request.path() == "/") exchange.respond(200, "text/html; charset=utf-8", tools::echo_page);
    if (request.path() == "/healthz") exchange.respond(200, "text/plain", "ok\n");
    if (request.path() == "/metrics" && metrics_) {
      exchange.respond(200, ws::openmetrics_type, server_.openmetrics());
    }
  }
  void on_open(ws::Connection& connection) {
    if (connection.compresses()) compressed_.fetch_add(1, std::memory_order_relaxed);
  }
  void on_message(ws::Connection& connection, ws::Opcode opcode, Bytes payload) {
    if (!broadcast_) return void(connection.send(opcode, payload));
    const ws::PreparedMessage message(opcode, payload);
    connection.service().for_each([&](ws::Connection& each) { each.send(message); });
  }

 private:
  // RFC 9110 section 9.1.
  void refuse_method(ws::HttpExchange& exchange) const {
    constexpr ws::HttpField allow[] = {{"Allow", "GET, HEAD"}};
    if (!is_known(exchange.request().method())) {
      exchange.respond(501, "text/plain", "unknown method\n");
    } else if (is_here(exchange.request().path())) {
      exchange.respond(405, "text/plain", "only GET and HEAD\n", allow);
    }
  }
  // Methods that get 405 rather than 501.
  static bool is_known(std::string_view method) {
    constexpr std::string_view known[] = {"POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"};
    return std::find(std::begin(known), std::end(known), method) != std::end(known);
  }
  // "*": of OPTIONS, for the server as a whole.
  bool is_here(std::string_view path) const {
    return path == "/" || path == "/healthz" || path == "*" || (path == "/metrics" && metrics_);
  }

  const ws::Server& server_;
  bool metrics_;
  bool broadcast_;
  std::atomic<std::uint64_t>& compressed_;  // connections that agreed on permessage-deflate
};

void print_summary(const ws::ServerResult& result, std::uint64_t compressed) {
  const auto number = [](std::uint64_t value) { return std::to_string(value); };
  const std::string line =
      "served " + number(result.opened) + " connections, " +
      (compressed == 0 ? "" : number(compressed) + " of them with permessage-deflate, ") +
      number(result.messages) + " messages, " + number(result.payload_bytes) + " bytes; at the end " +
      number(result.closed) + " connections closed, " + number(result.cut) + " cut\n";
  std::fputs(line.c_str(), stdout);
}

}  // namespace

int main(int argc, char** argv) {
  echo::Options options;
  int status = 0;
  if (!echo::parse(argc, argv, options, status)) return status;

  if (!options.certificate.chain.empty()) {
    auto tls = net::TlsContext::create(net::TlsRole::server, {.certificates = {options.certificate}});
    if (!tls) return ws::report_failure(tls.error());
    options.server.service.tls = *tls;
  }
  ws::Server server(options.server);
  std::atomic<std::uint64_t> compressed = 0;
  server.route("", [&](int) { return Echo(server, options.metrics, options.broadcast, compressed); });
  server.stop_on_signals(options.stop_timeout_ms);
  if (const Error error = server.listen()) {
    const ws::ServerOptions& on = options.server;
    const std::string where = on.unix_path.empty() ? on.host + ":" + std::to_string(on.port) : on.unix_path;
    std::fprintf(stderr, "levada-echo: cannot listen on %s: %s\n", where.c_str(), error.message().c_str());
    return 1;
  }
  net::Reactor& reactor = server.reactor(0);
  std::printf("listening %s backend=%s threads=%d\n", server.url().c_str(),
              net::to_string(reactor.backend().kind()), server.threads());
  if (!reactor.fallback_reason().empty())
    std::printf("fell back to epoll: %s\n", reactor.fallback_reason().c_str());
  if (options.server.service.tls != nullptr && !net::ktls_available().available)
    std::printf("kTLS is not available: %s\n", net::ktls_available().reason);
  std::fflush(stdout);

  if (const Error error = server.run()) return ws::report_failure(error);
  if (!options.quiet) print_summary(server.result(), compressed);
  return 0;
}
