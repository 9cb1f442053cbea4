#include <levada/ws/deflate_negotiation.h>

#include <doctest/doctest.h>

using namespace levada::ws;

TEST_CASE("a build without zlib offers nothing and accepts no offer") {
  const DeflateOptions options{.enabled = true};
  CHECK(!deflate_available());
  CHECK(deflate_offer(options).view().empty());
  const ExtensionCursor offers("permessage-deflate");
  CHECK(answer_deflate_offers(offers, options).outcome == DeflateOutcome::none);
  CHECK(check_deflate_answer(offers, options).outcome == DeflateOutcome::failed);
}
