#include <levada/ws/deflate_negotiation.h>

#include <doctest/doctest.h>

#include <string>
#include <string_view>

using namespace levada;
using namespace levada::ws;

namespace {

constexpr DeflateContext shared = DeflateContext::shared;
constexpr DeflateContext dedicated = DeflateContext::dedicated;

// Takeover both ways and full windows: nothing of its own to ask for.
constexpr DeflateOptions plain{.enabled = true, .deflater = dedicated, .inflater = dedicated};

DeflateNegotiation answer(std::string_view offers, const DeflateOptions& options = plain) {
  return answer_deflate_offers(ExtensionCursor(offers), options);
}

// The answer's text, "-" for none, "failed".
std::string answered(std::string_view offers, const DeflateOptions& options = plain) {
  const DeflateNegotiation result = answer(offers, options);
  if (result.outcome == DeflateOutcome::failed) return "failed";
  return result.outcome == DeflateOutcome::none ? "-" : std::string(result.answer.view());
}

DeflateNegotiation check(std::string_view text, const DeflateOptions& options = plain) {
  return check_deflate_answer(ExtensionCursor(text), options);
}

std::string problem(std::string_view text, const DeflateOptions& options = plain) {
  const DeflateNegotiation result = check(text, options);
  return result.outcome == DeflateOutcome::failed ? result.reason : "";
}

const std::string pmd = "permessage-deflate";

}  // namespace

TEST_CASE("a server accepts offers as RFC 7692 section 7.1 says") {
  CHECK(answered(pmd) == pmd);
  CHECK(answered(pmd + "; server_no_context_takeover") == pmd + "; server_no_context_takeover");
  CHECK(answered(pmd + "; client_no_context_takeover") == pmd + "; client_no_context_takeover");
  CHECK(answered(pmd + "; client_max_window_bits") == pmd);
  CHECK(answered(pmd + "; client_max_window_bits=15") == pmd);
  CHECK(answered(pmd + "; client_max_window_bits=10") == pmd + "; client_max_window_bits=10");
  CHECK(answered(pmd + "; server_max_window_bits=10") == pmd + "; server_max_window_bits=10");
  CHECK(answered(pmd + "; server_max_window_bits=\"10\"") == pmd + "; server_max_window_bits=10");
  // 15 is what it would be without, but accepting the parameter is saying it (section 7.1.2.1).
  CHECK(answered(pmd + "; server_max_window_bits=15") == pmd + "; server_max_window_bits=15");
  CHECK(answered("x-other; a=b, " + pmd) == pmd);
}

TEST_CASE("what is agreed on is written from the server's side") {
  const DeflateNegotiation result =
      answer(pmd + "; client_no_context_takeover; server_max_window_bits=9; client_max_window_bits=12");
  CHECK(result.outcome == DeflateOutcome::agreed);
  CHECK(result.agreement == DeflateAgreement{true, false, 9, 12});
  CHECK(answer(pmd).agreement == DeflateAgreement{true, true, 15, 15});
}

TEST_CASE("a server asks for what its options want") {
  const DeflateOptions sharing{.enabled = true};
  CHECK(answered(pmd, sharing) == pmd + "; server_no_context_takeover; client_no_context_takeover");
  CHECK(answer(pmd, sharing).agreement == DeflateAgreement{false, false, 15, 15});
  DeflateOptions narrow = plain;
  narrow.window_bits = 11;
  CHECK(answered(pmd, narrow) == pmd + "; server_max_window_bits=11");
  CHECK(answered(pmd + "; server_max_window_bits=9", narrow) == pmd + "; server_max_window_bits=9");
  CHECK(answered(pmd + "; server_max_window_bits=13", narrow) == pmd + "; server_max_window_bits=11");
  narrow.window_bits = 15;
  narrow.peer_window_bits = 12;
  CHECK(answered(pmd + "; client_max_window_bits", narrow) == pmd + "; client_max_window_bits=12");
  CHECK(answered(pmd + "; client_max_window_bits=14", narrow) == pmd + "; client_max_window_bits=12");
  CHECK(answered(pmd + "; client_max_window_bits=10", narrow) == pmd + "; client_max_window_bits=10");
  CHECK(answered(pmd, narrow) == "-");  // a client that cannot be told
  CHECK(answered(pmd + ", " + pmd + "; client_max_window_bits", narrow) ==
        pmd + "; client_max_window_bits=12");
}

TEST_CASE("an offer with a bad, repeated or unknown parameter is declined, and the next one looked at") {
  for (const char* parameter : {"unknown",
                                "unknown=1",
                                "server_no_context_takeover=1",
                                "client_no_context_takeover=true",
                                "server_max_window_bits",
                                "server_max_window_bits=7",
                                "server_max_window_bits=16",
                                "server_max_window_bits=08",
                                "server_max_window_bits=1000000000000000",
                                "server_max_window_bits=x",
                                "client_max_window_bits=7",
                                "client_max_window_bits=16",
                                "client_max_window_bits=0",
                                "client_max_window_bits=-8",
                                "Server_No_Context_Takeover",
                                "server_no_context_takeover; server_no_context_takeover",
                                "client_no_context_takeover; client_no_context_takeover",
                                "server_max_window_bits=9; server_max_window_bits=9",
                                "client_max_window_bits; client_max_window_bits",
                                "client_max_window_bits; client_max_window_bits=9"}) {
    CAPTURE(parameter);
    const std::string bad = pmd + "; " + parameter;
    CHECK(answered(bad) == "-");
    CHECK(answered(pmd + "; server_max_window_bits=12; " + parameter) == "-");
    CHECK(answered(bad + ", " + pmd + "; server_max_window_bits=10") == pmd + "; server_max_window_bits=10");
  }
  CHECK(answered("permessage-bzip2, PERMESSAGE-DEFLATE, permessage-deflat") == "-");
}

TEST_CASE("the first offer that can be accepted is") {
  // RFC 7692 section 5.1: offers in order of the client's preference.
  CHECK(answered(pmd + "; server_max_window_bits=10, " + pmd) == pmd + "; server_max_window_bits=10");
  CHECK(answered(pmd + ", " + pmd + "; server_max_window_bits=10") == pmd);
}

TEST_CASE(
    "text that is no list fails the handshake wherever it stands, also if nothing was to be agreed on") {
  const DeflateOptions off;
  for (const std::string& bad :
       {std::string(""), pmd + "; ", pmd + ", b@d", "b@d, " + pmd, pmd + "; a=\"b"}) {
    CAPTURE(bad);
    CHECK(answered(bad) == "failed");
    CHECK(answered(bad, off) == "failed");
    CHECK(problem(bad) == "Sec-WebSocket-Extensions is no list of extensions");
  }
  CHECK(answered(pmd, off) == "-");
}

TEST_CASE("a window of 8 bits is agreed on in both directions") {
  CHECK(answered(pmd + "; server_max_window_bits=8; client_max_window_bits=8") ==
        pmd + "; server_max_window_bits=8; client_max_window_bits=8");
  DeflateOptions narrow = plain;
  narrow.window_bits = narrow.peer_window_bits = 8;
  CHECK(answer(pmd + "; client_max_window_bits", narrow).agreement == DeflateAgreement{true, true, 8, 8});
  CHECK(check(pmd + "; server_max_window_bits=8; client_max_window_bits=8", narrow).agreement ==
        DeflateAgreement{true, true, 8, 8});
}

TEST_CASE("a client offers what its options want") {
  CHECK(deflate_offer({}).view().empty());
  CHECK(deflate_offer(plain).view() == pmd + "; client_max_window_bits");
  CHECK(deflate_offer({.enabled = true}).view() ==
        pmd + "; server_no_context_takeover; client_no_context_takeover; client_max_window_bits");
  const DeflateOptions all{.enabled = true, .window_bits = 10, .peer_window_bits = 11};
  CHECK(deflate_offer(all).view() == pmd +
                                         "; server_no_context_takeover; client_no_context_takeover"
                                         "; server_max_window_bits=11; client_max_window_bits=10");
}

TEST_CASE("a client takes the answers that the RFC allows") {
  CHECK(check("x-other").outcome == DeflateOutcome::none);
  CHECK(check(pmd).agreement == DeflateAgreement{true, true, 15, 15});
  // A server may say these without being asked (sections 7.1.1.1, 7.1.1.2, 7.1.2.1).
  CHECK(check(pmd + "; server_no_context_takeover").agreement == DeflateAgreement{true, false, 15, 15});
  CHECK(check(pmd + "; client_no_context_takeover").agreement == DeflateAgreement{false, true, 15, 15});
  CHECK(check(pmd + "; server_max_window_bits=9").agreement == DeflateAgreement{true, true, 15, 9});
  CHECK(check(pmd + "; client_max_window_bits=9").agreement == DeflateAgreement{true, true, 9, 15});
  // What the client asked of itself is a hint that the server need not take up.
  const DeflateOptions modest{.enabled = true, .window_bits = 10, .inflater = dedicated};
  CHECK(check(pmd, modest).agreement == DeflateAgreement{false, true, 10, 15});
}

TEST_CASE("a client fails the connection on any other answer") {
  CHECK(problem(pmd, {}) == "permessage-deflate was not offered");
  CHECK(problem(pmd + ", " + pmd) == "permessage-deflate is there twice");
  CHECK(problem(pmd + "; unknown") == "an unknown parameter");
  CHECK(problem(pmd + "; server_no_context_takeover; server_no_context_takeover") == "a repeated parameter");
  CHECK(problem(pmd + "; client_max_window_bits=9; client_max_window_bits=9") == "a repeated parameter");
  CHECK(problem(pmd + "; client_no_context_takeover=1") == "a value where none belongs");
  CHECK(problem(pmd + "; client_max_window_bits") == "window bits that are no number from 8 to 15");
  CHECK(problem(pmd + "; server_max_window_bits") == "window bits that are no number from 8 to 15");
  CHECK(problem(pmd + "; server_max_window_bits=16") == "window bits that are no number from 8 to 15");
  const DeflateOptions asking{.enabled = true, .window_bits = 10, .peer_window_bits = 11};
  const std::string accepted = pmd + "; server_no_context_takeover; server_max_window_bits=11";
  CHECK(problem(accepted, asking).empty());
  CHECK(problem(accepted + "; client_max_window_bits=10", asking).empty());
  CHECK(problem(accepted + "; client_max_window_bits=11", asking) ==
        "client_max_window_bits is larger than offered");
  CHECK(problem(pmd + "; server_no_context_takeover; server_max_window_bits=12", asking) ==
        "server_max_window_bits is larger than offered");
  CHECK(problem(pmd + "; server_no_context_takeover", asking) ==
        "server_max_window_bits was asked for and is missing");
  CHECK(problem(pmd + "; server_max_window_bits=11", asking) ==
        "server_no_context_takeover was asked for and is missing");
}

TEST_CASE("a client may offer any window of its peer behind the one that it wants") {
  DeflateOptions wanting{
      .enabled = true, .window_bits = 10, .peer_window_bits = 11, .offer_any_peer_window = true};
  const std::string both = "; server_no_context_takeover; client_no_context_takeover";
  CHECK(deflate_offer(wanting).view() == pmd + both +
                                             "; server_max_window_bits=11; client_max_window_bits=10, " +
                                             pmd + both + "; client_max_window_bits=10");
  const std::string taken = pmd + "; server_no_context_takeover";
  CHECK(check(taken, wanting).agreement == DeflateAgreement{false, false, 10, 15});
  CHECK(check(taken + "; server_max_window_bits=11", wanting).agreement ==
        DeflateAgreement{false, false, 10, 11});
  CHECK(check(taken + "; server_max_window_bits=12", wanting).agreement ==
        DeflateAgreement{false, false, 10, 12});
  CHECK(problem(pmd, wanting) == "server_no_context_takeover was asked for and is missing");
  // One of our servers takes the first.
  CHECK(answer(deflate_offer(wanting).view(), {.enabled = true}).agreement ==
        DeflateAgreement{false, false, 11, 10});
  wanting.peer_window_bits = 15;
  CHECK(deflate_offer(wanting).view() == pmd + both + "; client_max_window_bits=10");
}

TEST_CASE("options out of range are told apart") {
  CHECK(is_valid(DeflateOptions{}));
  for (const DeflateOptions& wrong : {DeflateOptions{.window_bits = 7},
                                      {.window_bits = 16},
                                      {.level = 0},
                                      {.level = 10},
                                      {.memory_level = 0},
                                      {.memory_level = 10},
                                      {.peer_window_bits = 7},
                                      {.peer_window_bits = 16},
                                      {.slice_bytes = 0}})
    CHECK(!is_valid(wrong));
}

TEST_CASE("whatever two endpoints want, they agree, and on the same") {
  int agreed = 0;
  for (unsigned variant = 0; variant < 16; variant++) {
    for (std::uint8_t server_own = 8; server_own <= 15; server_own++) {
      for (std::uint8_t server_peer = 8; server_peer <= 15; server_peer++) {
        for (std::uint8_t client_own = 8; client_own <= 15; client_own++) {
          for (std::uint8_t client_peer = 8; client_peer <= 15; client_peer++) {
            const auto context = [variant](unsigned bit) {
              return (variant >> bit & 1) != 0 ? dedicated : shared;
            };
            const DeflateOptions server{.enabled = true,
                                        .deflater = context(0),
                                        .window_bits = server_own,
                                        .inflater = context(1),
                                        .peer_window_bits = server_peer};
            const DeflateOptions client{.enabled = true,
                                        .deflater = context(2),
                                        .window_bits = client_own,
                                        .inflater = context(3),
                                        .peer_window_bits = client_peer};
            const ExtensionText offer = deflate_offer(client);
            const DeflateNegotiation there = answer(offer.view(), server);
            const DeflateNegotiation here = check(there.answer.view(), client);
            if (there.outcome != DeflateOutcome::agreed || here.outcome != DeflateOutcome::agreed) continue;
            const DeflateAgreement& a = there.agreement;
            const DeflateAgreement& b = here.agreement;
            const bool same = a.own_takeover == b.peer_takeover && a.own_window_bits == b.peer_window_bits &&
                              a.peer_window_bits == b.own_window_bits && (a.peer_takeover || !b.own_takeover);
            const bool wanted = a.own_window_bits <= std::min(server_own, client_peer) &&
                                a.peer_window_bits <= std::min(server_peer, client_own);
            agreed += same && wanted ? 1 : 0;
          }
        }
      }
    }
  }
  CHECK(agreed == 16 * 8 * 8 * 8 * 8);
}
