// Whole messages compressed and decompressed in one call, by libdeflate where the library was built with it.
// Internal. Without libdeflate both classes decline everything, and zlib does the work.
//
// libdeflate knows no streams: the whole input, enough room for the whole output, no earlier message referred to,
// a final block at the end. It is not faster for small messages: what is below the bounds is left to zlib.
#pragma once

#include <cstddef>

#include <levada/core/bytes.h>

struct libdeflate_compressor;
struct libdeflate_decompressor;

namespace levada::ws::detail {

class WholeDeflater {
 public:
  static constexpr std::size_t min_bytes = 1024;

  explicit WholeDeflater(int level) : level_(level) {}
  WholeDeflater(const WholeDeflater&) = delete;
  WholeDeflater& operator=(const WholeDeflater&) = delete;
  ~WholeDeflater();

  // Compresses to one stream with a final block. Bytes written, or 0 where this is not for libdeflate. A window
  // is 2^window_bits: nothing refers further back than the message begins.
  std::size_t compress(Bytes message, int window_bits, MutableBytes out);

 private:
  [[maybe_unused]] int level_;
  [[maybe_unused]] libdeflate_compressor* handle_ = nullptr;  // made when first used; some 100 KB
};

class WholeInflater {
 public:
  static constexpr std::size_t min_bytes = 1024;  // compressed
  static constexpr std::size_t max_bytes =
      16 * 1024;  // compressed: it is copied, to have its end put behind it

  // Whether a message of so many compressed bytes is worth trying.
  static constexpr bool is_worth(std::size_t bytes) { return bytes >= min_bytes && bytes <= max_bytes; }

  WholeInflater() = default;
  WholeInflater(const WholeInflater&) = delete;
  WholeInflater& operator=(const WholeInflater&) = delete;
  ~WholeInflater();

  // Inflates a message as it came, without the 4 bytes that were removed from its end. True and the size, or
  // false where zlib has to judge: too large for `out`, invalid, made of several streams.
  bool inflate(Bytes message, MutableBytes out, std::size_t& size);

 private:
  [[maybe_unused]] libdeflate_decompressor* handle_ = nullptr;  // made when first used; some 12 KB
};

}  // namespace levada::ws::detail
