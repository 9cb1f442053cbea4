// The test's end of a connection in a world, speaking TLS: a TlsEnd (tls_pair.h) behind a Client (world.h).
#pragma once

#include <string>
#include <string_view>
#include <utility>

#include <levada/tests/support/certificates.h>
#include <levada/tests/support/tls_pair.h>
#include <levada/tests/support/world.h>

namespace levada::ws::test {

using levada::test::Authority;

// One authority for all tests of a program: keys take their time.
inline const Authority& test_authority() {
  static const Authority authority;
  return authority;
}

inline net::TlsOptions server_tls_options() {
  static const levada::test::Issued issued = test_authority().issue();
  return {.certificates = {issued.tls()}};
}
inline net::TlsOptions client_tls_options() {
  return {.ca = test_authority().pem()};
}
inline std::shared_ptr<net::TlsContext> make_tls(net::TlsRole role, const net::TlsOptions& options) {
  return net::TlsContext::create(role, options).value();
}
inline std::shared_ptr<net::TlsContext> server_tls() {
  static const auto context = make_tls(net::TlsRole::server, server_tls_options());
  return context;
}
inline std::shared_ptr<net::TlsContext> client_tls() {
  static const auto context = make_tls(net::TlsRole::client, client_tls_options());
  return context;
}

class TlsPeer {
 public:
  TlsPeer(World& world, Client& carrier, net::TlsRole role, const net::TlsContext& context)
      : wire(carrier), world_(world) {
    auto session = role == net::TlsRole::server
                       ? net::TlsSession::accept(context, end.output())
                       : net::TlsSession::connect(context, "localhost", 443, end.output());
    REQUIRE(session);
    end.session = std::move(*session);
    flush();
  }

  // Takes what has come, and sends what there is to send.
  void pump() {
    if (end.last != net::TlsEvent::ended && end.last != net::TlsEvent::failed && !wire.in.empty()) {
      count_records(wire.in);
      end.feed(std::exchange(wire.in, {}));
    }
    flush();
  }
  template <class Done>
  bool until(Done&& done) {
    return world_.until([&] {
      pump();
      return done();
    });
  }
  bool shakes_hands() {
    return until([&] { return end.established > 0 || is_over(); }) && end.established > 0;
  }
  bool is_over() const { return end.last == net::TlsEvent::failed || wire.ended || wire.was_reset; }

  TlsPeer& write(std::string_view plaintext) {
    CHECK_FALSE(end.session->write(to_bytes(plaintext)));
    flush();
    return *this;
  }
  TlsPeer& send(Opcode opcode, std::string_view payload) {
    return write(raw_frame(static_cast<unsigned>(opcode), payload, wire.masks));
  }
  Frame frame() {
    std::optional<Frame> found;
    REQUIRE(until([&] { return (found = take_frame(end.plaintext)).has_value() || is_over(); }));
    if (!found) found = take_frame(end.plaintext);
    REQUIRE_MESSAGE(found.has_value(), "the connection ended without a frame");
    return *found;
  }
  // The head of a request or of an answer.
  std::string head() {
    REQUIRE(until([&] { return end.plaintext.find("\r\n\r\n") != std::string::npos || is_over(); }));
    const std::size_t size = end.plaintext.find("\r\n\r\n");
    REQUIRE(size != std::string::npos);
    std::string head = end.plaintext.substr(0, size + 4);
    end.plaintext.erase(0, size + 4);
    return head;
  }
  // A client's: TLS and the opening handshake.
  TlsPeer& open(std::string_view target = "/") {
    REQUIRE(shakes_hands());
    write(Client::request(target));
    REQUIRE(head().starts_with("HTTP/1.1 101 "));
    return *this;
  }
  // A server's: takes the request of the opening handshake and accepts it.
  TlsPeer& accept_upgrade() {
    const std::string request = head(), name = "\r\nSec-WebSocket-Key: ";
    const std::size_t begin = request.find(name) + name.size();
    const AcceptKey key = accept_key(request.substr(begin, request.find("\r\n", begin) - begin));
    return write(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: " +
        std::string(key.data(), key.size()) + "\r\n\r\n");
  }
  // close_notify, then the end of the transport, and nothing more.
  bool ends_properly() {
    return until([&] { return wire.ended || wire.was_reset; }) && !wire.was_reset &&
           end.last == net::TlsEvent::ended && wire.in.empty() && end.plaintext.empty();
  }

  Client& wire;
  levada::test::TlsEnd end;
  std::size_t data_records = 0;  // received

 private:
  void flush() {
    if (!end.records.empty()) wire.write(end.take_records());
  }
  // Records of the type application_data.
  void count_records(std::string_view bytes) {
    pending_.append(bytes);
    constexpr std::size_t header = 5;
    const auto at = [&](std::size_t i) { return static_cast<unsigned char>(pending_[i]); };
    while (pending_.size() >= header) {
      const std::size_t size = header + at(3) * 256u + at(4);
      if (pending_.size() < size) return;
      if (at(0) == 23) data_records++;
      pending_.erase(0, size);
    }
  }

  World& world_;
  std::string pending_;
};

}  // namespace levada::ws::test
