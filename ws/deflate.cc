#include <levada/ws/deflate.h>

#include <algorithm>
#include <cassert>
#include <cstdlib>

#include <levada/ws/whole_deflate.h>
#include <levada/ws/zlib_memory.h>

namespace levada::ws {
namespace {

constexpr std::size_t ending_bytes = 4;  // 00 00 ff ff, which a message leaves out
constexpr int zlib_min_window_bits = 9;  // of raw streams

}  // namespace

struct Deflater::State {
  State(BlockPool& blocks, int level) : memory(blocks), whole(level) {}

  detail::ZlibMemory memory;
  z_stream stream{};  // made with the first message that needs it
  detail::WholeDeflater whole;
};

bool deflate_available() {
  return true;
}

Deflater::Deflater(const DeflaterOptions& options, BlockPool& blocks)
    : options_(options), state_(std::make_unique<State>(blocks, options.level)) {
  assert(options.window_bits >= min_window_bits && options.window_bits <= max_window_bits);
}

Deflater::~Deflater() {
  if (state_->stream.state != nullptr) deflateEnd(&state_->stream);
}

std::size_t Deflater::memory_bytes() const {
  return state_->memory.bytes();
}

void Deflater::reset() {
  in_message_ = false;
  if (fresh_) return;
  deflateReset(&state_->stream);
  fresh_ = true;
}

std::size_t Deflater::compress(Bytes piece, bool last, MutableBytes out) {
  assert(out.size() >= bound(piece.size()));
  const bool whole = !in_message_ && last;
  if (!in_message_ && !options_.takeover) reset();
  in_message_ = !last;
  if (piece.empty()) {  // the stream is at the end of a block: an empty one, without its last 4 bytes
    if (last) out[0] = 0;
    return last ? 1 : 0;
  }
  if (whole && !options_.takeover && options_.final_blocks) {
    const std::size_t size = state_->whole.compress(piece, options_.window_bits, out.first(out.size() - 1));
    if (size != 0) {
      out[size] = 0;  // what follows a final block (RFC 7692 section 7.2.3.4)
      return size + 1;
    }
  }
  const std::size_t size = compress_stream(piece, out);
  return last ? size - ending_bytes : size;
}

std::size_t Deflater::compress_stream(Bytes piece, MutableBytes out) {
  z_stream& stream = state_->stream;
  if (stream.state == nullptr) {
    state_->memory.attach(stream);
    const int window_bits = std::max<int>(options_.window_bits, zlib_min_window_bits);
    const int result = deflateInit2(&stream, options_.level, Z_DEFLATED, -window_bits, options_.memory_level,
                                    Z_DEFAULT_STRATEGY);
    if (result != Z_OK) std::abort();  // a zlib that is not the one it was built with
  }
  fresh_ = false;
  const std::size_t size = out.size();
  std::size_t written = 0;
  while (!piece.empty()) {  // more than once only beyond 1 GiB, for zlib counts in 32 bits
    constexpr std::size_t most = std::size_t{1} << 30;
    const std::size_t take = std::min(piece.size(), most);
    stream.next_in = const_cast<Bytef*>(piece.data());
    stream.avail_in = static_cast<uInt>(take);
    stream.next_out = out.data() + written;
    const std::size_t room = std::min(size - written, bound(most));
    stream.avail_out = static_cast<uInt>(room);
    piece = piece.subspan(take);
    [[maybe_unused]] const int result = ::deflate(&stream, piece.empty() ? Z_SYNC_FLUSH : Z_NO_FLUSH);
    assert(result == Z_OK && stream.avail_in == 0 && stream.avail_out > 0);
    written += room - stream.avail_out;
  }
  return written;
}

}  // namespace levada::ws
