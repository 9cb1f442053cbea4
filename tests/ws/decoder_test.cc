// The decoder, rule by rule and beside a reference, with the input cut in every way.
#include <levada/ws/decoder.h>

#include <numeric>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/support/decoding.h>
#include <levada/tests/support/frames.h>
#include <levada/tests/support/wires.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

DecoderOptions options_for(Role role, bool streaming = false) {
  return {.role = role, .streaming = streaming};
}

std::vector<Event> decode(const DecoderOptions& options, std::string_view wire) {
  BlockPool pool(1 << 20);
  Decoding decoding(options, pool, Feed::copied);
  decoding.feed(wire);
  CHECK(decoding.problem() == "");
  return decoding.events();
}

FrameError error_of(const DecoderOptions& options, std::string_view wire) {
  const std::vector<Event> events = decode(options, wire);
  return events.empty() ? FrameError::none : events.back().error;
}

Event message(Opcode opcode, std::string payload) {
  return {DecoderEvent::message, opcode, std::move(payload)};
}
Event control(DecoderEvent event, std::string payload) {
  return {event, Opcode::binary, std::move(payload)};
}
Event failure(FrameError error) {
  return {DecoderEvent::error, Opcode::binary, "", error};
}

std::vector<std::size_t> every(std::size_t step, std::size_t size) {
  std::vector<std::size_t> cuts;
  for (std::size_t at = step; at < size; at += step) cuts.push_back(at);
  return cuts;
}

template <class Test>
void for_each_mode(Test&& test) {
  for (const Role role : {Role::server, Role::client}) {
    for (const bool streaming : {false, true}) {
      CAPTURE(static_cast<int>(role));
      CAPTURE(streaming);
      test(options_for(role, streaming));
    }
  }
}

}  // namespace

// ---- How the input is cut ----

TEST_CASE("every stream gives the same events split at every byte") {
  for_each_mode([](const DecoderOptions& options) {
    for (const std::string& wire : vectors(options.role)) {
      CAPTURE(wire);
      REQUIRE(difference(options, wire, {}) == "");
      for (std::size_t at = 1; at < wire.size(); at++) {
        CAPTURE(at);
        for (const Feed feed : {Feed::copied, Feed::moved, Feed::directly}) {
          REQUIRE(difference(options, wire, {at}, feed) == "");
        }
      }
    }
  });
}

TEST_CASE("every stream gives the same events byte by byte") {
  for_each_mode([](const DecoderOptions& options) {
    for (const std::string& wire : vectors(options.role)) {
      CAPTURE(wire);
      for (const Feed feed : {Feed::copied, Feed::moved, Feed::directly}) {
        for (const std::size_t step : {1u, 2u, 3u, 5u, 7u}) {
          REQUIRE(difference(options, wire, every(step, wire.size()), feed) == "");
        }
      }
    }
  });
}

TEST_CASE("every stream gives the same events cut at random") {
  SeededRandom random(5);
  for_each_mode([&](const DecoderOptions& options) {
    for (const std::string& wire : vectors(options.role)) {
      CAPTURE(wire);
      for (int turn = 0; turn < 20; turn++) {
        std::vector<std::size_t> cuts;
        for (std::size_t at = 0; (at += 1 + random.below(turn < 10 ? 8 : 200)) < wire.size();)
          cuts.push_back(at);
        REQUIRE(difference(options, wire, cuts, static_cast<Feed>(turn % 3)) == "");
      }
    }
  });
}

TEST_CASE("random messages give the same events cut at random") {
  SeededRandom random(11);
  for_each_mode([&](const DecoderOptions& options) {
    for (int turn = 0; turn < 60; turn++) {
      Wire wire{options.role};
      bool open = false;
      for (int i = 0; i < 30; i++) {
        const std::string payload =
            random_letters(random.one_in(8) ? 70000 : random.below(400), random.next());
        const bool fin = random.one_in(2);
        if (random.one_in(4)) {
          wire.frame(9 + static_cast<unsigned>(random.below(2)), payload.substr(0, 125));
        } else {
          wire.frame(open ? 0 : 1 + static_cast<unsigned>(random.below(2)), payload, {.fin = fin});
          open = !fin;
        }
      }
      std::vector<std::size_t> cuts;
      for (std::size_t at = 0; (at += 1 + random.below(9000)) < wire.bytes.size();) cuts.push_back(at);
      CAPTURE(turn);
      REQUIRE(difference(options, wire.bytes, cuts, static_cast<Feed>(turn % 3)) == "");
    }
  });
}

// ---- What a decoder delivers ----

TEST_CASE("messages of every length arrive whole, masked and not, with the payload where it was received") {
  for (const Role role : {Role::server, Role::client}) {
    for (const std::size_t size :
         {0u, 1u, 4u, 15u, 64u, 124u, 125u, 126u, 127u, 255u, 65535u, 65536u, 200000u}) {
      BlockPool pool(1 << 20);
      const DecoderOptions options = options_for(role);
      Decoder decoder(options, pool);
      const std::string payload = random_bytes(size);
      std::string wire = Wire{role}.binary(payload).bytes;
      const std::size_t header = wire.size() - size;
      MutableBytes in{reinterpret_cast<std::uint8_t*>(wire.data()), wire.size()};
      const std::uint8_t* const start = in.data();
      const Decoded decoded = decoder.next(in);
      CAPTURE(size);
      REQUIRE(decoded.event == DecoderEvent::message);
      CHECK(to_text(decoded.payload) == payload);
      CHECK(decoded.payload.data() == start + header);
      CHECK(decoded.headroom == header);
      CHECK(decoded.owner == nullptr);
      CHECK(in.empty());
      CHECK(pool.blocks_in_use() == 0);
      CHECK(decoder.next(in).event == DecoderEvent::none);
      CHECK(decoder.idle());
    }
  }
}

TEST_CASE("an assembled message has an owner that keeps it and room for a header") {
  BlockPool pool(1 << 20);
  const DecoderOptions options = options_for(Role::server);
  const std::string payload = random_bytes(1000);
  Owner* owner = nullptr;
  Bytes kept;
  {
    Decoder decoder(options, pool);
    std::string wire = Wire{}.binary(payload.substr(0, 500), false).more(payload.substr(500), true).bytes;
    MutableBytes in{reinterpret_cast<std::uint8_t*>(wire.data()), wire.size()};
    const Decoded decoded = decoder.next(in);
    REQUIRE(decoded.event == DecoderEvent::message);
    REQUIRE(decoded.owner != nullptr);
    CHECK(decoded.headroom >= 10);
    owner = decoded.owner;
    owner->add_reference();
    kept = decoded.payload;
    CHECK(!decoder.idle());
    CHECK(decoder.next(in).event == DecoderEvent::none);
    CHECK(decoder.idle());
    std::string more = Wire{}.binary("x", false).more("y", true).bytes;
    in = {reinterpret_cast<std::uint8_t*>(more.data()), more.size()};
    CHECK(to_text(decoder.next(in).payload) == "xy");
  }
  CHECK(to_text(kept) == payload);
  CHECK(pool.blocks_in_use() == 1);
  owner->drop_reference();
  CHECK(pool.blocks_in_use() == 0);
}

TEST_CASE("an assembly is received straight into its place") {
  BlockPool pool(1 << 20);
  const DecoderOptions options = options_for(Role::server);
  const std::string payload = random_bytes(100000);
  const std::string wire = Wire{}.binary(payload).bytes;
  Decoding decoding(options, pool, Feed::directly);
  CHECK(decoding.decoder().assembly_target().empty());
  decoding.feed(wire.substr(0, 5));
  CHECK(decoding.decoder().assembly_target().empty());  // the header is not whole
  decoding.feed(wire.substr(5, 10));
  CHECK(decoding.decoder().assembly_target().size() == wire.size() - 15);
  CHECK(decoding.decoder().assembly_owner() != nullptr);
  for (std::size_t at = 15; at < wire.size(); at += 999) decoding.feed(wire.substr(at, 999));
  CHECK(decoding.direct_bytes() == wire.size() - 15);
  CHECK(decoding.events() == std::vector{message(Opcode::binary, payload)});
  CHECK(decoding.decoder().assembly_target().empty());
  decoding.feed(Wire{}.ping(std::string(100, 'p')).bytes.substr(0, 50));
  CHECK(decoding.decoder().assembly_target().empty());
}

TEST_CASE("what other frames send meanwhile never goes into an assembly") {
  BlockPool pool(1 << 20);
  const DecoderOptions options = options_for(Role::server);
  Decoding decoding(options, pool, Feed::directly);
  decoding.feed(Wire{}.binary("first", false).bytes + Wire{}.ping(std::string(100, 'p')).bytes.substr(0, 20));
  CHECK(decoding.decoder().assembly_target().empty());
  decoding.feed(Wire{}.ping(std::string(100, 'p')).bytes.substr(20) + Wire{}.more("last", true).bytes);
  CHECK(decoding.events() == std::vector{control(DecoderEvent::ping, std::string(100, 'p')),
                                         message(Opcode::binary, "firstlast")});
}

TEST_CASE("memory follows the bytes received and not the length declared") {
  BlockPool pool(1 << 20);
  const DecoderOptions options{.max_message_bytes = 1ull << 30};
  Decoding decoding(options, pool, Feed::copied);
  decoding.feed(Wire{}.frame(2, "", {.length = 1ull << 30}).bytes);
  CHECK(pool.blocks_in_use() == 0);
}

TEST_CASE("streaming hands on each piece as it comes and keeps nothing") {
  BlockPool pool(1 << 20);
  const DecoderOptions options = options_for(Role::server, true);
  Decoding decoding(options, pool, Feed::copied);
  const std::string payload = random_bytes(5000);
  const std::string wire = Wire{}.binary(payload).bytes;
  for (std::size_t at = 0; at < wire.size(); at += 100) {
    decoding.feed(std::string_view(wire).substr(at, 100));
    CHECK(pool.blocks_in_use() == 0);
    if (at + 100 < wire.size()) CHECK(decoding.partial() == payload.substr(0, at + 100 - 8));
  }
  CHECK(decoding.events() == std::vector{message(Opcode::binary, payload)});
}

// ---- Rules ----

TEST_CASE("control frames come between the fragments of a message") {
  for (const bool streaming : {false, true}) {
    const std::string wire =
        Wire{}.text("a", false).ping("1").more("b").pong("2").ping("3").more("c", true).text("d").bytes;
    CHECK(decode(options_for(Role::server, streaming), wire) ==
          std::vector{control(DecoderEvent::ping, "1"), control(DecoderEvent::pong, "2"),
                      control(DecoderEvent::ping, "3"), message(Opcode::text, "abc"),
                      message(Opcode::text, "d")});
  }
}

TEST_CASE("what came before a broken rule is delivered and nothing after it") {
  const std::string wire = Wire{}.text("before").ping("p").frame(3, "bad").text("after").bytes;
  CHECK(decode(options_for(Role::server), wire) == std::vector{message(Opcode::text, "before"),
                                                               control(DecoderEvent::ping, "p"),
                                                               failure(FrameError::reserved_opcode)});
}

TEST_CASE("a close payload is empty or a valid code and UTF-8") {
  const auto error = [](std::string_view payload) {
    return error_of(options_for(Role::server), Wire{}.close(payload).bytes);
  };
  CHECK(error("") == FrameError::none);
  CHECK(error("\x03") == FrameError::bad_close_payload);
  CHECK(error(close_payload(1000, std::string(123, 'r'))) == FrameError::none);
  CHECK(error(close_payload(1000, std::string(124, 'r'))) == FrameError::control_too_long);
  CHECK(error(close_payload(1000, "\xe2\x82\xac")) == FrameError::none);
  CHECK(error(close_payload(1000, "\xe2\x82")) == FrameError::bad_text);
  CHECK(error(close_payload(1000, "\xff")) == FrameError::bad_text);
  for (unsigned code = 0; code < 6000; code++) {
    const bool valid = is_valid_on_wire(static_cast<CloseCode>(code));
    if (error(close_payload(code)) != (valid ? FrameError::none : FrameError::bad_close_code))
      FAIL("code ", code);
  }
}

TEST_CASE("bad UTF-8 fails at its first byte, wherever that comes") {
  // A code point above U+10FFFF: known at its second byte.
  const std::string good = "\xce\xba\xe1\xbd\xb9\xcf\x83", bad = "\xf4\x90";
  for (const bool streaming : {false, true}) {
    BlockPool pool(1 << 20);
    const DecoderOptions options = options_for(Role::server, streaming);
    const std::string wire = Wire{}.text(good + bad + "\x80\x80 and so on").bytes;
    Decoding decoding(options, pool, Feed::copied);
    const std::size_t known = 6 + good.size() + 2;
    for (std::size_t i = 0; i < known; i++) {
      CHECK(decoding.events().empty());
      decoding.feed(wire.substr(i, 1));
    }
    CHECK(decoding.events() == std::vector{failure(FrameError::bad_text)});
  }
}

TEST_CASE("UTF-8 is not looked at when it is switched off, nor in binary") {
  const std::string bad = "\xff\xfe";
  DecoderOptions options = options_for(Role::server);
  CHECK(error_of(options, Wire{}.text(bad).bytes) == FrameError::bad_text);
  CHECK(decode(options, Wire{}.binary(bad).bytes) == std::vector{message(Opcode::binary, bad)});
  options.check_utf8 = false;
  CHECK(decode(options, Wire{}.text(bad).bytes) == std::vector{message(Opcode::text, bad)});
  CHECK(decode(options, Wire{}.text(bad, false).more(bad, true).bytes) ==
        std::vector{message(Opcode::text, bad + bad)});
  CHECK(error_of(options, Wire{}.close(close_payload(1000, bad)).bytes) == FrameError::none);
}

// ---- Limits ----

TEST_CASE("a message may be as long as the limit and no longer, in one frame or in many") {
  for (const std::uint64_t limit : {0u, 1u, 100u, 125u, 126u, 1000u, 65535u, 65536u, 70000u}) {
    CAPTURE(limit);
    for (const bool streaming : {false, true}) {
      DecoderOptions options = options_for(Role::server, streaming);
      options.max_message_bytes = limit;
      const std::string most(limit, 'x');
      const auto event = [&](const std::string& wire) { return decode(options, wire).back(); };
      if (limit > 0) CHECK(event(Wire{}.text(most.substr(1)).bytes) == message(Opcode::text, most.substr(1)));
      CHECK(event(Wire{}.text(most).bytes) == message(Opcode::text, most));
      CHECK(event(Wire{}.text(most + "x").bytes) == failure(FrameError::message_too_big));
      CHECK(event(Wire{}.text(most, false).more("", true).bytes) == message(Opcode::text, most));
      CHECK(event(Wire{}.text(most, false).more("x", true).bytes) == failure(FrameError::message_too_big));
      CHECK(event(Wire{}.text("", false).more(most + "x", true).bytes) ==
            failure(FrameError::message_too_big));
      CHECK(event(Wire{}.text(most).ping(std::string(125, 'p')).bytes) ==
            control(DecoderEvent::ping, std::string(125, 'p')));
    }
  }
}

TEST_CASE("a message that is too long fails with its header") {
  DecoderOptions options = options_for(Role::server);
  options.max_message_bytes = 1000;
  CHECK(error_of(options, Wire{}.frame(2, "", {.length = 1001}).bytes) == FrameError::message_too_big);
  CHECK(error_of(options, Wire{}.frame(2, "", {.length = 1000}).bytes) == FrameError::none);
  CHECK(error_of(options, Wire{}.frame(2, "", {.length = (1ull << 63) - 1}).bytes) ==
        FrameError::message_too_big);
  const std::string most(1000, 'x');
  CHECK(error_of(options, Wire{}.binary(most, false).frame(0, "", {.length = (1ull << 63) - 1}).bytes) ==
        FrameError::message_too_big);
}

TEST_CASE("a message may have as many fragments as the limit and no more") {
  for (const bool streaming : {false, true}) {
    DecoderOptions options = options_for(Role::server, streaming);
    options.max_fragments = 3;
    const std::string three = Wire{}.text("a", false).more("b").more("c", true).bytes;
    CHECK(decode(options, three + three) == std::vector(2, message(Opcode::text, "abc")));
    CHECK(error_of(options, Wire{}.text("a", false).more("b").more("c").more("d").bytes) ==
          FrameError::too_many_fragments);
    CHECK(error_of(options, Wire{}.text("a", false).more("").more("").more("", true).bytes) ==
          FrameError::too_many_fragments);
  }
}

TEST_CASE("65 536 fragments make one message, in time that grows with its length") {
  Wire wire;
  wire.binary(std::string(64, 'x'), false);
  for (int i = 0; i < 65534; i++) wire.more(std::string(64, static_cast<char>('a' + i % 26)));
  wire.more(std::string(64, 'z'), true);
  BlockPool pool(1 << 20);
  const DecoderOptions options = options_for(Role::server);
  Decoding decoding(options, pool, Feed::copied);
  for (std::size_t at = 0; at < wire.bytes.size(); at += 9973)
    decoding.feed(std::string_view(wire.bytes).substr(at, 9973));
  REQUIRE(decoding.events().size() == 1);
  const std::string& payload = decoding.events()[0].payload;
  CHECK(payload.size() == 65536 * 64);
  CHECK(payload.substr(0, 65) == std::string(64, 'x') + "a");
  CHECK(payload.substr(payload.size() - 64) == std::string(64, 'z'));
}

TEST_CASE("reset forgets a message that is under way") {
  BlockPool pool(1 << 20);
  const DecoderOptions options = options_for(Role::server);
  Decoding decoding(options, pool, Feed::copied);
  decoding.feed(Wire{}.text("\xe2\x82", false).bytes + Wire{}.ping("ping").bytes.substr(0, 7));
  CHECK(!decoding.idle());
  decoding.decoder().reset();
  CHECK(decoding.idle());
  CHECK(pool.blocks_in_use() == 0);
  decoding.feed(Wire{}.text("new").bytes);
  CHECK(decoding.events() == std::vector{message(Opcode::text, "new")});
}
