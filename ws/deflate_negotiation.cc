#include <levada/ws/deflate_negotiation.h>

#include <algorithm>
#include <cassert>
#include <charconv>
#include <cstring>

namespace levada::ws {
namespace {

constexpr std::string_view server_no_takeover = "server_no_context_takeover";
constexpr std::string_view client_no_takeover = "client_no_context_takeover";
constexpr std::string_view server_window_bits = "server_max_window_bits";
constexpr std::string_view client_window_bits = "client_max_window_bits";

// The parameters of an offer or an answer.
struct Parameters {
  bool server_no_takeover = false;
  bool client_no_takeover = false;
  int server_bits = 0;  // 0: not given
  int client_bits = 0;  // 0: not given, or without a value
  bool has_client_bits = false;
  const char* problem = nullptr;  // the first that is wrong
};

// 8 to 15, or 0.
int window_bits_of(const ExtensionValue& value) {
  const int bits = value.number();
  return bits >= min_window_bits && bits <= max_window_bits ? bits : 0;
}

const char* take_flag(bool& flag, const ExtensionValue& value) {
  if (flag) return "a repeated parameter";
  flag = true;
  return value.present() ? "a value where none belongs" : nullptr;
}

const char* take_bits(bool& seen, int& bits, const ExtensionValue& value, bool value_optional) {
  if (seen) return "a repeated parameter";
  seen = true;
  if (!value.present() && value_optional) return nullptr;
  bits = window_bits_of(value);
  return bits == 0 ? "window bits that are no number from 8 to 15" : nullptr;
}

// In an offer client_max_window_bits may stand without a value (section 7.1.2.2).
Parameters read_parameters(ExtensionParameters list, bool offer) {
  Parameters result;
  bool has_server_bits = false;
  for (ExtensionParameter parameter; result.problem == nullptr && list.next(parameter);) {
    if (parameter.name == server_no_takeover) {
      result.problem = take_flag(result.server_no_takeover, parameter.value);
    } else if (parameter.name == client_no_takeover) {
      result.problem = take_flag(result.client_no_takeover, parameter.value);
    } else if (parameter.name == server_window_bits) {
      result.problem = take_bits(has_server_bits, result.server_bits, parameter.value, false);
    } else if (parameter.name == client_window_bits) {
      result.problem = take_bits(result.has_client_bits, result.client_bits, parameter.value, offer);
    } else {
      result.problem = "an unknown parameter";
    }
  }
  return result;
}

std::uint8_t smaller(int offered, std::uint8_t own) {
  return offered == 0 ? own : static_cast<std::uint8_t>(std::min<int>(offered, own));
}

// Server: whether this offer can be accepted, and then how.
bool accept_offer(const Parameters& offer, const DeflateOptions& options, DeflateNegotiation& result) {
  if (offer.problem != nullptr) return false;
  // Only a client that says it knows the parameter can be given a bound (section 7.1.2.2).
  if (options.peer_window_bits < max_window_bits && !offer.has_client_bits) return false;
  DeflateAgreement& agreed = result.agreement;
  agreed.own_takeover = options.deflater == DeflateContext::dedicated && !offer.server_no_takeover;
  agreed.peer_takeover = options.inflater == DeflateContext::dedicated && !offer.client_no_takeover;
  agreed.own_window_bits = smaller(offer.server_bits, options.window_bits);
  agreed.peer_window_bits = smaller(offer.client_bits, options.peer_window_bits);

  result.outcome = DeflateOutcome::agreed;
  ExtensionText& text = result.answer;
  text.append(deflate_extension);
  if (!agreed.own_takeover) text.append_parameter(server_no_takeover);
  if (!agreed.peer_takeover) text.append_parameter(client_no_takeover);
  // Said even if it is 15 when it was asked for: that is what accepts it (section 7.1.2.1).
  if (offer.server_bits != 0 || agreed.own_window_bits < max_window_bits) {
    text.append_parameter(server_window_bits, agreed.own_window_bits);
  }
  if (agreed.peer_window_bits < max_window_bits) {
    text.append_parameter(client_window_bits, agreed.peer_window_bits);
  }
  return true;
}

bool is_peer_window_bounded(const DeflateOptions& options) {
  return options.peer_window_bits < max_window_bits;
}

void append_offer(ExtensionText& text, const DeflateOptions& options, bool bounded) {
  text.append(deflate_extension);
  if (options.inflater == DeflateContext::shared) text.append_parameter(server_no_takeover);
  if (options.deflater == DeflateContext::shared) text.append_parameter(client_no_takeover);
  if (bounded) text.append_parameter(server_window_bits, options.peer_window_bits);
  text.append_parameter(client_window_bits, options.window_bits < max_window_bits ? options.window_bits : 0);
}

DeflateNegotiation fail(const char* reason) {
  DeflateNegotiation result;
  result.outcome = DeflateOutcome::failed;
  result.reason = reason;
  return result;
}

// Client: what is wrong with an answer, or nullptr.
const char* answer_problem(const Parameters& answer, const DeflateOptions& options) {
  if (answer.problem != nullptr) return answer.problem;
  if (options.inflater == DeflateContext::shared && !answer.server_no_takeover) {
    return "server_no_context_takeover was asked for and is missing";
  }
  if (is_peer_window_bounded(options) && !options.offer_any_peer_window) {
    if (answer.server_bits == 0) return "server_max_window_bits was asked for and is missing";
    if (answer.server_bits > options.peer_window_bits) return "server_max_window_bits is larger than offered";
  }
  if (answer.client_bits > options.window_bits) return "client_max_window_bits is larger than offered";
  return nullptr;
}

}  // namespace

bool is_valid(const DeflateOptions& options) {
  const auto is_bits = [](std::uint8_t bits) { return bits >= min_window_bits && bits <= max_window_bits; };
  return is_bits(options.window_bits) && is_bits(options.peer_window_bits) && options.level >= 1 &&
         options.level <= 9 && options.memory_level >= 1 && options.memory_level <= 9 &&
         options.slice_bytes > 0;
}

void ExtensionText::append(std::string_view text) {
  assert(text.size() <= capacity - size_);
  std::memcpy(bytes_.data() + size_, text.data(), text.size());
  size_ += text.size();
}

void ExtensionText::append_parameter(std::string_view name, unsigned value) {
  append("; ");
  append(name);
  if (value == 0) return;
  char digits[12];
  const auto end = std::to_chars(digits, digits + sizeof digits, value).ptr;
  append("=");
  append({digits, static_cast<std::size_t>(end - digits)});
}

DeflateNegotiation answer_deflate_offers(const ExtensionCursor& offers, const DeflateOptions& options) {
  assert(is_valid(options));
  if (!offers.valid()) return fail("Sec-WebSocket-Extensions is no list of extensions");
  DeflateNegotiation result;
  if (!options.enabled || !deflate_available()) return result;
  ExtensionCursor cursor(offers);
  for (Extension offer; cursor.next(offer);) {
    if (offer.name != deflate_extension) continue;
    if (accept_offer(read_parameters(offer.parameters, true), options, result)) break;
  }
  return result;
}

ExtensionText deflate_offer(const DeflateOptions& options) {
  assert(is_valid(options));
  ExtensionText text;
  if (!options.enabled || !deflate_available()) return text;
  append_offer(text, options, is_peer_window_bounded(options));
  if (!is_peer_window_bounded(options) || !options.offer_any_peer_window) return text;
  text.append(", ");
  append_offer(text, options, false);
  return text;
}

DeflateNegotiation check_deflate_answer(const ExtensionCursor& answer, const DeflateOptions& options) {
  assert(is_valid(options));
  if (!answer.valid()) return fail("Sec-WebSocket-Extensions is no list of extensions");
  DeflateNegotiation result;
  ExtensionCursor cursor(answer);
  for (Extension extension; cursor.next(extension);) {
    if (extension.name != deflate_extension) continue;
    if (!options.enabled || !deflate_available()) return fail("permessage-deflate was not offered");
    if (result.outcome == DeflateOutcome::agreed) return fail("permessage-deflate is there twice");
    const Parameters parameters = read_parameters(extension.parameters, false);
    if (const char* problem = answer_problem(parameters, options)) return fail(problem);
    result.outcome = DeflateOutcome::agreed;
    result.agreement = {
        .own_takeover = options.deflater == DeflateContext::dedicated && !parameters.client_no_takeover,
        .peer_takeover = !parameters.server_no_takeover,
        .own_window_bits = smaller(parameters.client_bits, options.window_bits),
        .peer_window_bits = smaller(parameters.server_bits, max_window_bits)};
  }
  return result;
}

}  // namespace levada::ws
