// Compressed echoes through the whole engine in user space, from received bytes to the send queue, and what zlib and
// libdeflate alone need to inflate and deflate the same messages.
//
// Model: each class is set up once, its turn() echoes `message_count` different messages of JSON-like text, which the
// client compressed with nothing taken over. After warm_up_turns() of them the windows are full, and turns differ no more
// but in where zlib moves its window: that happens alike in the engine and beside it.
//
// ZlibEcho and LibdeflateEcho are there in builds with these libraries: LEVADA_BENCH_ZLIB, LEVADA_BENCH_LIBDEFLATE.
#pragma once

#ifdef LEVADA_BENCH_LIBDEFLATE
#include <libdeflate.h>
#endif
#ifdef LEVADA_BENCH_ZLIB
#include <zlib.h>
#endif

#include <fcntl.h>
#include <algorithm>
#include <array>
#include <cstdio>
#include <string>
#include <vector>

#include <levada/bench/micro/require.h>
#include <levada/bench/micro/take_all.h>
#include <levada/core/random.h>
#include <levada/ws/encoder.h>
#include <levada/ws/service.h>

namespace levada::bench::deflated {

using Buffer = std::vector<std::uint8_t>;

inline constexpr std::size_t message_count = 16;  // of one turn
inline constexpr std::size_t sizes[] = {128, 1024, 16384};
inline constexpr int level = 1;
// Behind the inflated message, for the libraries: their fast ways need room for the longest match, which the engine's blocks
// have, too.
inline constexpr std::size_t spare = 512;

// Until twice the window was echoed.
constexpr std::size_t warm_up_turns(std::size_t size) {
  return std::max<std::size_t>(65536 / (message_count * size), 3);
}

inline Buffer json(std::size_t size, std::uint64_t seed) {
  constexpr const char* names[] = {"ana", "bruno", "carla", "duarte", "elisa", "filipe", "graca", "hugo"};
  SeededRandom random(seed);
  const auto number = [&random](std::uint64_t below) { return static_cast<unsigned>(random.below(below)); };
  std::string text = "[";
  while (text.size() < size) {
    std::array<char, 256> item;
    std::snprintf(item.data(), item.size(), R"({"id":%u,"user":"%s","price":%u.%02u,"side":"%s","time":%u},)",
                  number(1'000'000), names[number(8)], number(1000), number(100),
                  number(2) == 0 ? "buy" : "sell", 1'700'000'000 + number(100'000'000));
    text += item.data();
  }
  return {text.begin(), text.begin() + static_cast<std::ptrdiff_t>(size)};
}

// The payloads of a client that takes nothing over, each with `ending` behind it.
inline std::vector<Buffer> compressed(std::size_t size, Bytes ending = {}) {
  BlockPool blocks(0);
  ws::Deflater deflater({.level = 6}, blocks);
  std::vector<Buffer> all;
  for (std::size_t i = 0; i < message_count; i++) {
    const Buffer message = json(size, i);
    Buffer out(ws::Deflater::bound(size));
    out.resize(deflater.compress(message, true, out));
    out.insert(out.end(), ending.begin(), ending.end());
    all.push_back(out);
  }
  return all;
}

// As one masked frame each.
inline Buffer compressed_frames(std::size_t size) {
  Buffer all;
  for (const Buffer& payload : compressed(size)) {
    const std::size_t at = all.size();
    all.resize(at + ws::frame_size(payload.size(), true));
    ws::write_masked_frame(all.data() + at, ws::Opcode::text, payload, 0x11223344);
    all[at] |= ws::deflate_rsv << 4;
  }
  return all;
}

// A server's echo. A turn receives the frames all at once; where they inflate to more than a slice, others follow.
class LevadaEcho {
 public:
  LevadaEcho(std::size_t size, ws::DeflateContext context, bool final_blocks)
      : original_(compressed_frames(size)),
        received_(original_),
        reactor_({}, &TakeAll::make, nullptr),
        backend_(static_cast<TakeAll&>(reactor_.backend())),
        service_(reactor_, ws::Role::server, handler_, options(context, final_blocks)),
        connection_(service_.adopt(Fd(open("/dev/null", O_RDWR | O_CLOEXEC)))) {
    std::string upgrade =
        "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    receive({reinterpret_cast<std::uint8_t*>(upgrade.data()), upgrade.size()});
    require(connection_->compresses());
  }
  LevadaEcho(const LevadaEcho&) = delete;
  LevadaEcho& operator=(const LevadaEcho&) = delete;
  ~LevadaEcho() {
    connection_->terminate();
    receive({});
  }

  void turn() {
    std::copy(original_.begin(), original_.end(), received_.begin());  // unmasking changes it
    echoed_ += message_count;
    receive(received_);
    while (service_.counters().messages_sent.value() < echoed_) receive({});
    require(service_.counters().messages_sent.value() == echoed_);
  }

 private:
  struct Handler {
    void on_message(ws::Connection& connection, ws::Opcode opcode, Bytes payload) {
      connection.send(opcode, payload);
    }
  };

  static ws::ServiceOptions options(ws::DeflateContext context, bool final_blocks) {
    return {.deflate = {.enabled = true,
                        .deflater = context,
                        .level = level,
                        .min_bytes = 0,
                        .final_blocks = final_blocks,
                        .inflater = context}};
  }

  void receive(MutableBytes bytes) {
    backend_.input = bytes;
    reactor_.run_once(0);
  }

  Buffer original_, received_;
  Handler handler_;
  net::Reactor reactor_;
  TakeAll& backend_;
  ws::Service service_;
  ws::Connection* connection_;
  std::uint64_t echoed_ = 0;
};

#ifdef LEVADA_BENCH_ZLIB

// With `takeover` what is deflated refers to the messages before; else both streams are reset for each message.
class ZlibEcho {
 public:
  ZlibEcho(std::size_t size, bool takeover)
      : takeover_(takeover),
        messages_(compressed(size, std::array<std::uint8_t, 4>{0x00, 0x00, 0xff, 0xff})),
        plain_(size + spare),
        again_(ws::Deflater::bound(size)) {
    require(inflateInit2(&in_, -15) == Z_OK);
    require(deflateInit2(&out_, level, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  }
  ZlibEcho(const ZlibEcho&) = delete;
  ZlibEcho& operator=(const ZlibEcho&) = delete;
  ~ZlibEcho() {
    inflateEnd(&in_);
    deflateEnd(&out_);
  }

  void turn() {
    for (Buffer& message : messages_) echo(message);
  }

 private:
  void echo(Buffer& message) {
    if (!takeover_) {
      inflateReset(&in_);
      deflateReset(&out_);
    }
    in_.next_in = message.data();
    in_.avail_in = static_cast<uInt>(message.size());
    in_.next_out = plain_.data();
    in_.avail_out = static_cast<uInt>(plain_.size());
    require(inflate(&in_, Z_SYNC_FLUSH) == Z_OK && in_.avail_out == spare);
    out_.next_in = plain_.data();
    out_.avail_in = static_cast<uInt>(plain_.size() - spare);
    out_.next_out = again_.data();
    out_.avail_out = static_cast<uInt>(again_.size());
    require(deflate(&out_, Z_SYNC_FLUSH) == Z_OK);
  }

  bool takeover_;
  z_stream in_{}, out_{};
  std::vector<Buffer> messages_;
  Buffer plain_, again_;
};

#endif
#ifdef LEVADA_BENCH_LIBDEFLATE

// Each message by itself, with a final block behind it.
class LibdeflateEcho {
 public:
  explicit LibdeflateEcho(std::size_t size)
      : messages_(compressed(size, std::array<std::uint8_t, 6>{0x00, 0x00, 0xff, 0xff, 0x03, 0x00})),
        plain_(size + spare),
        again_(ws::Deflater::bound(size)) {}
  LibdeflateEcho(const LibdeflateEcho&) = delete;
  LibdeflateEcho& operator=(const LibdeflateEcho&) = delete;
  ~LibdeflateEcho() {
    libdeflate_free_decompressor(in_);
    libdeflate_free_compressor(out_);
  }

  void turn() {
    for (const Buffer& message : messages_) echo(message);
  }

 private:
  void echo(const Buffer& message) {
    const std::size_t size = plain_.size() - spare;
    std::size_t used = 0, inflated = 0;
    require(libdeflate_deflate_decompress_ex(in_, message.data(), message.size(), plain_.data(),
                                             plain_.size(), &used, &inflated) == LIBDEFLATE_SUCCESS);
    require(inflated == size);
    require(libdeflate_deflate_compress(out_, plain_.data(), size, again_.data(), again_.size()) != 0);
  }

  libdeflate_decompressor* in_ = libdeflate_alloc_decompressor();
  libdeflate_compressor* out_ = libdeflate_alloc_compressor(level);
  std::vector<Buffer> messages_;
  Buffer plain_, again_;
};

#endif

}  // namespace levada::bench::deflated
