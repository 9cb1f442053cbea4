#include <levada/net/socks5.h>

#include <arpa/inet.h>
#include <algorithm>
#include <cstring>
#include <string>

namespace levada::net {
namespace {

constexpr std::uint8_t protocol_version = 5;
constexpr std::uint8_t login_version = 1;  // RFC 1929
constexpr std::uint8_t method_none = 0;
constexpr std::uint8_t method_login = 2;
constexpr std::uint8_t method_unacceptable = 0xFF;
constexpr std::uint8_t command_connect = 1;
constexpr std::uint8_t type_ipv4 = 1;
constexpr std::uint8_t type_name = 3;
constexpr std::uint8_t type_ipv6 = 4;
constexpr std::size_t max_text_bytes = 255;

// The bytes of an IP address in `out` and their number, or 0 when `host` is a name.
std::size_t parse_ip(std::string_view host, std::uint8_t* out) {
  char text[INET6_ADDRSTRLEN] = "";
  if (host.size() >= sizeof text) return 0;
  std::copy(host.begin(), host.end(), text);
  if (inet_pton(AF_INET, text, out) == 1) return sizeof(in_addr);
  return inet_pton(AF_INET6, text, out) == 1 ? sizeof(in6_addr) : 0;
}

Socks5Error error_of_reply(std::uint8_t reply) {
  const unsigned number = static_cast<unsigned>(Socks5Error::general_failure) + reply - 1;
  const bool known = reply >= 1 && number < static_cast<unsigned>(Socks5Error::unknown_reply);
  return known ? static_cast<Socks5Error>(number) : Socks5Error::unknown_reply;
}

Socks5Error check(const Socks5Target& target) {
  const auto too_long = [](std::string_view text) { return text.size() > max_text_bytes; };
  if (target.host.empty() || too_long(target.host) || target.host.find('\0') != target.host.npos)
    return Socks5Error::bad_host;
  if (too_long(target.user) || too_long(target.password) || target.user.empty() != target.password.empty())
    return Socks5Error::bad_credentials;
  return Socks5Error::none;
}

struct Name {
  Errc code;
  const char* operation;
};

// In the order of Socks5Error.
constexpr Name error_names[] = {
    {Errc::none, "SOCKS5: none"},
    {Errc::invalid_argument, "SOCKS5: bad_host"},
    {Errc::invalid_argument, "SOCKS5: bad_credentials"},
    {Errc::protocol, "SOCKS5: bad_version"},
    {Errc::permission_denied, "SOCKS5: no_method"},
    {Errc::protocol, "SOCKS5: bad_method"},
    {Errc::permission_denied, "SOCKS5: login_refused"},
    {Errc::protocol, "SOCKS5: bad_address"},
    {Errc::other, "SOCKS5: general_failure"},
    {Errc::permission_denied, "SOCKS5: not_allowed"},
    {Errc::unreachable, "SOCKS5: network_unreachable"},
    {Errc::unreachable, "SOCKS5: host_unreachable"},
    {Errc::connection_refused, "SOCKS5: connection_refused"},
    {Errc::timed_out, "SOCKS5: time_to_live_expired"},
    {Errc::not_supported, "SOCKS5: command_not_supported"},
    {Errc::not_supported, "SOCKS5: address_type_not_supported"},
    {Errc::protocol, "SOCKS5: unknown_reply"},
};
static_assert(std::size(error_names) == static_cast<std::size_t>(Socks5Error::unknown_reply) + 1);

}  // namespace

const char* to_string(Socks5Error error) {
  constexpr std::size_t prefix = std::string_view("SOCKS5: ").size();
  return error_names[static_cast<std::size_t>(error)].operation + prefix;
}

Error to_error(Socks5Error error) {
  const Name& name = error_names[static_cast<std::size_t>(error)];
  return {name.code, error == Socks5Error::none ? "" : name.operation};
}

Socks5Client::Socks5Client(const Socks5Target& target) : port_(target.port) {
  if (const Socks5Error error = check(target); error != Socks5Error::none) {
    fail(error);
    return;
  }
  host_size_ = static_cast<std::uint8_t>(target.host.size());
  user_size_ = static_cast<std::uint8_t>(target.user.size());
  password_size_ = static_cast<std::uint8_t>(target.password.size());
  std::copy(target.host.begin(), target.host.end(), host_.begin());
  std::copy(target.user.begin(), target.user.end(), credentials_.begin());
  std::copy(target.password.begin(), target.password.end(), credentials_.begin() + user_size_);
  write_greeting();
}

Socks5Client::~Socks5Client() {
  explicit_bzero(credentials_.data(), credentials_.size());
  explicit_bzero(out_.data(), out_.size());
}

void Socks5Client::fail(Socks5Error error) {
  state_ = State::failed;
  error_ = error;
  restart_output();
}

void Socks5Client::put(std::string_view text) {
  std::copy(text.begin(), text.end(), out_.begin() + static_cast<std::ptrdiff_t>(out_size_));
  out_size_ += text.size();
}

void Socks5Client::write_greeting() {
  put(protocol_version);
  put(user_size_ == 0 ? 1 : 2);
  put(method_none);
  if (user_size_ != 0) put(method_login);
}

void Socks5Client::write_login() {
  put(login_version);
  put(user_size_);
  put(std::string_view(credentials_.data(), user_size_));
  put(password_size_);
  put(std::string_view(credentials_.data() + user_size_, password_size_));
}

void Socks5Client::write_request() {
  const std::string_view host(host_.data(), host_size_);
  std::uint8_t ip[sizeof(in6_addr)];
  const std::size_t ip_size = parse_ip(host, ip);
  put(protocol_version);
  put(command_connect);
  put(0);
  put(ip_size == 0 ? type_name : ip_size == sizeof(in_addr) ? type_ipv4 : type_ipv6);
  if (ip_size == 0) {
    put(host_size_);
    put(host);
  } else {
    put(to_text({ip, ip_size}));
  }
  put(static_cast<std::uint8_t>(port_ >> 8));
  put(static_cast<std::uint8_t>(port_));
  step_ = Step::reply;
}

Socks5Client::State Socks5Client::feed(Bytes& in) {
  while (state_ == State::negotiating && !in.empty()) take_answer(in);
  return state_;
}

// Takes bytes until in_ has `size`; false while some are missing.
bool Socks5Client::collect(Bytes& in, std::size_t size) {
  const std::size_t take = std::min(in.size(), size - std::min(size, have_));
  std::copy_n(in.begin(), take, in_.begin() + static_cast<std::ptrdiff_t>(have_));
  have_ += take;
  in = in.subspan(take);
  return have_ >= size;
}

void Socks5Client::take_answer(Bytes& in) {
  if (!collect(in, 1)) return;
  if (in_[0] != (step_ == Step::login ? login_version : protocol_version))
    return fail(Socks5Error::bad_version);
  if (!collect(in, 2)) return;
  if (step_ == Step::method) return take_method();
  if (step_ == Step::login) return take_login();
  take_reply(in);
}

void Socks5Client::take_method() {
  const std::uint8_t method = in_[1];
  if (method == method_unacceptable) return fail(Socks5Error::no_method);
  if (method != method_none && (method != method_login || user_size_ == 0))
    return fail(Socks5Error::bad_method);
  have_ = 0;
  restart_output();
  if (method == method_none) return write_request();
  write_login();
  step_ = Step::login;
}

void Socks5Client::take_login() {
  if (in_[1] != 0) return fail(Socks5Error::login_refused);
  have_ = 0;
  restart_output();
  write_request();
}

// The address that the proxy connected from follows; it is passed over.
void Socks5Client::take_reply(Bytes& in) {
  if (in_[1] != 0) return fail(error_of_reply(in_[1]));
  if (!collect(in, 5)) return;
  std::size_t size = 0;
  if (in_[3] == type_ipv4) size = 4 + sizeof(in_addr) + 2;
  if (in_[3] == type_ipv6) size = 4 + sizeof(in6_addr) + 2;
  if (in_[3] == type_name) size = 4 + 1 + std::size_t{in_[4]} + 2;
  if (size == 0) return fail(Socks5Error::bad_address);
  if (!collect(in, size)) return;
  state_ = State::connected;
  restart_output();
}

}  // namespace levada::net
