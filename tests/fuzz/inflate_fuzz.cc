// libFuzzer target: what the inflater makes of any bytes is what zlib makes of them, however they are cut, whole
// and streaming, with slices, a limit and a ratio, one message and many with takeover; and what a deflater makes of them
// comes back. fuzz/seeds makes a corpus to begin with; messages that matter need -max_len=32768.
#include <zlib.h>
#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include <levada/core/block_pool.h>
#include <levada/ws/deflate.h>
#include <levada/ws/inflate.h>

using namespace levada;
using namespace levada::ws;

namespace {

constexpr std::size_t limit = 200'000;

void require(bool condition) {
  if (!condition) std::abort();
}

struct Result {
  std::string text = {};
  FrameError error = FrameError::none;

  bool operator==(const Result&) const = default;
};

// zlib's own functions, one call after another, with the ending behind each message.
class Zlib {
 public:
  Zlib() { require(inflateInit2(&stream_, -15) == Z_OK); }
  Zlib(const Zlib&) = delete;
  Zlib& operator=(const Zlib&) = delete;
  ~Zlib() { inflateEnd(&stream_); }

  Result inflate(Bytes message) {
    Result result;
    if (message.empty()) return result;
    std::vector<std::uint8_t> all(message.begin(), message.end());
    all.insert(all.end(), {0x00, 0x00, 0xff, 0xff});
    stream_.next_in = all.data();
    stream_.avail_in = static_cast<uInt>(all.size());
    result.text.resize(limit + 1);
    stream_.next_out = reinterpret_cast<Bytef*>(result.text.data());
    stream_.avail_out = static_cast<uInt>(result.text.size());
    const bool clean = run();
    result.text.resize(limit + 1 - stream_.avail_out);
    if (stream_.avail_out == 0) {
      result.error = FrameError::message_too_big;
    } else if (!clean) {
      result.error = FrameError::bad_deflate;
    }
    return result;
  }

 private:
  // Whether the input ends where a block ends, and a byte.
  bool run() {
    for (;;) {
      const int code = ::inflate(&stream_, Z_SYNC_FLUSH);
      if (code == Z_STREAM_END) inflateResetKeep(&stream_);
      if (code == Z_STREAM_END && stream_.avail_in != 0 && stream_.avail_out != 0) continue;
      if (code == Z_STREAM_END) return true;
      return (code == Z_OK || code == Z_BUF_ERROR) && (stream_.data_type & (128 | 31)) == 128;
    }
  }

  z_stream stream_{};
};

Result by_inflater(Inflater& inflater, Bytes message, std::size_t piece) {
  Result result;
  std::string fresh;
  for (std::size_t at = 0;;) {
    const std::vector<std::uint8_t> copy(
        message.begin() + static_cast<std::ptrdiff_t>(at),
        message.begin() + static_cast<std::ptrdiff_t>(std::min(at + piece, message.size())));
    at += copy.size();
    Bytes in = copy;
    for (;;) {
      const Inflated out = inflater.next(in, at == message.size());
      require(out.fresh.size() <= inflater.options().slice_bytes);
      fresh += to_text(out.fresh);
      result.text += to_text(out.payload);
      result.error = out.error;
      if (out.event == InflateEvent::error) return result;
      const bool payload = out.event == InflateEvent::message || out.event == InflateEvent::fragment;
      if (payload)
        std::fill_n(out.payload.data() - out.headroom, out.headroom + out.payload.size(), std::uint8_t{7});
      if (payload && out.fin) {
        require(in.empty() && inflater.idle() && fresh == result.text);
        inflater.release();
        return result;
      }
      if (out.event == InflateEvent::none) break;
    }
    require(in.empty() && at < message.size());
  }
}

void try_inflating(Bytes message, std::size_t piece, std::size_t slice) {
  const Result wanted = Zlib().inflate(message);
  for (const bool streaming : {false, true}) {
    for (const std::size_t size : {piece, message.size() + 1}) {
      BlockPool blocks(1 << 20);
      Inflater inflater({.streaming = streaming, .max_message_bytes = limit, .slice_bytes = slice}, blocks);
      Result got = by_inflater(inflater, message, size);
      // Alone libdeflate judges: it takes symbols that zlib does not.
      if (wanted.error == FrameError::bad_deflate && got.error == FrameError::none) {
        require(!streaming && size > message.size() && message.size() >= 1024);
      } else {
        require(got.error == wanted.error);
        require(got.error != FrameError::none || got.text == wanted.text);
      }
      inflater.reset();
      const std::uint8_t hello[] = {0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00};
      require(by_inflater(inflater, hello, 3) == Result{"Hello", FrameError::none});
    }
  }
}

// The messages that the first bytes cut it into, on one connection: with a full window as one stream of zlib's; with a smaller
// one, references further back may be refused.
void try_takeover(Bytes messages, std::size_t piece, std::uint8_t choice) {
  BlockPool blocks(1 << 20);
  const auto bits = static_cast<std::uint8_t>(choice % 2 == 0 ? 15 : 8 + choice / 2 % 8);
  Inflater inflater(
      {.window_bits = bits, .takeover = true, .streaming = (choice & 16) != 0, .max_message_bytes = limit},
      blocks);
  Zlib zlib;
  while (messages.size() >= 2) {
    const std::size_t size = std::min(std::size_t{messages[0]} << 8 | messages[1], messages.size() - 2);
    const Bytes message = messages.subspan(2, size);
    messages = messages.subspan(2 + size);
    const Result wanted = zlib.inflate(message), got = by_inflater(inflater, message, piece);
    const bool too_far = bits < 15 && got.error == FrameError::bad_deflate;
    require(too_far || got.error == wanted.error);
    if (got.error != FrameError::none) return;
    require(got.text == wanted.text);
  }
}

void try_ratio(Bytes message, std::size_t piece, std::uint32_t ratio) {
  constexpr std::size_t from = 64 * 1024;
  const Result wanted = Zlib().inflate(message);
  BlockPool blocks(1 << 20);
  Inflater inflater({.max_message_bytes = limit, .max_ratio = ratio}, blocks);
  const Result got = by_inflater(inflater, message, piece);
  if (got.error == FrameError::inflates_too_much) {
    require(wanted.text.size() > from);
  } else if (got.error == FrameError::none) {
    require(got.text.size() <= from || got.text.size() / ratio <= message.size());
  }
}

void try_round_trip(Bytes text, std::size_t piece, std::uint8_t choice) {
  BlockPool blocks(1 << 20);
  const auto bits = static_cast<std::uint8_t>(8 + choice % 8);
  const bool takeover = (choice & 8) != 0;
  Deflater deflater({.window_bits = bits,
                     .takeover = takeover,
                     .level = static_cast<std::uint8_t>(1 + choice % 9),
                     .memory_level = static_cast<std::uint8_t>(1 + choice / 16 % 9),
                     .final_blocks = (choice & 16) != 0},
                    blocks);
  Inflater inflater({.window_bits = bits, .takeover = takeover}, blocks);
  for (int round = 0; round < 3; round++) {
    std::vector<std::uint8_t> wire;
    for (std::size_t at = 0;;) {
      const std::size_t size = round == 0 ? text.size() : std::min(piece, text.size() - at);
      std::vector<std::uint8_t> out(Deflater::bound(size));
      const bool last = at + size == text.size();
      out.resize(deflater.compress(text.subspan(at, size), last, out));
      wire.insert(wire.end(), out.begin(), out.end());
      at += size;
      if (last) break;
    }
    const Result got = by_inflater(inflater, wire, round == 0 ? wire.size() : piece);
    require(got == Result{std::string(to_text(text)), FrameError::none});
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size < 3) return 0;
  const Bytes in(data + 3, size - 3);
  const std::size_t piece = std::size_t{data[0]} + 1, slice = (std::size_t{data[1]} + 1) * 256;
  try_inflating(in, piece, slice);
  try_takeover(in, piece, data[2]);
  try_ratio(in, piece, std::uint32_t{data[2]} + 1);
  try_round_trip(in, piece, data[2]);
  return 0;
}
