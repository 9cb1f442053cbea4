// TlsContext: what all TLS connections of a service or of a client have in common (TLS 1.2 and 1.3).
//
// Model: options become one snapshot that never changes: certificates, trusted CAs, settings, keys for session tickets.
// A session (tls_session.h) begins with the snapshot of that moment and keeps it to its end; replace() makes another
// one for the sessions that begin later. Invariants: versions below TLS 1.2, compression, renegotiation and early data
// are off, and no option turns them on; a client verifies the server unless an option with "insecure" in its name says
// otherwise.
//
// Any thread may call any function here. Built without OpenSSL (-Dtls=disabled), create() returns Errc::not_supported.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include <levada/core/error.h>

namespace levada::net {

enum class TlsRole : std::uint8_t { client, server };
enum class TlsVersion : std::uint8_t { tls_1_2, tls_1_3 };

// What a server asks of its clients.
enum class ClientCertificates : std::uint8_t {
  none,
  request,  // one may be sent; if it is, it has to be good
  require,
};

// PEM in a file, or as text if the file's name is empty.
struct Pem {
  std::string file = {};
  std::string text = {};
  bool empty() const { return file.empty() && text.empty(); }
};

struct TlsCertificate {
  Pem chain = {};  // the certificate, then those that lead to its CA
  Pem key = {};
  std::string key_password = {};  // if the key is encrypted; nobody is ever asked on the terminal
};

struct TlsOptions {
  // A server's: that of the name that the client asks for (SNI) is taken, by the certificates' DNS names, exact before
  // "*.example.com"; the first one when none has it. Of several for the same name, the key that the client can check
  // decides. A client's: the first is sent to servers that ask for one.
  std::vector<TlsCertificate> certificates = {};

  // Who is trusted: CAs, and nobody else. Empty: the system's (a client's; a server that asks for certificates has to
  // name its CAs). OpenSSL reads the system's CAs when a handshake first needs them.
  Pem ca = {};
  ClientCertificates client_certificates = ClientCertificates::none;
  // A client that accepts any certificate: whoever sits on the way can read and change everything.
  bool insecure_no_verification = false;

  // ALPN, in order of preference. A server refuses a client that offers some, but none of these. Empty: not used.
  std::vector<std::string> alpn = {};

  TlsVersion min_version = TlsVersion::tls_1_2;
  TlsVersion max_version = TlsVersion::tls_1_3;
  std::string ciphers = {};        // of TLS 1.2, as OpenSSL writes them; empty: OpenSSL's default
  std::string cipher_suites = {};  // of TLS 1.3

  // Session resumption. A server hands out tickets and keeps nothing; a client keeps that many sessions, the oldest go
  // first. A resumed handshake shows no certificate; what the first one proved still holds.
  bool resumption = true;
  std::size_t max_client_sessions = 256;

  // Let the kernel make the records that are sent (kTLS), where it can: on TCP connections of reactors on epoll and
  // io_uring, with AES-GCM and ChaCha20-Poly1305. Where it cannot, OpenSSL makes them, and TlsSession::ktls() says why.
  // The kernel's keys cannot be changed: a peer that asks for new ones (few do, after some hundred gigabytes) is sent an
  // alert, and its connection ends with Errc::not_supported; TlsSession::update_keys() fails with the same. Turn it off
  // for connections that carry so much.
  bool ktls = true;
};

struct TlsSnapshot;

class TlsContext {
 public:
  // Loads everything. Errors: those of opening and reading a file; invalid_argument with a detail ("the key does not
  // belong to the certificate", ...) and, as the operation, the option that is wrong; not_supported.
  static Result<std::shared_ptr<TlsContext>> create(TlsRole role, const TlsOptions& options);

  TlsContext(const TlsContext&) = delete;
  TlsContext& operator=(const TlsContext&) = delete;
  ~TlsContext();

  // Options for the sessions that begin from now on, for example after a certificate was renewed or a CA withdrawn.
  // Those that began, their handshakes too, go on with what they have. Nothing from before is resumed: whom the new
  // options do not trust cannot come back with an old ticket. On an error everything stays as it was.
  Error replace(const TlsOptions& options);

  TlsRole role() const { return role_; }

 private:
  friend class TlsSession;
  TlsContext(TlsRole role, std::shared_ptr<TlsSnapshot> snapshot);
  std::shared_ptr<TlsSnapshot> snapshot() const;

  const TlsRole role_;
  mutable std::mutex mutex_;
  std::shared_ptr<TlsSnapshot> snapshot_;  // guarded by mutex_
};

// Whether the kernel can make records (kTLS): OpenSSL and the kernel both have to be built for it. levada lets it make
// those that are sent; what is received is opened by OpenSSL (tls_kernel.h says why).
struct KtlsStatus {
  bool available = false;
  const char* reason = "";  // why not; static storage
};
// Asks the kernel once and remembers.
const KtlsStatus& ktls_available();

struct KtlsUse {
  bool sends = false,
       receives = false;    // whether the kernel makes the records that are sent, and opens the others
  const char* reason = "";  // why not both; static storage
};

}  // namespace levada::net
