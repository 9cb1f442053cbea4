#include <levada/tests/support/count_copies.h>

#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <cerrno>
#include <utility>

namespace {

__attribute__((tls_model("initial-exec"))) thread_local std::size_t copied = 0;
thread_local std::vector<levada::Bytes> receives;

// The barrier keeps the compiler from making a call of memcpy out of the loop.
void copy_up(char* to, const char* from, std::size_t size) {
  for (std::size_t i = 0; i < size; i++) {
    to[i] = from[i];
    asm volatile("" : : : "memory");
  }
}

void copy_down(char* to, const char* from, std::size_t size) {
  for (std::size_t i = size; i > 0; i--) {
    to[i - 1] = from[i - 1];
    asm volatile("" : : : "memory");
  }
}

}  // namespace

namespace levada::test {

std::size_t copied_bytes() {
  return copied;
}
std::vector<Bytes> take_receives() {
  return std::exchange(receives, {});
}

}  // namespace levada::test

extern "C" {

void* memcpy(void* to, const void* from, std::size_t size) {
  copied += size;
  copy_up(static_cast<char*>(to), static_cast<const char*>(from), size);
  return to;
}

void* memmove(void* to, const void* from, std::size_t size) {
  copied += size;
  if (to < from) {
    copy_up(static_cast<char*>(to), static_cast<const char*>(from), size);
  } else {
    copy_down(static_cast<char*>(to), static_cast<const char*>(from), size);
  }
  return to;
}

ssize_t recv(int fd, void* buffer, std::size_t size, int flags) {
  const long got = syscall(SYS_recvfrom, fd, buffer, size, flags, nullptr, nullptr);
  if (got > 0) receives.push_back({static_cast<const std::uint8_t*>(buffer), static_cast<std::size_t>(got)});
  return got;
}

}  // extern "C"
