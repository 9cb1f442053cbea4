#include <levada/ws/date_field.h>

#include <doctest/doctest.h>

#include <ctime>
#include <string>

using namespace levada::ws;

namespace {

// The same by the C library, in the C locale.
std::string expected(std::uint64_t unix_seconds) {
  const auto time = static_cast<std::time_t>(unix_seconds);
  std::tm parts{};
  gmtime_r(&time, &parts);
  char text[64];
  return {text, std::strftime(text, sizeof text, "Date: %a, %d %b %Y %H:%M:%S GMT\r\n", &parts)};
}

}  // namespace

TEST_CASE("the example of RFC 9110") {
  CHECK(DateField().line(784111777) == "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n");
}

TEST_CASE("every date is what the C library writes") {
  DateField date;
  for (std::uint64_t day = 0; day < 366 * 100; day += 13) {
    const std::uint64_t time = day * 86400 + day % 86400;
    CHECK(date.line(time) == expected(time));
  }
  for (const std::uint64_t time :
       {0ull, 68256000ull, 951782400ull, 951868799ull, 4102444799ull, 253402300799ull}) {
    CHECK(date.line(time) == expected(time));
  }
}

TEST_CASE("the view stays where it is and shows the last time that was asked for") {
  DateField date;
  const std::string_view view = date.line(784111777);
  CHECK(date.line(784111778).data() == view.data());
  CHECK(view == "Date: Sun, 06 Nov 1994 08:49:38 GMT\r\n");
}
