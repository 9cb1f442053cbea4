// Starting a thread, with an error that is a value.
#pragma once

#include <system_error>
#include <thread>
#include <utility>

#include <levada/core/error.h>

namespace levada::net {

// Runs `run` on a thread of its own. Errors: no_memory when the system allows no further one.
template <class Run>
Error start_thread(std::thread& thread, Run&& run) {
  try {
    thread = std::thread(std::forward<Run>(run));
  } catch (const std::system_error& failure) {
    return {Errc::no_memory, "pthread_create", failure.code().value()};
  }
  return {};
}

}  // namespace levada::net
