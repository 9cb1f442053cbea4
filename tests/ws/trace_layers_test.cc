// What is traced of connections that speak TLS or compress.
#include <levada/ws/trace.h>

#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/support/deflating.h>
#include <levada/tests/support/tls_peer.h>
#include <levada/ws/prepared.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

using enum TraceKind;

std::string text(TraceKind kind, std::uint64_t value = 0, Opcode opcode = Opcode::continuation) {
  return "kind " + std::to_string(static_cast<int>(kind)) + " value " + std::to_string(value) + " opcode " +
         std::to_string(static_cast<int>(opcode));
}

// Every event but for those that depend on how the kernel takes and gives bytes, in words.
struct Traced : Echo {
  void on_trace(Connection&, const TraceEvent& event) {
    if (event.kind == TraceKind::blocked || event.kind == TraceKind::drained) return;
    events.push_back(text(event.kind, event.value, event.opcode));
  }
  std::vector<std::string> events;
};

}  // namespace

TEST_CASE("over TLS the same is told, and when its handshake is done") {
  in_every_world([](World& world) {
    Traced& handler = world.serve<Traced>({.tls = server_tls()});
    TlsPeer peer(world, world.connect(), net::TlsRole::client, *client_tls());
    peer.open();
    peer.send(Opcode::text, "hello");
    CHECK(peer.frame().payload == "hello");
    peer.send(Opcode::close, close_payload(1000));
    CHECK(peer.frame().opcode == 8);
    peer.wire.close();
    CHECK(world.is_empty());
    CHECK(handler.events == std::vector{text(began), text(secured), text(opened),
                                        text(frame_received, 5, Opcode::text),
                                        text(delivered, 5, Opcode::text), text(frame_queued, 5, Opcode::text),
                                        text(frame_received, 2, Opcode::close), text(close_received, 1000),
                                        text(frame_queued, 2, Opcode::close), text(close_sent, 1000),
                                        text(closed, 1000), text(gone)});
  });
}

TEST_CASE("what is compressed is told as it came, and as it was before it is sent") {
  in_every_world([](World& world) {
    Traced& handler = world.serve<Traced>({.deflate = {.enabled = true}});
    Client& client = world.open("/", "Sec-WebSocket-Extensions: permessage-deflate\r\n");
    const std::string letters = random_letters(1000), wire = RawDeflater(15).message(letters);
    client.send(Opcode::text, wire, {.rsv = 4});
    CHECK(client.frame().rsv == 4);
    handler.last.get()->send(PreparedMessage(Opcode::text, to_bytes(letters), {.enabled = true}));
    CHECK(client.frame().rsv == 4);
    CHECK(handler.events ==
          std::vector{text(began), text(opened), text(frame_received, wire.size(), Opcode::text),
                      text(delivered, 1000, Opcode::text), text(frame_queued, 1000, Opcode::text),
                      text(frame_queued, 1000, Opcode::text)});
  });
}
