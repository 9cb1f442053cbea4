#include <levada/net/socks5.h>

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <levada/core/random.h>

using namespace levada;
using namespace levada::net;
using namespace std::literals;
using State = Socks5Client::State;

namespace {

std::string take_output(Socks5Client& client) {
  const std::string out(to_text(client.output()));
  client.sent(out.size());
  CHECK(client.output().empty());
  return out;
}

// Feeds an answer that has to be taken whole; returns what has to be sent then.
std::string answer(Socks5Client& client, std::string_view bytes) {
  Bytes in = to_bytes(bytes);
  client.feed(in);
  CHECK(in.empty());
  return take_output(client);
}

Socks5Error error_after(const Socks5Target& target, const std::vector<std::string>& answers) {
  Socks5Client client(target);
  for (const std::string& bytes : answers) {
    Bytes in = to_bytes(bytes);
    client.feed(in);
  }
  CHECK(client.state() == (client.error() == Socks5Error::none ? State::negotiating : State::failed));
  if (client.state() == State::failed) CHECK(client.output().empty());
  return client.error();
}

const Socks5Target plain{"example.com", 443};
const Socks5Target with_login{"example.com", 443, "me", "secret"};
const std::string reply_ok = "\x05\x00\x00\x01\x7f\x00\x00\x01\x12\x34"s;

}  // namespace

TEST_CASE("without a user only 'no authentication' is offered, and the name is sent as a name") {
  Socks5Client client(plain);
  CHECK(take_output(client) == "\x05\x01\x00"s);
  CHECK(answer(client, "\x05\x00"s) ==
        "\x05\x01\x00\x03\x0b"
        "example.com\x01\xbb"s);
  CHECK(client.state() == State::negotiating);
  CHECK(answer(client, reply_ok).empty());
  CHECK(client.state() == State::connected);
  CHECK(client.error() == Socks5Error::none);
}

TEST_CASE("with a user both are offered, and the login is sent if the proxy wants it") {
  Socks5Client client(with_login);
  CHECK(take_output(client) == "\x05\x02\x00\x02"s);
  CHECK(answer(client, "\x05\x02"s) == "\x01\x02me\x06secret"s);
  CHECK(answer(client, "\x01\x00"s) ==
        "\x05\x01\x00\x03\x0b"
        "example.com\x01\xbb"s);
  CHECK(answer(client, reply_ok).empty());
  CHECK(client.state() == State::connected);

  Socks5Client other(with_login);
  take_output(other);
  CHECK(answer(other, "\x05\x00"s) ==
        "\x05\x01\x00\x03\x0b"
        "example.com\x01\xbb"s);
}

TEST_CASE("addresses are sent as addresses") {
  Socks5Client four({"192.0.2.1", 80});
  take_output(four);
  CHECK(answer(four, "\x05\x00"s) == "\x05\x01\x00\x01\xc0\x00\x02\x01\x00\x50"s);
  Socks5Client six({"2001:db8::1", 80});
  take_output(six);
  CHECK(answer(six, "\x05\x00"s) ==
        "\x05\x01\x00\x04\x20\x01\x0d\xb8"s + std::string(11, '\0') + "\x01\x00\x50"s);
}

TEST_CASE("a reply may have an address of any type, and what follows it is left") {
  for (const std::string& address : {"\x01"s + std::string(4, 'a'), "\x04"s + std::string(16, 'a'),
                                     "\x03\x00"s, "\x03\xff"s + std::string(255, 'a')}) {
    const std::string bytes = "\x05\x00"s + "\x05\x00\x00"s + address + "pp" + "HTTP/1.1 101";
    for (std::size_t cut = 0; cut <= bytes.size(); cut++) {
      Socks5Client client(plain);
      std::string rest;
      for (const std::string& piece : {bytes.substr(0, cut), bytes.substr(cut)}) {
        const std::vector<std::uint8_t> copy(piece.begin(), piece.end());
        Bytes in(copy);
        client.feed(in);
        rest.append(to_text(in));
      }
      CHECK(client.state() == State::connected);
      CHECK(rest == "HTTP/1.1 101");
    }
  }
}

TEST_CASE("answers byte by byte mean the same") {
  Socks5Client client(with_login);
  std::string sent = take_output(client);
  for (const char byte : "\x05\x02\x01\x00"s + reply_ok) sent += answer(client, {&byte, 1});
  CHECK(client.state() == State::connected);
  CHECK(sent ==
        "\x05\x02\x00\x02\x01\x02me\x06secret\x05\x01\x00\x03\x0b"
        "example.com\x01\xbb"s);
}

TEST_CASE("output may be sent in pieces") {
  Socks5Client client(with_login);
  client.sent(1);
  CHECK(to_text(client.output()) == "\x02\x00\x02"s);
  client.sent(3);
  CHECK(client.output().empty());
}

TEST_CASE("each way in which a proxy refuses has an error of its own") {
  CHECK(error_after(plain, {"\x05\xff"s}) == Socks5Error::no_method);
  CHECK(error_after(with_login, {"\x05\x02"s, "\x01\x01"s}) == Socks5Error::login_refused);
  CHECK(error_after(with_login, {"\x05\x02"s, "\x01\xff"s}) == Socks5Error::login_refused);
  const Socks5Error replies[] = {Socks5Error::general_failure,       Socks5Error::not_allowed,
                                 Socks5Error::network_unreachable,   Socks5Error::host_unreachable,
                                 Socks5Error::connection_refused,    Socks5Error::time_to_live_expired,
                                 Socks5Error::command_not_supported, Socks5Error::address_type_not_supported,
                                 Socks5Error::unknown_reply};
  for (std::size_t i = 0; i < std::size(replies); i++) {
    const std::string reply = "\x05"s + static_cast<char>(i + 1);
    CHECK(error_after(plain, {"\x05\x00"s, reply}) == replies[i]);
  }
  CHECK(error_after(plain, {"\x05\x00"s, "\x05\xff"s}) == Socks5Error::unknown_reply);
}

TEST_CASE("what no SOCKS5 proxy answers is refused with its first wrong byte") {
  CHECK(error_after(plain, {"H"}) == Socks5Error::bad_version);
  CHECK(error_after(plain, {"\x04"s}) == Socks5Error::bad_version);
  CHECK(error_after(plain, {"\x05\x00"s, "\x01"s}) == Socks5Error::bad_version);
  CHECK(error_after(with_login, {"\x05\x02"s, "\x05"s}) == Socks5Error::bad_version);
  CHECK(error_after(plain, {"\x05\x02"s}) == Socks5Error::bad_method);  // not offered without a user
  CHECK(error_after(with_login, {"\x05\x01"s}) == Socks5Error::bad_method);
  CHECK(error_after(plain, {"\x05\x00"s, "\x05\x00\x00\x02\x01"s}) == Socks5Error::bad_address);
  CHECK(error_after(plain, {"\x05\x00"s, "\x05\x00\x00\x00\x01"s}) == Socks5Error::bad_address);
}

TEST_CASE("a target that cannot be written fails before anything is sent") {
  const std::string long_text(256, 'a');
  CHECK(error_after({"", 1}, {}) == Socks5Error::bad_host);
  CHECK(error_after({long_text, 1}, {}) == Socks5Error::bad_host);
  CHECK(error_after({"a\0b"sv, 1}, {}) == Socks5Error::bad_host);
  CHECK(error_after({"h", 1, "user", ""}, {}) == Socks5Error::bad_credentials);
  CHECK(error_after({"h", 1, "", "password"}, {}) == Socks5Error::bad_credentials);
  CHECK(error_after({"h", 1, long_text, "x"}, {}) == Socks5Error::bad_credentials);
  CHECK(error_after({"h", 1, "x", long_text}, {}) == Socks5Error::bad_credentials);
}

TEST_CASE("the longest names, users and passwords fit") {
  const std::string longest(255, 'a');
  Socks5Client client({longest, 65535, longest, longest});
  take_output(client);
  CHECK(answer(client, "\x05\x02"s).size() == 513);
  CHECK(answer(client, "\x01\x00"s) == "\x05\x01\x00\x03\xff"s + longest + "\xff\xff");
}

TEST_CASE("errors name themselves and have a code") {
  CHECK(std::string(to_string(Socks5Error::login_refused)) == "login_refused");
  CHECK(std::string(to_string(Socks5Error::unknown_reply)) == "unknown_reply");
  CHECK(to_error(Socks5Error::login_refused).code == Errc::permission_denied);
  CHECK(to_error(Socks5Error::connection_refused).message() ==
        "SOCKS5: connection_refused: connection_refused");
  CHECK(!to_error(Socks5Error::none));
}

TEST_CASE("any answers end in one of the states, and nothing is taken after the end") {
  SeededRandom random(3);
  for (int round = 0; round < 20'000; round++) {
    Socks5Client client(round % 2 == 0 ? plain : with_login);
    std::vector<std::uint8_t> bytes(random.below(40));
    for (std::uint8_t& byte : bytes) {
      byte = static_cast<std::uint8_t>(random.one_in(3) ? random.next() : random.below(6));
    }
    if (!bytes.empty()) bytes[0] = 5;
    Bytes in(bytes);
    const State state = client.feed(in);
    if (state == State::negotiating) CHECK(in.empty());
    const std::size_t left = in.size();
    CHECK((client.feed(in) == state && in.size() == left));
  }
}
