// Whether this is built with a sanitizer that makes everything slow and keeps books on all memory.
#pragma once

namespace levada::test {

#if defined(__has_feature)
#define LEVADA_HAS_FEATURE(name) __has_feature(name)
#else
#define LEVADA_HAS_FEATURE(name) 0
#endif

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) || \
    LEVADA_HAS_FEATURE(address_sanitizer) || LEVADA_HAS_FEATURE(thread_sanitizer)
inline constexpr bool sanitized = true;
#else
inline constexpr bool sanitized = false;
#endif

}  // namespace levada::test
