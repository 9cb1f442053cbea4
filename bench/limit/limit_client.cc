// limit_client: the cheapest closed loop that can load echo servers from one other core.
//
// Every connection keeps `--depth` masked frames in flight and sends as many again as echoes came back. The
// first round of every connection is compared byte by byte; after it the kernel throws the replies away
// (MSG_TRUNC) and only their number counts.
//
//   --connections C --bytes B --depth P, and what load.h says
#include "load.h"

using namespace limit;

namespace {

void release_due(Load& load, Connection& conn) {
  conn.to_send += conn.due * load.frame_size;
  load.outstanding += conn.due;
  conn.due = 0;
}

void on_readable(Load& load, Connection& conn) {
  std::size_t echoes = 0;
  if (!conn.verified) {
    verify(load, conn, echoes);
  } else {
    ssize_t n = recv(conn.fd, nullptr, 64 << 20, MSG_TRUNC);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) fail("the server closed the connection");
    conn.received += static_cast<std::size_t>(n);
    echoes = conn.received / load.reply_size;
    conn.received %= load.reply_size;
  }
  load.messages += echoes;
  load.outstanding -= echoes;
  conn.due += echoes;
  if (!load.draining) release_due(load, conn);
  if (conn.to_send != 0 && !conn.blocked) send_due(load, conn);
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

// Loads the server for `duration` seconds, then waits until every echo is back and the server sleeps.
Turn take_turn(Load& load, double duration) {
  std::uint64_t messages = load.messages;
  double cpu = seconds(load.server_clock), start = seconds(CLOCK_MONOTONIC);
  load.draining = false;
  for (auto& conn : load.connections) {
    release_due(load, conn);
    send_due(load, conn);
  }
  while (seconds(CLOCK_MONOTONIC) < start + duration) turn_once(load);
  load.draining = true;
  for (double end = seconds(CLOCK_MONOTONIC) + 10; load.outstanding != 0;) {
    if (seconds(CLOCK_MONOTONIC) > end) fail("echoes are missing");
    turn_once(load);
  }
  double stop = seconds(CLOCK_MONOTONIC);
  usleep(300);  // a clock read while the server still runs is old by up to a tick
  return {static_cast<double>(load.messages - messages), seconds(load.server_clock) - cpu, stop - start};
}

}  // namespace

int main(int argc, char** argv) {
  auto connections = static_cast<std::size_t>(option(argc, argv, "--connections", 1));
  auto bytes = static_cast<std::size_t>(option(argc, argv, "--bytes", 16));
  auto depth = static_cast<std::size_t>(option(argc, argv, "--depth", 1));
  pin(option(argc, argv, "--cpu", -1));

  std::vector<Load> loads;
  for (const Target& target : targets(argc, argv))
    loads.push_back(open_load(target, "/", connections, bytes, depth));
  for (auto& load : loads) {
    for (auto& conn : load.connections) conn.due = depth;
    take_turn(load, decimal_option(argc, argv, "--warmup", 0.2));
    for (auto& conn : load.connections)
      if (!conn.verified) fail("a connection's first round is not verified");
  }
  measure(argc, argv, loads, take_turn);
}
