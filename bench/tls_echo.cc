// Echoes with and without TLS, beside the cipher alone, and handshakes with and without resumption:
//
//   tls_echo epoll|io_uring [SECONDS [ROUNDS]]
//
// Model: the server's reactor has a thread of its own, whose CPU clock is read around each measurement; levada's client
// role runs on the main thread. ws, wss and the rest take turns, and what is printed, as JSON, is [median, lowest,
// highest], also of the ratio within a turn: echoes (or connections, which are closed again) per CPU-second of the server.
// "cipher" is AES-256-GCM, what TLS needs for one echo: one record decrypted, one encrypted, with OpenSSL and nothing
// else. bench/tls makes a table of it.
#include <openssl/evp.h>
#include <pthread.h>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include <levada/core/clock.h>
#include <levada/tests/support/certificates.h>
#include <levada/ws/client.h>

namespace levada::bench {
namespace {

constexpr int connections = 50;

double seconds_of(clockid_t clock) {
  timespec now{};
  clock_gettime(clock, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) / 1e9;
}

struct Echo {
  void on_message(ws::Connection& connection, ws::Opcode opcode, Bytes payload) {
    connection.send(opcode, payload);
  }
};

std::unique_ptr<net::Reactor> make_reactor(net::BackendKind kind) {
  auto reactor = net::Reactor::create({.backend = kind});
  if (reactor) return std::move(*reactor);
  std::fprintf(stderr, "%s\n", reactor.error().message().c_str());
  std::exit(2);
}

// An echo server on its own thread.
class Server {
 public:
  Server(net::BackendKind kind, std::shared_ptr<net::TlsContext> tls)
      : reactor_(make_reactor(kind)), service_(*reactor_, ws::Role::server, echo_, {.tls = std::move(tls)}) {
    Fd fd = std::move(*net::listen_stream(*net::Address::ip("127.0.0.1", 0)));
    port_ = net::Address::of_socket(fd.get())->port();
    if (service_.listen(std::move(fd))) std::exit(2);
    thread_ = std::thread([this] { reactor_->run(); });
    pthread_getcpuclockid(thread_.native_handle(), &clock_);
  }
  ~Server() {
    reactor_->stop();
    thread_.join();
    reactor_.reset();  // before the service that its connections belong to
  }
  std::uint16_t port() const { return port_; }
  double cpu_seconds() const { return seconds_of(clock_); }

 private:
  Echo echo_;
  std::unique_ptr<net::Reactor> reactor_;
  ws::Service service_;
  std::uint16_t port_ = 0;
  std::thread thread_;
  clockid_t clock_{};
};

// The client role: keeps one message under way on each connection, or connects over and over.
struct Driver {
  void on_open(ws::Connection& connection) {
    open.push_back(connection.handle());
    resumed += connection.tls() != nullptr && connection.tls()->resumed();
    if (reconnecting) connection.close();
  }
  void on_message(ws::Connection& connection, ws::Opcode opcode, Bytes payload) {
    echoes++;
    if (running) connection.send(opcode, payload);
  }
  void on_close(ws::Connection&, const ws::CloseInfo&) { closed++; }
  void on_refused(ws::Connection&, const ws::Refusal& refusal) {
    std::fprintf(stderr, "%s\n", refusal.error.message().c_str());
    std::exit(2);
  }

  std::vector<ws::Handle> open;
  std::uint64_t echoes = 0, resumed = 0, closed = 0;
  bool running = false, reconnecting = false;
};

class Run {
 public:
  Run(net::BackendKind kind, const test::Authority& ca, bool tls, bool resumption = true)
      : server_(kind, tls ? server_context(ca, resumption) : nullptr),
        reactor_(make_reactor(kind)),
        client_(*reactor_, driver_,
                {.proxy_from_environment = false, .tls = {.ca = ca.pem(), .resumption = resumption}}),
        url_((tls ? "wss://localhost:" : "ws://localhost:") + std::to_string(server_.port())) {}
  ~Run() { reactor_->close_all(); }

  void connect() {
    for (int i = 0; i < connections; i++) dial();
    while (driver_.open.size() < connections) reactor_->run_once(10);
  }

  // Echoes per CPU-second of the server.
  double echo(std::size_t size, double seconds) {
    const std::string message(size, 'x');
    driver_.running = true;
    for (const ws::Handle& handle : driver_.open) handle.get()->send(ws::Opcode::binary, to_bytes(message));
    turn_for(seconds / 5);  // to warm up
    const std::uint64_t before = driver_.echoes;
    const double cpu = server_.cpu_seconds();
    turn_for(seconds);
    const double rate = static_cast<double>(driver_.echoes - before) / (server_.cpu_seconds() - cpu);
    driver_.running = false;
    turn_for(0.05);  // what is on its way comes back
    return rate;
  }

  // Connections, each closed again, per CPU-second of the server.
  double handshakes(double seconds) {
    driver_.reconnecting = true;
    const double cpu = server_.cpu_seconds();
    const double until = seconds_of(CLOCK_MONOTONIC) + seconds;
    std::uint64_t dialled = 0;
    while (seconds_of(CLOCK_MONOTONIC) < until) {
      dial();
      dialled++;
      while (driver_.closed < dialled) reactor_->run_once(10);
    }
    return static_cast<double>(dialled) / (server_.cpu_seconds() - cpu);
  }
  double share_resumed() const {
    return static_cast<double>(driver_.resumed) / static_cast<double>(driver_.open.size());
  }

 private:
  static std::shared_ptr<net::TlsContext> server_context(const test::Authority& ca, bool resumption) {
    const net::TlsOptions options{.certificates = {ca.issue().tls()}, .resumption = resumption};
    return std::move(*net::TlsContext::create(net::TlsRole::server, options));
  }
  void dial() {
    if (!client_.dial({.url = url_})) std::exit(2);
  }
  void turn_for(double seconds) {
    const double until = seconds_of(CLOCK_MONOTONIC) + seconds;
    while (seconds_of(CLOCK_MONOTONIC) < until) reactor_->run_once(10);
  }

  Server server_;
  Driver driver_;
  std::unique_ptr<net::Reactor> reactor_;
  ws::Client client_;
  std::string url_;
};

// Records that were decrypted and encrypted, per CPU-second of this thread.
double cipher(std::size_t size, double seconds) {
  const std::uint8_t key[32] = {1}, nonce[12] = {};
  std::vector<std::uint8_t> in(size), out(size + 32);
  std::uint8_t tag[16];
  EVP_CIPHER_CTX* const context = EVP_CIPHER_CTX_new();
  const auto pass = [&](int encrypt) {
    for (std::size_t at = 0; at < size; at += net::tls_record_bytes) {
      const int part = static_cast<int>(std::min(net::tls_record_bytes, size - at));
      int done = 0;
      EVP_CipherInit_ex(context, nullptr, nullptr, nullptr, nonce, encrypt);
      EVP_CipherUpdate(context, out.data(), &done, in.data() + at, part);
      if (encrypt == 1) {
        EVP_CipherFinal_ex(context, out.data() + done, &done);
        EVP_CIPHER_CTX_ctrl(context, EVP_CTRL_AEAD_GET_TAG, sizeof tag, tag);
      }
    }
  };
  EVP_CipherInit_ex(context, EVP_aes_256_gcm(), nullptr, key, nonce, 1);
  std::uint64_t count = 0;
  const double begin = seconds_of(CLOCK_THREAD_CPUTIME_ID);
  double now = begin;
  while ((now = seconds_of(CLOCK_THREAD_CPUTIME_ID)) < begin + seconds) {
    for (int i = 0; i < 16; i++, count++) {
      pass(0);
      pass(1);
    }
  }
  EVP_CIPHER_CTX_free(context);
  return static_cast<double>(count) / (now - begin);
}

// 0 where a turn was too short for a single one.
void print(const char* name, std::vector<double> values, const char* behind = ", ") {
  for (double& value : values)
    if (!std::isfinite(value)) value = 0;
  std::ranges::sort(values);
  std::printf("\"%s\": [%.6g, %.6g, %.6g]%s", name, values[values.size() / 2], values.front(), values.back(),
              behind);
}

void print_echoes(Run& plain, Run& secure, std::size_t size, double seconds, int rounds) {
  std::vector<double> ws, wss, ratio, alone;
  for (int i = 0; i < rounds; i++) {
    ws.push_back(plain.echo(size, seconds));
    wss.push_back(secure.echo(size, seconds));
    ratio.push_back(wss.back() / ws.back());
    alone.push_back(cipher(size, seconds / 4));
  }
  std::printf("{\"payload\": %zu, ", size);
  print("ws", ws);
  print("wss", wss);
  print("ratio", ratio);
  print("cipher", alone, "}");
}

void print_handshakes(net::BackendKind kind, const test::Authority& ca, double seconds, int rounds) {
  std::vector<double> plain, full, resumed, share;
  for (int i = 0; i < rounds; i++) {
    plain.push_back(Run(kind, ca, false).handshakes(seconds));
    full.push_back(Run(kind, ca, true, false).handshakes(seconds));
    Run resuming(kind, ca, true, true);
    resumed.push_back(resuming.handshakes(seconds));
    share.push_back(resuming.share_resumed());
  }
  print("ws", plain);
  print("full", full);
  print("resumed", resumed);
  print("share_resumed", share, "");
}

int run(net::BackendKind kind, double seconds, int rounds) {
  const test::Authority ca;
  std::printf("{\"echoes\": [");
  {
    Run plain(kind, ca, false), secure(kind, ca, true);
    plain.connect();
    secure.connect();
    for (const std::size_t size : {16u, 512u, 4096u, 65536u, 1048576u}) {
      if (size != 16u) std::printf(", ");
      print_echoes(plain, secure, size, seconds, rounds);
    }
  }
  std::printf("], \"connections\": {");
  print_handshakes(kind, ca, seconds, rounds);
  std::puts("}}");
  return 0;
}

}  // namespace
}  // namespace levada::bench

int main(int argc, char** argv) {
  const std::string backend = argc > 1 ? argv[1] : "";
  if (backend != "epoll" && backend != "io_uring") {
    std::fprintf(stderr, "usage: tls_echo epoll|io_uring [SECONDS [ROUNDS]]\n");
    return 2;
  }
  using levada::net::BackendKind;
  return levada::bench::run(backend == "epoll" ? BackendKind::epoll : BackendKind::io_uring,
                            argc > 2 ? std::atof(argv[2]) : 1.0, argc > 3 ? std::atoi(argv[3]) : 5);
}
