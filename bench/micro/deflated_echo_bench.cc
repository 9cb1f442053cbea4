// Compressed echoes through the whole engine in user space, from received bytes to the send queue, beside zlib and
// libdeflate alone that inflate and deflate the same messages.
//
//   shared       each message stands alone; one context for all connections
//   dedicated    what is sent refers to the messages before (context takeover)
//   final        as shared, with final blocks: libdeflate
//
// A turn receives 16 different messages of a client; where they inflate to more than a slice, others follow.
// items_per_second counts messages and bytes_per_second uncompressed bytes, per second of CPU time.
#include <libdeflate.h>
#include <zlib.h>

#include <fcntl.h>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <levada/bench/micro/micro.h>
#include <levada/bench/micro/take_all.h>
#include <levada/core/random.h>
#include <levada/ws/encoder.h>
#include <levada/ws/service.h>

namespace {

using namespace levada;
using Buffer = std::vector<std::uint8_t>;

constexpr std::size_t message_count = 16;
constexpr int level = 1;

using bench::require;

Buffer json(std::size_t size, std::uint64_t seed) {
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
std::vector<Buffer> compressed(std::size_t size) {
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

template <class Work>
void run(benchmark::State& state, Work work) {
  bench::measure(state, bench::Allocates::nothing, message_count, work);
  const std::int64_t messages = state.iterations() * static_cast<std::int64_t>(message_count);
  state.SetItemsProcessed(messages);
  state.SetBytesProcessed(messages * state.range(0));
}

struct Echo {
  void on_message(ws::Connection& connection, ws::Opcode opcode, Bytes payload) {
    connection.send(opcode, payload);
  }
};

void levada_echo(benchmark::State& state, ws::DeflateContext context, bool final_blocks) {
  Buffer original;
  for (const Buffer& payload : compressed(static_cast<std::size_t>(state.range(0)))) {
    const std::size_t at = original.size();
    original.resize(at + ws::frame_size(payload.size(), true));
    ws::write_masked_frame(original.data() + at, ws::Opcode::text, payload, 0x11223344);
    original[at] |= ws::deflate_rsv << 4;
  }
  std::string upgrade =
      "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
      "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
      "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n";
  Echo echo;
  net::Reactor reactor({}, &bench::TakeAll::make, nullptr);
  auto& backend = static_cast<bench::TakeAll&>(reactor.backend());
  ws::Service service(reactor, ws::Role::server, echo,
                      {.deflate = {.enabled = true,
                                   .deflater = context,
                                   .level = level,
                                   .min_bytes = 0,
                                   .final_blocks = final_blocks,
                                   .inflater = context}});
  ws::Connection* const connection = service.adopt(Fd(open("/dev/null", O_RDWR | O_CLOEXEC)));
  backend.input = {reinterpret_cast<std::uint8_t*>(upgrade.data()), upgrade.size()};
  reactor.run_once(0);
  require(connection->compresses());
  Buffer received = original;
  std::uint64_t echoed = 0;
  run(state, [&] {
    std::copy(original.begin(), original.end(), received.begin());  // unmasking changes it
    backend.input = received;
    echoed += message_count;
    while (service.counters().messages_sent.value() < echoed) {
      reactor.run_once(0);
      backend.input = {};
    }
  });
  require(service.counters().messages_sent.value() ==
          message_count * static_cast<std::uint64_t>(state.iterations() + bench::warm_up_runs));
  connection->terminate();
  backend.input = {};
  reactor.run_once(0);
}

void zlib_echo(benchmark::State& state, bool takeover) {
  z_stream in{}, out{};
  require(inflateInit2(&in, -15) == Z_OK);
  require(deflateInit2(&out, level, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  const auto size = static_cast<std::size_t>(state.range(0));
  std::vector<Buffer> messages = compressed(size);
  for (Buffer& message : messages) message.insert(message.end(), {0x00, 0x00, 0xff, 0xff});
  Buffer plain(size + 1), again(ws::Deflater::bound(size));
  run(state, [&] {
    for (Buffer& message : messages) {
      if (!takeover) {
        inflateReset(&in);
        deflateReset(&out);
      }
      in.next_in = message.data();
      in.avail_in = static_cast<uInt>(message.size());
      in.next_out = plain.data();
      in.avail_out = static_cast<uInt>(plain.size());
      require(inflate(&in, Z_SYNC_FLUSH) == Z_OK && in.avail_out == 1);
      out.next_in = plain.data();
      out.avail_in = static_cast<uInt>(size);
      out.next_out = again.data();
      out.avail_out = static_cast<uInt>(again.size());
      require(deflate(&out, Z_SYNC_FLUSH) == Z_OK);
    }
  });
  inflateEnd(&in);
  deflateEnd(&out);
}

void libdeflate_echo(benchmark::State& state) {
  libdeflate_decompressor* const in = libdeflate_alloc_decompressor();
  libdeflate_compressor* const out = libdeflate_alloc_compressor(level);
  const auto size = static_cast<std::size_t>(state.range(0));
  std::vector<Buffer> messages = compressed(size);
  for (Buffer& message : messages) message.insert(message.end(), {0x00, 0x00, 0xff, 0xff, 0x03, 0x00});
  Buffer plain(size + 1), again(ws::Deflater::bound(size));
  run(state, [&] {
    for (const Buffer& message : messages) {
      std::size_t used = 0, inflated = 0;
      require(libdeflate_deflate_decompress_ex(in, message.data(), message.size(), plain.data(), plain.size(),
                                               &used, &inflated) == LIBDEFLATE_SUCCESS);
      require(inflated == size);
      require(libdeflate_deflate_compress(out, plain.data(), size, again.data(), again.size()) != 0);
    }
  });
  libdeflate_free_decompressor(in);
  libdeflate_free_compressor(out);
}

constexpr auto shared = ws::DeflateContext::shared, dedicated = ws::DeflateContext::dedicated;

BENCHMARK_CAPTURE(levada_echo, shared, shared, false)->Arg(128)->Arg(1024)->Arg(16384);
BENCHMARK_CAPTURE(zlib_echo, shared, false)->Arg(128)->Arg(1024)->Arg(16384);
BENCHMARK_CAPTURE(levada_echo, dedicated, dedicated, false)->Arg(128)->Arg(1024)->Arg(16384);
BENCHMARK_CAPTURE(zlib_echo, dedicated, true)->Arg(128)->Arg(1024)->Arg(16384);
BENCHMARK_CAPTURE(levada_echo, final, shared, true)->Arg(128)->Arg(1024)->Arg(16384);
BENCHMARK(libdeflate_echo)->Arg(128)->Arg(1024)->Arg(16384);

}  // namespace
