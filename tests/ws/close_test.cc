// Close codes and close payloads (RFC 6455 sections 5.5.1 and 7.4).
#include <levada/ws/close.h>

#include <array>
#include <string>

#include <doctest/doctest.h>

#include <levada/tests/support/frames.h>
#include <levada/ws/utf8.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

std::string written(CloseCode code, std::string_view reason) {
  std::array<std::uint8_t, 200> out;
  return std::string(to_text(Bytes(out).first(write_close(out.data(), code, reason))));
}

}  // namespace

TEST_CASE("every number is a valid close code or not") {
  for (unsigned code = 0; code <= 0xFFFF; code++) {
    const bool registered = code >= 1000 && code <= 1014 && code != 1004 && code != 1005 && code != 1006;
    const bool wanted = registered || (code >= 3000 && code <= 4999);
    if (is_valid_on_wire(static_cast<CloseCode>(code)) != wanted) FAIL("close code ", code);
  }
}

TEST_CASE("a close payload is read") {
  CHECK(parse_close({}).code == CloseCode::no_status);
  CHECK(parse_close({}).reason.empty());
  const std::string bare = close_payload(1000);
  CHECK(parse_close(to_bytes(bare)).code == CloseCode::normal);
  CHECK(parse_close(to_bytes(bare)).reason.empty());
  const std::string full = close_payload(4321, "so long");
  const ClosePayload close = parse_close(to_bytes(full));
  CHECK(number(close.code) == 4321);
  CHECK(close.reason == "so long");
  CHECK(close.reason.data() == full.data() + 2);
}

TEST_CASE("a close payload is written") {
  CHECK(written(CloseCode::no_status, "ignored").empty());
  CHECK(written(CloseCode::normal, "") == close_payload(1000));
  CHECK(written(static_cast<CloseCode>(4999), "why") == close_payload(4999, "why"));
}

TEST_CASE("a reason that is too long is cut at the end of a character") {
  CHECK(written(CloseCode::normal, std::string(123, 'x')).size() == 125);
  CHECK(written(CloseCode::normal, std::string(124, 'x')).size() == 125);
  for (const std::string character : {"\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x98\x80"}) {
    for (std::size_t lead = 0; lead < 5; lead++) {
      std::string reason(lead, 'x');
      while (reason.size() < 140) reason += character;
      const std::string payload = written(CloseCode::normal, reason);
      CHECK(payload.size() <= 125);
      CHECK(payload.size() + character.size() > 125);
      CHECK(is_utf8(to_bytes(payload.substr(2))));
      CHECK(reason.starts_with(payload.substr(2)));
    }
  }
}
