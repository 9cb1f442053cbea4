#include <levada/ws/server.h>

#include <fcntl.h>
#include <unistd.h>
#include <algorithm>
#include <cassert>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <utility>

#include <levada/net/signals.h>
#include <levada/net/thread.h>

namespace levada::ws {
namespace {

Result<net::Address> address_of(const ServerOptions& options, std::uint16_t port) {
  if (!options.unix_path.empty()) return net::Address::unix_path(options.unix_path);
  return net::Address::ip(options.host, port);
}

Result<Fd> duplicate(const Fd& fd) {
  Fd copy(fcntl(fd.get(), F_DUPFD_CLOEXEC, 0));
  if (!copy) return Error::from_os("dup", errno);
  return copy;
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

Error Server::listen() {
  const std::lock_guard lock(ending_);  // a stop() of another thread finds all loops, or none
  assert(loops_.empty());
  if (options_.threads < 0) return {Errc::invalid_argument, "threads"};
  if (options_.threads == 0) options_.threads = static_cast<int>(net::allowed_cpus().size());
  result_ = {};
  route_names_ = {""};
  for (const Route& route : routes_) {
    if (!route.pattern.empty()) route_names_.push_back(route.pattern);
  }
  Error error = check_port_is_free();
  for (int i = 0; i < options_.threads && !error; i++) error = add_loop(i);
  Fd shared;
  for (auto& loop : loops_) {
    if (!error) error = listen(*loop, shared);
  }
  if (!error && signal_deadline_ms_) error = watch_signals(*loops_.back()->reactor);
  if (error) loops_.clear();
  return error;
}

Error Server::start() {
  const Error error = loops_.empty() ? listen() : Error{};
  assert(error || !loops_.front()->thread.joinable());
  return error ? error : start_threads(loops_.size());
}

Error Server::run() {
  if (loops_.empty()) {
    if (const Error error = listen()) return error;
  }
  if (const Error error = start_threads(loops_.size() - 1)) return error;
  loops_.back()->run();
  wait();
  return {};
}

Error Server::start_threads(std::size_t count) {
  for (std::size_t i = 0; i < count; i++) {
    const Error error = net::start_thread(loops_[i]->thread, [loop = loops_[i].get()] { loop->run(); });
    if (!error) continue;
    stop();
    wait();
    return error;
  }
  return {};
}

void Server::Loop::run() {
  reactor->run();
  for (auto& service : services) {
    found += stopping ? service->found_by_shut_down() : service->connections();
    cut += service->unfinished() + service->cut_by_shut_down();
  }
  reactor->close_all();
}

void Server::Loop::add_to(ServerResult& result) const {
  for (const auto& service : services) {
    const Counters& counters = service->counters();
    result.opened += counters.opened.value();
    result.messages += counters.messages_received.value();
    result.payload_bytes += counters.payload_bytes_received.value();
  }
  result.closed += found - cut;
  result.cut += cut;
}

std::size_t Server::Loop::connections() const {
  std::size_t sum = 0;
  for (const auto& service : services) sum += service->connections();
  return sum;
}

void Server::Loop::begin_stop(std::uint32_t deadline_ms) {
  if (!std::exchange(stopping, true)) {
    for (auto& service : services) {
      service->shut_down([this] {
        if (connections() == 0) reactor->stop();
      });
    }
  }
  if (connections() == 0) return reactor->stop();
  reactor->after(deadline_ms, [this] { reactor->stop(); });
}

Error Server::add_loop(int index) {
  net::ReactorOptions options = options_.reactor;
  if (options_.pin) {
    const std::vector<int> cpus = net::allowed_cpus();
    options.cpu = cpus[static_cast<std::size_t>(index) % cpus.size()];
  }
  auto reactor = net::Reactor::create(options);
  if (!reactor) return reactor.error();
  auto loop = std::make_unique<Loop>();
  loop->reactor = std::move(*reactor);
  add_services(*loop, index);
  for (const auto& service : loop->services) {
    if (const Error error = service->check_options()) return error;
  }
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
    if (!service->check_options()) loop.services.front()->add_route(route.pattern, *service);
  }
}

// Each loop has a socket of its own; on a Unix path, which cannot be bound twice, they share one.
Error Server::listen(Loop& loop, Fd& shared) {
  const bool is_unix = !options_.unix_path.empty();
  if (is_unix && shared) {
    auto copy = duplicate(shared);
    return copy ? loop.services.front()->listen(std::move(*copy)) : copy.error();
  }
  auto address = address_of(options_, port_ != 0 ? port_ : options_.port);
  if (!address) return address.error();
  auto fd = listen_patiently(*address, {.backlog = options_.backlog, .reuse_port = options_.threads > 1});
  if (!fd) return fd.error();
  auto bound = net::Address::of_socket(fd->get());
  if (!bound) return bound.error();
  port_ = bound->port();
  url_ = is_unix ? "ws+unix:" : loop.services.front()->options().tls != nullptr ? "wss://" : "ws://";
  url_ += is_unix ? options_.unix_path : bound->to_string();
  if (is_unix && options_.threads > 1) {
    auto copy = duplicate(*fd);
    if (!copy) return copy.error();
    shared = std::move(*copy);
  }
  return loop.services.front()->listen(std::move(*fd));
}

void Server::stop(std::uint32_t deadline_ms) {
  const std::lock_guard lock(ending_);
  for (auto& loop : loops_) {
    if (deadline_ms == 0) {
      loop->reactor->stop();
    } else {
      loop->reactor->post([loop = loop.get(), deadline_ms] { loop->begin_stop(deadline_ms); });
    }
  }
}

// Calls stop() for them.
Error Server::watch_signals(net::Reactor& reactor) {
  return net::watch_signals(
      reactor,
      [](void* self) {
        auto& server = *static_cast<Server*>(self);
        server.stop(std::exchange(server.signal_deadline_ms_, 0).value_or(0));
      },
      this);
}

void Server::wait() {
  std::vector<std::unique_ptr<Loop>> ended;  // destroyed without the lock: a handler may call stop()
  for (auto& loop : loops_) {
    if (loop->thread.joinable()) loop->thread.join();
    loop->add_to(result_);
  }
  for (auto& loop : loops_) loop->reactor->discard_tasks();  // they may hold memory of another loop
  {
    const std::lock_guard lock(ending_);
    ended.swap(loops_);
  }
  ended.clear();
  const bool has_path = !url_.empty() && !options_.unix_path.empty() && options_.unix_path.front() != '@';
  if (has_path) unlink(options_.unix_path.c_str());
  url_.clear();
}

void Server::adopt(Fd fd, std::string received, bool upgraded) {
  struct Adopted {
    Fd fd;
    std::string received;
  };
  const std::lock_guard lock(ending_);
  if (loops_.empty()) return;
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
