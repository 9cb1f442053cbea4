// limit_epoll: what a level-triggered epoll echo costs at least. One thread, one receive buffer for all
// connections, one send per event. What comes on /broadcast is unmasked once and sent to all of that path; a member
// that does not take it at once is cut.
//
// A connection is in one of three states:
//   shared  receives into the shared buffer; up to `large` bytes of an unfinished frame wait in `own` and are
//   put
//           before the next bytes
//   direct  a large frame is on its way and is received into `own`
//   blocked the kernel took less than all of the reply; the rest lies in `own`, and nothing is received

#include <fcntl.h>
#include <sys/epoll.h>
#include <unistd.h>

#include <cerrno>
#include <vector>

#include "wire.h"

using namespace limit;

namespace {

constexpr std::size_t shared_size = 256 << 10;
constexpr std::size_t large = 32 << 10;  // from here on a frame that came in part goes to `direct`

struct Connection {
  int fd = -1;
  bool open = false;  // the handshake is done
  bool direct = false;
  bool blocked = false;
  bool closing = false;  // the last reply is under way
  bool member = false;   // of /broadcast
  Assembly own;
  std::uint8_t* out = nullptr;  // the unsent rest while blocked, inside `own`
  std::uint8_t* out_end = nullptr;
  std::size_t tail = 0;  // where received bytes behind the reply begin in `own`
};

int poller = -1;
std::vector<Connection*> members;
alignas(64) std::uint8_t shared[shared_size + large];

void close_connection(Connection* conn) {
  close(conn->fd);
  if (conn->member) std::erase(members, conn);
  conn->own.release();
  delete conn;
}

void watch(Connection* conn, std::uint32_t events, int operation) {
  epoll_event event{};
  event.events = events;
  event.data.ptr = conn;
  if (epoll_ctl(poller, operation, conn->fd, &event) != 0) die("epoll_ctl");
}

void accept_all(int listener) {
  for (int fd; (fd = accept4(listener, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0;) {
    set_nodelay(fd);
    auto* conn = new Connection;
    conn->fd = fd;
    watch(conn, EPOLLIN, EPOLL_CTL_ADD);
  }
}

// Sends [begin, end). Returns what the kernel did not take, or -1 when the connection is lost.
ssize_t send_some(Connection* conn, const std::uint8_t* begin, const std::uint8_t* end) {
  ssize_t sent = send(conn->fd, begin, static_cast<std::size_t>(end - begin), MSG_NOSIGNAL);
  if (sent < 0) sent = errno == EAGAIN ? 0 : -1;
  return sent < 0 ? -1 : end - begin - sent;
}

// Sends the replies to where they belong; returns as send_some does.
ssize_t answer(Connection* conn, const Echo& result) {
  if (result.size() == 0) return 0;
  if (!conn->member || result.closed) return send_some(conn, result.begin, result.end);
  for (Connection* member : members)
    if (send_some(member, result.begin, result.end) != 0) shutdown(member->fd, SHUT_RDWR);
  return 0;
}

// The upgrade: collects the head in `own`. False: the connection is to be closed.
bool shake_hands(Connection* conn, const std::uint8_t* p, std::size_t n) {
  conn->own.append(p, n);
  std::string_view head{reinterpret_cast<char*>(conn->own.data), conn->own.used};
  std::size_t end = head.find("\r\n\r\n");
  if (end == head.npos) return head.size() < 8192;
  std::string response = upgrade_response(head.substr(0, end + 4));
  if (response.empty()) return false;
  conn->member = asks_for_broadcasts(head);
  if (conn->member) members.push_back(conn);
  conn->own.release();
  conn->open = true;
  return send(conn->fd, response.data(), response.size(), MSG_NOSIGNAL) ==
         static_cast<ssize_t>(response.size());
}

void block(Connection* conn) {
  conn->blocked = true;
  watch(conn, EPOLLOUT, EPOLL_CTL_MOD);
}

// Keeps what follows the frames that were answered: a large frame's first bytes move to `own` for good.
void keep_rest(Connection* conn, const std::uint8_t* p, std::size_t n) {
  conn->own.append(p, n);
  Frame frame = parse(p, n);
  if (frame.header == 0 || frame.size() < large) return;
  conn->direct = true;
  conn->own.grow(0);
}

// One event in the shared buffer. False: close.
bool on_shared(Connection* conn, bool& more) {
  std::size_t kept = conn->open ? conn->own.used : 0;
  if (kept != 0) std::memcpy(shared, conn->own.data, kept);
  ssize_t n = recv(conn->fd, shared + kept, shared_size, 0);
  if (n <= 0) return n < 0 && errno == EAGAIN;
  more = static_cast<std::size_t>(n) == shared_size;
  if (!conn->open) return shake_hands(conn, shared, static_cast<std::size_t>(n));
  std::size_t total = kept + static_cast<std::size_t>(n);
  conn->own.used = 0;
  Echo result = echo(shared, total);
  ssize_t left = answer(conn, result);
  if (left < 0) return false;
  if (left > 0) {
    conn->own.append(result.end - left, static_cast<std::size_t>(left));
    conn->tail = conn->own.used;
    conn->own.append(shared + result.used, total - result.used);
    conn->out = conn->own.data;
    conn->out_end = conn->own.data + conn->tail;
    conn->closing = result.closed;
    block(conn);
    return true;
  }
  if (result.closed) return false;
  if (total != result.used) keep_rest(conn, shared + result.used, total - result.used);
  return true;
}

// Answers the whole frames in `own` one by one. False: close.
bool answer_own(Connection* conn) {
  do {
    Echo result = conn->own.reply();
    conn->tail = result.used;
    ssize_t left = answer(conn, result);
    if (left < 0 || (left == 0 && result.closed)) return false;
    if (left > 0) {
      conn->out = result.end - left;
      conn->out_end = result.end;
      conn->closing = result.closed;
      block(conn);
      return true;
    }
    // What fits in the shared buffer is better off there; what does not stays with this buffer.
    if (conn->own.frame.size() <= shared_size) conn->direct = false;
    conn->own.drop(result.used);
  } while (conn->own.used != 0 && conn->own.grow(0));
  if (conn->own.frame.header != 0) conn->direct = true;
  return conn->own.frame.valid;
}

// One event of a large frame. False: close.
bool on_direct(Connection* conn, bool& more) {
  std::size_t room = conn->own.room();
  ssize_t n = recv(conn->fd, conn->own.data + conn->own.used, room, 0);
  if (n <= 0) return n < 0 && errno == EAGAIN;
  if (!conn->own.grow(static_cast<std::size_t>(n))) {
    more = static_cast<std::size_t>(n) == room;
    return conn->own.frame.valid;
  }
  return answer_own(conn);
}

bool on_writable(Connection* conn) {
  ssize_t left = send_some(conn, conn->out, conn->out_end);
  if (left < 0 || (left == 0 && conn->closing)) return false;
  conn->out = conn->out_end - left;
  if (left > 0) return true;
  conn->blocked = false;
  watch(conn, EPOLLIN, EPOLL_CTL_MOD);
  conn->own.drop(conn->tail);
  if (conn->own.used == 0) return true;
  if (conn->own.grow(0)) return answer_own(conn);
  if (conn->own.frame.header != 0) conn->direct = true;
  return conn->own.frame.valid;
}

bool on_event(Connection* conn, std::uint32_t events) {
  if (conn->blocked) return (events & (EPOLLERR | EPOLLHUP)) == 0 && on_writable(conn);
  for (bool more = true, alive = true; more && !conn->blocked;) {
    more = false;
    alive = conn->direct ? on_direct(conn, more) : on_shared(conn, more);
    if (!alive) return false;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  int listener = listen_on(static_cast<std::uint16_t>(option(argc, argv, "--port", 0)), SOCK_NONBLOCK);
  poller = epoll_create1(EPOLL_CLOEXEC);
  epoll_event event{};
  event.events = EPOLLIN;
  if (epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event) != 0) die("epoll_ctl");
  epoll_event events[512];
  for (;;) {
    int count = epoll_wait(poller, events, 512, -1);
    for (int i = 0; i < count; i++) {
      auto* conn = static_cast<Connection*>(events[i].data.ptr);
      if (conn == nullptr) {
        accept_all(listener);
      } else if (!on_event(conn, events[i].events)) {
        close_connection(conn);
      }
    }
  }
}
