// limit_broadcast: one connection publishes on /broadcast, and all of that path get each message.
//
// The next message is published when all have the last one. What counts is deliveries. The first message is compared
// byte by byte on every connection; after it the kernel throws them away (MSG_TRUNC) and only their number counts.
//
//   --connections C --bytes B, and what load.h says
#include "load.h"

using namespace limit;

namespace {

void publish(Load& load) {
  load.outstanding += load.connections.size();
  load.connections[0].to_send += load.frame_size;
  send_due(load, load.connections[0]);
}

void on_readable(Load& load, Connection& conn) {
  std::size_t deliveries = 0;
  if (!conn.verified) {
    verify(load, conn, deliveries);
  } else {
    ssize_t n = recv(conn.fd, nullptr, 64 << 20, MSG_TRUNC);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) fail("the server closed the connection");
    conn.received += static_cast<std::size_t>(n);
    deliveries = conn.received / load.reply_size;
    conn.received %= load.reply_size;
  }
  if (deliveries > load.outstanding) fail("more was delivered than published");
  load.messages += deliveries;
  load.outstanding -= deliveries;
}

void turn_once(Load& load) {
  epoll_event events[512];
  int count = epoll_wait(load.poller, events, 512, 100);
  for (int i = 0; i < count; i++) {
    auto& conn = *static_cast<Connection*>(events[i].data.ptr);
    if ((events[i].events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0) on_readable(load, conn);
    if ((events[i].events & EPOLLOUT) != 0) send_due(load, conn);
  }
}

Turn take_turn(Load& load, double duration) {
  std::uint64_t messages = load.messages;
  double cpu = seconds(load.server_clock), start = seconds(CLOCK_MONOTONIC), stop = start;
  do {
    publish(load);
    while (load.outstanding != 0) {
      turn_once(load);
      if (seconds(CLOCK_MONOTONIC) > stop + 10) fail("deliveries are missing");
    }
    stop = seconds(CLOCK_MONOTONIC);
  } while (stop < start + duration);
  return {static_cast<double>(load.messages - messages), settled(load.server_clock) - cpu, stop - start};
}

}  // namespace

int main(int argc, char** argv) {
  auto connections = static_cast<std::size_t>(option(argc, argv, "--connections", 1000));
  auto bytes = static_cast<std::size_t>(option(argc, argv, "--bytes", 512));
  pin(option(argc, argv, "--cpu", -1));
  std::vector<Load> loads;
  for (const Target& target : targets(argc, argv))
    loads.push_back(open_load(target, "/broadcast", connections, bytes, 1));
  for (auto& load : loads) {
    take_turn(load, decimal_option(argc, argv, "--warmup", 0.2));
    for (auto& conn : load.connections)
      if (!conn.verified) fail("a connection's first message is not verified");
  }
  measure(argc, argv, loads, take_turn);
}
