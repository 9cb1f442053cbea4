// A build without libdeflate: zlib does everything.
#include <levada/ws/whole_deflate.h>

namespace levada::ws::detail {

WholeDeflater::~WholeDeflater() = default;

std::size_t WholeDeflater::compress(Bytes, int, MutableBytes) {
  return 0;
}

WholeInflater::~WholeInflater() = default;

bool WholeInflater::inflate(Bytes, MutableBytes, std::size_t&) {
  return false;
}

}  // namespace levada::ws::detail
