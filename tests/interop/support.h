// What the interop clients share: a reactor on the backend that the command line names, and a service in the client's
// role that dials the server of a URL. For programs of one thread; what cannot go on ends the program with status 2.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include <levada/net/reactor.h>
#include <levada/net/resolver.h>
#include <levada/ws/service.h>
#include <levada/ws/url.h>

namespace levada::interop {

[[noreturn]] inline void give_up(const std::string& why) {
  std::fprintf(stderr, "%s\n", why.c_str());
  std::exit(2);
}

// "epoll" or "io_uring", and that very one.
inline std::unique_ptr<net::Reactor> make_reactor(std::string_view backend) {
  const bool is_epoll = backend == "epoll";
  if (!is_epoll && backend != "io_uring") give_up("the backend must be epoll or io_uring");
  auto reactor =
      net::Reactor::create({.backend = is_epoll ? net::BackendKind::epoll : net::BackendKind::io_uring});
  if (!reactor) give_up(reactor.error().message());
  return std::move(*reactor);
}

// The server at ws://HOST:PORT or wss://HOST:PORT, whose CA has to be one of the system's (SSL_CERT_FILE names others);
// the path of the URL means nothing, dial() is given one.
class Server {
 public:
  explicit Server(std::string_view text) : text_(text) {
    if (const ws::UrlError error = ws::parse_url(text_, url_); error != ws::UrlError::none)
      give_up(ws::to_string(error));
    auto found = net::resolve_blocking(std::string(url_.authority.host), url_.port());
    if (!found) give_up(found.error().message());
    address_ = found->front();
    if (url_.scheme != ws::UrlScheme::wss) return;
    auto tls = net::TlsContext::create(net::TlsRole::client, {});
    if (!tls) give_up(tls.error().message());
    tls_ = std::move(*tls);
  }
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // on_open or on_refused of the service's handler tells.
  ws::Connection* dial(ws::Service& service, std::string_view path, void* user_data = nullptr) const {
    const std::string host_field(url_.host_field());
    const ws::DialOptions options{.host = host_field,
                                  .target = path,
                                  .fields = {},
                                  .user_data = user_data,
                                  .tls = tls_,
                                  .tls_host = url_.authority.host,
                                  .tls_port = url_.port()};
    ws::Connection* const connection = service.dial(address_, options);
    if (connection == nullptr) give_up(service.last_error().message());
    return connection;
  }

 private:
  std::string text_;
  ws::Url url_;  // views into text_
  net::Address address_;
  std::shared_ptr<net::TlsContext> tls_;
};

// One word: what a person, or a script, wants to know.
inline std::string to_word(const ws::Refusal& refusal) {
  return refusal.error ? to_string(refusal.error.code) : ws::to_string(refusal.failure);
}

inline const char* to_word(ws::ClosedBy by) {
  switch (by) {
    case ws::ClosedBy::peer:
      return "peer";
    case ws::ClosedBy::local:
      return "local";
    case ws::ClosedBy::transport:
      return "transport";
  }
  return "";
}

}  // namespace levada::interop
