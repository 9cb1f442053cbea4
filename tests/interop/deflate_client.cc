// The engine's client role with permessage-deflate against an echo server of another project that agrees to it:
// deflate_client BACKEND [--fast] [--peer-from BITS] URL.
//
// Every combination of window bits and takeover: 1000 messages each (100 with --fast) of 16 bytes to 128 KiB, text and
// binary, whole and fragmented, are echoed and compared: half of them on a connection to /, half on one to /thirds,
// whose answers come in three fragments. What was agreed on has to be within what was offered. --peer-from 9 is for servers that give their zlib the window that was asked for,
// for zlib does not compress with 8 bits. Prints "ok" or "FAILED" for each, and "N passed, N failed" at the end.
#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <optional>
#include <utility>

#include <levada/core/random.h>
#include <levada/tests/interop/support.h>

namespace levada::interop {
namespace {

constexpr unsigned size_count = 14;                   // 16 bytes to 128 KiB, in powers of two
constexpr unsigned in_flight = 8;                     // messages on their way
constexpr auto patience = std::chrono::seconds(120);  // for a message

struct Message {
  ws::Opcode opcode = ws::Opcode::text;
  std::string_view payload;
  bool in_fragments = false;
};

// What messages are cut from: text that compresses well, and bytes that do not.
struct Source {
  Source() {
    SeededRandom random(1);
    while (json.size() < bytes)
      json += "{\"id\":" + std::to_string(random.below(1'000'000)) + ",\"user\":\"ana\"},";
    while (noise.size() < bytes) noise += static_cast<char>(random.next());
  }
  static constexpr std::size_t bytes = 1 << 20;
  std::string json, noise;
};

Message make_message(unsigned number, SeededRandom& random) {
  static const Source source;
  const std::size_t size = std::size_t{16} << number % size_count;
  const unsigned form = number / size_count;
  const bool text = form % 2 == 0;
  const std::string_view all = !text && form % 4 == 1 ? source.noise : source.json;
  return {.opcode = text ? ws::Opcode::text : ws::Opcode::binary,
          .payload = all.substr(random.below(Source::bytes - size), size),
          .in_fragments = form / 2 % 2 == 1};
}

// One connection: sends the next message when one has come back.
class Echoing {
 public:
  Echoing(unsigned first, unsigned end, const ws::DeflateOptions& offered)
      : number_(first),
        sent_(first),
        end_(end),
        offered_(offered),
        random_(100u * offered.window_bits + offered.peer_window_bits) {}

  void on_open(ws::Connection& connection) {
    const std::optional<ws::DeflateAgreement> agreed = connection.deflate_agreement();
    if (!agreed) return end(connection, "nothing was agreed on");
    if (!is_within_offer(*agreed)) return end(connection, "more was agreed on than offered");
    for (unsigned i = 0; i < in_flight; i++) send(connection);
  }
  void on_message(ws::Connection& connection, ws::Opcode opcode, Bytes payload) {
    if (wanted_.empty() || opcode != wanted_.front().opcode || to_text(payload) != wanted_.front().payload)
      return end(connection, "message " + std::to_string(number_) + " came back as another");
    wanted_.pop_front();
    if (++number_ == end_) return end(connection, {});
    send(connection);
  }
  void on_close(ws::Connection&, const ws::CloseInfo& info) {
    if (number_ < end_ && problem.empty()) problem = "closed with " + std::to_string(ws::number(info.code));
    done = true;
  }
  void on_refused(ws::Connection&, const ws::Refusal& refusal) {
    problem = "refused: " + std::string(to_word(refusal));
    done = true;
  }

  unsigned came_back() const { return number_; }

  bool done = false;
  std::string problem;

 private:
  bool is_within_offer(const ws::DeflateAgreement& agreed) const {
    return agreed.own_window_bits <= offered_.window_bits &&
           agreed.peer_window_bits <= offered_.peer_window_bits &&
           (!agreed.own_takeover || offered_.deflater == ws::DeflateContext::dedicated) &&
           (!agreed.peer_takeover || offered_.inflater == ws::DeflateContext::dedicated);
  }
  void send(ws::Connection& connection) {
    if (sent_ == end_) return;
    const Message message = make_message(sent_++, random_);
    wanted_.push_back(message);
    const Bytes all = to_bytes(message.payload);
    if (!message.in_fragments) {
      connection.send(message.opcode, all);
      return;
    }
    const std::size_t cut = random_.below(all.size());
    connection.send_fragment(message.opcode, all.first(cut), false);
    connection.send_fragment(message.opcode, all.subspan(cut), true);
  }
  void end(ws::Connection& connection, std::string why) {
    problem = std::move(why);
    connection.close();
  }

  unsigned number_;  // of the message that comes back next
  unsigned sent_;
  unsigned end_;
  ws::DeflateOptions offered_;
  SeededRandom random_;
  std::deque<Message> wanted_;  // sent and not come back yet
};

std::string run_one(std::string_view backend, const Server& server, const char* path,
                    const ws::DeflateOptions& deflate, unsigned first, unsigned end) {
  auto reactor = make_reactor(backend);
  Echoing handler(first, end, deflate);
  ws::Service service(*reactor, ws::Role::client, handler, {.deflate = deflate});
  server.dial(service, path);
  auto since = std::chrono::steady_clock::now();
  for (unsigned seen = first; !handler.done && std::chrono::steady_clock::now() < since + patience;) {
    reactor->run_once(100);
    if (handler.came_back() == seen) continue;
    seen = handler.came_back();
    since = std::chrono::steady_clock::now();
  }
  std::string problem = handler.done ? handler.problem : "it took too long";
  reactor.reset();
  return problem;
}

ws::DeflateOptions with(unsigned own, unsigned peer, unsigned contexts) {
  const auto context = [&](unsigned bit) {
    return (contexts & bit) != 0 ? ws::DeflateContext::dedicated : ws::DeflateContext::shared;
  };
  return {.enabled = true,
          .deflater = context(1),
          .window_bits = static_cast<std::uint8_t>(own),
          .min_bytes = 0,
          .inflater = context(2),
          .peer_window_bits = static_cast<std::uint8_t>(peer)};
}

bool left_out(unsigned bits) {
  return bits != 8 && bits != 9 && bits != 12 && bits != 15;
}

int run(std::string_view backend, bool fast, unsigned peer_from, std::string_view url) {
  setvbuf(stdout, nullptr, _IOLBF, 0);
  const Server server(url);
  const unsigned count = fast ? 100 : 1000;
  int passed = 0, failed = 0;
  for (unsigned own = 8; own <= 15; own++) {
    for (unsigned peer = peer_from; peer <= 15; peer++) {
      if (fast && (left_out(own) || left_out(peer))) continue;
      for (unsigned contexts = 0; contexts < 4; contexts++) {
        const ws::DeflateOptions deflate = with(own, peer, contexts);
        std::string problem = run_one(backend, server, "/", deflate, 0, count / 2);
        if (problem.empty()) problem = run_one(backend, server, "/thirds", deflate, count / 2, count);
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
  bool fast = false;
  unsigned peer_from = 8;
  for (int i = 2; i + 1 < argc; i++) {
    fast = fast || std::strcmp(argv[i], "--fast") == 0;
    if (std::strcmp(argv[i], "--peer-from") == 0) peer_from = static_cast<unsigned>(std::atoi(argv[i + 1]));
  }
  if (argc < 3 || peer_from < 8)
    levada::interop::give_up("usage: deflate_client epoll|io_uring [--fast] [--peer-from BITS] URL");
  return levada::interop::run(argv[1], fast, peer_from, argv[argc - 1]);
}
