#include <levada/ws/tracing.h>

namespace levada::ws::detail {

const bool tracing_is_built_in = true;

}  // namespace levada::ws::detail
