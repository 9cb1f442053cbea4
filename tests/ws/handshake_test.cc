// The opening handshake rule by rule: RFC 6455 section 4, both sides.
#include <levada/ws/handshake.h>

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

using namespace levada;
using namespace levada::ws;

namespace {

constexpr std::string_view sample_key = "dGhlIHNhbXBsZSBub25jZQ==";
constexpr std::string_view sample_accept = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

// A handshake as the RFC's own example; a test takes lines out or puts others in.
struct Handshake {
  std::string line = "GET /chat HTTP/1.1";
  std::string host = "Host: server.example.com\r\n";
  std::string upgrade = "Upgrade: websocket\r\n";
  std::string connection = "Connection: Upgrade\r\n";
  std::string key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
  std::string version = "Sec-WebSocket-Version: 13\r\n";
  std::string more = {};

  std::string text() const {
    return line + "\r\n" + host + upgrade + connection + key + version + more + "\r\n";
  }
};

template <class Head>
Head parsed(const std::string& text) {
  Head head;
  REQUIRE(head.parse(to_bytes(text)).state == ParseState::complete);
  return head;
}

// 0 for a websocket, 1 for a plain request, otherwise the status of the rejection.
unsigned check(const Handshake& handshake) {
  const std::string text = handshake.text();
  const UpgradeCheck result = check_upgrade(parsed<HttpRequest>(text));
  CHECK((result.rejection != nullptr) == (result.kind == RequestKind::rejected));
  if (result.kind == RequestKind::rejected) return result.rejection->status;
  return result.kind == RequestKind::plain ? 1 : 0;
}

// What a writer writes; its size function has to agree, and one byte less has to be refused untouched.
template <class Write>
std::string written(std::size_t size, Write write) {
  std::vector<std::uint8_t> out(size + 1, 0xee);
  REQUIRE(write(MutableBytes(out.data(), size)) == size);
  CHECK(out[size] == 0xee);
  std::vector<std::uint8_t> small(size, 0xee);
  CHECK(write(MutableBytes(small.data(), size - 1)) == 0);
  CHECK(small[size - 1] == 0xee);
  CHECK(write(MutableBytes()) == 0);
  return std::string(to_text({out.data(), size}));
}

std::string accept_text(const Acceptance& acceptance) {
  return written(accept_size(acceptance), [&](MutableBytes out) { return write_accept(out, acceptance); });
}

std::string rejection_text(const Rejection& rejection, std::string_view block = {}) {
  return written(rejection_size(rejection, block),
                 [&](MutableBytes out) { return write_rejection(out, rejection, block); });
}

std::string response_text(const Response& response) {
  return written(response_size(response), [&](MutableBytes out) { return write_response(out, response); });
}

std::string request_text(const UpgradeRequest& request) {
  return written(upgrade_request_size(request),
                 [&](MutableBytes out) { return write_upgrade_request(out, request); });
}

bool allows(std::string_view origin, std::string_view host, OriginPolicy policy,
            std::span<const std::string_view> list = {}) {
  const std::string text =
      "GET / HTTP/1.1\r\nHost: " + std::string(host) + "\r\nOrigin: " + std::string(origin) + "\r\n\r\n";
  return origin_allowed(parsed<HttpRequest>(text), policy, list);
}

}  // namespace

// ---- check_upgrade ----

TEST_CASE("the example of RFC 6455 is a handshake") {
  CHECK(check({}) == 0);
}

TEST_CASE("Upgrade and Connection are lists whose case does not matter") {
  CHECK(check({.upgrade = "upgrade: h2c, WebSocket\r\n"}) == 0);
  CHECK(check({.connection = "connection: keep-alive, UPGRADE\r\n"}) == 0);
  CHECK(check({.connection = "Connection: keep-alive\r\nConnection: Upgrade\r\n"}) == 0);
}

TEST_CASE("a request that does not ask for a WebSocket is plain") {
  CHECK(check({.upgrade = ""}) == 1);
  CHECK(check({.upgrade = "Upgrade: h2c\r\n"}) == 1);
  CHECK(check({.upgrade = "Upgrade: websockets\r\n"}) == 1);
  CHECK(check({.line = "POST /chat HTTP/1.1", .upgrade = "", .more = "Content-Length: 3\r\n"}) == 1);
  CHECK(check({.line = "GET / HTTP/1.0", .host = "", .upgrade = ""}) == 1);
  CHECK(check({.line = "OPTIONS * HTTP/1.1", .upgrade = ""}) == 1);
  CHECK(check({.line = "GET /chat HTTP/1.0"}) == 1);
  CHECK(check({.line = "GET /chat HTTP/1.0", .host = ""}) == 1);
}

TEST_CASE("an HTTP/1.1 request has exactly one Host, plain or not") {
  for (const char* upgrade : {"", "Upgrade: websocket\r\n"}) {
    CHECK(check({.host = "", .upgrade = upgrade}) == 400);
    CHECK(check({.host = "Host: a\r\nHost: a\r\n", .upgrade = upgrade}) == 400);
    CHECK(check({.host = "Host: a b\r\n", .upgrade = upgrade}) == 400);
    CHECK(check({.host = "Host: a/b\r\n", .upgrade = upgrade}) == 400);
    CHECK(check({.host = "Host: a, b\r\n", .upgrade = upgrade}) == 400);
    CHECK(check({.host = "Host: ::1\r\n", .upgrade = upgrade}) == 400);
    CHECK(check({.host = "Host: a:b\r\n", .upgrade = upgrade}) == 400);
    CHECK(check({.line = "GET http://h/ HTTP/1.1", .host = "Host: a:b\r\n", .upgrade = upgrade}) == 400);
  }
  CHECK(check({.host = "Host:\r\n", .upgrade = ""}) == 1);
  CHECK(check({.host = "Host:\r\n"}) == 400);
  CHECK(check({.line = "GET http://h/ HTTP/1.1", .host = "Host:\r\n"}) == 0);
  CHECK(check({.host = "Host: a,b\r\n"}) == 0);
  CHECK(check({.host = "Host: [::1]:9001\r\n"}) == 0);
}

TEST_CASE("a handshake is a GET over HTTP/1.1 for a path") {
  CHECK(check({.line = "GET /chat HTTP/1.2"}) == 0);
  CHECK(check({.line = "GET ws://server.example.com/chat HTTP/1.1"}) == 0);
  for (const char* method : {"POST", "HEAD", "get", "CONNECT"}) {
    const std::string target = method == std::string("CONNECT") ? " h:80" : " /";
    CHECK(check({.line = method + target + " HTTP/1.1"}) == 405);
  }
  CHECK(check({.line = "OPTIONS * HTTP/1.1"}) == 405);
}

TEST_CASE("Connection has to name upgrade") {
  CHECK(check({.connection = ""}) == 400);
  CHECK(check({.connection = "Connection: keep-alive\r\n"}) == 400);
}

TEST_CASE("version 13 is the only one, and the answer says so") {
  for (const char* version : {"", "Sec-WebSocket-Version: 8\r\n", "Sec-WebSocket-Version: 013\r\n",
                              "Sec-WebSocket-Version: 13, 8\r\n", "Sec-WebSocket-Version:\r\n"}) {
    CAPTURE(version);
    CHECK(check({.version = version}) == 426);
  }
  CHECK(check({.version = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Version: 13\r\n"}) == 400);
  const std::string text = Handshake{.version = ""}.text();
  const std::string answer = rejection_text(*check_upgrade(parsed<HttpRequest>(text)).rejection);
  const HttpResponse response = parsed<HttpResponse>(answer);
  CHECK(response.status() == 426);
  CHECK(response.find(FieldId::sec_websocket_version) == "13");
  CHECK(response.has_token(FieldId::upgrade, "websocket"));
  CHECK(response.has_token(FieldId::connection, "upgrade"));
  CHECK(response.has_token(FieldId::connection, "close"));
}

TEST_CASE("the key is there once and is base64 of 16 bytes") {
  for (const char* value :
       {"", "x", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZS4=", "dGhlIHNhbXBsZSBub25 ZQ=="}) {
    CAPTURE(value);
    CHECK(check({.key = "Sec-WebSocket-Key: " + std::string(value) + "\r\n"}) == 400);
  }
  CHECK(check({.key = ""}) == 400);
  CHECK(check({.key = Handshake{}.key + Handshake{}.key}) == 400);
}

TEST_CASE("a handshake has no content") {
  CHECK(check({.more = "Content-Length: 0\r\n"}) == 0);
  CHECK(check({.more = "Content-Length: 1\r\n"}) == 400);
  CHECK(check({.more = "Transfer-Encoding: chunked\r\n"}) == 400);
}

TEST_CASE("subprotocols are tokens, at least one, and none twice") {
  const auto status = [](std::string_view value) {
    return check({.more = "Sec-WebSocket-Protocol: " + std::string(value) + "\r\n"});
  };
  for (const char* good :
       {"chat", "chat, superchat", "chat,superchat", "chat,,x", ",chat,", "a\r\nSec-WebSocket-Protocol: b",
        "v10.stomp, v11.stomp", "base64url.bearer.k8s.io.dG9rZW4, base64.k8s.io", "Chat, chat"}) {
    CAPTURE(good);
    CHECK(status(good) == 0);
  }
  for (const char* bad : {"", ",", "a b", "\"chat\"", "a;b", "a/b", "a@b", "a=b", "\xe9", "chat, chat",
                          "a,b,c,a", "a\r\nSec-WebSocket-Protocol: a"}) {
    CAPTURE(bad);
    CHECK(status(bad) == 400);
  }
  // An empty field beside a good one adds nothing to the list.
  CHECK(status("a\r\nSec-WebSocket-Protocol:") == 0);
  std::string many;
  for (int i = 0; i < 100; ++i) many += std::to_string(i) + ",";
  CHECK(status(many) == 0);
  CHECK(status(many + "x") == 400);
}

TEST_CASE("extensions are by the grammar, known or not") {
  const auto status = [](std::string_view value) {
    return check({.more = "Sec-WebSocket-Extensions: " + std::string(value) + "\r\n"});
  };
  for (const char* good : {"x", "permessage-deflate; client_max_window_bits", "x; a=\"b\", y", "x,,y",
                           "x\r\nSec-WebSocket-Extensions: y; z=1"}) {
    CAPTURE(good);
    CHECK(status(good) == 0);
  }
  for (const char* bad : {"", ",", "x;", "x; =b", "x; a=", "x a", "\"x\"", ";a", "x; a=\"b c\"",
                          "x\r\nSec-WebSocket-Extensions: y;"}) {
    CAPTURE(bad);
    CHECK(status(bad) == 400);
  }
}

TEST_CASE("the refusal of another method says which one is allowed") {
  const std::string text = Handshake{.line = "POST / HTTP/1.1"}.text();
  const std::string answer = rejection_text(*check_upgrade(parsed<HttpRequest>(text)).rejection);
  CHECK(parsed<HttpResponse>(answer).find("Allow") == "GET");
}

// ---- subprotocols and origins ----

TEST_CASE("the server's preference chooses among the subprotocols of all fields") {
  const std::string text =
      Handshake{.more = "Sec-WebSocket-Protocol: c, b\r\nSec-WebSocket-Protocol:a\r\n"}.text();
  const HttpRequest request = parsed<HttpRequest>(text);
  const auto select = [&request](std::vector<std::string_view> names) {
    return select_subprotocol(request, names);
  };
  CHECK(select({"a", "b"}) == "a");
  CHECK(select({"x", "b", "c"}) == "b");
  CHECK(select({"C"}) == "");
  CHECK(select({"c, b"}) == "");
  CHECK(select({}) == "");
}

TEST_CASE("same_host compares host and port as a browser means them") {
  const auto same = [](std::string_view origin, std::string_view host) {
    return allows(origin, host, OriginPolicy::same_host);
  };
  CHECK(same("http://a.example", "a.example"));
  CHECK(same("https://a.example", "A.Example"));
  CHECK(same("https://a.example", "a.example:443"));
  CHECK(same("http://a.example:80", "a.example"));
  CHECK(same("http://a.example:8080", "a.example:8080"));
  CHECK(same("http://[::1]:9001", "[::1]:9001"));
  CHECK(same("http://[::1]", "[::1]:80"));
  CHECK_FALSE(same("http://a.example", "b.example"));
  CHECK_FALSE(same("http://a.example", "a.example:443"));
  CHECK_FALSE(same("http://a.example:8080", "a.example"));
  CHECK_FALSE(same("http://a.example.evil", "a.example"));
  CHECK_FALSE(same("http://[::1]:1", "[::1]:2"));
  for (const char* odd : {"null", "", "a.example", "://a.example", "http://", "http://x@a.example",
                          "http://a.example/", "http://a.example, http://a.example"}) {
    CAPTURE(odd);
    CHECK_FALSE(same(odd, "a.example"));
    CHECK(allows(odd, "a.example", OriginPolicy::any));
  }
  CHECK_FALSE(same("http://", ""));
  CHECK_FALSE(same("a.example", "a.example"));
  CHECK_FALSE(same("http://b.a.example", "a.example"));
}

TEST_CASE("a target in absolute form is the host that an Origin is compared with") {
  const std::string text =
      "GET http://real.example/ HTTP/1.1\r\nHost: other.example\r\nOrigin: http://real.example\r\n\r\n";
  CHECK(origin_allowed(parsed<HttpRequest>(text), OriginPolicy::same_host));
}

TEST_CASE("an allow list has whole origins") {
  const std::array<std::string_view, 2> list = {"https://a.example", "http://localhost:8080"};
  const auto listed = [&list](std::string_view origin) {
    return allows(origin, "server", OriginPolicy::allow_list, list);
  };
  CHECK(listed("https://a.example"));
  CHECK(listed("HTTPS://A.example:443"));
  CHECK(listed("http://localhost:8080"));
  CHECK_FALSE(listed("http://a.example"));
  CHECK_FALSE(listed("http://localhost"));
  CHECK_FALSE(listed("https://b.a.example"));
  CHECK_FALSE(listed("null"));
  CHECK_FALSE(allows("https://a.example", "server", OriginPolicy::allow_list));
}

TEST_CASE("no Origin is allowed, two are not") {
  const std::string none = Handshake{}.text();
  const std::string two =
      Handshake{.more = "Origin: http://server.example.com\r\nOrigin: http://server.example.com\r\n"}.text();
  for (const OriginPolicy policy : {OriginPolicy::same_host, OriginPolicy::allow_list}) {
    CHECK(origin_allowed(parsed<HttpRequest>(none), policy));
    CHECK_FALSE(origin_allowed(parsed<HttpRequest>(two), policy));
  }
}

// ---- writers ----

TEST_CASE("an accepted handshake is answered as the RFC says") {
  const std::array<HttpField, 1> fields = {{{"X-Id", "7"}}};
  const std::array<HttpField, 2> constant = {{{"Server", "levada"}, {"X-C", "d"}}};
  const ConstantFields block(constant);
  CHECK(accept_text({sample_key, "chat", "x; y", fields, block.block()}) ==
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Accept: " +
            std::string(sample_accept) +
            "\r\nSec-WebSocket-Protocol: chat\r\nSec-WebSocket-Extensions: x; y\r\nX-Id: 7\r\n"
            "Server: levada\r\nX-C: d\r\n\r\n");
  const HttpResponse bare = parsed<HttpResponse>(accept_text({sample_key, {}, {}, {}, {}}));
  CHECK(bare.fields().size() == 3);
}

TEST_CASE("a rejection has its length, its reason and an end of the connection") {
  CHECK(rejection_text({403, {}, {}, "no\n"}) ==
        "HTTP/1.1 403 Forbidden\r\nConnection: close\r\nContent-Length: 3\r\n\r\nno\n");
  const std::array<HttpField, 1> fields = {{{"Retry-After", "9"}}};
  CHECK(rejection_text({503, "Busy", fields, {}}, "X-C: d\r\n") ==
        "HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\nRetry-After: 9\r\nX-C: d\r\n\r\n");
  CHECK(rejection_text({599, {}, {}, {}}).starts_with("HTTP/1.1 599 Unknown\r\n"));
}

TEST_CASE("an ordinary answer keeps the connection or closes it, with content or without") {
  const std::array<HttpField, 1> fields = {{{"Content-Type", "text/html"}}};
  CHECK(response_text({.fields = fields, .body = "hi"}) ==
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Type: text/html\r\n\r\nhi");
  CHECK(response_text({.status = 404, .keep_alive = false}) ==
        "HTTP/1.1 404 Not Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
  CHECK(response_text({.body = "hi", .omit_body = true}) == "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
  CHECK(response_text({.status = 205, .body = "hi"}) ==
        "HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n");
  CHECK(response_text({.body = "hi", .http_1_0 = true}) ==
        "HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nhi");
  CHECK(response_text({.keep_alive = false, .http_1_0 = true}) ==
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
  CHECK(response_text({.status = 204, .body = "hi"}) == "HTTP/1.1 204 No Content\r\n\r\n");
  CHECK(response_text({.status = 304, .body = "hi"}) == "HTTP/1.1 304 Not Modified\r\n\r\n");
}

TEST_CASE("an answer has the date that it is given, unless the caller's fields have one") {
  const std::array<HttpField, 1> own = {{{"date", "yesterday"}}};
  CHECK(response_text({.date_line = "Date: now\r\n"}) ==
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDate: now\r\n\r\n");
  CHECK(response_text({.fields = own, .date_line = "Date: now\r\n"}) ==
        "HTTP/1.1 200 OK\r\nContent-Length: 0\r\ndate: yesterday\r\n\r\n");
  CHECK(response_text({.status = 100, .date_line = "Date: now\r\n"}) == "HTTP/1.1 100 Continue\r\n\r\n");
}

TEST_CASE("a field that would split the message or contradict it is left out") {
  const std::string_view zero("a\0b", 3);
  const std::array<HttpField, 11> fields = {{{"X-Good", "1"},
                                             {"X-Split", "a\r\nSet-Cookie: b"},
                                             {"X-Lf", "a\nb"},
                                             {"X-Cr", "a\rb"},
                                             {"X-Zero", zero},
                                             {"X Bad", "a"},
                                             {"X\r\nY", "a"},
                                             {"", "a"},
                                             {"Content-Length", "9"},
                                             {"transfer-encoding", "chunked"},
                                             {"Connection", "keep-alive"}}};
  const std::string plain = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Good: 1\r\n\r\n";
  CHECK(response_text({.fields = fields}) == plain);
  CHECK(response_text({.reason = "OK\r\nX: y", .fields = fields}) == plain);
  CHECK(ConstantFields(fields).block() == "X-Good: 1\r\n");
  const Acceptance evil = {sample_key, "a\r\nb", "c\r\nd", fields, {}};
  CHECK(parsed<HttpResponse>(accept_text(evil)).fields().size() == 4);
  for (std::size_t i = 1; i < 8; ++i) CHECK_FALSE(is_writable(fields[i]));
}

TEST_CASE("every status that the engine answers has a reason") {
  for (const unsigned status :
       {101u, 200u, 400u, 403u, 404u, 405u, 408u, 414u, 426u, 431u, 500u, 501u, 503u, 505u}) {
    CHECK(reason_phrase(status) != "Unknown");
  }
}

// ---- Upgrader ----

namespace {

// Records what hooks see and rejects at the call of a given number.
struct Recorder {
  std::string seen = {};
  int reject_at = -1;
  int calls = 0;
  Rejection rejection{403, "Told so", {}, "body"};
  std::string_view subprotocol = {};

  static Recorder& self(void* context) { return *static_cast<Recorder*>(context); }

  const Rejection* note(std::string_view a, std::string_view b = {}) {
    seen += std::string(a) + "=" + std::string(b) + ";";
    return calls++ == reject_at ? &rejection : nullptr;
  }

  UpgradeHooks hooks() {
    return {this,
            [](void* c, std::string_view method, std::string_view target) {
              return self(c).note(method, target);
            },
            [](void* c, std::string_view host) { return self(c).note("host", host); },
            [](void* c, std::string_view name, std::string_view value) { return self(c).note(name, value); },
            [](void* c, const HttpRequest& request, Acceptance& acceptance) {
              if (!self(c).subprotocol.empty()) acceptance.subprotocol = self(c).subprotocol;
              return self(c).note("upgrade", request.path());
            }};
  }
};

struct Run {
  Upgrader::Outcome outcome;
  std::string answer;
  std::string seen;
};

// Feeds `text` in steps: first `cut` bytes, then more by `step`, each time in a fresh place in memory.
Run run(const UpgraderOptions& base, Recorder recorder, std::string_view text, std::size_t cut,
        std::size_t step) {
  UpgraderOptions options = base;
  options.hooks = recorder.hooks();
  Upgrader upgrader(options);
  std::array<std::uint8_t, 2048> out;
  Upgrader::Outcome outcome;
  for (std::size_t size = cut;; size = std::min(size + step, text.size())) {
    const std::vector<std::uint8_t> in(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(size));
    outcome = upgrader.feed(in, out);
    if (outcome.state != Upgrader::State::incomplete || size == text.size()) break;
  }
  return {outcome, std::string(to_text({out.data(), outcome.written})), recorder.seen};
}

// The outcome of feeding the whole, after checking that every cut and byte-wise feeding lead to the same.
Run run_everywhere(const UpgraderOptions& options, const Recorder& recorder, std::string_view text) {
  const Run whole = run(options, recorder, text, text.size(), 1);
  for (std::size_t cut = 0; cut <= text.size(); ++cut) {
    for (const std::size_t step : {std::size_t{1}, text.size()}) {
      if (step == 1 && cut > 1) continue;
      const Run other = run(options, recorder, text, cut, step);
      CAPTURE(cut);
      CAPTURE(step);
      CHECK(other.outcome.state == whole.outcome.state);
      CHECK(other.outcome.status == whole.outcome.status);
      CHECK(other.outcome.consumed == whole.outcome.consumed);
      CHECK(other.answer == whole.answer);
      CHECK(other.seen == whole.seen);
    }
  }
  return whole;
}

}  // namespace

TEST_CASE("an upgrader accepts a handshake and says where the frames begin") {
  const std::array<std::string_view, 2> subprotocols = {"b", "a"};
  const std::string text = Handshake{.more = "Sec-WebSocket-Protocol: a, b\r\n"}.text();
  const Run result =
      run_everywhere({.subprotocols = subprotocols, .constant_block = "X-C: d\r\n"}, {}, text + "frames");
  CHECK(result.outcome.state == Upgrader::State::accepted);
  CHECK(result.outcome.status == 101);
  CHECK(result.outcome.consumed == text.size());
  CHECK(result.answer == accept_text({sample_key, "b", {}, {}, "X-C: d\r\n"}));
  CHECK(result.seen ==
        "GET=/chat;host=server.example.com;Upgrade=websocket;Connection=Upgrade;Sec-WebSocket-Key=" +
            std::string(sample_key) + ";Sec-WebSocket-Version=13;Sec-WebSocket-Protocol=a, b;upgrade=/chat;");
}

TEST_CASE("each hook can end the handshake and is the last to run") {
  for (int at = 0; at < 7; ++at) {
    CAPTURE(at);
    const Run result = run_everywhere({}, {.reject_at = at}, Handshake{}.text());
    CHECK(result.outcome.state == Upgrader::State::rejected);
    CHECK(result.outcome.status == 403);
    CHECK(result.outcome.consumed == 0);
    CHECK(result.answer == rejection_text({403, "Told so", {}, "body"}));
    CHECK(std::count(result.seen.begin(), result.seen.end(), ';') == at + 1);
  }
}

TEST_CASE("the last hook may choose the subprotocol among those that are offered") {
  Recorder recorder;
  recorder.subprotocol = "mine";
  const std::string offers = Handshake{.more = "Sec-WebSocket-Protocol: yours, mine\r\n"}.text();
  CHECK(run_everywhere({}, recorder, offers).answer == accept_text({sample_key, "mine", {}, {}, {}}));
  for (const char* more : {"", "Sec-WebSocket-Protocol: yours, Mine\r\n"}) {
    const Run result = run_everywhere({}, recorder, Handshake{.more = more}.text());
    CHECK(result.answer == accept_text({sample_key, {}, {}, {}, {}}));
    CHECK(result.outcome.subprotocol.empty());
  }
}

TEST_CASE("a rejection has the date that the owner keeps, and for HEAD only the length of its content") {
  std::string date = "Date: 1\r\n";
  Upgrader upgrader({.date_line = date});
  std::array<std::uint8_t, 1024> out;
  const auto answer = [&](const std::string& text) {
    Upgrader::Progress progress;
    return std::string(to_text({out.data(), upgrader.feed(progress, to_bytes(text), out).written}));
  };
  const std::string post = answer(Handshake{.line = "POST / HTTP/1.1"}.text());
  CHECK(post.find("Date: 1\r\n") != post.npos);
  date[6] = '2';
  std::string head = answer(Handshake{.line = "HEAD / HTTP/1.1"}.text());
  CHECK(head.ends_with("\r\n\r\n"));
  head.replace(head.find("Date: 2"), 7, "Date: 1");
  CHECK(post.starts_with(head));
  CHECK(parsed<HttpResponse>(head).find(FieldId::content_length) ==
        std::to_string(post.size() - head.size()));
  CHECK(answer(Handshake{}.text()).find("Date") == std::string::npos);
}

TEST_CASE("an upgrader refuses what the checks refuse, with the same status in every cut") {
  const auto status = [](std::string_view text) {
    const Run result = run_everywhere({}, {}, text);
    CHECK(result.outcome.state == Upgrader::State::rejected);
    const HttpResponse response = parsed<HttpResponse>(result.answer);
    CHECK(response.status() == result.outcome.status);
    CHECK(response.has_token(FieldId::connection, "close"));
    return result.outcome.status;
  };
  CHECK(status("\x16\x03\x01\x02") == 400);
  CHECK(status("GET / HTTP/2.0\r\n") == 505);
  CHECK(status(Handshake{.upgrade = ""}.text()) == 426);
  CHECK(status(Handshake{.version = "Sec-WebSocket-Version: 8\r\n"}.text()) == 426);
  CHECK(status(Handshake{.key = ""}.text()) == 400);
  CHECK(status(Handshake{.line = "POST / HTTP/1.1"}.text()) == 405);
  CHECK(status(Handshake{.more = "Origin: http://evil.example\r\n"}.text()) == 403);
  CHECK(status(Handshake{.more = "A : b\r\n"}.text()) == 400);
  CHECK(status(Handshake{.more = "Sec-WebSocket-Extensions: x;\r\n"}.text()) == 400);
  CHECK(status(Handshake{.more = "Transfer-Encoding: gzip, chunked\r\n"}.text()) == 501);
  CHECK(status(Handshake{.line = "GET /chat HTTP/1.0"}.text()) == 426);
  std::string many;
  for (int i = 0; i < 100; ++i) many += "a:b\r\n";
  CHECK(status(Handshake{.more = many}.text()) == 431);
}

TEST_CASE("an endless head is refused at the limit") {
  const UpgraderOptions options = {.limits = {.max_bytes = 300}};
  CHECK(run_everywhere(options, {}, "GET / HTTP/1.1\r\nA: " + std::string(400, 'a')).outcome.status == 431);
  CHECK(run_everywhere(options, {}, "GET /" + std::string(400, 'a')).outcome.status == 414);
  CHECK(run_everywhere(options, {}, "GET / HTTP/1.1\r\nA: b").outcome.state == Upgrader::State::incomplete);
}

TEST_CASE("one upgrader serves interleaved connections that keep their own progress") {
  Upgrader upgrader({});
  std::array<std::uint8_t, 1024> out;
  const std::string a = Handshake{}.text();
  const std::string b = Handshake{.line = "GET /b HTTP/1.1"}.text();
  Upgrader::Progress first, second;
  CHECK(upgrader.feed(first, to_bytes(a).first(40), out).state == Upgrader::State::incomplete);
  CHECK(upgrader.feed(second, to_bytes(b).first(60), out).state == Upgrader::State::incomplete);
  CHECK(upgrader.feed(first, to_bytes(a), out).state == Upgrader::State::accepted);
  CHECK(upgrader.request().path() == "/chat");
  CHECK(upgrader.feed(second, to_bytes(b), out).state == Upgrader::State::accepted);
  CHECK(upgrader.request().path() == "/b");
  CHECK(upgrader.feed(to_bytes(a), out).state == Upgrader::State::accepted);
  upgrader.reset();
  CHECK(upgrader.feed(to_bytes(b), out).state == Upgrader::State::accepted);
}

TEST_CASE("an answer that does not fit becomes a short 500 or nothing") {
  Upgrader upgrader({});
  std::array<std::uint8_t, 100> out;
  const std::string text = Handshake{}.text();
  const auto outcome = upgrader.feed(to_bytes(text), out);
  CHECK(outcome.state == Upgrader::State::rejected);
  CHECK(outcome.status == 500);
  CHECK(to_text({out.data(), outcome.written}).starts_with("HTTP/1.1 500 "));
  upgrader.reset();
  CHECK(upgrader.feed(to_bytes(text), {}).written == 0);
}

// ---- client ----

TEST_CASE("a client's request is what its server accepts") {
  const std::array<std::string_view, 2> subprotocols = {"a", "b"};
  const std::array<HttpField, 1> fields = {{{"Cookie", "c=d"}}};
  const UpgradeRequest request = {.host = "h.example:81",
                                  .target = "/a?b",
                                  .key = sample_key,
                                  .subprotocols = subprotocols,
                                  .origin = "http://h.example:81",
                                  .extensions = "x; y=1",
                                  .fields = fields};
  const std::string text = request_text(request);
  CHECK(text ==
        "GET /a?b HTTP/1.1\r\nHost: h.example:81\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Protocol: a, b\r\nSec-WebSocket-Extensions: x; y=1\r\nOrigin: http://h.example:81\r\n"
        "Cookie: c=d\r\n\r\n");
  const HttpRequest head = parsed<HttpRequest>(text);
  CHECK(check_upgrade(head).kind == RequestKind::websocket);
  CHECK(origin_allowed(head, OriginPolicy::same_host));
}

TEST_CASE("a client's request with unwritable parts is not written") {
  const UpgradeRequest good = {.host = "h", .key = sample_key};
  const std::array<std::string_view, 1> evil = {"a, b"};
  const std::array<std::string_view, 3> repeated = {"a", "b", "a"};
  const auto refused = [&good](auto change) {
    UpgradeRequest request = good;
    change(request);
    std::array<std::uint8_t, 1024> out;
    return !is_writable(request) && upgrade_request_size(request) == 0 &&
           write_upgrade_request(out, request) == 0;
  };
  CHECK(is_writable(good));
  CHECK(refused([](UpgradeRequest& r) { r.host = ""; }));
  CHECK(refused([](UpgradeRequest& r) { r.host = "h\r\nX: y"; }));
  CHECK(refused([](UpgradeRequest& r) { r.target = "/a b"; }));
  CHECK(refused([](UpgradeRequest& r) { r.target = "a"; }));
  CHECK(refused([](UpgradeRequest& r) { r.target = "/a#b"; }));
  CHECK(refused([](UpgradeRequest& r) { r.key = "short"; }));
  CHECK(refused([](UpgradeRequest& r) { r.origin = "a\r\nb"; }));
  CHECK(refused([](UpgradeRequest& r) { r.extensions = "a\nb"; }));
  CHECK(refused([&evil](UpgradeRequest& r) { r.subprotocols = evil; }));
  CHECK(refused([&repeated](UpgradeRequest& r) { r.subprotocols = repeated; }));
  for (const HttpField field : {HttpField{"X-Split", "a\r\nb"},
                                {"X Y", "a"},
                                {"", "a"},
                                {"Host", "evil"},
                                {"upgrade", "h2c"},
                                {"Content-Length", "1"},
                                {"Origin", "twice"}}) {
    CHECK(refused([&field](UpgradeRequest& r) { r.fields = {&field, 1}; }));
  }
}

TEST_CASE("a client names exactly what is wrong with a response") {
  struct Parts {
    std::string status = "101 Switching Protocols";
    std::string upgrade = "Upgrade: WebSocket\r\n";
    std::string connection = "Connection: upgrade\r\n";
    std::string accept = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";
    std::string more = {};
    std::string version = "HTTP/1.1 ";
  };
  const std::array<std::string_view, 2> subprotocols = {"a", "b"};
  const UpgradeRequest asking = {
      .host = "h", .key = sample_key, .subprotocols = subprotocols, .extensions = "x; p=1, y"};
  const UpgradeRequest modest = {.host = "h", .key = sample_key};
  const auto check = [](const Parts& p, const UpgradeRequest& request) {
    const std::string text =
        p.version + p.status + "\r\n" + p.upgrade + p.connection + p.accept + p.more + "\r\n";
    return std::string(to_string(check_upgrade_response(parsed<HttpResponse>(text), request).failure));
  };
  CHECK(check({}, modest) == "none");
  CHECK(check({}, asking) == "none");
  CHECK(check({.status = "200 OK"}, modest) == "status_not_101");
  CHECK(check({.version = "HTTP/1.0 "}, modest) == "http_1_0");
  CHECK(check({.upgrade = ""}, modest) == "upgrade_missing");
  for (const char* upgrade :
       {"h2c", "websocket, h2c", "h2c, websocket", "websocket/13", "websocket,", "\"websocket\"",
        "h2c\r\nUpgrade: websocket", "websocket\r\nUpgrade: websocket"}) {
    CAPTURE(upgrade);
    CHECK(check({.upgrade = "Upgrade: " + std::string(upgrade) + "\r\n"}, modest) == "upgrade_missing");
  }
  CHECK(check({.connection = "Connection: close\r\n"}, modest) == "connection_missing");
  CHECK(check({.accept = ""}, modest) == "accept_missing");
  CHECK(check({.accept = Parts{}.accept + Parts{}.accept}, modest) == "accept_missing");
  CHECK(check({.accept = "Sec-WebSocket-Accept: S3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"}, modest) ==
        "accept_wrong");
  CHECK(check({.more = "Sec-WebSocket-Protocol: a\r\n"}, modest) == "subprotocol_unasked");
  CHECK(check({.more = "Sec-WebSocket-Protocol: a\r\n"}, asking) == "none");
  CHECK(check({.more = "Sec-WebSocket-Protocol: A\r\n"}, asking) == "subprotocol_unasked");
  CHECK(check({.more = "Sec-WebSocket-Protocol: a, b\r\n"}, asking) == "subprotocol_unasked");
  CHECK(check({.more = "Sec-WebSocket-Protocol:\r\n"}, asking) == "subprotocol_unasked");
  CHECK(check({.more = "Sec-WebSocket-Protocol: a\r\nSec-WebSocket-Protocol: a\r\n"}, asking) ==
        "subprotocol_repeated");
  CHECK(check({.more = "Sec-WebSocket-Extensions: x\r\n"}, modest) == "extension_unasked");
  CHECK(check({.more = "Sec-WebSocket-Extensions: y, x; q\r\n"}, asking) == "none");
  CHECK(check({.more = "Sec-WebSocket-Extensions: x\r\nSec-WebSocket-Extensions: z\r\n"}, asking) ==
        "extension_unasked");

  for (const char* list : {"", ",", "x;", "x; p=", "x y"}) {
    CAPTURE(list);
    CHECK(check({.more = "Sec-WebSocket-Extensions: " + std::string(list) + "\r\n"}, asking) ==
          "extension_malformed");
    CHECK(check({.more = "Sec-WebSocket-Extensions: " + std::string(list) + "\r\n"}, modest) ==
          "extension_malformed");
  }

  const std::string text = "HTTP/1.1 101 x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
                           Parts{}.accept + "Sec-WebSocket-Protocol: b\r\n\r\n";
  CHECK(check_upgrade_response(parsed<HttpResponse>(text), asking).subprotocol == "b");
}
