// ProxyTunnel: how a client's connection gets through a proxy, before anything of its own is sent. Without I/O.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include <levada/core/bytes.h>
#include <levada/core/error.h>
#include <levada/ws/proxy.h>

namespace levada::ws {

// One connection's. One thread.
class ProxyTunnel {
 public:
  enum class State : std::uint8_t {
    negotiating,  // send what output() says, give what comes to feed()
    open,         // what is left of the input comes from the destination
    failed,       // error() tells why
  };

  // Through `proxy` to a host (a name, or an address without brackets) and port, by CONNECT or SOCKS5. nullptr when the
  // proxy is of another kind, or host or credentials cannot be written. Copies.
  static std::unique_ptr<ProxyTunnel> make(const Proxy& proxy, std::string_view host, std::uint16_t port);

  virtual ~ProxyTunnel() = default;

  // What has to be sent now; empty if nothing. The view lives until the next call.
  virtual Bytes output() = 0;
  // Takes the proxy's answer off the front of `in`.
  virtual State feed(Bytes& in) = 0;
  // When failed: permission_denied (the proxy wants a login, or another one), unreachable, connection_refused, ...
  virtual Error error() const = 0;
  // The proxy's HTTP status when it was one that refused, else 0.
  virtual unsigned http_status() const { return 0; }
};

}  // namespace levada::ws
