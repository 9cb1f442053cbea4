#include <levada/core/random.h>

#include <sys/random.h>
#include <cerrno>
#include <cstdlib>

namespace levada {

void fill_random(MutableBytes out) {
  while (!out.empty()) {
    const ssize_t got = getrandom(out.data(), out.size(), 0);
    if (got < 0 && errno != EINTR) std::abort();  // a kernel without getrandom cannot run the engine at all
    if (got > 0) out = out.subspan(static_cast<std::size_t>(got));
  }
}

void SecureRandom::refill() {
  fill_random(block_);
  used_ = 0;
}

}  // namespace levada
