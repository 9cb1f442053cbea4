// What the peers of a simulation do.
#include <algorithm>

#include <levada/tests/simulation/simulator.h>

namespace levada::ws::test {
namespace {

std::string request(std::string_view method, std::string_view path, unsigned number, std::string_view version,
                    std::string_view fields) {
  return std::string(method) + " " + std::string(path) + " " + std::string(version) +
         "\r\nHost: example.com\r\nX-Link: " + link_name(number) + "\r\n" + std::string(fields) + "\r\n";
}

constexpr std::string_view upgrade_fields =
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Version: 13\r\n";

}  // namespace

// ---- Connecting ----

Link& Simulator::add_link(net::Peer peer, bool stream, bool client) {
  const ServiceOptions& options = message_service_->options();
  const DecoderOptions decoder{.role = client ? Role::client : Role::server,
                               .max_message_bytes = options.max_message_bytes,
                               .max_fragments = options.max_fragments};
  Link& link =
      links_.emplace_back(journal_, static_cast<unsigned>(links_.size()) + 1, peer, decoder, options, stream);
  link.stream = stream;
  link.may_be_refused = budget_ != nullptr && budget_->policy() == BudgetPolicy::refuse_large;
  link.may_be_shed = budget_ != nullptr && budget_->policy() == BudgetPolicy::shed_slowest;
  link.polite = !choices_.one_in(5);
  live_.push_back(&link);
  if (choices_.one_in(4)) peer.set_window(choices_.of({1000, 100, 10'000}));
  return link;
}

// A handshake: mostly a right one, now and then behind plain requests, wrong, or cut.
void Simulator::shake_hands(Link& link) {
  constexpr std::string_view http = "HTTP/1.1";
  const unsigned n = link.number;
  const std::string_view path = link.stream ? "/pieces" : "/messages";
  const auto plain = static_cast<unsigned>(choices_.one_in(6) ? choices_.below(3) : 0);
  std::string text;
  for (unsigned i = 0; i < plain; i++) text += request("GET", "/plain", n, http, "");
  const auto give = [&](unsigned status, const std::string& head) {
    link.begin_handshake(text + head, plain, status);
    if (status != 101) count("handshake that is wrong or cut");
    link.sent_close = status != 101;  // then it says no more
  };
  const std::string extensions = offer(link), fields = std::string(upgrade_fields) + extensions;
  const std::string right = request("GET", path, n, http, fields);
  const std::string no_key = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n";
  const std::string version_8 = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 8\r\n";
  switch (choices_.below(40)) {
    case 30:
      return give(0, right.substr(0, 1 + choices_.below(right.size() - 2)));
    case 31:
    case 32:
    case 33:
      return give(101, link.stream ? right : request("GET", "/held", n, http, fields));
    case 34:
      return give(431, request("GET", path, n, http, "X: " + std::string(17'000, 'x') + "\r\n"));
    case 35:
      return give(403, request("GET", "/forbidden", n, http, upgrade_fields));
    case 36:
      return give(200, request("GET", path, n, "HTTP/1.0", upgrade_fields));  // asks for no upgrade
    case 37:
      return give(426, request("GET", path, n, http, version_8));
    case 38:
      return give(400, request("GET", path, n, http, no_key));
    case 39:
      return give(405, request("POST", path, n, http, upgrade_fields));
    default:
      return give(101, right);
  }
}

// Compression, if it is going to be agreed on, or nothing.
std::string Simulator::offer(Link& link) {
  const DeflateOptions& options = message_service_->options().deflate;
  if (!options.enabled || choices_.one_in(4)) return {};
  count("compression offered");
  const bool none_taken_over = choices_.one_in(2);
  link.agree(peer_blocks_);
  link.own_takeover = options.deflater == DeflateContext::dedicated && !none_taken_over;
  return std::string("Sec-WebSocket-Extensions: permessage-deflate") +
         (none_taken_over ? "; server_no_context_takeover" : "") +
         (choices_.one_in(2) ? "; client_no_context_takeover" : "") + "\r\n";
}

void Simulator::connect() {
  count("connection");
  Link& link = add_link(simulation_.connect(*listener_), choices_.one_in(3), false);
  journal_.note("connects", link.number);
  shake_hands(link);
  if (choices_.one_in(2)) speak(link);  // glued to the handshake
}

// Bytes of no known kind, some of them nearly a handshake.
void Simulator::connect_wild() {
  count("wild connection");
  Link& link = add_link(simulation_.connect(*listener_), false, false);
  std::string bytes = request("GET", "/", 0, "HTTP/1.1", upgrade_fields);
  for (std::uint64_t times = choices_.below(4); times > 0; times--)
    bytes[choices_.below(bytes.size())] = static_cast<char>(choices_.below(256));
  link.begin_wild(bytes + choices_.raw(choices_.below(200)));
}

// A connection that somebody else accepted and has read from.
void Simulator::adopt() {
  count("adopted before its handshake");
  net::SimulatedConnection made = simulation_.open();
  made.peer.accept();
  Link& link = add_link(made.peer, choices_.one_in(3), false);
  shake_hands(link);
  journal_.note("adopts", link.number);
  message_service_->adopt(std::move(made.fd));
}

// One whose handshake is done; on some the engine is the client.
void Simulator::adopt_upgraded() {
  count("adopted after its handshake");
  net::SimulatedConnection made = simulation_.open();
  made.peer.accept();
  const bool client = choices_.one_in(2), stream = !client && choices_.one_in(3);
  Link& link = add_link(made.peer, stream, client);
  link.skip_handshake();
  journal_.note("adopts an upgraded one", link.number);
  Service& service = client ? *client_service_ : stream ? *piece_service_ : *message_service_;
  service.adopt_upgraded(std::move(made.fd), {}, &link);
}

// ---- Speaking ----

std::string Simulator::frame(const Link& link, unsigned opcode, std::string_view payload,
                             const FrameShape& shape) {
  return raw_frame(opcode, payload, !link.engine_is_client(), shape);
}

std::string_view Simulator::random_payload(Content content) {
  const std::uint64_t kind = choices_.below(20);
  const std::size_t size = kind < 12    ? choices_.below(131)
                           : kind < 16  ? choices_.below(3000)
                           : kind == 16 ? choices_.of({0, 125, 126, 127, 511, 512, 513})
                           : kind == 17 ? choices_.of({16'383, 16'384, 65'535, 65'536})
                           : kind == 18 ? choices_.below(20'000)
                                        : choices_.below(90'000);
  return payload(choices_, size, content);
}

void Simulator::speak(Link& link) {
  if (!link.can_speak() || link.sent_close || link.unsent() > 200'000) return;
  const std::uint64_t kind = choices_.below(40);
  if (kind < 26) return say_message(link);
  if (kind < 36) return say_control(link);
  if (kind == 36) return say_wrong(link);
  if (kind == 37) return say_close(link);
  for (std::uint64_t times = choices_.below(40); times > 0; times--)
    link.say(frame(link, 1, payload(choices_, choices_.below(20), Content::letters)));
}

void Simulator::say_message(Link& link) {
  const bool text = choices_.one_in(2);
  std::string_view rest = random_payload(text ? Content::characters : Content::bytes);
  unsigned opcode = text ? 1 : 2;
  const bool allowed = Deflater::bound(rest.size()) <= message_service_->options().max_message_bytes;
  if (link.compresses() && allowed && !choices_.one_in(4)) return say_compressed(link, opcode, rest);
  for (std::uint64_t pieces = choices_.one_in(3) ? choices_.below(6) : 0; pieces > 0; pieces--) {
    const std::size_t size = choices_.below(rest.size() + 1);
    link.say(frame(link, opcode, rest.substr(0, size), {.fin = false}));
    rest.remove_prefix(size);
    opcode = 0;
    if (choices_.one_in(3)) say_control(link);
  }
  link.say(frame(link, opcode, rest));
}

// The same compressed, in at most three fragments.
void Simulator::say_compressed(Link& link, unsigned opcode, std::string_view text) {
  count("compressed message by the peer");
  const std::string whole = compress(*peer_deflater_, text);
  std::string_view rest = whole;
  const unsigned message = opcode;
  for (std::uint64_t pieces = choices_.one_in(3) ? choices_.below(3) : 0; pieces > 0; pieces--) {
    const std::size_t size = choices_.below(rest.size() + 1);
    link.say(frame(link, opcode, rest.substr(0, size), {.fin = false, .rsv = opcode == 0 ? 0u : 4u}), "");
    rest.remove_prefix(size);
    opcode = 0;
    if (choices_.one_in(3)) say_control(link);
  }
  link.say(frame(link, opcode, rest, {.rsv = opcode == 0 ? 0u : 4u}), frame(link, message, text));
}

void Simulator::say_control(Link& link) {
  std::string mark = std::to_string(++next_mark_);
  if (choices_.one_in(4)) mark += payload(choices_, 125 - mark.size(), Content::bytes);
  link.say(frame(link, choices_.one_in(4) ? 10 : 9, mark));
}

void Simulator::say_close(Link& link) {
  if (!link.can_speak() || link.sent_close) return;
  count("close by the peer");
  const auto code = static_cast<unsigned>(choices_.of({1000, 1001, 1011, 3000, 4999, 0}));
  const std::string_view reason = payload(choices_, choices_.below(100), Content::characters);
  link.say(frame(link, 8, code == 0 ? std::string() : close_payload(code, reason)));
  link.sent_close = true;
}

// Something that no peer may send.
void Simulator::say_wrong(Link& link) {
  count("protocol error by the peer");
  const std::string_view some = payload(choices_, 1 + choices_.below(100), Content::letters);
  // What a compressing peer says at random may be a compressed message.
  const std::uint64_t kind = choices_.below(link.compresses() ? 8 : 9);
  const auto rsv = 1 + static_cast<unsigned>(choices_.below(7));
  switch (kind) {
    case 0:
      return link.say(frame(link, 1, some, {.rsv = link.compresses() && rsv == 4 ? 3 : rsv}));
    case 1:
      return link.say(frame(link, 3, some));
    case 2:
      return link.say(raw_frame(2, some, link.engine_is_client()));
    case 3:
      return link.say(frame(link, 2, some, {.length_bytes = 8}));
    case 4:
      return link.say(frame(link, 9, some, {.fin = false}));
    case 5:
      return link.say(frame(link, 1, std::string(some) + "\xC0\x80"));
    case 6:
      return link.say(frame(link, 2, some, {.length = std::uint64_t{1} << 40}));
    case 7:
      return link.say(frame(link, 8, close_payload(1005)));
    default:
      return link.say(choices_.raw(choices_.below(30)));
  }
}

// ---- Trouble ----

void Simulator::trouble(Link& link) {
  switch (choices_.below(9)) {
    case 0:
    case 1:
      return;
    case 2:
    case 3:
      count("peer stalls");
      link.reading = false;
      return;
    case 4:
      link.reading = true;
      return;
    case 5:
      count("peer changes its window");
      return link.peer.set_window(choices_.of({64 * 1024, 1, 100, 5000}));
    case 6:
      if (!link.can_speak()) return;
      count("peer shuts down");
      return link.shut_down();
    case 7:
      count("peer resets");
      return link.reset();
    default:
      count("peer closes");
      return link.close();
  }
}

void Simulator::move_bytes(Link& link) {
  if (!choices_.one_in(3))
    link.write(choices_.one_in(4) ? 1 + choices_.below(20) : 1 + choices_.below(30'000));
  if (link.reading && !choices_.one_in(3)) link.read();
}

}  // namespace levada::ws::test
