#include <levada/ws/client.h>

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <utility>
#include <vector>

#include <levada/ws/proxy.h>
#include <levada/ws/proxy_tunnel.h>

namespace levada::ws {
namespace {

bool same_text(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](char x, char y) { return (x | 0x20) == (y | 0x20); });
}

bool is_redirect(unsigned status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

// A redirect's target as a WebSocket URL: "http:" stands for "ws:", and a path alone stays at the same server.
std::string redirect_target(std::string_view location, const Url& from) {
  std::string_view scheme, rest;
  if (split_scheme(location, scheme, rest)) {
    if (same_text(scheme, "http")) return "ws:" + std::string(rest);
    if (same_text(scheme, "https")) return "wss:" + std::string(rest);
    return std::string(location);
  }
  const std::string own = from.scheme == UrlScheme::wss ? "wss:" : "ws:";
  if (location.starts_with("//")) return own + std::string(location);
  if (!location.starts_with('/') || from.scheme == UrlScheme::ws_unix) return {};
  return own + "//" + std::string(from.authority.host_port) + std::string(location);
}

}  // namespace

// One dial, from its URL to its end.
class Dial {
 public:
  Dial(Client& client, std::uint64_t number, const DialRequest& request)
      : client_(client), number_(number), origin_(request.origin), user_data_(request.user_data) {
    for (const HttpField& field : request.fields) fields_.emplace_back(field.name, field.value);
    if (request.source != nullptr) source_ = *request.source;
    redirects_left_ = client.options_.max_redirects;
  }
  ~Dial() { stop(); }

  std::uint64_t number() const { return number_; }

  UrlError set_url(std::string_view text) {
    text_ = text;
    return parse_url(text_, url_);
  }

  bool is_secure() const { return url_.scheme == UrlScheme::wss; }

  void start() {
    deadline_ms_ = client_.reactor_.now_ms() + client_.options_.timeout_ms;
    go();
  }
  void stop();

  void opened() {
    attempt_ = 0;
    if (!client_.options_.reconnect.enabled) client_.forget(*this);
  }
  bool refused(const Refusal& refusal);
  void closed(const CloseInfo& info);

 private:
  std::uint32_t time_left() const {
    const auto left = static_cast<std::int32_t>(deadline_ms_ - client_.reactor_.now_ms());
    return left > 0 ? static_cast<std::uint32_t>(left) : 1;
  }
  void go();
  void resolve(std::string_view host, std::uint16_t port);
  void connect(std::span<const net::Address> addresses);
  void connected(net::ConnectOutcome& outcome);
  void fail(const Error& error, std::span<const net::ConnectAttempt> attempts = {});
  void fail_later(const Error& error) {
    step_ = client_.reactor_.after(0, [this, error] { fail(error); });
  }
  bool follow(const Refusal& refusal);
  void try_again();
  std::vector<HttpField> fields() const;

  Client& client_;
  std::uint64_t number_;
  std::string text_;
  Url url_;  // views into text_
  std::string origin_;
  FieldList fields_;
  std::optional<net::Address> source_;
  void* user_data_;
  unsigned redirects_left_ = 0;
  unsigned attempt_ = 0;
  std::uint32_t deadline_ms_ = 0;
  Proxy proxy_;
  SlotId step_;        // the query, the connector or the wait that is under way
  SlotId connection_;  // once there is one
};

void Dial::go() {
  if (url_.scheme == UrlScheme::ws_unix) {
    auto address = net::Address::unix_path(decode_percent(url_.socket_path));
    if (!address) return fail_later(address.error());
    return connect({&*address, 1});
  }
  const ClientOptions& options = client_.options_;
  const ProxyOptions proxy{.url = options.proxy_url,
                           .no_proxy = options.no_proxy,
                           .use_environment = options.proxy_from_environment};
  const ProxyChoice choice = choose_proxy(url_, proxy, process_environment, nullptr);
  if (const Error error = choice.why_not()) return fail_later(error);
  proxy_ = choice.proxy;
  if (proxy_.kind == ProxyKind::none) return resolve(url_.authority.host, url_.port());
  resolve(proxy_.authority.host, proxy_.port);
}

void Dial::resolve(std::string_view host, std::uint16_t port) {
  const auto done = [](void* self, const net::Resolution& resolution) {
    auto& dial = *static_cast<Dial*>(self);
    if (resolution.error) return dial.fail(resolution.error);
    dial.connect(resolution.addresses);
  };
  step_ = client_.resolver_.resolve(decode_percent(host), port, time_left(), done, this);
}

void Dial::connect(std::span<const net::Address> addresses) {
  const net::ConnectOptions options{.attempt_delay_ms = client_.options_.attempt_delay_ms,
                                    .timeout_ms = time_left(),
                                    .source = source_ ? &*source_ : nullptr};
  const auto done = [](void* self, net::ConnectOutcome& outcome) {
    static_cast<Dial*>(self)->connected(outcome);
  };
  step_ = net::connect_first(client_.reactor_, addresses, options, done, this);
}

void Dial::connected(net::ConnectOutcome& outcome) {
  if (outcome.error) return fail(outcome.error, outcome.attempts);
  const std::string host = decode_percent(url_.authority.host);
  std::unique_ptr<ProxyTunnel> tunnel;
  if (proxy_.kind != ProxyKind::none) {
    tunnel = ProxyTunnel::make(proxy_, host, url_.port());
    if (tunnel == nullptr) return fail({Errc::invalid_argument, "proxy"});
  }
  const std::string target = url_.request_target();
  const std::vector<HttpField> views = fields();
  const DialOptions options{.host = url_.host_field(),
                            .target = target,
                            .origin = origin_,
                            .fields = views,
                            .user_data = user_data_,
                            .tls = is_secure() ? client_.tls_ : nullptr,
                            .tls_host = host,
                            .tls_port = url_.port(),
                            .timeout_ms = time_left()};
  Connection* connection = client_.service_.dial_on(std::move(outcome.fd), options, std::move(tunnel));
  if (connection == nullptr) return fail(client_.service_.last_error());
  if (connection->closed()) return client_.forget(*this);  // it was refused already, before anything was sent
  connection_ = connection->id();
  client_.connections_.emplace(connection_.packed(), this);
}

std::vector<HttpField> Dial::fields() const {
  std::vector<HttpField> views;
  for (const auto& [name, value] : fields_) views.push_back({name, value});
  return views;
}

// No connection: again later, or the end.
void Dial::fail(const Error& error, std::span<const net::ConnectAttempt> attempts) {
  if (client_.options_.reconnect.enabled) return try_again();
  const auto self = client_.dials_.extract(number_);  // before the handler, which may dial and cancel
  client_.report(
      {.dial = number_, .url = text_, .user_data = user_data_, .error = error, .attempts = attempts});
}

// Returns whether that is the end of it.
bool Dial::refused(const Refusal& refusal) {
  client_.connections_.erase(connection_.packed());
  connection_ = {};
  if (follow(refusal)) return false;
  const ReconnectOptions& reconnect = client_.options_.reconnect;
  const bool canceled = refusal.error.code == Errc::canceled;
  const bool answered = refusal.response != nullptr || refusal.failure != UpgradeFailure::none;
  if (reconnect.enabled && !canceled && (!answered || reconnect.after_refusal)) {
    try_again();
    return false;
  }
  client_.forget(*this);
  return true;
}

bool Dial::follow(const Refusal& refusal) {
  if (redirects_left_ == 0 || refusal.response == nullptr || !is_redirect(refusal.response->status()))
    return false;
  const std::string target = redirect_target(refusal.response->find("Location"), url_);
  Url to;
  if (parse_url(target, to) != UrlError::none || to.scheme == UrlScheme::ws_unix) return false;
  if (is_secure() && to.scheme != UrlScheme::wss) return false;
  if (to.scheme == UrlScheme::wss && client_.need_tls()) return false;
  const bool same_server = same_text(to.authority.host, url_.authority.host) && to.port() == url_.port();
  if (!same_server) {
    std::erase_if(fields_, [](const auto& field) {
      return same_text(field.first, "Authorization") || same_text(field.first, "Cookie");
    });
  }
  redirects_left_--;
  set_url(target);
  go();
  return true;
}

void Dial::closed(const CloseInfo& info) {
  client_.connections_.erase(connection_.packed());
  connection_ = {};
  const bool by_us = info.by == ClosedBy::local && !info.error;
  if (by_us || !client_.options_.reconnect.enabled) return client_.forget(*this);
  try_again();
}

void Dial::try_again() {
  const ReconnectOptions& options = client_.options_.reconnect;
  std::uint64_t delay = std::uint64_t{options.min_delay_ms} << std::min(attempt_++, 20u);
  delay = std::max<std::uint64_t>(std::min<std::uint64_t>(delay, options.max_delay_ms), 1);
  delay -= client_.reactor_.random().next_u32() % (delay / 2 + 1);
  step_ = client_.reactor_.after(static_cast<std::uint32_t>(delay), [this] { start(); });
}

void Dial::stop() {
  if (client_.reactor_ref_.get() == nullptr) return;  // all of it is gone
  client_.resolver_.cancel(std::exchange(step_, {}));
  if (connection_ == SlotId{}) return;
  client_.connections_.erase(connection_.packed());
  auto* connection = static_cast<Connection*>(client_.reactor_.find(connection_));
  if (connection != nullptr && !connection->is_open()) connection->terminate();
}

// ---- Client ----

Client::Client(net::Reactor& reactor, void* handler, const HandlerTable& table, ClientOptions options)
    : reactor_(reactor),
      reactor_ref_(reactor.ref()),
      handler_(handler),
      table_(table),
      options_(std::move(options)),
      service_(reactor, Role::client, handler, table, options_.service),
      resolver_(reactor, options_.resolver) {
  service_.observe_dials(this);
}

Client::~Client() {
  dials_.clear();  // while all that they refer to is there
  service_.observe_dials(nullptr);
}

Result<std::uint64_t> Client::dial(const DialRequest& request) {
  auto dial = std::make_unique<Dial>(*this, ++last_number_, request);
  url_error_ = dial->set_url(request.url);
  if (url_error_ != UrlError::none) return Error{Errc::invalid_argument, "dial"};
  if (dial->is_secure()) {
    if (const Error error = need_tls()) return error;
  }
  const std::uint64_t number = dial->number();
  dials_.emplace(number, std::move(dial)).first->second->start();
  return number;
}

Error Client::need_tls() {
  return tls_ == nullptr ? set_tls(options_.tls) : Error{};
}

Error Client::set_tls(const net::TlsOptions& options) {
  if (tls_ != nullptr) return tls_->replace(options);
  auto context = net::TlsContext::create(net::TlsRole::client, options);
  if (!context) return context.error();
  tls_ = std::move(*context);
  return {};
}

void Client::cancel(std::uint64_t dial) {
  dials_.erase(dial);
}

void Client::forget(Dial& dial) {
  dials_.erase(dial.number());
}

Dial* Client::find(const Connection& connection) {
  const auto found = connections_.find(connection.id().packed());
  return found == connections_.end() ? nullptr : found->second;
}

void Client::opened(Connection& connection) {
  if (Dial* dial = find(connection)) dial->opened();
}

bool Client::refused(Connection& connection, const Refusal& refusal) {
  Dial* dial = find(connection);
  return dial == nullptr || dial->refused(refusal);
}

void Client::closed(Connection& connection, const CloseInfo& info) {
  if (Dial* dial = find(connection)) dial->closed(info);
}

void Client::report(const Unreachable& unreachable) {
  if (table_.unreachable != nullptr) table_.unreachable(handler_, unreachable);
}

}  // namespace levada::ws
