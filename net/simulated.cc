#include <levada/net/simulated.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include <levada/net/reactor.h>

namespace levada::net {
namespace {

constexpr int simulated_segments = 64;
constexpr std::size_t no_socket = ~std::size_t{0};

}  // namespace

// ---- Peer ----

void Peer::write(Bytes bytes) {
  auto& socket = *simulation_->sockets_[socket_];
  if (closed() || socket.peer_ended || socket.error != 0) return;
  socket.to_engine.append(to_text(bytes));
}

std::string Peer::read() {
  return std::exchange(simulation_->sockets_[socket_]->to_peer, {});
}

void Peer::set_window(std::size_t bytes) {
  simulation_->sockets_[socket_]->window = bytes;
}

void Peer::shut_down() {
  simulation_->sockets_[socket_]->peer_ended = true;
}

void Peer::close() {
  auto& socket = *simulation_->sockets_[socket_];
  socket.peer_ended = socket.peer_gone = true;
}

void Peer::reset() {
  auto& socket = *simulation_->sockets_[socket_];
  socket.to_engine.clear();
  socket.error = ECONNRESET;
}

void Peer::accept() {
  simulation_->sockets_[socket_]->connected = true;
}

void Peer::refuse(int os_number) {
  simulation_->sockets_[socket_]->error = os_number;
}

bool Peer::ended() const {
  return simulation_->sockets_[socket_]->engine_ended;
}

bool Peer::closed() const {
  return simulation_->sockets_[socket_]->fd < 0;
}

bool Peer::was_reset() const {
  return simulation_->sockets_[socket_]->was_reset;
}

bool Peer::failed() const {
  return simulation_->sockets_[socket_]->error != 0;
}

std::size_t Peer::unreceived() const {
  return simulation_->sockets_[socket_]->to_engine.size();
}

// ---- Simulation ----

std::size_t Simulation::make_socket(Kind kind) {
  const std::size_t index = sockets_.size();
  auto socket = std::make_unique<Socket>();
  socket->kind = kind;
  socket->window = options_.window_bytes;
  sockets_.push_back(std::move(socket));
  sockets_.back()->fd = make_descriptor(index);
  return index;
}

// The lowest that is free, as a kernel does it.
int Simulation::make_descriptor(std::size_t socket) {
  auto free = std::find(descriptors_.begin(), descriptors_.end(), no_socket);
  if (free == descriptors_.end()) free = descriptors_.insert(free, no_socket);
  *free = socket;
  return SimulatedBackend::first_descriptor + static_cast<int>(free - descriptors_.begin());
}

Simulation::Socket* Simulation::find(int fd) {
  const auto index = static_cast<std::size_t>(fd - SimulatedBackend::first_descriptor);
  if (index >= descriptors_.size() || descriptors_[index] == no_socket) return nullptr;
  return sockets_[descriptors_[index]].get();
}

void Simulation::close(Socket& socket) {
  descriptors_[static_cast<std::size_t>(socket.fd - SimulatedBackend::first_descriptor)] = no_socket;
  socket.fd = -1;
  socket.engine_ended = true;
  socket.was_reset = !socket.to_engine.empty();
  socket.to_engine.clear();
}

Fd Simulation::listen() {
  return Fd(sockets_[make_socket(Kind::listener)]->fd);
}

Fd Simulation::watchable() {
  return Fd(sockets_[make_socket(Kind::watchable)]->fd);
}

void Simulation::set_readable(const Watch& watch, bool readable) {
  if (Socket* socket = find(watch.native_fd())) socket->readable = readable;
}

Peer Simulation::connect(const Listener& listener) {
  const std::size_t index = make_socket(Kind::connection);
  if (Socket* socket = find(listener.native_fd())) {
    socket->backlog.push_back(index);
  } else {  // nobody listens
    close(*sockets_[index]);
  }
  return Peer(*this, index);
}

SimulatedConnection Simulation::open() {
  const std::size_t index = make_socket(Kind::connection);
  sockets_[index]->connected = false;
  return {Fd(sockets_[index]->fd), Peer(*this, index)};
}

int Simulation::begin_operation() {
  if (++operations_ != options_.failing_operation) return 0;
  faults_[static_cast<std::size_t>(Fault::failed_operation)]++;
  return options_.failure;
}

void Simulation::record(Operation operation, const Socket& socket, std::int64_t value) {
  log_.push_back({operation, socket.fd - SimulatedBackend::first_descriptor, value});
}

std::string Simulation::log_text() const {
  std::string text;
  for (const Event& event : log_) text += describe(event) + '\n';
  return text;
}

std::string Simulation::describe(const Event& event) {
  return name_of(event.operation) + (' ' + std::to_string(event.descriptor)) + ' ' +
         std::to_string(event.value);
}

const char* Simulation::name_of(Operation operation) {
  constexpr const char* names[] = {"start",  "stop",     "accept",     "connect",   "receive",
                                   "direct", "end",      "send",       "shut_down", "starved",
                                   "fault",  "spurious", "early_flush"};
  return names[static_cast<std::size_t>(operation)];
}

const char* Simulation::name_of(Fault fault) {
  constexpr const char* names[fault_kinds] = {"cut",      "single_byte",     "short_write", "refused_write",
                                              "spurious", "starved",         "early_flush", "accept_failure",
                                              "reset",    "failed_operation"};
  return names[static_cast<std::size_t>(fault)];
}

// ---- SimulatedBackend ----

std::unique_ptr<Backend> SimulatedBackend::make(Reactor& reactor, void* simulation) {
  return std::unique_ptr<Backend>(new SimulatedBackend(reactor, *static_cast<Simulation*>(simulation)));
}

SimulatedBackend::~SimulatedBackend() {
  for (Block* block : received_) block->drop_reference();
}

std::string SimulatedBackend::describe() const {
  return "in memory, seed " + std::to_string(simulation_.options_.seed);
}

Error SimulatedBackend::start(Endpoint& endpoint) {
  Socket* socket = simulation_.find(endpoint.fd_);
  if (socket == nullptr) return Error::from_os("start", EBADF);
  if (const int failure = simulation_.begin_operation()) {
    simulation_.record(Operation::fault, *socket, -failure);
    simulation_.close(*socket);
    return Error::from_os("start", failure);
  }
  simulation_.record(Operation::start, *socket, 0);
  socket->endpoint = endpoint.id();
  endpoint.armed_receive_ = true;
  endpoint.armed_writable_ = endpoint.connecting_;
  return {};
}

void SimulatedBackend::stop(Endpoint& endpoint) {
  Socket* socket = simulation_.find(endpoint.fd_);
  endpoint.fd_ = -1;
  if (socket == nullptr) return;
  simulation_.record(Operation::stop, *socket, 0);
  simulation_.close(*socket);
}

Fd SimulatedBackend::release(Stream& stream) {
  simulation_.find(stream.fd_)->endpoint = {};
  return Fd(std::exchange(stream.fd_, -1));
}

void SimulatedBackend::shut_down(Stream& stream) {
  Socket& socket = *simulation_.find(stream.fd_);
  simulation_.record(Operation::shut_down, socket, 0);
  socket.engine_ended = true;
}

bool SimulatedBackend::can_receive(const Socket& socket, const Stream& stream) const {
  if (!stream.armed_receive_ || stream.paused_ || stream.starved_ || stream.connecting_) return false;
  return !socket.to_engine.empty() || socket.peer_ended || socket.error != 0;
}

bool SimulatedBackend::can_send(const Socket& socket, const Stream& stream) const {
  if (!stream.armed_writable_) return false;
  if (stream.connecting_) return socket.connected || socket.error != 0;
  return socket.to_peer.size() < socket.window || socket.error != 0 || socket.peer_gone;
}

bool SimulatedBackend::ready(Socket& socket) {
  if (socket.fd < 0) return false;
  Endpoint* endpoint = reactor_.find(socket.endpoint);
  if (endpoint == nullptr) return false;
  if (socket.kind == Simulation::Kind::listener) return !socket.backlog.empty() && !endpoint->paused_;
  if (socket.kind == Simulation::Kind::watchable) return socket.readable;
  auto& stream = static_cast<Stream&>(*endpoint);
  return can_receive(socket, stream) || can_send(socket, stream);
}

void SimulatedBackend::poll(int timeout_ms) {
  bool starving = !starved_.empty();
  for (const SlotId id : starved_) {
    if (Endpoint* endpoint = reactor_.find(id)) endpoint->starved_ = false;
  }
  starved_.clear();
  ready_.clear();
  for (std::size_t i = 0; i < simulation_.sockets_.size(); i++) {
    Socket& socket = *simulation_.sockets_[i];
    const bool spurious =
        socket.fd >= 0 && simulation_.strikes(simulation_.options_.spurious_one_in, Fault::spurious);
    if (ready(socket) || spurious) ready_.push_back(i);
  }
  if (simulation_.options_.shuffle) {
    for (std::size_t i = ready_.size(); i > 1; i--)
      std::swap(ready_[i - 1], ready_[simulation_.random_.below(i)]);
  }
  const bool woken = woken_.exchange(false, std::memory_order_acquire);
  if (ready_.empty() && !woken && !starving && timeout_ms > 0) {
    simulation_.advance_ms(static_cast<std::uint64_t>(timeout_ms));
  }
  reactor_.begin_turn();
  for (const std::size_t index : ready_) report(*simulation_.sockets_[index]);
}

void SimulatedBackend::report(Socket& socket) {
  Endpoint* endpoint = socket.fd < 0 ? nullptr : reactor_.find(socket.endpoint);
  if (endpoint == nullptr) return;
  if (!ready(socket)) simulation_.record(Operation::spurious, socket, 0);
  if (simulation_.strikes(simulation_.options_.early_flush_one_in, Fault::early_flush)) {
    simulation_.record(Operation::early_flush, socket, 0);
    flush();
    if (endpoint->closed()) return;
  }
  switch (endpoint->kind()) {
    case EndpointKind::listener:
      return accept(socket, static_cast<Listener&>(*endpoint));
    case EndpointKind::watch:
      return reactor_.readable(static_cast<Watch&>(*endpoint));
    case EndpointKind::alarm:
      return;
    case EndpointKind::stream:
      break;
  }
  auto& stream = static_cast<Stream&>(*endpoint);
  if (stream.connecting_) return finish_connecting(socket, stream);
  if (can_receive(socket, stream)) receive(socket, stream);
  if (!stream.closed() && stream.armed_writable_) {  // without room, too: a spurious report
    stream.armed_writable_ = false;
    reactor_.writable(stream);
  }
}

void SimulatedBackend::accept(Socket& socket, Listener& listener) {
  while (!socket.backlog.empty() && !listener.closed() && !listener.paused_) {
    int failure = simulation_.begin_operation();
    if (failure == 0 &&
        simulation_.strikes(simulation_.options_.accept_failure_one_in, Fault::accept_failure))
      failure = EMFILE;
    if (failure != 0) {
      simulation_.record(Operation::fault, socket, -failure);
      return reactor_.accept_failed(listener, Error::from_os("accept", failure));
    }
    Socket& connection = *simulation_.sockets_[socket.backlog.front()];
    socket.backlog.pop_front();
    simulation_.record(Operation::accept, connection, 0);
    reactor_.accepted(listener, Fd(connection.fd));
  }
}

void SimulatedBackend::finish_connecting(Socket& socket, Stream& stream) {
  if (!can_send(socket, stream)) return;
  stream.armed_writable_ = false;
  const int failure = simulation_.begin_operation();
  if (failure != 0 || socket.error != 0)
    return fail(socket, stream, failure != 0 ? failure : socket.error, "connect");
  simulation_.record(Operation::connect, socket, 0);
  reactor_.connected(stream);
}

void SimulatedBackend::fail(Socket& socket, Stream& stream, int os_number, const char* operation) {
  simulation_.record(Operation::fault, socket, -os_number);
  socket.error = os_number;
  stream.armed_receive_ = false;
  reactor_.ended(stream, Error::from_os(operation, os_number));
}

void SimulatedBackend::receive(Socket& socket, Stream& stream) {
  const SimulationOptions& options = simulation_.options_;
  if (const int failure = simulation_.begin_operation()) return fail(socket, stream, failure, "recv");
  if (socket.error == 0 && simulation_.strikes(options.reset_one_in, Fault::reset)) socket.error = ECONNRESET;
  if (socket.error != 0) return fail(socket, stream, socket.error, "recv");
  if (simulation_.strikes(options.starved_one_in, Fault::starved)) {
    simulation_.record(Operation::starved, socket, 0);
    stream.starved_ = true;
    starved_.push_back(stream.id());
    return;
  }
  if (!socket.to_engine.empty()) {
    const std::size_t room = stream.direct_ ? stream.receive_target().bytes.size() : options.receive_bytes;
    assert(room > 0);
    return deliver(socket, stream, receive_size(socket, room));
  }
  simulation_.record(Operation::end, socket, 0);
  stream.armed_receive_ = false;
  reactor_.ended(stream, {Errc::end_of_stream, "recv"});
}

std::size_t SimulatedBackend::receive_size(const Socket& socket, std::size_t room) {
  const std::size_t available = std::min(socket.to_engine.size(), room);
  if (simulation_.strikes(simulation_.options_.single_byte_one_in, Fault::single_byte)) return 1;
  if (simulation_.strikes(simulation_.options_.cut_one_in, Fault::cut))
    return 1 + simulation_.random_.below(available);
  return available;
}

void SimulatedBackend::deliver(Socket& socket, Stream& stream, std::size_t size) {
  Block* block = nullptr;
  MutableBytes room;
  if (stream.direct_) {
    room = stream.receive_target().bytes;
  } else {
    block = reactor_.blocks().allocate(size);
    received_.push_back(block);
    room = {block->data(), size};
  }
  std::memcpy(room.data(), socket.to_engine.data(), size);
  socket.to_engine.erase(0, size);
  simulation_.record(stream.direct_ ? Operation::direct : Operation::receive, socket,
                     static_cast<std::int64_t>(size));
  reactor_.received(stream, room.first(size), block);
}

// ---- Sending ----

void SimulatedBackend::flush() {
  while (Stream* stream = reactor_.take_dirty()) flush(*stream);
  end_turn();
}

void SimulatedBackend::flush(Stream& stream) {
  if (stream.blocked_ || stream.connecting_) return reactor_.spill(stream);
  while (!stream.queue_.empty()) {
    Socket& socket = *simulation_.find(stream.fd_);
    iovec vectors[simulated_segments];
    std::size_t total = 0;
    const int count = stream.queue_.gather(vectors, simulated_segments, total);
    if (const int failure = simulation_.begin_operation()) return fail(socket, stream, failure, "send");
    if (socket.error != 0) return fail(socket, stream, socket.error, "send");
    const std::size_t taken = take(socket, vectors, count, total);
    reactor_.sent(stream, taken, taken < total);
    if (taken == total) continue;
    stream.armed_writable_ = true;
    return;
  }
  reactor_.sending_done(stream);
}

// How much of it the connection takes, and takes it.
std::size_t SimulatedBackend::take(Socket& socket, const iovec* vectors, int count, std::size_t total) {
  const SimulationOptions& options = simulation_.options_;
  const std::size_t room = socket.window - std::min(socket.window, socket.to_peer.size());
  std::size_t size = socket.peer_gone ? total : std::min(total, room);
  if (simulation_.strikes(options.refused_write_one_in, Fault::refused_write)) size = 0;
  if (size > 0 && simulation_.strikes(options.short_write_one_in, Fault::short_write))
    size = simulation_.random_.below(size);
  simulation_.record(Operation::send, socket, static_cast<std::int64_t>(size));
  if (socket.peer_gone) {  // what arrives at a closed socket is answered with a reset
    if (size > 0) socket.error = ECONNRESET;
    return size;
  }
  std::size_t left = size;
  for (int i = 0; i < count; i++) {
    const std::size_t part = std::min(left, vectors[i].iov_len);
    socket.to_peer.append(static_cast<const char*>(vectors[i].iov_base), part);
    left -= part;
  }
  return size;
}

void SimulatedBackend::end_turn() {
  reactor_.turn_memory().scrub(poison);
  reactor_.end_turn();
  for (Block* block : received_) {
    if (block->references() == 1) std::memset(block->data(), poison, block->capacity());
    block->drop_reference();
  }
  received_.clear();
}

}  // namespace levada::net
