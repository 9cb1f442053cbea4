// An OpenSSL client by hand, for what a TlsSession never does.
#pragma once

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <string>
#include <string_view>

#include <levada/net/tls_snapshot.h>
#include <levada/tests/support/tls_pair.h>

namespace levada::test {

class RawClient {
 public:
  explicit RawClient(int version, const char* ciphers = "DEFAULT")
      : context_(SSL_CTX_new(TLS_client_method())) {
    SSL_CTX_set_cipher_list(context_.get(), ciphers);
    SSL_CTX_set_min_proto_version(context_.get(), version);
    SSL_CTX_set_max_proto_version(context_.get(), version);
    ssl = SSL_new(context_.get());
    SSL_set_bio(ssl, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(ssl);
  }
  RawClient(const RawClient&) = delete;
  RawClient& operator=(const RawClient&) = delete;
  ~RawClient() { SSL_free(ssl); }

  std::string take_records() {
    char* data = nullptr;
    const long size = BIO_get_mem_data(SSL_get_wbio(ssl), &data);
    std::string records(data, static_cast<std::size_t>(size));
    BIO_reset(SSL_get_wbio(ssl));
    return records;
  }

  // Handshakes as far as it goes with who answers: `exchange(records)` carries them there and returns the answer.
  // OpenSSL's last result.
  template <class Exchange>
  int shake_hands_by(Exchange&& exchange) {
    for (;;) {
      const int result = SSL_do_handshake(ssl);
      const bool failed = result <= 0 && SSL_get_error(ssl, result) != SSL_ERROR_WANT_READ;
      if (failed) reason = ERR_GET_REASON(ERR_peek_error());
      const std::string answer = exchange(take_records());
      BIO_write(SSL_get_rbio(ssl), answer.data(), static_cast<int>(answer.size()));
      if (failed || answer.empty()) return result;
    }
  }
  int shake_hands(TlsEnd& server) {
    return shake_hands_by([&](const std::string& records) {
      server.feed(records);
      return server.take_records();
    });
  }

  SSL* ssl;
  int reason = 0;  // why the handshake failed

 private:
  net::ContextPtr context_;
};

}  // namespace levada::test
