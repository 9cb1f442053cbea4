#include <levada/core/fd.h>

#include <fcntl.h>
#include <unistd.h>
#include <utility>

#include <doctest/doctest.h>

using namespace levada;

namespace {

bool is_open(int fd) {
  return fcntl(fd, F_GETFD) >= 0;
}

Fd open_null() {
  return Fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
}

}  // namespace

TEST_CASE("a descriptor is closed when its owner goes out of scope") {
  int number = -1;
  {
    const Fd fd = open_null();
    number = fd.get();
    REQUIRE(is_open(number));
  }
  CHECK_FALSE(is_open(number));
}

TEST_CASE("a moved descriptor has one owner") {
  Fd first = open_null();
  const int number = first.get();
  Fd second(std::move(first));
  CHECK_FALSE(first);
  CHECK(second.get() == number);
  Fd third = open_null();
  const int replaced = third.get();
  third = std::move(second);
  CHECK_FALSE(is_open(replaced));
  CHECK(third.get() == number);
  CHECK(is_open(number));
}

TEST_CASE("a released descriptor stays open and is the caller's") {
  Fd fd = open_null();
  const int number = fd.release();
  CHECK_FALSE(fd);
  CHECK(is_open(number));
  fd.reset(number);
  fd.reset();
  CHECK_FALSE(is_open(number));
}
