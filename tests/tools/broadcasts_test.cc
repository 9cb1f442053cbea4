#include <levada/tools/load/broadcasts.h>

#include <string>

#include <doctest/doctest.h>

namespace levada::load {
namespace {

// A publisher, connection 0, and listeners 1 to 3.
struct Party {
  Party() {
    for (const std::uint32_t listener : {1u, 2u, 3u}) broadcasts.join(listener);
  }
  std::string message(std::uint64_t number, std::uint32_t from = 0) const {
    const Payloads::Stamp stamp = payloads.stamp(from, number);
    return std::string(to_text(Bytes(stamp))).append(to_text(payloads.body(from, number, 16)));
  }
  Ledger::Answer hear(std::uint32_t listener, std::uint64_t number, std::uint64_t now) {
    return broadcasts.hear(listener, to_bytes(message(number)), now);
  }

  Payloads payloads{16, 4, 1};
  Broadcasts broadcasts{payloads, 0, 4};
};

TEST_CASE("a broadcast is heard by the first, half, and the last of its listeners") {
  Party party;
  CHECK(party.broadcasts.publish(1000, true) == 0);
  CHECK(party.broadcasts.open() == 1);
  CHECK(party.broadcasts.written(0, 1010) == 1000);
  for (const std::uint32_t listener : {3u, 1u, 2u}) {
    const auto answer = party.hear(listener, 0, 2000 + listener);
    CHECK(answer.echo == Echo::right);
    CHECK(answer.planned_ns == 1000);
    CHECK(answer.written_ns == 1010);
  }
  CHECK(party.broadcasts.open() == 0);
  const BroadcastResult& result = party.broadcasts.result();
  CHECK(result.first.max() == 1001);
  CHECK(result.median.max() == 1002);
  CHECK(result.last.max() == 1003);
  CHECK(result.reach() == 1);
}

TEST_CASE(
    "what a listener hears twice, out of order, from others or from "
    "nobody is told apart") {
  Party party;
  party.broadcasts.publish(1000, true);
  party.broadcasts.publish(2000, true);
  CHECK(party.hear(1, 1, 3000).echo == Echo::right);
  CHECK(party.hear(1, 0, 3000).echo == Echo::reordered);
  CHECK(party.hear(1, 0, 3000).echo == Echo::duplicated);
  CHECK(party.hear(2, 7, 3000).echo == Echo::unexpected);
  const auto foreign = party.broadcasts.hear(2, to_bytes(party.message(0, 3)), 3000);
  CHECK(foreign.echo == Echo::foreign);
  CHECK(foreign.origin.connection == 3);
  CHECK(party.broadcasts.hear(2, to_bytes("0123456789abcdef"), 3000).echo == Echo::corrupt);
  CHECK(party.broadcasts.hear(2, to_bytes("short"), 3000).echo == Echo::wrong_size);
  CHECK(party.hear(3, 0, 3000).echo == Echo::right);
  CHECK(party.hear(2, 0, 3000).echo == Echo::right);
  party.broadcasts.drop_settled();
  CHECK(party.hear(2, 0, 3000).echo == Echo::duplicated);  // of one that is forgotten
  CHECK(party.hear(2, 1, 3000).echo == Echo::right);       // and the next one is still known
}

TEST_CASE("who leaves is not waited for, and what was not heard lowers the reach") {
  Party party;
  party.broadcasts.publish(1000, true);
  party.broadcasts.publish(2000, true);
  party.hear(1, 0, 1500);
  party.hear(2, 0, 1500);
  int lost = 0;
  party.broadcasts.leave(3, [&](std::uint64_t) { lost++; });
  CHECK(lost == 2);
  CHECK(party.broadcasts.open() == 1);
  party.broadcasts.give_up([&](std::uint64_t planned_ns) {
    CHECK(planned_ns == 2000);
    lost++;
  });
  CHECK(lost == 4);
  CHECK(party.broadcasts.open() == 0);
  CHECK(party.broadcasts.expected() == 6);
  CHECK(party.broadcasts.result().delivered == 2);
  CHECK(party.broadcasts.result().reach() == doctest::Approx(1.0 / 3));
}

TEST_CASE("broadcasts that are not measured are delivered all the same") {
  Party party;
  party.broadcasts.publish(1000, false);
  for (const std::uint32_t listener : {1u, 2u, 3u}) CHECK(party.hear(listener, 0, 2000).echo == Echo::right);
  CHECK(party.broadcasts.expected() == 3);
  CHECK(party.broadcasts.result().published == 0);
  CHECK(party.broadcasts.result().delivered == 0);
  CHECK(party.broadcasts.result().last.count() == 0);
}

}  // namespace
}  // namespace levada::load
