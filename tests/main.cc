// The one main of all doctest programs.
#define DOCTEST_CONFIG_IMPLEMENT
#include <doctest/doctest.h>

#include <cstdlib>

int main(int argc, char** argv) {
  // Clients under test reach servers of the test, whatever proxy the user's environment names.
  for (const char* name : {"http_proxy", "https_proxy", "all_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY",
                           "ALL_PROXY", "NO_PROXY", "REQUEST_METHOD"}) {
    unsetenv(name);
  }
  return doctest::Context(argc, argv).run();
}

#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
// OpenSSL is not instrumented: what it publishes by an atomic flag, as it does what it has parsed of a certificate, looks
// like a race where two threads verify with the same one.
extern "C" const char* __tsan_default_suppressions();
extern "C" const char* __tsan_default_suppressions() {
  return "called_from_lib:libcrypto.so\ncalled_from_lib:libssl.so\n";
}
#endif
#endif
