// What the io_uring backend relies on the kernel for, asked of the kernel alone: sends end inside the
// submitting enter.
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>
#include <string>
#include <vector>

#include <doctest/doctest.h>

#include <levada/net/io_uring.h>
#include <levada/net/io_uring_compat.h>
#include <levada/tests/net/support.h>

using namespace levada;
using namespace levada::net;
using namespace levada::net::test;

namespace {

constexpr int send_flags = MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL;

struct Ring {
  Ring() {
    REQUIRE(init_ring(ring, 64, 128) == 0);
    enable_ring(ring);
  }
  ~Ring() { io_uring_queue_exit(&ring); }

  io_uring_sqe* send(int fd, std::string_view text, std::uint64_t data) {
    io_uring_sqe* request = io_uring_get_sqe(&ring);
    io_uring_prep_send(request, fd, text.data(), text.size(), send_flags);
    request->flags |= IOSQE_CQE_SKIP_SUCCESS;
    request->user_data = data;
    return request;
  }
  // The results that are there when the submitting call returns, without another one.
  std::vector<std::pair<std::uint64_t, int>> submit() {
    REQUIRE(io_uring_submit(&ring) >= 0);
    std::vector<std::pair<std::uint64_t, int>> results;
    io_uring_cqe* completion = nullptr;
    unsigned head = 0, count = 0;
    io_uring_for_each_cqe(&ring, head, completion) {
      results.emplace_back(completion->user_data, completion->res);
      count++;
    }
    io_uring_cq_advance(&ring, count);
    return results;
  }

  io_uring ring{};
};

using Results = std::vector<std::pair<std::uint64_t, int>>;

bool usable() {
  if (io_uring_abilities().sufficient()) return true;
  MESSAGE("this kernel's io_uring is not used: " << io_uring_abilities().error.message());
  return false;
}

}  // namespace

TEST_CASE("io_uring: a send that fits is done when the submitting call returns, and says nothing") {
  if (!usable()) return;
  Ring ring;
  Pair pair;
  std::string expected, got;
  for (int i = 0; i < 30; i++) {
    const std::string text = "part " + std::to_string(i);
    expected += text;
    ring.send(pair.engine.get(), text, 1);
    CHECK(ring.submit().empty());
    // The memory may be used again at once: `text` dies here.
  }
  while (got.size() < expected.size()) REQUIRE_FALSE(read_some(pair.peer, got));
  CHECK(got == expected);
}

TEST_CASE(
    "io_uring: a send that fits in part reports the part, and one that does not fit at all EAGAIN, at once") {
  if (!usable()) return;
  Ring ring;
  Pair pair;
  const std::string much = pattern(16 << 20);
  ring.send(pair.engine.get(), much, 7);
  const Results first = ring.submit();
  REQUIRE(first.size() == 1);
  CHECK(first[0].first == 7);
  CHECK(first[0].second > 0);
  CHECK(first[0].second < static_cast<int>(much.size()));
  auto size = static_cast<std::size_t>(first[0].second);
  Results next;
  do {  // the peer's buffer may still grow
    ring.send(pair.engine.get(), std::string_view(much).substr(size), 8);
    next = ring.submit();
    REQUIRE(next.size() == 1);
    if (next[0].second > 0) size += static_cast<std::size_t>(next[0].second);
  } while (next[0].second > 0);
  CHECK(next == Results{{8, -EAGAIN}});
  std::string got;
  while (got.size() < size) REQUIRE_FALSE(read_some(pair.peer, got));
  CHECK(got == much.substr(0, size));
}

TEST_CASE("io_uring: the same holds for sends of many pieces") {
  if (!usable()) return;
  Ring ring;
  Pair pair;
  const std::string much = pattern(8 << 20);
  std::vector<iovec> vectors;
  for (std::size_t at = 0; at < much.size(); at += 32 << 10) {
    vectors.push_back({const_cast<char*>(much.data()) + at, 32 << 10});
  }
  msghdr message{};
  message.msg_iov = vectors.data();
  message.msg_iovlen = 2;
  auto submit = [&] {
    io_uring_sqe* request = io_uring_get_sqe(&ring.ring);
    io_uring_prep_sendmsg(request, pair.engine.get(), &message, send_flags);
    request->flags |= IOSQE_CQE_SKIP_SUCCESS;
    request->user_data = 3;
    return ring.submit();
  };
  CHECK(submit().empty());
  message.msg_iov = vectors.data() + 2;
  message.msg_iovlen = vectors.size() - 2;
  const Results partial = submit();
  REQUIRE(partial.size() == 1);
  CHECK(partial[0].second > 0);
  const std::size_t size = (64 << 10) + static_cast<std::size_t>(partial[0].second);
  std::string got;
  while (got.size() < size) REQUIRE_FALSE(read_some(pair.peer, got));
  CHECK(got == much.substr(0, size));
}

TEST_CASE("io_uring: a send to a peer that has reset the connection reports it at once, and others go on") {
  if (!usable()) return;
  Ring ring;
  Pair gone, alive;
  reset_connection(gone.peer);
  ring.send(gone.engine.get(), "nobody", 1);
  ring.send(alive.engine.get(), "somebody", 2);
  ring.send(-1, "nowhere", 3);
  ring.send(alive.engine.get(), " else", 4);
  Results results = ring.submit();
  REQUIRE(results.size() == 2);
  CHECK(results[0].first == 1);
  CHECK((results[0].second == -ECONNRESET || results[0].second == -EPIPE));
  CHECK(results[1] == std::pair<std::uint64_t, int>{3, -EBADF});
  std::string got;
  while (got.size() < 13) REQUIRE_FALSE(read_some(alive.peer, got));
  CHECK(got == "somebody else");
}

TEST_CASE("io_uring: a close behind a cancellation ends the connection once its requests have ended") {
  if (!usable()) return;
  Ring ring;
  Pair pair;
  char byte = 0;
  io_uring_sqe* request = io_uring_get_sqe(&ring.ring);
  io_uring_prep_recv(request, pair.engine.get(), &byte, 1, 0);
  request->user_data = 1;
  CHECK(ring.submit().empty());
  request = io_uring_get_sqe(&ring.ring);
  io_uring_prep_cancel_fd(request, pair.engine.get(), IORING_ASYNC_CANCEL_ALL);
  request->flags |= IOSQE_CQE_SKIP_SUCCESS;
  request = io_uring_get_sqe(&ring.ring);
  io_uring_prep_close(request, pair.engine.release());
  request->flags |= IOSQE_CQE_SKIP_SUCCESS;
  io_uring_submit_and_get_events(&ring.ring);
  io_uring_cqe* completion = nullptr;
  REQUIRE(io_uring_peek_cqe(&ring.ring, &completion) == 0);
  CHECK(completion->user_data == 1);
  CHECK(completion->res == -ECANCELED);
  CHECK(recv(pair.peer.get(), &byte, 1, 0) == 0);
}

TEST_CASE(
    "io_uring: a lack of descriptors is told as that, at whichever step, and is not taken for the kernel's") {
  if (!io_uring_abilities().sufficient()) return;
  rlimit old{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &old) == 0);
  int lacked = 0, lacked_in_probe = 0;
  for (rlim_t spare = 0; spare < 20; spare++) {
    const rlimit low{static_cast<rlim_t>(Fd(dup(0)).get()) + spare, old.rlim_max};
    REQUIRE(setrlimit(RLIMIT_NOFILE, &low) == 0);
    auto reactor = Reactor::create({.backend = BackendKind::io_uring});
    const IoUringAbilities found = probe_io_uring();
    REQUIRE(setrlimit(RLIMIT_NOFILE, &old) == 0);
    if (!reactor) CHECK(reactor.error().code == Errc::descriptor_limit);
    if (!found.sufficient()) CHECK(found.error.code == Errc::descriptor_limit);
    lacked += !reactor;
    lacked_in_probe += !found.sufficient();
  }
  CHECK(lacked > 0);
  CHECK(lacked < 20);
  CHECK(lacked_in_probe > lacked);
  CHECK(lacked_in_probe < 20);
}
