// Server: the short way to serve WebSockets on all cores.
//
//   struct Echo {
//     void on_message(ws::Connection& conn, ws::Opcode opcode, Bytes payload) { conn.send(opcode, payload); }
//   };
//   int main() { return ws::serve({.port = 9001, .threads = 4}, [](int) { return Echo{}; }); }
//
// Model: `threads` reactors, each with a thread, a listening socket of its own on the same port (SO_REUSEPORT; a Unix
// socket is shared) and, for each route, a Service with a handler of its own. So handlers need no locks: one is only
// ever called on its reactor's thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <levada/net/reactor.h>
#include <levada/net/socket.h>
#include <levada/ws/service.h>

namespace levada::ws {

struct ServerOptions {
  std::string host = "127.0.0.1";  // a numeric address, "localhost", or "*" for all of IPv4
  std::uint16_t port = 0;          // 0: the kernel chooses; Server::port() tells
  std::string unix_path = {};      // listen on this Unix socket instead; '@' first: abstract
  int threads = 1;                 // a reactor each; 0: as many as there are CPUs that the process may use
  bool pin = false;                // bind each reactor's thread to a CPU of its own, if there are enough
  int backlog = 4096;
  net::ReactorOptions reactor = {};
  ServiceOptions service = {};  // of every route that has no options of its own
};

inline constexpr std::string_view openmetrics_type =
    "application/openmetrics-text; version=1.0.0; charset=utf-8";

// What a server did, and how it ended.
struct ServerResult {
  std::uint64_t opened = 0;         // connections
  std::uint64_t messages = 0;       // received
  std::uint64_t payload_bytes = 0;  // of them
  // Of the connections that stop() found, or that were adopted since:
  std::uint64_t closed =
      0;  // connections that ended by themselves or by the close handshake, all they had queued sent
  std::uint64_t cut = 0;  // connections that had not when they were closed
};

class Server {
 public:
  explicit Server(ServerOptions options) : options_(std::move(options)) {}
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;
  // Stops and waits.
  ~Server();

  // Before start(): what serves a path. `factory(int reactor)` returns the handler of one reactor, numbered from 0. A
  // pattern is a RouteTable's. The route "" gets every request that asks for no WebSocket, and, if its handler has
  // on_open, on_message or on_fragment, the paths that no other route matches; else those get 404.
  template <class Factory>
  void route(std::string pattern, Factory factory) {
    route(std::move(pattern), std::move(factory), options_.service);
  }
  template <class Factory>
  void route(std::string pattern, Factory factory, ServiceOptions options) {
    using H = std::invoke_result_t<Factory&, int>;
    auto make = [factory = std::move(factory)](int reactor) mutable {
      return HandlerBox{std::make_shared<H>(factory(reactor)), &handler_table<H>};
    };
    routes_.push_back({std::move(pattern), std::move(make), std::move(options)});
  }

  // Before listen(): SIGINT and SIGTERM stop the server, gracefully within `deadline_ms`, a second one at once. They are
  // blocked in the calling thread, and so in those it makes from then on.
  void stop_on_signals(std::uint32_t deadline_ms) { signal_deadline_ms_ = deadline_ms; }

  // Makes the reactors and listens, trying half a second while the port is in use; port() and url() tell. Connections
  // wait until start() or run(). Errors: those of Address, listen_stream, Reactor::create and Service::check_options(),
  // invalid_argument for a negative number of threads; nothing is left then. Not while the server listens or runs
  // (asserted).
  Error listen();

  // Serves on threads of its own, and returns. Listens before, if that was not done: then with its errors. no_memory when
  // the system allows no further thread: nothing is left then either. Once, until wait() has returned (asserted); then
  // again. A process that forks does so before: child and parent would share the reactors' descriptors, and an io_uring is
  // its maker's.
  Error start();

  // Serves until stop(); the calling thread is that of the last reactor, so that one reactor needs no other thread,
  // which makes every system call of it a little cheaper. Then as wait(). Errors: as start().
  Error run();

  // Any thread, also a handler's; not a signal's. With a deadline of 0 the threads end after their turn, and connections
  // are closed without a close frame. Else listening ends at once, unfinished handshakes are refused with 503, every
  // connection gets a close frame with 1001 behind what is queued for it, and what is not over when `deadline_ms`
  // milliseconds have passed is cut. Of several
  // stops the earliest end holds. While another thread is in listen(), it waits for that; before, there is nothing to stop.
  void stop(std::uint32_t deadline_ms = 0);

  // Waits until the threads have closed what is left, with on_close, and ended. Not from a handler, and from one thread
  // at a time.
  void wait();

  // After wait() or run().
  const ServerResult& result() const { return result_; }

  // After listen(): the port, and the address as a URL, "ws://127.0.0.1:9001" or "ws+unix:/path".
  std::uint16_t port() const { return port_; }
  const std::string& url() const { return url_; }

  // After listen(), any thread: all counters as OpenMetrics text, to be served as openmetrics_type. Empty after
  // wait().
  std::string openmetrics() const;

  int threads() const { return static_cast<int>(loops_.size()); }
  net::Reactor& reactor(int index) { return *loops_[static_cast<std::size_t>(index)]->reactor; }

  // Any thread, after start(); a server that has ended closes it. Takes over a socket that another server accepted, on the reactors in turn: before its
  // handshake, with the bytes already read, or after the 101 was sent, with those read behind the request's head. The
  // service is that of the route "".
  void adopt(Fd fd, std::string received = {}) { adopt(std::move(fd), std::move(received), false); }
  void adopt_upgraded(Fd fd, std::string received = {}) { adopt(std::move(fd), std::move(received), true); }

 private:
  struct HandlerBox {
    std::shared_ptr<void> object;
    const HandlerTable* table;
  };
  struct Route {
    std::string pattern;
    std::function<HandlerBox(int)> make;
    ServiceOptions options;
  };
  // One reactor's thread. Members are destroyed from the last to the first: connections before what they refer to.
  struct Loop {
    std::vector<HandlerBox> handlers;
    std::vector<std::unique_ptr<Service>> services;
    std::unique_ptr<net::Reactor> reactor;
    std::thread thread;
    bool stopping = false;  // gracefully
    std::size_t found = 0;
    std::size_t cut = 0;
    ~Loop();
    void run();
    void begin_stop(std::uint32_t deadline_ms);
    std::size_t connections() const;
    void add_to(ServerResult& result) const;
  };

  Error check_port_is_free() const;
  Error add_loop(int index);
  Error listen(Loop& loop, Fd& shared);
  Error watch_signals(net::Reactor& reactor);
  Error start_threads(std::size_t count);
  void add_services(Loop& loop, int index);
  void adopt(Fd fd, std::string received, bool upgraded);

  ServerOptions options_;
  std::vector<Route> routes_;
  std::vector<std::unique_ptr<Loop>> loops_;
  mutable std::mutex ending_;  // loops_ does not go while another thread stops, adopts or reads counters
  std::uint16_t port_ = 0;
  std::string url_;
  std::vector<std::string> route_names_;  // in the order of each loop's services
  ServerResult result_;
  std::optional<std::uint32_t> signal_deadline_ms_;  // of the first signal; 0 for those behind it
  std::atomic<unsigned> next_adopted_{0};
};

// Says on stderr why a server could not start; returns 1, for main().
int report_failure(const Error& error);

// Serves every path with handlers from `factory` until the process ends. Returns 1, for main(), after saying why on
// stderr, if it cannot.
template <class Factory>
int serve(ServerOptions options, Factory factory) {
  Server server(std::move(options));
  server.route("", std::move(factory));
  const Error error = server.run();
  return error ? report_failure(error) : 0;
}

}  // namespace levada::ws
