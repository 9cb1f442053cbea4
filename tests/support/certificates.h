// Certificates made on the spot: an authority with a key of its own, and what it issues. For tests and benchmarks.
#pragma once

#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <utility>

#include <levada/net/tls_context.h>
#include <levada/net/tls_snapshot.h>

namespace levada::test {

struct Issued {
  std::string certificate;  // PEM
  std::string key;          // PEM
  net::TlsCertificate tls() const { return {.chain = {.text = certificate}, .key = {.text = key}}; }
};

struct CertificateRequest {
  std::string common_name = "leaf";
  std::string names = "DNS:localhost,IP:127.0.0.1";  // as OpenSSL's configuration writes them; empty: none
  long valid_from_s = -3600;                         // from now
  long valid_until_s = 24 * 3600;
  bool rsa = false;
};

template <class Write>
std::string to_pem(Write write) {
  const net::BioPtr bio(BIO_new(BIO_s_mem()));
  if (write(bio.get()) != 1) std::abort();
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  return {text, static_cast<std::size_t>(size)};
}

inline std::string to_pem(X509* certificate) {
  return to_pem([&](BIO* bio) { return PEM_write_bio_X509(bio, certificate); });
}
// Encrypted if there is a password.
inline std::string to_pem(EVP_PKEY* key, const std::string& password = {}) {
  return to_pem([&](BIO* bio) {
    const auto* text = reinterpret_cast<const unsigned char*>(password.data());
    return PEM_write_bio_PrivateKey(bio, key, password.empty() ? nullptr : EVP_aes_128_cbc(), text,
                                    static_cast<int>(password.size()), nullptr, nullptr);
  });
}

// Without an issuer the certificate signs itself.
class Authority {
 public:
  explicit Authority(const std::string& name = "CA") : key_(make_key(false)) {
    certificate_ = build({.common_name = name, .names = ""}, key_.get(), true);
  }

  net::Pem pem() const { return {.text = to_pem(certificate_.get())}; }

  Issued issue(const CertificateRequest& request = {}) const {
    const net::KeyPtr key = make_key(request.rsa);
    return {to_pem(build(request, key.get(), false).get()), to_pem(key.get())};
  }
  // An authority below this one, and the chain's certificate for it.
  Authority issue_authority(const std::string& name) const {
    net::KeyPtr key = make_key(false);
    net::X509Ptr certificate = build({.common_name = name, .names = ""}, key.get(), true);
    return Authority(std::move(key), std::move(certificate));
  }
  static Issued self_signed(const CertificateRequest& request = {}) {
    const Authority own(make_key(request.rsa), nullptr);
    return {to_pem(own.build(request, own.key_.get(), false).get()), to_pem(own.key_.get())};
  }

 private:
  Authority(net::KeyPtr key, net::X509Ptr certificate)
      : key_(std::move(key)), certificate_(std::move(certificate)) {}

  static net::KeyPtr make_key(bool rsa) { return net::KeyPtr(rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256")); }

  net::X509Ptr build(const CertificateRequest& request, EVP_PKEY* key, bool authority) const {
    static long serial = 0;
    net::X509Ptr made(X509_new());
    X509* const raw = made.get();
    X509_set_version(raw, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(raw), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(raw), request.valid_from_s);
    X509_gmtime_adj(X509_getm_notAfter(raw), request.valid_until_s);
    X509_set_pubkey(raw, key);
    const auto* name = reinterpret_cast<const unsigned char*>(request.common_name.c_str());
    X509_NAME_add_entry_by_txt(X509_get_subject_name(raw), "CN", MBSTRING_UTF8, name, -1, -1, 0);
    X509* const issuer = certificate_ == nullptr ? raw : certificate_.get();
    X509_set_issuer_name(raw, X509_get_subject_name(issuer));
    extend(raw, issuer, NID_basic_constraints, authority ? "critical,CA:TRUE" : "critical,CA:FALSE");
    extend(raw, issuer, NID_subject_key_identifier, "hash");
    if (issuer != raw) extend(raw, issuer, NID_authority_key_identifier, "keyid:always");
    if (authority) extend(raw, issuer, NID_key_usage, "critical,keyCertSign,cRLSign");
    if (!request.names.empty()) extend(raw, issuer, NID_subject_alt_name, request.names.c_str());
    if (X509_sign(raw, key_.get(), EVP_sha256()) == 0) std::abort();
    return made;
  }

  static void extend(X509* certificate, X509* issuer, int kind, const char* value) {
    X509V3_CTX context;
    X509V3_set_ctx(&context, issuer, certificate, nullptr, nullptr, 0);
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, kind, value);
    if (extension == nullptr || X509_add_ext(certificate, extension, -1) != 1) std::abort();
    X509_EXTENSION_free(extension);
  }

  net::KeyPtr key_;
  net::X509Ptr certificate_;
};

}  // namespace levada::test
