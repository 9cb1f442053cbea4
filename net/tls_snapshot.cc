#include <levada/net/tls_snapshot.h>

#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <unistd.h>
#include <algorithm>
#include <array>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <utility>

#include <levada/core/fd.h>
#include <levada/net/tls_session.h>

namespace levada::net {

// OpenSSL's callbacks. The snapshot comes as their argument, the session by the SSL object.
struct TlsCallbacks {
  // Which certificates to use: asked after the client's hello, unless a session is resumed.
  static int choose_certificate(SSL* ssl, void* snapshot) {
    const char* name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
    auto chosen = static_cast<TlsSnapshot*>(snapshot)->choose(name == nullptr ? "" : name);
    // A later one takes the place of an earlier one with the same type of key.
    std::reverse(chosen.begin(), chosen.end());
    for (const LoadedCertificate* each : chosen) {
      if (SSL_use_cert_and_key(ssl, each->leaf.get(), each->key.get(), each->chain.get(), 1) != 1) return 0;
    }
    return 1;
  }

  // The name is taken note of whatever it is (RFC 6066 section 3).
  static int take_name(SSL*, int*, void*) { return SSL_TLSEXT_ERR_OK; }

  static int choose_protocol(SSL*, const unsigned char** out, unsigned char* out_size,
                             const unsigned char* offered, unsigned offered_size, void* snapshot) {
    const auto& ours = static_cast<TlsSnapshot*>(snapshot)->alpn;
    unsigned char* chosen = nullptr;
    if (SSL_select_next_proto(&chosen, out_size, ours.data(), static_cast<unsigned>(ours.size()), offered,
                              offered_size) != OPENSSL_NPN_NEGOTIATED)
      return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
  }

  // Returns whether the reference on `session` was taken over.
  static int keep_session(SSL* ssl, SSL_SESSION* session) {
    auto* self = static_cast<TlsSession*>(SSL_get_app_data(ssl));
    if (SSL_SESSION_is_resumable(session) != 1) return 0;
    self->snapshot_->sessions.put(self->session_key_, SessionPtr(session));
    return 1;
  }

  // Without this OpenSSL would ask on the terminal.
  static int give_password(char* out, int size, int, void* password) {
    const auto& text = *static_cast<const std::string*>(password);
    if (text.empty() || text.size() > static_cast<std::size_t>(size)) return -1;
    std::copy_n(text.data(), text.size(), out);
    return static_cast<int>(text.size());
  }
};

namespace {

Error invalid(const char* option, const char* detail) {
  ERR_clear_error();
  return {.code = Errc::invalid_argument, .operation = option, .detail = detail};
}

// ---- PEM ----

Result<std::string> pem_text(const Pem& pem, const char* option) {
  if (pem.file.empty()) return pem.text;
  const Fd fd(open(pem.file.c_str(), O_RDONLY | O_CLOEXEC));
  if (!fd) return Error::from_os(option, errno);
  std::string text;
  for (;;) {
    std::array<char, 4096> buffer;
    const ssize_t got = read(fd.get(), buffer.data(), buffer.size());
    if (got < 0) return Error::from_os(option, errno);
    if (got == 0) return text;
    text.append(buffer.data(), static_cast<std::size_t>(got));
  }
}

BioPtr reading(const std::string& text) {
  return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
}

// All certificates of a PEM text, at least one.
Result<std::vector<X509Ptr>> load_certificates(const Pem& pem, const char* option) {
  Result<std::string> text = pem_text(pem, option);
  if (!text) return text.error();
  const BioPtr bio = reading(*text);
  std::vector<X509Ptr> found;
  while (X509* certificate = PEM_read_bio_X509(bio.get(), nullptr, nullptr, nullptr))
    found.emplace_back(certificate);
  const bool at_end = ERR_GET_REASON(ERR_peek_last_error()) == PEM_R_NO_START_LINE;
  if (found.empty() && at_end) return invalid(option, "no certificate in it");
  if (!at_end) return invalid(option, "a certificate in it cannot be read");
  ERR_clear_error();
  return found;
}

void wipe(std::string& secret) {
  OPENSSL_cleanse(secret.data(), secret.size());
}

KeyPtr read_key(const std::string& text, const std::string& password) {
  const BioPtr bio = reading(text);
  auto* argument = const_cast<std::string*>(&password);
  return KeyPtr(PEM_read_bio_PrivateKey(bio.get(), nullptr, &TlsCallbacks::give_password, argument));
}

Result<KeyPtr> load_key(const TlsCertificate& source) {
  constexpr const char* option = "private key";
  Result<std::string> text = pem_text(source.key, option);
  if (!text) return text.error();
  KeyPtr key = read_key(*text, source.key_password);
  wipe(*text);
  if (key != nullptr) return key;
  switch (ERR_GET_REASON(ERR_peek_last_error())) {
    case PEM_R_BAD_PASSWORD_READ:
      return invalid(option, "it is encrypted, and no password was given");
    default:
      return invalid(
          option, source.key_password.empty() ? "it cannot be read" : "wrong password, or it cannot be read");
  }
}

// ---- Names ----

std::string lower_case(std::string_view text) {
  std::string lower(text);
  for (char& c : lower) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return lower;
}

std::vector<std::string> dns_names(X509* certificate) {
  std::vector<std::string> names;
  auto* all =
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(certificate, NID_subject_alt_name, nullptr, nullptr));
  for (int i = 0; i < sk_GENERAL_NAME_num(all); i++) {
    const GENERAL_NAME* name = sk_GENERAL_NAME_value(all, i);
    if (name->type != GEN_DNS) continue;
    const auto* data = reinterpret_cast<const char*>(ASN1_STRING_get0_data(name->d.dNSName));
    names.push_back(lower_case({data, static_cast<std::size_t>(ASN1_STRING_length(name->d.dNSName))}));
  }
  GENERAL_NAMES_free(all);
  return names;
}

bool has_name(const LoadedCertificate& certificate, std::string_view name) {
  return std::find(certificate.names.begin(), certificate.names.end(), name) != certificate.names.end();
}

// ---- The parts of a snapshot ----

Error set_versions(SSL_CTX* ssl, const TlsOptions& options) {
  const auto number = [](TlsVersion version) {
    return version == TlsVersion::tls_1_2 ? TLS1_2_VERSION : TLS1_3_VERSION;
  };
  if (options.min_version > options.max_version)
    return invalid("TLS versions", "the least is above the highest");
  SSL_CTX_set_min_proto_version(ssl, number(options.min_version));
  SSL_CTX_set_max_proto_version(ssl, number(options.max_version));
  return {};
}

Error set_ciphers(SSL_CTX* ssl, const TlsOptions& options) {
  if (!options.ciphers.empty() && SSL_CTX_set_cipher_list(ssl, options.ciphers.c_str()) != 1)
    return invalid("ciphers", "OpenSSL has none of them");
  if (!options.cipher_suites.empty() && SSL_CTX_set_ciphersuites(ssl, options.cipher_suites.c_str()) != 1)
    return invalid("cipher suites", "OpenSSL does not have all of them");
  return {};
}

Error set_certificates(TlsSnapshot& snapshot, const TlsOptions& options) {
  for (const TlsCertificate& source : options.certificates) {
    Result<LoadedCertificate> loaded = LoadedCertificate::load(source);
    if (!loaded) return loaded.error();
    snapshot.certificates.push_back(std::move(*loaded));
  }
  SSL_CTX* ssl = snapshot.ssl.get();
  if (snapshot.role == TlsRole::server) {
    if (snapshot.certificates.empty()) return invalid("certificate", "a server needs one");
    SSL_CTX_set_cert_cb(ssl, &TlsCallbacks::choose_certificate, &snapshot);
    SSL_CTX_set_tlsext_servername_callback(ssl, &TlsCallbacks::take_name);
  } else if (!snapshot.certificates.empty()) {
    const LoadedCertificate& first = snapshot.certificates.front();
    if (SSL_CTX_use_cert_and_key(ssl, first.leaf.get(), first.key.get(), first.chain.get(), 1) != 1)
      return invalid("certificate", "OpenSSL refuses it");
  }
  return {};
}

Error trust(TlsSnapshot& snapshot, const Pem& ca) {
  SSL_CTX* ssl = snapshot.ssl.get();
  if (ca.empty()) {
    if (snapshot.role == TlsRole::server) return invalid("CA", "client certificates need one that is named");
    SSL_CTX_set_default_verify_paths(ssl);
    return {};
  }
  Result<std::vector<X509Ptr>> found = load_certificates(ca, "CA");
  if (!found) return found.error();
  for (const X509Ptr& each : *found) {
    X509_STORE_add_cert(SSL_CTX_get_cert_store(ssl), each.get());
    if (snapshot.role == TlsRole::server) SSL_CTX_add_client_CA(ssl, each.get());
  }
  return {};
}

Error set_verification(TlsSnapshot& snapshot, const TlsOptions& options) {
  int mode = SSL_VERIFY_NONE;
  if (snapshot.role == TlsRole::client) {
    if (snapshot.verifies) mode = SSL_VERIFY_PEER;
  } else if (options.client_certificates != ClientCertificates::none) {
    mode = SSL_VERIFY_PEER;
    if (options.client_certificates == ClientCertificates::require) mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
  }
  SSL_CTX_set_verify(snapshot.ssl.get(), mode, nullptr);
  return mode == SSL_VERIFY_NONE ? Error{} : trust(snapshot, options.ca);
}

Error set_alpn(TlsSnapshot& snapshot, const TlsOptions& options) {
  for (const std::string& name : options.alpn) {
    if (name.empty() || name.size() > 255) return invalid("ALPN", "a name has 1 to 255 bytes");
    snapshot.alpn.push_back(static_cast<std::uint8_t>(name.size()));
    snapshot.alpn.insert(snapshot.alpn.end(), name.begin(), name.end());
  }
  if (snapshot.alpn.empty()) return {};
  SSL_CTX* ssl = snapshot.ssl.get();
  if (snapshot.role == TlsRole::server) {
    SSL_CTX_set_alpn_select_cb(ssl, &TlsCallbacks::choose_protocol, &snapshot);
  } else if (SSL_CTX_set_alpn_protos(ssl, snapshot.alpn.data(),
                                     static_cast<unsigned>(snapshot.alpn.size())) != 0) {
    return invalid("ALPN", "the names are too long together");
  }
  return {};
}

void set_resumption(TlsSnapshot& snapshot, bool wanted) {
  SSL_CTX* ssl = snapshot.ssl.get();
  SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_OFF);
  if (!wanted) {
    SSL_CTX_set_options(ssl, SSL_OP_NO_TICKET);
    SSL_CTX_set_num_tickets(ssl, 0);
  } else if (snapshot.role == TlsRole::client) {
    SSL_CTX_set_session_cache_mode(ssl, SSL_SESS_CACHE_CLIENT | SSL_SESS_CACHE_NO_INTERNAL);
    SSL_CTX_sess_set_new_cb(ssl, &TlsCallbacks::keep_session);
  } else {
    // Tickets of clients that showed a certificate are only taken with it.
    static constexpr unsigned char name[] = "levada";
    SSL_CTX_set_session_id_context(ssl, name, sizeof name - 1);
  }
}

}  // namespace

Result<LoadedCertificate> LoadedCertificate::load(const TlsCertificate& source) {
  Result<std::vector<X509Ptr>> certificates = load_certificates(source.chain, "certificate");
  if (!certificates) return certificates.error();
  Result<KeyPtr> key = load_key(source);
  if (!key) return key.error();
  LoadedCertificate loaded;
  loaded.leaf = std::move(certificates->front());
  loaded.key = std::move(*key);
  if (X509_check_private_key(loaded.leaf.get(), loaded.key.get()) != 1)
    return invalid("private key", "it does not belong to the certificate");
  loaded.chain.reset(sk_X509_new_null());
  for (std::size_t i = 1; i < certificates->size(); i++)
    sk_X509_push(loaded.chain.get(), (*certificates)[i].release());
  loaded.names = dns_names(loaded.leaf.get());
  return loaded;
}

Result<std::shared_ptr<TlsSnapshot>> TlsSnapshot::build(TlsRole role, const TlsOptions& options) {
  ContextPtr ssl(SSL_CTX_new(TLS_method()));
  if (ssl == nullptr) return Error{.code = Errc::other, .operation = "TLS", .detail = "OpenSSL cannot begin"};
  std::shared_ptr<TlsSnapshot> snapshot(
      new TlsSnapshot{.role = role,
                      .verifies = role == TlsRole::client && !options.insecure_no_verification,
                      .ktls = options.ktls,
                      .sessions = TlsSessionCache(options.max_client_sessions),
                      .ssl = std::move(ssl)});
  SSL_CTX* const raw = snapshot->ssl.get();
  SSL_CTX_set_mode(raw, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_NO_AUTO_CHAIN);
  SSL_CTX_set_options(raw, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE);
  if (options.ktls && ktls_available().available) SSL_CTX_set_options(raw, SSL_OP_ENABLE_KTLS);
  set_resumption(*snapshot, options.resumption);
  if (const Error error = set_versions(raw, options)) return error;
  if (const Error error = set_ciphers(raw, options)) return error;
  if (const Error error = set_certificates(*snapshot, options)) return error;
  if (const Error error = set_verification(*snapshot, options)) return error;
  if (const Error error = set_alpn(*snapshot, options)) return error;
  return snapshot;
}

std::vector<const LoadedCertificate*> TlsSnapshot::choose(std::string_view name) const {
  if (name.ends_with('.')) name.remove_suffix(1);
  const std::string exact = lower_case(name);
  const std::size_t dot = exact.find('.');
  const std::string wildcard = dot == std::string::npos ? "" : "*" + exact.substr(dot);
  for (const std::string& wanted : {exact, wildcard}) {
    std::vector<const LoadedCertificate*> found;
    for (const LoadedCertificate& each : certificates) {
      if (has_name(each, wanted)) found.push_back(&each);
    }
    if (!found.empty()) return found;
  }
  return {&certificates.front()};
}

// ---- The client's sessions ----

void TlsSessionCache::put(const std::string& key, SessionPtr session) {
  const std::lock_guard lock(mutex_);
  if (limit_ == 0) return;
  if (entries_.size() == limit_) entries_.erase(entries_.begin());
  entries_.push_back({key, std::move(session)});
}

SessionPtr TlsSessionCache::take(std::string_view key) {
  const std::lock_guard lock(mutex_);
  const auto newest =
      std::find_if(entries_.rbegin(), entries_.rend(), [&](const Entry& entry) { return entry.key == key; });
  if (newest == entries_.rend()) return nullptr;
  if (SSL_SESSION_get_protocol_version(newest->session.get()) < TLS1_3_VERSION) {
    SSL_SESSION_up_ref(newest->session.get());
    return SessionPtr(newest->session.get());
  }
  SessionPtr session = std::move(newest->session);
  entries_.erase(std::next(newest).base());
  return session;
}

}  // namespace levada::net
