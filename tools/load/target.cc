#include <levada/tools/load/target.h>

#include <levada/net/resolver.h>
#include <levada/ws/url.h>

namespace levada::load {

bool parse_target(std::string_view text, Target& target, std::string& why) {
  target = {};
  target.url = text;
  ws::Url url;
  if (const ws::UrlError error = ws::parse_url(text, url); error != ws::UrlError::none) {
    why = ws::to_string(error);
    return false;
  }
  target.secure = url.scheme == ws::UrlScheme::wss;
  target.host = url.authority.host;
  target.port = url.port();
  target.unix_path = ws::decode_percent(url.socket_path);
  target.host_field = url.host_field();
  target.request_target = url.request_target();
  return true;
}

bool resolve(const Target& target, std::vector<net::Address>& addresses, std::string& why) {
  auto made = target.unix_path.empty() ? net::Address::ip(target.host, target.port)
                                       : net::Address::unix_path(target.unix_path);
  if (made) {
    addresses = {*made};
    return true;
  }
  if (!target.unix_path.empty()) {
    why = "the Unix socket's path is too long";
    return false;
  }
  auto found = net::resolve_blocking(target.host, target.port);
  if (!found) {
    why = "cannot resolve " + target.host + ": " + found.error().message();
    return false;
  }
  addresses = std::move(*found);
  return true;
}

}  // namespace levada::load
