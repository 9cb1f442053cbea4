// The engine's client role with permessage-deflate against an echo server of another project that agrees to it:
// deflate_client BACKEND [--fast] URL.
//
// Every combination of window bits and contexts that the server's zlib can do (it does not compress with a window of 8
// bits): one connection each, on which messages of 16 bytes to 128 KiB, text and binary, whole and fragmented, are echoed
// and compared. Prints "ok" or "FAILED" for each, and "N passed, N failed" at the end.
#include <algorithm>
#include <chrono>
#include <cstring>

#include <levada/core/random.h>
#include <levada/tests/interop/support.h>

namespace levada::interop {
namespace {

constexpr std::size_t sizes[] = {16, 100, 128, 1000, 4096, 16384, 131072};
constexpr std::size_t large_from = 16384;
constexpr auto patience = std::chrono::seconds(120);

struct Message {
  ws::Opcode opcode = ws::Opcode::text;
  std::string payload;
};

Message make_message(int number, SeededRandom& random) {
  std::size_t size = sizes[static_cast<std::size_t>(number) % std::size(sizes)];
  if (size >= large_from && number % 3 != 0) size /= 64;
  Message message{.opcode = number % 2 == 0 ? ws::Opcode::text : ws::Opcode::binary, .payload = {}};
  while (message.payload.size() < size) {
    if (number % 4 == 3) {
      message.payload += static_cast<char>(random.next());
    } else {
      message.payload += "{\"id\":" + std::to_string(random.below(1'000'000)) + ",\"user\":\"ana\"},";
    }
  }
  message.payload.resize(size);
  return message;
}

// One connection: sends the next message when the one before has come back.
class Echoing {
 public:
  Echoing(int count, std::uint64_t seed) : count_(count), random_(seed) {}

  void on_open(ws::Connection& connection) {
    if (!connection.compresses()) return end(connection, "nothing was agreed on");
    send(connection);
  }
  void on_message(ws::Connection& connection, ws::Opcode opcode, Bytes payload) {
    if (opcode != wanted_.opcode || to_text(payload) != wanted_.payload)
      return end(connection, "message " + std::to_string(number_) + " came back as another");
    if (++number_ == count_) return end(connection, {});
    send(connection);
  }
  void on_close(ws::Connection&, const ws::CloseInfo& info) {
    if (number_ < count_ && problem.empty()) problem = "closed with " + std::to_string(ws::number(info.code));
    done = true;
  }
  void on_refused(ws::Connection&, const ws::Refusal& refusal) {
    problem = "refused: " + std::string(to_word(refusal));
    done = true;
  }

  bool done = false;
  std::string problem;

 private:
  void send(ws::Connection& connection) {
    wanted_ = make_message(number_, random_);
    const Bytes all = to_bytes(wanted_.payload);
    if (number_ % 5 != 4) {
      connection.send(wanted_.opcode, all);
      return;
    }
    const std::size_t cut = random_.below(all.size());
    connection.send_fragment(wanted_.opcode, all.first(cut), false);
    connection.send_fragment(wanted_.opcode, all.subspan(cut), true);
  }
  void end(ws::Connection& connection, std::string why) {
    problem = std::move(why);
    connection.close();
  }

  int count_;
  int number_ = 0;
  SeededRandom random_;
  Message wanted_;
};

std::string run_one(std::string_view backend, const Server& server, const ws::DeflateOptions& deflate,
                    int count) {
  auto reactor = make_reactor(backend);
  Echoing handler(count, 100u * deflate.window_bits + deflate.peer_window_bits);
  ws::Service service(*reactor, ws::Role::client, handler, {.deflate = deflate});
  server.dial(service, "/");
  const auto deadline = std::chrono::steady_clock::now() + patience;
  while (!handler.done && std::chrono::steady_clock::now() < deadline) reactor->run_once(100);
  std::string problem = handler.done ? handler.problem : "it took too long";
  reactor.reset();
  return problem;
}

int run(std::string_view backend, bool fast, std::string_view url) {
  setvbuf(stdout, nullptr, _IOLBF, 0);
  const Server server(url);
  int passed = 0, failed = 0;
  for (unsigned own = 8; own <= 15; own++) {
    for (unsigned peer = 9; peer <= 15; peer++) {
      for (unsigned contexts = 0; contexts < 4; contexts++) {
        if (fast && (own % 3 != 0 || peer % 3 != 0)) continue;
        const auto context = [&](unsigned bit) {
          return (contexts & bit) != 0 ? ws::DeflateContext::dedicated : ws::DeflateContext::shared;
        };
        const ws::DeflateOptions deflate{.enabled = true,
                                         .deflater = context(1),
                                         .window_bits = static_cast<std::uint8_t>(own),
                                         .min_bytes = 0,
                                         .inflater = context(2),
                                         .peer_window_bits = static_cast<std::uint8_t>(peer)};
        const std::string problem = run_one(backend, server, deflate, fast ? 100 : 1000);
        (problem.empty() ? passed : failed)++;
        std::printf("%s own bits %u, peer's %u, contexts %u %s\n", problem.empty() ? "ok" : "FAILED", own,
                    peer, contexts, problem.c_str());
      }
    }
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace levada::interop

int main(int argc, char** argv) {
  const bool fast = argc == 4 && std::strcmp(argv[2], "--fast") == 0;
  if (argc != 3 && !fast) levada::interop::give_up("usage: deflate_client epoll|io_uring [--fast] URL");
  return levada::interop::run(argv[1], fast, argv[argc - 1]);
}
