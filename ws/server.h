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
#include <string>
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
  int threads = 1;
  bool pin = false;  // bind each reactor's thread to a CPU of its own
  int backlog = 4096;
  net::ReactorOptions reactor = {};
  ServiceOptions service = {};  // of every route that has no options of its own
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

  // Listens, trying half a second while the port is in use, and starts the threads. When it returns without an error connections are accepted. Errors: those of
  // Address, listen_stream and Reactor::create; nothing runs then.
  Error start();

  // Any thread, also a handler's: the threads end after their turn. Connections are closed without a close frame.
  void stop();
  // Waits until the threads have closed what is left, with on_close, and ended. Not from a handler.
  void wait();

  // After start(): the port, and the address as a URL, "ws://127.0.0.1:9001" or "ws+unix:/path".
  std::uint16_t port() const { return port_; }
  const std::string& url() const { return url_; }

  int threads() const { return static_cast<int>(loops_.size()); }
  net::Reactor& reactor(int index) { return *loops_[static_cast<std::size_t>(index)]->reactor; }

  // Any thread, after start(). Takes over a socket that another server accepted, on the reactors in turn: before its
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
    ~Loop();
  };

  Error check_port_is_free() const;
  Error add_loop(int index);
  Error listen(Loop& loop, Fd& shared);
  void add_services(Loop& loop, int index);
  void adopt(Fd fd, std::string received, bool upgraded);

  ServerOptions options_;
  std::vector<Route> routes_;
  std::vector<std::unique_ptr<Loop>> loops_;
  std::uint16_t port_ = 0;
  std::string url_;
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
  if (const Error error = server.start()) return report_failure(error);
  server.wait();
  return 0;
}

}  // namespace levada::ws
