#include <levada/ws/byte_stream.h>

#include <algorithm>
#include <memory>
#include <string>

#include <doctest/doctest.h>

#include <levada/tests/support/world.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

constexpr std::size_t receive_bytes = std::size_t{5} << 20;  // more than any backend hands over in one turn

// One connection's stream; what a test does not read is left unread.
struct Tunnel {
  void on_open(Connection& connection) { stream = std::make_unique<ByteStream>(connection, options); }
  void on_fragment(Connection&, Opcode, Bytes piece, bool) {
    stream->receive(piece, [this] {
      if (reads_at_once) read(1 << 20);
    });
  }
  void on_drain(Connection&) {
    drained++;
    write();
  }
  void on_close(Connection&, const CloseInfo& info) {
    code = info.code;
    if (!keeps_stream) stream.reset();
  }

  // Reads up to `size` bytes in one go; returns how many there were.
  std::size_t read(std::size_t size) {
    std::string text(size, '\0');
    const std::size_t got = stream->read({reinterpret_cast<std::uint8_t*>(text.data()), size});
    received.append(text, 0, got);
    return got;
  }
  // Writes what is left of `out`.
  void write() { out.erase(0, stream->write(to_bytes(out))); }

  ByteStreamOptions options;
  bool reads_at_once = false, keeps_stream = false;
  std::unique_ptr<ByteStream> stream;
  std::string received, out;
  int drained = 0;
  CloseCode code = CloseCode::no_status;
};

std::size_t blocks(World& world) {
  return world.reactor().blocks().blocks_in_use();
}

}  // namespace

TEST_CASE("messages and fragments are one stream, read in pieces of any size") {
  in_every_world([](World& world) {
    Tunnel& tunnel = world.serve<Tunnel>();
    Client& client = world.open();
    const std::string bytes = random_bytes(200'000);
    SeededRandom random(7);
    bool inside = false;
    for (std::size_t at = 0; at < bytes.size();) {
      const std::size_t size = std::min(bytes.size() - at, std::size_t{random.next()} % 9000);
      const bool last = random.next() % 2 == 0 || at + size == bytes.size();
      client.send(inside ? Opcode::continuation : Opcode::binary, bytes.substr(at, size), {.fin = last});
      inside = !last;
      at += size;
      world.turn();
      while (random.next() % 3 != 0 && tunnel.read(random.next() % 7000) > 0) {
      }
    }
    REQUIRE(world.until([&] { return tunnel.received.size() + tunnel.stream->unread() == bytes.size(); }));
    while (tunnel.read(1000) > 0) {
    }
    CHECK(tunnel.received == bytes);
    CHECK(tunnel.stream->unread() == 0);
  });
}

TEST_CASE("what is read at once is not kept, and what was read is given back") {
  in_every_world([](World& world) {
    Tunnel& tunnel = world.serve<Tunnel>();
    Client& client = world.open();
    world.settle();
    const std::size_t before = blocks(world);
    client.send(Opcode::binary, std::string(100'000, 'a'));
    REQUIRE(world.until([&] { return tunnel.stream->unread() == 100'000; }));
    CHECK(blocks(world) >= before + 3);
    CHECK(tunnel.read(receive_bytes) == 100'000);
    CHECK(tunnel.read(1) == 0);
    CHECK(blocks(world) == before);

    tunnel.reads_at_once = true;
    tunnel.received.clear();
    std::size_t most = 0;
    client.send(Opcode::binary, std::string(100'000, 'b'));
    REQUIRE(world.until([&] {
      most = std::max(most, tunnel.stream->unread());
      return tunnel.received.size() == 100'000;
    }));
    CHECK(most == 0);
    CHECK(tunnel.received == std::string(100'000, 'b'));
  });
}

TEST_CASE("what is read at once comes behind what was kept") {
  in_every_world([](World& world) {
    Tunnel& tunnel = world.serve<Tunnel>();
    Client& client = world.open();
    client.send(Opcode::binary, "first, ");
    REQUIRE(world.until([&] { return tunnel.stream->unread() == 7; }));
    tunnel.reads_at_once = true;
    client.send(Opcode::text, "second");
    REQUIRE(world.until([&] { return tunnel.received.size() == 13; }));
    CHECK(tunnel.received == "first, second");
  });
}

TEST_CASE("a peer is not read from while its bytes wait") {
  in_every_world([](World& world) {
    Tunnel& tunnel = world.make_handler<Tunnel>();
    tunnel.options.max_unread_bytes = 64 * 1024;
    world.listen(world.service(tunnel, {.max_message_bytes = std::uint64_t{1} << 30}));
    Client& client = world.open();
    const std::string bytes = random_bytes(std::size_t{world.kind().simulated() ? 1u : 16u} << 20);
    client.send(Opcode::binary, bytes);
    REQUIRE(world.until([&] { return tunnel.stream->unread() >= 64 * 1024; }));
    world.settle(50);
    CHECK(tunnel.stream->unread() <=
          64 * 1024 + (world.kind().simulated() ? bytes.size() / 2 : receive_bytes));
    CHECK(client.unsent() > 0);
    REQUIRE(world.until([&] {
      while (tunnel.read(50'000) > 0) {
      }
      return tunnel.received.size() == bytes.size();
    }));
    CHECK(tunnel.received == bytes);
  });
}

TEST_CASE("what is written becomes binary messages of bounded size") {
  in_every_world([](World& world) {
    Tunnel& tunnel = world.serve<Tunnel>();
    Client& client = world.open();
    REQUIRE(world.until([&] { return tunnel.stream != nullptr; }));
    const std::string bytes = random_bytes(150'000);
    CHECK(tunnel.stream->write(to_bytes(bytes)) == bytes.size());
    CHECK(tunnel.stream->write({}) == 0);
    const std::size_t sizes[] = {65536, 65536, 18928};
    std::string received;
    for (const std::size_t size : sizes) {
      const Frame frame = client.frame();
      CHECK(frame.opcode == static_cast<unsigned>(Opcode::binary));
      CHECK(frame.payload.size() == size);
      received += frame.payload;
    }
    CHECK(received == bytes);
  });
}

TEST_CASE("a write takes what the queue has room for, and the rest after a drain") {
  in_every_world([](World& world) {
    Tunnel& tunnel = world.make_handler<Tunnel>();
    world.listen(world.service(tunnel, {.max_buffered_bytes = std::size_t{12} << 20}));
    Client& client = world.open();
    client.reading = false;
    const std::string bytes = random_bytes(std::size_t{30} << 20);
    tunnel.out = bytes;
    tunnel.write();
    CHECK(tunnel.out.size() > std::size_t{18} << 20);
    CHECK(tunnel.stream->is_open());
    world.settle();
    CHECK(tunnel.drained == 0);
    client.reading = true;
    std::string received;
    while (received.size() < bytes.size()) received += client.frame().payload;
    CHECK(received == bytes);
    CHECK(tunnel.drained > 0);
  });
}

TEST_CASE("what has come can be read when the connection is gone") {
  in_every_world([](World& world) {
    Tunnel& tunnel = world.serve<Tunnel>();
    tunnel.keeps_stream = true;
    tunnel.options.max_unread_bytes = 14;  // it is paused, too
    Client& client = world.open();
    client.send(Opcode::binary, "the last words");
    REQUIRE(world.until([&] { return tunnel.stream->unread() == 14; }));
    client.close();
    tunnel.read(10);
    REQUIRE(world.until([&] { return tunnel.code == CloseCode::abnormal; }));
    CHECK(world.is_empty());
    CHECK_FALSE(tunnel.stream->is_open());
    CHECK(tunnel.stream->write(to_bytes("nobody")) == 0);
    CHECK(tunnel.read(100) == 4);
    CHECK(tunnel.received == "the last words");
    tunnel.stream.reset();
  });
}

TEST_CASE("closing ends the stream after what was written") {
  in_every_world([](World& world) {
    Tunnel& tunnel = world.serve<Tunnel>();
    Client& client = world.open();
    REQUIRE(world.until([&] { return tunnel.stream != nullptr; }));
    tunnel.stream->write(to_bytes("end"));
    tunnel.stream->close();
    CHECK(tunnel.stream->write(to_bytes("more")) == 0);
    CHECK(client.frame().payload == "end");
    CHECK(client.frame().payload == close_payload(1000));
  });
}

TEST_CASE("nothing is written where messages are dropped, which would leave out bytes of the middle") {
  in_every_world([](World& world) {
    for (const OutputPolicy policy : {OutputPolicy::drop_newest, OutputPolicy::drop_oldest}) {
      Tunnel& tunnel = world.make_handler<Tunnel>();
      Service& service = world.service(tunnel, {.output_policy = policy});
      auto [fd, client] = world.pair();
      REQUIRE(service.adopt_upgraded(std::move(fd)) != nullptr);
      CHECK(tunnel.stream->write(to_bytes("bytes")) == 0);
      tunnel.stream->close();
      client->send(Opcode::close, close_payload(1000));
      CHECK(client->is_closed_with(close_payload(1000)));
    }
  });
}
