#include <levada/ws/proxy_tunnel.h>

#include <algorithm>
#include <utility>

#include <levada/net/socks5.h>
#include <levada/ws/http.h>

namespace levada::ws {
namespace {

class SocksTunnel final : public ProxyTunnel {
 public:
  explicit SocksTunnel(const net::Socks5Target& target) : client_(target) {}

  bool is_writable() const { return client_.state() != net::Socks5Client::State::failed; }

  Bytes output() override {
    const Bytes bytes = client_.output();
    client_.sent(bytes.size());
    return bytes;
  }
  State feed(Bytes& in) override {
    switch (client_.feed(in)) {
      case net::Socks5Client::State::negotiating:
        return State::negotiating;
      case net::Socks5Client::State::connected:
        return State::open;
      case net::Socks5Client::State::failed:
        break;
    }
    return State::failed;
  }
  Error error() const override { return net::to_error(client_.error()); }

 private:
  net::Socks5Client client_;
};

class ConnectTunnel final : public ProxyTunnel {
 public:
  explicit ConnectTunnel(std::string request) : request_(std::move(request)) {}

  Bytes output() override {
    sent_ = std::exchange(request_, {});
    return to_bytes(sent_);
  }

  State feed(Bytes& in) override {
    State state = State::negotiating;
    while (!in.empty() && state == State::negotiating) state = take_response(in);
    return state;
  }
  Error error() const override { return error_; }
  unsigned http_status() const override { return error_ ? status_ : 0; }

 private:
  // A response, or all of `in` as a part of one.
  State take_response(Bytes& in) {
    const std::size_t before = head_.size();
    head_.append(to_text(in));
    const ParseResult parsed = response_.parse(to_bytes(head_), {});
    in = in.subspan(parsed.state == ParseState::complete ? parsed.consumed - before : in.size());
    if (parsed.state == ParseState::incomplete) return State::negotiating;
    if (parsed.state == ParseState::invalid) return fail({Errc::protocol, "CONNECT"});
    status_ = response_.status();
    head_.clear();
    switch (check_connect_response(response_)) {
      case ConnectAnswer::tunnel:
        return State::open;
      case ConnectAnswer::interim:
        return ++interims_ < max_interims ? State::negotiating : fail({Errc::protocol, "CONNECT"});
      case ConnectAnswer::authentication_required:
        return fail({Errc::permission_denied, "CONNECT"});
      case ConnectAnswer::refused:
        break;
    }
    return fail({Errc::connection_refused, "CONNECT"});
  }
  State fail(const Error& error) {
    error_ = error;
    return State::failed;
  }

  static constexpr int max_interims = 8;

  int interims_ = 0;
  std::string request_;
  std::string sent_;
  std::string head_;  // of the response, at most HttpLimits::max_bytes
  HttpResponse response_;
  unsigned status_ = 0;
  Error error_;
};

std::unique_ptr<ProxyTunnel> make_socks(const Proxy& proxy, std::string_view host, std::uint16_t port) {
  const std::string user = decode_percent(proxy.authority.user);
  const std::string password = decode_percent(proxy.authority.password);
  auto tunnel = std::make_unique<SocksTunnel>(
      net::Socks5Target{.host = host, .port = port, .user = user, .password = password});
  if (!tunnel->is_writable()) return nullptr;
  return tunnel;
}

std::unique_ptr<ProxyTunnel> make_connect(const Proxy& proxy, std::string_view host, std::uint16_t port) {
  const std::string credentials = proxy.authority.has_user_info
                                      ? basic_credentials(proxy.authority.user, proxy.authority.password)
                                      : std::string{};
  if (proxy.authority.has_user_info && credentials.empty()) return nullptr;
  const ConnectRequest request{.host = host, .port = port, .authorization = credentials, .fields = {}};
  std::string text(connect_request_size(request), '\0');
  if (text.empty()) return nullptr;
  write_connect_request({reinterpret_cast<std::uint8_t*>(text.data()), text.size()}, request);
  return std::make_unique<ConnectTunnel>(std::move(text));
}

}  // namespace

std::unique_ptr<ProxyTunnel> ProxyTunnel::make(const Proxy& proxy, std::string_view host,
                                               std::uint16_t port) {
  switch (proxy.kind) {
    case ProxyKind::http:
      return make_connect(proxy, host, port);
    case ProxyKind::socks5:
      return make_socks(proxy, host, port);
    case ProxyKind::https:
    case ProxyKind::none:
      break;
  }
  return nullptr;
}

}  // namespace levada::ws
