// Compressing and inflating JSON-like messages beside zlib and libdeflate called directly on the same bytes, and
// the memory of a connection in each mode.
//
//   shared       each message stands alone; one context for all connections
//   dedicated    context takeover; a context per connection
//   final        as shared, with final blocks: libdeflate
//
// Each iteration takes the next of some messages that differ, as traffic does. bytes_per_second counts the
// uncompressed bytes per second of CPU time; `ratio` is uncompressed to compressed.
#include <libdeflate.h>
#include <zlib.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <levada/bench/micro/micro.h>
#include <levada/core/random.h>
#include <levada/ws/deflate.h>
#include <levada/ws/inflate.h>

namespace {

using namespace levada;

constexpr std::int64_t sizes[] = {128, 1024, 16384};
constexpr std::size_t message_count = 32;

using Buffer = std::vector<std::uint8_t>;

Buffer json(std::size_t size, std::uint64_t seed) {
  constexpr const char* names[] = {"ana", "bruno", "carla", "duarte", "elisa", "filipe", "graca", "hugo"};
  SeededRandom random(seed);
  const auto number = [&random](std::uint64_t below) { return static_cast<unsigned>(random.below(below)); };
  std::string text = "[";
  while (text.size() < size) {
    char item[256];
    std::snprintf(
        item, sizeof item, R"({"id":%u,"user":"%s","price":%u.%02u,"side":"%s","time":%u,"active":%s},)",
        number(1'000'000), names[number(8)], number(1000), number(100), number(2) == 0 ? "buy" : "sell",
        1'700'000'000 + number(100'000'000), number(3) == 0 ? "false" : "true");
    text += item;
  }
  return {text.begin(), text.begin() + static_cast<std::ptrdiff_t>(size)};
}

std::vector<Buffer> messages(benchmark::State& state) {
  std::vector<Buffer> all;
  for (std::size_t i = 0; i < message_count; i++)
    all.push_back(json(static_cast<std::size_t>(state.range(0)), i));
  return all;
}

// Runs `work(message) -> bytes` over the messages in turn.
template <class Work>
void run(benchmark::State& state, const std::vector<Buffer>& messages, Work work) {
  std::size_t next = 0, compressed = 0;
  bench::measure(state, [&] {
    compressed += work(messages[next]);
    next = next + 1 == messages.size() ? 0 : next + 1;
  });
  const auto bytes = static_cast<double>((state.iterations() + bench::warm_up_runs) * state.range(0));
  state.SetBytesProcessed(state.iterations() * state.range(0));
  if (compressed != 0) state.counters["ratio"] = bytes / static_cast<double>(compressed);
}

using bench::require;

// ---- Compressing ----

void raw_zlib_deflate(benchmark::State& state, int level, bool takeover) {
  z_stream stream{};
  require(deflateInit2(&stream, level, Z_DEFLATED, -15, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  Buffer out(ws::Deflater::bound(static_cast<std::size_t>(state.range(0))));
  run(state, messages(state), [&](const Buffer& message) {
    if (!takeover) deflateReset(&stream);
    stream.next_in = const_cast<Bytef*>(message.data());
    stream.avail_in = static_cast<uInt>(message.size());
    stream.next_out = out.data();
    stream.avail_out = static_cast<uInt>(out.size());
    require(deflate(&stream, Z_SYNC_FLUSH) == Z_OK);
    return out.size() - stream.avail_out - 4;
  });
  deflateEnd(&stream);
}

void raw_libdeflate_deflate(benchmark::State& state, int level) {
  libdeflate_compressor* compressor = libdeflate_alloc_compressor(level);
  Buffer out(ws::Deflater::bound(static_cast<std::size_t>(state.range(0))));
  run(state, messages(state), [&](const Buffer& message) {
    return libdeflate_deflate_compress(compressor, message.data(), message.size(), out.data(), out.size());
  });
  libdeflate_free_compressor(compressor);
}

void engine_deflate(benchmark::State& state, int level, bool takeover, bool final_blocks) {
  BlockPool blocks(1 << 20);
  ws::Deflater deflater(
      {.takeover = takeover, .level = static_cast<std::uint8_t>(level), .final_blocks = final_blocks},
      blocks);
  Buffer out(ws::Deflater::bound(static_cast<std::size_t>(state.range(0))));
  run(state, messages(state), [&](const Buffer& message) { return deflater.compress(message, true, out); });
}

// ---- Inflating ----

std::vector<Buffer> compressed(benchmark::State& state, bool takeover) {
  BlockPool blocks(1 << 20);
  ws::Deflater deflater({.takeover = takeover, .level = 6}, blocks);
  std::vector<Buffer> all;
  for (const Buffer& message : messages(state)) {
    Buffer out(ws::Deflater::bound(message.size()));
    out.resize(deflater.compress(message, true, out));
    all.push_back(out);
  }
  return all;
}

void raw_zlib_inflate(benchmark::State& state, bool takeover) {
  z_stream stream{};
  require(inflateInit2(&stream, -15) == Z_OK);
  std::vector<Buffer> wires = compressed(state, takeover);
  for (Buffer& wire : wires) wire.insert(wire.end(), {0x00, 0x00, 0xff, 0xff});
  Buffer out(static_cast<std::size_t>(state.range(0)) + 1);
  std::size_t count = 0;
  run(state, wires, [&](const Buffer& wire) {
    // With takeover the conversation starts again with its first message.
    if (!takeover || count++ % message_count == 0) inflateReset(&stream);
    stream.next_in = const_cast<Bytef*>(wire.data());
    stream.avail_in = static_cast<uInt>(wire.size());
    stream.next_out = out.data();
    stream.avail_out = static_cast<uInt>(out.size());
    require(inflate(&stream, Z_SYNC_FLUSH) == Z_OK && stream.avail_out == 1);
    return wire.size() - 4;
  });
  inflateEnd(&stream);
}

void raw_libdeflate_inflate(benchmark::State& state) {
  libdeflate_decompressor* decompressor = libdeflate_alloc_decompressor();
  std::vector<Buffer> wires = compressed(state, false);
  for (Buffer& wire : wires) wire.insert(wire.end(), {0x00, 0x00, 0xff, 0xff, 0x03, 0x00});
  Buffer out(static_cast<std::size_t>(state.range(0)) + 1);
  run(state, wires, [&](const Buffer& wire) {
    std::size_t used = 0, size = 0;
    require(libdeflate_deflate_decompress_ex(decompressor, wire.data(), wire.size(), out.data(), out.size(),
                                             &used, &size) == LIBDEFLATE_SUCCESS);
    return wire.size() - 6;
  });
  libdeflate_free_decompressor(decompressor);
}

void engine_inflate(benchmark::State& state, bool takeover, bool streaming) {
  BlockPool blocks(1 << 20);
  ws::Inflater inflater({.takeover = takeover, .streaming = streaming}, blocks);
  std::size_t count = 0;
  run(state, compressed(state, takeover), [&](const Buffer& wire) {
    if (takeover && count++ % message_count == 0) inflater.reset();
    Bytes in = wire;
    ws::Inflated out;
    std::size_t size = 0;
    do {
      out = inflater.next(in, true);
      size += out.fresh.size();
    } while (out.event == ws::InflateEvent::more || (out.event == ws::InflateEvent::fragment && !out.fin));
    require(size == static_cast<std::size_t>(state.range(0)));
    inflater.release();
    return wire.size();
  });
}

// ---- Memory ----

// What a connection has in the pool after messages both ways: with a context of its own in each direction. A
// connection that shares them has none.
void memory(benchmark::State& state) {
  const auto bits = static_cast<std::uint8_t>(state.range(0));
  const auto memory_level = static_cast<std::uint8_t>(state.range(1));
  std::size_t deflater_bytes = 0, inflater_bytes = 0;
  bench::measure(state, bench::Allocates::freely, 1, [&] {
    BlockPool blocks(0);
    ws::Deflater deflater({.window_bits = bits, .takeover = true, .memory_level = memory_level}, blocks);
    ws::Inflater inflater({.window_bits = bits, .takeover = true}, blocks);
    Buffer out(ws::Deflater::bound(16384));
    const std::size_t size = deflater.compress(json(16384, 1), true, out);
    deflater_bytes = blocks.bytes_in_use();
    Bytes in(out.data(), size);
    require(inflater.next(in, true).event == ws::InflateEvent::message);
    inflater.release();
    inflater_bytes = blocks.bytes_in_use() - deflater_bytes;
  });
  state.counters["deflater_bytes"] = static_cast<double>(deflater_bytes);
  state.counters["inflater_bytes"] = static_cast<double>(inflater_bytes);
}

template <class Function, class... Arguments>
void add(const std::string& name, Function function, Arguments... arguments) {
  for (const std::int64_t size : sizes) {
    benchmark::RegisterBenchmark(name.c_str(), function, arguments...)->Arg(size);
  }
}

const bool registered = [] {
  for (const int level : {1, 6}) {
    const std::string at = "/level" + std::to_string(level);
    add("deflate_shared/zlib" + at, raw_zlib_deflate, level, false);
    add("deflate_shared/levada" + at, engine_deflate, level, false, false);
    add("deflate_dedicated/zlib" + at, raw_zlib_deflate, level, true);
    add("deflate_dedicated/levada" + at, engine_deflate, level, true, false);
    add("deflate_final/libdeflate" + at, raw_libdeflate_deflate, level);
    add("deflate_final/levada" + at, engine_deflate, level, false, true);
  }
  add("inflate_shared/zlib", raw_zlib_inflate, false);
  add("inflate_shared/libdeflate", raw_libdeflate_inflate);
  add("inflate_shared/levada", engine_inflate, false, false);
  add("inflate_shared/levada_streaming", engine_inflate, false, true);
  add("inflate_dedicated/zlib", raw_zlib_inflate, true);
  add("inflate_dedicated/levada", engine_inflate, true, false);
  for (const auto& [bits, level] : {std::pair{15, 9}, {15, 8}, {13, 6}, {12, 5}, {11, 4}, {10, 3}, {9, 1}}) {
    benchmark::RegisterBenchmark("memory", memory)->Args({bits, level})->Iterations(1);
  }
  return true;
}();

}  // namespace
