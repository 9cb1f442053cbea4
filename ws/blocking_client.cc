#include <levada/ws/blocking_client.h>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <algorithm>
#include <cassert>
#include <cerrno>
#include <cstring>

#include <levada/core/clock.h>
#include <levada/net/connector.h>
#include <levada/net/resolver.h>
#include <levada/ws/encoder.h>
#include <levada/ws/proxy_tunnel.h>
#include <levada/ws/tls_transport.h>
#include <levada/ws/url.h>

namespace levada::ws {
namespace {

constexpr Error timed_out(const char* operation) {
  return {Errc::timed_out, operation};
}

// Waits for `events` on `fd`; false at the deadline. A failure of the descriptor counts as an event: reading or writing
// finds out what it is.
bool wait_for(int fd, short events, Deadline deadline) {
  for (;;) {
    const std::uint64_t left = deadline.left_ns();
    timespec limit{};
    limit.tv_sec = static_cast<time_t>(left / nanoseconds_per_second);
    limit.tv_nsec = static_cast<long>(left % nanoseconds_per_second);
    pollfd one{fd, events, 0};
    const int ready = ppoll(&one, 1, deadline.is_never() ? nullptr : &limit, nullptr);
    if (ready > 0) return true;
    if (ready == 0 && deadline.left_ns() == 0) return false;
  }
}

// Calls `move()`, which is a recv or send, until it does something.
template <class Move>
Result<std::size_t> move_bytes(int fd, short events, Deadline deadline, const char* operation, Move&& move) {
  if (fd < 0) return Error{Errc::end_of_stream, operation};
  for (;;) {
    const ssize_t moved = move();
    if (moved > 0) return static_cast<std::size_t>(moved);
    if (moved == 0) return Error{Errc::end_of_stream, operation};
    if (errno == EINTR) continue;
    if (errno != EAGAIN) return Error::from_os(operation, errno);
    if (!wait_for(fd, events, deadline)) return timed_out(operation);
  }
}

Error connect_one(const net::Address& address, Deadline deadline, Fd& connected) {
  auto made = net::connect_stream(address);
  if (!made) return made.error();
  if (!wait_for(made->get(), POLLOUT, deadline)) return timed_out("connect");
  const Error error = net::take_socket_error(made->get(), "connect");
  if (!error) connected = std::move(*made);
  return error;
}

Result<std::vector<net::Address>> look_up(std::string_view host, std::uint16_t port,
                                          const BlockingOptions& options, Deadline deadline) {
  const net::Lookup lookup = options.lookup == nullptr ? net::resolve_blocking : options.lookup;
  if (deadline.is_never()) return lookup(decode_percent(host), port);
  return net::resolve_within(deadline.left_ns() / nanoseconds_per_millisecond, decode_percent(host), port,
                             lookup);
}

// Of the proxy if there is one.
Result<std::vector<net::Address>> find_addresses(const Url& url, const Proxy& proxy,
                                                 const BlockingOptions& options, Deadline deadline) {
  if (proxy.kind != ProxyKind::none) return look_up(proxy.authority.host, proxy.port, options, deadline);
  if (url.scheme != UrlScheme::ws_unix) return look_up(url.authority.host, url.port(), options, deadline);
  auto address = net::Address::unix_path(decode_percent(url.socket_path));
  if (!address) return address.error();
  return std::vector<net::Address>{*address};
}

Deadline dial_deadline(const BlockingOptions& options) {
  return options.dial_timeout_ms == 0 ? Deadline::never() : Deadline::in_ms(options.dial_timeout_ms);
}

}  // namespace

// ---- Deadline ----

Deadline Deadline::in_ms(std::uint64_t milliseconds) {
  const std::uint64_t now = monotonic_ns();
  const std::uint64_t most = (~std::uint64_t{0} - 1 - now) / nanoseconds_per_millisecond;
  return Deadline(now + std::min(milliseconds, most) * nanoseconds_per_millisecond);
}

std::uint64_t Deadline::left_ns() const {
  const std::uint64_t now = at_ns_ == 0 ? 0 : monotonic_ns();
  return at_ns_ > now ? at_ns_ - now : 0;
}

Deadline Deadline::divided_by(std::uint64_t share) const {
  if (is_never() || share <= 1) return *this;
  return Deadline(monotonic_ns() + left_ns() / share);
}

// ---- Sockets ----

SocketTransport::SocketTransport(Fd fd) : fd_(std::move(fd)) {
  const int flags = fcntl(fd_.get(), F_GETFL);
  if (flags >= 0) fcntl(fd_.get(), F_SETFL, flags | O_NONBLOCK);
}

Result<std::size_t> SocketTransport::read(MutableBytes into, Deadline deadline) {
  return move_bytes(fd_.get(), POLLIN, deadline, "recv",
                    [&] { return ::recv(fd_.get(), into.data(), into.size(), 0); });
}

Result<std::size_t> SocketTransport::write(Bytes from, Deadline deadline) {
  return move_bytes(fd_.get(), POLLOUT, deadline, "send",
                    [&] { return ::send(fd_.get(), from.data(), from.size(), MSG_NOSIGNAL); });
}

bool SocketTransport::wait(Deadline deadline) const {
  return wait_for(fd_.get(), POLLIN | POLLOUT, deadline);
}

Result<Fd> connect_blocking(std::span<const net::Address> addresses, Deadline deadline) {
  std::vector<net::ConnectAttempt> attempts;
  for (std::size_t i = 0; i < addresses.size(); i++) {
    Fd connected;
    attempts.push_back(
        {addresses[i], connect_one(addresses[i], deadline.divided_by(addresses.size() - i), connected)});
    if (connected) return connected;
    if (deadline.left_ns() == 0) return timed_out("connect");
  }
  if (attempts.empty()) return Error{Errc::invalid_argument, "connect"};
  return net::most_telling(attempts);
}

// ---- Opening ----

namespace {

Error write_all(Transport& transport, Bytes bytes, Deadline deadline) {
  while (!bytes.empty()) {
    auto taken = transport.write(bytes, deadline);
    if (!taken) return taken.error();
    bytes = bytes.subspan(*taken);
  }
  return {};
}

// Behind it the bytes are exchanged with the server itself, who has to wait for our first ones.
Error pass(ProxyTunnel& tunnel, Transport& transport, Deadline deadline) {
  std::array<std::uint8_t, 4096> buffer;
  for (;;) {
    if (const Error error = write_all(transport, tunnel.output(), deadline)) return error;
    auto got = transport.read(buffer, deadline);
    if (!got) return got.error();
    Bytes in = Bytes(buffer).first(*got);
    const ProxyTunnel::State state = tunnel.feed(in);
    if (state == ProxyTunnel::State::failed) return tunnel.error();
    if (state == ProxyTunnel::State::open) return in.empty() ? Error{} : Error{Errc::protocol, "proxy"};
  }
}

}  // namespace

// To the server: through the proxy and with TLS, if that is asked for.
Result<std::unique_ptr<Transport>> BlockingClient::connect(const Url& url, const BlockingOptions& options,
                                                           Deadline deadline) {
  const ProxyChoice choice = choose_proxy(url,
                                          {.url = options.proxy_url,
                                           .no_proxy = options.no_proxy,
                                           .use_environment = options.proxy_from_environment},
                                          process_environment, nullptr);
  if (const Error error = choice.why_not()) return error;
  const std::string host = decode_percent(url.authority.host);
  auto addresses = find_addresses(url, choice.proxy, options, deadline);
  if (!addresses) return addresses.error();
  auto connected = connect_blocking(*addresses, deadline);
  if (!connected) return connected.error();
  SocketTransport socket(std::move(*connected));
  if (choice.proxy.kind != ProxyKind::none) {
    const auto tunnel = ProxyTunnel::make(choice.proxy, host, url.port());
    if (tunnel == nullptr) return Error{Errc::invalid_argument, "proxy"};
    const Error error = pass(*tunnel, socket, deadline);
    proxy_status_ = tunnel->http_status();
    if (error) return error;
  }
  if (url.scheme != UrlScheme::wss) {
    return std::unique_ptr<Transport>(std::make_unique<SocketTransport>(std::move(socket)));
  }
  auto context = net::TlsContext::create(net::TlsRole::client, options.tls);
  if (!context) return context.error();
  return TlsTransport::connect(std::move(socket), **context, host, url.port(), deadline);
}

Error BlockingClient::dial(std::string_view text, const BlockingOptions& options) {
  reset(options);
  const Deadline deadline = dial_deadline(options);
  Url url;
  if (parse_url(text, url, UserInfo::take) != UrlError::none) return {Errc::invalid_argument, "URL"};
  std::vector<HttpField> fields(options.fields.begin(), options.fields.end());
  std::string credentials;
  if (url.authority.has_user_info) {
    credentials = basic_credentials(url.authority.user, url.authority.password);
    if (credentials.empty()) return {Errc::invalid_argument, "URL"};
    fields.push_back({"Authorization", credentials});
  }
  auto transport = connect(url, options, deadline);
  if (!transport) return transport.error();
  BlockingOptions with_fields = options;
  with_fields.fields = fields;
  return open(std::move(*transport), url.host_field(), url.request_target(), with_fields, deadline);
}

void BlockingClient::reset(const BlockingOptions& options) {
  terminate();
  response_ = {};
  refusal_ = UpgradeFailure::none;
  proxy_status_ = 0;
  body_ = {};
  subprotocol_.clear();
  buffer_.resize(std::max(buffer_bytes, options.http.max_bytes + max_body_bytes));
  pool_.bind_to_current_thread();
  decoder_options_.max_message_bytes = options.max_message_bytes;
  decoder_ = std::make_unique<Decoder>(decoder_options_, pool_);
  max_buffered_bytes_ = options.max_buffered_bytes;
  pongs_ = 0;
  write_error_ = {};
  close_sent_ = close_received_ = false;
  close_code_ = CloseCode::abnormal;
  close_reason_.clear();
}

Error BlockingClient::open(std::unique_ptr<Transport> transport, std::string_view host,
                           std::string_view target, const BlockingOptions& options, Deadline deadline) {
  reset(options);
  transport_ = std::move(transport);
  std::array<std::uint8_t, 16> seed;
  fill_random(seed);
  const WebSocketKey key = make_key(seed);
  const UpgradeRequest request{.host = host,
                               .target = target,
                               .key = {key.data(), key.size()},
                               .subprotocols = options.subprotocols,
                               .origin = options.origin,
                               .extensions = {},
                               .fields = options.fields};
  const Error error = shake_hands(request, options.http, deadline);
  return error ? end(error) : Error{};
}

Error BlockingClient::shake_hands(const UpgradeRequest& request, const HttpLimits& limits,
                                  Deadline deadline) {
  const std::size_t size = upgrade_request_size(request);
  if (size == 0) return {Errc::invalid_argument, "handshake"};
  out_.resize(size);
  write_upgrade_request(out_, request);
  if (const Error error = flush(deadline)) return error;
  std::size_t head_bytes = 0, have = 0;
  if (const Error error = receive_head(limits, deadline, head_bytes, have)) return error;
  const UpgradeResult result = check_upgrade_response(response_, request);
  if (result.failure != UpgradeFailure::none) {
    refusal_ = result.failure;
    receive_body(head_bytes, have, deadline);
    return {Errc::protocol, "handshake"};
  }
  subprotocol_ = result.subprotocol;
  in_ = MutableBytes(buffer_).subspan(head_bytes, have - head_bytes);
  return {};
}

Error BlockingClient::receive_head(const HttpLimits& limits, Deadline deadline, std::size_t& head_bytes,
                                   std::size_t& have) {
  for (;;) {
    const std::size_t seen = have;
    auto got = transport_->read(MutableBytes(buffer_).subspan(have), deadline);
    if (!got) return got.error();
    have += *got;
    const MutableBytes head = MutableBytes(buffer_).first(have);
    if (!worth_parsing(head, seen, limits)) continue;
    const ParseResult parsed = response_.parse_final(head, limits);
    head_bytes = parsed.consumed;
    if (parsed.state == ParseState::complete) return {};
    if (parsed.state == ParseState::invalid) {
      response_ = {};
      return {Errc::protocol, "handshake"};
    }
  }
}

// What comes of the content until it is whole, the peer ends, or it is enough.
void BlockingClient::receive_body(std::size_t head_bytes, std::size_t have, Deadline deadline) {
  const std::size_t end = head_bytes + content_bytes(response_, max_body_bytes);
  while (have < end) {
    auto got = transport_->read(MutableBytes(buffer_).subspan(have, end - have), deadline);
    if (!got) break;
    have += *got;
  }
  body_ = Bytes(buffer_).subspan(head_bytes, std::min(have, end) - head_bytes);
}

// ---- Reading ----

Result<BlockingMessage> BlockingClient::read(Deadline deadline) {
  if (!is_open()) return Error{Errc::end_of_stream, "read"};
  Result<BlockingMessage> result = Error{Errc::end_of_stream, "read"};
  for (;;) {
    const Decoded decoded = decoder_->next(in_);
    if (decoded.event == DecoderEvent::none) {
      if (const Error error = receive(deadline)) return error;
    } else if (handle(decoded, deadline, result)) {
      return result;
    }
  }
}

// Receives where the decoder can use it: into the message that it assembles, or into the buffer.
Error BlockingClient::receive(Deadline deadline) {
  MutableBytes target = decoder_->assembly_target();
  if (target.empty()) target = buffer_;
  auto got = buffered() == 0 ? transport_->read(target, deadline) : read_and_flush(target, deadline);
  if (got) {
    in_ = target.first(*got);
    return {};
  }
  if (got.error().code == Errc::timed_out) return got.error();
  // An end without a close frame is no regular one (RFC 6455 section 7.1.5).
  const bool ended = got.error().code == Errc::end_of_stream;
  return end(ended ? Error{Errc::connection_reset, "recv"} : got.error());
}

// Reads while what was written before goes on leaving: it may be the question to the answer that is waited for.
Result<std::size_t> BlockingClient::read_and_flush(MutableBytes target, Deadline deadline) {
  for (;;) {
    (void)flush(Deadline::now());  // its failure does not keep the peer's last words from being read
    if (buffered() == 0) return transport_->read(target, deadline);
    auto got = transport_->read(target, Deadline::now());
    if (got || got.error().code != Errc::timed_out) return got;
    if (!wait_for(transport_->fd(), POLLIN | POLLOUT, deadline)) return timed_out("recv");
  }
}

// Whether `result` is what read() returns.
bool BlockingClient::handle(const Decoded& decoded, Deadline deadline, Result<BlockingMessage>& result) {
  switch (decoded.event) {
    case DecoderEvent::message:
      result = BlockingMessage{decoded.opcode, decoded.payload};
      return true;
    case DecoderEvent::ping:
      if (!close_sent_ && !queue_frame(Opcode::pong, decoded.payload)) (void)flush(Deadline::now());
      return false;
    case DecoderEvent::pong:
      pongs_++;
      return false;
    case DecoderEvent::close:
      result = receive_close(decoded.payload, deadline);
      return true;
    case DecoderEvent::error:
      result = break_off(decoded.error, deadline);
      return true;
    case DecoderEvent::none:
    case DecoderEvent::fragment:
      break;
  }
  return false;
}

Error BlockingClient::receive_close(Bytes payload, Deadline deadline) {
  const ClosePayload close = parse_close(payload);
  close_received_ = true;
  close_code_ = close.code;
  close_reason_ = close.reason;
  if (!close_sent_) (void)send_close(close.code, {}, deadline);  // repeats the code (RFC 6455 section 5.5.1)
  return end({Errc::end_of_stream, "read"});
}

Error BlockingClient::break_off(FrameError error, Deadline deadline) {
  close_code_ = ws::close_code(error);
  close_reason_ = to_string(error);
  if (!close_sent_) (void)send_close(close_code_, close_reason_, deadline);
  return end({Errc::protocol, to_string(error)});
}

// ---- Writing ----

Error BlockingClient::queue_frame(Opcode opcode, Bytes payload) {
  const std::size_t size = frame_size(payload.size(), true);
  if (buffered() != 0 && buffered() + size > max_buffered_bytes_) return {Errc::would_block, "write"};
  const std::size_t begin = out_.size();
  out_.resize(begin + size);
  write_masked_frame(out_.data() + begin, opcode, payload, random_.next_u32());
  return {};
}

Error BlockingClient::write(Opcode opcode, Bytes payload, Deadline deadline) {
  if (!is_open() || close_sent_) return {Errc::end_of_stream, "write"};
  if (write_error_) return write_error_;
  if (buffered() != 0 && buffered() + frame_size(payload.size(), true) > max_buffered_bytes_) {
    const Error error = flush(deadline);
    if (error && error.code != Errc::timed_out) return error;
  }
  if (const Error error = queue_frame(opcode, payload)) return error;
  return flush(deadline);
}

Error BlockingClient::ping(Bytes payload, Deadline deadline) {
  assert(payload.size() <= max_control_bytes);
  return write(Opcode::ping, payload, deadline);
}

Error BlockingClient::flush(Deadline deadline) {
  Error error;
  while (!error && unsent() != 0) {
    auto taken = transport_->write(Bytes(out_).subspan(out_begin_), deadline);
    if (taken) {
      out_begin_ += *taken;
    } else {
      error = taken.error();
    }
  }
  if (!error && buffered() != 0) error = transport_->flush(deadline);
  if (error.code == Errc::timed_out) return error;
  if (error) write_error_ = error;
  out_.clear();
  out_begin_ = 0;
  return write_error_;
}

// ---- Closing ----

Error BlockingClient::send_close(CloseCode code, std::string_view reason, Deadline deadline) {
  if (!is_open() || close_sent_) return {Errc::end_of_stream, "close"};
  if (write_error_) return write_error_;
  std::array<std::uint8_t, max_control_bytes> payload;
  const std::size_t size = write_close(payload.data(), code, reason);
  if (const Error error = queue_frame(Opcode::close, Bytes(payload).first(size))) return error;
  close_sent_ = true;
  return flush(deadline);
}

Error BlockingClient::close(CloseCode code, std::string_view reason, Deadline deadline) {
  Error error = close_sent_ ? Error{} : send_close(code, reason, deadline);
  if (write_error_) error = {};  // the peer's own close frame may be there all the same
  while (!error) {
    const Result<BlockingMessage> message = read(deadline);
    if (!message) error = message.error();
  }
  terminate();
  return close_received_ ? Error{} : error;
}

Error BlockingClient::end(const Error& error) {
  terminate();
  return error;
}

void BlockingClient::terminate() {
  if (transport_ != nullptr) transport_->close();
  transport_.reset();
  in_ = {};
  out_.clear();
  out_begin_ = 0;
}

}  // namespace levada::ws
