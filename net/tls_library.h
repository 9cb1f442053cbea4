// The TLS library that levada was built with. For reports.
#pragma once

namespace levada::net {

// "OpenSSL 3.0.17 1 Jul 2025", of the library that is loaded; empty when levada was built with -Dtls=disabled. Static
// storage. Any thread.
const char* tls_library();

}  // namespace levada::net
