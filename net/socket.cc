#include <levada/net/socket.h>

#include <arpa/inet.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <cerrno>
#include <cstddef>
#include <cstring>

namespace levada::net {
namespace {

Error set_flag(int fd, int level, int name, const char* operation) {
  const int on = 1;
  if (setsockopt(fd, level, name, &on, sizeof on) == 0) return {};
  return Error::from_os(operation, errno);
}

Result<Fd> open_socket(int family, int type) {
  Fd fd(socket(family, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!fd) return Error::from_os("socket", errno);
  return fd;
}

// Removes the socket file of a server that is gone: only if it is a socket, and connecting to it is refused.
void remove_stale_socket(const Address& address) {
  const auto* unix_address = reinterpret_cast<const sockaddr_un*>(address.get());
  struct stat status {};
  if (unix_address->sun_path[0] == '\0' || stat(unix_address->sun_path, &status) != 0) return;
  if (!S_ISSOCK(status.st_mode)) return;
  const Fd probe(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (connect(probe.get(), address.get(), address.size()) != 0 && errno == ECONNREFUSED) {
    unlink(unix_address->sun_path);
  }
}

}  // namespace

Result<Address> Address::ip(std::string_view host, std::uint16_t port) {
  if (host.empty() || host == "*") host = "0.0.0.0";
  if (host == "localhost") host = "127.0.0.1";
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  const std::string text(host);
  Address address;
  auto* v4 = reinterpret_cast<sockaddr_in*>(&address.storage_);
  if (inet_pton(AF_INET, text.c_str(), &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    address.size_ = sizeof *v4;
    return address;
  }
  auto* v6 = reinterpret_cast<sockaddr_in6*>(&address.storage_);
  if (inet_pton(AF_INET6, text.c_str(), &v6->sin6_addr) == 1) {
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    address.size_ = sizeof *v6;
    return address;
  }
  return Error{Errc::invalid_argument, "address"};
}

Result<Address> Address::unix_path(std::string_view path) {
  Address address;
  auto* target = reinterpret_cast<sockaddr_un*>(&address.storage_);
  if (path.empty() || path.size() >= sizeof target->sun_path) return Error{Errc::invalid_argument, "address"};
  target->sun_family = AF_UNIX;
  std::memcpy(target->sun_path, path.data(), path.size());
  const bool abstract = path.front() == '@';
  if (abstract) target->sun_path[0] = '\0';
  // An abstract name is as long as it says; a path ends with its zero byte.
  address.size_ = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size() + (abstract ? 0 : 1));
  return address;
}

Result<Address> Address::of_socket(int fd) {
  Address address;
  if (getsockname(fd, address.get(), &address.size_) != 0) return Error::from_os("getsockname", errno);
  return address;
}

std::uint16_t Address::port() const {
  if (family() == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in*>(&storage_)->sin_port);
  if (family() == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6*>(&storage_)->sin6_port);
  return 0;
}

Result<Address> Address::of_peer(int fd) {
  Address address;
  if (getpeername(fd, address.get(), &address.size_) != 0) return Error::from_os("getpeername", errno);
  return address;
}

std::string Address::host() const {
  char text[INET6_ADDRSTRLEN] = "";
  if (family() == AF_INET) {
    return inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in*>(&storage_)->sin_addr, text, sizeof text);
  }
  if (family() == AF_INET6) {
    return inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6*>(&storage_)->sin6_addr, text,
                     sizeof text);
  }
  return "unix";
}

std::string Address::to_string() const {
  if (family() == AF_INET) return host() + ":" + std::to_string(port());
  if (family() == AF_INET6) return "[" + host() + "]:" + std::to_string(port());
  const auto* path = reinterpret_cast<const sockaddr_un*>(&storage_)->sun_path;
  const std::size_t length = size_ - offsetof(sockaddr_un, sun_path);
  if (length > 0 && path[0] == '\0') return "unix:@" + std::string(path + 1, length - 1);
  return "unix:" + std::string(path, strnlen(path, length));
}

Result<Fd> listen_stream(const Address& address, const ListenOptions& options) {
  auto opened = open_socket(address.family(), SOCK_STREAM);
  if (!opened) return opened;
  const int fd = opened->get();
  if (address.family() == AF_UNIX) {
    remove_stale_socket(address);
  } else {
    set_no_delay(fd);  // accepted sockets inherit it
    if (const Error error = set_flag(fd, SOL_SOCKET, SO_REUSEADDR, "SO_REUSEADDR")) return error;
    if (options.reuse_port) {
      if (const Error error = set_flag(fd, SOL_SOCKET, SO_REUSEPORT, "SO_REUSEPORT")) return error;
    }
    if (address.family() == AF_INET6) {
      if (const Error error = set_flag(fd, IPPROTO_IPV6, IPV6_V6ONLY, "IPV6_V6ONLY")) return error;
    }
  }
  if (bind(fd, address.get(), address.size()) != 0) return Error::from_os("bind", errno);
  if (listen(fd, options.backlog) != 0) return Error::from_os("listen", errno);
  return opened;
}

Result<Fd> connect_stream(const Address& address, const Address* source) {
  auto opened = open_socket(address.family(), SOCK_STREAM);
  if (!opened) return opened;
  const int fd = opened->get();
  set_no_delay(fd);
  if (source != nullptr) {
    // Let the kernel choose the port when it knows the destination too: more connections than ports.
    if (const Error error = set_flag(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, "IP_BIND_ADDRESS_NO_PORT"))
      return error;
    if (bind(fd, source->get(), source->size()) != 0) return Error::from_os("bind", errno);
  }
  if (connect(fd, address.get(), address.size()) != 0 && errno != EINPROGRESS) {
    return Error::from_os("connect", errno);
  }
  return opened;
}

Result<Fd> bind_datagram(const Address& address, bool reuse_port) {
  auto opened = open_socket(address.family(), SOCK_DGRAM);
  if (!opened) return opened;
  if (reuse_port) {
    if (const Error error = set_flag(opened->get(), SOL_SOCKET, SO_REUSEPORT, "SO_REUSEPORT")) return error;
  }
  if (bind(opened->get(), address.get(), address.size()) != 0) return Error::from_os("bind", errno);
  return opened;
}

void set_no_delay(int fd) {
  const int on = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

void set_notsent_lowat(int fd, std::uint32_t bytes) {
  setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &bytes, sizeof bytes);
}

bool accepting_is_impossible(int os_number) {
  switch (os_number) {
    case EMFILE:
    case ENFILE:
    case ENOBUFS:
    case ENOMEM:
    case EBADF:
    case EINVAL:
    case ENOTSOCK:
      return true;
    default:
      return false;
  }
}

Error take_socket_error(int fd, const char* operation) {
  int number = 0;
  socklen_t size = sizeof number;
  if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &number, &size) != 0) number = errno;
  return number == 0 ? Error{} : Error::from_os(operation, number);
}

}  // namespace levada::net
