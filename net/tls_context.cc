#include <levada/net/tls_context.h>

#include <linux/tcp.h>
#include <netinet/in.h>
#include <openssl/crypto.h>
#include <sys/socket.h>
#include <cerrno>
#include <utility>

#include <levada/core/fd.h>
#include <levada/net/tls_library.h>
#include <levada/net/tls_snapshot.h>

namespace levada::net {

TlsContext::TlsContext(TlsRole role, std::shared_ptr<TlsSnapshot> snapshot)
    : role_(role), snapshot_(std::move(snapshot)) {}
TlsContext::~TlsContext() = default;

Result<std::shared_ptr<TlsContext>> TlsContext::create(TlsRole role, const TlsOptions& options) {
  Result<std::shared_ptr<TlsSnapshot>> snapshot = TlsSnapshot::build(role, options);
  if (!snapshot) return snapshot.error();
  return std::shared_ptr<TlsContext>(new TlsContext(role, std::move(*snapshot)));
}

Error TlsContext::replace(const TlsOptions& options) {
  Result<std::shared_ptr<TlsSnapshot>> next = TlsSnapshot::build(role_, options);
  if (!next) return next.error();
  const std::lock_guard lock(mutex_);
  snapshot_.swap(*next);  // the old one ends outside of the lock, or with its last session
  return {};
}

std::shared_ptr<TlsSnapshot> TlsContext::snapshot() const {
  const std::lock_guard lock(mutex_);
  return snapshot_;
}

namespace {

KtlsStatus probe_ktls() {
#ifdef OPENSSL_NO_KTLS
  return {false, "OpenSSL was built without it"};
#else
  const Fd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  // On a socket that is not connected a kernel that has it says ENOTCONN, any other ENOENT or ENOPROTOOPT.
  if (setsockopt(fd.get(), IPPROTO_TCP, TCP_ULP, "tls", sizeof "tls") == 0 || errno == ENOTCONN)
    return {true, ""};
  return {false, "the kernel has no TLS (its module tls is missing)"};
#endif
}

}  // namespace

const KtlsStatus& ktls_available() {
  static const KtlsStatus status = probe_ktls();
  return status;
}

const char* tls_library() {
  return OpenSSL_version(OPENSSL_VERSION);
}

}  // namespace levada::net
