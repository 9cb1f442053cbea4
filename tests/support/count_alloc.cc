#include <levada/tests/support/count_alloc.h>

#include <cerrno>
#include <cstddef>

// glibc's own, under the names that are left when ours stand in front of them.
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void __libc_free(void*);
}

namespace {

// initial-exec: reading it never allocates, so that counting works from the program's first call on.
__attribute__((tls_model("initial-exec"))) thread_local std::uint64_t allocated = 0;
__attribute__((tls_model("initial-exec"))) thread_local std::uint64_t allocated_size = 0;
__attribute__((tls_model("initial-exec"))) thread_local std::uint64_t released = 0;

void note_allocation(std::size_t size) {
  allocated++;
  allocated_size += size;
}

}  // namespace

namespace levada::test {

std::uint64_t allocations() {
  return allocated;
}
std::uint64_t allocated_bytes() {
  return allocated_size;
}
std::uint64_t releases() {
  return released;
}

}  // namespace levada::test

extern "C" {

void* malloc(std::size_t size) {
  note_allocation(size);
  return __libc_malloc(size);
}

void* calloc(std::size_t count, std::size_t size) {
  note_allocation(count * size);
  return __libc_calloc(count, size);
}

void* realloc(void* memory, std::size_t size) {
  note_allocation(size);
  return __libc_realloc(memory, size);
}

void* memalign(std::size_t alignment, std::size_t size) {
  note_allocation(size);
  return __libc_memalign(alignment, size);
}

void* aligned_alloc(std::size_t alignment, std::size_t size) {
  note_allocation(size);
  return __libc_memalign(alignment, size);
}

int posix_memalign(void** memory, std::size_t alignment, std::size_t size) {
  note_allocation(size);
  *memory = __libc_memalign(alignment, size);
  return *memory == nullptr ? ENOMEM : 0;
}

void free(void* memory) {
  if (memory != nullptr) released++;
  __libc_free(memory);
}

}  // extern "C"
