// OpenSSL's own allocations, to be taken off those of a thread: they go through functions of ours. For one source file of
// a program of one thread.
#pragma once

#include <openssl/crypto.h>
#include <cstdint>
#include <cstdlib>

#include <levada/tests/support/count_alloc.h>

namespace levada::test {

inline std::uint64_t openssl_allocations = 0;

// Before main, for OpenSSL must not have allocated anything yet.
inline const bool counts_openssl = CRYPTO_set_mem_functions(
                                       [](std::size_t size, const char*, int) {
                                         openssl_allocations++;
                                         return std::malloc(size);
                                       },
                                       [](void* memory, std::size_t size, const char*, int) {
                                         openssl_allocations++;
                                         return std::realloc(memory, size);
                                       },
                                       [](void* memory, const char*, int) { std::free(memory); }) == 1;

inline std::uint64_t our_allocations() {
  return allocations() - openssl_allocations;
}

}  // namespace levada::test
