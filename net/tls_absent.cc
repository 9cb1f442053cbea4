// TLS of a build without OpenSSL: it says so. Without a context nobody has a session, so the rest is never called.
#include <levada/net/tls_context.h>
#include <levada/net/tls_library.h>
#include <levada/net/tls_session.h>

namespace levada::net {

struct TlsSnapshot {};

namespace {
constexpr Error absent{.code = Errc::not_supported, .operation = "TLS", .detail = "built without OpenSSL"};
}  // namespace

Result<std::shared_ptr<TlsContext>> TlsContext::create(TlsRole, const TlsOptions&) {
  return absent;
}
TlsContext::~TlsContext() = default;
Error TlsContext::replace(const TlsOptions&) {
  return absent;
}

const KtlsStatus& ktls_available() {
  static constexpr KtlsStatus status{false, "levada was built without OpenSSL"};
  return status;
}

Result<std::unique_ptr<TlsSession>> TlsSession::accept(const TlsContext&, TlsOutput) {
  return absent;
}
Result<std::unique_ptr<TlsSession>> TlsSession::connect(const TlsContext&, std::string_view, std::uint16_t,
                                                        TlsOutput) {
  return absent;
}
TlsSession::~TlsSession() = default;

TlsRead TlsSession::read(MutableBytes&, TurnMemory&) {
  return {.event = TlsEvent::failed};
}
TlsRead TlsSession::read_into(Bytes&, MutableBytes) {
  return {.event = TlsEvent::failed};
}
Error TlsSession::transport_ended() const {
  return absent;
}
Error TlsSession::write(Bytes) {
  return absent;
}
void TlsSession::close() {}
Error TlsSession::update_keys(bool) {
  return absent;
}

std::string_view TlsSession::alpn() const {
  return {};
}
std::string_view TlsSession::server_name() const {
  return {};
}
std::string_view TlsSession::version() const {
  return {};
}
std::string_view TlsSession::cipher() const {
  return {};
}
bool TlsSession::resumed() const {
  return false;
}
KtlsUse TlsSession::ktls() const {
  return {.reason = ktls_available().reason};
}
std::string TlsSession::peer_subject() const {
  return {};
}

const char* tls_library() {
  return "";
}

}  // namespace levada::net
