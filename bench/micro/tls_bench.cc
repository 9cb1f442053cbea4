// TLS without I/O: bytes a second that a session writes and another one reads, beside AES-128-GCM alone on the same
// bytes; and handshakes a second, both ends together. Times are of the CPU.
#include <openssl/evp.h>
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include <levada/bench/micro/micro.h>
#include <levada/tests/support/certificates.h>
#include <levada/tests/support/tls_pair.h>

namespace {

using namespace levada;

struct Contexts {
  explicit Contexts(bool rsa, bool resumption, net::TlsVersion version = net::TlsVersion::tls_1_3) {
    const test::Authority ca;
    server = *net::TlsContext::create(
        net::TlsRole::server,
        {.certificates = {ca.issue({.rsa = rsa}).tls()}, .max_version = version, .resumption = resumption});
    client = *net::TlsContext::create(net::TlsRole::client, {.ca = ca.pem(),
                                                             .ciphers = rsa ? "ECDHE-RSA-AES128-GCM-SHA256"
                                                                            : "ECDHE-ECDSA-AES128-GCM-SHA256",
                                                             .cipher_suites = "TLS_AES_128_GCM_SHA256",
                                                             .resumption = resumption});
  }
  std::shared_ptr<net::TlsContext> client, server;
};

// Encrypting and decrypting `size` bytes, as a session does for its records, without the session.
class Cipher {
 public:
  Cipher() {
    EVP_EncryptInit_ex(encrypt_, EVP_aes_128_gcm(), nullptr, key_, nonce_);
    EVP_DecryptInit_ex(decrypt_, EVP_aes_128_gcm(), nullptr, key_, nonce_);
  }
  ~Cipher() {
    EVP_CIPHER_CTX_free(encrypt_);
    EVP_CIPHER_CTX_free(decrypt_);
  }
  void round_trip(const std::uint8_t* in, std::uint8_t* between, std::uint8_t* out, int size) {
    std::uint8_t tag[16];
    int done = 0;
    nonce_[0]++;
    EVP_EncryptInit_ex(encrypt_, nullptr, nullptr, nullptr, nonce_);
    EVP_EncryptUpdate(encrypt_, nullptr, &done, header_, sizeof header_);
    EVP_EncryptUpdate(encrypt_, between, &done, in, size);
    EVP_EncryptFinal_ex(encrypt_, between + done, &done);
    EVP_CIPHER_CTX_ctrl(encrypt_, EVP_CTRL_AEAD_GET_TAG, sizeof tag, tag);
    EVP_DecryptInit_ex(decrypt_, nullptr, nullptr, nullptr, nonce_);
    EVP_DecryptUpdate(decrypt_, nullptr, &done, header_, sizeof header_);
    EVP_DecryptUpdate(decrypt_, out, &done, between, size);
    EVP_CIPHER_CTX_ctrl(decrypt_, EVP_CTRL_AEAD_SET_TAG, sizeof tag, tag);
    if (EVP_DecryptFinal_ex(decrypt_, out + done, &done) != 1) std::abort();
  }

 private:
  EVP_CIPHER_CTX* encrypt_ = EVP_CIPHER_CTX_new();
  EVP_CIPHER_CTX* decrypt_ = EVP_CIPHER_CTX_new();
  std::uint8_t key_[16] = {1};
  std::uint8_t nonce_[12] = {};
  std::uint8_t header_[5] = {0x17, 3, 3, 0, 0};
};

void BM_cipher(benchmark::State& state) {
  const auto size = static_cast<std::size_t>(state.range(0));
  std::vector<std::uint8_t> plain(size, 'x'), between(size), out(size);
  Cipher cipher;
  bench::measure(state, bench::Allocates::freely, 1, [&] {
    for (std::size_t at = 0; at < size; at += net::tls_record_bytes) {
      const std::size_t part = std::min(net::tls_record_bytes, size - at);
      cipher.round_trip(plain.data() + at, between.data() + at, out.data() + at, static_cast<int>(part));
    }
    benchmark::ClobberMemory();
  });
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * state.range(0));
}

// Writes to memory that the other end reads where it lies: as a send to the kernel and a receive, without them.
void session(benchmark::State& state, net::TlsVersion version) {
  const Contexts contexts(false, false, version);
  test::TlsPair pair(*contexts.client, *contexts.server);
  pair.exchange();
  test::TlsEnd& client = pair.client;
  const std::string text(static_cast<std::size_t>(state.range(0)), 'x');
  bench::measure(state, bench::Allocates::freely, 1, [&] {  // OpenSSL does
    if (client.session->write(to_bytes(text))) std::abort();
    MutableBytes input{reinterpret_cast<std::uint8_t*>(client.records.data()), client.records.size()};
    const net::TlsRead read = pair.server.session->read(input, pair.server.memory);
    if (read.plaintext.size() != text.size()) std::abort();
    client.records.clear();
  });
  state.SetBytesProcessed(static_cast<std::int64_t>(state.iterations()) * state.range(0));
}
void BM_session_1_2(benchmark::State& state) {
  session(state, net::TlsVersion::tls_1_2);
}
void BM_session_1_3(benchmark::State& state) {
  session(state, net::TlsVersion::tls_1_3);
}

void handshakes(benchmark::State& state, bool rsa, bool resumption) {
  const Contexts contexts(rsa, resumption);
  std::int64_t resumed = 0;
  bench::measure(state, bench::Allocates::freely, 1, [&] {
    auto pair = std::make_unique<test::TlsPair>(*contexts.client, *contexts.server);
    pair->exchange();
    if (!pair->open()) std::abort();
    resumed += pair->client.session->resumed();
  });
  state.counters["resumed"] =
      static_cast<double>(resumed) / static_cast<double>(state.iterations() + bench::warm_up_runs);
}
void BM_handshake_ecdsa(benchmark::State& state) {
  handshakes(state, false, false);
}
void BM_handshake_rsa(benchmark::State& state) {
  handshakes(state, true, false);
}
void BM_handshake_resumed(benchmark::State& state) {
  handshakes(state, false, true);
}

void sizes(benchmark::internal::Benchmark* benchmark) {
  for (const int size : {16, 125, 512, 4096, 16384, 65536}) benchmark->Arg(size);
}

BENCHMARK(BM_cipher)->Apply(sizes);
BENCHMARK(BM_session_1_2)->Apply(sizes);
BENCHMARK(BM_session_1_3)->Apply(sizes);
BENCHMARK(BM_handshake_ecdsa);
BENCHMARK(BM_handshake_rsa);
BENCHMARK(BM_handshake_resumed);

}  // namespace
