#include <levada/net/tls_session.h>

#include <openssl/err.h>
#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <levada/core/random.h>
#include <levada/tests/support/certificates.h>
#include <levada/tests/support/raw_tls_client.h>
#include <levada/tests/support/tls_pair.h>

using namespace levada;
using namespace levada::net;
using levada::test::RawClient;
using levada::test::TlsEnd;
using levada::test::TlsPair;

namespace {

struct Contexts {
  explicit Contexts(TlsVersion version = TlsVersion::tls_1_3) {
    const test::Authority ca;
    server = *TlsContext::create(
        TlsRole::server, {.certificates = {ca.issue().tls()}, .max_version = version, .resumption = false});
    client = *TlsContext::create(TlsRole::client, {.ca = ca.pem(), .resumption = false});
  }
  std::shared_ptr<TlsContext> client, server;
};

struct Connected : Contexts {
  explicit Connected(TlsVersion version = TlsVersion::tls_1_3) : Contexts(version), pair(*client, *server) {
    pair.exchange();
    REQUIRE(pair.open());
  }
  TlsPair pair;
};

constexpr TlsVersion versions[] = {TlsVersion::tls_1_2, TlsVersion::tls_1_3};

std::string random_text(SeededRandom& random, std::size_t size) {
  std::string text(size, '\0');
  for (char& c : text) c = static_cast<char>(random.next());
  return text;
}

// Feeds `bytes` in pieces of random sizes, small and large.
void feed_in_pieces(TlsEnd& end, std::string_view bytes, SeededRandom& random) {
  while (!bytes.empty()) {
    const std::size_t most = random.one_in(2) ? 40 : 40'000;
    const std::size_t size = std::min<std::size_t>(bytes.size(), 1 + random.below(most));
    end.feed(bytes.substr(0, size));
    bytes.remove_prefix(size);
  }
}

struct Server : Contexts {
  explicit Server(TlsVersion version = TlsVersion::tls_1_3) : Contexts(version) {
    end.session = std::move(TlsSession::accept(*server, end.output()).value());
  }
  std::string failure() const { return end.session->error() ? end.session->error().message() : ""; }
  TlsEnd end;
};

}  // namespace

TEST_CASE("two sessions shake hands and carry messages both ways") {
  for (const TlsVersion version : versions) {
    Connected c(version);
    CHECK(c.pair.client.established == 1);
    CHECK(c.pair.server.established == 1);
    CHECK(c.pair.client.session->version() == (version == TlsVersion::tls_1_2 ? "TLSv1.2" : "TLSv1.3"));
    CHECK(c.pair.server.session->server_name() == "localhost");
    CHECK_FALSE(c.pair.client.session->write(to_bytes("hello")));
    CHECK_FALSE(c.pair.server.session->write(to_bytes("welcome")));
    c.pair.exchange();
    CHECK(c.pair.server.plaintext == "hello");
    CHECK(c.pair.client.plaintext == "welcome");
  }
}

TEST_CASE("a session tells that the kernel does not encrypt for it, and why") {
  const Connected connected;
  const KtlsUse use = connected.pair.client.session->ktls();
  CHECK_FALSE(use.sends);
  CHECK_FALSE(use.receives);
  CHECK_FALSE(std::string_view(use.reason).empty());
  if (!ktls_available().available) CHECK(std::string_view(use.reason) == ktls_available().reason);
}

TEST_CASE("a handshake goes well wherever its flights are cut, and byte by byte") {
  for (const TlsVersion version : versions) {
    const Contexts contexts(version);
    // Carries everything; flight number `flight` comes in two pieces. Returns how long that flight was.
    const auto run = [&](int flight, std::size_t at) {
      TlsPair pair(*contexts.client, *contexts.server);
      std::size_t length = 0;
      for (int number = 0; number < 8; number++) {
        TlsEnd& from = number % 2 == 0 ? pair.client : pair.server;
        TlsEnd& to = number % 2 == 0 ? pair.server : pair.client;
        const std::string records = from.take_records();
        const std::size_t cut = number == flight ? std::min(at, records.size()) : 0;
        to.feed(records.substr(0, cut));
        to.feed(records.substr(cut));
        if (number == flight) length = records.size();
      }
      REQUIRE(pair.open());
      REQUIRE(pair.client.established + pair.server.established == 2);
      return length;
    };
    int cuts = 0;
    for (int flight = 0; flight < 4; flight++) {
      for (std::size_t at = 1; at < run(flight, at); at++) cuts++;
    }
    CHECK(cuts > 900);
    TlsPair pair(*contexts.client, *contexts.server);
    for (int i = 0; i < 8; i++) {
      for (const char byte : pair.client.take_records()) pair.server.feed({&byte, 1});
      for (const char byte : pair.server.take_records()) pair.client.feed({&byte, 1});
    }
    CHECK(pair.open());
  }
}

TEST_CASE("plaintext is the same however the ciphertext is cut") {
  for (const TlsVersion version : versions) {
    Connected whole(version), cut(version);
    SeededRandom random(7);
    std::string sent;
    for (int round = 0; round < 300; round++) {
      const std::string message = random_text(random, random.below(round % 20 == 0 ? 100'000 : 300));
      sent += message;
      for (Connected* each : {&whole, &cut})
        REQUIRE_FALSE(each->pair.client.session->write(to_bytes(message)));
      if (!random.one_in(4)) continue;
      whole.pair.exchange();
      feed_in_pieces(cut.pair.server, cut.pair.client.take_records(), random);
    }
    whole.pair.exchange();
    feed_in_pieces(cut.pair.server, cut.pair.client.take_records(), random);
    CHECK(whole.pair.server.plaintext == sent);
    CHECK(cut.pair.server.plaintext == sent);
  }
}

TEST_CASE("plaintext of a read is one piece where the ciphertext lay, except for a record begun before") {
  Connected c;
  SeededRandom random(3);
  const std::string message = random_text(random, 70'000);  // five records
  REQUIRE_FALSE(c.pair.client.session->write(to_bytes(message)));
  const std::string records = c.pair.client.take_records();
  std::vector<std::uint8_t> received(records.begin(), records.end());
  BlockPool blocks(1 << 20);
  TurnMemory memory(blocks);
  TlsSession& server = *c.pair.server.session;

  constexpr std::size_t cut = 20'000;  // in the second record
  MutableBytes input = MutableBytes(received).first(cut);
  TlsRead read = server.read(input, memory);
  CHECK(read.event == TlsEvent::data);
  CHECK(read.in_place);
  CHECK(read.plaintext.data() == received.data());
  CHECK(read.plaintext.size() == tls_record_bytes);
  CHECK(server.read(input, memory).event == TlsEvent::none);
  CHECK(input.empty());
  CHECK(memory.used_bytes() == 0);

  input = MutableBytes(received).subspan(cut, 5);  // not its end: no memory is taken yet
  CHECK(server.read(input, memory).event == TlsEvent::none);
  CHECK(memory.used_bytes() == 0);

  input = MutableBytes(received).subspan(cut + 5);
  read = server.read(input, memory);
  CHECK(read.event == TlsEvent::data);
  CHECK_FALSE(read.in_place);
  CHECK(to_text(read.plaintext) == std::string_view(message).substr(tls_record_bytes, tls_record_bytes));
  CHECK(memory.used_bytes() > 0);
  std::uint8_t* const begin = input.data();
  read = server.read(input, memory);
  CHECK(read.in_place);
  CHECK(read.plaintext.data() == begin);
  CHECK(to_text(read.plaintext) == std::string_view(message).substr(2 * tls_record_bytes));
  CHECK(server.read(input, memory).event == TlsEvent::none);
}

TEST_CASE("plaintext goes straight to other memory in whatever amounts it has room for") {
  Connected c;
  SeededRandom random(4);
  const std::string message = random_text(random, 50'000);
  REQUIRE_FALSE(c.pair.client.session->write(to_bytes(message)));
  const std::string records = c.pair.client.take_records();
  Bytes input = to_bytes(records);
  std::string got;
  std::vector<std::uint8_t> room(20'000);
  for (;;) {
    const TlsRead read =
        c.pair.server.session->read_into(input, MutableBytes(room).first(1 + random.below(room.size())));
    if (read.event != TlsEvent::data) break;
    got += to_text(read.plaintext);
  }
  CHECK(input.empty());
  CHECK(got == message);
}

TEST_CASE("what read_into had no room for comes with the next read") {
  Connected c;
  REQUIRE_FALSE(c.pair.client.session->write(to_bytes("hello, world")));
  std::string records = c.pair.client.take_records();
  Bytes input = to_bytes(records);
  std::uint8_t room[5];
  CHECK(to_text(c.pair.server.session->read_into(input, room).plaintext) == "hello");
  REQUIRE_FALSE(c.pair.client.session->write(to_bytes(" again")));
  c.pair.server.feed(c.pair.client.take_records());
  CHECK(c.pair.server.plaintext == ", world again");
}

TEST_CASE("1 MiB messages go both ways") {
  for (const TlsVersion version : versions) {
    Connected c(version);
    SeededRandom random(5);
    const std::string message = random_text(random, std::size_t{1} << 20);
    for (int round = 0; round < 3; round++) {
      REQUIRE_FALSE(c.pair.client.session->write(to_bytes(message)));
      REQUIRE_FALSE(c.pair.server.session->write(to_bytes(message)));
      c.pair.exchange();
      CHECK(c.pair.server.plaintext == message);
      CHECK(c.pair.client.plaintext == message);
      c.pair.server.plaintext.clear();
      c.pair.client.plaintext.clear();
    }
  }
}

TEST_CASE("pieces of any sizes share full records, in their order") {
  SeededRandom random(6);
  BlockPool blocks(1 << 20);
  TurnMemory memory(blocks);
  Connected c;
  for (int round = 0; round < 200; round++) {
    std::vector<std::string> texts;
    TlsPieces pieces(*c.pair.client.session, memory);
    std::string whole;
    const std::size_t count = random.below(12);
    for (std::size_t i = 0; i < count; i++) {
      const std::size_t most = random.one_in(3) ? 50'000 : 500;
      texts.push_back(random_text(random, random.one_in(5) ? tls_record_bytes : random.below(most)));
      whole += texts.back();
    }
    for (const std::string& text : texts) pieces.add(to_bytes(text));
    REQUIRE_FALSE(pieces.finish());
    const std::string records = c.pair.client.take_records();
    const std::size_t full = (whole.size() + tls_record_bytes - 1) / tls_record_bytes;
    REQUIRE(records.size() == whole.size() + full * 22);  // header, type and tag of TLS 1.3
    c.pair.server.feed(records);
    REQUIRE(c.pair.server.plaintext == whole);
    c.pair.server.plaintext.clear();
    memory.reset();
  }
}

TEST_CASE("close_notify is a clean end in each direction, and its absence is truncation") {
  for (const TlsVersion version : versions) {
    Connected c(version);
    CHECK(c.pair.server.session->transport_ended().message() ==
          "TLS: truncated (the connection ended without close_notify)");
    REQUIRE_FALSE(c.pair.client.session->write(to_bytes("last words")));
    c.pair.client.session->close();
    c.pair.client.session->close();  // once is enough
    c.pair.server.feed(c.pair.client.take_records());
    CHECK(c.pair.server.plaintext == "last words");
    CHECK(c.pair.server.last == TlsEvent::ended);
    CHECK(c.pair.server.session->transport_ended().code == Errc::end_of_stream);
    // The other direction is still open.
    REQUIRE_FALSE(c.pair.server.session->write(to_bytes("I see")));
    c.pair.server.session->close();
    c.pair.client.feed(c.pair.server.take_records());
    CHECK(c.pair.client.plaintext == "I see");
    CHECK(c.pair.client.last == TlsEvent::ended);
    c.pair.client.feed("anything");
    CHECK(c.pair.client.last == TlsEvent::ended);
  }
  const Server server;
  CHECK(server.end.session->transport_ended().message() == "TLS handshake: truncated (the connection ended)");
}

TEST_CASE("a cut inside of a record is truncation too") {
  Connected c;
  REQUIRE_FALSE(c.pair.client.session->write(to_bytes("some words")));
  c.pair.client.session->close();
  const std::string records = c.pair.client.take_records();
  c.pair.server.feed(records.substr(0, records.size() - 1));
  CHECK(c.pair.server.plaintext == "some words");
  CHECK(c.pair.server.last == TlsEvent::none);
  CHECK(c.pair.server.session->transport_ended().code == Errc::truncated);
}

TEST_CASE("what is not TLS is refused") {
  Server http;
  http.end.feed("GET / HTTP/1.1\r\nHost: localhost\r\n\r\n");
  CHECK(http.end.last == TlsEvent::failed);
  CHECK(http.failure() == "TLS handshake: protocol (http request)");

  SeededRandom random(8);
  for (int round = 0; round < 200; round++) {
    Server server;
    server.end.feed(random_text(random, 400));
    REQUIRE(server.end.plaintext.empty());
    REQUIRE((server.end.last == TlsEvent::failed || server.end.last == TlsEvent::none));
    if (server.end.last == TlsEvent::failed) REQUIRE(server.end.session->error().code == Errc::protocol);
    REQUIRE(server.end.session->transport_ended());
  }
}

TEST_CASE("ciphertext that was changed anywhere is refused, with an alert for the peer, and stays refused") {
  for (const TlsVersion version : versions) {
    const std::string message = "attack at dawn";
    for (std::size_t at = 0;; at++) {
      Connected c(version);
      REQUIRE_FALSE(c.pair.client.session->write(to_bytes(message)));
      std::string records = c.pair.client.take_records();
      if (at == records.size()) break;
      records[at] = static_cast<char>(records[at] ^ 1);
      const bool length = at == 3 || at == 4;  // then the record may not be whole
      c.pair.server.feed(records + (length ? std::string(600, 'x') : ""));
      CAPTURE(at);
      CHECK(c.pair.server.plaintext.empty());
      REQUIRE(c.pair.server.last == TlsEvent::failed);
      CHECK(c.pair.server.session->error().code == Errc::protocol);
      CHECK(c.pair.server.session->write(to_bytes("x")).code == Errc::protocol);
      CHECK_FALSE(c.pair.server.session->is_open());
      c.pair.client.feed(c.pair.server.take_records());
      CHECK(c.pair.client.session->error().code == Errc::alert_received);
      c.pair.server.feed("more");
      CHECK(c.pair.server.last == TlsEvent::failed);
      CHECK(c.pair.server.records.empty());
    }
  }
}

TEST_CASE("a record above the limit is refused before it has come") {
  Connected c;
  const std::uint8_t header[] = {0x17, 0x03, 0x03, 0x41, 0x01};  // 16 KiB + 257
  c.pair.server.feed(to_text(header));
  CHECK(c.pair.server.last == TlsEvent::failed);
  CHECK(c.pair.server.session->error().code == Errc::protocol);
  c.pair.client.feed(c.pair.server.take_records());
  CHECK(c.pair.client.session->error().message() == "TLS: alert_received (record overflow)");
}

TEST_CASE("a client that has only TLS 1.1 is refused") {
  Server server;
  RawClient client(TLS1_1_VERSION, "DEFAULT:@SECLEVEL=0");
  CHECK(client.shake_hands(server.end) <= 0);
  CHECK(server.failure() == "TLS handshake: protocol (unsupported protocol)");
  CHECK(server.end.established == 0);
  RawClient modern(TLS1_2_VERSION);  // the same by hand, but newer
  Server willing;
  CHECK(modern.shake_hands(willing.end) == 1);
}

TEST_CASE("renegotiation is refused") {
  Server server(TlsVersion::tls_1_2);
  RawClient client(TLS1_2_VERSION);
  REQUIRE(client.shake_hands(server.end) == 1);
  REQUIRE(SSL_renegotiate(client.ssl) == 1);
  CHECK(client.shake_hands(server.end) <= 0);
  CHECK(client.reason == SSL_R_NO_RENEGOTIATION);
  CHECK(server.end.established == 1);
}

TEST_CASE("no ticket allows early data") {
  const test::Authority ca;
  const auto context = *TlsContext::create(TlsRole::server, {.certificates = {ca.issue().tls()}});
  TlsEnd end;
  end.session = std::move(TlsSession::accept(*context, end.output()).value());
  RawClient client(TLS1_3_VERSION);
  REQUIRE(client.shake_hands(end) == 1);
  char ignored[1];
  SSL_read(client.ssl, ignored, 1);  // takes in the tickets
  SSL_SESSION* session = SSL_get1_session(client.ssl);
  CHECK(SSL_SESSION_is_resumable(session) == 1);
  CHECK(SSL_SESSION_get_max_early_data(session) == 0);
  SSL_SESSION_free(session);
}

TEST_CASE("keys are changed on the way, on request of either end") {
  Connected c;
  constexpr std::size_t one_byte = 5 + 1 + 1 + 16;  // header, byte, type, tag
  for (int round = 0; round < 3; round++) {
    REQUIRE_FALSE(c.pair.client.session->update_keys(true));
    REQUIRE_FALSE(c.pair.client.session->write(to_bytes("a")));
    c.pair.server.feed(c.pair.client.take_records());
    REQUIRE_FALSE(c.pair.server.session->write(to_bytes("b")));
    CHECK(c.pair.server.records.size() > one_byte);  // the server's own key update went first
    c.pair.exchange();
    REQUIRE_FALSE(c.pair.server.session->update_keys(false));
    c.pair.exchange();
    REQUIRE_FALSE(c.pair.client.session->write(to_bytes("c")));
    CHECK(c.pair.client.records.size() == one_byte);  // nothing was asked of the client
    c.pair.exchange();
  }
  CHECK(c.pair.server.plaintext == "acacac");
  CHECK(c.pair.client.plaintext == "bbb");
  Connected old(TlsVersion::tls_1_2);
  CHECK(old.pair.client.session->update_keys(true).code == Errc::not_supported);
}

TEST_CASE("errors that others left on the thread are not taken for the session's") {
  Connected c;
  REQUIRE_FALSE(c.pair.client.session->write(to_bytes("hello")));
  const std::string records = c.pair.client.take_records();
  for (const char byte : records) {
    ERR_raise(ERR_LIB_USER, ERR_R_INTERNAL_ERROR);
    c.pair.server.feed({&byte, 1});
  }
  CHECK(c.pair.server.plaintext == "hello");
}

TEST_CASE("the end of a record is found in pieces of any size") {
  std::string stream;
  SeededRandom random(9);
  std::vector<std::size_t> ends;
  for (int i = 0; i < 50; i++) {
    const std::size_t body = i % 7 == 0 ? 0 : random.below(1000);
    stream += {0x17, 0x03, 0x03, static_cast<char>(body >> 8), static_cast<char>(body)};
    stream.append(body, 'x');
    ends.push_back(stream.size());
  }
  for (int round = 0; round < 50; round++) {
    TlsRecordScan scan;
    std::size_t at = 0;
    while (at < stream.size()) {
      const auto end = std::upper_bound(ends.begin(), ends.end(), at);
      const std::size_t begin = end == ends.begin() ? 0 : *(end - 1);
      REQUIRE(scan.at_start() == (at == begin));
      std::size_t body = 0;
      const Bytes rest = to_bytes(stream).subspan(at);
      REQUIRE(scan.end_in(rest, body) == *end - at);
      REQUIRE(body == *end - begin - 5);
      REQUIRE(scan.end_in(rest.first(*end - at - 1), body) == 0);
      const std::size_t size = std::min(rest.size(), 1 + random.below(round < 25 ? 7 : 3000));
      scan.advance(rest.first(size));
      at += size;
    }
    CHECK(scan.at_start());
  }
}
