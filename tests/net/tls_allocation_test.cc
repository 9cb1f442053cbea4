// The proof that messages over TLS allocate nothing on our side in the steady state. OpenSSL's own allocations go
// through functions of ours, so that they can be taken off, and shown.
#include <cstdlib>
#include <string>

#include <doctest/doctest.h>

#include <levada/net/tls_session.h>
#include <levada/tests/support/certificates.h>
#include <levada/tests/support/count_openssl.h>
#include <levada/tests/support/tls_pair.h>

using namespace levada;
using namespace levada::net;

namespace {

using test::counts_openssl;
using test::openssl_allocations;
using test::our_allocations;

// Carries one message from one end to the other, with memory that is there already.
void carry(test::TlsEnd& from, test::TlsEnd& to, std::string_view text) {
  TlsPieces pieces(*from.session, from.memory);
  pieces.add(to_bytes(text.substr(0, text.size() / 2)));
  pieces.add(to_bytes(text.substr(text.size() / 2)));
  REQUIRE_FALSE(pieces.finish());
  to.received.assign(from.records.begin(), from.records.end());
  from.records.clear();
  to.plaintext.clear();
  MutableBytes input{to.received};
  for (;;) {
    const TlsRead read = to.session->read(input, to.memory);
    if (read.event != TlsEvent::data) break;
    to.plaintext += to_text(read.plaintext);
  }
  from.memory.reset();
  to.memory.reset();
}

}  // namespace

TEST_CASE("messages over TLS allocate nothing on our side") {
  REQUIRE(counts_openssl);
  const test::Authority ca;
  for (const TlsVersion version : {TlsVersion::tls_1_2, TlsVersion::tls_1_3}) {
    const auto server =
        *TlsContext::create(TlsRole::server, {.certificates = {ca.issue().tls()}, .max_version = version});
    const auto client = *TlsContext::create(TlsRole::client, {.ca = ca.pem()});
    test::TlsPair pair(*client, *server);
    pair.exchange();
    REQUIRE(pair.open());
    for (test::TlsEnd* end : {&pair.client, &pair.server}) end->records.reserve(1 << 21);
    std::string text(std::size_t{1} << 20, 'x');
    std::uint64_t ours = 0, openssls = 0;
    for (const bool warm_up : {true, false}) {
      const std::uint64_t ours_before = our_allocations(), openssls_before = openssl_allocations;
      for (int round = 0; round < 200; round++) {
        for (const std::size_t size : std::initializer_list<std::size_t>{16, 125, 4096, 20'000, 1 << 20}) {
          if (size == text.size() && round % 20 != 0) continue;
          carry(pair.client, pair.server, std::string_view(text).substr(0, size));
          carry(pair.server, pair.client, std::string_view(text).substr(0, size));
          if (pair.client.plaintext.size() != size) FAIL("lost bytes");
        }
      }
      if (warm_up) continue;
      ours = our_allocations() - ours_before;
      openssls = openssl_allocations - openssls_before;
    }
    CHECK(ours == 0);
    MESSAGE("OpenSSL's own, for 1620 messages: " << openssls);
  }
}

TEST_CASE("an allocation of ours would be counted, and one of OpenSSL's would not") {
  const std::uint64_t before = our_allocations();
  const std::uint64_t openssls_before = openssl_allocations;
  OPENSSL_free(OPENSSL_malloc(10));
  CHECK(our_allocations() == before);
  CHECK(openssl_allocations == openssls_before + 1);
  const std::string text(1000, 'x');
  CHECK(our_allocations() == before + 1);
}
