// Options: what the command line asks for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <levada/net/backend.h>
#include <levada/tools/load/target.h>

namespace levada::load {

struct Options {
  Target target;
  std::uint32_t connections = 50;
  int threads = 1;
  unsigned depth = 1;        // messages in flight on each connection
  std::uint64_t bytes = 16;  // of a message's payload
  bool text = false;
  std::uint64_t duration_ns = 0;
  std::uint64_t warmup_ns = 0;
  std::uint64_t seed = 1;
  double connect_rate = 0;            // new connections per second; 0: as fast as they are taken
  std::uint32_t timeout_ms = 10'000;  // for a connection and its handshake
  net::BackendKind backend = net::BackendKind::automatic;
  int server_pid = 0;               // 0: not sampled
  std::optional<std::string> json;  // the file; "-": standard output, instead of the text report
};

// "10k" is 10 000 and "16Ki" 16 384; also M, Mi, G, Gi, and a B behind. nullopt: it is not a size, or beyond
// 2^63.
std::optional<std::uint64_t> parse_size(std::string_view text);

// "30s", "100ms", "1.5m": ns, us, ms, s, m, h; without a unit seconds. Returns nanoseconds, at most 1000
// hours.
std::optional<std::uint64_t> parse_duration(std::string_view text);

// Reads the command line. When the program is to end now (help, or an error, which has been printed) it
// returns false and sets `status`: 0 or 2.
bool parse_options(int argc, const char* const* argv, Options& options, int& status);

}  // namespace levada::load
