#include <levada/core/error.h>

#include <cerrno>
#include <cstring>
#include <string_view>

namespace levada {
namespace {

Errc classify(int os_number) {
  switch (os_number) {
    case EADDRINUSE:
      return Errc::address_in_use;
    case EADDRNOTAVAIL:
      return Errc::address_not_available;
    case EALREADY:
    case EISCONN:
      return Errc::already_connected;
    case ECANCELED:
      return Errc::canceled;
    case ECONNREFUSED:
      return Errc::connection_refused;
    case ECONNABORTED:
    case ECONNRESET:
    case EPIPE:
      return Errc::connection_reset;
    case EMFILE:
    case ENFILE:
      return Errc::descriptor_limit;
    case EBADF:
    case EINVAL:
    case ENAMETOOLONG:
    case ENOTSOCK:
      return Errc::invalid_argument;
    case ENOBUFS:
    case ENOMEM:
      return Errc::no_memory;
    case ENOENT:
      return Errc::not_found;
    case EAFNOSUPPORT:
    case ENOSYS:
    case EOPNOTSUPP:
      return Errc::not_supported;
    case EACCES:
    case EPERM:
      return Errc::permission_denied;
    case ETIMEDOUT:
      return Errc::timed_out;
    case EHOSTUNREACH:
    case ENETUNREACH:
      return Errc::unreachable;
    case EAGAIN:
      return Errc::would_block;
    default:
      return Errc::other;
  }
}

}  // namespace

const char* to_string(Errc code) {
  switch (code) {
    case Errc::none:
      return "none";
    case Errc::address_in_use:
      return "address_in_use";
    case Errc::address_not_available:
      return "address_not_available";
    case Errc::alert_received:
      return "alert_received";
    case Errc::already_connected:
      return "already_connected";
    case Errc::canceled:
      return "canceled";
    case Errc::certificate_refused:
      return "certificate_refused";
    case Errc::connection_refused:
      return "connection_refused";
    case Errc::connection_reset:
      return "connection_reset";
    case Errc::descriptor_limit:
      return "descriptor_limit";
    case Errc::end_of_stream:
      return "end_of_stream";
    case Errc::invalid_argument:
      return "invalid_argument";
    case Errc::no_memory:
      return "no_memory";
    case Errc::not_found:
      return "not_found";
    case Errc::not_supported:
      return "not_supported";
    case Errc::permission_denied:
      return "permission_denied";
    case Errc::protocol:
      return "protocol";
    case Errc::timed_out:
      return "timed_out";
    case Errc::truncated:
      return "truncated";
    case Errc::unreachable:
      return "unreachable";
    case Errc::would_block:
      return "would_block";
    case Errc::over_budget:
      return "over_budget";
    case Errc::other:
      return "other";
  }
  return "other";
}

Error Error::from_os(const char* operation, int os_number) {
  return {classify(os_number), operation, os_number};
}

std::string Error::message() const {
  std::string text = operation;
  if (!text.empty()) text += ": ";
  text += to_string(code);
  char buffer[128] = "";
  const std::string_view description = os_number == 0 ? detail : strerror_r(os_number, buffer, sizeof buffer);
  if (!description.empty()) text.append(" (").append(description).append(")");
  return text;
}

}  // namespace levada
