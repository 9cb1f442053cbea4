// What the servers with other libraries share: `[--port N] [--version]`, and the line that says where they listen.
#pragma once

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <string_view>

namespace peer {

inline constexpr std::size_t max_message = 64u << 20;

inline bool asked_version(int argc, char** argv) {
  return argc == 2 && std::string_view(argv[1]) == "--version";
}

inline const char* argument(int argc, char** argv, std::string_view name) {
  for (int i = 1; i + 1 < argc; i++)
    if (name == argv[i]) return argv[i + 1];
  return nullptr;
}

inline unsigned short port(int argc, char** argv) {
  const char* text = argument(argc, argv, "--port");
  return static_cast<unsigned short>(text == nullptr ? 0 : std::atoi(text));
}

inline void announce(int port) {
  std::printf("listening ws://127.0.0.1:%d\n", port);
  std::fflush(stdout);
}

}  // namespace peer
