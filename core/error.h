// Error and Result: what went wrong outside the program, as a value.
//
// The operating system's and the peer's failures are values of this type; a caller's mistake is an assertion.
// An Error names the failure by `Errc`, which is the same on every backend; the operating system's own number
// is kept for the log text only. What else is known is a text of static storage, so that an Error is copied and kept
// without allocating.
#pragma once

#include <cassert>
#include <cstdint>
#include <string>
#include <utility>
#include <variant>

namespace levada {

enum class Errc : std::uint8_t {
  none,
  address_in_use,
  address_not_available,
  alert_received,
  already_connected,
  canceled,
  certificate_refused,
  connection_refused,
  connection_reset,
  descriptor_limit,
  end_of_stream,
  invalid_argument,
  no_memory,
  not_found,
  not_supported,
  permission_denied,
  protocol,
  timed_out,
  truncated,
  unreachable,
  would_block,
  over_budget,  // the engine's MemoryBudget is exceeded
  other,
};

// The name of the code, for logs and reports: "address_in_use". Static storage.
const char* to_string(Errc code);

struct [[nodiscard]] Error {
  Errc code = Errc::none;
  const char* operation = "";  // what was attempted: a string literal, for example "bind"
  int os_number = 0;           // the kernel's errno, for message() only
  const char* detail = "";     // what exactly, for people; static storage: "certificate has expired"

  explicit operator bool() const { return code != Errc::none; }

  // One line for a person: "bind: address_in_use (Address already in use)", "TLS: certificate_refused (certificate has
  // expired)". Allocates.
  std::string message() const;

  // The Error for a system call that failed with `os_number` (a positive errno value).
  static Error from_os(const char* operation, int os_number);
};

// Either a value or the Error that kept it from being made. Test it before use; reading the wrong side
// asserts.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : state_(std::in_place_index<1>, error) { assert(error); }

  explicit operator bool() const { return state_.index() == 0; }

  T& value() {
    assert(*this);
    return *std::get_if<0>(&state_);
  }
  T& operator*() { return value(); }
  T* operator->() { return &value(); }

  const Error& error() const {
    assert(!*this);
    return *std::get_if<1>(&state_);
  }

 private:
  std::variant<T, Error> state_;
};

}  // namespace levada
