// What levada-echo is told on its command line.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>

#include <levada/net/tls_context.h>
#include <levada/ws/server.h>

namespace levada::echo {

struct Options {
  ws::ServerOptions server{.port = 9001};
  std::uint64_t max_message_bytes = std::uint64_t{64} << 20;
  net::TlsCertificate certificate;
  std::uint32_t stop_timeout_ms = 5'000;
  std::optional<std::size_t> max_buffered_bytes;
  bool metrics = false;
  bool broadcast = false;
  bool quiet = false;
};

// False when the program is to end at once, with `status`: after --help, or after a mistake, which was said.
bool parse(int argc, char** argv, Options& options, int& status);

}  // namespace levada::echo
