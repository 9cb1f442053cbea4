// SOCKS5, the client's side (RFC 1928; user and password: RFC 1929), without I/O: bytes in, bytes out.
//
//   we: version, methods    -> proxy: method
//   we: user, password      -> proxy: verdict              if the proxy chose that method
//   we: CONNECT host port   -> proxy: reply, its address   then the connection is the destination's
//
// Model: output() is what has to be sent now; feed() eats the proxy's answers from the front of what was received and
// leaves what belongs to the destination. A name is sent as a name, so that the proxy resolves it; an IP address is sent
// as one. Nothing is allocated. Credentials and host are kept in the object, in clear, until their bytes are made.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include <levada/core/bytes.h>
#include <levada/core/error.h>

namespace levada::net {

enum class Socks5Error : std::uint8_t {
  none,
  bad_host,         // ours: empty, longer than 255 bytes, or with a zero byte
  bad_credentials,  // ours: a user or password that is longer than 255 bytes, or only one of the two
  bad_version,      // the peer speaks something else: no SOCKS5 proxy
  no_method,      // the proxy takes none of the methods offered: it wants a user, or another way to prove one
  bad_method,     // it chose one that was not offered
  login_refused,  // user or password are wrong
  bad_address,    // an address type in its reply that RFC 1928 does not know
  general_failure,  // from here on: what the proxy's reply says (RFC 1928 section 6)
  not_allowed,
  network_unreachable,
  host_unreachable,
  connection_refused,
  time_to_live_expired,
  command_not_supported,
  address_type_not_supported,
  unknown_reply,  // a number that RFC 1928 does not assign
};

// "login_refused"; static storage.
const char* to_string(Socks5Error error);

// The same as an Error: permission_denied, unreachable, connection_refused, ... with operation "SOCKS5: login_refused".
Error to_error(Socks5Error error);

struct Socks5Target {
  std::string_view host;  // a name, or an IPv4 or IPv6 address without brackets; at most 255 bytes
  std::uint16_t port = 0;
  std::string_view user = {};  // both or none, of 1 to 255 bytes each
  std::string_view password = {};
};

// One connection through a proxy. One thread.
class Socks5Client {
 public:
  enum class State : std::uint8_t {
    negotiating,  // send output(), then feed() what comes
    connected,    // the bytes that follow are the destination's
    failed,       // error() tells why; the connection has to be closed
  };

  // Copies what `target` refers to. A target that cannot be written makes it `failed` at once.
  explicit Socks5Client(const Socks5Target& target);
  Socks5Client(const Socks5Client&) = delete;
  Socks5Client& operator=(const Socks5Client&) = delete;
  ~Socks5Client();

  // What has to be sent, empty if nothing. Lives until the next feed() or sent().
  Bytes output() const { return {out_.data() + sent_, out_size_ - sent_}; }
  // Says that the first `size` bytes of output() were sent.
  void sent(std::size_t size) { sent_ += size; }

  // Takes what the proxy has answered off the front of `in`. After a whole answer there may be new output().
  State feed(Bytes& in);

  State state() const { return state_; }
  Socks5Error error() const { return error_; }

 private:
  enum class Step : std::uint8_t { method, login, reply };

  bool collect(Bytes& in, std::size_t size);
  void take_answer(Bytes& in);
  void take_method();
  void take_login();
  void take_reply(Bytes& in);
  void fail(Socks5Error error);
  void write_greeting();
  void write_login();
  void write_request();
  void put(std::uint8_t byte) { out_[out_size_++] = byte; }
  void put(std::string_view text);
  void restart_output() { out_size_ = sent_ = 0; }

  State state_ = State::negotiating;
  Socks5Error error_ = Socks5Error::none;
  Step step_ = Step::method;
  std::uint16_t port_;
  std::uint8_t host_size_ = 0;
  std::uint8_t user_size_ = 0;
  std::uint8_t password_size_ = 0;
  std::array<char, 255> host_;
  std::array<char, 510> credentials_;  // user, then password
  std::array<std::uint8_t, 513> out_;  // the largest is the login: 3 + 255 + 255
  std::size_t out_size_ = 0;
  std::size_t sent_ = 0;
  std::array<std::uint8_t, 262> in_;  // the largest is the reply: 4 + 1 + 255 + 2
  std::size_t have_ = 0;
};

}  // namespace levada::net
