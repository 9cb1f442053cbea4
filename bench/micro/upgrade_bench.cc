// What an opening handshake costs the processor: parse, check and answer a browser's request, whole and in parts, beside
// its SHA-1 alone.
#include <array>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include <levada/bench/micro/micro.h>
#include <levada/bench/micro/samples.h>
#include <levada/core/bytes.h>
#include <levada/ws/accept_key.h>
#include <levada/ws/handshake.h>
#include <levada/ws/http.h>
#include <levada/ws/router.h>

namespace {

using namespace levada;
using namespace levada::ws;

using bench::browser_request;

void report_size(benchmark::State& state) {
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(browser_request.size()));
}

// As a server on a socket has it: the request is copied in, the answer copied out.
void serve(benchmark::State& state, const UpgraderOptions& options) {
  Upgrader upgrader(options);
  std::array<std::uint8_t, 1024> received, out, sent;
  bench::measure(state, [&] {
    Upgrader::Progress progress;
    std::memcpy(received.data(), browser_request.data(), browser_request.size());
    benchmark::DoNotOptimize(received);
    const auto outcome = upgrader.feed(progress, Bytes(received).first(browser_request.size()), out);
    bench::require(outcome.state == Upgrader::State::accepted);
    std::memcpy(sent.data(), out.data(), outcome.written);
    benchmark::DoNotOptimize(sent);
  });
  report_size(state);
}

void upgrade(benchmark::State& state) {
  serve(state, {});
}
BENCHMARK(upgrade);

// The same with a check of the Origin, subprotocols and every hook set.
void upgrade_with_hooks(benchmark::State& state) {
  constexpr std::array<std::string_view, 1> subprotocols = {"chat"};
  UpgradeHooks hooks;
  hooks.on_request_line = [](void*, std::string_view, std::string_view) -> const Rejection* {
    return nullptr;
  };
  hooks.on_host = [](void*, std::string_view) -> const Rejection* { return nullptr; };
  hooks.on_field = [](void*, std::string_view, std::string_view) -> const Rejection* { return nullptr; };
  hooks.on_upgrade = [](void*, const HttpRequest&, Acceptance&) -> const Rejection* { return nullptr; };
  serve(state, {.subprotocols = subprotocols, .constant_block = "Server: levada\r\n", .hooks = hooks});
}
BENCHMARK(upgrade_with_hooks);

// The limit: request and answer copied, and the SHA-1 of the key, which nobody can leave out.
void copies_and_sha1(benchmark::State& state) {
  constexpr std::size_t answer = 129;  // bytes of the shortest
  std::array<std::uint8_t, 1024> received, sent;
  std::string_view key = "x3JJHMbDL1EzLkh9GBhXDw==";
  bench::measure(state, [&] {
    std::memcpy(received.data(), browser_request.data(), browser_request.size());
    benchmark::DoNotOptimize(received);
    benchmark::DoNotOptimize(key);
    benchmark::DoNotOptimize(accept_key(key));
    std::memcpy(sent.data(), received.data(), answer);
    benchmark::DoNotOptimize(sent);
  });
}
BENCHMARK(copies_and_sha1)->Name("limit/copies_and_sha1");

void parse_request(benchmark::State& state) {
  HttpRequest request;
  bench::measure(state, [&] {
    Bytes in = to_bytes(browser_request);
    benchmark::DoNotOptimize(in);
    benchmark::DoNotOptimize(request.parse(in));
  });
  report_size(state);
}
BENCHMARK(parse_request);

void check_request(benchmark::State& state) {
  HttpRequest request;
  request.parse(to_bytes(browser_request));
  bench::measure(state, [&] {
    benchmark::DoNotOptimize(request);
    benchmark::DoNotOptimize(check_upgrade(request));
  });
}
BENCHMARK(check_request);

void make_accept_key(benchmark::State& state, Sha1Tier tier) {
  if (!is_available(tier)) return state.SkipWithError("this processor has no such instructions");
  std::string_view key = "x3JJHMbDL1EzLkh9GBhXDw==";
  bench::measure(state, [&] {
    benchmark::DoNotOptimize(key);
    benchmark::DoNotOptimize(accept_key(key, tier));
  });
}
BENCHMARK_CAPTURE(make_accept_key, scalar, Sha1Tier::scalar);
BENCHMARK_CAPTURE(make_accept_key, sha_ni, Sha1Tier::sha_ni);

void write_answer(benchmark::State& state) {
  HttpRequest request;
  request.parse(to_bytes(browser_request));
  std::array<std::uint8_t, 1024> out;
  bench::measure(state, [&] {
    benchmark::DoNotOptimize(write_accept(out, accept_request(request)));
    benchmark::ClobberMemory();
  });
}
BENCHMARK(write_answer);

void match_route(benchmark::State& state) {
  RouteTable table;
  for (const char* pattern : {"/", "/healthz", "/chat/:room", "/chat/:room/:user", "/files/*"})
    table.add(pattern);
  Params params;
  std::string_view path = "/chat/7/somebody";
  bench::measure(state, [&] {
    benchmark::DoNotOptimize(path);
    benchmark::DoNotOptimize(table.match(path, params));
  });
}
BENCHMARK(match_route);

}  // namespace
