// Connections that agreed on permessage-deflate (RFC 7692), on every backend and in both roles. The other end is
// played with zlib's own functions.
#include <levada/ws/service.h>

#include <unistd.h>
#include <cstdio>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <levada/tests/support/deflating.h>
#include <levada/tests/support/resident.h>
#include <levada/tests/support/world.h>
#include <levada/ws/accept_key.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

namespace {

constexpr unsigned rsv1 = 4;

constexpr DeflateOptions shared{.enabled = true};
constexpr DeflateOptions dedicated{
    .enabled = true, .deflater = DeflateContext::dedicated, .inflater = DeflateContext::dedicated};

constexpr DeflateOptions in_final_blocks{.enabled = true, .final_blocks = true};

const std::string offer_field = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n";

ServiceOptions with(const DeflateOptions& deflate) {
  return {.deflate = deflate};
}

// A message that came, and how it came.
struct Came {
  unsigned opcode = 0;
  std::string payload;  // inflated
  std::string wire;     // as it was in the frames
  bool compressed = false;
  std::size_t frames = 0;
};

// The other end of a connection that agreed: in both directions with zlib and one context, that is reset behind each
// message where nothing is to be taken over.
struct Deflating {
  explicit Deflating(Client& client, bool ours_taken_over = false, bool theirs_taken_over = false,
                     int window_bits = 15)
      : end(client), out(15), in(window_bits), keep_out(ours_taken_over), keep_in(theirs_taken_over) {}

  std::string compressed(std::string_view payload) {
    if (!keep_out) out.reset();
    return out.message(payload);
  }
  void send(Opcode opcode, std::string_view payload) { end.send(opcode, compressed(payload), {.rsv = rsv1}); }

  // The next message; what is no data frame before its end goes to `controls`.
  Came message() {
    Came came;
    for (;;) {
      const Frame frame = end.frame();
      if (frame.opcode >= 8) {
        CHECK(frame.rsv == 0);
        controls.push_back(frame);
        continue;
      }
      came.frames++;
      CHECK((frame.opcode == 0) == (came.frames > 1));
      if (came.frames == 1) came.opcode = frame.opcode;
      if (came.frames == 1) came.compressed = frame.rsv == rsv1;
      CHECK(frame.rsv == (came.frames == 1 && came.compressed ? rsv1 : 0));
      CHECK(frame.masked == !end.masks);
      came.wire += frame.payload;
      if (frame.fin) break;
    }
    came.payload = came.wire;
    if (came.compressed) {
      if (!keep_in) in.reset();
      came.payload = in.message(came.wire);
    }
    return came;
  }

  Client& end;
  RawDeflater out;
  RawInflater in;
  bool keep_out, keep_in;
  std::vector<Frame> controls;
};

// Opens a connection to the service that listens; the answer has to agree.
Client& agree(World& world, std::string_view fields = offer_field, std::string_view target = "/") {
  Client& client = world.connect();
  client.upgrade(target, fields);
  const Answer answer = client.answer();
  REQUIRE(answer.status == 101);
  REQUIRE(answer.head.find("permessage-deflate") != std::string::npos);
  return client;
}

// A connection in the client's role, to a server that the test plays: it answers with these extensions.
struct Dialled {
  Dialled(World& world, Service& service, std::string_view extensions) {
    auto [fd, end] = world.pair();
    server = end;
    server->masks = false;
    REQUIRE(service.dial_on(std::move(fd), {.host = "example.com", .fields = {}}) != nullptr);
    REQUIRE(world.until([&] { return server->in.ends_with("\r\n\r\n"); }));
    request = std::exchange(server->in, {});
    const AcceptKey key =
        accept_key(std::string_view(request).substr(request.find("Sec-WebSocket-Key: ") + 19, 24));
    std::string answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n";
    answer += "Sec-WebSocket-Accept: " + std::string(key.data(), key.size()) + "\r\n";
    if (!extensions.empty()) answer += "Sec-WebSocket-Extensions: " + std::string(extensions) + "\r\n";
    server->write(answer + "\r\n");
  }

  Client* server = nullptr;
  std::string request;
};

struct Refusing : Recorder {
  void on_refused(Connection&, const Refusal& refusal) { refused = refusal.error.code; }
  Errc refused = Errc::none;
};

// Shows pieces.
struct Streaming {
  void on_fragment(Connection& connection, Opcode, Bytes piece, bool last) {
    payload += to_text(piece);
    largest = std::max(largest, piece.size());
    pieces++;
    ended += last ? 1 : 0;
    if (receiving) receiving(connection);
  }
  void on_close(Connection&, const CloseInfo& info) { code = info.code; }
  std::string payload;
  std::size_t largest = 0, pieces = 0, ended = 0;
  CloseCode code = CloseCode::normal;
  std::function<void(Connection&)> receiving;
};

// Runs `test(Deflating&, Connection&, Echo&)` for an echo in both roles in every world.
template <class Test>
void in_both_roles(const ServiceOptions& options, Test&& test) {
  in_every_world([&](World& world) {
    const bool takeover = options.deflate.deflater == DeflateContext::dedicated;
    for (const Role role : {Role::server, Role::client}) {
      CAPTURE(static_cast<int>(role));
      Echo& handler = world.make_handler<Echo>();
      Service& service = world.service(handler, options, role);
      Client* end = nullptr;
      if (role == Role::server) {
        auto [fd, client] = world.pair();
        service.adopt(std::move(fd));
        client->upgrade("/", offer_field);
        REQUIRE(client->answer().head.find("permessage-deflate") != std::string::npos);
        end = client;
      } else {
        const char* const answer = takeover ? "permessage-deflate"
                                            : "permessage-deflate; server_no_context_takeover; "
                                              "client_no_context_takeover";
        end = Dialled(world, service, answer).server;
        REQUIRE(world.until([&] { return handler.opened == 1; }));
      }
      Deflating peer(*end, takeover, takeover);
      REQUIRE(handler.last.get() != nullptr);
      CHECK(handler.last.get()->compresses());
      test(peer, *handler.last.get(), handler);
      end->close();
      REQUIRE(world.until([&] { return service.connections() == 0; }));
    }
    CHECK(world.is_empty());
  });
}
template <class Test>
void in_both_roles(const DeflateOptions& options, Test&& test) {
  in_both_roles(with(options), test);
}

}  // namespace

// ---- Negotiation ----

TEST_CASE("a server answers the offers on the wire by its options") {
  struct Row {
    DeflateOptions options;
    const char* offers;
    const char* answer;  // empty: nothing is agreed on
    std::optional<DeflateAgreement> agreed = {};
  };
  const DeflateOptions small{.enabled = true, .window_bits = 9, .peer_window_bits = 10};
  const Row rows[] = {
      {{}, "permessage-deflate", ""},
      {shared, "permessage-deflate",
       "permessage-deflate; server_no_context_takeover; client_no_context_takeover", DeflateAgreement{}},
      {dedicated, "permessage-deflate", "permessage-deflate", DeflateAgreement{true, true, 15, 15}},
      {dedicated, "permessage-deflate; server_max_window_bits=9",
       "permessage-deflate; server_max_window_bits=9", DeflateAgreement{true, true, 9, 15}},
      {dedicated, "x; y=1, permessage-deflate; nonsense, permessage-deflate; server_no_context_takeover",
       "permessage-deflate; server_no_context_takeover", DeflateAgreement{false, true, 15, 15}},
      {small, "permessage-deflate", ""},
      {small, "permessage-deflate; client_max_window_bits",
       "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
       "server_max_window_bits=9; client_max_window_bits=10",
       DeflateAgreement{false, false, 9, 10}},
      {shared, "permessage-deflate; server_max_window_bits=7", ""},
  };
  in_every_world([&](World& world) {
    for (const Row& row : rows) {
      CAPTURE(row.offers);
      Echo& handler = world.make_handler<Echo>();
      Service& service = world.service(handler, with(row.options));
      auto [fd, client] = world.pair();
      service.adopt(std::move(fd));
      client->upgrade("/", "Sec-WebSocket-Extensions: " + std::string(row.offers) + "\r\n");
      const Answer answer = client->answer();
      CHECK(answer.status == 101);
      const std::string wanted = "Sec-WebSocket-Extensions: " + std::string(row.answer);
      CHECK(
          (row.answer[0] == '\0' ? answer.head.find("Extensions") == std::string::npos : answer.has(wanted)));
      REQUIRE(world.until([&] { return handler.opened == 1; }));
      CHECK(handler.last.get()->compresses() == (row.answer[0] != '\0'));
      CHECK(handler.last.get()->deflate_agreement() == row.agreed);
      client->close();
      REQUIRE(world.until([&] { return service.connections() == 0; }));
    }
    Echo& handler = world.make_handler<Echo>();
    Service& service = world.service(handler, with(shared));
    auto [fd, client] = world.pair();
    service.adopt(std::move(fd));
    client->upgrade("/", "Sec-WebSocket-Extensions: permessage-deflate; =\r\n");
    CHECK(client->answer().status == 400);
    client->close();
  });
}

TEST_CASE("a client offers by its options and refuses an answer that it did not ask for") {
  struct Row {
    DeflateOptions options;
    const char* offer;
    const char* answer;
    bool accepted, compresses;
  };
  const char* const by_default =
      "permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits";
  const Row rows[] = {
      {{}, "", "", true, false},
      {{}, "", "permessage-deflate", false, false},
      {shared, by_default, "", true, false},
      {shared, by_default, "permessage-deflate; server_no_context_takeover", true, true},
      {shared, by_default, "permessage-deflate", false, false},
      {shared, by_default, "permessage-deflate; server_no_context_takeover; x", false, false},
      {dedicated, "permessage-deflate; client_max_window_bits",
       "permessage-deflate; client_max_window_bits=9", true, true},
  };
  in_every_world([&](World& world) {
    for (const Row& row : rows) {
      CAPTURE(row.answer);
      Refusing& handler = world.make_handler<Refusing>();
      Service& service = world.service(handler, with(row.options), Role::client);
      Dialled dialled(world, service, row.answer);
      const std::string field = "\r\nSec-WebSocket-Extensions: " + std::string(row.offer) + "\r\n";
      CHECK((row.offer[0] == '\0') == (dialled.request.find("Extensions") == std::string::npos));
      if (row.offer[0] != '\0') CHECK(dialled.request.find(field) != std::string::npos);
      REQUIRE(world.until([&] { return handler.opened == 1 || service.connections() == 0; }));
      CHECK((handler.opened == 1) == row.accepted);
      if (row.accepted) CHECK(handler.last.get()->compresses() == row.compresses);
      dialled.server->close();
      REQUIRE(world.until([&] { return service.connections() == 0; }));
    }
  });
}

TEST_CASE("a handshake that was held agrees, routes have options of their own, adopt_upgraded has none") {
  in_every_world([](World& world) {
    Echo& main = world.make_handler<Echo>();
    Echo& routed = world.make_handler<Echo>();
    Service& plain = world.service(routed, {});
    Service& other = world.service(routed, with(dedicated));
    Service& service = world.service(main, with(shared));
    service.add_route("/plain", plain);
    service.add_route("/dedicated", other);
    world.listen(service);
    const std::string payload = json_text(2000);

    CHECK(world.open("/plain", offer_field).in.empty());
    CHECK(!routed.last.get()->compresses());
    for (const bool held : {false, true}) {
      CAPTURE(held);
      std::optional<UpgradeTicket> ticket;
      routed.upgrading = [&](Upgrade& upgrade) {
        if (held) ticket = upgrade.hold();
      };
      Client& client = world.connect();
      client.upgrade("/dedicated", offer_field);
      Deflating peer(client, true, true);
      peer.send(Opcode::text, payload);  // before the answer
      if (held) {
        REQUIRE(world.until([&] { return ticket.has_value(); }));
        world.settle();
        ticket->accept();
      }
      CHECK(client.answer().has("Sec-WebSocket-Extensions: permessage-deflate"));
      for (int i = 0; i < 3; i++) {
        const Came came = peer.message();
        CHECK(came.payload == payload);
        CHECK(came.compressed);
        if (i > 0) CHECK(came.wire.size() < 200);  // it refers to the message before
        if (i < 2) peer.send(Opcode::text, payload);
      }
      client.close();
    }
    Deflating on_main(agree(world, offer_field, "/"));
    on_main.send(Opcode::text, payload);
    CHECK(on_main.message().wire.size() > 200);

    auto [fd, client] = world.pair();
    Connection* const adopted = service.adopt_upgraded(std::move(fd));
    CHECK(!adopted->compresses());
    client->send(Opcode::text, RawDeflater(15).message(payload), {.rsv = rsv1});
    CHECK(client->is_closed_with(close_payload(1002)));
  });
}

// ---- Messages ----

TEST_CASE("messages of all sizes are compressed both ways, in both roles and with every context") {
  for (const DeflateOptions& options : {shared, dedicated, in_final_blocks}) {
    in_both_roles(options, [](Deflating& peer, Connection&, Echo& handler) {
      for (const std::size_t size : {0u, 1u, 127u, 128u, 511u, 512u, 4096u, 70'000u, 300'000u}) {
        CAPTURE(size);
        const std::string payload = json_text(size, size + 1);
        for (const Opcode opcode : {Opcode::text, Opcode::binary}) {
          peer.send(opcode, payload);
          const Came came = peer.message();
          CHECK(came.payload == payload);
          CHECK(came.opcode == static_cast<unsigned>(opcode));
          CHECK(came.compressed == (size >= 128));
          CHECK(came.frames == 1);
          if (size >= 4096) CHECK(came.wire.size() < size / 2);
        }
      }
      const std::string noise = random_bytes(100'000);
      peer.send(Opcode::binary, noise);
      const Came came = peer.message();
      CHECK(came.payload == noise);
      CHECK(came.compressed == peer.keep_in);  // it does not get shorter, but later ones may refer to it
      peer.end.send(Opcode::text, "not compressed");
      CHECK(peer.message().payload == "not compressed");
      CHECK(handler.messages.size() == 20);
    });
  }
}

TEST_CASE("fragments come in and go out, with control frames between them that are never compressed") {
  for (const DeflateOptions& options : {shared, dedicated}) {
    in_both_roles(options, [](Deflating& peer, Connection& connection, Echo& handler) {
      for (std::uint64_t round = 1; round <= 3; round++) {
        const std::string payload = json_text(20'000, round);
        peer.controls.clear();
        const std::string wire = peer.compressed(payload);
        for (std::size_t at = 0; at < wire.size(); at += 700) {
          peer.end.send(at == 0 ? Opcode::text : Opcode::continuation, wire.substr(at, 700),
                        {.fin = at + 700 >= wire.size(), .rsv = at == 0 ? rsv1 : 0});
          peer.end.send(Opcode::ping, std::string(125, 'p'));
        }
        const Came back = peer.message();
        CHECK(back.payload == payload);
        CHECK(!peer.controls.empty());
        for (const Frame& frame : peer.controls) CHECK(frame.payload == std::string(125, 'p'));

        for (std::size_t at = 0; at < payload.size(); at += 3000) {
          const Bytes piece = to_bytes(std::string_view(payload).substr(at, 3000));
          CHECK(connection.send_fragment(Opcode::binary, piece, at + 3000 >= payload.size()) ==
                SendStatus::queued);
          CHECK(connection.ping(to_bytes(std::string(125, 'q'))) == SendStatus::queued);
        }
        peer.controls.clear();
        const Came came = peer.message();
        CHECK(came.payload == payload);
        CHECK(came.compressed);
        CHECK(came.frames == 7);
        CHECK(came.opcode == 2);
        CHECK(peer.controls.size() >= 6);
        CHECK(connection.send_fragment(Opcode::text, {}, false) == SendStatus::queued);
        CHECK(connection.send_fragment(Opcode::text, {}, true) == SendStatus::queued);
        CHECK(peer.message().payload.empty());
        CHECK(connection.send_text(payload) == SendStatus::queued);
        CHECK(peer.message().payload == payload);
      }
      CHECK(handler.messages.size() == 3);
    });
  }
}

TEST_CASE("a deflater of a message in fragments serves the connections that follow") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>(with(shared));
    const std::string payload = json_text(2000);
    std::size_t after_first = 0;
    for (int i = 0; i < 4; i++) {
      Deflating peer(agree(world));
      REQUIRE(world.until([&] { return handler.opened == i + 1; }));
      Connection& connection = *handler.last.get();
      for (const bool last : {false, true}) connection.send_fragment(Opcode::text, to_bytes(payload), last);
      CHECK(peer.message().payload == payload + payload);
      world.settle();
      if (i == 0) after_first = world.reactor().blocks().bytes_in_use();
      CHECK(world.reactor().blocks().bytes_in_use() <= after_first);
    }
  });
}

TEST_CASE("Compress::never, short messages and payloads in parts go as they are told to") {
  for (const DeflateOptions& options : {shared, dedicated}) {
    in_both_roles(options, [](Deflating& peer, Connection& connection, Echo&) {
      const std::string payload = json_text(4000);
      connection.send(Opcode::text, to_bytes(payload), Compress::never);
      CHECK(!peer.message().compressed);
      connection.send(Opcode::text, to_bytes(payload));
      CHECK(peer.message().payload == payload);
      const Bytes parts[] = {to_bytes(payload), to_bytes("-"), to_bytes(payload)};
      connection.send(Opcode::text, parts);
      const Came came = peer.message();
      CHECK(came.compressed);
      CHECK(came.payload == payload + "-" + payload);
      connection.send(Opcode::text, connection.keep(to_bytes(payload)));
      CHECK(peer.message().payload == payload);
      connection.send_text(std::string(127, 'a'));
      CHECK(!peer.message().compressed);
      connection.send_text(std::string(128, 'a'));
      CHECK(peer.message().compressed);
    });
  }
}

TEST_CASE("each way to send compresses or not as it is told to") {
  for (const DeflateOptions& options : {shared, dedicated}) {
    in_both_roles(options, [](Deflating& peer, Connection& connection, Echo&) {
      const std::string large = json_text(4000), small = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
      for (const std::string& payload : {large, small}) {
        const Bytes bytes = to_bytes(payload);
        const Bytes parts[] = {bytes.first(10), bytes.subspan(10)};
        for (const Compress compress : {Compress::automatic, Compress::never, Compress::always}) {
          CAPTURE(payload.size());
          CAPTURE(static_cast<int>(compress));
          const auto came = [&](bool compressed) {
            const Came message = peer.message();
            CHECK(message.payload == payload);
            CHECK(message.compressed == compressed);
          };
          const bool wanted =
              compress == Compress::always || (compress == Compress::automatic && payload == large);
          CHECK(connection.send(Opcode::text, bytes, compress) == SendStatus::queued);
          came(wanted);
          CHECK(connection.send_text(payload, compress) == SendStatus::queued);
          came(wanted);
          CHECK(connection.send(Opcode::text, parts, compress) == SendStatus::queued);
          came(wanted);
          CHECK(connection.send(Opcode::text, connection.keep(bytes), compress) == SendStatus::queued);
          came(wanted);
          connection.handle().send(Opcode::text, bytes, nullptr, compress);
          came(wanted);
          CHECK(connection.send_fragment(Opcode::text, parts[0], false, compress) == SendStatus::queued);
          CHECK(connection.send_fragment(Opcode::text, parts[1], true) == SendStatus::queued);
          came(compress != Compress::never);
          const PreparedMessage plain(Opcode::text, bytes), prepared(Opcode::text, bytes, shared);
          const bool client = connection.role() == Role::client;
          CHECK(connection.send(plain, compress) == SendStatus::queued);
          came(client && wanted);
          const bool takes = client || peer.keep_in ? wanted : compress != Compress::never;
          CHECK(connection.send(prepared, compress) == SendStatus::queued);
          came(takes);
          connection.handle().send(prepared, nullptr, compress);
          came(takes);
        }
      }
    });
  }
}

TEST_CASE("with takeover a message that fits, but might not when compressed, goes as it is") {
  ServiceOptions options = with(dedicated);
  options.max_buffered_bytes = 64 * 1024;
  in_both_roles(options, [](Deflating& peer, Connection& connection, Echo&) {
    const std::string noise = random_bytes(60'000);
    const Bytes bytes = to_bytes(noise);
    for (int i = 0; i < 3; i++) {
      REQUIRE(connection.send(Opcode::binary, bytes) == SendStatus::queued);
      Came came = peer.message();
      CHECK(came.payload == noise);
      CHECK(!came.compressed);
      REQUIRE(connection.send_fragment(Opcode::binary, bytes, true) == SendStatus::queued);
      came = peer.message();
      CHECK(came.payload == noise);
      CHECK(!came.compressed);
      REQUIRE(connection.send(Opcode::binary, bytes.first(50'000)) == SendStatus::queued);
      came = peer.message();
      CHECK(came.payload == noise.substr(0, 50'000));
      CHECK(came.compressed);
    }
  });
}

TEST_CASE(
    "whole messages end with a final block where that was asked for, and what comes like that is inflated") {
  in_both_roles(in_final_blocks, [](Deflating& peer, Connection& connection, Echo& handler) {
    for (const std::size_t size : {2000u, 30'000u}) {
      const std::string payload = json_text(size);
      std::string wire = RawDeflater(15).run(payload, Z_FINISH) + std::string(1, '\0');
      peer.end.send(Opcode::text, wire, {.rsv = rsv1});
      const Came came = peer.message();
      CHECK(came.payload == payload);
      CHECK(handler.messages.back().payload == payload);
      CHECK(came.compressed);
      CHECK(came.wire.back() == '\0');  // what follows a final block, and ends libdeflate's
      connection.send_fragment(Opcode::text, to_bytes(payload), false);
      connection.send_fragment(Opcode::text, to_bytes(payload), true);
      CHECK(peer.message().payload == payload + payload);
    }
  });
}

TEST_CASE("an inflated message is echoed in place when it is not compressed, and may be kept") {
  in_both_roles(shared, [](Deflating& peer, Connection&, Echo& handler) {
    const std::string payload = json_text(30'000);
    std::vector<PayloadRef> kept;
    handler.receiving = [&](Connection& connection, Opcode opcode, MutableBytes message) {
      kept.push_back(connection.keep(message));
      connection.send(opcode, message, Compress::never);
      connection.send(opcode, message, Compress::never);  // a copy
    };
    for (int i = 0; i < 3; i++) {
      peer.send(Opcode::text, payload);
      for (int copy = 0; copy < 2; copy++) {
        const Came came = peer.message();
        CHECK(came.payload == payload);
        CHECK(!came.compressed);
      }
    }
    REQUIRE(kept.size() == 3);
    for (const PayloadRef& ref : kept) CHECK(to_text(ref.bytes()) == payload);
  });
}

// ---- Contexts ----

TEST_CASE("takeover is used where it was agreed on and given up where it was not") {
  in_every_world([](World& world) {
    world.serve<Echo>(with(dedicated));
    const std::string payload = random_letters(3000);
    const auto second = [&](std::string_view parameters, bool ours, bool theirs) {
      const std::string field =
          "Sec-WebSocket-Extensions: permessage-deflate" + std::string(parameters) + "\r\n";
      Client& client = agree(world, field);
      Deflating peer(client, ours, theirs);
      std::size_t size = 0;
      for (int i = 0; i < 3; i++) {
        peer.send(Opcode::text, payload);
        const Came came = peer.message();
        CHECK(came.payload == payload);
        size = came.wire.size();
      }
      client.close();
      return size;
    };
    CHECK(second("", true, true) < 100);
    CHECK(second("; client_no_context_takeover", false, true) < 100);
    CHECK(second("; server_no_context_takeover", true, false) > 1000);
    CHECK(second("; server_no_context_takeover; client_no_context_takeover", false, false) > 1000);
  });
}

TEST_CASE("a message that refers to one before it is invalid where nothing is taken over") {
  in_every_world([](World& world) {
    world.serve<Echo>(with(shared));
    Client& client = agree(world);
    Deflating peer(client, true);
    const std::string payload = random_letters(3000);
    peer.send(Opcode::text, payload);
    CHECK(peer.message().payload == payload);
    peer.send(Opcode::text, payload);
    CHECK(client.is_closed_with(close_payload(1007)));
  });
}

TEST_CASE("server_max_window_bits keeps what is sent within that window") {
  in_every_world([](World& world) {
    world.serve<Echo>(with(dedicated));
    const std::string part = random_letters(1000);
    for (const int bits : {8, 9, 10, 15}) {
      CAPTURE(bits);
      const std::string field =
          "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=" + std::to_string(bits) +
          "\r\n";
      Client& client = agree(world, field);
      // Inflating with that window fails where it is referred to what lies further back.
      Deflating peer(client, true, true, bits);
      peer.send(Opcode::text, part + part);
      Came came = peer.message();
      CHECK(came.payload == part + part);
      // 1000 bytes back is further than zlib looks with a window of 1024.
      CHECK((came.wire.size() > 1200) == (bits <= 10));
      const std::string close = part.substr(0, 200);
      peer.send(Opcode::text, close + close);
      came = peer.message();
      CHECK(came.payload == close + close);
      client.close();
    }
  });
}

TEST_CASE(
    "a prepared message is compressed once for all who can take it, by those with takeover, and else plain") {
  in_every_world([](World& world) {
    const std::string payload = json_text(4000);
    Recorder& alone = world.make_handler<Recorder>();
    Recorder& taking_over = world.make_handler<Recorder>();
    Service& with_takeover = world.service(taking_over, with(dedicated));
    Service& service = world.service(alone, with(shared));
    service.add_route("/dedicated", with_takeover);
    service.add_route("/", service);
    world.listen(service);
    std::vector<Handle> handles;
    const auto note = [&](Connection& connection) { handles.push_back(connection.handle()); };
    alone.opening = taking_over.opening = note;
    const std::string small = "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=9\r\n";
    Client* const ends[] = {&agree(world), &agree(world), &agree(world, small), &world.open(),
                            &agree(world, offer_field, "/dedicated")};
    REQUIRE(world.until([&] { return handles.size() == 5; }));
    const PreparedMessage message(Opcode::text, to_bytes(payload), shared);
    CHECK(!message.compressed_frame().empty());
    for (const Handle& handle : handles) CHECK(handle.get()->send(message) == SendStatus::queued);
    Deflating taking(*ends[4], true, true);
    for (std::size_t i = 0; i < 5; i++) {
      CAPTURE(i);
      Deflating fresh(*ends[i], true, true);
      Deflating& peer = i == 4 ? taking : fresh;
      const Came came = peer.message();
      CHECK(came.payload == payload);
      CHECK(came.compressed == (i < 2 || i == 4));
    }
    // It is part of what later messages refer to.
    CHECK(handles[4].get()->send(message) == SendStatus::queued);
    const Came again = taking.message();
    CHECK(again.payload == payload);
    CHECK(again.wire.size() < 200);
    const PreparedMessage narrow(Opcode::text, to_bytes(payload), {.enabled = true, .window_bits = 9});
    CHECK(handles[2].get()->send(narrow) == SendStatus::queued);
    const Came came = Deflating(*ends[2], true, true, 9).message();
    CHECK(came.compressed);
    CHECK(came.payload == payload);
  });
}

TEST_CASE("what drop_oldest drops never breaks a stream that is taken over") {
  for (const DeflateOptions& options : {shared, dedicated}) {
    in_every_world(
        [&](World& world) {
          ServiceOptions service = with(options);
          service.output_policy = OutputPolicy::drop_oldest;
          service.max_buffered_bytes = 64 * 1024;
          Recorder& handler = world.serve<Recorder>(service);
          Client& client = agree(world);
          REQUIRE(world.until([&] { return handler.opened == 1; }));
          const bool takeover = options.deflater == DeflateContext::dedicated;
          Deflating peer(client, takeover, takeover);
          client.reading = false;
          std::size_t dropped = 0, sent = 0;
          for (std::uint64_t i = 0; i < 1500; i++) {
            const std::string payload = std::to_string(i) + ":" + random_letters(6000, i + 1);
            const auto how = i % 3 == 0 ? Compress::never : Compress::automatic;
            const SendStatus status = handler.last.get()->send(Opcode::text, to_bytes(payload), how);
            (status == SendStatus::queued ? sent : dropped)++;
            if (i % 4 == 0) world.turn(0);
          }
          const Counters& counters = world.last_service().counters();
          CHECK(counters.messages_dropped.value() > 0);
          REQUIRE(sent + dropped == 1500);
          client.reading = true;
          handler.last.get()->close();
          std::size_t came = 0;
          std::int64_t last = -1;
          for (;;) {
            Frame frame = client.frame();
            if (frame.opcode == 8) break;
            if (frame.rsv == rsv1 && !takeover) peer.in.reset();
            const std::string payload = frame.rsv == rsv1 ? peer.in.message(frame.payload) : frame.payload;
            const std::int64_t number = std::atoll(payload.c_str());
            CHECK(number > last);
            last = number;
            const std::string wanted =
                std::to_string(number) + ":" + random_letters(6000, static_cast<std::uint64_t>(number) + 1);
            REQUIRE(payload == wanted);
            came++;
          }
          CHECK(came + counters.messages_dropped.value() == 1500);
        },
        real_kinds());
  }
}

// ---- Slices ----

namespace {

constexpr std::size_t slice = 1024;
constexpr DeflateOptions in_slices{.enabled = true, .slice_bytes = slice};

// Without faults, which cost turns.
std::vector<Kind> few_kinds() {
  std::vector<Kind> kinds = real_kinds();
  kinds.push_back({"simulated", net::BackendKind::simulated});
  return kinds;
}

// Runs `test(World&, std::vector<Client*>&, Echo&)` with so many connections of an echo.
template <class Test>
void in_both_roles_of_few(const ServiceOptions& options, std::size_t connections, Test&& test) {
  for (const Role role : {Role::server, Role::client}) {
    CAPTURE(static_cast<int>(role));
    in_every_world(
        [&](World& world) {
          Echo& handler = world.make_handler<Echo>();
          Service& service = world.service(handler, options, role);
          if (role == Role::server) world.listen(service);
          std::vector<Client*> ends;
          for (std::size_t i = 0; i < connections; i++) {
            const char* const answer =
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
            ends.push_back(role == Role::server ? &agree(world) : Dialled(world, service, answer).server);
          }
          REQUIRE(world.until([&] { return handler.opened == static_cast<int>(connections); }));
          test(world, ends, handler);
        },
        few_kinds());
  }
}

}  // namespace

TEST_CASE("a message of many slices comes whole, and what is behind it in order") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>(with(in_slices));
    Client& client = agree(world);
    Deflating peer(client);
    const std::string payload = json_text(100'000);
    std::vector<Recorder::Message> wanted;
    for (int i = 0; i < 3; i++) {
      peer.send(Opcode::text, payload);
      client.send(Opcode::ping, "behind " + std::to_string(i));
      client.send(Opcode::text, "plain");
      peer.send(Opcode::binary, "short");
      wanted.insert(wanted.end(),
                    {{Opcode::text, payload}, {Opcode::text, "plain"}, {Opcode::binary, "short"}});
    }
    for (const Recorder::Message& message : wanted) {
      if (message.payload.size() > slice) CHECK(peer.controls.size() == handler.pings.size());
      CHECK(peer.message().payload == message.payload);
    }
    CHECK(handler.messages == wanted);
    CHECK(handler.pings == std::vector<std::string>{"behind 0", "behind 1", "behind 2"});
    client.send(Opcode::close, close_payload(1000));
    CHECK(client.is_closed_with(close_payload(1000)));
  });
}

TEST_CASE("other connections are served between the slices of one, and between many small messages") {
  for (const bool many : {false, true}) {
    CAPTURE(many);
    in_every_world(
        [&](World& world) {
          Recorder& handler = world.make_handler<Recorder>();
          handler.recording = false;
          std::size_t turns = 0, large = 0, in_a_turn = 0, most = 0;
          std::vector<std::size_t> served;  // in which turn
          handler.receiving = [&](Connection&, Opcode opcode, MutableBytes payload) {
            if (opcode == Opcode::text) return served.push_back(turns);
            large += payload.size();
            in_a_turn += payload.size();
            most = std::max(most, in_a_turn);
          };
          world.listen(world.service(handler, with(in_slices)));
          Client& busy = agree(world);
          Client& other = agree(world);
          Deflating peer(busy);
          const std::string one = peer.compressed(std::string(many ? slice / 2 : 200 * slice, 'x'));
          const std::size_t count = many ? 400 : 1;
          std::string wire;
          for (std::size_t i = 0; i < count; i++) wire += client_frame(Opcode::binary, one, {.rsv = rsv1});
          busy.write(wire);
          while (large < 200 * slice && turns < 20'000) {
            other.send(Opcode::text, "hi");
            in_a_turn = 0;
            world.turn(0);
            turns++;
          }
          CHECK(large == 200 * slice);
          CHECK(turns >= 100);
          CHECK(served.size() >= turns / 20);
          if (many) CHECK(most <= 3 * slice);
        },
        few_kinds());
  }
}

TEST_CASE("many bombs take no more of a turn than one, on whatever routes they come") {
  constexpr std::size_t slice_bytes = 64 * 1024, share = slice_bytes / 4, bombs = 12;
  in_every_world(
      [&](World& world) {
        std::size_t inflated = 0;
        std::vector<Streaming*> handlers;
        Service* routes[2] = {};
        for (Service*& route : routes) {
          Streaming& handler = world.make_handler<Streaming>();
          handlers.push_back(&handler);
          route = &world.service(handler, with(shared));
        }
        routes[0]->add_route("/other", *routes[1]);
        routes[0]->add_route("/", *routes[0]);
        world.listen(*routes[0]);
        std::vector<Client*> clients;
        for (std::size_t i = 0; i < bombs; i++)
          clients.push_back(&agree(world, offer_field, i % 2 == 0 ? "/" : "/other"));
        const std::string payload(20 * slice_bytes, 'x');
        for (Client* client : clients) Deflating(*client).send(Opcode::binary, payload);
        const auto sum = [&] { return handlers[0]->payload.size() + handlers[1]->payload.size(); };
        REQUIRE(world.until([&] { return sum() >= bombs * slice_bytes; }));  // each has had its first slice
        std::size_t most = 0;
        REQUIRE(world.until([&] {
          most = std::max(most, sum() - std::exchange(inflated, sum()));
          if (inflated == most) most = 0;  // the first time
          return handlers[0]->ended + handlers[1]->ended == bombs;
        }));
        CHECK(most <= share + 2 * 2048);
        CHECK(most >= share / 2);
      },
      few_kinds());
}

TEST_CASE("blocks that inflate to nothing are charged for the time that they take") {
  for (const std::size_t bombs : {1u, 8u}) {
    in_both_roles_of_few(with(shared), bombs, [&](World& world, std::vector<Client*>& ends, Echo& handler) {
      const std::string wire = empty_blocks(60'000);
      for (Client* end : ends) end->send(Opcode::binary, wire, {.rsv = rsv1});
      std::size_t turns = 0;
      while (handler.messages.size() < bombs && turns < 100'000) {
        world.turn(0);
        turns++;
      }
      CHECK(handler.messages == std::vector<Recorder::Message>(bombs, {Opcode::binary, ""}));
      // An eighth of a slice of 64 KiB at most for one of which a piece comes in each turn, and of a quarter of a slice for
      // all that wait: which they do not when what is received at once is less than that eighth.
      const bool waits = bombs > 1 && world.kind().incremental;
      CHECK(turns >= (!waits ? 60'000 / (8 * 1024) : bombs * (60'000 - 8 * 1024) / (2 * 1024 + 300)));
    });
  }
}

TEST_CASE("a message that is streamed is inflated in slices, too") {
  in_every_world([](World& world) {
    Streaming& handler = world.serve<Streaming>(with(in_slices));
    Client& client = agree(world);
    Deflating peer(client);
    const std::string payload = json_text(200'000);
    peer.send(Opcode::text, payload);
    std::size_t most = 0, before = 0;
    REQUIRE(world.until([&] {
      most = std::max(most, handler.payload.size() - before);
      before = handler.payload.size();
      return handler.ended == 1;
    }));
    CHECK(handler.payload == payload);
    CHECK(handler.largest <= slice);
    CHECK(most <= 2 * slice);
  });
}

TEST_CASE("a connection may be paused, closed, cut and shut down in the middle of its slices") {
  enum class How { pause, close, terminate, shut_down, reset, finish, streaming_terminate };
  for (const How how : {How::pause, How::close, How::terminate, How::shut_down, How::reset, How::finish,
                        How::streaming_terminate}) {
    CAPTURE(static_cast<int>(how));
    in_every_world([&](World& world) {
      const std::string payload = json_text(100'000);
      if (how == How::streaming_terminate) {
        Streaming& handler = world.serve<Streaming>(with(in_slices));
        handler.receiving = [](Connection& connection) { connection.terminate(); };
        Client& client = agree(world);
        Deflating(client).send(Opcode::text, payload);
        REQUIRE(world.until([&] { return client.ended || client.was_reset; }));
        CHECK(handler.pieces == 1);
        CHECK(world.is_empty());
        return;
      }
      Echo& handler = world.serve<Echo>(with(in_slices));
      Service& service = world.last_service();
      Client& client = agree(world);
      REQUIRE(world.until([&] { return handler.opened == 1; }));
      Deflating peer(client);
      peer.send(Opcode::text, payload);
      peer.send(Opcode::text, "behind");
      world.settle(3);
      Connection* const connection = handler.last.get();
      REQUIRE(connection != nullptr);
      switch (how) {
        case How::pause:
          connection->pause();
          world.settle(50);
          connection->resume();
          CHECK(peer.message().payload == payload);
          CHECK(peer.message().payload == "behind");
          client.close();
          break;
        case How::close:
          connection->close(CloseCode::normal, "enough");
          client.send(Opcode::close, close_payload(1000));
          CHECK(client.is_closed_with(close_payload(1000, "enough")));
          client.close();
          break;
        case How::terminate:
          connection->terminate();
          REQUIRE(world.until([&] { return client.ended || client.was_reset; }));
          break;
        case How::shut_down:
          service.shut_down();
          client.send(Opcode::close, close_payload(1001));
          CHECK(client.is_closed_with(close_payload(1001)));
          client.close();
          break;
        case How::reset:
          client.reset();
          break;
        case How::finish:
          REQUIRE(world.until([&] { return client.unsent() == 0; }));
          client.shut_down();
          REQUIRE(world.until([&] { return handler.closes.size() == 1; }));
          CHECK(handler.messages ==
                std::vector<Recorder::Message>{{Opcode::text, payload}, {Opcode::text, "behind"}});
          CHECK(handler.closes[0].by == ClosedBy::transport);
          break;
        case How::streaming_terminate:
          break;
      }
      REQUIRE(world.until([&] { return handler.closes.size() == 1; }));
      CHECK(world.is_empty());
      CHECK(service.counters().close_timeouts.value() == 0);
    });
  }
}

TEST_CASE(
    "each compressed message of a busy stream has the whole time, though none of the receives ends with "
    "one") {
  for (const DeflateOptions& options : {shared, dedicated}) {
    World world({"simulated", net::BackendKind::simulated});
    ServiceOptions service = with(options);
    service.message_timeout_ms = 90;
    Echo& handler = world.serve<Echo>(service);
    Deflating peer(agree(world));
    const std::string payload = json_text(1000);
    std::string wire = client_frame(Opcode::text, peer.compressed(payload), {.rsv = rsv1});
    const std::uint64_t began_ms = world.reactor().now_ms();
    const auto reach = [&](std::uint64_t ms) {
      while (world.reactor().now_ms() < began_ms + ms) world.turn();
    };
    peer.end.write(wire.substr(0, 50));
    for (std::uint32_t i = 1; i <= 5; i++) {
      reach(i * 80);
      const std::string next = client_frame(Opcode::text, peer.compressed(payload), {.rsv = rsv1});
      peer.end.write(wire.substr(50) + next.substr(0, 50));
      wire = next;
      REQUIRE(world.until([&] { return handler.messages.size() == i || handler.closes.size() == 1; }));
      CHECK(handler.closes.empty());
    }
    reach(400 + 95);
    REQUIRE(handler.closes.size() == 1);
    CHECK(handler.closes[0].reason == "message_timeout");
  }
}

TEST_CASE("invalid data behind the transport's end fails the connection, and it goes") {
  in_every_world([](World& world) {
    Echo& handler = world.serve<Echo>(with(in_slices));
    Client& client = agree(world);
    Deflating peer(client);
    std::string wire = peer.compressed(random_letters(100'000));
    wire[wire.size() / 2] = static_cast<char>(wire[wire.size() / 2] ^ 0xff);
    wire.resize(wire.size() / 2 + 200);
    wire += std::string(50, '\xff');
    client.send(Opcode::text, wire, {.rsv = rsv1});
    REQUIRE(world.until([&] { return client.unsent() == 0; }));
    client.shut_down();
    REQUIRE(world.until([&] { return handler.closes.size() == 1; }));
    CHECK(handler.closes[0].code == CloseCode::invalid_payload);
    CHECK(handler.messages.empty());
    CHECK(world.is_empty());
  });
}

// ---- What is refused ----

TEST_CASE("what breaks the rules fails the connection with the right code") {
  in_every_world([](World& world) {
    ServiceOptions options = with({.enabled = true, .max_ratio = 20});
    options.max_message_bytes = 120'000;
    Echo& handler = world.serve<Echo>(options);
    const auto fails = [&](unsigned code, auto send) {
      CAPTURE(code);
      Client& client = agree(world);
      Deflating peer(client);
      send(client, peer);
      Frame frame = client.frame();
      CHECK(frame.opcode == 8);
      CHECK(frame.payload.substr(0, 2) == close_payload(code));
      CHECK(client.reaches_end());
      client.close();
    };
    fails(1007, [](Client& client, Deflating&) {
      client.send(Opcode::binary, "\xff\xff\xff\xff garbage", {.rsv = rsv1});
    });
    fails(1007, [](Client& client, Deflating& peer) {  // cut off
      client.send(Opcode::binary, peer.compressed(json_text(1000)).substr(0, 100), {.rsv = rsv1});
    });
    fails(1007, [](Client&, Deflating& peer) { peer.send(Opcode::text, "caf\xe9 and more"); });
    fails(1007, [](Client&, Deflating& peer) { peer.send(Opcode::text, "cut \xe2\x82"); });
    fails(1007, [](Client&, Deflating& peer) {
      peer.send(Opcode::text, random_letters(50'000) + "\xff" + random_letters(50'000));
    });
    fails(1002, [](Client& client, Deflating& peer) {
      const std::string wire = peer.compressed(json_text(1000));
      client.send(Opcode::text, wire.substr(0, 10), {.fin = false, .rsv = rsv1});
      client.send(Opcode::continuation, wire.substr(10), {.rsv = rsv1});
    });
    fails(1002, [](Client& client, Deflating&) { client.send(Opcode::ping, "x", {.rsv = rsv1}); });
    fails(1002, [](Client& client, Deflating&) { client.send(Opcode::text, "x", {.rsv = 2}); });
    fails(1009, [](Client&, Deflating& peer) {  // too large, at a ratio that is allowed
      peer.send(Opcode::text, random_letters(120'001));
    });
    fails(1009, [](Client&, Deflating& peer) { peer.send(Opcode::text, std::string(110'000, 'a')); });
    CHECK(handler.messages.empty());
    Deflating fine(agree(world));
    fine.send(Opcode::text, random_letters(120'000));
    CHECK(fine.message().payload.size() == 120'000);
    fails(1009,
          [](Client& client, Deflating&) {  // blocks of nothing, longer than any message within the limit
            client.send(Opcode::binary, empty_blocks(140'000), {.rsv = rsv1});
          });

    Client& plain = world.open();
    plain.send(Opcode::text, RawDeflater(15).message("hello"), {.rsv = rsv1});
    CHECK(plain.frame().payload.substr(0, 2) == close_payload(1002));
  });
}

TEST_CASE(
    "a compressed message is taken up to the bound on its inflated bytes, and one more is closed with 1009") {
  constexpr std::size_t limit = 100'000;
  for (const std::size_t size : {limit - 1, limit, limit + 1}) {
    CAPTURE(size);
    in_every_world([size](World& world) {
      ServiceOptions options = with({.enabled = true});
      options.max_message_bytes = limit;
      Recorder& handler = world.serve<Recorder>(options);
      Client& client = agree(world);
      Deflating(client).send(Opcode::text, random_letters(size));
      REQUIRE(world.until([&] { return handler.messages.size() + handler.closes.size() == 1; }));
      CHECK(handler.messages.size() == (size <= limit ? 1 : 0));
      if (size > limit) CHECK(client.is_closed_with(close_payload(1009)));
    });
  }
}

TEST_CASE("max_message_bytes is that of the message, also where compressing makes it longer") {
  for (const DeflateOptions& deflate : {shared, dedicated}) {
    for (const std::size_t limit : {1000u, 100'000u}) {
      ServiceOptions options = with(deflate);
      options.max_message_bytes = limit;
      for (const bool fits : {true, false}) {
        in_both_roles(options, [&](Deflating& peer, Connection&, Echo&) {
          const std::string noise = random_bytes(fits ? limit : limit + 1, 7);
          const auto answered = [&] {
            if (fits) CHECK(peer.message().payload == noise);
            if (!fits) CHECK(peer.end.frame().payload == close_payload(1009));
          };
          peer.end.send(Opcode::binary, noise.substr(0, limit));  // plain: the limit is the same
          CHECK(peer.message().payload == noise.substr(0, limit));
          peer.send(Opcode::binary, noise);
          answered();
          if (!fits) return;
          const std::string other = random_bytes(limit, 8);
          const std::string wire = peer.compressed(other);
          CHECK(wire.size() > limit);
          for (std::size_t at = 0; at < wire.size(); at += wire.size() / 3) {
            peer.end.send(at == 0 ? Opcode::binary : Opcode::continuation, wire.substr(at, wire.size() / 3),
                          {.fin = at + wire.size() / 3 >= wire.size(), .rsv = at == 0 ? rsv1 : 0});
          }
          CHECK(peer.message().payload == other);
          // Flushed behind each byte, for which zlib takes 7.
          if (!peer.keep_out) peer.out.reset();
          for (std::size_t at = 0; at < 1000; at++) {
            const std::string_view piece = std::string_view(other).substr(at, 1);
            const std::string part = at < 999 ? peer.out.run(piece, Z_SYNC_FLUSH) : peer.out.message(piece);
            peer.end.send(at == 0 ? Opcode::binary : Opcode::continuation, part,
                          {.fin = at == 999, .rsv = at == 0 ? rsv1 : 0});
          }
          CHECK(peer.message().payload == other.substr(0, 1000));
          // As long as it gets: with the least memory, a block ends after 127 bytes.
          const std::string longest = RawDeflater(15, 6, 1).message(other);
          CHECK(longest.size() > limit + limit / 40);
          peer.end.send(Opcode::binary, longest, {.rsv = rsv1});
          CHECK(peer.message().payload == other);
        });
      }
    }
  }
}

TEST_CASE("a gigabyte in a megabyte is refused at the limit, with no more memory than that") {
  const std::string piece = RawDeflater(15, 9).run(std::string(std::size_t{1} << 20, '\0'), Z_FULL_FLUSH);
  std::string bomb;
  for (int i = 0; i < 1024; i++) bomb += piece;  // each forgets those before
  CHECK(bomb.size() <= (std::size_t{11} << 20) / 10);
  constexpr std::size_t limit = std::size_t{16} << 20;
  std::vector<Kind> kinds = real_kinds();
  kinds.push_back({"simulated", net::BackendKind::simulated});
  in_every_world(
      [&](World& world) {
        ServiceOptions options = with(shared);
        options.max_message_bytes = limit;
        world.serve<Recorder>(options);
        Client& client = agree(world);
        Deflating peer(client);
        peer.send(Opcode::text, std::string(200, 'a'));  // what the first message needs is there,
        for (int i = 0; i < 8000; i++)
          client.send(Opcode::binary, std::string(125, 'a'));  // buffers are, too
        world.settle();
        client.send(Opcode::binary, bomb, {.rsv = rsv1});
        const auto pooled = [&] {  // what is kept for reuse included
          return world.reactor().blocks().bytes_in_use() + world.reactor().blocks().bytes_retained();
        };
        const std::size_t before = pooled();
        const auto resident_now = [&] {  // under a sanitizer the question takes longer than the inflating
          return levada::test::resident_is_exact ? levada::test::resident_bytes() : 0;
        };
        const std::size_t resident = resident_now();
        std::size_t most = 0, most_resident = resident;
        REQUIRE(world.until([&] {
          most = std::max(most, pooled());
          most_resident = std::max(most_resident, resident_now());
          return client.in.size() >= 4;
        }));
        CHECK(client.frame().payload == close_payload(1009));
        CHECK(most - before >= limit);  // it was counted
        CHECK(most - before <= limit + 64 * 1024);
        // Pages of the receive buffer are used for the first time, too.
        CHECK(most_resident - resident <= limit + (std::size_t{64} << 10) + (std::size_t{32} << 10));
        CHECK(client.reaches_end());
      },
      kinds);
}

TEST_CASE("the memory budget knows what is being inflated, and what the contexts hold") {
  net::ReactorOptions options;
  options.budget = std::make_shared<MemoryBudget>(std::size_t{1} << 30, BudgetPolicy::refuse_large);
  World world({"simulated", net::BackendKind::simulated}, options);
  world.serve<Recorder>(with(shared));
  Client& client = agree(world);
  Deflating peer(client);
  const std::string wire = peer.compressed(json_text(4'000'000));
  client.send(Opcode::text, wire, {.fin = false, .rsv = rsv1});
  REQUIRE(world.until([&] { return options.budget->used_bytes() > 3'900'000; }));
  client.close();
  CHECK(world.is_empty());
}
