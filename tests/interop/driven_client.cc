// An echo client that is told what to do on its standard input: driven_client BACKEND URL TIMEOUT_MS.
//
//   N dial PATH           connects; N names the connection from here on
//   N offer PATH          the same, offering the subprotocols chat and superchat
//   N close CODE REASON   begins the close handshake; 1005: without a code
//   N ping TEXT
//   N text PIECE...       one text in as many fragments
//   N terminate
//
// and reports on its standard output:
//
//   N open SUBPROTOCOL
//   N pong TEXT
//   N closed CODE peer|local|transport REASON
//   N refused WHY STATUS BODY
//
// TIMEOUT_MS bounds both handshakes. It ends when its input does.
#include <unistd.h>
#include <algorithm>
#include <charconv>
#include <deque>
#include <unordered_map>
#include <vector>

#include <levada/tests/interop/support.h>

namespace levada::interop {
namespace {

using Words = std::vector<std::string_view>;

Words split(std::string_view line) {
  Words words;
  for (std::size_t end; !line.empty(); line.remove_prefix(std::min(line.size(), end + 1))) {
    end = std::min(line.find(' '), line.size());
    words.push_back(line.substr(0, end));
  }
  return words;
}

unsigned to_number(std::string_view text) {
  unsigned number = 0;
  std::from_chars(text.data(), text.data() + text.size(), number);
  return number;
}

class Client {
 public:
  Client(net::Reactor& reactor, std::string_view url, std::uint32_t timeout_ms)
      : reactor_(reactor),
        server_(url),
        plain_(reactor, ws::Role::client, *this, options(timeout_ms)),
        offering_(reactor, ws::Role::client, *this, options(timeout_ms, {"chat", "superchat"})) {
    reactor.add<net::Watch>(Fd(dup(STDIN_FILENO)), &Client::readable, this);
  }

  void on_open(ws::Connection& connection) {
    const std::string_view chosen = connection.subprotocol();
    connections_[number(connection)] = &connection;
    std::printf("%u open %.*s\n", number(connection), static_cast<int>(chosen.size()), chosen.data());
  }

  void on_message(ws::Connection& connection, ws::Opcode opcode, Bytes payload) {
    connection.send(opcode, payload);
  }

  void on_pong(ws::Connection& connection, Bytes payload) {
    std::printf("%u pong %.*s\n", number(connection), static_cast<int>(payload.size()),
                to_text(payload).data());
  }

  void on_close(ws::Connection& connection, const ws::CloseInfo& info) {
    connections_.erase(number(connection));
    std::printf("%u closed %u %s %.*s\n", number(connection), ws::number(info.code), to_word(info.by),
                static_cast<int>(info.reason.size()), info.reason.data());
  }

  void on_refused(ws::Connection& connection, const ws::Refusal& refusal) {
    std::printf("%u refused %s %d %.*s\n", number(connection), to_word(refusal).c_str(),
                refusal.response == nullptr ? 0 : static_cast<int>(refusal.response->status()),
                static_cast<int>(refusal.body.size()), to_text(refusal.body).data());
  }

 private:
  static ws::ServiceOptions options(std::uint32_t timeout_ms, std::vector<std::string> subprotocols = {}) {
    return {.handshake_timeout_ms = timeout_ms,
            .close_timeout_ms = timeout_ms,
            .subprotocols = std::move(subprotocols)};
  }

  static unsigned number(const ws::Connection& connection) {
    return *static_cast<const unsigned*>(connection.user_data());
  }

  static void readable(void* context, net::Watch&) { static_cast<Client*>(context)->read_commands(); }

  void read_commands() {
    char buffer[4096];
    const ssize_t got = read(STDIN_FILENO, buffer, sizeof buffer);
    if (got <= 0) return reactor_.stop();
    input_.append(buffer, static_cast<std::size_t>(got));
    std::size_t begin = 0;
    for (std::size_t end; (end = input_.find('\n', begin)) != std::string::npos; begin = end + 1)
      obey(split(std::string_view(input_).substr(begin, end - begin)));
    input_.erase(0, begin);
  }

  void obey(const Words& words) {
    if (words.size() < 2) give_up("a command is a number and a verb");
    const unsigned id = to_number(words[0]);
    const std::string_view verb = words[1];
    const std::string_view first = words.size() > 2 ? words[2] : std::string_view{};
    if (verb == "dial" || verb == "offer") {
      server_.dial(verb == "dial" ? plain_ : offering_, first, &numbers_.emplace_back(id));
      return;
    }
    const auto found = connections_.find(id);
    if (found == connections_.end()) return;  // it has ended meanwhile, which was reported
    ws::Connection& connection = *found->second;
    if (verb == "close") return close(connection, words);
    if (verb == "terminate") return connection.terminate();
    if (verb == "ping") {
      connection.ping(to_bytes(first));
    } else if (verb == "text") {
      for (std::size_t i = 2; i < words.size(); i++)
        connection.send_fragment(ws::Opcode::text, to_bytes(words[i]), i + 1 == words.size());
    } else {
      give_up("unknown verb");
    }
  }

  static void close(ws::Connection& connection, const Words& words) {
    std::string reason;
    for (std::size_t i = 3; i < words.size(); i++) reason.append(i > 3 ? " " : "").append(words[i]);
    connection.close(static_cast<ws::CloseCode>(to_number(words[2])), reason);
  }

  net::Reactor& reactor_;
  Server server_;
  std::string input_;
  std::deque<unsigned> numbers_;  // of all connections so far, which have them as user data
  std::unordered_map<unsigned, ws::Connection*> connections_;  // the open ones
  ws::Service plain_;
  ws::Service offering_;
};

int run(std::string_view backend, std::string_view url, std::string_view timeout_ms) {
  setvbuf(stdout, nullptr, _IOLBF, 0);
  auto reactor = make_reactor(backend);
  Client client(*reactor, url, to_number(timeout_ms));
  reactor->run();
  reactor.reset();
  return 0;
}

}  // namespace
}  // namespace levada::interop

int main(int argc, char** argv) {
  if (argc != 4) levada::interop::give_up("usage: driven_client epoll|io_uring URL TIMEOUT_MS");
  return levada::interop::run(argv[1], argv[2], argv[3]);
}
