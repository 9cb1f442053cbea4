// Streams of frames, good and bad, for the tests that cut them in every way.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include <levada/tests/support/frames.h>
#include <levada/ws/decoder.h>

namespace levada::ws::test {

// Frames of the side that the decoder listens to.
struct Wire {
  Role role = Role::server;
  std::string bytes = {};

  Wire& frame(unsigned opcode, std::string_view payload, const FrameShape& shape = {}) {
    bytes += raw_frame(opcode, payload, role == Role::server, shape);
    return *this;
  }
  Wire& text(std::string_view payload, bool fin = true) { return frame(1, payload, {.fin = fin}); }
  Wire& binary(std::string_view payload, bool fin = true) { return frame(2, payload, {.fin = fin}); }
  Wire& more(std::string_view payload, bool fin = false) { return frame(0, payload, {.fin = fin}); }
  Wire& ping(std::string_view payload = {}) { return frame(9, payload); }
  Wire& pong(std::string_view payload = {}) { return frame(10, payload); }
  Wire& close(std::string_view payload = {}) { return frame(8, payload); }
};

// Streams that between them have every frame that is allowed and every way to break the rules.
inline std::vector<std::string> vectors(Role role) {
  std::vector<std::string> wires;
  const auto add = [&](Wire& wire) { wires.push_back(wire.bytes); };
  const auto start = [&] { return Wire{role}; };
  const std::string long_text = random_letters(126), longer = random_bytes(300);
  Wire wire = start();
  add(wire.text("Hello")
          .binary(std::string("\x00\xff\x80", 3))
          .text("")
          .ping("p")
          .pong()
          .text("\xc3\xa4\xf0\x9f\x98\x80"));
  add((wire = start())
          .text("Hel", false)
          .ping("between")
          .more("")
          .more("lo")
          .pong("x")
          .more(" you", true)
          .text("next"));
  add((wire = start()).binary("", false).more("", true).binary("", false).more("x").more("", true));
  add((wire = start())
          .binary(longer)
          .text(long_text)
          .binary(longer, false)
          .ping()
          .more(longer, true)
          .binary("end"));
  add((wire = start())
          .text("\xe2\x82", false)
          .ping()
          .more("", false)
          .more("\xac\xf0", false)
          .more("\x9f\x98\x80", true));
  add((wire = start()).text("1").close(close_payload(1000, "bye \xe2\x82\xac")).text("2"));
  add((wire = start()).close().ping("after"));
  add((wire = start()).ping(std::string(125, 'x')).pong(std::string(125, 'y')).binary("z"));
  // What breaks a rule, after a message and a ping.
  std::vector<Wire> bad(40, start().binary("ok").ping("!"));
  std::size_t i = 0;
  for (unsigned rsv = 1; rsv < 8; rsv *= 2) add(bad[i++].frame(2, "x", {.rsv = rsv}));
  for (unsigned opcode : {3u, 7u, 11u, 15u}) add(bad[i++].frame(opcode, "x"));
  for (unsigned opcode : {8u, 9u, 10u}) add(bad[i++].frame(opcode, "xx", {.fin = false}));
  for (unsigned opcode : {8u, 9u, 10u}) add(bad[i++].frame(opcode, std::string(126, 'x')));
  for (unsigned opcode : {8u, 9u, 10u}) add(bad[i++].frame(opcode, "\x03\xe8", {.length_bytes = 2}));
  add(bad[i++].more("x"));
  add(bad[i++].more("x", true));
  add(bad[i++].text("x", false).text("y"));
  add(bad[i++].text("x", false).ping().binary("y"));
  for (const int bytes : {2, 8}) add(bad[i++].frame(2, "x", {.length_bytes = bytes}));
  add(bad[i++].frame(2, std::string(300, 'x'), {.length_bytes = 8}));
  add(bad[i++].frame(2, "x", {.length_bytes = 8, .length = 1ull << 63}));
  add(bad[i++].frame(2, "x", {.length_bytes = 8, .length = ~0ull}));
  add(bad[i++].frame(2, "x", {.length = 17u << 20}));
  add(bad[i++].close("x"));
  add(bad[i++].close(close_payload(1005)));
  add(bad[i++].close(close_payload(1000, "\xff")));
  add(bad[i++].text("good \xed\xa0\x80 bad"));
  add(bad[i++].text("good", false).more("\xc0\xaf"));
  add(bad[i++].text("\xe2\x82", false).more("", true));
  add(bad[i++].text(long_text + "\xe2\x82"));
  add(bad[i++].text(long_text + "\xf4\x90\x80\x80" + long_text));
  bad[i].role = role == Role::server ? Role::client : Role::server;  // the mask the wrong way round
  add(bad[i++].binary("x"));
  return wires;
}

}  // namespace levada::ws::test
