#include <levada/net/tls_context.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include <doctest/doctest.h>

#include <levada/core/fd.h>
#include <levada/tests/support/certificates.h>
#include <levada/tests/support/tls_pair.h>

using namespace levada;
using namespace levada::net;
using levada::test::Authority;
using levada::test::CertificateRequest;
using levada::test::Issued;
using levada::test::TlsPair;

namespace {

using ContextRef = std::shared_ptr<TlsContext>;

ContextRef context(TlsRole role, const TlsOptions& options) {
  auto made = TlsContext::create(role, options);
  if (!made) FAIL(made.error().message());
  return *made;
}
ContextRef server_of(const Issued& issued) {
  return context(TlsRole::server, {.certificates = {issued.tls()}});
}
ContextRef client_of(const Pem& ca) {
  return context(TlsRole::client, {.ca = ca});
}

std::string why_not(TlsRole role, const TlsOptions& options) {
  const auto made = TlsContext::create(role, options);
  return made ? "" : made.error().message();
}

// What each end says about a handshake that must fail: "client | server".
std::string failure(const TlsContext& client, const TlsContext& server, std::string_view host = "localhost") {
  TlsPair pair(client, server, host);
  pair.exchange();
  CHECK(pair.client.plaintext.empty());
  CHECK(pair.server.plaintext.empty());
  const auto text = [](const TlsSession& session) {
    return session.error() ? session.error().message() : "fine";
  };
  return text(*pair.client.session) + " | " + text(*pair.server.session);
}

bool connects(const TlsContext& client, const TlsContext& server, std::string_view host = "localhost") {
  TlsPair pair(client, server, host);
  pair.exchange();
  return pair.open();
}

// The common name of the certificate that the server shows for a name.
std::string shown_for(const TlsContext& server, const Authority& ca, std::string_view host) {
  TlsPair pair(*client_of(ca.pem()), server, host);
  pair.exchange();
  return pair.open() ? pair.client.session->peer_subject() : pair.client.session->error().message();
}

struct TemporaryFile {
  explicit TemporaryFile(const std::string& text) {
    std::snprintf(name, sizeof name, "/tmp/levada-tls-XXXXXX");
    const Fd fd(mkstemp(name));
    REQUIRE(fd);
    std::ofstream(name) << text;
  }
  ~TemporaryFile() { std::remove(name); }
  char name[64] = "";
};

}  // namespace

TEST_CASE("certificates, keys and CAs come from files as well as from text") {
  const Authority ca;
  const Issued issued = ca.issue();
  const TemporaryFile chain(issued.certificate), key(issued.key), root(ca.pem().text);
  const auto server = context(TlsRole::server,
                              {.certificates = {{.chain = {.file = chain.name}, .key = {.file = key.name}}}});
  CHECK(connects(*client_of({.file = root.name}), *server));
  CHECK(connects(*client_of(ca.pem()), *server));
}

TEST_CASE("options that cannot work are refused with what is wrong") {
  const Authority ca;
  const Issued good = ca.issue();
  const Issued other = ca.issue();
  const auto server = [](TlsCertificate certificate) {
    return why_not(TlsRole::server, {.certificates = {std::move(certificate)}});
  };
  CHECK(why_not(TlsRole::server, {}) == "certificate: invalid_argument (a server needs one)");
  CHECK(server({.chain = {.file = "/nowhere"}, .key = {.text = good.key}}) ==
        "certificate: not_found (No such file or directory)");
  CHECK(server({.chain = {.text = "hello"}, .key = {.text = good.key}}) ==
        "certificate: invalid_argument (no certificate in it)");
  std::string broken = good.certificate;
  broken[100] = '!';
  CHECK(server({.chain = {.text = broken}, .key = {.text = good.key}}) ==
        "certificate: invalid_argument (a certificate in it cannot be read)");
  CHECK(server({.chain = {.text = good.certificate + broken}, .key = {.text = good.key}}) ==
        "certificate: invalid_argument (a certificate in it cannot be read)");
  CHECK(server({.chain = {.text = good.certificate}, .key = {.text = other.key}}) ==
        "private key: invalid_argument (it does not belong to the certificate)");
  CHECK(server({.chain = {.text = good.certificate}, .key = {.text = good.certificate}}) ==
        "private key: invalid_argument (it cannot be read)");
  CHECK(why_not(TlsRole::client, {.ca = {.text = "x"}}) == "CA: invalid_argument (no certificate in it)");
  CHECK(why_not(TlsRole::client, {.alpn = {""}}) == "ALPN: invalid_argument (a name has 1 to 255 bytes)");
  CHECK(why_not(TlsRole::client, {.ciphers = "nothing"}) ==
        "ciphers: invalid_argument (OpenSSL has none of them)");
  CHECK(why_not(TlsRole::client, {.cipher_suites = "nothing"}) ==
        "cipher suites: invalid_argument (OpenSSL does not have all of them)");
  CHECK(why_not(TlsRole::client, {.min_version = TlsVersion::tls_1_3, .max_version = TlsVersion::tls_1_2}) ==
        "TLS versions: invalid_argument (the least is above the highest)");
  CHECK(why_not(TlsRole::server,
                {.certificates = {good.tls()}, .client_certificates = ClientCertificates::require}) ==
        "CA: invalid_argument (client certificates need one that is named)");
}

TEST_CASE("an encrypted key needs its password, and nobody is asked for it") {
  const Authority ca;
  const Issued issued = ca.issue();
  const BioPtr bio(BIO_new_mem_buf(issued.key.data(), static_cast<int>(issued.key.size())));
  const KeyPtr key(PEM_read_bio_PrivateKey(bio.get(), nullptr, nullptr, nullptr));
  TlsCertificate source{.chain = {.text = issued.certificate},
                        .key = {.text = test::to_pem(key.get(), "secret")}};
  CHECK(why_not(TlsRole::server, {.certificates = {source}}) ==
        "private key: invalid_argument (it is encrypted, and no password was given)");
  source.key_password = "guess";
  CHECK(why_not(TlsRole::server, {.certificates = {source}}) ==
        "private key: invalid_argument (wrong password, or it cannot be read)");
  source.key_password = "secret";
  CHECK(connects(*client_of(ca.pem()), *context(TlsRole::server, {.certificates = {source}})));
}

TEST_CASE("certificates that must not be trusted are refused, each with its reason") {
  const Authority ca("CA"), stranger("stranger");
  const auto client = client_of(ca.pem());
  CHECK(connects(*client, *server_of(ca.issue())));
  CHECK(failure(*client, *server_of(ca.issue({.valid_from_s = -7200, .valid_until_s = -3600}))) ==
        "TLS handshake: certificate_refused (certificate has expired) | "
        "TLS handshake: alert_received (certificate expired)");
  CHECK(failure(*client, *server_of(ca.issue({.valid_from_s = 3600}))) ==
        "TLS handshake: certificate_refused (certificate is not valid yet) | "
        "TLS handshake: alert_received (bad certificate)");
  CHECK(failure(*client, *server_of(Authority::self_signed())) ==
        "TLS handshake: certificate_refused (self-signed certificate) | "
        "TLS handshake: alert_received (unknown CA)");
  CHECK(failure(*client, *server_of(stranger.issue())) ==
        "TLS handshake: certificate_refused (unknown CA) | TLS handshake: alert_received (unknown CA)");
  Issued with_root = stranger.issue();
  with_root.certificate += stranger.pem().text;
  CHECK(failure(*client, *server_of(with_root)) ==
        "TLS handshake: certificate_refused (unknown CA) | TLS handshake: alert_received (unknown CA)");
  CHECK(failure(*client, *server_of(ca.issue()), "example.com") ==
        "TLS handshake: certificate_refused (host name does not match) | "
        "TLS handshake: alert_received (bad certificate)");
  CHECK(failure(*client, *server_of(ca.issue()), "127.0.0.2") ==
        "TLS handshake: certificate_refused (IP address does not match) | "
        "TLS handshake: alert_received (bad certificate)");
  // A name that only the subject has, be it the right one, counts for nothing.
  for (const std::string common_name : {"leaf", "localhost"}) {
    CHECK(failure(*client, *server_of(ca.issue({.common_name = common_name, .names = ""}))) ==
          "TLS handshake: certificate_refused (host name does not match) | "
          "TLS handshake: alert_received (bad certificate)");
  }
}

TEST_CASE("without CAs of its own a client trusts the system's, who know nothing of a test's CA") {
  const Authority ca;
  const auto client = context(TlsRole::client, {});
  CHECK(failure(*client, *server_of(ca.issue())) ==
        "TLS handshake: certificate_refused (unknown CA) | TLS handshake: alert_received (unknown CA)");
}

TEST_CASE("a chain through an authority in between leads to the CA, and without it does not") {
  const Authority root("root");
  const Authority between = root.issue_authority("between");
  Issued issued = between.issue();
  CHECK_FALSE(connects(*client_of(root.pem()), *server_of(issued)));
  issued.certificate += between.pem().text;
  CHECK(connects(*client_of(root.pem()), *server_of(issued)));
}

TEST_CASE("hosts are checked as names with and without wildcards, with a last dot, and as addresses") {
  const Authority ca;
  const auto server = server_of(ca.issue({.names = "DNS:example.com,DNS:*.example.org,IP:127.0.0.1,IP:::1"}));
  const auto client = client_of(ca.pem());
  for (const char* host :
       {"example.com", "EXAMPLE.com", "example.com.", "a.example.org", "127.0.0.1", "::1", "[::1]"}) {
    CAPTURE(host);
    CHECK(connects(*client, *server, host));
  }
  for (const char* host : {"www.example.com", "example.org", "a.b.example.org", "127.0.0.2", "::2"}) {
    CAPTURE(host);
    CHECK_FALSE(connects(*client, *server, host));
  }
  test::TlsEnd end;
  for (const std::string_view host : {std::string_view(""), std::string_view("example.com\0.evil", 17)}) {
    const auto session = TlsSession::connect(*client, host, 443, end.output());
    REQUIRE_FALSE(session);
    CHECK(session.error().message() == "TLS: invalid_argument (not a host's name)");
  }
}

TEST_CASE("verification is off only by the option that says so") {
  const auto server = server_of(Authority::self_signed({.names = ""}));
  const auto client = context(TlsRole::client, {.insecure_no_verification = true});
  TlsPair pair(*client, *server, "anything");
  pair.exchange();
  CHECK(pair.open());
  CHECK(pair.client.session->peer_subject().empty());
}

TEST_CASE("a server shows the certificate of the name that is asked for") {
  const Authority ca;
  const auto leaf = [&](const char* name, const char* names) {
    return ca.issue({.common_name = name, .names = names}).tls();
  };
  const auto server = context(
      TlsRole::server,
      {.certificates = {leaf("first", "DNS:localhost,IP:127.0.0.1"), leaf("wild", "DNS:*.example.com"),
                        leaf("exact", "DNS:www.example.com"), leaf("upper", "DNS:Example.NET")}});
  CHECK(shown_for(*server, ca, "localhost") == "CN=first");
  CHECK(shown_for(*server, ca, "127.0.0.1") == "CN=first");  // addresses are not asked for by name
  CHECK(shown_for(*server, ca, "www.example.com") == "CN=exact");
  CHECK(shown_for(*server, ca, "WWW.example.com") == "CN=exact");
  CHECK(shown_for(*server, ca, "other.example.com") == "CN=wild");
  CHECK(shown_for(*server, ca, "example.net") == "CN=upper");
  CHECK(shown_for(*server, ca, "a.b.example.com") ==
        "TLS handshake: certificate_refused (host name does not match)");
  TlsPair pair(*client_of(ca.pem()), *server, "www.example.com");
  pair.exchange();
  CHECK(pair.server.session->server_name() == "www.example.com");
}

TEST_CASE("of two certificates for one name, the client's abilities decide") {
  const Authority ca;
  const auto server =
      context(TlsRole::server, {.certificates = {ca.issue({.common_name = "ecdsa"}).tls(),
                                                 ca.issue({.common_name = "rsa", .rsa = true}).tls()}});
  for (const auto& [cipher, shown] : {std::pair{"ECDHE-ECDSA-AES128-GCM-SHA256", "CN=ecdsa"},
                                      std::pair{"ECDHE-RSA-AES128-GCM-SHA256", "CN=rsa"}}) {
    const auto client =
        context(TlsRole::client, {.ca = ca.pem(), .max_version = TlsVersion::tls_1_2, .ciphers = cipher});
    TlsPair pair(*client, *server);
    pair.exchange();
    REQUIRE(pair.open());
    CHECK(pair.client.session->peer_subject() == shown);
    CHECK(pair.client.session->cipher() == cipher);
  }
}

TEST_CASE("a certificate is replaced while running; a handshake under way keeps the old one") {
  const Authority ca;
  const auto server = server_of(ca.issue({.common_name = "old"}));
  const auto client = client_of(ca.pem());
  TlsPair under_way(*client, *server);  // the hello is not delivered yet
  REQUIRE_FALSE(server->replace({.certificates = {ca.issue({.common_name = "new"}).tls()}}));
  under_way.exchange();
  CHECK(under_way.open());
  CHECK(under_way.client.session->peer_subject() == "CN=old");
  CHECK(shown_for(*server, ca, "localhost") == "CN=new");
  CHECK(server->replace({}).code == Errc::invalid_argument);  // and nothing changes
  CHECK(shown_for(*server, ca, "localhost") == "CN=new");
}

TEST_CASE("certificates are replaced while other threads shake hands") {
  const Authority ca;
  const TlsOptions options[] = {{.certificates = {ca.issue({.common_name = "a"}).tls()}},
                                {.certificates = {ca.issue({.common_name = "b"}).tls()}}};
  const auto server = context(TlsRole::server, options[0]);
  const auto client = client_of(ca.pem());
  std::atomic<int> connected{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < 2; i++) {
    threads.emplace_back([&] {
      for (int round = 0; round < 40; round++) connected += connects(*client, *server);
    });
  }
  for (int round = 0; round < 200; round++) {
    if (server->replace(options[round % 2])) FAIL("replace");
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(connected == 80);
}

TEST_CASE("a CA that is withdrawn is not trusted any more, not even by a session from before") {
  const Authority old_ca("old"), new_ca("new");
  const auto server = server_of(old_ca.issue());
  const auto client = client_of(old_ca.pem());
  CHECK(connects(*client, *server));
  REQUIRE_FALSE(client->replace({.ca = new_ca.pem()}));
  CHECK(failure(*client, *server) ==
        "TLS handshake: certificate_refused (unknown CA) | TLS handshake: alert_received (unknown CA)");

  const auto mutual = [&](const Authority& ca) {
    return TlsOptions{.certificates = {new_ca.issue().tls()},
                      .ca = ca.pem(),
                      .client_certificates = ClientCertificates::require};
  };
  const auto guarded = context(TlsRole::server, mutual(old_ca));
  const auto guest = context(TlsRole::client, {.certificates = {old_ca.issue().tls()}, .ca = new_ca.pem()});
  CHECK(connects(*guest, *guarded));
  REQUIRE_FALSE(guarded->replace(mutual(new_ca)));
  TlsPair again(*guest, *guarded);  // with a ticket of the first time
  again.exchange();
  CHECK(again.server.session->error().message() == "TLS handshake: certificate_refused (unknown CA)");
}

TEST_CASE("ALPN: the server's preference counts, and nothing in common is an error") {
  const Authority ca;
  const auto server =
      context(TlsRole::server, {.certificates = {ca.issue().tls()}, .alpn = {"http/1.1", "chat"}});
  const auto agreed = [&](std::vector<std::string> offered) {
    const auto client = context(TlsRole::client, {.ca = ca.pem(), .alpn = std::move(offered)});
    TlsPair pair(*client, *server);
    pair.exchange();
    if (!pair.open()) return pair.server.session->error().message();
    CHECK(pair.client.session->alpn() == pair.server.session->alpn());
    return std::string(pair.client.session->alpn());
  };
  CHECK(agreed({"h2", "http/1.1"}) == "http/1.1");
  CHECK(agreed({"chat", "http/1.1"}) == "http/1.1");
  CHECK(agreed({"chat"}) == "chat");
  CHECK(agreed({}).empty());
  CHECK(agreed({"h2"}) == "TLS handshake: protocol (no application protocol)");
}

TEST_CASE("a session is resumed with its host and port, and with no other") {
  const Authority ca;
  for (const TlsVersion version : {TlsVersion::tls_1_2, TlsVersion::tls_1_3}) {
    CAPTURE(static_cast<int>(version));
    const auto server = context(
        TlsRole::server,
        {.certificates = {ca.issue({.names = "DNS:localhost,DNS:other"}).tls()}, .max_version = version});
    const auto client = client_of(ca.pem());
    const auto resumed = [&](std::string_view host, bool orderly) {
      TlsPair pair(*client, *server, host);
      pair.exchange();
      REQUIRE(pair.open());
      CHECK(pair.client.session->resumed() == pair.server.session->resumed());
      CHECK(pair.client.session->peer_subject() == "CN=leaf");
      if (orderly) pair.client.session->close();
      return pair.client.session->resumed();
    };
    CHECK_FALSE(resumed("localhost", true));
    CHECK(resumed("localhost", false));
    CHECK(resumed("localhost", true));  // though the one before ended without close_notify
    CHECK_FALSE(resumed("other", true));
    REQUIRE_FALSE(server->replace({.certificates = {ca.issue().tls()}, .max_version = version}));
    CHECK_FALSE(resumed("localhost", true));
    CHECK(resumed("localhost", true));
  }
}

TEST_CASE("a client keeps as many sessions as it may, and none when resumption is off on either side") {
  const Authority ca;
  const TlsCertificate certificate = ca.issue({.names = "DNS:a,DNS:b,DNS:c"}).tls();
  const auto resumed = [&](const TlsContext& client, const TlsContext& server, std::string_view host) {
    TlsPair pair(client, server, host);
    pair.exchange();
    REQUIRE(pair.open());
    return pair.client.session->resumed();
  };
  const auto server = context(TlsRole::server, {.certificates = {certificate}});
  // A handshake of TLS 1.3 brings two tickets.
  const auto client = context(TlsRole::client, {.ca = ca.pem(), .max_client_sessions = 4});
  for (const char* host : {"a", "b", "c"}) CHECK_FALSE(resumed(*client, *server, host));
  CHECK(resumed(*client, *server, "c"));
  CHECK_FALSE(resumed(*client, *server, "a"));
  const auto forgetful = context(TlsRole::client, {.ca = ca.pem(), .resumption = false});
  CHECK_FALSE(resumed(*forgetful, *server, "a"));
  CHECK_FALSE(resumed(*forgetful, *server, "a"));
  for (const TlsVersion version : {TlsVersion::tls_1_2, TlsVersion::tls_1_3}) {
    const auto strict = context(TlsRole::server,
                                {.certificates = {certificate}, .max_version = version, .resumption = false});
    const auto fresh = client_of(ca.pem());
    CHECK_FALSE(resumed(*fresh, *strict, "a"));
    CHECK_FALSE(resumed(*fresh, *strict, "a"));
  }
}

TEST_CASE("client certificates: not asked for, welcome, required") {
  const Authority ca, stranger;
  const TlsCertificate own = ca.issue().tls();
  const auto client = [&](std::vector<TlsCertificate> shown, TlsVersion version) {
    return context(TlsRole::client,
                   {.certificates = std::move(shown), .ca = ca.pem(), .max_version = version});
  };
  const TlsCertificate alice = ca.issue({.common_name = "alice", .names = ""}).tls();
  const TlsCertificate mallory = stranger.issue({.common_name = "mallory", .names = ""}).tls();
  for (const TlsVersion version : {TlsVersion::tls_1_2, TlsVersion::tls_1_3}) {
    CAPTURE(static_cast<int>(version));
    const auto subject = [&](ClientCertificates mode, std::vector<TlsCertificate> shown) {
      const auto server =
          context(TlsRole::server, {.certificates = {own}, .ca = ca.pem(), .client_certificates = mode});
      TlsPair pair(*client(std::move(shown), version), *server);
      pair.exchange();
      const TlsSession& session = *pair.server.session;
      return session.error() ? session.error().message() : "<" + session.peer_subject() + ">";
    };
    CHECK(subject(ClientCertificates::none, {alice}) == "<>");
    CHECK(subject(ClientCertificates::request, {}) == "<>");
    CHECK(subject(ClientCertificates::request, {alice}) == "<CN=alice>");
    CHECK(subject(ClientCertificates::request, {mallory}) ==
          "TLS handshake: certificate_refused (unknown CA)");
    CHECK(subject(ClientCertificates::require, {alice}) == "<CN=alice>");
    CHECK(subject(ClientCertificates::require, {}) ==
          "TLS handshake: certificate_refused (the peer has no certificate)");
  }
}

TEST_CASE("a client learns of its refused certificate, in TLS 1.3 after its own handshake") {
  const Authority ca;
  const auto server = context(TlsRole::server, {.certificates = {ca.issue().tls()},
                                                .ca = ca.pem(),
                                                .client_certificates = ClientCertificates::require});
  TlsPair pair(*client_of(ca.pem()), *server);
  pair.exchange();
  CHECK(pair.client.established == 1);
  CHECK(pair.client.session->error().code == Errc::alert_received);
}

TEST_CASE("a client's certificate is remembered by the session that is resumed") {
  const Authority ca;
  const auto server = context(TlsRole::server, {.certificates = {ca.issue().tls()},
                                                .ca = ca.pem(),
                                                .client_certificates = ClientCertificates::require});
  const auto client =
      context(TlsRole::client, {.certificates = {ca.issue({.common_name = "alice"}).tls()}, .ca = ca.pem()});
  for (const bool again : {false, true}) {
    TlsPair pair(*client, *server);
    pair.exchange();
    REQUIRE(pair.open());
    CHECK(pair.server.session->resumed() == again);
    CHECK(pair.server.session->peer_subject() == "CN=alice");
  }
}

TEST_CASE("the versions and ciphers that were asked for are the ones used") {
  const Authority ca;
  const auto server = server_of(ca.issue());
  const auto used = [&](const TlsOptions& options) {
    TlsPair pair(*context(TlsRole::client, options), *server);
    pair.exchange();
    REQUIRE(pair.open());
    return std::string(pair.client.session->version()) + " " + std::string(pair.server.session->cipher());
  };
  CHECK(used({.ca = ca.pem(), .cipher_suites = "TLS_CHACHA20_POLY1305_SHA256"}) ==
        "TLSv1.3 TLS_CHACHA20_POLY1305_SHA256");
  CHECK(used({.ca = ca.pem(),
              .max_version = TlsVersion::tls_1_2,
              .ciphers = "ECDHE-ECDSA-AES256-GCM-SHA384"}) == "TLSv1.2 ECDHE-ECDSA-AES256-GCM-SHA384");
  const auto new_only =
      context(TlsRole::server, {.certificates = {ca.issue().tls()}, .min_version = TlsVersion::tls_1_3});
  CHECK(failure(*context(TlsRole::client, {.ca = ca.pem(), .max_version = TlsVersion::tls_1_2}), *new_only) ==
        "TLS handshake: alert_received (protocol version) | TLS handshake: protocol (unsupported protocol)");
}

TEST_CASE("kTLS is available, or it is said why not") {
  CHECK(ktls_available().available == std::string_view(ktls_available().reason).empty());
}
