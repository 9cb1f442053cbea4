#include <levada/ws/whole_deflate.h>

#include <libdeflate.h>
#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdlib>
#include <cstring>

namespace levada::ws::detail {
namespace {

// What was removed from the end of a message (RFC 7692 section 7.2.2), and an empty final block.
constexpr std::uint8_t ending[] = {0x00, 0x00, 0xff, 0xff, 0x03, 0x00};

template <class Handle>
Handle* or_abort(Handle* handle) {
  if (handle == nullptr) std::abort();  // as std::bad_alloc would
  return handle;
}

}  // namespace

WholeDeflater::~WholeDeflater() {
  if (handle_ != nullptr) libdeflate_free_compressor(handle_);
}

std::size_t WholeDeflater::compress(Bytes message, int window_bits, MutableBytes out) {
  if (message.size() < min_bytes || (window_bits < 15 && message.size() > std::size_t{1} << window_bits)) {
    return 0;
  }
  if (handle_ == nullptr) handle_ = or_abort(libdeflate_alloc_compressor(level_));
  return libdeflate_deflate_compress(handle_, message.data(), message.size(), out.data(), out.size());
}

WholeInflater::~WholeInflater() {
  if (handle_ != nullptr) libdeflate_free_decompressor(handle_);
}

bool WholeInflater::inflate(Bytes message, MutableBytes out, std::size_t& size) {
  if (!is_worth(message.size())) return false;
  if (handle_ == nullptr) handle_ = or_abort(libdeflate_alloc_decompressor());
  std::array<std::uint8_t, max_bytes + sizeof ending> scratch;
  std::memcpy(scratch.data(), message.data(), message.size());
  std::copy(std::begin(ending), std::end(ending),
            scratch.begin() + static_cast<std::ptrdiff_t>(message.size()));
  const std::size_t all = message.size() + sizeof ending;
  std::size_t used = 0;
  const libdeflate_result result =
      libdeflate_deflate_decompress_ex(handle_, scratch.data(), all, out.data(), out.size(), &used, &size);
  if (result != LIBDEFLATE_SUCCESS) return false;
  // All of it, or a final block of the sender's own and the one byte that has to follow it (section 7.2.3.4).
  return used == all || (used + 1 == message.size() && message.back() == 0);
}

}  // namespace levada::ws::detail
