// What levada-cat was asked to do.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <levada/net/tls_context.h>
#include <levada/ws/http.h>

namespace levada::cat {

// How a run ended, for scripts.
enum class Status : int {
  closed = 0,        // closed by either side with 1000, 1001 or without a code; with --one: a message came
  unreachable = 1,   // no connection: no such host, refused, silent
  usage = 2,         // wrong usage, or input that cannot be sent
  refused = 3,       // the server answered, but not with a WebSocket
  closed_badly = 4,  // the server closed with another code
  lost = 5,          // the connection ended without a close frame, or the server went silent
  violation = 6,     // the server broke the protocol
  no_message = 7,    // --one: it was closed before a message came
  no_reader = 8,     // nobody reads the output any more
};

struct Options {
  std::string url;
  bool binary = false;
  bool one = false;
  bool quiet = false;
  std::string origin;
  std::vector<std::string> subprotocols;
  std::vector<std::string> headers;  // "Name: value"
  double ping_seconds = 0;           // 0: none
  double timeout_seconds = 10;
  std::uint64_t max_message_bytes = std::uint64_t{16} << 20;
  net::TlsOptions tls;  // of wss
};

// Splits "Name: value"; false when it is no header that can be sent. Views of `text`.
bool parse_header(std::string_view text, ws::HttpField& field);

// Reads the command line. False when there is nothing to run: `status` is what the program ends with then.
bool parse(int argc, char** argv, Options& options, int& status);

}  // namespace levada::cat
