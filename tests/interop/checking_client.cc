// A client that tests an echo server: checking_client BACKEND URL. Prints "ok NAME" or "FAILED NAME WHY" for each check,
// and "N passed, N failed" at the end. What it tests is the engine's client role; the server is another project's.
//
// Besides echoing at /, the server does what its path says:
//   /fragments            echoes in fragments of a few thousand bytes at most
//   /ping                 pings with "are you there"; after the pong to that it sends the text "pong"
//   /close/CODE/REASON    closes at once; the reason is percent-encoded
//   /refuse               answers 403
// and it takes the subprotocol levada.echo when that is offered.
//
// Model: each check is a straight line of code. A Session waits for its next event by running the reactor's turns.
#include <chrono>
#include <deque>
#include <vector>

#include <levada/tests/interop/support.h>

namespace levada::interop {
namespace {

constexpr std::string_view scripts =
    "levada água κόσμε 日本語 한국어 🌊👨‍👩‍👧 𝄞";
constexpr auto patience = std::chrono::seconds(30);

struct Failed {
  std::string why;
};

struct Event {
  enum class Kind { none, open, text, binary, pong, closed, refused };
  Kind kind = Kind::none;
  std::string payload = {};  // of a message or pong; the reason of a close; why it was refused
  unsigned code = 0;         // of a close; the status of a refusal
  std::string by = {};       // who closed
};
using Kind = Event::Kind;

std::string describe(const Event& event) {
  constexpr const char* names[] = {"nothing", "open", "text", "binary", "pong", "closed", "refused"};
  std::string text = names[static_cast<int>(event.kind)];
  if (event.code != 0) text += " " + std::to_string(event.code);
  return text + " " + event.by + " \"" + event.payload.substr(0, 60) + "\" of " +
         std::to_string(event.payload.size()) + " bytes";
}

// The handler of all sessions' connections; each has its session's events as user data, until the session ends.
struct Recorder {
  static void add(ws::Connection& connection, Event event) {
    if (connection.user_data() == nullptr) return;
    static_cast<std::deque<Event>*>(connection.user_data())->push_back(std::move(event));
  }
  void on_open(ws::Connection& connection) {
    add(connection, {.kind = Kind::open, .payload = std::string(connection.subprotocol())});
  }
  void on_message(ws::Connection& connection, ws::Opcode opcode, Bytes payload) {
    add(connection, {.kind = opcode == ws::Opcode::text ? Kind::text : Kind::binary,
                     .payload = std::string(to_text(payload))});
  }
  void on_pong(ws::Connection& connection, Bytes payload) {
    add(connection, {.kind = Kind::pong, .payload = std::string(to_text(payload))});
  }
  void on_close(ws::Connection& connection, const ws::CloseInfo& info) {
    add(connection, {.kind = Kind::closed,
                     .payload = std::string(info.reason),
                     .code = ws::number(info.code),
                     .by = to_word(info.by)});
  }
  void on_refused(ws::Connection& connection, const ws::Refusal& refusal) {
    const unsigned status = refusal.response == nullptr ? 0 : refusal.response->status();
    add(connection, {.kind = Kind::refused, .payload = to_word(refusal), .code = status});
  }
};

struct Client {
  Client(std::string_view backend, std::string_view url)
      : reactor(make_reactor(backend)),
        server(url),
        plain(*reactor, ws::Role::client, recorder),
        offering(*reactor, ws::Role::client, recorder, {.subprotocols = {"other", "levada.echo"}}) {}
  Client(const Client&) = delete;
  ~Client() { reactor.reset(); }

  std::unique_ptr<net::Reactor> reactor;
  Server server;
  Recorder recorder;
  ws::Service plain;
  ws::Service offering;
};

// One connection, to the end of the session. A wait that takes too long fails the check.
class Session {
 public:
  explicit Session(Client& client, std::string_view path = "/", bool offers = false)
      : client_(client),
        handle_(client.server.dial(offers ? client.offering : client.plain, path, &events_)->handle()) {}
  Session(const Session&) = delete;
  ~Session() {
    if (ws::Connection* const connection = handle_.get()) {
      connection->set_user_data(nullptr);
      connection->terminate();
    }
  }

  Event next() {
    const auto deadline = std::chrono::steady_clock::now() + patience;
    while (events_.empty()) {
      if (std::chrono::steady_clock::now() > deadline) throw Failed{"nothing came in time"};
      client_.reactor->run_once(100);
    }
    Event event = std::move(events_.front());
    events_.pop_front();
    return event;
  }

  void expect(const Event& wanted) {
    const Event got = next();
    if (got.kind != wanted.kind || got.payload != wanted.payload || got.code != wanted.code ||
        got.by != wanted.by) {
      throw Failed{"got " + describe(got) + ", expected " + describe(wanted)};
    }
  }
  Session& opened(std::string subprotocol = {}) {
    expect({.kind = Kind::open, .payload = std::move(subprotocol)});
    return *this;
  }

  ws::Connection& operator*() const {
    ws::Connection* const connection = handle_.get();
    if (connection == nullptr) throw Failed{"the connection is gone"};
    return *connection;
  }
  ws::Connection* operator->() const { return &**this; }

  void send(Kind kind, std::string_view payload) {
    const auto opcode = kind == Kind::text ? ws::Opcode::text : ws::Opcode::binary;
    if ((*this)->send(opcode, to_bytes(payload)) != ws::SendStatus::queued) throw Failed{"cannot send"};
  }
  void send_fragments(ws::Opcode opcode, const std::vector<std::string>& pieces, bool pings = false) {
    for (std::size_t i = 0; i < pieces.size(); i++) {
      (*this)->send_fragment(opcode, to_bytes(pieces[i]), i + 1 == pieces.size());
      if (pings && i + 1 < pieces.size()) (*this)->ping(to_bytes(std::to_string(i)));
    }
  }
  void echo(Kind kind, const std::string& payload) {
    send(kind, payload);
    expect({.kind = kind, .payload = payload});
  }
  // The whole close handshake, begun here.
  void close(unsigned code = 1000, std::string_view reason = {}) {
    (*this)->close(static_cast<ws::CloseCode>(code), reason);
    const Event got = next();
    if (got.kind != Kind::closed || got.code != code || got.by != "local")
      throw Failed{"got " + describe(got) + ", expected the close to be answered with " +
                   std::to_string(code)};
  }

 private:
  Client& client_;
  std::deque<Event> events_;
  ws::Handle handle_;
};

// Bytes of all values, the same for the same size; ASCII for a text.
std::string payload_of(Kind kind, std::size_t size) {
  std::string payload(size, ' ');
  std::uint32_t state = static_cast<std::uint32_t>(size) * 2654435761u + 1;
  for (char& byte : payload) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<char>(kind == Kind::text ? 32 + (state >> 24) % 95 : state >> 24);
  }
  return payload;
}

std::vector<std::string> cut(const std::string& payload, std::size_t size) {
  std::vector<std::string> pieces;
  for (std::size_t at = 0; at < payload.size(); at += size) pieces.push_back(payload.substr(at, size));
  return pieces;
}

std::string repeat(std::string_view text, int count) {
  std::string all;
  for (int i = 0; i < count; i++) all += text;
  return all;
}

// ---- The checks ----

void echo(Client& client, Kind kind, const std::string& payload) {
  Session session(client);
  session.opened().echo(kind, payload);
  session.close();
}

void fragments_there(Client& client, Kind kind, const std::vector<std::string>& pieces, bool pings) {
  Session session(client);
  session.opened().send_fragments(kind == Kind::text ? ws::Opcode::text : ws::Opcode::binary, pieces, pings);
  std::string whole;
  for (const std::string& piece : pieces) whole += piece;
  for (std::size_t i = 0; pings && i + 1 < pieces.size(); i++)
    session.expect({.kind = Kind::pong, .payload = std::to_string(i)});
  session.expect({.kind = kind, .payload = whole});
  session.close();
}

void fragments_back(Client& client, Kind kind, const std::string& payload) {
  Session session(client, "/fragments");
  session.opened().echo(kind, payload);
  session.close();
}

void pings(Client& client) {
  Session session(client);
  session.opened();
  for (const std::string& payload : {std::string(), std::string("ping"), std::string(125, '\xff')}) {
    session->ping(to_bytes(payload));
    session.expect({.kind = Kind::pong, .payload = payload});
  }
  session->pong(to_bytes("unsolicited"));
  session.echo(Kind::text, "after");
  session.close();
}

void pinged(Client& client) {
  Session session(client, "/ping");
  session.opened().expect({.kind = Kind::text, .payload = "pong"});
  session.close();
}

void close_here(Client& client, unsigned code, std::string_view reason) {
  Session session(client);
  session.opened().close(code, reason);
}

void close_there(Client& client, unsigned code, std::string_view encoded, std::string reason) {
  Session session(client, "/close/" + std::to_string(code) + "/" + std::string(encoded));
  session.opened().expect({.kind = Kind::closed, .payload = std::move(reason), .code = code, .by = "peer"});
}

void refused(Client& client) {
  Session(client, "/refuse").expect({.kind = Kind::refused, .payload = "status_not_101", .code = 403});
}

void subprotocol(Client& client) {
  Session session(client, "/", true);
  session.opened("levada.echo").echo(Kind::text, "chosen");
  session.close();
}

void together(Client& client, int count, int rounds) {
  std::deque<Session> sessions;
  for (int i = 0; i < count; i++) sessions.emplace_back(client);
  for (Session& session : sessions) session.opened();
  for (int round = 0; round < rounds; round++) {
    for (int i = 0; i < count; i++)
      sessions[static_cast<std::size_t>(i)].send(Kind::text, std::to_string(i * 1000 + round));
    for (int i = 0; i < count; i++)
      sessions[static_cast<std::size_t>(i)].expect(
          {.kind = Kind::text, .payload = std::to_string(i * 1000 + round)});
  }
  for (Session& session : sessions) session.close();
}

void pipelined(Client& client, int count) {
  Session session(client);
  session.opened();
  for (int i = 0; i < count; i++) session.send(Kind::text, std::to_string(i));
  for (int i = 0; i < count; i++) session.expect({.kind = Kind::text, .payload = std::to_string(i)});
  session.close();
}

// ---- Running ----

class Checks {
 public:
  explicit Checks(Client& client) : client_(client) {}

  template <class Check, class... Arguments>
  void run(const std::string& name, Check check, const Arguments&... arguments) {
    try {
      check(client_, arguments...);
      passed_++;
      std::printf("ok %s\n", name.c_str());
    } catch (const Failed& failure) {
      failed_++;
      std::printf("FAILED %s %s\n", name.c_str(), failure.why.c_str());
    }
  }

  int finish() const {
    std::printf("%d passed, %d failed\n", passed_, failed_);
    return failed_ == 0 ? 0 : 1;
  }

 private:
  Client& client_;
  int passed_ = 0;
  int failed_ = 0;
};

void run_echoes(Checks& checks) {
  for (const std::size_t size : {0u, 1u, 125u, 126u, 127u, 65535u, 65536u, 1u << 20}) {
    const std::string bytes = " of " + std::to_string(size) + " bytes";
    checks.run("text" + bytes, echo, Kind::text, payload_of(Kind::text, size));
    checks.run("binary" + bytes, echo, Kind::binary, payload_of(Kind::binary, size));
  }
  checks.run("text in many scripts", echo, Kind::text, std::string(scripts));
  checks.run("large text in many scripts", echo, Kind::text, repeat(scripts, 10000));
}

void run_fragments(Checks& checks) {
  const std::string all(scripts);
  const std::string large = payload_of(Kind::binary, 100000);
  checks.run("text in fragments of one byte", fragments_there, Kind::text, cut(all, 1), false);
  checks.run("text in fragments of 7 bytes, pings between", fragments_there, Kind::text, cut(all, 7), true);
  checks.run("binary in fragments of 1000 bytes", fragments_there, Kind::binary, cut(large, 1000), false);
  checks.run("empty fragments", fragments_there, Kind::binary,
             std::vector<std::string>{"", payload_of(Kind::binary, 70000), "", "b", ""}, false);
  checks.run("text comes in fragments", fragments_back, Kind::text, repeat(scripts, 1000));
  checks.run("binary comes in fragments", fragments_back, Kind::binary, large);
}

void run_closes(Checks& checks) {
  checks.run("close without a code", close_here, 1005u, "");
  for (const unsigned code : {1000u, 1001u, 3000u})
    checks.run("close " + std::to_string(code), close_here, code, "");
  checks.run("close 4999 with a reason in many scripts", close_here, 4999u, "água 日本語 🌊");
  for (const unsigned code : {1000u, 1001u, 1011u, 3000u})
    checks.run("the server closes with " + std::to_string(code), close_there, code, "", "");
  checks.run("the server closes with 4999 and a reason in many scripts", close_there, 4999u,
             "%C3%A1gua%20%E6%97%A5%E6%9C%AC%20%F0%9F%8C%8A", "água 日本 🌊");
}

int run(std::string_view backend, std::string_view url) {
  setvbuf(stdout, nullptr, _IOLBF, 0);
  Client client(backend, url);
  Checks checks(client);
  run_echoes(checks);
  run_fragments(checks);
  checks.run("pings and an unsolicited pong", pings);
  checks.run("the server pings", pinged);
  run_closes(checks);
  checks.run("a refusal", refused);
  checks.run("a subprotocol", subprotocol);
  checks.run("50 connections at the same time, 20 echoes each", together, 50, 20);
  checks.run("1000 pipelined texts", pipelined, 1000);
  return checks.finish();
}

}  // namespace
}  // namespace levada::interop

int main(int argc, char** argv) {
  if (argc != 3) levada::interop::give_up("usage: checking_client epoll|io_uring URL");
  return levada::interop::run(argv[1], argv[2]);
}
