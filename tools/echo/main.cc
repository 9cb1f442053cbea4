// levada-echo: a WebSocket echo server, with a page that tries it out.
#include <pthread.h>
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <string>
#include <vector>
#include <CLI/CLI.hpp>

#include <levada/tools/echo/page.h>
#include <levada/ws/server.h>

namespace {

using namespace levada;

// One reactor's counts; a cache line of its own, read when the reactor has stopped.
struct alignas(64) Counts {
  std::uint64_t connections = 0;
  std::uint64_t messages = 0;
  std::uint64_t bytes = 0;
};

class Echo {
 public:
  explicit Echo(Counts& counts) : counts_(counts) {}

  void on_http(ws::HttpExchange& exchange) {
    const ws::HttpRequest& request = exchange.request();
    const bool get = request.method() == "GET" || request.method() == "HEAD";
    if (get && request.path() == "/")
      return exchange.respond(200, "text/html; charset=utf-8", tools::echo_page);
    if (get && request.path() == "/healthz") return exchange.respond(200, "text/plain", "ok\n");
  }
  void on_open(ws::Connection&) { counts_.connections++; }
  void on_message(ws::Connection& connection, ws::Opcode opcode, Bytes payload) {
    counts_.messages++;
    counts_.bytes += payload.size();
    connection.send(opcode, payload);
  }

 private:
  Counts& counts_;
};

struct Options {
  ws::ServerOptions server{.port = 9001};
  std::uint64_t max_message_bytes = std::uint64_t{64} << 20;
  bool quiet = false;
};

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
      ->check(CLI::Range(std::uint64_t{1}, std::uint64_t{1} << 32))
      ->capture_default_str();
  app.add_flag("--pin", options.server.pin, "bind each thread to a CPU");
  app.add_flag("--same-origin", same_origin, "refuse browsers' connections from pages of other hosts");
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
  service.max_buffered_bytes =
      std::max<std::uint64_t>(service.max_buffered_bytes, 2 * options.max_message_bytes);
  return true;
}

void print_summary(const std::vector<Counts>& counts) {
  Counts sum;
  for (const Counts& one : counts) {
    sum.connections += one.connections;
    sum.messages += one.messages;
    sum.bytes += one.bytes;
  }
  std::printf("served %llu connections, %llu messages, %llu bytes\n",
              static_cast<unsigned long long>(sum.connections), static_cast<unsigned long long>(sum.messages),
              static_cast<unsigned long long>(sum.bytes));
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  int status = 0;
  if (!parse(argc, argv, options, status)) return status;
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  std::vector<Counts> counts(static_cast<std::size_t>(options.server.threads));
  ws::Server server(options.server);
  server.route("", [&counts](int reactor) { return Echo(counts[static_cast<std::size_t>(reactor)]); });
  if (const Error error = server.start()) return ws::report_failure(error);
  net::Reactor& reactor = server.reactor(0);
  std::printf("listening %s backend=%s threads=%d\n", server.url().c_str(),
              net::to_string(reactor.backend().kind()), server.threads());
  if (!reactor.fallback_reason().empty())
    std::printf("fell back to epoll: %s\n", reactor.fallback_reason().c_str());
  std::fflush(stdout);

  int signal = 0;
  sigwait(&signals, &signal);
  server.stop();
  server.wait();
  if (!options.quiet) print_summary(counts);
  return 0;
}
