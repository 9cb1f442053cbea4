#include <levada/net/proxy_protocol.h>

#include <string>
#include <string_view>
#include <vector>

#include <doctest/doctest.h>

using namespace levada;
using namespace levada::net;
using namespace std::literals;
using State = ProxyProtocolParser::State;

namespace {

constexpr std::string_view signature = "\r\n\r\n\0\r\nQUIT\n"sv;

std::string binary(unsigned version_and_command, unsigned family, std::string_view body, int length = -1) {
  const std::size_t size = length < 0 ? body.size() : static_cast<std::size_t>(length);
  std::string text(signature);
  text += static_cast<char>(version_and_command);
  text += static_cast<char>(family);
  text += static_cast<char>(size >> 8);
  text += static_cast<char>(size);
  return text.append(body);
}

std::string unix_path(std::string_view path) {
  std::string field(path);
  field.resize(108);
  return field;
}

const std::string ipv4_body = "\xc0\x00\x02\x01\xc6\x33\x64\x02\xdc\x04\x01\xbb"s;
const std::string ipv6_body = "\x20\x01\x0d\xb8"s + std::string(11, '\0') + "\x01" + std::string(15, '\0') +
                              "\x01" + "\x00\x50\xff\xff"s;

// What became of a header: "invalid", "incomplete", or its version, addresses and what it left.
struct Outcome {
  State state;
  int version = 0;
  std::string addresses = {};
  std::string rest = {};
  bool operator==(const Outcome&) const = default;
};

Outcome outcome_of(const ProxyProtocolParser& parser, std::string_view rest) {
  if (parser.state() != State::complete) return {parser.state()};
  const std::string addresses =
      parser.has_addresses() ? parser.source().to_string() + " " + parser.destination().to_string() : "none";
  return {State::complete, parser.version(), addresses, std::string(rest)};
}

Outcome parse(std::string_view text) {
  ProxyProtocolParser parser;
  Bytes in = to_bytes(text);
  const State state = parser.feed(in);
  CHECK(state == parser.state());
  if (state == State::incomplete) CHECK(in.empty());
  return outcome_of(parser, to_text(in));
}

// In pieces of copies of their own, so that reading beyond one is found.
Outcome parse_pieces(const std::vector<std::string_view>& pieces) {
  ProxyProtocolParser parser;
  std::string rest;
  for (const std::string_view piece : pieces) {
    const std::vector<std::uint8_t> copy(piece.begin(), piece.end());
    Bytes in(copy);
    parser.feed(in);
    rest.append(to_text(in));
  }
  return outcome_of(parser, rest);
}

Outcome known(int version, std::string addresses, std::string rest = {}) {
  return {State::complete, version, std::move(addresses), std::move(rest)};
}

}  // namespace

TEST_CASE("a line of version 1 tells both addresses and ports") {
  CHECK(parse("PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\nGET /") ==
        known(1, "192.0.2.1:56324 198.51.100.2:443", "GET /"));
  CHECK(parse("PROXY TCP6 2001:db8::1 ::1 80 65535\r\n") == known(1, "[2001:db8::1]:80 [::1]:65535"));
  CHECK(parse("PROXY TCP6 ::FFFF:192.0.2.1 ::1 0 0\r\n") == known(1, "[::ffff:192.0.2.1]:0 [::1]:0"));
}

TEST_CASE("UNKNOWN tells nothing, whatever stands behind it") {
  CHECK(parse("PROXY UNKNOWN\r\nx") == known(1, "none", "x"));
  CHECK(parse("PROXY UNKNOWN \r\n") == known(1, "none"));
  CHECK(parse("PROXY UNKNOWN ffff::1 anything  at\tall 1\r\n") == known(1, "none"));
}

TEST_CASE("a line of version 1 has at most 107 bytes with its end") {
  const std::string longest = "PROXY UNKNOWN " + std::string(107 - 16, 'f') + "\r\n";
  REQUIRE(longest.size() == 107);
  CHECK(parse(longest) == known(1, "none"));
  CHECK(parse("PROXY UNKNOWN " + std::string(107 - 15, 'f') + "\r\n").state == State::invalid);
  CHECK(parse("PROXY UNKNOWN " + std::string(107 - 15, 'f')).state == State::incomplete);
  CHECK(parse("PROXY UNKNOWN " + std::string(107 - 14, 'f')).state == State::invalid);
}

TEST_CASE("a line that is not exactly one of version 1 is invalid") {
  for (const char* text : {
           "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n",
           "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\r\r\n",
           "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\rx",
           "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 \r\n",
           "PROXY TCP4 192.0.2.1 198.51.100.2 1 2 3\r\n",
           "PROXY TCP4  192.0.2.1 198.51.100.2 1 2\r\n",
           "PROXY  TCP4 192.0.2.1 198.51.100.2 1 2\r\n",
           "PROXY TCP4 192.0.2.1 198.51.100.2 1\r\n",
           "PROXY TCP4 192.0.2.1 198.51.100.2 1 \r\n",
           "PROXY TCP4 192.0.2.1 198.51.100.2  2\r\n",
           "PROXY TCP4 192.0.2.1 198.51.100.2 01 2\r\n",
           "PROXY TCP4 192.0.2.1 198.51.100.2 65536 2\r\n",
           "PROXY TCP4 192.0.2.1 198.51.100.2 999999 2\r\n",
           "PROXY TCP4 192.0.2.1 198.51.100.2 -1 2\r\n",
           "PROXY TCP4 192.0.2.01 198.51.100.2 1 2\r\n",
           "PROXY TCP4 192.0.2 198.51.100.2 1 2\r\n",
           "PROXY TCP4 192.0.2.256 198.51.100.2 1 2\r\n",
           "PROXY TCP4 localhost 198.51.100.2 1 2\r\n",
           "PROXY TCP4 * 198.51.100.2 1 2\r\n",
           "PROXY TCP4 ::1 ::1 1 2\r\n",
           "PROXY TCP6 192.0.2.1 198.51.100.2 1 2\r\n",
           "PROXY TCP6 [::1] ::1 1 2\r\n",
           "PROXY TCP6 ::1 :::1 1 2\r\n",
           "PROXY TCP6 ::1 ::1%lo 1 2\r\n",
           "PROXY TCP5 ::1 ::1 1 2\r\n",
           "PROXY tcp4 192.0.2.1 198.51.100.2 1 2\r\n",
           "PROXY UNKNOWNS\r\n",
           "PROXY \r\n",
           "PROXY\r",
           "PROXY\t",
           "proxy ",
           "GET / HTTP/1.1\r\n",
           "\r\n\r\n\r",
       }) {
    CHECK_MESSAGE(parse(text).state == State::invalid, text);
  }
}

TEST_CASE("version 2 tells the addresses of each family and transport") {
  CHECK(parse(binary(0x21, 0x11, ipv4_body) + "GET /") ==
        known(2, "192.0.2.1:56324 198.51.100.2:443", "GET /"));
  CHECK(parse(binary(0x21, 0x12, ipv4_body)) == known(2, "192.0.2.1:56324 198.51.100.2:443"));
  CHECK(parse(binary(0x21, 0x21, ipv6_body)) == known(2, "[2001:db8::1]:80 [::1]:65535"));
  CHECK(parse(binary(0x21, 0x22, ipv6_body)) == known(2, "[2001:db8::1]:80 [::1]:65535"));
  CHECK(parse(binary(0x21, 0x31, unix_path("/run/a") + unix_path("\0name"sv))) ==
        known(2, "unix:/run/a unix:@name"));
  CHECK(parse(binary(0x21, 0x32, unix_path("") + unix_path(std::string(108, 'x')))) ==
        known(2, "unix: unix:" + std::string(108, 'x')));
}

TEST_CASE("what follows the addresses of version 2 is passed over, whatever it is") {
  const std::string more =
      "\x01\x00\x02h2\x04\xff\xff\x20"s;  // TLVs, the last two cut off or lying about their size
  CHECK(parse(binary(0x21, 0x11, ipv4_body + more) + "rest") ==
        known(2, "192.0.2.1:56324 198.51.100.2:443", "rest"));
  const std::string longest = binary(0x21, 0x21, ipv6_body + std::string(65535 - 36, '\xee'));
  CHECK(parse(longest + "rest") == known(2, "[2001:db8::1]:80 [::1]:65535", "rest"));
  CHECK(parse(longest.substr(0, longest.size() - 1)).state == State::incomplete);
}

TEST_CASE("LOCAL and unspecified connections have no addresses, and their block is passed over") {
  CHECK(parse(binary(0x20, 0x00, "") + "x") == known(2, "none", "x"));
  CHECK(parse(binary(0x20, 0x11, ipv4_body) + "x") == known(2, "none", "x"));
  CHECK(parse(binary(0x20, 0xFF, "123") + "x") == known(2, "none", "x"));  // the family is ignored
  CHECK(parse(binary(0x21, 0x00, ipv4_body) + "x") == known(2, "none", "x"));
  CHECK(parse(binary(0x21, 0x10, "") + "x") == known(2, "none", "x"));
  CHECK(parse(binary(0x21, 0x02, "1") + "x") == known(2, "none", "x"));
}

TEST_CASE("a header of version 2 that the protocol does not know is invalid, as soon as that can be seen") {
  for (const unsigned byte : {0x01u, 0x11u, 0x22u, 0x2Fu, 0x31u, 0xF1u}) {
    CHECK(parse(std::string(signature) + static_cast<char>(byte)).state == State::invalid);
  }
  for (const unsigned byte : {0x13u, 0x1Fu, 0x41u, 0xF1u, 0x40u, 0x03u}) {
    CHECK(parse(std::string(signature) + "\x21" + static_cast<char>(byte)).state == State::invalid);
  }
  CHECK(parse(binary(0x21, 0x11, "", 11)).state == State::invalid);
  CHECK(parse(binary(0x21, 0x21, "", 35)).state == State::invalid);
  CHECK(parse(binary(0x21, 0x31, "", 215)).state == State::invalid);
  CHECK(parse(binary(0x21, 0x11, "", 0)).state == State::invalid);
  CHECK(parse(binary(0x21, 0x11, "", 12)).state == State::incomplete);
  std::string damaged = binary(0x21, 0x11, ipv4_body);
  for (std::size_t i = 0; i < signature.size(); i++) {
    std::string text = damaged;
    text[i] ^= 1;
    CHECK_MESSAGE(parse(text.substr(0, i + 1)).state == State::invalid, i);
  }
}

TEST_CASE("how a header is cut changes nothing") {
  const std::vector<std::string> headers = {
      "PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\nrest",
      "PROXY TCP6 2001:db8::1 ::1 80 65535\r\nrest",
      "PROXY UNKNOWN ffff\r\nrest",
      "PROXY TCP4 192.0.2.1 198.51.100.2 1 2\n",
      binary(0x21, 0x11, ipv4_body + "\x04\x00\x03xyz"s) + "rest",
      binary(0x21, 0x21, ipv6_body) + "\r\n\r\n",
      binary(0x21, 0x31, unix_path("/a") + unix_path("/b") + "more") + "rest",
      binary(0x20, 0x00, "12345") + "rest",
      binary(0x21, 0x11, "", 11) + "rest",
  };
  for (const std::string& header : headers) {
    const Outcome whole = parse(header);
    const std::string_view text = header;
    std::vector<std::string_view> single;
    for (std::size_t i = 0; i < text.size(); i++) {
      single.push_back(text.substr(i, 1));
      CHECK(parse_pieces({text.substr(0, i), text.substr(i)}) == whole);
      for (std::size_t k = i; k < text.size(); k += 5) {
        CHECK(parse_pieces({text.substr(0, i), text.substr(i, k - i), text.substr(k)}) == whole);
      }
    }
    CHECK(parse_pieces(single) == whole);
  }
}

TEST_CASE("a beginning of a header is incomplete, never complete") {
  for (const std::string& header : {"PROXY TCP4 192.0.2.1 198.51.100.2 56324 443\r\n"s,
                                    binary(0x21, 0x21, ipv6_body + "tlv"), binary(0x20, 0, "")}) {
    for (std::size_t i = 0; i < header.size(); i++)
      CHECK(parse(header.substr(0, i)).state == State::incomplete);
    CHECK(parse(header).state == State::complete);
  }
}

TEST_CASE("a parser that is done takes nothing more") {
  ProxyProtocolParser parser;
  Bytes in = to_bytes("PROXY UNKNOWN\r\nPROXY UNKNOWN\r\n");
  CHECK(parser.feed(in) == State::complete);
  CHECK(parser.feed(in) == State::complete);
  CHECK(to_text(in) == "PROXY UNKNOWN\r\n");
}
