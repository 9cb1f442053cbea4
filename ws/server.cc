#include <levada/ws/server.h>

#include <unistd.h>
#include <cassert>
#include <chrono>
#include <cstdio>

namespace levada::ws {
namespace {

Result<net::Address> address_of(const ServerOptions& options, std::uint16_t port) {
  if (!options.unix_path.empty()) return net::Address::unix_path(options.unix_path);
  return net::Address::ip(options.host, port);
}

// A server that was killed leaves its io_uring, and the listening socket that an accept of it still holds, to the kernel,
// which may take some milliseconds to clean up: a port that is in use is tried again for a while.
Result<Fd> listen_patiently(const net::Address& address, const net::ListenOptions& options) {
  constexpr int attempts = 50;
  constexpr auto pause = std::chrono::milliseconds(10);
  for (int attempt = 1;; attempt++) {
    auto fd = net::listen_stream(address, options);
    if (fd || fd.error().code != Errc::address_in_use || attempt == attempts) return fd;
    std::this_thread::sleep_for(pause);
  }
}

}  // namespace

Server::Loop::~Loop() {
  assert(!thread.joinable());
  reactor.reset();  // closes the connections while their services are there
}

Server::~Server() {
  stop();
  wait();
}

// Sockets that share a port would also share it with another server's: find out whether there is one.
Error Server::check_port_is_free() const {
  if (options_.threads == 1 || options_.port == 0 || !options_.unix_path.empty()) return {};
  auto address = address_of(options_, options_.port);
  if (!address) return address.error();
  auto fd = listen_patiently(*address, {});
  return fd ? Error{} : fd.error();
}

Error Server::start() {
  assert(loops_.empty());
  Error error = check_port_is_free();
  for (int i = 0; i < options_.threads && !error; i++) error = add_loop(i);
  Fd shared;
  for (auto& loop : loops_) {
    if (!error) error = listen(*loop, shared);
  }
  if (error) {
    loops_.clear();
    return error;
  }
  for (auto& loop : loops_) {
    loop->thread = std::thread([reactor = loop->reactor.get()] {
      reactor->run();
      reactor->close_all();
    });
  }
  return {};
}

Error Server::add_loop(int index) {
  net::ReactorOptions options = options_.reactor;
  if (options_.pin) options.cpu = index % static_cast<int>(std::thread::hardware_concurrency());
  auto reactor = net::Reactor::create(options);
  if (!reactor) return reactor.error();
  auto loop = std::make_unique<Loop>();
  loop->reactor = std::move(*reactor);
  add_services(*loop, index);
  loops_.push_back(std::move(loop));
  return {};
}

// The route "" comes first: it owns the listening socket. Without one, a handler that does nothing does.
void Server::add_services(Loop& loop, int index) {
  struct Nothing {};
  loop.handlers.push_back({std::make_shared<Nothing>(), &handler_table<Nothing>});
  const ServiceOptions* root_options = &options_.service;
  for (const Route& route : routes_) {
    if (!route.pattern.empty()) continue;
    loop.handlers.front() = route.make(index);
    root_options = &route.options;
  }
  const HandlerBox& first = loop.handlers.front();
  loop.services.push_back(std::make_unique<Service>(*loop.reactor, Role::server, first.object.get(),
                                                    *first.table, *root_options));
  for (const Route& route : routes_) {
    if (route.pattern.empty()) continue;
    const HandlerBox& handler = loop.handlers.emplace_back(route.make(index));
    auto& service = loop.services.emplace_back(std::make_unique<Service>(
        *loop.reactor, Role::server, handler.object.get(), *handler.table, route.options));
    loop.services.front()->add_route(route.pattern, *service);
  }
}

// Each loop has a socket of its own; on a Unix path, which cannot be bound twice, they share one.
Error Server::listen(Loop& loop, Fd& shared) {
  const bool is_unix = !options_.unix_path.empty();
  if (is_unix && shared) {
    Fd copy(dup(shared.get()));
    if (!copy) return {Errc::descriptor_limit, "dup"};
    return loop.services.front()->listen(std::move(copy));
  }
  auto address = address_of(options_, port_ != 0 ? port_ : options_.port);
  if (!address) return address.error();
  auto fd = listen_patiently(*address, {.backlog = options_.backlog, .reuse_port = options_.threads > 1});
  if (!fd) return fd.error();
  auto bound = net::Address::of_socket(fd->get());
  if (!bound) return bound.error();
  port_ = bound->port();
  url_ = is_unix ? "ws+unix:" : "ws://";
  url_ += is_unix ? options_.unix_path : bound->to_string();
  if (is_unix) shared = Fd(dup(fd->get()));
  return loop.services.front()->listen(std::move(*fd));
}

void Server::stop() {
  for (auto& loop : loops_) loop->reactor->stop();
}

void Server::wait() {
  for (auto& loop : loops_) {
    if (loop->thread.joinable()) loop->thread.join();
  }
  loops_.clear();
  const bool has_path = !url_.empty() && !options_.unix_path.empty() && options_.unix_path.front() != '@';
  if (has_path) unlink(options_.unix_path.c_str());
  url_.clear();
}

void Server::adopt(Fd fd, std::string received, bool upgraded) {
  struct Adopted {
    Fd fd;
    std::string received;
  };
  Loop& loop = *loops_[next_adopted_.fetch_add(1, std::memory_order_relaxed) % loops_.size()];
  Service* service = loop.services.front().get();
  auto adopted = std::make_unique<Adopted>(Adopted{std::move(fd), std::move(received)});
  loop.reactor->post([service, upgraded, adopted = std::move(adopted)] {
    const Bytes bytes = to_bytes(adopted->received);
    if (upgraded) {
      service->adopt_upgraded(std::move(adopted->fd), bytes);
    } else {
      service->adopt(std::move(adopted->fd), bytes);
    }
  });
}

int report_failure(const Error& error) {
  std::fprintf(stderr, "levada: %s\n", error.message().c_str());
  return 1;
}

}  // namespace levada::ws
