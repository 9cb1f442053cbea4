#include <levada/tools/load/recorder.h>

#include <doctest/doctest.h>

namespace levada::load {
namespace {

constexpr std::uint64_t second = 1'000'000'000;

Ledger::Times answer(std::uint64_t planned_ns, std::uint64_t written_ns) {
  return {planned_ns, written_ns};
}

TEST_CASE("what was planned before the measured time is in no histogram") {
  Recorder recorder;
  recorder.echo(answer(5 * second, 5 * second), 10, 6 * second);
  recorder.begin(10 * second);
  recorder.echo(answer(9 * second, 9 * second), 10, 11 * second);
  recorder.write(9 * second, 11 * second);
  recorder.end(12 * second, 1);
  recorder.finish();
  CHECK(recorder.result().response.count() == 0);
  CHECK(recorder.result().lag.count() == 0);
  CHECK(recorder.result().messages == 1);  // but its echo came in it
  CHECK(recorder.result().verified == 2);
}

TEST_CASE("response is from the plan, service from the write, lag between the two") {
  Recorder recorder;
  recorder.begin(10 * second);
  recorder.write(11 * second, 11 * second + 100, 3);
  recorder.echo(answer(11 * second, 11 * second + 100), 7, 11 * second + 1100);
  recorder.end(20 * second, 1);
  recorder.echo(answer(19 * second, 19 * second + 5), 7,
                21 * second);  // late, and still counted
  recorder.finish();
  const Result& result = recorder.result();
  CHECK(result.response.min() == 1100);
  CHECK(result.service.min() == 1000);
  CHECK(result.lag.max() == 100);
  CHECK(result.lag.count() == 3);
  CHECK(result.response.max() == 2 * second);
  CHECK(result.messages == 1);
  CHECK(result.bytes == 7);
  CHECK(result.seconds == doctest::Approx(10));
}

TEST_CASE("what never comes is recorded with its age, and counted") {
  Recorder recorder;
  recorder.begin(10 * second);
  recorder.lose(11 * second, 14 * second);
  recorder.lose(9 * second,
                14 * second);  // planned before: lost, but not measured
  recorder.leave_unsent(12 * second, 14 * second, 3);
  recorder.end(14 * second, 0);
  recorder.finish();
  const Result& result = recorder.result();
  CHECK(result.errors.at("lost") == 2);
  CHECK(result.censored == 4);
  CHECK(result.unsent == 3);
  CHECK(result.response.count() == 4);
  CHECK(result.response.max() == 3 * second);
  CHECK(result.lag.max() == 2 * second);
}

TEST_CASE("each second of the series has its own echoes, and all are in the whole") {
  Recorder recorder;
  recorder.begin(10 * second);
  for (std::uint64_t i = 0; i < 3; i++) {
    for (std::uint64_t k = 0; k <= i; k++)
      recorder.echo(answer(10 * second, 10 * second), 1, 10 * second + 1000 * (i + 1));
    recorder.tick((11 + i) * second, 5 + i);
  }
  CHECK(recorder.latest()->messages == 3);
  recorder.end(13 * second, 9);
  recorder.finish();
  const Result& result = recorder.result();
  REQUIRE(result.series.size() == 3);
  for (std::uint64_t i = 0; i < 3; i++) {
    CHECK(result.series[i].messages == i + 1);
    CHECK(result.series[i].open == 5 + i);
    CHECK(result.series[i].at_s == doctest::Approx(static_cast<double>(i + 1)));
    CHECK(result.series[i].response.count() == i + 1);
    CHECK(result.series[i].response.max() == 1000 * (i + 1));
  }
  CHECK(result.response.count() == 6);
}

TEST_CASE("the last moments of a run belong to its last second") {
  Recorder recorder;
  recorder.begin(10 * second);
  recorder.echo(answer(10 * second, 10 * second), 1, 10 * second + 1000);
  recorder.tick(11 * second, 4);
  recorder.echo(answer(11 * second, 11 * second), 1, 11 * second + 5000);
  recorder.end(11 * second + second / 20, 3);
  REQUIRE(recorder.result().series.size() == 1);
  const Second& last = recorder.result().series[0];
  CHECK(last.messages == 2);
  CHECK(last.at_s == doctest::Approx(1.05));
  CHECK(last.open == 3);
  CHECK(last.response.count() == 2);
}

TEST_CASE("a run of less than a second has one point") {
  Recorder recorder;
  recorder.begin(10 * second);
  recorder.end(10 * second + second / 20, 3);
  REQUIRE(recorder.result().series.size() == 1);
  CHECK(recorder.result().series[0].at_s == doctest::Approx(0.05));
}

TEST_CASE("sketches of two threads add up to that of both") {
  Histogram one, two, both;
  for (std::uint64_t i = 1; i < 5000; i++) {
    (i % 3 == 0 ? one : two).record(i * i);
    both.record(i * i);
  }
  Sketch sum(one);
  sum.add(Sketch(two));
  CHECK(sum.count() == both.count());
  CHECK(sum.max() == both.max());
  CHECK(sum.entries() == Sketch(both).entries());
  for (const double percent : {1.0, 50.0, 90.0, 99.0, 100.0}) {
    const auto exact = static_cast<double>(both.percentile(percent));
    CHECK(static_cast<double>(sum.percentile(percent)) == doctest::Approx(exact).epsilon(0.01));
  }
}

}  // namespace
}  // namespace levada::load
