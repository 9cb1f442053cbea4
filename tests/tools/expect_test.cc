#include <levada/tools/load/expect.h>

#include <doctest/doctest.h>

namespace levada::load {
namespace {

Result result_of(std::uint64_t messages, std::uint64_t lost) {
  Result result;
  result.messages = messages;
  result.seconds = 2;
  result.count("lost", lost);
  for (std::uint64_t i = 1; i <= 100; i++) {
    result.response.record(i * 1000);
    result.lag.record(i);
  }
  return result;
}

bool expect(const char* text, const Result& result) {
  std::string why;
  const auto expectation = parse_expectation(text, why);
  CHECK_MESSAGE(expectation, why);
  return expectation && holds(*expectation, result);
}

TEST_CASE("expectations are kept or missed") {
  const Result result = result_of(10'000, 3);
  for (const char* kept :
       {"p99<100us", "p50<=50.1us", "max>=100us", "max<=100us", "mean<51us", "p99.9>99us", "lag.p99<1us",
        "response.p99<1ms", "errors<=3", "errors=3", "lost=3", "rate>=5k", "rate<5.1k", "rate=5000"})
    CHECK_MESSAGE(expect(kept, result), kept);
  for (const char* missed :
       {"p99<50us", "errors=0", "rate>5k", "max<100us", "lag.max>1ms", "errors<3", "reach>=0.5"})
    CHECK_MESSAGE(!expect(missed, result), missed);
}

TEST_CASE("what was not measured is as nobody expected") {
  CHECK_FALSE(expect("upgrade.p99<1h", result_of(1, 0)));
  CHECK_FALSE(expect("p99>=0", Result()));
  std::string why;
  CHECK(explain(*parse_expectation("upgrade.p99<1s", why), Result()) ==
        "upgrade.p99<1s: nothing was measured");
}

TEST_CASE("an explanation has the value") {
  std::string why;
  CHECK(explain(*parse_expectation("max<2ms", why), result_of(1, 0)) == "max<2ms: 100 us");
  CHECK(explain(*parse_expectation("errors=0", why), result_of(1, 12'345)) == "errors=0: 12,345");
}

TEST_CASE("what makes no sense is refused") {
  for (const char* text : {"", "p99", "p99<", "p99<2", "p99<2x", "p99=<2ms", "p101<1ms", "speed>3",
                           "errors<many", "lag<1ms", "p99<>1ms", "px<1s"}) {
    std::string why;
    const bool refused = !parse_expectation(text, why);
    // A number without a unit is in seconds, as everywhere.
    CHECK_MESSAGE(refused == (std::string_view(text) != "p99<2"), text);
    CHECK_MESSAGE(why.empty() == !refused, text);
  }
}

}  // namespace
}  // namespace levada::load
