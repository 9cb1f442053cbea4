// TlsSnapshot: what the options of a TlsContext became. Names OpenSSL's types, so it is not installed.
//
// Model: one SSL_CTX, made by build() and not changed afterwards; only the cache of a client's sessions is, under its
// lock. The sessions share ownership: OpenSSL's callbacks get a plain pointer to the snapshot.
#pragma once

#include <openssl/ssl.h>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include <levada/core/error.h>
#include <levada/net/tls_context.h>

namespace levada::net {

template <auto free_function>
struct OpensslFree {
  template <class T>
  void operator()(T* object) const {
    free_function(object);
  }
};
inline void free_chain(STACK_OF(X509) * chain) {
  sk_X509_pop_free(chain, X509_free);
}
using BioPtr = std::unique_ptr<BIO, OpensslFree<BIO_free>>;
using ChainPtr = std::unique_ptr<STACK_OF(X509), OpensslFree<free_chain>>;
using ContextPtr = std::unique_ptr<SSL_CTX, OpensslFree<SSL_CTX_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, OpensslFree<EVP_PKEY_free>>;
using SessionPtr = std::unique_ptr<SSL_SESSION, OpensslFree<SSL_SESSION_free>>;
using X509Ptr = std::unique_ptr<X509, OpensslFree<X509_free>>;

// A certificate with what leads to its CA, its key, and its DNS names in lower case.
struct LoadedCertificate {
  X509Ptr leaf;
  ChainPtr chain;
  KeyPtr key;
  std::vector<std::string> names;

  static Result<LoadedCertificate> load(const TlsCertificate& source);
};

// A client's sessions by "host:port", bounded. Any thread.
class TlsSessionCache {
 public:
  explicit TlsSessionCache(std::size_t limit) : limit_(limit) {}

  void put(const std::string& key, SessionPtr session);
  // The newest of that key, or nullptr. A ticket of TLS 1.3 is handed out once (RFC 8446 appendix C.4).
  SessionPtr take(std::string_view key);

 private:
  struct Entry {
    std::string key;
    SessionPtr session;
  };
  const std::size_t limit_;
  std::mutex mutex_;
  std::vector<Entry> entries_;  // oldest first
};

struct TlsSnapshot {
  TlsRole role;
  bool verifies;  // a client's: the server has to prove its name
  bool ktls;      // the kernel may make the records
  std::vector<LoadedCertificate> certificates = {};
  std::vector<std::uint8_t> alpn = {};  // as on the wire
  TlsSessionCache sessions;
  ContextPtr ssl = {};

  static Result<std::shared_ptr<TlsSnapshot>> build(TlsRole role, const TlsOptions& options);

  // The certificates for that name, best first: with it, else with its wildcard, else the first of all.
  std::vector<const LoadedCertificate*> choose(std::string_view name) const;
};

}  // namespace levada::net
