// What the tests of streams share: a stream that records and calls hooks, socket pairs, and turns until
// something holds.
#pragma once

#include <arpa/inet.h>
#include <sys/socket.h>
#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>

#include <levada/core/clock.h>
#include <levada/net/io_uring.h>
#include <levada/net/reactor.h>
#include <levada/net/socket.h>

namespace levada::net::test {

class Probe;

// What a Probe saw, and what it is to do about it. Closes the Probe when it goes out of scope first.
struct Record {
  ~Record();

  Probe* probe = nullptr;  // nullptr once it is closed
  std::string received;
  std::vector<Errc> ends;
  int connected = 0, secured = 0, drained = 0, closed = 0, timers = 0;
  bool keep_open = false;  // do not close at the end

  std::function<void(Probe&, MutableBytes, Owner*)> on_receive;
  std::function<void(Probe&)> on_connected, on_secured, on_drained, on_end, on_timer, on_closed;
  std::function<ReceiveTarget()> target;
};

class Probe : public Stream {
 public:
  Probe(Fd fd, Record& record) : Stream(std::move(fd)), record_(&record) { record.probe = this; }
  ~Probe() override {
    if (record_ != nullptr) record_->probe = nullptr;  // also when it could not be started
  }
  using Stream::receive_directly;
  void abandon() {
    close();
    record_ = nullptr;
  }

 private:
  void on_receive(MutableBytes bytes, Owner* memory) override {
    record_->received.append(to_text(bytes));
    if (record_->on_receive) record_->on_receive(*this, bytes, memory);
  }
  void on_end(const Error& error) override {
    record_->ends.push_back(error.code);
    if (record_->on_end) record_->on_end(*this);
    if (!record_->keep_open) close();
  }
  void on_connected() override {
    record_->connected++;
    if (record_->on_connected) record_->on_connected(*this);
  }
  void on_secured() override {
    record_->secured++;
    if (record_->on_secured) record_->on_secured(*this);
  }
  void on_drained() override {
    record_->drained++;
    if (record_->on_drained) record_->on_drained(*this);
  }
  void on_timer() override {
    record_->timers++;
    if (record_->on_timer) record_->on_timer(*this);
  }
  void on_closed() override {
    if (record_ == nullptr) return;
    record_->closed++;
    record_->probe = nullptr;
    if (record_->on_closed) record_->on_closed(*this);
  }
  ReceiveTarget receive_target() override { return record_->target(); }

  Record* record_;
};

inline Record::~Record() {
  if (probe != nullptr) probe->abandon();
}

inline void echo(Probe& probe, MutableBytes bytes, Owner*) {
  probe.send_turn_memory(bytes);
}

inline std::vector<BackendKind> real_backends() {
  std::vector<BackendKind> kinds{BackendKind::epoll};
  if (io_uring_abilities().sufficient()) kinds.push_back(BackendKind::io_uring);
  return kinds;
}

// Runs `test(Reactor&)` on each backend that this machine has; nothing may be left behind.
template <class Test>
void on_each_backend(Test&& test, ReactorOptions options = {}) {
  for (const BackendKind kind : real_backends()) {
    CAPTURE(std::string(to_string(kind)));
    options.backend = kind;
    auto reactor = Reactor::create(options);
    REQUIRE(reactor);
    test(**reactor);
  }
  if (!io_uring_abilities().incremental) return;
  CAPTURE("io_uring, one receive for each buffer");
  options.backend = BackendKind::io_uring;
  setenv("LEVADA_INCREMENTAL", "0", 1);
  auto reactor = Reactor::create(options);
  unsetenv("LEVADA_INCREMENTAL");
  REQUIRE(reactor);
  test(**reactor);
}

// Turns until `done()`; false if it does not come to that in ten seconds.
template <class Done>
bool turn_until(Reactor& reactor, Done&& done) {
  const std::uint64_t limit = monotonic_ns() + 10 * nanoseconds_per_second;
  while (!done()) {
    if (monotonic_ns() > limit) return false;
    reactor.run_once(2);
  }
  return true;
}

// Whether the reactor sleeps when nothing is to be done, instead of turning at full speed.
inline bool sleeps(Reactor& reactor) {
  int turns = 0;
  const std::uint64_t limit = monotonic_ns() + 100 * nanoseconds_per_millisecond;
  while (monotonic_ns() < limit) {
    reactor.run_once(20);
    turns++;
  }
  return turns <= 25;
}

inline Address any_local() {
  return *Address::ip("127.0.0.1", 0);
}

// Two ends of a TCP connection on loopback. The engine's does not block, the peer's does.
struct Pair {
  Pair() {
    Fd listening = std::move(*listen_stream(any_local()));
    peer = dial(listening.get());
    engine.reset(accept4(listening.get(), nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC));
    REQUIRE(engine);
  }
  static Fd dial(int listening) {
    const Address address = *Address::of_socket(listening);
    Fd fd(socket(address.family(), SOCK_STREAM | SOCK_CLOEXEC, 0));
    REQUIRE(connect(fd.get(), address.get(), address.size()) == 0);
    return fd;
  }

  Fd engine;
  Fd peer;
};

inline void write_all(const Fd& fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t sent = send(fd.get(), text.data(), text.size(), MSG_NOSIGNAL);
    REQUIRE(sent > 0);
    text.remove_prefix(static_cast<std::size_t>(sent));
  }
}

// Appends what has arrived, without waiting. Returns true when the engine has ended or reset the connection.
inline bool read_some(const Fd& fd, std::string& into, std::size_t limit = 1 << 20) {
  static std::vector<char> buffer(1 << 20);
  const ssize_t got = recv(fd.get(), buffer.data(), std::min(limit, buffer.size()), MSG_DONTWAIT);
  if (got > 0) into.append(buffer.data(), static_cast<std::size_t>(got));
  return got == 0 || (got < 0 && errno != EAGAIN);
}

// Closes with a reset instead of a regular end.
inline void reset_connection(Fd& fd) {
  const linger abort{1, 0};
  setsockopt(fd.get(), SOL_SOCKET, SO_LINGER, &abort, sizeof abort);
  fd.reset();
}

// Bytes that differ from place to place and from seed to seed.
inline std::string pattern(std::size_t size, std::uint64_t seed = 1) {
  SeededRandom random(seed);
  std::string text(size, '\0');
  for (char& byte : text) byte = static_cast<char>(random.next());
  return text;
}

}  // namespace levada::net::test
