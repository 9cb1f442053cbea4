// Options: what the command line asks for, read and checked before anything begins.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <levada/net/backend.h>
#include <levada/net/tls_context.h>
#include <levada/tools/load/expect.h>
#include <levada/tools/load/payload.h>
#include <levada/tools/load/sizes.h>
#include <levada/tools/load/sources.h>
#include <levada/tools/load/target.h>
#include <levada/tools/load/units.h>
#include <levada/ws/deflate_negotiation.h>

namespace levada::load {

enum class Mode : std::uint8_t {
  echo,       // messages that come back
  ping,       // pings, answered by pongs
  broadcast,  // the first connection's messages come to all others
  churn,      // connect, some messages, close, again; without messages it is the handshake that is measured
  hold,       // many quiet connections, pinged now and then; an echo on each at the end
};
const char* to_string(Mode mode);

enum class Pace : std::uint8_t { closed, constant, poisson };
const char* to_string(Pace pace);

// How many messages of `bytes` bytes may wait for an answer on one thread. Beyond it the server is not late but gone,
// and memory is ours.
constexpr std::uint64_t most_in_flight(std::uint64_t bytes) {
  constexpr std::uint64_t messages = 8'000'000, memory_bytes = std::uint64_t{1} << 30;
  return bytes <= memory_bytes / messages ? messages : memory_bytes / bytes;
}

// How a message is put on the wire.
enum class Shape : std::uint8_t {
  whole,      // one frame
  fragments,  // 2 to 5 frames, cut at random
  control,    // fragments with a ping between each two
  bytes,      // each byte a write of its own
  cuts,       // two writes, cut behind each byte in turn
  batch,      // several frames in a write
  mix,        // all of these in turn
};
const char* to_string(Shape shape);

struct Options {
  Target target;                // the first of these
  std::vector<Target> targets;  // connections go to them in turn
  Mode mode = Mode::echo;
  std::uint32_t connections = 50;
  int threads = 1;
  int processes = 1;
  bool pin = false;
  net::BackendKind backend = net::BackendKind::automatic;

  // What is sent.
  Sizes sizes;  // of messages
  std::string sizes_text = "16";
  std::uint64_t bytes = 16;  // of the longest one
  PayloadText payload_text = PayloadText::random;
  bool text = false;
  std::optional<std::string> literal;  // this one message, in place of generated ones
  Shape shape = Shape::whole;
  unsigned frames = 16;  // batch: of a write, at most
  std::uint64_t seed = 1;

  // When.
  Pace pace = Pace::closed;
  unsigned depth = 1;                         // closed loop: messages in flight on each connection
  double rate = 0;                            // open loop: messages per second of all connections together
  std::optional<std::uint64_t> count;         // messages in all; none: until the time is over
  double connect_rate = 0;                    // new connections per second; 0: as fast as they are taken
  std::uint64_t messages_per_connection = 1;  // of a churner
  double slow_share = 0;                      // connections that read slowly
  double churn_share = 0;                     // connections that come and go
  std::uint64_t duration_ns = 0;
  std::uint64_t warmup_ns = 0;
  std::uint64_t drain_ns = 0;
  std::uint32_t timeout_ms = 10'000;  // for a connection and its handshake

  // The request.
  std::string host;  // the value of Host; empty: as the URL says
  std::vector<std::pair<std::string, std::string>> fields;
  std::string origin;
  std::vector<std::string> subprotocols;
  Sources sources;
  std::string sources_text;
  net::TlsOptions tls;                       // of wss
  std::shared_ptr<net::TlsContext> context;  // the same, made by parse_options() if a target needs it
  std::string sni;                           // the name that servers prove to be; empty: that of the URL
  ws::DeflateOptions deflate{.min_bytes = 0};

  // What is looked at, and what comes out.
  std::vector<int> server_pids;  // all of one server's; two servers: one of each
  std::vector<Expectation> expectations;
  std::optional<std::string> json;  // the file; "-": standard output, instead of the text report
  std::string csv, hgrm, html;      // files; empty: not written
  bool quiet = false;
  bool progress = true;

  // Several runs.
  std::optional<Target> against;  // the other server, B
  unsigned blocks = 8;            // A B B A, this many times
  double search_from = 0;         // the lowest and the highest rate to look between
  double search_to = 0;
  std::vector<std::string> compare;  // two capsules; nothing is run
  std::vector<std::string> merge;    // capsules, to be added up; nothing is run

  // A process's share of the whole.
  std::uint32_t first_connection = 0;
  int first_thread = 0;
  std::uint32_t all_connections = 0;

  bool open_loop() const { return pace != Pace::closed; }
};

// Reads the command line. When the program is to end now (help, or an error, which has been printed) it
// returns false and sets `status`: 0 or 2.
bool parse_options(int argc, const char* const* argv, Options& options, int& status);

}  // namespace levada::load
