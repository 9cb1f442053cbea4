// A build without zlib: nothing is offered and no offer accepted, so nobody has an agreement to make these for.
#include <cstdlib>

#include <levada/ws/deflate.h>
#include <levada/ws/inflate.h>

namespace levada::ws {

struct Deflater::State {};
struct Inflater::State {};

bool deflate_available() {
  return false;
}

Deflater::Deflater(const DeflaterOptions&, BlockPool&) {
  std::abort();
}
Deflater::~Deflater() = default;
std::size_t Deflater::compress(Bytes, bool, MutableBytes) {
  std::abort();
}
void Deflater::reset() {}
std::size_t Deflater::memory_bytes() const {
  return 0;
}

Inflater::Inflater(const InflaterOptions&, BlockPool&) : blocks_(nullptr) {
  std::abort();
}
Inflater::~Inflater() = default;
Inflated Inflater::next(Bytes&, bool, std::size_t) {
  std::abort();
}
void Inflater::use(const InflaterOptions&) {}
void Inflater::release() {}
void Inflater::reset() {}
std::size_t Inflater::memory_bytes() const {
  return 0;
}

}  // namespace levada::ws
