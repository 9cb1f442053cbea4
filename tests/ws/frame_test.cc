// Frame headers: what is read, what is allowed, what is written (RFC 6455 section 5.2).
#include <levada/ws/frame.h>

#include <set>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/support/frames.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

const std::vector<std::uint64_t> lengths = {0,
                                            1,
                                            2,
                                            124,
                                            125,
                                            126,
                                            127,
                                            128,
                                            255,
                                            256,
                                            65534,
                                            65535,
                                            65536,
                                            65537,
                                            0xFFFFFFFF,
                                            0x1'0000'0000,
                                            (1ull << 63) - 1};

// The header alone, as the client or the server writes it.
std::string header_of(std::uint64_t length, bool mask, FrameShape shape = {}, unsigned opcode = 2) {
  shape.length = length;
  return raw_frame(opcode, "", mask, shape);
}

FrameHeader parsed(const std::string& text) {
  FrameHeader header;
  REQUIRE(parse_header(to_bytes(text), header) == text.size());
  return header;
}

FrameError check(const std::string& text, Role role = Role::server, bool in_message = false,
                 unsigned rsv = 0) {
  return check_header(parsed(text), role, in_message, static_cast<std::uint8_t>(rsv));
}

}  // namespace

TEST_CASE("a header is read at each boundary of its length") {
  for (const std::uint64_t length : lengths) {
    for (const bool mask : {false, true}) {
      CAPTURE(length);
      const FrameHeader header = parsed(header_of(length, mask));
      CHECK(header.length == length);
      CHECK(header.length_bytes == (length < 126 ? 0 : length < 65536 ? 2 : 8));
      CHECK(header.masked == mask);
      CHECK(header.opcode == Opcode::binary);
      CHECK(header.fin);
      if (mask) CHECK(std::memcmp(&header.key, mask_bytes, 4) == 0);
      CHECK(check_header(header, mask ? Role::server : Role::client, false) == FrameError::none);
    }
  }
}

TEST_CASE("a header is written in its shortest form and reads back") {
  for (const std::uint64_t length : lengths) {
    for (const bool mask : {false, true}) {
      for (const bool fin : {false, true}) {
        CAPTURE(length);
        FrameHeader header{.fin = fin, .rsv = 5, .opcode = Opcode::text, .masked = mask, .length = length};
        std::memcpy(&header.key, mask_bytes, 4);
        std::vector<std::uint8_t> out(header_size_for(length, mask));
        REQUIRE(write_header(out.data(), header) == out.size());
        CHECK(to_text(out) == header_of(length, mask, {.fin = fin, .rsv = 5}, 1));
        CHECK(header_size(out[1]) == out.size());
        CHECK(out.size() <= max_header_bytes);
        const FrameHeader back = parsed(std::string(to_text(out)));
        CHECK(back.fin == fin);
        CHECK(back.rsv == 5);
        CHECK(back.opcode == Opcode::text);
        CHECK(back.length == length);
      }
    }
  }
}

TEST_CASE("a header that is not whole is not read, and nothing behind its bytes is looked at") {
  for (const std::uint64_t length : {125u, 126u, 65536u}) {
    for (const bool mask : {false, true}) {
      const std::string text = header_of(length, mask);
      for (std::size_t size = 0; size < text.size(); size++) {
        const std::vector<std::uint8_t> exact(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(size));
        FrameHeader header;
        CHECK(parse_header(exact, header) == 0);
        if (size >= 2) CHECK(header.masked == mask);
      }
    }
  }
}

TEST_CASE("a length that is not in its shortest form is refused") {
  for (const std::uint64_t length : {0u, 1u, 125u}) {
    CHECK(check(header_of(length, true, {.length_bytes = 2})) == FrameError::length_not_minimal);
    CHECK(check(header_of(length, true, {.length_bytes = 8})) == FrameError::length_not_minimal);
  }
  for (const std::uint64_t length : {126u, 65535u}) {
    CHECK(check(header_of(length, true, {.length_bytes = 2})) == FrameError::none);
    CHECK(check(header_of(length, true, {.length_bytes = 8})) == FrameError::length_not_minimal);
  }
  CHECK(check(header_of(65536, true, {.length_bytes = 8})) == FrameError::none);
}

TEST_CASE("a length with the top bit set is refused") {
  CHECK(check(header_of(1ull << 63, true)) == FrameError::length_too_large);
  CHECK(check(header_of(~0ull, true)) == FrameError::length_too_large);
  CHECK(check(header_of((1ull << 63) - 1, true)) == FrameError::none);
}

TEST_CASE(
    "each RSV bit is refused unless an extension uses it, and always on control frames and continuations") {
  for (unsigned rsv = 0; rsv < 8; rsv++) {
    for (unsigned allowed = 0; allowed < 8; allowed++) {
      CAPTURE(rsv);
      CAPTURE(allowed);
      const bool good = (rsv & ~allowed) == 0;
      CHECK((check(header_of(1, true, {.rsv = rsv}), Role::server, false, allowed) == FrameError::none) ==
            good);
      for (const unsigned opcode : {0u, 8u, 9u, 10u}) {
        const FrameError error = check(header_of(2, true, {.rsv = rsv}, opcode), Role::server, true, allowed);
        CHECK(error == (rsv == 0 ? FrameError::none : FrameError::reserved_bits));
      }
    }
  }
}

TEST_CASE("reserved opcodes are refused and no others") {
  const std::set<unsigned> known = {0, 1, 2, 8, 9, 10};
  for (unsigned opcode = 0; opcode < 16; opcode++) {
    CAPTURE(opcode);
    const FrameError error = check(header_of(2, true, {}, opcode), Role::server, opcode == 0);
    CHECK(error == (known.contains(opcode) ? FrameError::none : FrameError::reserved_opcode));
    CHECK(is_reserved(static_cast<Opcode>(opcode)) == !known.contains(opcode));
    CHECK(is_control(static_cast<Opcode>(opcode)) == (opcode >= 8));
  }
}

TEST_CASE("a control frame has at most 125 bytes and is not fragmented") {
  for (const unsigned opcode : {8u, 9u, 10u}) {
    CHECK(check(header_of(125, true, {}, opcode)) == FrameError::none);
    CHECK(check(header_of(126, true, {}, opcode)) == FrameError::control_too_long);
    CHECK(check(header_of(65536, true, {}, opcode)) == FrameError::control_too_long);
    CHECK(check(header_of(1, true, {.length_bytes = 2}, opcode)) == FrameError::control_too_long);
    CHECK(check(header_of(0, true, {.fin = false}, opcode)) == FrameError::control_fragmented);
    CHECK(check(header_of(0, true, {}, opcode), Role::server, true) == FrameError::none);
  }
}

TEST_CASE("fragments come in order") {
  CHECK(check(header_of(1, true, {}, 0), Role::server, false) == FrameError::nothing_to_continue);
  CHECK(check(header_of(1, true, {.fin = false}, 0), Role::server, false) == FrameError::nothing_to_continue);
  CHECK(check(header_of(1, true, {}, 0), Role::server, true) == FrameError::none);
  for (const unsigned opcode : {1u, 2u}) {
    CHECK(check(header_of(1, true, {.fin = false}, opcode)) == FrameError::none);
    CHECK(check(header_of(1, true, {}, opcode), Role::server, true) == FrameError::message_not_finished);
  }
}

TEST_CASE("the mask goes from client to server only") {
  for (const unsigned opcode : {1u, 2u, 8u, 9u, 10u}) {
    CHECK(check(header_of(2, false, {}, opcode), Role::server) == FrameError::not_masked);
    CHECK(check(header_of(2, true, {}, opcode), Role::client) == FrameError::masked);
    CHECK(check(header_of(2, false, {}, opcode), Role::client) == FrameError::none);
  }
}

TEST_CASE("two bytes of a header are enough for what they tell") {
  const auto early = [](std::string text, bool in_message = false) {
    FrameHeader header;
    REQUIRE(parse_header(to_bytes(text.substr(0, 2)), header) == 0);
    return check_header(header, Role::server, in_message, 0, false);
  };
  CHECK(early(header_of(70000, true, {.rsv = 2})) == FrameError::reserved_bits);
  CHECK(early(header_of(70000, true, {}, 3)) == FrameError::reserved_opcode);
  CHECK(early(header_of(70000, true, {}, 9)) == FrameError::control_too_long);
  CHECK(early(header_of(70000, true, {}, 0)) == FrameError::nothing_to_continue);
  CHECK(early(header_of(70000, true), true) == FrameError::message_not_finished);
  CHECK(early(header_of(70000, false)) == FrameError::not_masked);
  CHECK(early(header_of(1ull << 63, true)) == FrameError::none);  // that is in the bytes that follow
  CHECK(early(header_of(300, true)) == FrameError::none);
}

TEST_CASE("every error has a name of its own and the close code that the RFC asks for") {
  std::set<std::string> names;
  for (int i = 0; i <= static_cast<int>(FrameError::inflates_too_much); i++) {
    const auto error = static_cast<FrameError>(i);
    CHECK(names.insert(to_string(error)).second);
    const unsigned code = number(close_code(error));
    if (error == FrameError::none) {
      CHECK(code == 1000);
    } else if (error == FrameError::bad_text || error == FrameError::bad_deflate) {
      CHECK(code == 1007);
    } else if (error == FrameError::message_too_big || error == FrameError::inflates_too_much) {
      CHECK(code == 1009);
    } else if (error == FrameError::too_many_fragments) {
      CHECK(code == 1008);
    } else {
      CHECK(code == 1002);
    }
  }
}
