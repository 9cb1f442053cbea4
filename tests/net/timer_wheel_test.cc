#include <levada/net/timer_wheel.h>

#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include <doctest/doctest.h>

#include <levada/core/random.h>

using namespace levada;
using namespace levada::net;

namespace {

// A wheel beside the plainest model: a map from deadline, in milliseconds that do not wrap, to timers.
class Model {
 public:
  Model(std::uint32_t start, std::size_t count)
      : wheel_(start), start_(start), timers_(count), deadlines_(count) {}

  void set(std::size_t i, std::uint64_t delay) {
    wheel_.set(timers_[i], wheel_.now() + static_cast<std::uint32_t>(delay));
    drop(i);
    deadlines_[i] = now_ + std::clamp<std::uint64_t>(delay, 1, TimerWheel::max_delay_ms);
    due_.insert({deadlines_[i], i});
  }

  void cancel(std::size_t i) {
    wheel_.cancel(timers_[i]);
    drop(i);
  }

  // Advances both and compares what expires, and when.
  void advance(std::uint64_t by) {
    REQUIRE((due_.empty() || wheel_.next_event_ms() <= due_.begin()->first - now_));
    REQUIRE(((wheel_.next_event_ms() == TimerWheel::none) == due_.empty()));
    std::vector<std::pair<std::uint64_t, std::size_t>> expired;
    const std::uint64_t began = now_;
    wheel_.advance(static_cast<std::uint32_t>(start_ + now_ + by), [&](Timer& timer) {
      REQUIRE_FALSE(timer.armed());
      expired.push_back({began + (wheel_.now() - static_cast<std::uint32_t>(start_ + began)),
                         static_cast<std::size_t>(&timer - timers_.data())});
    });
    now_ += by;
    std::vector<std::pair<std::uint64_t, std::size_t>> expected;
    while (!due_.empty() && due_.begin()->first <= now_) {
      expected.push_back(*due_.begin());
      deadlines_[due_.begin()->second] = 0;
      due_.erase(due_.begin());
    }
    std::stable_sort(expired.begin(), expired.end());  // timers of the same millisecond expire in any order
    REQUIRE(expired == expected);
    REQUIRE(wheel_.count() == due_.size());
  }

  const TimerWheel& wheel() const { return wheel_; }

 private:
  void drop(std::size_t i) {
    if (deadlines_[i] != 0) due_.erase({deadlines_[i], i});
    deadlines_[i] = 0;
  }

  TimerWheel wheel_;
  std::uint64_t start_;
  std::uint64_t now_ = 0;
  std::vector<Timer> timers_;
  std::vector<std::uint64_t> deadlines_;
  std::set<std::pair<std::uint64_t, std::size_t>> due_;
};

constexpr std::uint32_t starts[] = {0, 63, 4095, 0x7FFFFFF0u, 0xFFFFFFFFu - 5000, 0xFFFFFFFFu};

}  // namespace

TEST_CASE("the wheel expires what a sorted list would, at the same times, also across the end of 32 bits") {
  for (const std::uint32_t start : starts) {
    CAPTURE(start);
    SeededRandom random(start + 1);
    Model model(start, 60);
    for (int step = 0; step < 20'000; step++) {
      const std::size_t i = random.below(60);
      const std::uint64_t magnitude = std::uint64_t{1} << random.below(26);
      switch (random.below(4)) {
        case 0:
        case 1:
          model.set(i, random.below(magnitude));
          break;
        case 2:
          model.cancel(i);
          break;
        default:
          model.advance(random.below(magnitude / 4 + 2));
      }
    }
    model.advance(std::uint64_t{1} << 27);
    CHECK(model.wheel().count() == 0);
  }
}

TEST_CASE("each delay at the edge of a level expires in its millisecond") {
  for (const std::uint32_t start : starts) {
    for (const std::uint64_t edge : {64ull, 4096ull, 262'144ull, 16'777'216ull, 1ull << 29}) {
      for (std::uint64_t delay = edge - 2; delay <= edge + 2; delay++) {
        Model model(start, 1);
        model.set(0, delay);
        model.advance(delay - 1);
        CHECK(model.wheel().count() == 1);
        model.advance(1);
        CHECK(model.wheel().count() == 0);
      }
    }
  }
}

TEST_CASE("a delay of zero, in the past, or too long is the nearest that can be kept") {
  Model model(1000, 3);
  model.set(0, 0);
  model.set(1, std::uint64_t{1} << 30);
  model.advance(1);
  CHECK(model.wheel().count() == 1);
  TimerWheel wheel(1000);
  Timer past;
  wheel.set(past, 400);
  int expired = 0;
  wheel.advance(1001, [&](Timer&) { expired++; });
  CHECK(expired == 1);
}

TEST_CASE("a timer that expires may set and cancel any timer, itself too") {
  TimerWheel wheel;
  Timer a, b, c;
  wheel.set(a, 10);
  wheel.set(b, 10);
  wheel.set(c, 20);
  std::vector<std::uint32_t> times;
  wheel.advance(100, [&](Timer& timer) {
    times.push_back(wheel.now());
    if (times.size() == 1) wheel.cancel(&timer == &a ? b : a);
    if (times.size() == 1) wheel.set(timer, wheel.now() + 5);
    if (times.size() == 2) wheel.set(c, wheel.now() + 64);
  });
  CHECK(times == std::vector<std::uint32_t>{10, 15, 79});
  CHECK(wheel.count() == 0);
}

TEST_CASE("a wheel that sleeps until its next event wakes a few times for each timer") {
  SeededRandom random(5);
  for (int round = 0; round < 200; round++) {
    TimerWheel wheel(static_cast<std::uint32_t>(random.next()));
    Timer timer;
    const auto delay = static_cast<std::uint32_t>(1 + random.below(TimerWheel::max_delay_ms));
    const std::uint32_t deadline = wheel.now() + delay;
    wheel.set(timer, deadline);
    int wakes = 0;
    while (timer.armed()) {
      wakes++;
      REQUIRE(wheel.next_event_ms() <= deadline - wheel.now());
      wheel.advance(wheel.now() + wheel.next_event_ms(), [](Timer&) {});
    }
    CHECK(wheel.now() == deadline);
    CHECK(wakes <= 5);
  }
}

TEST_CASE("a timer moves down at most four times, however many there are") {
  for (const std::size_t count : {1'000u, 1'000'000u}) {
    auto timers = std::make_unique<Timer[]>(count);
    TimerWheel wheel(12'345);
    SeededRandom random(count);
    for (std::size_t i = 0; i < count; i++) {
      const std::uint64_t longest = random.one_in(2) ? 60'000 : TimerWheel::max_delay_ms;
      wheel.set(timers[i], 12'345 + static_cast<std::uint32_t>(1 + random.below(longest)));
    }
    CHECK(wheel.moves() == 0);  // setting moves nobody else
    std::size_t expired = 0;
    wheel.advance(12'345 + TimerWheel::max_delay_ms, [&](Timer&) { expired++; });
    CHECK(expired == count);
    CHECK(wheel.moves() <= 4 * count);
    CHECK(wheel.moves() >= 2 * count);  // it counts
  }
}

TEST_CASE("a million timers expire in order, those that were cancelled do not") {
  constexpr std::size_t count = 1'000'000;
  auto timers = std::make_unique<Timer[]>(count);
  TimerWheel wheel(0xFFFF0000u);
  SeededRandom random(9);
  std::uint64_t sum = 0, expected_sum = 0;
  std::size_t expected = 0, expired = 0;
  std::vector<std::uint32_t> delays(count);
  for (std::size_t i = 0; i < count; i++) {
    delays[i] = static_cast<std::uint32_t>(1 + random.below(600'000));
    wheel.set(timers[i], 0xFFFF0000u + delays[i]);
  }
  for (std::size_t i = 0; i < count; i++) {
    if (i % 3 == 0) {
      wheel.cancel(timers[i]);
    } else {
      expected++;
      expected_sum += delays[i];
    }
  }
  std::uint32_t last = 0;
  bool in_order = true;
  wheel.advance(0xFFFF0000u + 600'000, [&](Timer& timer) {
    const std::uint32_t at = wheel.now() - 0xFFFF0000u;
    in_order &= at >= last && timer.deadline == wheel.now();
    last = at;
    sum += at;
    expired++;
  });
  CHECK(in_order);
  CHECK(expired == expected);
  CHECK(sum == expected_sum);
  CHECK(wheel.next_event_ms() == TimerWheel::none);
}
