#include <levada/tests/simulation/simulator.h>

#include <cstdlib>
#include <string>

#include <doctest/doctest.h>

#include <levada/tests/simulation/run.h>

using namespace levada;
using namespace levada::ws::test;

TEST_CASE("no rule is broken in 300 steps of each of 200 seeds") {
  Counts sum;
  for (std::uint64_t seed = 1; seed <= 200; seed++) {
    const Outcome outcome = simulate(seed, 300);
    INFO("seed " << seed << ", step " << outcome.steps << "\n" << outcome.last_events);
    REQUIRE(outcome.problem == "");
    for (const auto& [name, times] : outcome.counts) sum[name] += times;
  }
  // The simulation does what it is for.
  for (const char* const name : {"open",
                                 "close",
                                 "message received",
                                 "piece received",
                                 "frame queued",
                                 "send refused: full",
                                 "newest message dropped",
                                 "oldest messages dropped",
                                 "too slow a peer closed",
                                 "limit: idle",
                                 "limit: lifetime",
                                 "limit: write stall",
                                 "limit: message timeout",
                                 "limit: least rate",
                                 "limit: memory budget",
                                 "limit: control frames",
                                 "graceful stop",
                                 "keepalive ping",
                                 "drain",
                                 "broadcast",
                                 "payload kept",
                                 "kept payload sent",
                                 "pause",
                                 "terminate",
                                 "close by the user",
                                 "close by the peer",
                                 "protocol error by the peer",
                                 "held handshake decided",
                                 "post to a dead connection",
                                 "peer stalls",
                                 "peer resets",
                                 "clock jump",
                                 "fault starved",
                                 "fault short_write",
                                 "fault refused_write",
                                 "fault accept_failure",
                                 "fault reset",
                                 "fault failed_operation",
                                 "rest"}) {
    CAPTURE(name);
    CHECK(sum[name] > 0);
  }
}

TEST_CASE("a seed replays exactly, and another one is another story") {
  const Outcome first = simulate(4711, 300), second = simulate(4711, 300), other = simulate(4712, 300);
  CHECK(first.hash == second.hash);
  CHECK(first.counts == second.counts);
  CHECK(first.hash != other.hash);
}

TEST_CASE("a seed in which a rule is broken breaks it again in the same step, and tells the same") {
  const auto fail = [] {
    return simulate(
        4711, 600, [](std::uint64_t) {}, 200);
  };
  const Outcome first = fail(), second = fail();
  CHECK(simulate(4711, 600).problem.empty());
  CHECK(!first.problem.empty());
  CHECK(!first.last_events.empty());
  CHECK(first.steps > 200);
  CHECK(first.problem == second.problem);
  CHECK(first.steps == second.steps);
  CHECK(first.hash == second.hash);
  CHECK(first.last_events == second.last_events);
  CHECK(first.counts == second.counts);
}

TEST_CASE("the journal's hash depends on every part of every entry, and the first broken rule is kept") {
  const auto hash = [](const char* what, std::uint64_t link, std::int64_t value) {
    Journal journal;
    journal.note("before");
    journal.note(what, link, value);
    return journal.hash();
  };
  CHECK(hash("a", 1, 2) == hash("a", 1, 2));
  CHECK(hash("a", 1, 2) != hash("b", 1, 2));
  CHECK(hash("a", 1, 2) != hash("a", 2, 2));
  CHECK(hash("a", 1, 2) != hash("a", 1, 3));
  Journal journal;
  CHECK(journal.require(true, "holds"));
  CHECK_FALSE(journal.broken());
  CHECK_FALSE(journal.require(false, "first", 3, 4));
  journal.require(false, "second");
  CHECK(journal.problem() == "first (connection 3, 4)");
}

TEST_CASE("a script of bytes decides, and chooses 0 when it is used up") {
  const std::uint8_t script[] = {7, 1, 2, 3};
  Choices choices{Bytes(script)};
  CHECK(choices.below(10) == 7);
  CHECK(choices.below(1000) == 258);
  CHECK_FALSE(choices.exhausted());
  CHECK(choices.below(1) == 0);
  CHECK(choices.below(256) == 3);
  CHECK(choices.exhausted());
  CHECK(choices.below(256) == 0);
  CHECK_FALSE(choices.one_in(2));
}
