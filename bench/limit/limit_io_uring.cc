// limit_io_uring: what an io_uring echo costs at least. One thread, one ring, one io_uring_enter per loop
// turn.
//
// Small frames: a multishot receive per connection fills provided buffers, which the kernel consumes piece by
// piece. A large frame that came in part is received straight into its own memory by single receives, until
// the messages get small again.
//
// A send is MSG_DONTWAIT | MSG_WAITALL with CQE_SKIP_SUCCESS. It always ends inside the io_uring_enter that
// submits it: without a completion when all of it was taken, else with one that holds the bytes taken or the
// error. So after the enter, a send without a completion is done and its buffer free. Only one send per
// connection may be in a submission, since the second can succeed where the first fell short.
//
// Received bytes are answered in the provided buffer, which goes back one turn later, when its sends have
// ended. What comes on /broadcast is unmasked once and sent to all of that path; a member whose last send is not done is
// cut.
//
//   --port N            0: the kernel chooses
//   --buffers N         provided buffers, a power of two; --buffer-size BYTES of each
//   --incremental 0     a receive takes a whole buffer, as before Linux 6.12
//   --large BYTES       from here on a frame that came in part is received directly
//   --split 1           one enter to send, one to wait: buffers go back in between
//   --waitall 1         direct receives wait for all of the frame
//   --defer 0           without DEFER_TASKRUN and SINGLE_ISSUER; --coop 1 with COOP_TASKRUN
//   --register-ring 0   without the registered ring descriptor
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "wire.h"

#ifndef IORING_CQE_F_BUF_MORE
#define IORING_CQE_F_BUF_MORE (1U << 4)
#endif

using namespace limit;

namespace {

constexpr std::uint16_t ring_buffer_incremental = 2;  // IOU_PBUF_RING_INC, Linux 6.12
std::size_t large = 32 << 10;

enum Kind : std::uint64_t { on_accept, on_receive, on_direct, on_send, on_poll, on_other, kind_mask = 7 };

struct alignas(64) Connection {
  int fd = -1;
  bool open = false;     // the handshake is done
  bool queued = false;   // a send is in the submission queue
  bool blocked = false;  // the kernel took less than all; waits for POLLOUT
  bool closing = false;  // closes once the send is done
  bool closed = false;
  bool direct = false;     // large messages: single receives into `in`
  bool receiving = false;  // a receive is armed
  bool polling = false;
  bool member = false;                // of /broadcast
  const std::uint8_t* out = nullptr;  // the reply that is queued or blocked
  const std::uint8_t* out_end = nullptr;
  Assembly in;       // bytes that are not answered yet
  Assembly sending;  // the reply's memory, when it is not in a provided buffer
  bool busy() const { return queued || blocked; }
};

io_uring ring;
io_uring_buf_ring* buffers = nullptr;
std::uint8_t* memory = nullptr;
std::size_t buffer_count = 16, buffer_size = 64 << 10;
bool incremental = true, split = false, waitall = false;
std::vector<std::size_t> heads;     // consumed bytes of each buffer
std::vector<unsigned short> spent;  // buffers to give back once this turn's sends are done
std::vector<Connection*> starved;   // their receive ended for want of a buffer
std::vector<Connection*> queue;     // connections whose send is in the submission queue
std::vector<Connection*> members;   // of /broadcast
int listener = -1;
bool settle_first = false;  // something waits for the end of a send: submit without waiting

io_uring_sqe* next_sqe() {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring);
  if (sqe == nullptr) {
    io_uring_submit(&ring);
    sqe = io_uring_get_sqe(&ring);
  }
  return sqe;
}

// Comes behind io_uring_prep_*, which clears user_data in some versions.
void mark(io_uring_sqe* sqe, Kind kind, Connection* conn) {
  sqe->user_data = reinterpret_cast<std::uint64_t>(conn) | kind;
}

void give_back(unsigned short id, int place) {
  io_uring_buf_ring_add(buffers, memory + id * buffer_size, static_cast<unsigned>(buffer_size), id,
                        io_uring_buf_ring_mask(static_cast<unsigned>(buffer_count)), place);
}

void set_up_buffers() {
  std::size_t bytes = buffer_count * buffer_size;
  if (posix_memalign(reinterpret_cast<void**>(&memory), 2 << 20, bytes) != 0) die("posix_memalign");
  void* shared = nullptr;
  if (posix_memalign(&shared, 4096, buffer_count * sizeof(io_uring_buf)) != 0) die("posix_memalign");
  buffers = static_cast<io_uring_buf_ring*>(shared);
  io_uring_buf_reg reg{};
  reg.ring_addr = reinterpret_cast<std::uint64_t>(buffers);
  reg.ring_entries = static_cast<std::uint32_t>(buffer_count);
  reg.pad = incremental ? ring_buffer_incremental : 0;  // liburing 2.3 calls the flags `pad`
  int error = io_uring_register_buf_ring(&ring, &reg, 0);
  if (error != 0 && incremental) {
    incremental = false;
    reg.pad = 0;
    error = io_uring_register_buf_ring(&ring, &reg, 0);
  }
  if (error != 0) errno = -error, die("io_uring_register_buf_ring");
  io_uring_buf_ring_init(buffers);
  heads.assign(buffer_count, 0);
  for (std::size_t i = 0; i < buffer_count; i++)
    give_back(static_cast<unsigned short>(i), static_cast<int>(i));
  io_uring_buf_ring_advance(buffers, static_cast<int>(buffer_count));
}

void arm_accept() {
  io_uring_sqe* sqe = next_sqe();
  io_uring_prep_multishot_accept(sqe, listener, nullptr, nullptr, SOCK_CLOEXEC);
  mark(sqe, on_accept, nullptr);
}

void arm_receive(Connection* conn) {
  conn->receiving = true;
  if (conn->direct) {
    conn->in.reserve(max_header);
    io_uring_sqe* sqe = next_sqe();
    io_uring_prep_recv(sqe, conn->fd, conn->in.data + conn->in.used, conn->in.room(),
                       waitall && conn->in.frame.header != 0 ? MSG_WAITALL : 0);
    sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;  // a try without data would cost more than the poll
    mark(sqe, on_direct, conn);
    return;
  }
  io_uring_sqe* sqe = next_sqe();
  io_uring_prep_recv_multishot(sqe, conn->fd, nullptr, 0, 0);
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = 0;
  mark(sqe, on_receive, conn);
}

void queue_send(Connection* conn) {
  if (!conn->queued) queue.push_back(conn);
  conn->queued = true;
  if (split || conn->direct || conn->closing || !conn->receiving || conn->in.used != 0) settle_first = true;
  io_uring_sqe* sqe = next_sqe();
  io_uring_prep_send(sqe, conn->fd, conn->out, static_cast<std::size_t>(conn->out_end - conn->out),
                     MSG_DONTWAIT | MSG_WAITALL | MSG_NOSIGNAL);
  sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
  mark(sqe, on_send, conn);
}

void free_when_idle(Connection* conn) {
  if (conn->receiving || conn->polling || conn->queued) return;
  close(conn->fd);
  if (conn->member) std::erase(members, conn);
  conn->in.release();
  conn->sending.release();
  delete conn;
}

void close_connection(Connection* conn) {
  if (conn->closed) return;
  conn->closed = true;
  if (!conn->queued)
    queue.push_back(conn), conn->queued = settle_first = true;  // looked at again after the turn
  shutdown(conn->fd, SHUT_RDWR);                                // ends what is armed
}

void broadcast(const Echo& result) {
  for (Connection* member : members) {
    if (member->closed) continue;
    if (member->busy()) {
      close_connection(member);
      continue;
    }
    member->out = result.begin;
    member->out_end = result.end;
    queue_send(member);
  }
}

void answer(Connection* conn, const Echo& result) {
  if (conn->member && !result.closed && result.size() != 0) return broadcast(result);
  conn->closing = result.closed;
  if (result.size() == 0) {
    conn->sending.drop(conn->sending.used);
    if (result.closed) close_connection(conn);
    return;
  }
  conn->out = result.begin;
  conn->out_end = result.end;
  queue_send(conn);
}

// Answers from `in`: its memory goes to `sending`, and what follows the answered frames starts a new `in`.
void answer_own(Connection* conn, const Echo& result) {
  std::swap(conn->in, conn->sending);
  Assembly& from = conn->sending;
  conn->in.drop(conn->in.used);
  if (from.used > result.used) conn->in.append(from.data + result.used, from.used - result.used);
  from.used = result.used;
  answer(conn, result);
}

void start_direct(Connection* conn) {
  conn->direct = true;
  conn->in.grow(0);
  if (!conn->receiving) return;
  io_uring_sqe* sqe = next_sqe();
  io_uring_prep_cancel64(sqe, reinterpret_cast<std::uint64_t>(conn) | on_receive, 0);
  mark(sqe, on_other, nullptr);
}

// `in` holds unanswered bytes and nothing is being sent.
void work_off(Connection* conn) {
  if (conn->in.frame.header != 0) {
    if (!conn->in.grow(0)) return;
    conn->direct = conn->direct && conn->in.frame.size() >= large;
    answer_own(conn, conn->in.reply());
    return;
  }
  Echo result = echo(conn->in.data, conn->in.used);
  if (result.used != 0 || result.closed) answer_own(conn, result);
  Frame frame = parse(conn->in.data, conn->in.used);
  if (!conn->direct && frame.header != 0 && frame.size() >= large) start_direct(conn);
}

void shake_hands(Connection* conn) {
  std::string_view head{reinterpret_cast<char*>(conn->in.data), conn->in.used};
  std::size_t end = head.find("\r\n\r\n");
  if (end == head.npos && head.size() < 8192) return;
  std::string response = end == head.npos ? "" : upgrade_response(head.substr(0, end + 4));
  if (response.empty()) return close_connection(conn);
  conn->open = true;
  conn->member = asks_for_broadcasts(head);
  if (conn->member) members.push_back(conn);
  conn->in.drop(end + 4);
  conn->sending.append(reinterpret_cast<const std::uint8_t*>(response.data()), response.size());
  conn->out = conn->sending.data;
  conn->out_end = conn->out + conn->sending.used;
  queue_send(conn);
}

void on_data(Connection* conn, std::uint8_t* p, std::size_t n) {
  if (conn->closed) return;
  if (conn->in.used != 0 || conn->busy() || !conn->open) {
    conn->in.append(p, n);
    settle_first = true;
    if (!conn->open) return shake_hands(conn);
    if (!conn->busy()) work_off(conn);
    return;
  }
  Echo result = echo(p, n);
  answer(conn, result);
  if (result.used == n) return;
  conn->in.append(p + result.used, n - result.used);
  Frame frame = parse(conn->in.data, conn->in.used);
  if (frame.header != 0 && frame.size() >= large) start_direct(conn);
}

void receive_ended(Connection* conn, int error) {
  conn->receiving = false;
  if (error == 0 ||
      (error < 0 && error != -ENOBUFS && error != -ECANCELED && error != -EINTR && error != -EAGAIN))
    close_connection(conn);
  if (conn->closed) return free_when_idle(conn);
  if (error == -ENOBUFS) {
    starved.push_back(conn);
    conn->receiving = settle_first = true;
    return;
  }
  if (conn->direct && conn->busy()) settle_first = true;
  if (!conn->direct || !conn->busy()) arm_receive(conn);
}

void received(Connection* conn, const io_uring_cqe* cqe) {
  if ((cqe->flags & IORING_CQE_F_BUFFER) != 0) {
    auto id = static_cast<unsigned short>(cqe->flags >> IORING_CQE_BUFFER_SHIFT);
    std::uint8_t* p = memory + id * buffer_size + heads[id];
    if (cqe->res > 0) heads[id] += static_cast<std::size_t>(cqe->res);
    if (!incremental || (cqe->flags & IORING_CQE_F_BUF_MORE) == 0) spent.push_back(id);
    if (cqe->res > 0) on_data(conn, p, static_cast<std::size_t>(cqe->res));
  }
  if ((cqe->flags & IORING_CQE_F_MORE) == 0) receive_ended(conn, cqe->res);
}

void received_directly(Connection* conn, int n) {
  if (n > 0 && !conn->closed) {
    conn->in.used += static_cast<std::size_t>(n);
    if (conn->in.frame.header == 0) conn->in.grow(0);
    if (!conn->in.frame.valid) close_connection(conn);
    if (conn->in.frame.header != 0) work_off(conn);
  }
  receive_ended(conn, n);
}

// A send fell short: keeps the rest and waits for room.
void send_ended(Connection* conn, int result) {
  if (result < 0 && result != -EAGAIN) return close_connection(conn);  // still in the queue, which frees it
  conn->queued = false;
  if (result > 0) conn->out += result;
  if (conn->sending.used == 0) {
    conn->sending.append(conn->out, static_cast<std::size_t>(conn->out_end - conn->out));
    conn->out = conn->sending.data;
    conn->out_end = conn->out + conn->sending.used;
  }
  conn->blocked = conn->polling = true;
  io_uring_sqe* sqe = next_sqe();
  io_uring_prep_poll_add(sqe, conn->fd, POLLOUT);
  mark(sqe, on_poll, conn);
}

void send_done(Connection* conn) {
  conn->queued = conn->blocked = false;
  if (conn->closing) close_connection(conn);
  if (conn->closed) return free_when_idle(conn);
  conn->sending.drop(conn->sending.used);
  if (conn->in.used == 0) {
    if (conn->direct && conn->in.capacity < conn->sending.capacity) std::swap(conn->in, conn->sending);
  } else {
    work_off(conn);
  }
  if (!conn->receiving && !(conn->direct && conn->busy())) arm_receive(conn);
}

void accepted(const io_uring_cqe* cqe) {
  if (cqe->res >= 0) {
    auto* conn = new Connection;
    conn->fd = cqe->res;
    arm_receive(conn);
  }
  if ((cqe->flags & IORING_CQE_F_MORE) == 0) arm_accept();
}

Connection* target(const io_uring_cqe* cqe) {
  return reinterpret_cast<Connection*>(cqe->user_data & ~kind_mask);
}

void dispatch(const io_uring_cqe* cqe) {
  Connection* conn = target(cqe);
  switch (cqe->user_data & kind_mask) {
    case on_receive:
      return received(conn, cqe);
    case on_direct:
      return received_directly(conn, cqe->res);
    case on_accept:
      return accepted(cqe);
    case on_poll:
      conn->polling = false;
      return conn->closed ? free_when_idle(conn) : queue_send(conn);
    default:
      return;
  }
}

// A buffer is free again for a connection whose receive had ended.
void feed(Connection* conn) {
  conn->receiving = false;
  if (conn->closed) return free_when_idle(conn);
  arm_receive(conn);
}

// After an enter: settles the sends that it submitted, and gives their buffers back.
void settle_sends() {
  unsigned head;
  io_uring_cqe* cqe;
  io_uring_for_each_cqe(&ring, head, cqe) {
    if ((cqe->user_data & kind_mask) == on_send) send_ended(target(cqe), cqe->res);
  }
  static std::vector<Connection*> done;
  done.clear();
  done.swap(queue);
  for (Connection* conn : done)
    if (conn->queued) send_done(conn);
  int place = 0;
  for (unsigned short id : spent) {
    heads[id] = 0;
    give_back(id, place++);
  }
  if (place != 0) io_uring_buf_ring_advance(buffers, place);
  spent.clear();
  std::size_t served = 0;  // now every buffer is free
  while (served < starved.size() && served < buffer_count) feed(starved[served++]);
  starved.erase(starved.begin(), starved.begin() + static_cast<std::ptrdiff_t>(served));
  settle_first = settle_first || !starved.empty();
}

void reap() {
  if (!queue.empty() || !spent.empty() || !starved.empty()) settle_sends();
  unsigned head, count = 0;
  io_uring_cqe* cqe;
  io_uring_for_each_cqe(&ring, head, cqe) {
    dispatch(cqe);
    count++;
  }
  io_uring_cq_advance(&ring, count);
}

}  // namespace

int main(int argc, char** argv) {
  buffer_count = static_cast<std::size_t>(option(argc, argv, "--buffers", 16));
  buffer_size = static_cast<std::size_t>(option(argc, argv, "--buffer-size", 64 << 10));
  incremental = option(argc, argv, "--incremental", 1) != 0;
  large = static_cast<std::size_t>(option(argc, argv, "--large", 32 << 10));
  split = option(argc, argv, "--split", 0) != 0;
  waitall = option(argc, argv, "--waitall", 0) != 0;
  io_uring_params params{};
  params.flags = IORING_SETUP_CQSIZE;
  if (option(argc, argv, "--defer", 1) != 0)
    params.flags |= IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
  if (option(argc, argv, "--coop", 0) != 0) params.flags |= IORING_SETUP_COOP_TASKRUN;
  params.cq_entries = 16384;
  if (int error = io_uring_queue_init_params(1024, &ring, &params); error != 0)
    errno = -error, die("io_uring_setup");
  if (option(argc, argv, "--register-ring", 1) != 0) io_uring_register_ring_fd(&ring);
  set_up_buffers();
  listener = listen_on(static_cast<std::uint16_t>(option(argc, argv, "--port", 0)), 0);
  set_nodelay(listener);  // inherited by what it accepts
  arm_accept();
  for (;;) {
    while (settle_first) {
      settle_first = false;
      io_uring_submit(&ring);
      reap();
    }
    io_uring_submit_and_wait(&ring, 1);
    reap();
  }
}
