#include <levada/core/error.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <string>

#include <doctest/doctest.h>

using namespace levada;

TEST_CASE("an error number of the system maps to the same code on every backend") {
  CHECK(Error::from_os("bind", EADDRINUSE).code == Errc::address_in_use);
  CHECK(Error::from_os("connect", ECONNREFUSED).code == Errc::connection_refused);
  CHECK(Error::from_os("recv", ECONNRESET).code == Errc::connection_reset);
  CHECK(Error::from_os("send", EPIPE).code == Errc::connection_reset);
  CHECK(Error::from_os("accept", EMFILE).code == Errc::descriptor_limit);
  CHECK(Error::from_os("accept", ENFILE).code == Errc::descriptor_limit);
  CHECK(Error::from_os("recv", EAGAIN).code == Errc::would_block);
  CHECK(Error::from_os("recv", ECANCELED).code == Errc::canceled);
  CHECK(Error::from_os("bind", EACCES).code == Errc::permission_denied);
  CHECK(Error::from_os("what", EXDEV).code == Errc::other);
}

TEST_CASE("an error is true and no error is false") {
  CHECK_FALSE(Error{});
  CHECK(Error{Errc::protocol, "parse"});
}

TEST_CASE("an error's message names the operation, the code and what the system says") {
  CHECK(Error{Errc::protocol, "parse"}.message() == "parse: protocol");
  CHECK(Error{Errc::timed_out}.message() == "timed_out");
  const Error detailed{
      .code = Errc::certificate_refused, .operation = "TLS", .detail = "certificate has expired"};
  CHECK(detailed.message() == "TLS: certificate_refused (certificate has expired)");
  const std::string text = Error::from_os("bind", EADDRINUSE).message();
  CHECK(text == "bind: address_in_use (" + std::string(std::strerror(EADDRINUSE)) + ")");
}

TEST_CASE("every code has a name of its own") {
  for (int a = 0; a <= static_cast<int>(Errc::other); a++) {
    for (int b = 0; b < a; b++) {
      CHECK(std::strcmp(to_string(static_cast<Errc>(a)), to_string(static_cast<Errc>(b))) != 0);
    }
  }
}

TEST_CASE("a result holds its value or its error, and moves what can only be moved") {
  Result<std::unique_ptr<int>> good(std::make_unique<int>(7));
  REQUIRE(good);
  CHECK(**good == 7);
  const std::unique_ptr<int> taken = std::move(*good);
  CHECK(*taken == 7);
  const Result<std::unique_ptr<int>> bad(Error{Errc::not_found, "look"});
  REQUIRE_FALSE(bad);
  CHECK(bad.error().code == Errc::not_found);
}
