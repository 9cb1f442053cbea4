#include <levada/tools/load/ledger.h>

#include <deque>
#include <initializer_list>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include <doctest/doctest.h>

#include <levada/core/random.h>

namespace levada::load {
namespace {

std::string message(const Payloads& payloads, std::uint32_t connection, std::uint64_t sequence) {
  const Payloads::Stamp stamp = payloads.stamp(connection, sequence);
  const std::size_t size = payloads.size(connection, sequence);
  std::string text(to_text(Bytes(stamp).first(payloads.stamp_size(size))));
  return text.append(to_text(payloads.body(connection, sequence, size)));
}

// A ledger with `depth` messages in flight, planned at 1000, 1001, ...
struct Sent {
  explicit Sent(unsigned depth, std::size_t size = 16) : payloads(size, 10, 1), ledger(payloads, 3, depth) {
    for (unsigned i = 0; i < depth; i++) ledger.send(1000 + i);
  }
  Ledger::Answer receive(std::uint64_t sequence, std::uint32_t connection = 3) {
    const std::string text = message(payloads, connection, sequence);
    const Ledger::Times due = ledger.receive_due(to_bytes(text));
    if (due.planned_ns == 0) return ledger.receive(to_bytes(text));
    return {.planned_ns = due.planned_ns, .written_ns = due.written_ns, .sequence = sequence};
  }
  // What the messages that follow each other and were planned at the same time are, as written() tells it.
  std::vector<std::pair<std::uint64_t, std::uint64_t>> written(std::uint64_t first, std::uint64_t end,
                                                               std::uint64_t now) {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> told;
    ledger.written(first, end, now, [&](std::uint64_t planned_ns, std::uint64_t times) {
      told.emplace_back(planned_ns, times);
    });
    return told;
  }

  Payloads payloads;
  Ledger ledger;
};

TEST_CASE("echoes in order are right and tell when they were planned") {
  for (const std::size_t size : std::initializer_list<std::size_t>{0, 1, 7, 8, 16, 100}) {
    Sent sent(4, size);
    for (std::uint64_t i = 0; i < 4; i++) {
      const auto answer = sent.receive(i);
      CHECK(answer.echo == Echo::right);
      CHECK(answer.planned_ns == 1000 + i);
      CHECK(sent.ledger.in_flight() == 3 - i);
    }
    CHECK(sent.receive(3).echo == Echo::duplicated);
  }
}

TEST_CASE("two echoes in the wrong order are one that is reordered") {
  for (const std::size_t size : std::initializer_list<std::size_t>{1, 8, 100}) {
    Sent sent(3, size);
    CHECK(sent.receive(1).echo == Echo::right);
    const auto late = sent.receive(0);
    CHECK(late.echo == Echo::reordered);
    CHECK(late.planned_ns == 1000);
    CHECK(sent.receive(2).echo == Echo::right);
    CHECK(sent.ledger.in_flight() == 0);
  }
}

TEST_CASE("an echo that comes twice is duplicated") {
  Sent sent(2);
  CHECK(sent.receive(0).echo == Echo::right);
  const auto again = sent.receive(0);
  CHECK(again.echo == Echo::duplicated);
  CHECK(again.planned_ns == 0);
  CHECK(sent.ledger.in_flight() == 1);
  CHECK(sent.receive(1).echo == Echo::right);
}

TEST_CASE("another connection's echo is foreign and names its owner") {
  Sent sent(2);
  const auto answer = sent.receive(77, 8);
  CHECK(answer.echo == Echo::foreign);
  CHECK(answer.origin.connection == 8);
  CHECK(answer.origin.sequence == 77);
  CHECK(answer.sequence == 0);  // took the place of message 0
  CHECK(sent.receive(1).echo == Echo::right);
}

TEST_CASE("bytes that nobody sent, and a wrong size, are told apart") {
  Sent sent(2);
  CHECK(sent.ledger.receive(to_bytes("0123456789abcdef")).echo == Echo::corrupt);
  CHECK(sent.ledger.receive(to_bytes("0123456789")).echo == Echo::wrong_size);
  CHECK(sent.ledger.in_flight() == 0);
  CHECK(sent.ledger.receive_wrong(Echo::corrupt).echo == Echo::unexpected);
}

TEST_CASE("an echo before anything was sent is unexpected") {
  Sent sent(0);
  CHECK(sent.ledger.receive(to_bytes("0123456789abcdef")).echo == Echo::unexpected);
  Sent empty(0, 0);
  CHECK(empty.ledger.receive({}).echo == Echo::unexpected);
}

TEST_CASE(
    "a message that is never answered is given up when its place is "
    "needed, or at the end") {
  Sent sent(2);
  CHECK(sent.receive(1).echo == Echo::right);  // message 0 is missing
  for (std::uint64_t i = 2; i < sent.ledger.window(); i++) {
    CHECK(sent.ledger.expire() == 0);
    sent.ledger.send(5000);
    CHECK(sent.receive(i).echo == Echo::right);
  }
  CHECK(sent.ledger.expire() == 1000);
  sent.ledger.send(6000);
  int lost = 0;
  sent.ledger.give_up([&](std::uint64_t planned_ns) {
    CHECK(planned_ns == 6000);
    lost++;
  });
  CHECK(lost == 1);
  CHECK(sent.ledger.in_flight() == 0);
}

TEST_CASE("the time of writing comes back with the echo") {
  using Told = std::vector<std::pair<std::uint64_t, std::uint64_t>>;
  Sent sent(3);
  CHECK(sent.written(1, 2, 1500) == Told{{1001, 1}});
  const auto first = sent.receive(0);
  CHECK(first.written_ns == first.planned_ns);  // not noted yet
  CHECK(sent.receive(1).written_ns == 1500);
  CHECK(sent.written(1, 2, 1600).empty());  // it is answered already
}

TEST_CASE("messages that were planned together are told of together when they are written") {
  using Told = std::vector<std::pair<std::uint64_t, std::uint64_t>>;
  Sent sent(2);
  for (int i = 0; i < 3; i++) sent.ledger.send(5000);
  for (int i = 0; i < 2; i++) sent.ledger.send(6000);
  CHECK(sent.receive(3).echo == Echo::right);  // an answered one counts no more, and parts the others
  CHECK(sent.written(0, 7, 7000) == Told{{1000, 1}, {1001, 1}, {5000, 1}, {5000, 1}, {6000, 2}});
  CHECK(sent.written(5, 7, 8000) == Told{{6000, 2}});
  CHECK(sent.receive(5).written_ns == 8000);
}

TEST_CASE("messages that are forgotten are not told of when they are written") {
  Sent sent(1);
  const std::uint64_t window = sent.ledger.window();
  for (std::uint64_t i = 0; i < window; i++) {
    CHECK(sent.receive(i).echo == Echo::right);
    CHECK(sent.ledger.expire() == 0);
    sent.ledger.send(2000 + i);
  }
  CHECK(sent.written(0, 1, 9000).empty());
  CHECK(sent.receive(window).written_ns == 2000 + window - 1);
}

TEST_CASE("a server that pauses loses nothing, however much is in flight meanwhile") {
  Sent sent(1);
  for (std::uint64_t i = 1; i < 100'000; i++) {
    CHECK(sent.ledger.expire() == 0);
    sent.ledger.send(1000 + i);
    sent.written(i, i + 1, 2000 + i);
  }
  CHECK(sent.ledger.in_flight() == 100'000);
  for (std::uint64_t i = 0; i < 100'000; i++) {
    const auto answer = sent.receive(i);
    if (answer.echo != Echo::right || answer.planned_ns != 1000 + i) FAIL(i);
    if (i > 0 && answer.written_ns != 2000 + i) FAIL(i);
  }
}

TEST_CASE("a literal message is right or wrong by its bytes alone") {
  const Payloads payloads("hello");
  Ledger ledger(payloads, 3, 2);
  ledger.send(1000);
  ledger.send(1001);
  CHECK(payloads.stamp_size(5) == 0);
  CHECK(to_text(payloads.body(3, 0, 5)) == "hello");
  CHECK(ledger.receive(to_bytes("hello")).planned_ns == 1000);
  CHECK(ledger.receive(to_bytes("hellO")).echo == Echo::corrupt);
}

// A server that does everything wrong, and the sum that must come out anyway.
TEST_CASE("the ledger sums to what was sent whatever comes back") {
  for (std::uint64_t seed = 1; seed <= 50; seed++) {
    SeededRandom random(seed);
    const unsigned depth = 1 + static_cast<unsigned>(random.below(20));
    Payloads payloads(16, 10, seed);
    Ledger ledger(payloads, 3, depth);
    std::deque<std::uint64_t> at_server;
    std::map<Echo, std::uint64_t> taken;  // echoes that took a message's place
    std::uint64_t lost = 0;
    for (int step = 0; step < 3000; step++) {
      while (ledger.in_flight() < depth) {
        lost += ledger.expire() != 0;
        at_server.push_back(ledger.send(1));
      }
      const std::uint64_t fate = random.below(40);
      if (at_server.empty()) break;
      const auto picked =
          at_server.begin() + static_cast<std::ptrdiff_t>(fate == 1 ? random.below(at_server.size()) : 0);
      const std::uint64_t sequence = *picked;
      if (fate != 2) at_server.erase(picked);         // 2: the echo will come twice
      if (fate == 3 && !at_server.empty()) continue;  // dropped
      std::string text = message(payloads, fate == 4 ? 5 : 3, sequence);
      if (fate == 5) text[9] = '!';
      if (fate == 6) text.pop_back();
      const auto answer = ledger.receive(to_bytes(text));
      taken[answer.echo] += answer.planned_ns != 0;
      if (fate >= 7)
        CHECK((answer.echo == Echo::right || answer.echo == Echo::reordered ||
               answer.echo == Echo::duplicated));
    }
    ledger.give_up([&](std::uint64_t) { lost++; });
    std::uint64_t sum = lost;
    for (const auto& [echo, times] : taken) sum += times;
    CHECK(sum == ledger.sent());
    CHECK(taken[Echo::duplicated] == 0);
    CHECK(taken[Echo::unexpected] == 0);
  }
}

}  // namespace
}  // namespace levada::load
