#include <levada/net/socket.h>

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <unistd.h>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <string>

#include <doctest/doctest.h>

using namespace levada;
using namespace levada::net;

namespace {

struct Directory {
  Directory() { REQUIRE(mkdtemp(path) != nullptr); }
  ~Directory() {
    unlink((std::string(path) + "/socket").c_str());
    rmdir(path);
  }
  char path[32] = "/tmp/levada-XXXXXX";
};

}  // namespace

TEST_CASE("addresses read and print as people write them") {
  CHECK(Address::ip("127.0.0.1", 80)->to_string() == "127.0.0.1:80");
  CHECK(Address::ip("localhost", 1)->to_string() == "127.0.0.1:1");
  CHECK(Address::ip("", 9)->to_string() == "0.0.0.0:9");
  CHECK(Address::ip("*", 9)->to_string() == "0.0.0.0:9");
  CHECK(Address::ip("::1", 65535)->to_string() == "[::1]:65535");
  CHECK(Address::ip("[::1]", 2)->to_string() == "[::1]:2");
  CHECK(Address::unix_path("/run/x.sock")->to_string() == "unix:/run/x.sock");
  CHECK(Address::unix_path("@name")->to_string() == "unix:@name");
}

TEST_CASE("what is no address is refused") {
  for (const char* text : {"example.org", "1.2.3", "1.2.3.4.5", ":::", "[]", "127.0.0.1 "}) {
    const std::string shown = text;
    CAPTURE(shown);
    const auto address = Address::ip(text, 1);
    REQUIRE_FALSE(address);
    CHECK(address.error().code == Errc::invalid_argument);
  }
  CHECK_FALSE(Address::unix_path(""));
  CHECK(Address::unix_path(std::string(107, 'x')));
  CHECK_FALSE(Address::unix_path(std::string(108, 'x')));
}

TEST_CASE("a port that is in use is an error, and shared only if all ask for it") {
  const auto first = listen_stream(*Address::ip("127.0.0.1", 0));
  REQUIRE(first);
  auto copy = Address::of_socket(const_cast<Result<Fd>&>(first)->get());
  const auto second = listen_stream(*copy);
  REQUIRE_FALSE(second);
  CHECK(second.error().code == Errc::address_in_use);
  auto shared = listen_stream(*Address::ip("127.0.0.1", 0), {.reuse_port = true});
  REQUIRE(shared);
  CHECK(listen_stream(*Address::of_socket(shared->get()), {.reuse_port = true}));
}

TEST_CASE("an address of another machine cannot be listened on") {
  const auto listening = listen_stream(*Address::ip("192.0.2.1", 0));
  REQUIRE_FALSE(listening);
  CHECK(listening.error().code == Errc::address_not_available);
}

TEST_CASE("a Unix socket that nobody listens on is taken over, a live one and a plain file are not") {
  const Directory directory;
  const std::string path = std::string(directory.path) + "/socket";
  const Address address = *Address::unix_path(path);
  {
    const auto first = listen_stream(address);
    REQUIRE(first);
    const auto second = listen_stream(address);
    REQUIRE_FALSE(second);
    CHECK(second.error().code == Errc::address_in_use);
  }
  CHECK(access(path.c_str(), F_OK) == 0);
  CHECK(listen_stream(address));
  unlink(path.c_str());
  std::fclose(std::fopen(path.c_str(), "w"));
  CHECK_FALSE(listen_stream(address));
  CHECK(access(path.c_str(), F_OK) == 0);
}

TEST_CASE("a connection starts without waiting and its result can be asked for") {
  auto listening = listen_stream(*Address::ip("127.0.0.1", 0));
  const Address address = *Address::of_socket(listening->get());
  const Address source = *Address::ip("127.0.0.2", 0);
  auto fd = connect_stream(address, &source);
  REQUIRE(fd);
  CHECK(Address::of_socket(fd->get())->to_string().starts_with("127.0.0.2:"));
  CHECK_FALSE(take_socket_error(fd->get(), "connect"));
  CHECK(take_socket_error(-1, "connect").code == Errc::invalid_argument);
  int on = 0;
  socklen_t size = sizeof on;
  getsockopt(fd->get(), IPPROTO_TCP, TCP_NODELAY, &on, &size);
  CHECK(on == 1);
}

TEST_CASE("a failed accept is the listener's fault or one connection's") {
  CHECK(accepting_is_impossible(EMFILE));
  CHECK(accepting_is_impossible(ENOTSOCK));
  CHECK_FALSE(accepting_is_impossible(ECONNABORTED));
  CHECK_FALSE(accepting_is_impossible(EAGAIN));
}
