// Deflate options: those of permessage-deflate, the same in every program that has them.
#pragma once

#include <CLI/CLI.hpp>

#include <levada/ws/deflate_negotiation.h>

namespace levada::tools {

inline void add_deflate_options(CLI::App& app, ws::DeflateOptions& deflate) {
  using Context = ws::DeflateContext;
  auto* const enabled = app.add_flag("--deflate", deflate.enabled, "use it when the other side has it, too")
                            ->group("Compression (permessage-deflate)");
  const auto add = [enabled](CLI::Option* option) { option->group(enabled->get_group())->needs(enabled); };
  add(app.add_flag_callback(
      "--takeover", [&deflate] { deflate.deflater = deflate.inflater = Context::dedicated; },
      "keep contexts per connection"));
  add(app.add_option("--window-bits", deflate.window_bits, "of our windows, at most")
          ->check(CLI::Range(8, 15)));
  add(app.add_option("--peer-window-bits", deflate.peer_window_bits, "of the other side's, at most")
          ->check(CLI::Range(8, 15)));
  add(app.add_option("--level", deflate.level, "1 (fast) to 9 (small)")->check(CLI::Range(1, 9)));
  add(app.add_option("--memory-level", deflate.memory_level, "1 (small) to 9")->check(CLI::Range(1, 9)));
  add(app.add_option("--deflate-from", deflate.min_bytes, "messages of fewer bytes are sent as they are"));
  add(app.add_flag("--final-blocks", deflate.final_blocks,
                   "compress whole messages with libdeflate: faster, but not "
                   "every peer takes it"));
  add(app.add_option("--max-ratio", deflate.max_ratio,
                     "most inflated bytes for a compressed one; 0: no bound"));
}

}  // namespace levada::tools
