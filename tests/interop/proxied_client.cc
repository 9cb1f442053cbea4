// A client that reaches an echo server through a proxy: proxied_client BACKEND URL PROXY [refused]. Prints "ok NAME" or
// "FAILED NAME WHY" for each check, and "N passed, N failed" at the end. With "refused" the proxy has to want a login.
#include <array>
#include <string>
#include <vector>

#include <levada/tests/interop/support.h>
#include <levada/ws/client.h>

namespace levada::interop {
namespace {

struct Handler {
  void on_open(ws::Connection& connection) {
    outcome = "open";
    send_next(connection);
  }
  void on_message(ws::Connection& connection, ws::Opcode, Bytes payload) {
    results.push_back(to_text(payload) == message() ? "" : "another payload");
    if (results.size() == sizes.size()) return connection.close();
    send_next(connection);
  }
  void on_close(ws::Connection&, const ws::CloseInfo& info) {
    closed = std::to_string(ws::number(info.code)) + " " + to_string(info.error.code);
    over = true;
  }
  void on_refused(ws::Connection&, const ws::Refusal& refusal) {
    outcome = refusal.error.message() + " " + std::to_string(refusal.proxy_status);
    over = true;
  }
  void on_unreachable(const ws::Unreachable& unreachable) {
    outcome = unreachable.error.message();
    over = true;
  }

  std::string message() const { return std::string(sizes[results.size()], 'm'); }
  void send_next(ws::Connection& connection) { connection.send(ws::Opcode::binary, to_bytes(message())); }

  static constexpr std::array<std::size_t, 6> sizes = {0, 1, 126, 16'384, 65'536, 4'000'000};
  std::vector<std::string> results;
  std::string outcome, closed;
  bool over = false;
};

int passed = 0, failed = 0;

void report(const std::string& name, const std::string& got, const std::string& wanted) {
  const bool right = got == wanted;
  (right ? passed : failed)++;
  std::printf(right ? "ok %s\n" : "FAILED %s: %s\n", name.c_str(), got.c_str());
}

int run(std::string_view backend, std::string_view url, const std::string& proxy, bool refused) {
  const auto reactor = make_reactor(backend);
  Handler handler;
  ws::Client client(*reactor, handler, {.timeout_ms = 20'000, .proxy_url = proxy});
  const auto dial = client.dial({.url = url});
  if (!dial) give_up(dial.error().message());
  while (!handler.over) reactor->run_once(1000);
  reactor->close_all();
  if (refused) {
    const bool socks = proxy.starts_with("socks5");
    const std::string why = socks ? handler.outcome.substr(0, 6) : handler.outcome;
    report("the proxy wants a login", why, socks ? "SOCKS5" : "CONNECT: permission_denied 407");
  } else {
    report("the handshake", handler.outcome, "open");
    for (std::size_t i = 0; i < handler.results.size(); i++)
      report("echo of " + std::to_string(Handler::sizes[i]) + " bytes", handler.results[i], "");
    report("the close", handler.closed, "1000 none");
  }
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

}  // namespace
}  // namespace levada::interop

int main(int argc, char** argv) {
  using levada::interop::give_up;
  if (argc != 4 && argc != 5) give_up("usage: proxied_client epoll|io_uring URL PROXY [refused]");
  return levada::interop::run(argv[1], argv[2], argv[3], argc == 5);
}
