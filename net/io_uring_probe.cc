#include <levada/net/io_uring.h>

#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <optional>
#include <vector>

#include <levada/core/fd.h>
#include <levada/net/io_uring_compat.h>

namespace levada::net {

int init_ring(io_uring& ring, unsigned submissions, unsigned completions) {
  io_uring_params parameters{};
  parameters.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_SUBMIT_ALL |
                     IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED;
  parameters.cq_entries = completions;
  const int result = io_uring_queue_init_params(submissions, &ring, &parameters);
  if (result < 0) return result;
  constexpr unsigned needed = IORING_FEAT_NODROP | IORING_FEAT_EXT_ARG | IORING_FEAT_CQE_SKIP;
  if ((parameters.features & needed) == needed) return 0;
  io_uring_queue_exit(&ring);
  return -EOPNOTSUPP;
}

void enable_ring(io_uring& ring) {
  syscall(__NR_io_uring_register, ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, nullptr, 0);
}

io_uring_buf_ring* make_buffer_ring(io_uring& ring, unsigned entries, std::uint16_t group, bool incremental,
                                    int& result) {
  const std::size_t bytes = entries * sizeof(io_uring_buf);
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    result = -ENOMEM;
    return nullptr;
  }
  io_uring_buf_reg registration{};
  registration.ring_addr = reinterpret_cast<std::uint64_t>(memory);
  registration.ring_entries = entries;
  registration.bgid = group;
  // The flags field has another name in older headers, and the same place in all of them.
  const std::uint16_t flags = incremental ? buffer_ring_incremental : 0;
  constexpr std::size_t flags_at = offsetof(io_uring_buf_reg, bgid) + sizeof registration.bgid;
  std::memcpy(reinterpret_cast<std::uint8_t*>(&registration) + flags_at, &flags, sizeof flags);
  result = io_uring_register_buf_ring(&ring, &registration, 0);
  if (result < 0) {
    munmap(memory, bytes);
    return nullptr;
  }
  auto* buffers = static_cast<io_uring_buf_ring*>(memory);
  io_uring_buf_ring_init(buffers);
  return buffers;
}

void free_buffer_ring(io_uring& ring, io_uring_buf_ring* buffers, unsigned entries, std::uint16_t group) {
  io_uring_unregister_buf_ring(&ring, group);
  munmap(buffers, entries * sizeof(io_uring_buf));
}

namespace {

struct SocketPair {
  SocketPair() {
    int fds[2] = {-1, -1};
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) return;
    left.reset(fds[0]);
    right.reset(fds[1]);
  }
  Fd left, right;
};

// Submits what is prepared and waits at most a second for one completion.
bool wait_for_completion(io_uring& ring, io_uring_cqe& completion) {
  io_uring_cqe* found = nullptr;
  __kernel_timespec limit{.tv_sec = 1, .tv_nsec = 0};
  if (io_uring_submit_and_wait_timeout(&ring, &found, 1, &limit, nullptr) < 0 || found == nullptr)
    return false;
  completion.user_data = found->user_data;
  completion.res = found->res;
  completion.flags = found->flags;
  io_uring_cqe_seen(&ring, found);
  return true;
}

bool try_multishot(io_uring& ring, io_uring_buf_ring* buffers, const SocketPair& pair) {
  std::uint8_t memory[2][64];
  for (std::uint16_t i = 0; i < 2; i++) {
    io_uring_buf_ring_add(buffers, memory[i], sizeof memory[i], i, io_uring_buf_ring_mask(2), i);
  }
  io_uring_buf_ring_advance(buffers, 2);
  io_uring_sqe* request = io_uring_get_sqe(&ring);
  io_uring_prep_recv_multishot(request, pair.left.get(), nullptr, 0, 0);
  request->flags |= IOSQE_BUFFER_SELECT;
  request->buf_group = 0;
  if (send(pair.right.get(), "x", 1, MSG_NOSIGNAL) != 1) return false;
  io_uring_cqe completion{};
  constexpr unsigned expected = IORING_CQE_F_BUFFER | IORING_CQE_F_MORE;
  const bool works = wait_for_completion(ring, completion) && completion.res == 1 &&
                     (completion.flags & expected) == expected;
  ::shutdown(pair.right.get(), SHUT_RDWR);  // ends the request before its memory goes out of scope
  return wait_for_completion(ring, completion) && works;
}

// A buffer that is used incrementally says where bytes lie by the order of the completions alone, and there are kernels
// that report a single receive after a multishot one that came later. Two receives in one submission show which this is.
bool try_incremental_order(io_uring& ring, const SocketPair& single, const SocketPair& multishot) {
  constexpr std::uint16_t group = 1;
  int result = 0;
  io_uring_buf_ring* buffers = make_buffer_ring(ring, 2, group, true, result);
  if (buffers == nullptr) return false;
  std::uint8_t memory[64] = {};
  io_uring_buf_ring_add(buffers, memory, sizeof memory, 0, io_uring_buf_ring_mask(2), 0);
  io_uring_buf_ring_advance(buffers, 1);
  send(single.right.get(), "s", 1, MSG_NOSIGNAL);
  send(multishot.right.get(), "m", 1, MSG_NOSIGNAL);
  for (const SocketPair* pair : {&single, &multishot}) {
    io_uring_sqe* request = io_uring_get_sqe(&ring);
    if (pair == &single) {
      io_uring_prep_recv(request, pair->left.get(), nullptr, 0, 0);
    } else {
      io_uring_prep_recv_multishot(request, pair->left.get(), nullptr, 0, 0);
    }
    request->flags |= IOSQE_BUFFER_SELECT;
    request->buf_group = group;
    request->user_data = pair == &single ? std::uint8_t{'s'} : std::uint8_t{'m'};
  }
  io_uring_cqe completions[3] = {};
  bool works = wait_for_completion(ring, completions[0]) && wait_for_completion(ring, completions[1]);
  works = works && completions[0].user_data == memory[0] && completions[1].user_data == memory[1];
  ::shutdown(multishot.right.get(), SHUT_RDWR);
  works = wait_for_completion(ring, completions[2]) && works;
  free_buffer_ring(ring, buffers, 2, group);
  return works;
}

// More than a socket takes must end at once with the part that was taken.
bool try_inline_send(io_uring& ring, const SocketPair& pair) {
  const std::vector<std::uint8_t> much(std::size_t{4} << 20);
  io_uring_sqe* request = io_uring_get_sqe(&ring);
  io_uring_prep_send(request, pair.left.get(), much.data(), much.size(),
                     MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL);
  request->flags |= IOSQE_CQE_SKIP_SUCCESS;
  if (io_uring_submit(&ring) != 1) return false;
  io_uring_cqe* completion = nullptr;
  if (io_uring_peek_cqe(&ring, &completion) != 0) return false;
  const bool works = completion->res > 0 && static_cast<std::size_t>(completion->res) < much.size();
  io_uring_cqe_seen(&ring, completion);
  return works;
}

}  // namespace

IoUringAbilities probe_io_uring() {
  IoUringAbilities found;
  found.built_in = true;
  const SocketPair pairs[4];
  if (!pairs[3].right) {
    found.error = Error::from_os("socketpair", errno);
    return found;
  }
  io_uring ring;
  const int made = init_ring(ring, 8, 16);
  if (made < 0) {
    found.error = Error::from_os("io_uring_setup", -made);
    return found;
  }
  found.ring = true;
  enable_ring(ring);
  int result = 0;
  io_uring_buf_ring* buffers = make_buffer_ring(ring, 2, 0, true, result);
  found.incremental = buffers != nullptr;
  if (buffers == nullptr) buffers = make_buffer_ring(ring, 2, 0, false, result);
  if (buffers == nullptr) {
    found.error = Error::from_os("register buffer ring", -result);
  } else {
    found.buffer_ring = true;
    found.multishot = try_multishot(ring, buffers, pairs[0]);
    found.incremental =
        found.incremental && found.multishot && try_incremental_order(ring, pairs[1], pairs[2]);
    if (!found.multishot) found.error = {Errc::not_supported, "multishot receive"};
    free_buffer_ring(ring, buffers, 2, 0);
  }
  if (found.multishot) {
    found.inline_sends = try_inline_send(ring, pairs[3]);
    if (!found.inline_sends) found.error = {Errc::not_supported, "sends that never wait"};
  }
  io_uring_queue_exit(&ring);
  return found;
}

IoUringAbilities io_uring_abilities() {
  static std::mutex mutex;
  static std::optional<IoUringAbilities> known;
  const std::lock_guard lock(mutex);
  if (known) return *known;
  const IoUringAbilities found = probe_io_uring();
  const bool may_pass = found.error.code == Errc::descriptor_limit || found.error.code == Errc::no_memory;
  if (!may_pass) known = found;
  return found;
}

}  // namespace levada::net
