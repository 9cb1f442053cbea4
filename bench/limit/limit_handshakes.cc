// limit_handshakes: connections that are made, upgraded and cut, as fast as the server takes them.
//
// `--connections` of them are on their way at any time. Every answer's status and key are checked. A connection ends
// with a reset, so that no port waits: there are too few for a few seconds of this.
//
//   --connections C, and what load.h says
#include "load.h"

using namespace limit;

namespace {

struct Slot {
  int fd = -1;
  bool asked = false;
  std::string head;
};

struct Handshakes {
  Target target;
  int poller = epoll_create1(EPOLL_CLOEXEC);
  std::vector<Slot> slots;
  std::string request = upgrade_request("/");
  std::uint64_t done = 0;
  std::size_t open = 0;
};

void start(Handshakes& load, Slot& slot) {
  slot.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(load.target.port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(slot.fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 && errno != EINPROGRESS)
    die("connect");
  slot.asked = false;
  slot.head.clear();
  epoll_event event{};
  event.events = EPOLLOUT;
  event.data.ptr = &slot;
  if (epoll_ctl(load.poller, EPOLL_CTL_ADD, slot.fd, &event) != 0) die("epoll_ctl");
  load.open++;
}

void ask(Handshakes& load, Slot& slot) {
  if (send(slot.fd, load.request.data(), load.request.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(load.request.size()))
    die("send");
  slot.asked = true;
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = &slot;
  if (epoll_ctl(load.poller, EPOLL_CTL_MOD, slot.fd, &event) != 0) die("epoll_ctl");
}

// True: the answer is whole.
bool read_answer(Slot& slot) {
  char buffer[2048];
  ssize_t n = recv(slot.fd, buffer, sizeof buffer, 0);
  if (n < 0 && errno == EAGAIN) return false;
  if (n <= 0) fail("no answer to the handshake");
  slot.head.append(buffer, static_cast<std::size_t>(n));
  if (slot.head.find("\r\n\r\n") == slot.head.npos) return false;
  if (!slot.head.starts_with("HTTP/1.1 101 ") || slot.head.find(expected_accept) == slot.head.npos)
    fail("wrong answer to the handshake");
  return true;
}

void cut(Handshakes& load, Slot& slot) {
  linger reset{1, 0};
  setsockopt(slot.fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
  close(slot.fd);
  load.open--;
  load.done++;
}

void turn_once(Handshakes& load, bool again) {
  epoll_event events[512];
  int count = epoll_wait(load.poller, events, 512, 100);
  for (int i = 0; i < count; i++) {
    auto& slot = *static_cast<Slot*>(events[i].data.ptr);
    if (!slot.asked) {
      ask(load, slot);
    } else if (read_answer(slot)) {
      cut(load, slot);
      if (again) start(load, slot);
    }
  }
}

Turn take_turn(Handshakes& load, double duration) {
  std::uint64_t done = load.done;
  double cpu = seconds(load.target.clock), begin = seconds(CLOCK_MONOTONIC);
  for (auto& slot : load.slots) start(load, slot);
  while (seconds(CLOCK_MONOTONIC) < begin + duration) turn_once(load, true);
  for (double end = seconds(CLOCK_MONOTONIC) + 10; load.open != 0;) {
    if (seconds(CLOCK_MONOTONIC) > end) fail("answers are missing");
    turn_once(load, false);
  }
  double stop = seconds(CLOCK_MONOTONIC);
  return {static_cast<double>(load.done - done), settled(load.target.clock) - cpu, stop - begin};
}

}  // namespace

int main(int argc, char** argv) {
  auto connections = static_cast<std::size_t>(option(argc, argv, "--connections", 64));
  pin(option(argc, argv, "--cpu", -1));
  std::vector<Handshakes> loads;
  for (const Target& target : targets(argc, argv))
    loads.push_back({.target = target, .slots = std::vector<Slot>(connections)});
  for (auto& load : loads) take_turn(load, decimal_option(argc, argv, "--warmup", 0.2));
  measure(argc, argv, loads, take_turn);
}
