#include <doctest/doctest.h>

#include <levada/net/tls_context.h>

using namespace levada;
using namespace levada::net;

TEST_CASE("built without OpenSSL, TLS says that it is not there") {
  for (const TlsRole role : {TlsRole::client, TlsRole::server}) {
    const auto context = TlsContext::create(role, {});
    REQUIRE_FALSE(context);
    CHECK(context.error().code == Errc::not_supported);
    CHECK(context.error().message() == "TLS: not_supported (built without OpenSSL)");
  }
  CHECK_FALSE(ktls_available().available);
}
