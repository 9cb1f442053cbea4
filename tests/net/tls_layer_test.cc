// The TLS of streams, on a simulated reactor; the other end of the wire is a session that the test plays.
#include <levada/net/tls_layer.h>

#include <openssl/ssl.h>
#include <optional>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <levada/net/simulated.h>
#include <levada/tests/net/support.h>
#include <levada/tests/support/certificates.h>
#include <levada/tests/support/raw_tls_client.h>
#include <levada/tests/support/tls_pair.h>

using namespace levada;
using namespace levada::net;
using namespace levada::net::test;
using levada::test::Authority;
using levada::test::RawClient;
using levada::test::TlsEnd;

namespace {

constexpr TlsRole roles[] = {TlsRole::server, TlsRole::client};
constexpr TlsVersion versions[] = {TlsVersion::tls_1_2, TlsVersion::tls_1_3};
constexpr std::size_t encrypted_ahead_bytes = 256 * 1024;  // at most, whatever waits

const Authority& authority() {
  static const Authority made;
  return made;
}

std::shared_ptr<TlsContext> make_context(TlsRole role, TlsVersion version = TlsVersion::tls_1_3,
                                         bool resumption = false) {
  static const levada::test::Issued issued = authority().issue();
  TlsOptions options{.ca = authority().pem(), .max_version = version, .resumption = resumption};
  if (role == TlsRole::server)
    options = {.certificates = {issued.tls()}, .max_version = version, .resumption = resumption};
  return *TlsContext::create(role, options);
}

TlsRole other(TlsRole role) {
  return role == TlsRole::server ? TlsRole::client : TlsRole::server;
}

// A stream of the reactor under test, and the peer's end of its connection.
struct Line {
  explicit Line(const SimulationOptions& options = {})
      : simulation(options), reactor({}, SimulatedBackend::make, &simulation) {
    SimulatedConnection connection = simulation.open();
    peer.emplace(connection.peer);
    stream = reactor.add_connecting<Probe>(std::move(connection.fd), record);
    peer->accept();
    record.keep_open = true;
    while (record.connected == 0) reactor.run_once(0);
  }
  // The stream takes that role, and the other end the other one.
  Line(TlsRole role, TlsVersion version, const SimulationOptions& options = {}) : Line(options) {
    begin(role, *make_context(role, version), *make_context(other(role), version));
  }

  void begin(TlsRole role, const TlsContext& ours, const TlsContext& theirs) {
    if (role == TlsRole::server) {
      REQUIRE_FALSE(stream->accept_tls(ours));
      end.session = std::move(TlsSession::connect(theirs, "localhost", 443, end.output()).value());
    } else {
      REQUIRE_FALSE(stream->connect_tls(ours, "localhost", 443));
      end.session = std::move(TlsSession::accept(theirs, end.output()).value());
    }
  }

  // One turn of the reactor between what the peer takes and gives.
  void turn() {
    exchange();
    reactor.run_once(0);
    exchange();
  }
  void turns(int count) {
    while (count-- > 0) turn();
  }
  template <class Done>
  bool until(Done&& done, int limit = 20'000) {
    for (int i = 0; i < limit && !done(); i++) turn();
    return done();
  }
  Line& open() {
    REQUIRE(until([&] { return record.secured > 0 && end.established > 0; }));
    turns(3);  // tickets
    return *this;
  }
  // What the peer says, plainly.
  void say(std::string_view text) {
    REQUIRE_FALSE(end.session->write(to_bytes(text)));
    exchange();
  }
  void exchange() {
    if (reads) {
      const std::string records = peer->read();
      count_records(records);
      if (end.last != TlsEvent::ended && end.last != TlsEvent::failed && !records.empty()) end.feed(records);
    }
    peer->write(end.take_records());
  }
  // Of the type application_data, in whole records.
  void count_records(std::string_view bytes) {
    partial.append(bytes);
    const auto at = [&](std::size_t i) { return static_cast<unsigned char>(partial[i]); };
    while (partial.size() >= 5) {
      const std::size_t size = 5 + at(3) * 256u + at(4);
      if (partial.size() < size) return;
      if (at(0) == SSL3_RT_APPLICATION_DATA) data_records++;
      partial.erase(0, size);
    }
  }

  Simulation simulation;
  Reactor reactor;
  Record record;
  Probe* stream = nullptr;
  std::optional<Peer> peer;
  TlsEnd end;
  std::string partial;
  std::size_t data_records = 0;
  bool reads = true;
};

template <class Test>
void in_each_role(Test&& test) {
  for (const TlsRole role : roles) {
    for (const TlsVersion version : versions) {
      CAPTURE(role == TlsRole::server);
      CAPTURE(version == TlsVersion::tls_1_2);
      test(role, version);
    }
  }
}

SimulationOptions rough(std::uint64_t seed) {
  return {.seed = seed,
          .receive_bytes = 3000,
          .window_bytes = 5000,
          .shuffle = true,
          .cut_one_in = 2,
          .single_byte_one_in = 6,
          .short_write_one_in = 3,
          .refused_write_one_in = 4,
          .spurious_one_in = 4,
          .starved_one_in = 5,
          .early_flush_one_in = 6};
}

}  // namespace

// ---- The handshake ----

TEST_CASE("a stream is told once that it is secured, and what it sent before leaves then, encrypted") {
  in_each_role([](TlsRole role, TlsVersion version) {
    Line line(role, version);
    CHECK(line.stream->tls() != nullptr);
    line.stream->send(to_bytes("early"));
    line.turn();
    CHECK(line.stream->buffered() >= 5);
    CHECK(line.record.secured == 0);
    line.open();
    CHECK(line.record.secured == 1);
    CHECK(line.until([&] { return line.end.plaintext == "early"; }));
    CHECK(line.stream->buffered() == 0);
    CHECK(line.record.received.empty());
  });
}

TEST_CASE("a session that cannot begin leaves the stream without TLS") {
  Line line;
  CHECK(line.stream->connect_tls(*make_context(TlsRole::client), "", 443).code == Errc::invalid_argument);
  CHECK(line.stream->tls() == nullptr);
  line.stream->send(to_bytes("plain"));
  line.reactor.run_once(0);
  CHECK(line.peer->read() == "plain");
}

TEST_CASE("a handler may close the stream, or send, when it is told that it is secured") {
  in_each_role([](TlsRole role, TlsVersion version) {
    Line sends(role, version);
    sends.record.on_secured = [](Probe& probe) { probe.send(to_bytes("first")); };
    CHECK(sends.until([&] { return sends.end.plaintext == "first"; }));
    Line closes(role, version);
    closes.record.on_secured = [](Probe& probe) { probe.close(); };
    CHECK(closes.until([&] { return closes.record.closed == 1; }));
    CHECK(closes.record.ends.empty());
    CHECK(closes.reactor.segments().in_use() == 0);
  });
}

// ---- Records in ----

TEST_CASE("messages are echoed whatever happens to the records on the way") {
  in_each_role([](TlsRole role, TlsVersion version) {
    for (std::uint64_t seed = 1; seed <= 8; seed++) {
      CAPTURE(seed);
      Line line(role, version, rough(seed));
      line.record.on_receive = echo;
      line.open();
      SeededRandom random(seed);
      std::string said;
      for (int i = 0; i < 40; i++) {
        const std::string message =
            pattern(random.below(i % 10 == 0 ? 60'000 : 400), seed + static_cast<unsigned>(i));
        said += message;
        line.say(message);
        if (random.one_in(2)) line.turn();
      }
      REQUIRE(line.until([&] { return line.end.plaintext.size() >= said.size(); }));
      CHECK((line.end.plaintext == said));
      CHECK((line.record.received == said));
      CHECK(line.record.ends.empty());
      CHECK(line.reactor.segments().in_use() == 0);
    }
  });
}

TEST_CASE("plaintext lies in the memory of the receive, but for that of a record begun before") {
  Line line(TlsRole::server, TlsVersion::tls_1_3);
  std::vector<bool> lendable;
  line.record.on_receive = [&](Probe&, MutableBytes, Owner* memory) {
    lendable.push_back(memory != nullptr);
  };
  line.open();
  line.say("whole");
  CHECK(line.until([&] { return lendable.size() == 1; }));
  REQUIRE_FALSE(line.end.session->write(to_bytes("in two pieces")));
  const std::string records = line.end.take_records();
  line.peer->write(std::string_view(records).substr(0, 9));
  line.turns(2);
  CHECK(lendable.size() == 1);
  line.peer->write(std::string_view(records).substr(9));
  CHECK(line.until([&] { return lendable.size() == 2; }));
  CHECK(lendable == std::vector<bool>{true, false});
  CHECK(line.record.received == "wholein two pieces");
}

TEST_CASE("plaintext goes straight to where the stream says, and no byte beyond it") {
  in_each_role([](TlsRole role, TlsVersion version) {
    for (const bool gentle : {true, false}) {
      Line line(role, version, gentle ? SimulationOptions{} : rough(5));
      const std::string message = pattern(100'000);
      std::string target(message.size(), '\0');
      const auto* const begin = reinterpret_cast<std::uint8_t*>(target.data());
      std::size_t filled = 0, direct = 0, calls = 0;
      std::string rest;
      line.record.target = [&]() -> ReceiveTarget {
        return {{reinterpret_cast<std::uint8_t*>(target.data()) + filled, target.size() - filled}};
      };
      line.record.on_receive = [&](Probe& probe, MutableBytes bytes, Owner* memory) {
        calls++;
        if (bytes.data() == begin + filled) {
          CHECK(memory == nullptr);
          direct += bytes.size();
          filled += bytes.size();
          if (filled == target.size()) probe.receive_directly(false);
        } else {
          rest += to_text(bytes);
        }
      };
      line.open();
      line.stream->receive_directly(true);
      line.say(message + "and more");
      CHECK(line.until([&] { return rest == "and more"; }));
      CHECK((target == message));
      CHECK(direct == message.size());
      if (gentle) CHECK(calls <= 1 + (message.size() + 2000) / (16 * 1024) + 1);  // one for each receive
    }
  });
}

TEST_CASE("a handler that closes the stream hears nothing of the records behind") {
  Line line(TlsRole::server, TlsVersion::tls_1_3);
  line.record.on_receive = [](Probe& probe, MutableBytes, Owner*) { probe.close(); };
  line.open();
  REQUIRE_FALSE(line.end.session->write(to_bytes("one")));
  line.end.session->close();
  line.exchange();
  CHECK(line.until([&] { return line.record.closed == 1; }));
  CHECK(line.record.received == "one");
  CHECK(line.record.ends.empty());
}

// ---- Records out ----

TEST_CASE("what is sent in a turn shares records, and a large message has full ones") {
  Line line(TlsRole::server, TlsVersion::tls_1_3);
  line.open();
  line.data_records = 0;
  for (int i = 0; i < 50; i++) line.stream->send(to_bytes("ten bytes."), Mark::message);
  CHECK(line.until([&] { return line.end.plaintext.size() == 500; }));
  CHECK(line.data_records == 1);
  line.stream->send(to_bytes(pattern(2 * tls_record_bytes + 1)));
  CHECK(line.until([&] { return line.end.plaintext.size() == 500 + 2 * tls_record_bytes + 1; }));
  CHECK(line.data_records == 1 + 3);
}

TEST_CASE("memory that was handed over is let go once it is encrypted, and on a stream that closes") {
  BlockPool blocks(1 << 20);
  for (const bool closes : {false, true}) {
    Line line(TlsRole::server, TlsVersion::tls_1_3);
    if (!closes) line.open();
    Block* const block = blocks.allocate(5000);
    std::fill_n(block->data(), 5000, std::uint8_t{'b'});
    block->add_reference();
    line.stream->send_owned({block->data(), 5000}, block);
    CHECK(block->references() == 2);
    if (closes) {
      line.turn();
      CHECK(block->references() == 2);  // the handshake is not over
      line.stream->close();
    }
    line.turns(3);
    CHECK(block->references() == 1);
    CHECK((line.end.plaintext == std::string(closes ? 0 : 5000, 'b')));
    CHECK(line.reactor.segments().in_use() == 0);
    block->drop_reference();
  }
}

TEST_CASE("while the wire is full, messages wait as plaintext and can be dropped whole") {
  constexpr std::size_t window = 10'000, count = 1000;
  Line line(TlsRole::server, TlsVersion::tls_1_3, {.window_bytes = window});
  line.open();
  line.reads = false;
  const auto message = [](std::size_t i) { return std::string(1000, static_cast<char>('A' + i % 53)); };
  for (std::size_t i = 0; i < count; i++) line.stream->send(to_bytes(message(i)), Mark::message);
  line.turns(5);
  CHECK(line.stream->blocked());
  CHECK(line.stream->buffered() > count * 1000 - window);
  const std::size_t dropped = line.stream->drop_oldest(100'000);
  CHECK(dropped == 100);
  line.stream->send(to_bytes("the last"), Mark::message);
  line.reads = true;
  REQUIRE(line.until([&] { return line.end.plaintext.ends_with("the last"); }));
  // What was encrypted is whole, then come those that were not dropped.
  std::string_view got = line.end.plaintext;
  std::size_t next = 0;
  while (got.starts_with(message(next))) got.remove_prefix(message(next++).size());
  CHECK(next * 1000 <= encrypted_ahead_bytes + window + 1000);
  for (next += dropped; next < count; next++) {
    REQUIRE(got.starts_with(message(next)));
    got.remove_prefix(1000);
  }
  CHECK(got == "the last");
  CHECK(line.record.drained == 1);
  CHECK(line.stream->buffered() == 0);
  CHECK(line.reactor.segments().in_use() == 0);
}

// ---- Ends ----

TEST_CASE("finish() sends what waits, then close_notify, then the end of the connection") {
  in_each_role([](TlsRole role, TlsVersion version) {
    Line line(role, version);
    line.stream->send(to_bytes("last words"));
    line.stream->finish();  // before the handshake is over
    line.stream->send(to_bytes("too late"));
    CHECK(line.until([&] { return line.peer->ended(); }));
    line.exchange();
    CHECK(line.end.plaintext == "last words");
    CHECK(line.end.last == TlsEvent::ended);
    CHECK(line.record.closed == 0);  // the peer may go on
    line.say("so long");
    CHECK(line.until([&] { return line.record.received == "so long"; }));
    line.record.keep_open = false;
    line.end.session->close();
    line.exchange();
    line.peer->shut_down();
    CHECK(line.until([&] { return line.record.closed == 1; }));
    CHECK(line.record.ends == std::vector{Errc::end_of_stream});
    CHECK_FALSE(line.peer->was_reset());
  });
}

TEST_CASE("close_notify is an end after which the stream can still send; nothing behind it counts") {
  in_each_role([](TlsRole role, TlsVersion version) {
    Line line(role, version);
    line.open();
    REQUIRE_FALSE(line.end.session->write(to_bytes("bye")));
    line.end.session->close();
    line.exchange();
    line.peer->write("what is no TLS");
    CHECK(line.until([&] { return !line.record.ends.empty(); }));
    CHECK(line.record.received == "bye");
    line.stream->send(to_bytes("good bye"));
    CHECK(line.until([&] { return line.end.plaintext == "good bye"; }));
    line.peer->shut_down();
    line.turns(3);
    CHECK(line.record.ends == std::vector{Errc::end_of_stream});  // told once
  });
}

TEST_CASE("the end of the connection without close_notify is truncation, wherever it comes") {
  in_each_role([](TlsRole role, TlsVersion version) {
    Line between(role, version);
    between.open();
    between.say("all of it");
    between.peer->shut_down();
    CHECK(between.until([&] { return !between.record.ends.empty(); }));
    CHECK(between.record.received == "all of it");
    CHECK(between.record.ends == std::vector{Errc::truncated});

    Line inside(role, version);
    inside.open();
    REQUIRE_FALSE(inside.end.session->write(to_bytes("a part of it")));
    inside.peer->write(inside.end.take_records().substr(0, 10));
    inside.peer->shut_down();
    CHECK(inside.until([&] { return !inside.record.ends.empty(); }));
    CHECK(inside.record.received.empty());
    CHECK(inside.record.ends == std::vector{Errc::truncated});

    Line before(role, version);
    before.peer->shut_down();
    CHECK(before.until([&] { return !before.record.ends.empty(); }));
    CHECK(before.record.secured == 0);
    CHECK(before.record.ends == std::vector{Errc::truncated});

    Line broken(role, version);  // that is not the peer's doing, and is told as it is
    broken.open();
    broken.peer->reset();
    CHECK(broken.until([&] { return !broken.record.ends.empty(); }));
    CHECK(broken.record.ends == std::vector{Errc::connection_reset});
  });
}

// ---- Alerts ----

TEST_CASE(
    "what is no TLS ends the stream once, the alert tells the peer, and nothing more is sent or heard") {
  in_each_role([](TlsRole role, TlsVersion version) {
    for (const bool opened : {false, true}) {
      CAPTURE(opened);
      Line line(role, version);
      if (opened) line.open();
      line.record.on_end = [](Probe& probe) { probe.finish(); };
      line.stream->send(to_bytes(opened ? "" : "never sent"));
      // A record with a type that is none, and one that was never encrypted.
      line.peer->write(std::string_view("\x63\x03\x03\x00\x05hello\x17\x03\x03\x00\x05hello", 20));
      CHECK(line.until([&] { return !line.record.ends.empty(); }));
      CHECK(line.record.ends == std::vector{Errc::protocol});
      CHECK(line.stream->buffered() <= 64);  // the alert
      CHECK(line.until([&] { return line.peer->ended(); }));
      line.exchange();
      CHECK(line.end.last == TlsEvent::failed);
      if (opened) CHECK(line.end.session->error().code == Errc::alert_received);
      line.peer->write("more");
      line.turns(3);
      line.peer->shut_down();
      CHECK(line.until([&] { return line.record.closed == 1; }));
      CHECK(line.record.ends.size() == 1);
      CHECK(line.record.received.empty());
      CHECK(line.end.plaintext.empty());
    }
  });
}

TEST_CASE("a record that was changed on the way is refused, and its plaintext not shown") {
  in_each_role([](TlsRole role, TlsVersion version) {
    Line line(role, version);
    line.open();
    REQUIRE_FALSE(line.end.session->write(to_bytes("right")));
    REQUIRE_FALSE(line.end.session->write(to_bytes("wrong")));
    std::string records = line.end.take_records();
    records.back() = static_cast<char>(records.back() ^ 1);
    line.peer->write(records);
    CHECK(line.until([&] { return !line.record.ends.empty(); }));
    CHECK(line.record.received == "right");
    CHECK(line.record.ends == std::vector{Errc::protocol});
    CHECK(line.until([&] { return line.end.last == TlsEvent::failed; }));
    CHECK(line.end.session->error().code == Errc::alert_received);
  });
}

TEST_CASE("an untrusted certificate is refused by our client, and a server of ours is told by the alert") {
  const levada::test::Authority stranger("stranger");
  const auto trusting_others = *TlsContext::create(TlsRole::client, {.ca = stranger.pem()});
  Line client;
  client.begin(TlsRole::client, *trusting_others, *make_context(TlsRole::server));
  CHECK(client.until([&] { return !client.record.ends.empty() && client.end.last == TlsEvent::failed; }));
  CHECK(client.record.ends == std::vector{Errc::certificate_refused});
  CHECK(client.record.secured == 0);
  CHECK(client.end.session->error().code == Errc::alert_received);
  Line server;
  server.begin(TlsRole::server, *make_context(TlsRole::server), *trusting_others);
  CHECK(server.until([&] { return !server.record.ends.empty(); }));
  CHECK(server.record.ends == std::vector{Errc::alert_received});
}

// ---- After the handshake ----

TEST_CASE("tickets that come after the handshake show nothing to the stream, and resume the next session") {
  for (const TlsVersion version : versions) {
    const auto server = make_context(TlsRole::server, version, true),
               client = make_context(TlsRole::client, version, true);
    for (const TlsRole role : roles) {
      for (const bool again : {false, true}) {
        Line line;
        const bool serves = role == TlsRole::server;
        line.begin(role, serves ? *server : *client, serves ? *client : *server);
        line.open();
        CHECK(line.stream->tls()->resumed() == (again || !serves));  // the roles share the client's sessions
        CHECK(line.record.received.empty());
        line.say("hello");
        CHECK(line.until([&] { return line.record.received == "hello"; }));
      }
    }
  }
}

TEST_CASE("keys are changed on the peer's request, before the next data") {
  Line line(TlsRole::server, TlsVersion::tls_1_3);
  line.record.on_receive = echo;
  line.open();
  for (int i = 0; i < 3; i++) {
    line.data_records = 0;
    REQUIRE_FALSE(line.end.session->update_keys(true));
    line.say("x");
    CHECK(line.until([&] { return line.end.plaintext.size() == static_cast<std::size_t>(i) + 1; }));
    CHECK(line.data_records == 2);  // the answer to the request, and the echo
  }
  CHECK(line.record.ends.empty());
}

TEST_CASE("a peer that asks for key updates and does not take the answers is given up, its memory bounded") {
  for (const bool sends : {false, true}) {
    CAPTURE(sends);
    Line line(TlsRole::server, TlsVersion::tls_1_3, {.window_bytes = 10'000});
    line.open();
    line.reads = false;
    if (sends) line.stream->send(to_bytes(pattern(1'000'000)));
    const std::size_t waiting = line.stream->buffered();
    std::size_t most = 0;
    for (int i = 0; i < 30'000 && line.record.ends.empty(); i++) {
      REQUIRE_FALSE(line.end.session->update_keys(true));
      if (i % 100 == 0) line.turn();
      most = std::max(most, line.stream->buffered());
    }
    CHECK(line.record.ends == std::vector{Errc::protocol});
    CHECK(most <= waiting + encrypted_ahead_bytes + 64 * 1024 + 10'000);
    line.record.probe->close();
    line.turns(2);
    CHECK(line.reactor.segments().in_use() == 0);
  }
}

TEST_CASE("a peer may ask for as many key updates as it takes the answers of") {
  Line line(TlsRole::server, TlsVersion::tls_1_3, {.window_bytes = 10'000});
  line.open();
  for (int i = 0; i < 20'000; i++) {
    REQUIRE_FALSE(line.end.session->update_keys(true));
    if (i % 100 == 0) line.turn();
  }
  CHECK(line.until([&] { return line.stream->buffered() == 0; }));
  CHECK(line.record.ends.empty());
}

TEST_CASE("renegotiation is refused, and what was agreed goes on") {
  Line line;
  REQUIRE_FALSE(line.stream->accept_tls(*make_context(TlsRole::server, TlsVersion::tls_1_2)));
  RawClient client(TLS1_2_VERSION);
  const auto carry = [&](const std::string& records) {
    line.peer->write(records);
    for (int i = 0; i < 5; i++) line.reactor.run_once(0);
    return line.peer->read();
  };
  REQUIRE(client.shake_hands_by(carry) == 1);
  CHECK(line.record.secured == 1);
  REQUIRE(SSL_renegotiate(client.ssl) == 1);
  CHECK(client.shake_hands_by(carry) <= 0);
  CHECK(client.reason == SSL_R_NO_RENEGOTIATION);
  CHECK(line.record.secured == 1);
}
