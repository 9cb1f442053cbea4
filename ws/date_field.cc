#include <levada/ws/date_field.h>

#include <chrono>

#include <levada/ws/writer.h>

namespace levada::ws {
namespace {

constexpr std::string_view day_names = "SunMonTueWedThuFriSat";
constexpr std::string_view month_names = "JanFebMarAprMayJunJulAugSepOctNovDec";

void put_two_digits(detail::Writer& writer, unsigned number) {
  const char digits[2] = {static_cast<char>('0' + number / 10 % 10), static_cast<char>('0' + number % 10)};
  writer.put({digits, 2});
}

}  // namespace

// IMF-fixdate (RFC 9110 section 5.6.7). Not with strftime and gmtime, which may read the time zone's file.
std::string_view DateField::line(std::uint64_t unix_seconds) {
  using namespace std::chrono;
  const std::string_view text(text_.data(), text_.size());
  if (unix_seconds == seconds_) return text;
  seconds_ = unix_seconds;
  const sys_seconds time{seconds(unix_seconds)};
  const sys_days day = floor<days>(time);
  const year_month_day date(day);
  const unsigned year = static_cast<unsigned>(static_cast<int>(date.year()));
  const auto of_day = static_cast<unsigned>((time - day).count());
  detail::Writer writer({reinterpret_cast<std::uint8_t*>(text_.data()), text_.size()});
  writer.put("Date: ");
  writer.put(day_names.substr(3 * weekday(day).c_encoding(), 3));
  writer.put(", ");
  put_two_digits(writer, static_cast<unsigned>(date.day()));
  writer.put(" ");
  writer.put(month_names.substr(3 * (static_cast<unsigned>(date.month()) - 1), 3));
  writer.put(" ");
  put_two_digits(writer, year / 100);
  put_two_digits(writer, year % 100);
  writer.put(" ");
  put_two_digits(writer, of_day / 3600);
  writer.put(":");
  put_two_digits(writer, of_day / 60 % 60);
  writer.put(":");
  put_two_digits(writer, of_day % 60);
  writer.put(" GMT\r\n");
  return text;
}

}  // namespace levada::ws
