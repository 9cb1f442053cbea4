// A world for tests of connections: one reactor on the test's own thread, and clients that the test plays.
// The same test runs over loopback sockets on epoll and io_uring, and over simulated sockets, with and
// without faults.
//
// Model: nothing runs by itself. turn() moves the clients' bytes and runs the reactor once; until() turns
// until something holds. So there are no threads, no sleeps and no races with the handlers, which the test
// may look at between two turns.
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>
#include <cerrno>
#include <cstdlib>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>

#include <levada/core/clock.h>
#include <levada/net/io_uring.h>
#include <levada/net/reactor.h>
#include <levada/net/simulated.h>
#include <levada/net/socket.h>
#include <levada/tests/support/frames.h>
#include <levada/ws/service.h>

namespace levada::ws::test {

struct Kind {
  std::string name;
  net::BackendKind backend;
  net::SimulationOptions simulation = {};
  bool incremental = true;  // io_uring: false for receive buffers as kernels before 6.12 have them

  bool simulated() const { return backend == net::BackendKind::simulated; }
};

inline std::vector<Kind> real_kinds() {
  std::vector<Kind> kinds{{"epoll", net::BackendKind::epoll}};
  const net::IoUringAbilities abilities = net::io_uring_abilities();
  if (abilities.sufficient()) kinds.push_back({"io_uring", net::BackendKind::io_uring});
  if (abilities.sufficient() && abilities.incremental) {
    kinds.push_back({"io_uring, one receive for each buffer", net::BackendKind::io_uring, {}, false});
  }
  return kinds;
}

// The real ones and a perfect simulation.
inline std::vector<Kind> faultless_kinds() {
  std::vector<Kind> kinds = real_kinds();
  kinds.push_back({"simulated", net::BackendKind::simulated});
  return kinds;
}

// These, and some in which everything that may go otherwise does.
inline std::vector<Kind> all_kinds() {
  std::vector<Kind> kinds = faultless_kinds();
  for (std::uint64_t seed = 1; seed <= 4; seed++) {
    kinds.push_back({"simulated with faults, seed " + std::to_string(seed),
                     net::BackendKind::simulated,
                     {.seed = seed,
                      .receive_bytes = seed % 2 == 0 ? std::size_t{16} << 10 : std::size_t{100} << 10,
                      .shuffle = true,
                      .cut_one_in = 3,
                      .single_byte_one_in = seed % 2 == 0 ? 4u : 0u,
                      .short_write_one_in = 4,
                      .refused_write_one_in = 5,
                      .spurious_one_in = 6,
                      .starved_one_in = 7,
                      .early_flush_one_in = 5}});
  }
  return kinds;
}

// The head of an HTTP answer and what belongs to it.
struct Answer {
  unsigned status = 0;
  std::string head, body;

  bool has(std::string_view line) const {
    return head.find("\r\n" + std::string(line) + "\r\n") != std::string::npos;
  }
};

class World;

// The other end of one connection.
class Client {
 public:
  Client(World& world, Fd fd) : world_(world), fd_(std::move(fd)) {}
  Client(World& world, net::Peer peer) : world_(world), peer_(peer) {}

  // Queues bytes; they leave in the turns that follow, as far as the other side takes them.
  Client& write(std::string_view bytes) {
    out_ += bytes;
    move_bytes();
    return *this;
  }
  Client& send(Opcode opcode, std::string_view payload, const FrameShape& shape = {}) {
    return write(raw_frame(static_cast<unsigned>(opcode), payload, masks, shape));
  }
  Client& upgrade(std::string_view target = "/", std::string_view fields = {}) {
    return write(request(target, fields));
  }
  static std::string request(std::string_view target = "/", std::string_view fields = {}) {
    return "GET " + std::string(target) +
           " HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n" +
           std::string(fields) + "\r\n";
  }

  // The next frame, the next answer, the connection's regular end: what comes next has to be that.
  Frame frame();
  Answer answer();
  bool reaches_end();
  // Frames until one with this opcode.
  std::vector<Frame> frames_until(Opcode opcode);
  // The next frame is a close frame with this payload, and the connection ends behind it.
  bool is_closed_with(std::string_view payload);

  void shut_down() {
    if (peer_) return peer_->shut_down();
    ::shutdown(fd_.get(), SHUT_WR);
  }
  void close() {
    if (peer_) peer_->close();
    fd_.reset();
    gone_ = true;
  }
  void reset() {
    if (peer_) peer_->reset();
    const linger abort{1, 0};
    if (fd_) setsockopt(fd_.get(), SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
    fd_.reset();
    gone_ = true;
  }

  void move_bytes() {
    if (gone_) return;
    if (peer_) return move_simulated();
    while (sent_ < out_.size()) {
      const ssize_t sent =
          ::send(fd_.get(), out_.data() + sent_, out_.size() - sent_, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent <= 0) break;
      drop_sent(static_cast<std::size_t>(sent));
    }
    static char buffer[1 << 18];
    while (reading && !ended && !was_reset) {
      const ssize_t got = recv(fd_.get(), buffer, sizeof buffer, MSG_DONTWAIT);
      if (got > 0) in.append(buffer, static_cast<std::size_t>(got));
      ended = got == 0;
      was_reset = got < 0 && errno != EAGAIN;
      if (got < static_cast<ssize_t>(sizeof buffer)) break;
    }
  }

  int native_fd() const { return fd_.get(); }
  std::size_t unsent() const { return out_.size() - sent_ + (peer_ ? peer_->unreceived() : 0); }

  std::string in;       // received and not taken yet
  bool reading = true;  // take what the other side sends
  bool masks = true;    // write frames as a client
  bool ended = false;   // the other side has ended regularly
  bool was_reset = false;

 private:
  void move_simulated() {
    constexpr std::size_t most_on_the_way = 256 * 1024;
    const std::size_t on_the_way = peer_->unreceived();
    if (sent_ < out_.size() && on_the_way < most_on_the_way) {
      const std::size_t size = std::min(out_.size() - sent_, most_on_the_way - on_the_way);
      peer_->write(std::string_view(out_).substr(sent_, size));
      drop_sent(size);
    }
    if (!reading) return;
    in += peer_->read();
    was_reset = peer_->was_reset();
    ended = peer_->ended() && !was_reset;
  }

  void drop_sent(std::size_t size) {
    sent_ += size;
    if (sent_ < out_.size()) return;
    out_.clear();
    sent_ = 0;
  }

  World& world_;
  Fd fd_;
  std::optional<net::Peer> peer_;
  std::string out_;
  std::size_t sent_ = 0;  // of out_
  bool gone_ = false;
};

class World {
 public:
  explicit World(const Kind& kind) : World(kind, net::ReactorOptions{}) {}
  World(const Kind& kind, net::ReactorOptions options) : kind_(kind) {
    options.backend = kind.backend;
    if (kind.simulated()) {
      simulation_ = std::make_unique<net::Simulation>(kind.simulation);
      reactor_ = std::make_unique<net::Reactor>(options, net::SimulatedBackend::make, simulation_.get());
    } else {
      if (!kind.incremental) setenv("LEVADA_INCREMENTAL", "0", 1);
      auto reactor = net::Reactor::create(options);
      unsetenv("LEVADA_INCREMENTAL");
      REQUIRE(reactor);
      reactor_ = std::move(*reactor);
    }
  }
  World(const World&) = delete;

  net::Reactor& reactor() { return *reactor_; }
  const Kind& kind() const { return kind_; }
  net::Simulation& simulation() { return *simulation_; }

  // A handler that lives as long as the world, and a service for it.
  template <class H>
  H& make_handler() {
    auto made = std::make_shared<H>();
    handlers_.push_back(made);
    return *made;
  }
  template <class H>
  Service& service(H& handler, ServiceOptions options = {}, Role role = Role::server) {
    return *services_.emplace_back(std::make_unique<Service>(*reactor_, role, handler, std::move(options)));
  }
  Service& last_service() { return *services_.back(); }

  // A new handler whose service listens, to be reached with connect().
  template <class H>
  H& serve(ServiceOptions options = {}) {
    H& handler = make_handler<H>();
    listen(service(handler, std::move(options)));
    return handler;
  }
  void listen(Service& service) {
    Fd fd;
    if (kind_.simulated()) {
      fd = simulation_->listen();
    } else {
      fd = std::move(*net::listen_stream(*net::Address::ip("127.0.0.1", 0)));
      address = *net::Address::of_socket(fd.get());
    }
    REQUIRE(!service.listen(std::move(fd)));
  }

  Client& connect() {
    if (kind_.simulated()) return clients_.emplace_back(*this, simulation_->connect(listener()));
    Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(::connect(fd.get(), address.get(), address.size()) == 0);
    net::set_no_delay(fd.get());
    return clients_.emplace_back(*this, std::move(fd));
  }

  // connect(), and the handshake with its answer.
  Client& open(std::string_view target = "/", std::string_view fields = {}) {
    Client& client = connect();
    client.upgrade(target, fields);
    const Answer answer = client.answer();
    REQUIRE(answer.status == 101);
    return client;
  }

  // A connection that nobody listens for: the engine's end, to be adopted, and the client's.
  std::pair<Fd, Client*> pair() {
    if (kind_.simulated()) {
      net::SimulatedConnection made = simulation_->open();
      made.peer.accept();
      return {std::move(made.fd), &clients_.emplace_back(*this, made.peer)};
    }
    int ends[2];
    REQUIRE(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    return {Fd(ends[0]), &clients_.emplace_back(*this, Fd(ends[1]))};
  }

  // Plays on a socket that the test has got by itself.
  Client& adopt(Fd fd) { return clients_.emplace_back(*this, std::move(fd)); }

  void turn(int timeout_ms = 1) {
    for (Client& client : clients_) client.move_bytes();
    reactor_->run_once(timeout_ms);
    for (Client& client : clients_) client.move_bytes();
  }

  // Turns until `done()`; false if it does not come to that in ten seconds.
  template <class Done>
  bool until(Done&& done) {
    const std::uint64_t limit = monotonic_ns() + 10 * nanoseconds_per_second;
    while (!done()) {
      if (monotonic_ns() > limit) return false;
      turn();
    }
    return true;
  }

  // Lets the reactor do what there is to do.
  void settle(int turns = 8) {
    for (int i = 0; i < turns; i++) turn();
  }

  // Whether every connection is gone and nothing was left behind.
  bool is_empty() {
    const auto none = [&] {
      for (const auto& service : services_) {
        if (service->connections() != 0) return false;
      }
      return reactor_->segments().in_use() == 0;
    };
    return until(none);
  }

  const net::Listener& listener() {
    const net::Listener* found = nullptr;
    reactor_->for_each([&](net::Endpoint& endpoint) {
      if (endpoint.kind() == net::EndpointKind::listener) found = static_cast<net::Listener*>(&endpoint);
    });
    REQUIRE(found != nullptr);
    return *found;
  }

  net::Address address;  // of the last service that listens

 private:
  Kind kind_;
  std::unique_ptr<net::Simulation> simulation_;
  std::vector<std::shared_ptr<void>> handlers_;
  std::vector<std::unique_ptr<Service>> services_;
  std::unique_ptr<net::Reactor> reactor_;  // before its services: it closes their connections
  std::deque<Client> clients_;
};

inline Frame Client::frame() {
  std::optional<Frame> found;
  REQUIRE(world_.until([&] { return (found = take_frame(in)).has_value() || ended || was_reset; }));
  if (!found) found = take_frame(in);
  REQUIRE_MESSAGE(found.has_value(), "the connection ended, or was reset, without a frame");
  return *found;
}

inline std::vector<Frame> Client::frames_until(Opcode opcode) {
  std::vector<Frame> frames;
  do frames.push_back(frame());
  while (frames.back().opcode != static_cast<unsigned>(opcode));
  return frames;
}

inline Answer Client::answer() {
  const auto head_end = [&] { return in.find("\r\n\r\n"); };
  REQUIRE(world_.until([&] { return head_end() != std::string::npos || ended || was_reset; }));
  REQUIRE(head_end() != std::string::npos);
  Answer answer{.head = in.substr(0, head_end() + 2), .body = {}};
  in.erase(0, head_end() + 4);
  answer.status = static_cast<unsigned>(std::stoi(answer.head.substr(9, 3)));
  const std::size_t length_at = answer.head.find("Content-Length: ");
  const std::size_t length =
      length_at == std::string::npos ? 0 : std::stoul(answer.head.substr(length_at + 16));
  REQUIRE(world_.until([&] { return in.size() >= length || ended || was_reset; }));
  answer.body = in.substr(0, length);
  in.erase(0, length);
  return answer;
}

inline bool Client::reaches_end() {
  return world_.until([&] { return ended || was_reset; }) && ended && in.empty();
}

inline bool Client::is_closed_with(std::string_view payload) {
  const Frame last = frame();
  CHECK(last.opcode == 8);
  CHECK(last.payload == payload);
  return reaches_end();
}

// Runs `test` on every real backend.
template <class Test>
void on_real_backends(Test&& test) {
  for (const Kind& kind : real_kinds()) {
    CAPTURE(kind.name);
    test(kind);
  }
}

// Runs `test(World&)` on every backend; nothing may be left behind.
template <class Test>
void in_every_world(Test&& test, const std::vector<Kind>& kinds = all_kinds(),
                    net::ReactorOptions options = {}) {
  for (const Kind& kind : kinds) {
    CAPTURE(kind.name);
    World world(kind, options);
    test(world);
  }
}

// ---- Handlers ----

// Writes down what happens, and does what a test asks it to. What `closing` captures must live until every
// connection is closed.
struct Recorder {
  struct Message {
    Opcode opcode;
    std::string payload;
    bool operator==(const Message&) const = default;
  };
  struct Closed {
    CloseCode code;
    std::string reason;
    ClosedBy by;
    Errc error;
    bool operator==(const Closed&) const = default;
  };

  void on_upgrade(Upgrade& upgrade) {
    if (upgrading) upgrading(upgrade);
  }
  void on_open(Connection& connection) {
    opened++;
    last = connection.handle();
    if (opening) opening(connection);
  }
  void on_message(Connection& connection, Opcode opcode, MutableBytes payload) {
    if (recording) messages.push_back({opcode, std::string(to_text(payload))});
    if (receiving) receiving(connection, opcode, payload);
  }
  void on_ping(Connection& connection, Bytes payload) {
    pings.emplace_back(to_text(payload));
    if (pinged) pinged(connection);
  }
  void on_pong(Connection& connection, Bytes payload) {
    pongs.emplace_back(to_text(payload));
    if (ponged) ponged(connection);
  }
  void on_drain(Connection& connection) {
    drained++;
    if (draining) draining(connection);
  }
  void on_close(Connection& connection, const CloseInfo& info) {
    closes.push_back({info.code, std::string(info.reason), info.by, info.error.code});
    if (closing) closing(connection);
  }

  bool recording = true;
  int opened = 0, drained = 0;
  Handle last;
  std::vector<Message> messages;
  std::vector<std::string> pings, pongs;
  std::vector<Closed> closes;

  std::function<void(Upgrade&)> upgrading;
  std::function<void(Connection&)> opening, pinged, ponged, draining, closing;
  std::function<void(Connection&, Opcode, MutableBytes)> receiving;
};

inline void echo(Connection& connection, Opcode opcode, MutableBytes payload) {
  connection.send(opcode, payload);
}

// A Recorder that echoes.
struct Echo : Recorder {
  Echo() { receiving = echo; }
};

}  // namespace levada::ws::test
