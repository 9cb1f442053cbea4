// Compressed echoes of 16 different messages through the whole engine in user space, from received bytes to the send queue,
// and zlib and libdeflate alone that inflate and deflate the same messages. For the microbenchmarks and for the gate.
#pragma once

#include <fcntl.h>
#include <libdeflate.h>
#include <zlib.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <levada/bench/micro/take_all.h>
#include <levada/core/random.h>
#include <levada/ws/deflate.h>
#include <levada/ws/encoder.h>
#include <levada/ws/service.h>

namespace levada::bench::deflated {

using Buffer = std::vector<std::uint8_t>;

inline constexpr std::size_t message_count = 16;
inline constexpr int level = 1;

// What is measured has to be right.
inline void must(bool condition) {
  if (condition) return;
  std::fputs("a compressed echo went wrong\n", stderr);
  std::abort();
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

// The payloads of a client that takes nothing over.
inline std::vector<Buffer> compressed(std::size_t size) {
  BlockPool blocks(0);
  ws::Deflater deflater({.level = 6}, blocks);
  std::vector<Buffer> all;
  for (std::size_t i = 0; i < message_count; i++) {
    const Buffer message = json(size, i);
    Buffer out(ws::Deflater::bound(size));
    out.resize(deflater.compress(message, true, out));
    all.push_back(out);
  }
  return all;
}

// The engine's, of one connection. `final_blocks`: libdeflate.
class EngineEcho {
 public:
  EngineEcho(std::size_t size, ws::DeflateContext context, bool final_blocks)
      : reactor_({}, &TakeAll::make, nullptr),
        backend_(static_cast<TakeAll&>(reactor_.backend())),
        service_(reactor_, ws::Role::server, echo_,
                 {.deflate = {.enabled = true,
                              .deflater = context,
                              .level = level,
                              .min_bytes = 0,
                              .final_blocks = final_blocks,
                              .inflater = context}}) {
    for (const Buffer& payload : compressed(size)) {
      const std::size_t at = original_.size();
      original_.resize(at + ws::frame_size(payload.size(), true));
      ws::write_masked_frame(original_.data() + at, ws::Opcode::text, payload, 0x11223344);
      original_[at] |= ws::deflate_rsv << 4;
    }
    received_ = original_;
    connect();
  }
  EngineEcho(const EngineEcho&) = delete;
  ~EngineEcho() {
    must(service_.counters().messages_sent.value() == echoed_);
    connection_->terminate();
    backend_.input = {};
    reactor_.run_once(0);
  }

  // Echoes each message once. Where they inflate to more than a slice, that takes several of the reactor's turns.
  void turn() {
    std::copy(original_.begin(), original_.end(), received_.begin());  // unmasking changes it
    backend_.input = received_;
    echoed_ += message_count;
    while (service_.counters().messages_sent.value() < echoed_) {
      reactor_.run_once(0);
      backend_.input = {};
    }
  }

 private:
  struct Echo {
    void on_message(ws::Connection& connection, ws::Opcode opcode, Bytes payload) {
      connection.send(opcode, payload);
    }
  };

  void connect() {
    std::string upgrade =
        "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
    connection_ = service_.adopt(Fd(open("/dev/null", O_RDWR | O_CLOEXEC)));
    backend_.input = {reinterpret_cast<std::uint8_t*>(upgrade.data()), upgrade.size()};
    reactor_.run_once(0);
    must(connection_->compresses());
  }

  Echo echo_;
  net::Reactor reactor_;
  TakeAll& backend_;
  ws::Service service_;
  ws::Connection* connection_ = nullptr;
  Buffer original_, received_;
  std::uint64_t echoed_ = 0;
};

// zlib's, with the same resets and flushes.
class ZlibEcho {
 public:
  ZlibEcho(std::size_t size, bool takeover)
      : size_(size), takeover_(takeover), messages_(compressed(size)), plain_(size + 1) {
    must(inflateInit2(&in_, -15) == Z_OK);
    must(deflateInit2(&out_, level, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) == Z_OK);
    for (Buffer& message : messages_) message.insert(message.end(), {0x00, 0x00, 0xff, 0xff});
    again_.resize(ws::Deflater::bound(size));
  }
  ZlibEcho(const ZlibEcho&) = delete;
  ~ZlibEcho() {
    inflateEnd(&in_);
    deflateEnd(&out_);
  }

  void turn() {
    for (Buffer& message : messages_) {
      if (!takeover_) {
        inflateReset(&in_);
        deflateReset(&out_);
      }
      in_.next_in = message.data();
      in_.avail_in = static_cast<uInt>(message.size());
      in_.next_out = plain_.data();
      in_.avail_out = static_cast<uInt>(plain_.size());
      must(inflate(&in_, Z_SYNC_FLUSH) == Z_OK && in_.avail_out == 1);
      out_.next_in = plain_.data();
      out_.avail_in = static_cast<uInt>(size_);
      out_.next_out = again_.data();
      out_.avail_out = static_cast<uInt>(again_.size());
      must(deflate(&out_, Z_SYNC_FLUSH) == Z_OK);
    }
  }

 private:
  std::size_t size_;
  bool takeover_;
  std::vector<Buffer> messages_;
  Buffer plain_, again_;
  z_stream in_{}, out_{};
};

class LibdeflateEcho {
 public:
  explicit LibdeflateEcho(std::size_t size)
      : size_(size), messages_(compressed(size)), plain_(size + 1), again_(ws::Deflater::bound(size)) {
    for (Buffer& message : messages_) message.insert(message.end(), {0x00, 0x00, 0xff, 0xff, 0x03, 0x00});
  }
  LibdeflateEcho(const LibdeflateEcho&) = delete;
  ~LibdeflateEcho() {
    libdeflate_free_decompressor(in_);
    libdeflate_free_compressor(out_);
  }

  void turn() {
    for (const Buffer& message : messages_) {
      std::size_t used = 0, inflated = 0;
      must(libdeflate_deflate_decompress_ex(in_, message.data(), message.size(), plain_.data(), plain_.size(),
                                            &used, &inflated) == LIBDEFLATE_SUCCESS);
      must(inflated == size_);
      must(libdeflate_deflate_compress(out_, plain_.data(), size_, again_.data(), again_.size()) != 0);
    }
  }

 private:
  std::size_t size_;
  std::vector<Buffer> messages_;
  Buffer plain_, again_;
  libdeflate_decompressor* in_ = libdeflate_alloc_decompressor();
  libdeflate_compressor* out_ = libdeflate_alloc_compressor(level);
};

}  // namespace levada::bench::deflated
