// Raw zlib, as the peer that the deflater and inflater are compared with; and messages to compress.
#pragma once

#include <zlib.h>
#include <algorithm>
#include <cstdio>
#include <string>
#include <string_view>

#include <doctest/doctest.h>

#include <levada/core/random.h>
#include <levada/ws/deflate.h>
#include <levada/ws/inflate.h>

namespace levada::ws::test {

inline const std::string deflate_ending("\x00\x00\xff\xff", 4);

// One direction's compression by zlib's own functions.
class RawDeflater {
 public:
  explicit RawDeflater(int window_bits, int level = 6, int memory_level = 8) {
    REQUIRE(deflateInit2(&stream_, level, Z_DEFLATED, -window_bits, memory_level, Z_DEFAULT_STRATEGY) ==
            Z_OK);
  }
  RawDeflater(const RawDeflater&) = delete;
  RawDeflater& operator=(const RawDeflater&) = delete;
  ~RawDeflater() { deflateEnd(&stream_); }

  void reset() { deflateReset(&stream_); }

  // `flush`: Z_SYNC_FLUSH for a message without its ending's removal, Z_FULL_FLUSH, Z_BLOCK or Z_FINISH.
  std::string run(std::string_view text, int flush) {
    std::string out(2 * text.size() + 1000, '\0');
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(text.data()));
    stream_.avail_in = static_cast<uInt>(text.size());
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = static_cast<uInt>(out.size());
    deflate(&stream_, flush);
    out.resize(out.size() - stream_.avail_out);
    if (flush == Z_FINISH) deflateReset(&stream_);
    return out;
  }

  // A message as it goes into frames.
  std::string message(std::string_view text) {
    if (text.empty()) return std::string(1, '\0');
    std::string out = run(text, Z_SYNC_FLUSH);
    REQUIRE(out.ends_with(deflate_ending));
    return out.substr(0, out.size() - deflate_ending.size());
  }

 private:
  z_stream stream_{};
};

// One direction's decompression by zlib's own functions, byte by byte, so that nothing further back than the
// window can be referred to.
class RawInflater {
 public:
  explicit RawInflater(int window_bits) { REQUIRE(inflateInit2(&stream_, -window_bits) == Z_OK); }
  RawInflater(const RawInflater&) = delete;
  RawInflater& operator=(const RawInflater&) = delete;
  ~RawInflater() { inflateEnd(&stream_); }

  void reset() { inflateReset(&stream_); }

  // What the bytes inflate to; "error" if they cannot be.
  std::string run(std::string_view bytes) {
    std::string out;
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(bytes.data()));
    stream_.avail_in = static_cast<uInt>(bytes.size());
    for (;;) {
      Bytef byte = 0;
      stream_.next_out = &byte;
      stream_.avail_out = 1;
      const int result = inflate(&stream_, Z_SYNC_FLUSH);
      if (stream_.avail_out == 0) out += static_cast<char>(byte);
      if (result == Z_STREAM_END) {
        inflateReset(&stream_);
        if (stream_.avail_in == 0) return out;
      } else if (result == Z_BUF_ERROR ||
                 (result == Z_OK && stream_.avail_out != 0 && stream_.avail_in == 0)) {
        return out;
      } else if (result != Z_OK) {
        return "error";
      }
    }
  }
  std::string message(std::string_view bytes) { return run(std::string(bytes) + deflate_ending); }

 private:
  z_stream stream_{};
};

// JSON as an API sends it, of exactly `size` bytes.
inline std::string json_text(std::size_t size, std::uint64_t seed = 1) {
  constexpr const char* names[] = {"ana", "bruno", "carla", "duarte", "elisa", "filipe", "graca", "hugo"};
  SeededRandom random(seed);
  std::string text = "[";
  while (text.size() < size) {
    char item[256];
    std::snprintf(
        item, sizeof item, R"({"id":%u,"user":"%s","price":%u.%02u,"side":"%s","time":%u,"active":%s},)",
        static_cast<unsigned>(random.below(1'000'000)), names[random.below(8)],
        static_cast<unsigned>(random.below(1000)), static_cast<unsigned>(random.below(100)),
        random.one_in(2) ? "buy" : "sell", static_cast<unsigned>(1'700'000'000 + random.below(100'000'000)),
        random.one_in(3) ? "false" : "true");
    text += item;
  }
  text.resize(size);
  return text;
}

// Blocks that inflate to nothing: each has Huffman codes and the end of the block. Ended by the 0 of an empty stored one.
inline std::string empty_blocks(std::size_t bytes) {
  std::string wire;
  while (wire.size() < bytes) wire += std::string("\x02\x08\x20\x80\x00", 5);  // four of 10 bits
  return wire + std::string(1, '\0');
}

// One message compressed in the pieces that `cuts` make.
inline std::string compress(Deflater& deflater, std::string_view text,
                            std::initializer_list<std::size_t> cuts = {}) {
  std::string all;
  std::size_t from = 0;
  const auto piece = [&](std::size_t to, bool last) {
    const Bytes bytes = to_bytes(text.substr(from, to - from));
    std::string out(Deflater::bound(bytes.size()), '\0');
    const std::size_t size =
        deflater.compress(bytes, last, {reinterpret_cast<std::uint8_t*>(out.data()), out.size()});
    REQUIRE(size <= out.size());
    all += out.substr(0, size);
    from = to;
  };
  for (const std::size_t cut : cuts) piece(cut, false);
  piece(text.size(), true);
  return all;
}

// What became of a message.
struct Outcome {
  std::string text = {};
  FrameError error = FrameError::none;
  std::size_t slices = 0;  // how often the inflater asked for another turn
  std::size_t peak = 0;    // the most that it held of its pool after a call

  bool is(std::string_view wanted) const { return error == FrameError::none && text == wanted; }
};

// Gives a message to the inflater in pieces of `piece` bytes, each in memory of its own.
inline Outcome inflate_pieces(Inflater& inflater, std::string_view wire, std::size_t piece) {
  Outcome outcome;
  std::string fresh;
  for (std::size_t at = 0;;) {
    const std::string bytes(wire.substr(at, piece));
    at += bytes.size();
    const bool last = at == wire.size();
    Bytes in = to_bytes(bytes);
    for (;;) {
      const Inflated out = inflater.next(in, last);
      fresh += to_text(out.fresh);
      outcome.peak = std::max(outcome.peak, inflater.memory_bytes());
      if (out.event == InflateEvent::error) {
        outcome.error = out.error;
        return outcome;
      }
      if (out.event == InflateEvent::more) outcome.slices++;
      if (out.event == InflateEvent::message || out.event == InflateEvent::fragment) {
        outcome.text += to_text(out.payload);
        CHECK((out.payload.empty() || out.headroom == Inflater::headroom_bytes));
        std::fill_n(out.payload.data() - out.headroom, out.headroom + out.payload.size(), std::uint8_t{0xEE});
        if (out.fin) {
          CHECK(fresh == outcome.text);
          CHECK(in.empty());
          CHECK(inflater.idle());
          inflater.release();
          return outcome;
        }
      }
      if (out.event == InflateEvent::none) break;
    }
    CHECK(in.empty());
    REQUIRE(!last);  // the last piece ends a message or is an error
  }
}

inline Outcome inflate(Inflater& inflater, std::string_view wire) {
  return inflate_pieces(inflater, wire, std::max<std::size_t>(wire.size(), 1));
}

}  // namespace levada::ws::test
