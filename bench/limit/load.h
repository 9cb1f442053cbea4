// What the clients of the limit servers and their peers share: connections, turns, and what is printed.
//
// A client takes `--target PORT:PID` (repeatable) `--rounds N --slice S --warmup S --cpu K`. A machine's speed changes
// from one second to the next. So several servers are measured in turns of a few hundredths of a second, A B C C B A in
// each round, and what is compared lies within one round. A turn ends when all that was asked is answered; then the
// server sleeps and its CPU clock is exact. All others sleep meanwhile.
//
// Prints one JSON object: per target the rounds, each round two turns, each turn [messages, server CPU s, seconds].
#pragma once

#include <fcntl.h>
#include <sched.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "wire.h"

namespace limit {

struct Connection {
  int fd = -1;
  std::size_t to_send = 0;   // bytes of whole frames that are due
  std::size_t at = 0;        // position in `frames`, which is sent around and around
  std::size_t received = 0;  // bytes of the echo under way, or of the first round
  bool verified = false;
  bool blocked = false;
  std::size_t due = 0;  // frames that wait for the next turn
};

struct Load {
  int poller = -1;
  std::vector<std::uint8_t> frames;   // `depth` masked frames, one behind the other
  std::vector<std::uint8_t> replies;  // what they must come back as
  std::size_t frame_size = 0;
  std::size_t reply_size = 0;
  std::vector<Connection> connections;
  clockid_t server_clock{};
  std::uint64_t messages = 0;   // echoes that came back
  std::size_t outstanding = 0;  // frames that did not come back yet
  bool draining = false;        // the turn is over: echoes are not answered by new frames
};

[[noreturn]] inline void fail(const char* what) {
  std::fprintf(stderr, "%s: %s\n", program_invocation_short_name, what);
  std::exit(1);
}

inline void build(Load& load, std::size_t bytes, std::size_t depth) {
  std::uint32_t random = 12345;
  for (std::size_t i = 0; i < depth; i++) {
    std::uint8_t header[max_header];
    std::size_t n = put_header(header, op_binary, bytes);
    load.replies.insert(load.replies.end(), header, header + n);
    header[1] |= 0x80;
    load.frames.insert(load.frames.end(), header, header + n);
    std::uint32_t key = random = random * 1664525 + 1013904223;
    for (int k = 0; k < 4; k++) load.frames.push_back(static_cast<std::uint8_t>(key >> 8 * k));
    for (std::size_t k = 0; k < bytes; k++) {
      random = random * 1664525 + 1013904223;
      auto byte = static_cast<std::uint8_t>(random >> 24);
      load.replies.push_back(byte);
      load.frames.push_back(static_cast<std::uint8_t>(byte ^ key >> 8 * (k & 3)));
    }
  }
  load.frame_size = load.frames.size() / depth;
  load.reply_size = load.replies.size() / depth;
}

inline constexpr std::string_view expected_accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

inline std::string upgrade_request(std::string_view path) {
  return "GET " + std::string(path) +
         " HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
         "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
}

inline int connect_and_upgrade(std::uint16_t port, std::string_view path) {
  int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0) die("connect");
  set_nodelay(fd);
  const std::string request = upgrade_request(path);
  if (send(fd, request.data(), request.size(), MSG_NOSIGNAL) != static_cast<ssize_t>(request.size()))
    die("send");
  std::string head;
  for (char byte; head.find("\r\n\r\n") == head.npos; head += byte)
    if (recv(fd, &byte, 1, 0) != 1) fail("no response to the handshake");
  if (head.find(expected_accept) == head.npos) fail("wrong response to the handshake");
  fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

inline void watch(Load& load, Connection& conn, std::uint32_t events, int operation) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = &conn;
  if (epoll_ctl(load.poller, operation, conn.fd, &event) != 0) die("epoll_ctl");
}

inline void send_due(Load& load, Connection& conn) {
  while (conn.to_send != 0) {
    std::size_t n = std::min(conn.to_send, load.frames.size() - conn.at);
    ssize_t sent = send(conn.fd, load.frames.data() + conn.at, n, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN) die("send");
    if (sent > 0) {
      conn.to_send -= static_cast<std::size_t>(sent);
      conn.at = (conn.at + static_cast<std::size_t>(sent)) % load.frames.size();
    }
    if (sent >= static_cast<ssize_t>(n)) continue;
    if (!conn.blocked) watch(load, conn, EPOLLIN | EPOLLOUT, EPOLL_CTL_MOD);
    conn.blocked = true;
    return;
  }
  if (conn.blocked) watch(load, conn, EPOLLIN, EPOLL_CTL_MOD);
  conn.blocked = false;
}

inline void verify(Load& load, Connection& conn, std::size_t& echoes) {
  static std::vector<std::uint8_t> buffer(1 << 20);
  std::size_t left = load.replies.size() - conn.received;
  ssize_t n = recv(conn.fd, buffer.data(), std::min(buffer.size(), left), 0);
  if (n < 0 && errno == EAGAIN) return;
  if (n <= 0) fail("the server closed the connection");
  if (std::memcmp(buffer.data(), load.replies.data() + conn.received, static_cast<std::size_t>(n)) != 0)
    fail("wrong echo");
  std::size_t before = conn.received / load.reply_size;
  conn.received += static_cast<std::size_t>(n);
  echoes = conn.received / load.reply_size - before;
  if (conn.received != load.replies.size()) return;
  conn.verified = true;
  conn.received = 0;
}

inline double seconds(clockid_t clock) {
  timespec now{};
  if (clock_gettime(clock, &now) != 0) die("clock_gettime");
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// Waits until the server sleeps and returns its CPU time.
inline double settled(clockid_t server_clock) {
  double before = seconds(server_clock);
  for (int tries = 0; tries < 50; tries++) {
    usleep(1000);
    double now = seconds(server_clock);
    if (now == before) break;
    before = now;
  }
  return before;
}

struct Turn {
  double messages;
  double server_cpu;
  double seconds;
};

inline double decimal_option(int argc, char** argv, std::string_view name, double otherwise) {
  for (int i = 1; i + 1 < argc; i++)
    if (argv[i] == name) return std::atof(argv[i + 1]);
  return otherwise;
}

inline void pin(long cpu) {
  if (cpu < 0) return;
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<std::size_t>(cpu), &set);
  if (sched_setaffinity(0, sizeof set, &set) != 0) die("sched_setaffinity");
}

struct Target {
  std::uint16_t port;
  clockid_t clock;  // of the server's CPU time
};

inline Target parse_target(const char* text) {
  int port = 0, pid = 0;
  if (std::sscanf(text, "%d:%d", &port, &pid) != 2) fail("--target is PORT:PID");
  Target target{static_cast<std::uint16_t>(port), {}};
  if (clock_getcpuclockid(pid, &target.clock) != 0) fail("--target: no such process");
  return target;
}

inline std::vector<Target> targets(int argc, char** argv) {
  std::vector<Target> result;
  for (int i = 1; i + 1 < argc; i++)
    if (std::string_view(argv[i]) == "--target") result.push_back(parse_target(argv[i + 1]));
  if (result.empty()) fail("--target PORT:PID is missing");
  return result;
}

inline Load open_load(const Target& target, std::string_view path, std::size_t connections, std::size_t bytes,
                      std::size_t depth) {
  Load load;
  load.server_clock = target.clock;
  build(load, bytes, depth);
  load.poller = epoll_create1(EPOLL_CLOEXEC);
  load.connections.resize(connections);
  for (auto& conn : load.connections) conn.fd = connect_and_upgrade(target.port, path);
  for (auto& conn : load.connections) watch(load, conn, EPOLLIN, EPOLL_CTL_ADD);
  return load;
}

inline void print(const std::vector<std::vector<Turn>>& turns, double own_cpu, double total) {
  std::printf("{\"client_load\": %.3f, \"targets\": [", own_cpu / total);
  for (std::size_t i = 0; i < turns.size(); i++) {
    std::printf("%s[", i == 0 ? "" : ", ");
    for (std::size_t k = 0; k < turns[i].size(); k++) {
      const Turn& turn = turns[i][k];
      std::printf("%s[%.0f, %.9f, %.9f]%s",
                  k == 0       ? "["
                  : k % 2 == 0 ? ", ["
                               : ", ",
                  turn.messages, turn.server_cpu, turn.seconds, k % 2 == 0 ? "" : "]");
    }
    std::printf("]");
  }
  std::printf("]}\n");
}

// Takes all turns and prints them. `take_turn(load, seconds)` loads one server.
template <typename AnyLoad, typename TakeTurn>
void measure(int argc, char** argv, std::vector<AnyLoad>& loads, TakeTurn take_turn) {
  std::vector<std::vector<Turn>> turns(loads.size());
  double slice = decimal_option(argc, argv, "--slice", 0.05);
  double start = seconds(CLOCK_MONOTONIC), own = seconds(CLOCK_PROCESS_CPUTIME_ID);
  for (long round = option(argc, argv, "--rounds", 20); round > 0; round--) {
    for (std::size_t i = 0; i < loads.size(); i++) turns[i].push_back(take_turn(loads[i], slice));
    for (std::size_t i = loads.size(); i-- > 0;) turns[i].push_back(take_turn(loads[i], slice));
  }
  print(turns, seconds(CLOCK_PROCESS_CPUTIME_ID) - own, seconds(CLOCK_MONOTONIC) - start);
}

}  // namespace limit
