#include <levada/net/tls_session.h>

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <algorithm>
#include <cassert>
#include <cstring>
#include <utility>

#include <levada/net/tls_snapshot.h>

namespace levada::net {

// The BIO between OpenSSL and the session: a source over the input, a sink to the output.
struct TlsTransport {
  static TlsSession& session(BIO* bio) { return *static_cast<TlsSession*>(BIO_get_data(bio)); }

  static int read(BIO* bio, char* out, std::size_t size, std::size_t* got) {
    TlsSession& self = session(bio);
    BIO_clear_retry_flags(bio);
    const Bytes taken = self.input_.first(std::min(size, self.input_.size()));
    *got = taken.size();
    if (taken.empty()) {
      BIO_set_retry_read(bio);
      return 0;
    }
    std::memcpy(out, taken.data(), taken.size());
    self.scan_.advance(taken);
    self.input_ = self.input_.subspan(taken.size());
    return 1;
  }

  static int write(BIO* bio, const char* data, std::size_t size, std::size_t* written) {
    TlsSession& self = session(bio);
    const Bytes bytes{reinterpret_cast<const std::uint8_t*>(data), size};
    BIO_clear_retry_flags(bio);
    if (self.kernel_sends_) {
      if (!self.send_control(bytes)) return 0;
    } else {
      self.output_.write(self.output_.context, bytes);
    }
    *written = size;
    return 1;
  }

  // What OpenSSL asks of a BIO that may leave records to the kernel. Beside two of them it names these in its own headers
  // only; <openssl/bio.h> keeps their numbers free.
  static constexpr int take_keys = 72, next_is_control = 74;

  static long control(BIO* bio, int command, long number, void* pointer) {
    TlsSession& self = session(bio);
    switch (command) {
      case BIO_CTRL_FLUSH:
        return 1;
      case take_keys:
        return number != 0 && self.offload(pointer) ? 1 : 0;  // 0: those of what is received
      case BIO_CTRL_GET_KTLS_SEND:
        return self.kernel_sends_ ? 1 : 0;
      case next_is_control:
        self.control_type_ = static_cast<std::uint8_t>(number);
        return 0;
      default:
        return 0;
    }
  }

  static BIO_METHOD* make_method() {
    BIO_METHOD* method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "levada");
    BIO_meth_set_read_ex(method, &read);
    BIO_meth_set_write_ex(method, &write);
    BIO_meth_set_ctrl(method, &control);
    return method;
  }

  static BIO* make(TlsSession& session) {
    static BIO_METHOD* const method = make_method();
    BIO* bio = BIO_new(method);
    BIO_set_data(bio, &session);
    BIO_set_init(bio, 1);
    return bio;
  }
};

namespace {

// What is left behind by others on this thread would be taken for ours.
void forget_old_errors() {
  if (ERR_peek_error() != 0) ERR_clear_error();
}

const char* why_refused(long verify_result) {
  switch (verify_result) {
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return "certificate has expired";
    case X509_V_ERR_CERT_NOT_YET_VALID:
      return "certificate is not valid yet";
    case X509_V_ERR_HOSTNAME_MISMATCH:
      return "host name does not match";
    case X509_V_ERR_IP_ADDRESS_MISMATCH:
      return "IP address does not match";
    case X509_V_ERR_DEPTH_ZERO_SELF_SIGNED_CERT:
      return "self-signed certificate";
    case X509_V_ERR_SELF_SIGNED_CERT_IN_CHAIN:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT:
    case X509_V_ERR_UNABLE_TO_GET_ISSUER_CERT_LOCALLY:
    case X509_V_ERR_UNABLE_TO_VERIFY_LEAF_SIGNATURE:
      return "unknown CA";
    default:
      return X509_verify_cert_error_string(verify_result);
  }
}

// OpenSSL 3.0 has no text for these two.
const char* alert_text(int number) {
  if (number == TLS13_AD_CERTIFICATE_REQUIRED) return "certificate required";
  if (number == TLS13_AD_MISSING_EXTENSION) return "missing extension";
  return SSL_alert_desc_string_long(number);
}

// The Error for what OpenSSL's queue says. All texts have static storage.
Error describe(SSL* ssl, const char* operation) {
  const unsigned long number = ERR_peek_last_error();
  const int reason = ERR_GET_LIB(number) == ERR_LIB_SSL ? ERR_GET_REASON(number) : 0;
  const auto error = [operation](Errc code, const char* detail) {
    return Error{.code = code, .operation = operation, .detail = detail};
  };
  if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED)
    return error(Errc::certificate_refused, why_refused(SSL_get_verify_result(ssl)));
  if (reason == SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE)
    return error(Errc::certificate_refused, "the peer has no certificate");
  // Above them are the reasons that all libraries of OpenSSL share, with flags in the higher bits.
  if (reason > SSL_AD_REASON_OFFSET && reason <= SSL_AD_REASON_OFFSET + 255)
    return error(Errc::alert_received, alert_text(reason - SSL_AD_REASON_OFFSET));
  const char* text = ERR_reason_error_string(number);
  return error(Errc::protocol, text == nullptr ? "" : text);
}

bool is_address(const std::string& host) {
  in6_addr ignored;
  return inet_pton(AF_INET, host.c_str(), &ignored) == 1 || inet_pton(AF_INET6, host.c_str(), &ignored) == 1;
}

std::string_view view_of(const char* text) {
  return text == nullptr ? std::string_view{} : text;
}

}  // namespace

// ---- TlsRecordScan ----

void TlsRecordScan::advance(Bytes bytes) {
  while (!bytes.empty()) {
    if (header_size_ < header_bytes) {
      header_[header_size_++] = bytes.front();
      bytes = bytes.subspan(1);
      if (header_size_ == header_bytes) body_left_ = header_[3] * 256u + header_[4];
    } else {
      const std::size_t size = std::min(body_left_, bytes.size());
      body_left_ -= size;
      bytes = bytes.subspan(size);
    }
    if (header_size_ == header_bytes && body_left_ == 0) header_size_ = 0;
  }
}

std::size_t TlsRecordScan::end_in(Bytes bytes, std::size_t& body) const {
  const std::size_t missing = header_bytes - header_size_;
  if (bytes.size() < missing) return 0;
  auto header = header_;
  std::copy_n(bytes.data(), missing, header.data() + header_size_);
  body = header[3] * 256u + header[4];
  const std::size_t end = missing == 0 ? body_left_ : missing + body;
  return end <= bytes.size() ? end : 0;
}

// ---- Beginning and end ----

TlsSession::TlsSession(std::shared_ptr<TlsSnapshot> snapshot, ssl_st* ssl, TlsOutput output)
    : snapshot_(std::move(snapshot)), ssl_(ssl), output_(output) {
  BIO* bio = TlsTransport::make(*this);
  SSL_set_bio(ssl_, bio, bio);
  SSL_set_app_data(ssl_, this);
}

TlsSession::~TlsSession() {
  // Else OpenSSL would take the session for broken and not resume it, unless close_notify was sent.
  if (is_open()) SSL_set_shutdown(ssl_, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
  SSL_free(ssl_);
}

Result<std::unique_ptr<TlsSession>> TlsSession::make(const TlsContext& context, TlsOutput output) {
  std::shared_ptr<TlsSnapshot> snapshot = context.snapshot();
  SSL* ssl = SSL_new(snapshot->ssl.get());
  if (ssl == nullptr) return Error{.code = Errc::no_memory, .operation = "TLS"};
  return std::unique_ptr<TlsSession>(new TlsSession(std::move(snapshot), ssl, output));
}

Result<std::unique_ptr<TlsSession>> TlsSession::accept(const TlsContext& context, TlsOutput output) {
  assert(context.role() == TlsRole::server);
  auto session = make(context, output);
  if (session) SSL_set_accept_state((*session)->ssl_);
  return session;
}

Result<std::unique_ptr<TlsSession>> TlsSession::connect(const TlsContext& context, std::string_view host,
                                                        std::uint16_t port, TlsOutput output) {
  assert(context.role() == TlsRole::client);
  auto session = make(context, output);
  if (!session) return session;
  TlsSession& self = **session;
  SSL_set_connect_state(self.ssl_);
  if (const Error error = self.name_server(host, port)) return error;
  forget_old_errors();
  if (self.judge(SSL_do_handshake(self.ssl_)) == TlsEvent::failed) return self.error_;
  return session;
}

Error TlsSession::name_server(std::string_view host, std::uint16_t port) {
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  if (host.ends_with('.')) host.remove_suffix(1);
  const std::string name(host);
  const Error bad{.code = Errc::invalid_argument, .operation = "TLS", .detail = "not a host's name"};
  if ((name.empty() && snapshot_->verifies) || name.find('\0') != std::string::npos) return bad;
  if (is_address(name)) {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl_), name.c_str());
  } else if (!name.empty()) {
    // A name stands in subjectAltName or nowhere (RFC 9525 section 2, RFC 9110 section 4.3.4).
    SSL_set_hostflags(ssl_, X509_CHECK_FLAG_NO_PARTIAL_WILDCARDS | X509_CHECK_FLAG_NEVER_CHECK_SUBJECT);
    if (SSL_set1_host(ssl_, name.c_str()) != 1 || SSL_set_tlsext_host_name(ssl_, name.c_str()) != 1)
      return bad;
  }
  session_key_ = name + ':' + std::to_string(port);
  const SessionPtr known = snapshot_->sessions.take(session_key_);
  if (known != nullptr) SSL_set_session(ssl_, known.get());
  return {};
}

// ---- Receiving ----

// One step of OpenSSL: the handshake as far as the input goes, or one record's plaintext.
TlsEvent TlsSession::advance(MutableBytes room, std::size_t& size) {
  if (state_ == State::failed) return TlsEvent::failed;
  if (state_ == State::ended) return TlsEvent::ended;
  if (owes_new_keys()) return fail("TLS");
  if (input_.empty() && SSL_pending(ssl_) == 0) return TlsEvent::none;
  forget_old_errors();
  if (state_ == State::open) {
    if (SSL_read_ex(ssl_, room.data(), room.size(), &size) == 1) return TlsEvent::data;
    const TlsEvent event = judge(0);
    return event == TlsEvent::none && owes_new_keys() ? fail("TLS") : event;
  }
  const int result = SSL_do_handshake(ssl_);
  if (result != 1) return judge(result);
  state_ = State::open;
  return TlsEvent::established;
}

TlsEvent TlsSession::judge(int result) {
  switch (SSL_get_error(ssl_, result)) {
    case SSL_ERROR_WANT_READ:
      assert(input_.empty());
      return TlsEvent::none;
    case SSL_ERROR_ZERO_RETURN:
      state_ = State::ended;
      return TlsEvent::ended;
    default:
      return fail(state_ == State::handshake ? "TLS handshake" : "TLS");
  }
}

TlsEvent TlsSession::fail(const char* operation) {
  error_ = describe(ssl_, operation);
  if (cannot_send_ != nullptr) {
    error_ = {.code = Errc::not_supported, .operation = operation, .detail = cannot_send_};
    static constexpr std::array<std::uint8_t, 2> alert{SSL3_AL_FATAL, SSL_AD_INTERNAL_ERROR};
    output_.control(output_.context, SSL3_RT_ALERT, alert);
  }
  state_ = State::failed;
  ERR_clear_error();
  return TlsEvent::failed;
}

// Where the next record's plaintext may go, `filled` bytes of the input being plaintext already. OpenSSL has taken a
// whole record before it gives any of it out, so from there to the record's end the input is free then.
//
//   | plaintext | free, taken earlier | the next record |  ...
//   0           filled                taken             end
TlsRead TlsSession::room_for_next(MutableBytes input, std::size_t filled, TurnMemory& memory) const {
  if (state_ != State::open) return {};
  const std::size_t taken = input.size() - input_.size();
  const auto pending = static_cast<std::size_t>(SSL_pending(ssl_));
  std::size_t elsewhere = 0;
  std::size_t end = taken;
  if (pending > 0) {
    if (pending > taken - filled) elsewhere = pending;
  } else {
    std::size_t body = 0;
    const std::size_t rest = scan_.end_in(input_, body);
    if (rest > 0 && !scan_.at_start()) elsewhere = body;
    end = rest > 0 ? taken + rest : input.size();
  }
  if (elsewhere > 0) return {TlsEvent::data, {memory.allocate(elsewhere), elsewhere}, false};
  return {TlsEvent::data, input.subspan(filled, end - filled), true};
}

TlsRead TlsSession::read(MutableBytes& input, TurnMemory& memory) {
  input_ = input;
  std::size_t filled = 0;
  TlsRead next;
  do {
    next = room_for_next(input, filled, memory);
    std::size_t size = 0;
    next.event = advance(next.plaintext, size);
    next.plaintext = next.plaintext.first(size);
    if (next.in_place) filled += size;
  } while (next.event == TlsEvent::data && next.in_place);
  const MutableBytes plaintext = input.first(filled);
  input = input.last(input_.size());
  if (filled > 0) return {TlsEvent::data, plaintext, true};  // what came then is told by the next call
  return next;
}

TlsRead TlsSession::read_into(Bytes& input, MutableBytes room) {
  assert(!room.empty());
  input_ = input;
  std::size_t size = 0;
  const TlsEvent event = advance(room, size);
  input = input_;
  return {event, room.first(size), false};
}

Error TlsSession::transport_ended() const {
  switch (state_) {
    case State::handshake:
      return {.code = Errc::truncated, .operation = "TLS handshake", .detail = "the connection ended"};
    case State::open:
      return {
          .code = Errc::truncated, .operation = "TLS", .detail = "the connection ended without close_notify"};
    case State::ended:
      return {.code = Errc::end_of_stream, .operation = "TLS"};
    case State::failed:
      break;
  }
  return error_;
}

// ---- Sending ----

static constexpr const char* no_new_keys = "the peer asks for new keys, and the kernel cannot change them";

// Whether the kernel makes the records from here on.
bool TlsSession::offload(const void* keys) {
  if (kernel_sends_ || output_.offload == nullptr) return false;
  const char* why_not = output_.offload(output_.context, keys);
  kernel_sends_ = why_not == nullptr;
  if (!kernel_sends_) kernel_refused_ = why_not;
  return kernel_sends_;
}

// Whether the peer wants new keys before the next data (RFC 8446 section 4.6.3), which the kernel cannot change to. OpenSSL
// would answer with the next write, which it does not get.
bool TlsSession::owes_new_keys() {
  if (!kernel_sends_ || SSL_get_key_update_type(ssl_) == SSL_KEY_UPDATE_NONE) return false;
  cannot_send_ = no_new_keys;
  return true;
}

// What OpenSSL writes when the kernel makes the records. Of what was not announced nobody knows what it is.
bool TlsSession::send_control(Bytes content) {
  if (control_type_ == SSL3_RT_HANDSHAKE && !content.empty() && content.front() == SSL3_MT_KEY_UPDATE) {
    cannot_send_ = no_new_keys;
  } else if (control_type_ != SSL3_RT_HANDSHAKE && control_type_ != SSL3_RT_ALERT) {
    cannot_send_ = "OpenSSL sends what the kernel's TLS does not know";
  }
  if (cannot_send_ != nullptr) return false;
  output_.control(output_.context, control_type_, content);
  return true;
}

Error TlsSession::write(Bytes plaintext) {
  if (state_ == State::failed) return error_;
  assert(is_open() && !close_sent_ && !kernel_sends_);
  if (plaintext.empty()) return {};
  forget_old_errors();
  std::size_t written = 0;
  if (SSL_write_ex(ssl_, plaintext.data(), plaintext.size(), &written) != 1) fail("TLS");
  return error_;
}

void TlsSession::close() {
  if (!is_open() || close_sent_) return;
  close_sent_ = true;
  SSL_shutdown(ssl_);
  ERR_clear_error();
}

Error TlsSession::update_keys(bool both) {
  if (state_ == State::failed) return error_;
  assert(is_open() && !close_sent_);
  if (SSL_version(ssl_) < TLS1_3_VERSION) return {.code = Errc::not_supported, .operation = "TLS key update"};
  if (kernel_sends_)
    return {.code = Errc::not_supported, .operation = "TLS key update", .detail = "the kernel encrypts"};
  forget_old_errors();
  const int kind = both ? SSL_KEY_UPDATE_REQUESTED : SSL_KEY_UPDATE_NOT_REQUESTED;
  if (SSL_key_update(ssl_, kind) != 1 || SSL_do_handshake(ssl_) != 1) fail("TLS key update");
  return error_;
}

// ---- State ----

std::string_view TlsSession::alpn() const {
  const unsigned char* name = nullptr;
  unsigned size = 0;
  SSL_get0_alpn_selected(ssl_, &name, &size);
  return to_text({name, size});
}

std::string_view TlsSession::server_name() const {
  return view_of(SSL_get_servername(ssl_, TLSEXT_NAMETYPE_host_name));
}

std::string_view TlsSession::version() const {
  return SSL_get_version(ssl_);
}

std::string_view TlsSession::cipher() const {
  return view_of(SSL_get_cipher_name(ssl_));
}

bool TlsSession::resumed() const {
  return SSL_session_reused(ssl_) == 1;
}

KtlsUse TlsSession::ktls() const {
  const KtlsStatus& kernel = ktls_available();
  if (kernel_sends_) return {.sends = true, .reason = "what is received is left to OpenSSL"};
  if (!kernel.available) return {.reason = kernel.reason};
  if (!snapshot_->ktls) return {.reason = "TlsOptions::ktls is false"};
  if (output_.offload == nullptr) return {.reason = "the connection is none of a reactor"};
  if (kernel_refused_[0] != '\0') return {.reason = kernel_refused_};
  return {.reason =
              is_open() ? "OpenSSL has no kTLS for this version and cipher" : "the handshake is not over"};
}

std::string TlsSession::peer_subject() const {
  X509* certificate = SSL_get0_peer_certificate(ssl_);
  if (certificate == nullptr || SSL_get_verify_mode(ssl_) == SSL_VERIFY_NONE) return {};
  const BioPtr bio(BIO_new(BIO_s_mem()));
  X509_NAME_print_ex(bio.get(), X509_get_subject_name(certificate), 0, XN_FLAG_RFC2253);
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  return {text, static_cast<std::size_t>(size)};
}

}  // namespace levada::net
