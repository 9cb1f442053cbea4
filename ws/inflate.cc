#include <levada/ws/inflate.h>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cstdlib>
#include <cstring>
#include <utility>

#include <levada/ws/whole_deflate.h>
#include <levada/ws/zlib_memory.h>

namespace levada::ws {
namespace {

// What the sender removed from the end of the message (RFC 7692 section 7.2.2).
constexpr std::uint8_t ending[] = {0x00, 0x00, 0xff, 0xff};

constexpr std::size_t min_first_bytes = 512;  // of a message's first block, by the input's size
constexpr std::size_t max_first_bytes = 64 * 1024;
constexpr std::uint64_t ratio_from_bytes = 64 * 1024;         // what is smaller does no harm
constexpr std::size_t max_call_bytes = std::size_t{1} << 30;  // zlib counts in 32 bits

// `data_type` of a stream: unused bits of the last byte, and whether a block may begin here.
constexpr int unused_bits = 31;
constexpr int between_blocks = 128;

}  // namespace

struct Inflater::State {
  explicit State(BlockPool& blocks) : memory(blocks) {}

  detail::ZlibMemory memory;
  z_stream stream{};  // made with the first message that needs it
  detail::WholeInflater whole;
};

Inflater::Inflater(const InflaterOptions& options, BlockPool& blocks)
    : blocks_(&blocks), state_(std::make_unique<State>(blocks)) {
  assert(options.window_bits >= min_window_bits && options.window_bits <= max_window_bits);
  options_.window_bits = options.window_bits;
  use(options);
}

void Inflater::use(const InflaterOptions& options) {
  assert(idle() && !options_.takeover && options.window_bits == options_.window_bits);
  assert(options.slice_bytes > 0);
  options_ = options;
  const auto most = std::uint64_t{BlockPool::max_block_bytes} / 2;  // what can be held at all, or counted
  if (!options_.streaming) options_.max_message_bytes = std::min(options_.max_message_bytes, most);
  options_.max_message_bytes = std::min(options_.max_message_bytes, ~std::uint64_t{0} - 1);
}

Inflater::~Inflater() {
  if (block_ != nullptr) block_->drop_reference();
  if (state_->stream.state != nullptr) inflateEnd(&state_->stream);
}

std::size_t Inflater::memory_bytes() const {
  return state_->memory.bytes() + (block_ == nullptr ? 0 : block_->capacity());
}

void Inflater::release() {
  if (!delivered_) return;
  delivered_ = false;
  filled_ = 0;
  std::exchange(block_, nullptr)->drop_reference();
}

void Inflater::reset() {
  if (block_ != nullptr) delivered_ = true;  // an unfinished message: nobody will see it
  release();
  in_message_ = false;
  if (fresh_) return;
  inflateReset(&state_->stream);
  fresh_ = true;
}

// ---- One message ----

void Inflater::begin() {
  if (!options_.takeover) reset();
  in_message_ = true;
  at_boundary_ = false;
  ending_used_ = 0;
  compressed_bytes_ = inflated_bytes_ = 0;
}

Inflated Inflater::next(Bytes& in, bool last, std::size_t most_bytes) {
  release();
  const bool begins = !in_message_;
  if (begins) begin();
  if (in.empty() && compressed_bytes_ == 0) return finish_call(0, last ? Step::done : Step::input_used);
  const std::size_t most = std::min(options_.slice_bytes, most_bytes), from = filled_, size = in.size();
  const bool whole = begins && last && most > 0 && inflate_whole(in);
  const Step step = whole ? Step::done : inflate_slice(in, last, most);
  Inflated result = finish_call(from, step);
  result.cost = std::max(result.fresh.size(), input_weight * (size - in.size()));
  return result;
}

// Takes its part of the input, and inflates until that or the room is used up.
Inflater::Step Inflater::inflate_slice(Bytes& in, bool last, std::size_t most) {
  const std::size_t size = std::min(in.size(), std::max<std::size_t>(most / input_weight, 1));
  const bool all = size == in.size();
  const std::size_t until = filled_ + most;
  Bytes now = in.first(size);
  Step step = Step::room_used;
  while (step == Step::room_used && check_size() == FrameError::none) {
    const MutableBytes out = room(least_whole_ratio * size, until);
    if (out.empty()) break;
    step = inflate_into(out, now, last && all);
  }
  in = in.subspan(size - now.size());
  return step == Step::input_used && !in.empty() ? Step::room_used : step;
}

// What a call has come to; it began with `from` bytes in the block.
Inflated Inflater::finish_call(std::size_t from, Step step) {
  Inflated result;
  const MutableBytes all = block_ == nullptr ? MutableBytes{} : MutableBytes{first_byte(), filled_};
  result.fresh = all.subspan(from);
  result.error = step == Step::bad ? FrameError::bad_deflate : check_size();
  result.fin = step == Step::done;
  const bool deliver = result.fin || (options_.streaming && filled_ > 0);
  if (result.error != FrameError::none) {
    result.event = InflateEvent::error;
  } else if (deliver) {
    result.event = options_.streaming ? InflateEvent::fragment : InflateEvent::message;
    result.payload = all;
    result.headroom = block_ == nullptr ? 0 : headroom_bytes;
    result.owner = block_;
    delivered_ = block_ != nullptr;
    in_message_ = !result.fin;
  } else if (step == Step::room_used) {
    result.event = InflateEvent::more;
  }
  return result;
}

FrameError Inflater::check_size() const {
  if (inflated_bytes_ > options_.max_message_bytes) return FrameError::message_too_big;
  const bool counts = options_.max_ratio != 0 && inflated_bytes_ > ratio_from_bytes;
  if (counts && inflated_bytes_ / options_.max_ratio > compressed_bytes_)
    return FrameError::inflates_too_much;
  return FrameError::none;
}

void Inflater::add_output(std::size_t size) {
  filled_ += size;
  inflated_bytes_ += size;
  if (block_ != nullptr) block_->note_used(headroom_bytes + filled_);
}

// The message in one call of libdeflate. False and nothing changed where zlib has to do it. That costs the time of both: so
// then the next message gets more room, and if that was not enough, the next ones are not tried.
bool Inflater::inflate_whole(Bytes& in) {
  constexpr std::uint8_t skipped = 15;
  std::size_t size = 0;
  if (options_.takeover || options_.streaming || in.size() > options_.slice_bytes / input_weight)
    return false;
  if (!detail::WholeInflater::is_worth(in.size())) return false;
  if (whole_skips_ > 0) return whole_skips_--, false;
  if (!state_->whole.inflate(in, room(whole_ratio_ * in.size(), options_.slice_bytes), size)) {
    if (whole_ratio_ == most_whole_ratio) whole_skips_ = skipped;
    whole_ratio_ = most_whole_ratio;
    return false;
  }
  if (size <= least_whole_ratio * in.size()) whole_ratio_ = least_whole_ratio;
  compressed_bytes_ = in.size();
  add_output(size);
  in = {};
  return true;
}

// What zlib is given next: the input, what is left of the ending behind it, or both in one where that is cheap.
Bytes Inflater::source(Bytes in, bool last, std::array<std::uint8_t, joined_bytes>& joined) const {
  if (!last) return in.first(std::min(in.size(), max_call_bytes));
  const Bytes rest = Bytes(ending).subspan(ending_used_);
  if (in.empty()) return rest;
  if (in.size() > joined.size() - rest.size()) return in.first(std::min(in.size(), max_call_bytes));
  std::memcpy(joined.data(), in.data(), in.size());
  std::memcpy(joined.data() + in.size(), rest.data(), rest.size());
  return {joined.data(), in.size() + rest.size()};
}

// Takes so many bytes off the input, and then off the ending.
void Inflater::take(Bytes& in, std::size_t bytes) {
  const std::size_t of_in = std::min(bytes, in.size());
  in = in.subspan(of_in);
  compressed_bytes_ += of_in;
  ending_used_ = static_cast<std::uint8_t>(ending_used_ + (bytes - of_in));
}

// Runs zlib until the room or the input is used up, or the message ends.
Inflater::Step Inflater::inflate_into(MutableBytes out, Bytes& in, bool last) {
  z_stream& stream = prepare_stream();
  stream.next_out = out.data();
  stream.avail_out = static_cast<uInt>(out.size());
  std::array<std::uint8_t, joined_bytes> joined;
  Step step = Step::bad;
  for (;;) {
    const Bytes bytes = source(in, last, joined);
    stream.next_in = const_cast<Bytef*>(bytes.data());
    stream.avail_in = static_cast<uInt>(bytes.size());
    const int result = ::inflate(&stream, Z_SYNC_FLUSH);
    take(in, bytes.size() - stream.avail_in);
    if (result != Z_OK && result != Z_STREAM_END && result != Z_BUF_ERROR) break;
    if (result != Z_BUF_ERROR) {  // which tells that nothing was done, and data_type then nothing
      at_boundary_ = result == Z_STREAM_END ||
                     ((stream.data_type & between_blocks) != 0 && (stream.data_type & unused_bits) == 0);
    }
    // Behind a final block the next one follows, and may refer to what was before.
    if (result == Z_STREAM_END) inflateResetKeep(&stream);
    if (stream.avail_out == 0) {
      step = Step::room_used;
      break;
    }
    if (!in.empty() || (last && ending_used_ < sizeof ending)) continue;
    if (!last) {
      step = Step::input_used;
    } else if (at_boundary_) {
      step = Step::done;
    }
    break;
  }
  add_output(out.size() - stream.avail_out);
  return step;
}

z_stream& Inflater::prepare_stream() {
  z_stream& stream = state_->stream;
  fresh_ = false;
  if (stream.state != nullptr) return stream;
  state_->memory.attach(stream);
  if (inflateInit2(&stream, -int{options_.window_bits}) != Z_OK)
    std::abort();  // not the zlib it was built with
  return stream;
}

// ---- Memory ----

std::uint8_t* Inflater::first_byte() const {
  return block_->data() + headroom_bytes;
}

std::size_t Inflater::block_bytes() const {
  return block_->capacity() - headroom_bytes;
}

// Where to inflate to; empty when `filled_` has come to `until`, or a fragment is full. One byte beyond the limit
// is room, too: it tells that there is more.
MutableBytes Inflater::room(std::size_t guess, std::size_t until) {
  if (filled_ == until) return {};
  if (block_ == nullptr) {
    const std::size_t some = std::bit_ceil(std::clamp(guess, min_first_bytes, max_first_bytes));
    const std::size_t first = options_.streaming ? fragment_bytes : some;
    block_ = blocks_->allocate(block_for(first));
  } else if (filled_ == block_bytes()) {
    if (options_.streaming) return {};
    grow();
  }
  const std::uint64_t allowed = options_.max_message_bytes + 1 - inflated_bytes_;
  std::size_t size = std::min({block_bytes() - filled_, until - filled_, max_call_bytes});
  if (size > allowed) size = static_cast<std::size_t>(allowed);
  return {first_byte() + filled_, size};
}

// The size of a block for `bytes`, or for the whole limit where the next larger one would be beyond it.
std::size_t Inflater::block_for(std::size_t bytes) const {
  const std::uint64_t most = options_.max_message_bytes + 1;
  if (std::uint64_t{2} * bytes > most && !options_.streaming) bytes = static_cast<std::size_t>(most);
  return headroom_bytes + bytes;
}

void Inflater::grow() {
  const std::size_t size = block_for(4 * std::bit_floor(block_bytes()));
  block_ = blocks_->grow(block_, headroom_bytes + filled_, size);
}

}  // namespace levada::ws
