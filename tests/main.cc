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
