// The streams of support/wires.h through whole connections on every backend, cut at every byte: what the peer gets is what
// the reference decoder says, wherever the cut is.
#include <levada/ws/service.h>

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/support/reference_decoder.h>
#include <levada/tests/support/sanitizer.h>
#include <levada/tests/support/wires.h>
#include <levada/tests/support/world.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

constexpr std::size_t max_message_bytes = std::size_t{16} << 20;

// Sanitizers make each cut some ten times slower: then every 17th.
constexpr std::size_t step = levada::test::sanitized ? 17 : 1;

struct Reply {
  unsigned opcode;
  std::string payload;  // of a close frame: its code
  bool operator==(const Reply&) const = default;
};

// What an echoing endpoint answers, up to a close frame.
std::vector<Reply> replies_to(Role role, std::string_view wire) {
  ReferenceDecoder reference({.role = role, .max_message_bytes = max_message_bytes});
  for (const char byte : wire) {
    if (!reference.feed(static_cast<unsigned char>(byte))) break;
  }
  std::vector<Reply> replies;
  for (const Event& event : reference.events()) {
    const auto add = [&](Opcode opcode, std::string payload) {
      replies.push_back({static_cast<unsigned>(opcode), std::move(payload)});
    };
    if (event.event == DecoderEvent::message) add(event.opcode, event.payload);
    if (event.event == DecoderEvent::ping) add(Opcode::pong, event.payload);
    if (event.event == DecoderEvent::close) add(Opcode::close, event.payload.substr(0, 2));
    if (event.event == DecoderEvent::error)
      add(Opcode::close, close_payload(static_cast<unsigned>(close_code(event.error))));
    if (!replies.empty() && replies.back().opcode == 8) break;
  }
  return replies;
}

std::vector<Reply> take_replies(Client& peer, std::size_t count) {
  std::vector<Reply> replies;
  while (replies.size() < count) {
    Frame frame = peer.frame();
    replies.push_back({frame.opcode, frame.opcode == 8 ? frame.payload.substr(0, 2) : frame.payload});
  }
  return replies;
}

// One connection for each cut, all at once.
void check_every_cut(World& world, Role role, const std::string& wire) {
  Echo& handler = world.make_handler<Echo>();
  Service& service = world.service(handler, {.max_message_bytes = max_message_bytes}, role);
  const std::vector<Reply> expected = replies_to(role, wire);
  const auto received = [&] { return world.reactor().counters().received_bytes.value(); };
  struct Cut {
    std::size_t at;
    Client* peer;
  };
  std::vector<Cut> cuts;
  std::uint64_t before_cuts = 0;
  for (std::size_t at = step; at < wire.size(); at += step) {
    auto [fd, peer] = world.pair();
    REQUIRE(service.adopt_upgraded(std::move(fd)) != nullptr);
    peer->write(std::string_view(wire).substr(0, at));
    before_cuts += at;
    cuts.push_back({at, peer});
  }
  // A connection that has broken a rule by then may not read the rest of it.
  for (int turn = 0; turn < 20 && received() < before_cuts; turn++) world.turn();
  for (const Cut& cut : cuts) cut.peer->write(std::string_view(wire).substr(cut.at));
  for (const Cut& cut : cuts) {
    CAPTURE(cut.at);
    REQUIRE(take_replies(*cut.peer, expected.size()) == expected);
    cut.peer->shut_down();
  }
  for (const Cut& cut : cuts) {
    CAPTURE(cut.at);
    CHECK(cut.peer->reaches_end());
    cut.peer->close();
  }
  CHECK(handler.closes.size() == cuts.size());
  CHECK(world.is_empty());
}

}  // namespace

TEST_CASE("every stream is answered alike wherever it is cut") {
  for (const Role role : {Role::server, Role::client}) {
    CAPTURE(static_cast<int>(role));
    for (const std::string& wire : vectors(role)) {
      CAPTURE(wire);
      in_every_world([&](World& world) { check_every_cut(world, role, wire); });
    }
  }
}
