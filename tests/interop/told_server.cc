// Sends each client the address that the server was told for it: told_server BACKEND PROXIES [CERT KEY]. PROXIES are
// those whose PROXY protocol header counts. Prints its URL first; ends on SIGTERM.
#include <cstdio>
#include <string>

#include <levada/tests/interop/support.h>
#include <levada/ws/server.h>

namespace levada::interop {
namespace {

struct Teller {
  void on_open(ws::Connection& connection) {
    auto address = connection.remote_address();
    connection.send_text(address ? address->to_string() : address.error().message());
  }
};

int run(const std::string& backend, const std::string& proxies, const net::TlsCertificate& certificate) {
  ws::ServerOptions options;
  options.reactor.backend = backend == "epoll" ? net::BackendKind::epoll : net::BackendKind::io_uring;
  options.service.trusted_proxies = proxies;
  if (!certificate.chain.empty()) {
    auto tls = net::TlsContext::create(net::TlsRole::server, {.certificates = {certificate}});
    if (!tls) return ws::report_failure(tls.error());
    options.service.tls = *tls;
  }
  ws::Server server(options);
  server.route("", [](int) { return Teller{}; });
  server.stop_on_signals(1000);
  if (const Error error = server.listen()) return ws::report_failure(error);
  std::printf("listening %s\n", server.url().c_str());
  std::fflush(stdout);
  if (const Error error = server.run()) return ws::report_failure(error);
  return 0;
}

}  // namespace
}  // namespace levada::interop

int main(int argc, char** argv) {
  using namespace levada;
  const std::string backend = argc > 1 ? argv[1] : "";
  if ((argc != 3 && argc != 5) || (backend != "epoll" && backend != "io_uring"))
    interop::give_up("usage: told_server epoll|io_uring PROXIES [CERT KEY]");
  net::TlsCertificate certificate;
  if (argc == 5) certificate = {.chain = {.file = argv[3]}, .key = {.file = argv[4]}};
  return interop::run(backend, argv[2], certificate);
}
