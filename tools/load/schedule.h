// Schedule: when a connection's next message is due. The connection asks whenever something happened to it.
#pragma once

#include <cstdint>

namespace levada::load {

// Closed loop: each echo makes room for the next message, `depth` are in flight.
struct ClosedLoop {
  unsigned depth = 1;

  // How many messages to send now.
  std::uint64_t due(std::uint64_t in_flight) const { return in_flight < depth ? depth - in_flight : 0; }
};

}  // namespace levada::load
