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

bool is_redirect(unsigned status) {
  return status == 301 || status == 302 || status == 303 || status == 307 || status == 308;
}

// A redirect's target as a WebSocket URL: "http:" stands for "ws:".
std::string redirect_target(std::string_view location, const Url& from) {
  location = location.substr(0, location.find('#'));  // of no use to a WebSocket
  std::string_view scheme, rest;
  if (!split_scheme(location, scheme, rest)) return resolve_reference(from, location);
  if (equals_ignore_case(scheme, "http")) return "ws:" + std::string(rest);
  if (equals_ignore_case(scheme, "https")) return "wss:" + std::string(rest);
  return std::string(location);
}

// Another attempt would come to the same.
bool is_permanent(Errc code) {
  return code == Errc::invalid_argument || code == Errc::not_supported || code == Errc::permission_denied ||
         code == Errc::certificate_refused;
}

}  // namespace

// One dial, from its URL to its end.
class Dial {
 public:
  Dial(Client& client, std::uint64_t number, const DialRequest& request)
      : client_(client), number_(number), origin_(request.origin), user_data_(request.user_data) {
    for (const HttpField& field : request.fields) first_fields_.emplace_back(field.name, field.value);
    if (request.source != nullptr) source_ = *request.source;
  }
  ~Dial() { stop(); }

  std::uint64_t number() const { return number_; }

  // Errors: invalid_argument; then `url_error` tells if it was the URL.
  Error prepare(std::string_view url, UrlError& url_error);
  bool is_secure() const { return url_.scheme == UrlScheme::wss; }
  // Whether the reactor still has what it waits for, after close_all() or at its end.
  bool is_alive() const {
    net::Reactor* const reactor = client_.reactor_ref_.get();
    return reactor != nullptr && (reactor->find(step_) != nullptr || reactor->find(connection_) != nullptr);
  }

  void start() {
    (void)set_url(first_url_);
    fields_ = first_fields_;
    redirects_left_ = client_.options_.max_redirects;
    deadline_ms_ = client_.reactor_.now_ms() + client_.options_.timeout_ms;
    go();
  }
  void stop();

  void made(const Connection& connection) {
    connection_ = connection.id();
    client_.connections_.emplace(connection_.packed(), this);
  }
  bool follows(const HttpResponse& response) const {
    Url to;
    return !next_url(response, to).empty();
  }
  void opened() {
    attempt_ = 0;
    was_open_ = true;
    if (!client_.options_.reconnect.enabled) client_.forget(*this);
  }
  bool refused(const Refusal& refusal);
  void closed(const CloseInfo& info);

 private:
  UrlError set_url(std::string_view text) {
    text_ = text;
    return parse_url(text_, url_, UserInfo::take);
  }
  // Milliseconds, at least 1; 0: no limit.
  std::uint32_t time_left() const {
    if (client_.options_.timeout_ms == 0) return 0;
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
  bool retries(Errc code) const { return client_.options_.reconnect.enabled && !is_permanent(code); }
  std::string next_url(const HttpResponse& response, Url& to) const;
  bool follow(const HttpResponse& response);
  void try_again(const Error& error, unsigned status = 0);
  static std::vector<HttpField> views_of(const FieldList& fields);

  Client& client_;
  std::uint64_t number_;
  std::string first_url_;  // what was asked for; a redirect goes from there to text_ and fields_
  FieldList first_fields_;
  std::string text_;
  Url url_;  // views into text_
  std::string origin_;
  FieldList fields_;
  std::optional<net::Address> source_;
  void* user_data_;
  unsigned redirects_left_ = 0;
  unsigned attempt_ = 0;   // how many delays there were since the last success
  bool was_open_ = false;  // then the first of them follows a loss
  std::uint32_t deadline_ms_ = 0;
  Proxy proxy_;
  SlotId step_;        // the query, the connector or the wait that is under way
  SlotId connection_;  // once there is one
};

Error Dial::prepare(std::string_view url, UrlError& url_error) {
  const Error bad{Errc::invalid_argument, "dial"};
  first_url_ = url;
  url_error = set_url(first_url_);
  if (url_error != UrlError::none) return bad;
  if (url_.authority.has_user_info) {
    std::string credentials = basic_credentials(url_.authority.user, url_.authority.password);
    if (credentials.empty()) return bad;
    first_fields_.emplace_back("Authorization", std::move(credentials));
  }
  const std::string target = url_.request_target();
  const std::vector<HttpField> views = views_of(first_fields_);
  return client_.service_.check(
      {.host = url_.host_field(), .target = target, .origin = origin_, .fields = views});
}

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
  const std::vector<HttpField> views = views_of(fields_);
  const std::uint32_t timeout_ms = time_left();
  const DialOptions options{.host = url_.host_field(),
                            .target = target,
                            .origin = origin_,
                            .fields = views,
                            .user_data = user_data_,
                            .tls = is_secure() ? client_.tls_ : nullptr,
                            .tls_host = host,
                            .tls_port = url_.port(),
                            .timeout_ms = timeout_ms == 0 ? DialOptions::no_timeout : timeout_ms};
  Client& client = client_;
  client.connecting_ = this;
  // It calls the handler, which may cancel: made() comes before that, and this dial may be gone afterwards.
  Connection* connection = client_.service_.dial_on(std::move(outcome.fd), options, std::move(tunnel));
  client.connecting_ = nullptr;
  if (connection == nullptr) fail(client.service_.last_error());
}

std::vector<HttpField> Dial::views_of(const FieldList& fields) {
  std::vector<HttpField> views;
  for (const auto& [name, value] : fields) views.push_back({name, value});
  return views;
}

// No connection: again later, or the end.
void Dial::fail(const Error& error, std::span<const net::ConnectAttempt> attempts) {
  if (retries(error.code)) return try_again(error);
  const auto self = client_.dials_.extract(number_);  // before the handler, which may dial and cancel
  client_.report(
      {.dial = number_, .url = text_, .user_data = user_data_, .error = error, .attempts = attempts});
}

// Returns whether that is the end of it.
bool Dial::refused(const Refusal& refusal) {
  client_.connections_.erase(connection_.packed());
  connection_ = {};
  const HttpResponse* const response = refusal.response;
  if (response != nullptr && follow(*response)) return false;
  const bool canceled = refusal.error.code == Errc::canceled;
  const bool answered = response != nullptr || refusal.failure != UpgradeFailure::none;
  const bool wanted = !answered || client_.options_.reconnect.after_refusal;
  if (!canceled && wanted && retries(refusal.error.code)) {
    try_again(refusal.error, response == nullptr ? 0 : response->status());
    return false;
  }
  client_.forget(*this);
  return true;
}

// Where a redirect leads, if it may be followed; else nothing. `to` has views into the result.
std::string Dial::next_url(const HttpResponse& response, Url& to) const {
  if (redirects_left_ == 0 || !is_redirect(response.status())) return {};
  std::string target = redirect_target(response.find("Location"), url_);
  if (parse_url(target, to) != UrlError::none || to.scheme == UrlScheme::ws_unix) return {};
  if (is_secure() && to.scheme != UrlScheme::wss) return {};
  return target;
}

bool Dial::follow(const HttpResponse& response) {
  Url to;
  const std::string target = next_url(response, to);
  if (target.empty() || (to.scheme == UrlScheme::wss && client_.need_tls())) return false;
  const bool same_server =
      equals_ignore_case(to.authority.host, url_.authority.host) && to.port() == url_.port();
  if (!same_server) {
    std::erase_if(fields_, [](const auto& field) {
      return equals_ignore_case(field.first, "Authorization") || equals_ignore_case(field.first, "Cookie");
    });
  }
  redirects_left_--;
  (void)set_url(target);
  go();
  return true;
}

void Dial::closed(const CloseInfo& info) {
  client_.connections_.erase(connection_.packed());
  connection_ = {};
  const bool by_us = info.by == ClosedBy::local && (!info.error || info.error.code == Errc::canceled);
  if (by_us || !client_.options_.reconnect.enabled) return client_.forget(*this);
  try_again(info.error);
}

void Dial::try_again(const Error& error, unsigned status) {
  const ReconnectOptions& options = client_.options_.reconnect;
  std::uint64_t delay = std::uint64_t{options.min_delay_ms} << std::min(attempt_, 20u);
  delay = std::max<std::uint64_t>(std::min<std::uint64_t>(delay, options.max_delay_ms), 1);
  delay -= client_.reactor_.random().next_u32() % (delay / 2 + 1);
  const auto delay_ms = static_cast<std::uint32_t>(delay);
  step_ = client_.reactor_.after(delay_ms, [this] { start(); });
  attempt_++;
  if (client_.table_.retry == nullptr) return;
  const unsigned failed = attempt_ - (was_open_ ? 1 : 0);
  client_.table_.retry(client_.handler_, {.dial = number_,
                                          .url = first_url_,
                                          .user_data = user_data_,
                                          .error = error,
                                          .status = status,
                                          .attempt = failed,
                                          .delay_ms = delay_ms});
}

void Dial::stop() {
  if (client_.reactor_ref_.get() == nullptr) return;  // all of it is gone
  client_.resolver_.cancel(std::exchange(step_, {}));
  if (connection_ == SlotId{}) return;
  client_.connections_.erase(connection_.packed());
  auto* connection = static_cast<Connection*>(client_.reactor_.find(connection_));
  if (connection != nullptr) connection->abandon();
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
  dials_.clear();  // while all that they refer to is there; without a reactor there are none
  service_.observe_dials(nullptr);
}

Result<std::uint64_t> Client::dial(const DialRequest& request) {
  auto dial = std::make_unique<Dial>(*this, ++last_number_, request);
  if (const Error error = dial->prepare(request.url, url_error_)) return error;
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

std::size_t Client::dials() const {
  const auto alive = [](const auto& dial) { return dial.second->is_alive(); };
  return static_cast<std::size_t>(std::count_if(dials_.begin(), dials_.end(), alive));
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

void Client::connected(Connection& connection) {
  if (connecting_ != nullptr) std::exchange(connecting_, nullptr)->made(connection);
}

bool Client::follows(Connection& connection, const HttpResponse& response) {
  const Dial* dial = find(connection);
  return dial != nullptr && dial->follows(response);
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
