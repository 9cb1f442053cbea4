// Signals that ask a program to end, as events of a reactor.
#pragma once

#include <levada/core/error.h>
#include <levada/net/reactor.h>

namespace levada::net {

// Calls `asked(context)` on the reactor's thread for each SIGINT and SIGTERM. They are blocked in the calling thread, and so
// in those that it makes from then on. Errors: those of signalfd and of Reactor::add.
Error watch_signals(Reactor& reactor, void (*asked)(void* context), void* context);

}  // namespace levada::net
