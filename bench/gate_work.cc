// The work that bench/gate counts: fixed amounts of it, so that two runs of one program do the same.
//
//   gate_work instructions
//     Runs each case in turn and prints `NAME OPERATIONS ALLOCATIONS`. callgrind collects inside
//     levada_gate_measured() only, and writes down what it counted each time that returns.
//   gate_work echoes BACKEND CONNECTIONS DEPTH WARM_UP ROUNDS
//     After WARM_UP rounds, echoes ROUNDS x CONNECTIONS x DEPTH messages on the epoll or io_uring backend, over
//     sockets whose other ends are this program's, too, and prints `client FD...` first, `messages N allocations N`
//     at the end. Whoever traces it leaves out reading and writing those descriptors. Exits with 77 when the backend
//     is not to be had.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include <levada/bench/micro/deflated_echo.h>
#include <levada/bench/micro/require.h>
#include <levada/bench/micro/samples.h>
#include <levada/bench/micro/take_all.h>
#include <levada/net/io_uring.h>
#include <levada/net/reactor.h>
#include <levada/tests/support/count_alloc.h>
#include <levada/ws/decoder.h>
#include <levada/ws/encoder.h>
#include <levada/ws/handshake.h>
#include <levada/ws/service.h>
#include <levada/ws/utf8.h>

// What callgrind collects, known by this name.
extern "C" void levada_gate_measured(void (*work)(void*), void* context, int times) {
  for (int i = 0; i < times; i++) work(context);
}

namespace {

using namespace levada;
using bench::require;
using Buffer = std::vector<std::uint8_t>;

constexpr ws::MaskKey key = 0x11223344;  // its bytes have no high bit: ASCII stays ASCII

// Through a pointer that the compiler cannot see through: it neither inlines the function nor makes clones of it.
void (*volatile measured)(void (*)(void*), void*, int) = levada_gate_measured;

void fail(const char* what) {
  std::fprintf(stderr, "gate_work: %s\n", what);
  std::exit(2);
}

// The compiler must not see what is in memory, nor that a result is unused.
template <class T>
void opaque(T&& value) {
  asm volatile("" : : "g"(&value) : "memory");
}

struct Runs {
  std::size_t warm_up = 3, counted = 100;
};

// Warms `work` up, then counts it. One run of it is `operations` operations.
template <class Work>
void count(const std::string& name, std::size_t operations, Work work, Runs runs = {}) {
  void (*const run)(void*) = [](void* context) { (*static_cast<Work*>(context))(); };
  for (std::size_t i = 0; i < runs.warm_up; i++) work();
  const std::uint64_t before = test::allocations();
  measured(run, &work, static_cast<int>(runs.counted));
  const std::uint64_t after = test::allocations();
  std::printf("%s %zu %llu\n", name.c_str(), operations * runs.counted,
              static_cast<unsigned long long>(after - before));
}

Buffer frames(ws::Opcode opcode, const Buffer& payload, std::size_t how_many, ws::MaskKey with = key) {
  const std::size_t frame = ws::frame_size(payload.size(), true);
  Buffer bytes(how_many * frame);
  for (std::size_t i = 0; i < how_many; i++) {
    ws::write_masked_frame(bytes.data() + i * frame, opcode, payload, with);
  }
  return bytes;
}

const bench::Script& ascii = bench::scripts[0];
const bench::Script& cjk = bench::scripts[2];

void count_masking() {
  for (const std::size_t size : {std::size_t{16}, std::size_t{125}, std::size_t{1024}, std::size_t{65536}}) {
    alignas(64) static std::array<std::uint8_t, 65536> memory;
    count("mask/" + std::to_string(size), 1, [size] {
      ws::mask_in_place(MutableBytes(memory).first(size), key);
      opaque(memory);
    });
  }
}

void count_utf8() {
  for (const std::size_t size : {std::size_t{125}, std::size_t{4096}}) {
    for (const bench::Script* script : {&ascii, &cjk}) {
      const Buffer text = bench::text_of(*script, size);
      count(std::string("utf8/") + script->name + "/" + std::to_string(size), 1, [&text] {
        opaque(text);
        require(ws::is_utf8(text));
      });
    }
  }
}

void count_decoding() {
  struct Case {
    const char* name;
    ws::Opcode opcode;
    const bench::Script& script;
    std::size_t size, count;
  };
  const Case cases[] = {{"binary/16", ws::Opcode::binary, ascii, 16, 64},
                        {"text/125", ws::Opcode::text, ascii, 125, 64},
                        {"text/1024", ws::Opcode::text, ascii, 1024, 8},
                        {"cjk/1024", ws::Opcode::text, cjk, 1024, 8},
                        {"binary/65536", ws::Opcode::binary, ascii, 65536, 1}};
  for (const Case& each : cases) {
    BlockPool blocks(1 << 20);
    const ws::DecoderOptions options;
    ws::Decoder decoder(options, blocks);
    // A key of zeros: the text is the same in every round.
    Buffer bytes = frames(each.opcode, bench::text_of(each.script, each.size), each.count, 0);
    count(std::string("decode/") + each.name, each.count, [&] {
      MutableBytes in = bytes;
      for (std::size_t i = 0; i < each.count; i++) {
        require(decoder.next(in).event == ws::DecoderEvent::message);
      }
      require(in.empty());
    });
  }
}

void count_encoding() {
  for (const std::size_t size : {std::size_t{16}, std::size_t{125}, std::size_t{1024}}) {
    const Buffer payload(size, 'a');
    Buffer out(ws::frame_size(size, true));
    count("encode/" + std::to_string(size), 1, [&] {
      opaque(payload);
      ws::write_frame(out.data(), ws::Opcode::binary, payload);
      opaque(out);
    });
  }
}

void count_upgrades() {
  ws::Upgrader upgrader({});
  std::array<std::uint8_t, 1024> out;
  count("upgrade", 1, [&] {
    ws::Upgrader::Progress progress;
    Bytes in = to_bytes(bench::browser_request);
    opaque(in);
    require(upgrader.feed(progress, in, out).state == ws::Upgrader::State::accepted);
  });
}

struct Echo {
  void on_message(ws::Connection& connection, ws::Opcode opcode, Bytes payload) {
    connection.send(opcode, payload);
  }
};

Fd null_device() {
  return Fd(open("/dev/null", O_RDWR | O_CLOEXEC));
}

// The engine without the kernel. An echo in place writes its header over the received one, which is laid out anew in
// each turn; a key of zeros leaves the payload as it is.
void count_echoes() {
  struct Case {
    const char* name;
    ws::Opcode opcode;
    std::size_t size, count;
  };
  for (const Case& each :
       {Case{"16x1", ws::Opcode::binary, 16, 1}, Case{"16x16", ws::Opcode::binary, 16, 16},
        Case{"text125x16", ws::Opcode::text, 125, 16}, Case{"4096x1", ws::Opcode::binary, 4096, 1},
        Case{"65536x1", ws::Opcode::binary, 65536, 1}}) {
    const Buffer original = frames(each.opcode, bench::text_of(ascii, each.size), each.count, 0);
    const std::size_t frame = ws::frame_size(each.size, true);
    const std::size_t header = ws::header_size_for(each.size, true);
    Buffer received = original;
    Echo echo;
    net::Reactor reactor({}, &bench::TakeAll::make, nullptr);
    auto& backend = static_cast<bench::TakeAll&>(reactor.backend());
    backend.input = received;
    ws::Service service(reactor, ws::Role::server, echo);
    ws::Connection* const connection = service.adopt_upgraded(null_device());
    count(std::string("echo/") + each.name, each.count, [&] {
      for (std::size_t at = 0; at < received.size(); at += frame) {
        std::copy_n(original.data() + at, header, received.data() + at);
      }
      reactor.run_once(0);
    });
    require(service.counters().messages_sent.value() == (Runs{}.warm_up + Runs{}.counted) * each.count);
    connection->terminate();
    backend.input = {};
    reactor.run_once(0);
  }
}

// Few runs, for these are long; they differ by where zlib moves its window only.
template <class Echoes>
void count_deflated(const std::string& name, std::size_t size, Echoes echoes) {
  const Runs runs{.warm_up = bench::deflated::warm_up_turns(size), .counted = 4};
  count(
      name, bench::deflated::message_count, [&echoes] { echoes.turn(); }, runs);
}

// Compressed echoes, and beside each what the library alone does with the same messages: bench/gate compares the two.
void count_deflated_echoes([[maybe_unused]] std::size_t size) {
  using namespace bench::deflated;
  [[maybe_unused]] const std::string bytes = std::to_string(size);
#ifdef LEVADA_BENCH_ZLIB
  for (const bool takeover : {false, true}) {
    const auto context = takeover ? ws::DeflateContext::dedicated : ws::DeflateContext::shared;
    const std::string name = (takeover ? "deflate/dedicated/" : "deflate/shared/") + bytes;
    count_deflated<LevadaEcho>(name, size, {size, context, false});
    count_deflated<ZlibEcho>(name + "/zlib", size, {size, takeover});
  }
#endif
#ifdef LEVADA_BENCH_LIBDEFLATE
  count_deflated<LevadaEcho>("deflate/final/" + bytes, size, {size, ws::DeflateContext::shared, true});
  count_deflated<LibdeflateEcho>("deflate/final/" + bytes + "/libdeflate", size, LibdeflateEcho(size));
#endif
}

int count_instructions() {
  count_masking();
  count_utf8();
  count_decoding();
  count_encoding();
  count_upgrades();
  count_echoes();
  for (const std::size_t size : bench::deflated::sizes) count_deflated_echoes(size);
  return 0;
}

// ---- System calls ----

constexpr std::size_t message_bytes = 16;

class Clients {
 public:
  Clients(ws::Service& service, std::size_t connections, std::size_t depth)
      : sent_(frames(ws::Opcode::binary, Buffer(message_bytes, 'a'), depth)), depth_(depth) {
    for (std::size_t i = 0; i < connections; i++) {
      int ends[2];
      require(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) == 0);
      fds_.emplace_back(ends[0]);
      require(service.adopt_upgraded(Fd(ends[1])) != nullptr);
    }
  }

  void announce() const {
    std::printf("client");
    for (const Fd& fd : fds_) std::printf(" %d", fd.get());
    std::printf("\n");
    std::fflush(stdout);
  }

  // Every client writes its messages, the reactor takes them in, and then the echoes of the round before are read: so
  // there is always something to receive when the reactor waits, as on a busy server, and how many turns it takes does
  // not depend on time.
  void round(net::Reactor& reactor, const ws::Service& service) {
    for (const Fd& fd : fds_) {
      require(write(fd.get(), sent_.data(), sent_.size()) == static_cast<ssize_t>(sent_.size()));
    }
    messages_ += fds_.size() * depth_;
    while (service.counters().messages_received.value() < messages_) run(reactor, 1000);
    if (rounds_++ > 0) read_echoes();
  }

  // After the last round.
  void finish(net::Reactor& reactor) {
    run(reactor, 0);
    read_echoes();
  }

  std::uint64_t allocations() const { return allocations_; }

 private:
  void run(net::Reactor& reactor, int timeout_ms) {
    const std::uint64_t before = test::allocations();
    reactor.run_once(timeout_ms);
    allocations_ += test::allocations() - before;
  }

  void read_echoes() {
    Buffer received(depth_ * ws::frame_size(message_bytes, false));
    for (const Fd& fd : fds_) {
      require(read(fd.get(), received.data(), received.size()) == static_cast<ssize_t>(received.size()));
    }
  }

  std::vector<Fd> fds_;
  Buffer sent_;
  std::size_t depth_;
  std::uint64_t messages_ = 0;
  int rounds_ = 0;
  std::uint64_t allocations_ = 0;
};

int run_echoes(std::string_view name, std::size_t connections, std::size_t depth, std::size_t warm_up,
               std::size_t rounds) {
  const bool uring = name == "io_uring";
  if (!uring && name != "epoll") fail("the backend is epoll or io_uring");
  if (uring && !net::io_uring_abilities().sufficient()) return 77;
  Echo echo;
  auto made = net::Reactor::create({.backend = uring ? net::BackendKind::io_uring : net::BackendKind::epoll});
  require(bool{made});
  net::Reactor& reactor = **made;
  ws::Service service(reactor, ws::Role::server, echo);
  {
    Clients clients(service, connections, depth);
    clients.announce();
    for (std::size_t i = 0; i < warm_up; i++) clients.round(reactor, service);
    const std::uint64_t before = clients.allocations();
    for (std::size_t i = 0; i < rounds; i++) clients.round(reactor, service);
    std::printf("messages %zu allocations %llu\n", rounds * connections * depth,
                static_cast<unsigned long long>(clients.allocations() - before));
    clients.finish(reactor);
  }
  reactor.close_all();
  return 0;
}

std::size_t number(const char* text) {
  char* end = nullptr;
  const unsigned long value = std::strtoul(text, &end, 10);
  if (*end != 0 || value == 0) fail("a number of 1 or more is needed");
  return value;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string_view what = argc > 1 ? argv[1] : "";
  if (what == "instructions" && argc == 2) return count_instructions();
  if (what == "echoes" && argc == 7) {
    return run_echoes(argv[2], number(argv[3]), number(argv[4]), number(argv[5]), number(argv[6]));
  }
  std::fputs("usage: gate_work instructions | echoes BACKEND CONNECTIONS DEPTH WARM_UP ROUNDS\n", stderr);
  return 2;
}
