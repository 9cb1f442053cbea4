// The io_uring backend of a build without liburing: it says so.
#include <levada/net/io_uring.h>
#include <levada/net/reactor.h>

namespace levada::net {

IoUringAbilities io_uring_abilities() {
  return {.error = {Errc::not_supported, "built without io_uring"}};
}

std::unique_ptr<Backend> make_io_uring_backend(Reactor&, Error&) {
  return nullptr;
}

}  // namespace levada::net
