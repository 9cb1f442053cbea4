// An echo server with permessage-deflate as its paths say: deflate_server BACKEND. Prints its URL first; ends on SIGTERM.
//
//   /OWN/PEER/CONTEXTS   windows of at most 2^OWN bytes for what it sends and 2^PEER for what it receives, each 8 to 15;
//                        CONTEXTS: 1 takes over what it sends, 2 what it receives, 3 both, 0 none
//   /                    what the client asks for, with takeover
//   /final               nothing taken over, and whole messages end with a final block where libdeflate compresses them
//
// Every other message is sent back in three fragments.
#include <cstdio>
#include <string>

#include <levada/tests/interop/support.h>
#include <levada/ws/server.h>

namespace levada::interop {
namespace {

struct Echo {
  void on_message(ws::Connection& connection, ws::Opcode opcode, Bytes payload) {
    if (messages++ % 2 == 0) {
      connection.send(opcode, payload);
      return;
    }
    const std::size_t third = payload.size() / 3;
    connection.send_fragment(opcode, payload.first(third), false);
    connection.send_fragment(opcode, payload.subspan(third, third), false);
    connection.send_fragment(opcode, payload.subspan(2 * third), true);
  }
  std::size_t messages = 0;
};

ws::ServiceOptions with(unsigned own, unsigned peer, unsigned contexts) {
  const auto context = [&](unsigned bit) {
    return (contexts & bit) != 0 ? ws::DeflateContext::dedicated : ws::DeflateContext::shared;
  };
  ws::ServiceOptions options{.deflate = {.enabled = true,
                                         .deflater = context(1),
                                         .window_bits = static_cast<std::uint8_t>(own),
                                         .min_bytes = 0,
                                         .inflater = context(2),
                                         .peer_window_bits = static_cast<std::uint8_t>(peer)}};
  options.origin_policy = ws::OriginPolicy::any;
  return options;
}

int run(const std::string& backend) {
  if (backend != "epoll" && backend != "io_uring") give_up("the backend must be epoll or io_uring");
  ws::ServerOptions options;
  options.reactor.backend = backend == "epoll" ? net::BackendKind::epoll : net::BackendKind::io_uring;
  options.service.origin_policy = ws::OriginPolicy::any;
  ws::Server server(options);
  const auto echo = [](int) { return Echo{}; };
  server.route("/", echo, with(15, 15, 3));
  ws::ServiceOptions final_blocks = with(15, 15, 0);
  final_blocks.deflate.final_blocks = true;
  server.route("/final", echo, final_blocks);
  for (unsigned own = 8; own <= 15; own++) {
    for (unsigned peer = 8; peer <= 15; peer++) {
      for (unsigned contexts = 0; contexts < 4; contexts++) {
        const std::string path =
            "/" + std::to_string(own) + "/" + std::to_string(peer) + "/" + std::to_string(contexts);
        server.route(path, echo, with(own, peer, contexts));
      }
    }
  }
  server.stop_on_signals(1000);
  if (const Error error = server.listen()) return ws::report_failure(error);
  std::printf("listening %s\n", server.url().c_str());
  std::fflush(stdout);
  if (const Error error = server.run()) return ws::report_failure(error);
  return 0;
}

}  // namespace
}  // namespace levada::interop

int main(int argc, char** argv) {
  if (argc != 2) levada::interop::give_up("usage: deflate_server epoll|io_uring");
  return levada::interop::run(argv[1]);
}
