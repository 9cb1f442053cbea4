#include <levada/tools/load/schedule.h>

#include <cmath>
#include <vector>

#include <doctest/doctest.h>

namespace levada::load {
namespace {

constexpr std::uint64_t begin_ns = 1'000'000'000'000;

std::vector<std::uint64_t> first_times(Timetable table, std::size_t count) {
  std::vector<std::uint64_t> times;
  for (; times.size() < count; table.take()) times.push_back(table.next());
  return times;
}

TEST_CASE("a constant timetable keeps its interval for ever, from a random phase") {
  // An interval that is no whole number of nanoseconds: what is left over must not add up.
  const double interval = 1e9 / 3000;
  const auto times = first_times(Timetable(1, begin_ns, interval, false), 300'001);
  CHECK(times.front() >= begin_ns);
  CHECK(static_cast<double>(times.front() - begin_ns) <= interval);
  CHECK(std::abs(static_cast<double>(times.back() - times.front()) - 100e9) < 2);
  for (std::size_t i = 1; i < times.size(); i++) {
    if (std::abs(static_cast<double>(times[i] - times[i - 1]) - interval) > 1) FAIL_CHECK(i);
  }
  CHECK(first_times(Timetable(2, begin_ns, interval, false), 1).front() != times.front());
}

TEST_CASE("a Poisson timetable has the rate, and the spread, of a Poisson process") {
  constexpr double interval = 20'000;
  const auto times = first_times(Timetable(3, begin_ns, interval, true), 200'001);
  double sum = 0, squares = 0;
  for (std::size_t i = 1; i < times.size(); i++) {
    const auto step = static_cast<double>(times[i] - times[i - 1]);
    sum += step;
    squares += step * step;
  }
  const double count = static_cast<double>(times.size() - 1);
  const double mean = sum / count;
  CHECK(mean == doctest::Approx(interval).epsilon(0.01));
  // Of an exponential distribution, the standard deviation is the mean.
  CHECK(std::sqrt(squares / count - mean * mean) == doctest::Approx(interval).epsilon(0.02));
}

TEST_CASE("what was planned until now is taken in few groups, and none of it is lost") {
  for (const std::uint64_t count : {1u, 100u, 100'000u, 1'000'000'000u}) {
    CAPTURE(count);
    Timetable table(1, begin_ns, 10, false);
    const std::uint64_t first = table.next(), now = first + 10 * (count - 1);
    std::uint64_t taken = 0, groups = 0, last = 0;
    table.take_until(now, [&](std::uint64_t planned_ns, std::uint64_t times) {
      CHECK(planned_ns >= last);
      last = planned_ns;
      taken += times;
      groups++;
    });
    CHECK(taken == count);
    CHECK(groups <= 300);
    CHECK(table.next() == now + 10);
  }
  Timetable poisson(1, begin_ns, 1000, true);
  std::uint64_t taken = 0;
  poisson.take_until(begin_ns + 100'000'000, [&](std::uint64_t, std::uint64_t times) { taken += times; });
  CHECK(static_cast<double>(taken) == doctest::Approx(100'000).epsilon(0.02));
  CHECK(poisson.next() > begin_ns + 100'000'000);
  Timetable late(1, begin_ns, 10, false);
  late.take_until(begin_ns - 1, [](std::uint64_t, std::uint64_t) { FAIL_CHECK("nothing was planned"); });
}

TEST_CASE("the same seed makes the same timetable, another seed another one") {
  const auto one = first_times(Timetable(7, begin_ns, 1e6, true), 1000);
  CHECK(one == first_times(Timetable(7, begin_ns, 1e6, true), 1000));
  CHECK(one != first_times(Timetable(8, begin_ns, 1e6, true), 1000));
}

TEST_CASE("a queue of timetables gives the times of all of them in order") {
  DueQueue queue;
  std::vector<Timetable> tables;
  for (std::uint32_t i = 0; i < 50; i++) {
    tables.emplace_back(i, begin_ns, 1000.0 * (i + 1), i % 2 == 0);
    queue.push(tables.back().next(), i);
  }
  std::vector<int> taken(tables.size());
  std::uint64_t last = 0;
  while (queue.first_ns() < begin_ns + 1'000'000) {
    const std::uint32_t number = queue.first();
    CHECK(queue.first_ns() == tables[number].next());
    CHECK(queue.first_ns() >= last);
    last = queue.first_ns();
    taken[number]++;
    tables[number].take();
    queue.postpone(tables[number].next());
  }
  for (std::size_t i = 0; i < tables.size(); i++) {
    const double expected = 1'000'000 / (1000.0 * static_cast<double>(i + 1));
    CHECK(std::abs(taken[i] - expected) <= (i % 2 == 0 ? 6 * std::sqrt(expected) + 1 : 1));
  }
  queue.clear();
  CHECK(queue.empty());
}

TEST_CASE("a closed loop sends what makes its depth full") {
  const ClosedLoop loop{3};
  CHECK(loop.due(0) == 3);
  CHECK(loop.due(2) == 1);
  CHECK(loop.due(3) == 0);
  CHECK(loop.due(9) == 0);
}

}  // namespace
}  // namespace levada::load
