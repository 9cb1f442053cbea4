// libFuzzer target: any text as Sec-WebSocket-Extensions. Beyond not crashing, what must hold: views stay inside;
// what is walked and written again is the same list; what a server answers to any offers keeps to its options,
// and a client that could have made the offer takes it. Lines are fields of one request: as if they were one, with commas.
#include <algorithm>
#include <cstdlib>
#include <string>
#include <string_view>

#include <levada/ws/deflate_negotiation.h>
#include <levada/ws/extension.h>
#include <levada/ws/http.h>

using namespace levada;
using namespace levada::ws;

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void require_inside(std::string_view view, std::string_view text) {
  require(view.data() >= text.data() && view.data() + view.size() <= text.data() + text.size());
}

// The list as it would be written; numbers are the only values looked into.
std::string rewritten(std::string_view text) {
  std::string out;
  ExtensionCursor cursor(text);
  for (Extension extension; cursor.next(extension);) {
    require_inside(extension.name, text);
    require(is_token(extension.name));
    out += (out.empty() ? "" : ", ") + std::string(extension.name);
    for (ExtensionParameter parameter; extension.parameters.next(parameter);) {
      require_inside(parameter.name, text);
      require(is_token(parameter.name));
      out += "; " + std::string(parameter.name);
      const int number = parameter.value.number();
      require(number == -1 || parameter.value == std::to_string(number));
      if (parameter.value.present()) out += "=" + std::to_string(number == -1 ? 1'000'000 : number);
    }
    require(extension.parameters.valid());
  }
  return out;
}

void try_list(std::string_view text) {
  const std::string first = rewritten(text);
  if (!ExtensionCursor(text).valid()) return;
  require(!first.empty() && ExtensionCursor(std::string_view(first)).valid());
  require(rewritten(first) == first);
}

// Several fields mean what one means that has all their values (RFC 9110 section 5.3).
void try_fields(std::string_view text, const DeflateOptions& options) {
  std::string head = "GET / HTTP/1.1\r\n", all;
  bool any = false;
  for (std::size_t at = 0; at <= text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    head += "Sec-WebSocket-Extensions: " + std::string(text.substr(at, end - at)) + "\r\nX: y\r\n";
    all += (any ? "," : "") + std::string(text.substr(at, end - at));
    any = true;
    at = end + 1;
  }
  head += "\r\n";
  HttpRequest request;
  if (request.parse(to_bytes(head)).state != ParseState::complete) return;
  require(ExtensionCursor(request).valid() == ExtensionCursor(std::string_view(all)).valid());
  const DeflateNegotiation fields = answer_deflate_offers(ExtensionCursor(request), options);
  const DeflateNegotiation one = answer_deflate_offers(ExtensionCursor(std::string_view(all)), options);
  require(fields.outcome == one.outcome && fields.agreement == one.agreement);
  require(fields.answer.view() == one.answer.view());
}

DeflateOptions options_of(std::uint8_t a, std::uint8_t b) {
  return {.enabled = (b & 64) == 0,
          .deflater = (a & 1) != 0 ? DeflateContext::dedicated : DeflateContext::shared,
          .window_bits = static_cast<std::uint8_t>(8 + (a >> 1 & 7)),
          .inflater = (b & 1) != 0 ? DeflateContext::dedicated : DeflateContext::shared,
          .peer_window_bits = static_cast<std::uint8_t>(8 + (b >> 1 & 7)),
          .offer_any_peer_window = (b & 32) != 0};
}

void require_within(const DeflateAgreement& agreement, const DeflateOptions& options, bool client) {
  require(agreement.own_window_bits >= 8 && agreement.own_window_bits <= options.window_bits);
  const bool any = client && options.offer_any_peer_window;
  require(agreement.peer_window_bits >= 8 &&
          agreement.peer_window_bits <= (any ? 15 : options.peer_window_bits));
  require(!agreement.own_takeover || options.deflater == DeflateContext::dedicated);
  require(!agreement.peer_takeover || options.inflater == DeflateContext::dedicated);
}

void try_negotiating(std::string_view text, const DeflateOptions& options) {
  const bool valid = ExtensionCursor(text).valid();
  const DeflateNegotiation server = answer_deflate_offers(ExtensionCursor(text), options);
  const DeflateNegotiation client = check_deflate_answer(ExtensionCursor(text), options);
  require((server.outcome == DeflateOutcome::failed) == !valid);
  require(valid || client.outcome == DeflateOutcome::failed);
  if (client.outcome == DeflateOutcome::agreed) require_within(client.agreement, options, true);
  if (server.outcome != DeflateOutcome::agreed) return;
  require_within(server.agreement, options, false);
  const std::string_view answer = server.answer.view();
  require(ExtensionCursor(answer).valid() && answer.size() <= 128);
  // A client that allows everything takes it, and understands the same.
  const DeflateOptions open{
      .enabled = true, .deflater = DeflateContext::dedicated, .inflater = DeflateContext::dedicated};
  const DeflateNegotiation taken = check_deflate_answer(ExtensionCursor(answer), open);
  require(taken.outcome == DeflateOutcome::agreed);
  require(taken.agreement.own_takeover == server.agreement.peer_takeover);
  require(taken.agreement.peer_takeover == server.agreement.own_takeover);
  require(taken.agreement.own_window_bits == server.agreement.peer_window_bits);
  require(taken.agreement.peer_window_bits == server.agreement.own_window_bits);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 2) return 0;
  const std::string_view text = to_text({data + 2, size - 2});
  try_list(text);
  const DeflateOptions options = options_of(data[0], data[1]);
  try_fields(text, options);
  try_negotiating(text, options);
  // The extension's name in front, so that its parameters are reached at once.
  try_negotiating("permessage-deflate; " + std::string(text), options);
  return 0;
}
