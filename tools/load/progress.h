// Progress: a line on stderr about each second of a run. On a terminal it stays in its place.
#pragma once

#include <cstdint>
#include <string>

#include <levada/tools/load/options.h>
#include <levada/tools/load/result.h>

namespace levada::load {

class Progress {
 public:
  // Silent if the options say so.
  explicit Progress(const Options& options);
  // Leaves the terminal's line empty.
  ~Progress();
  Progress(const Progress&) = delete;

  // What is going on, in front of the numbers: "block 3 of 16".
  void label(std::string text) { label_ = std::move(text); }

  void second(const Second& second);
  // Before the measured time: so many connections are open.
  void connecting(std::uint32_t open);

 private:
  void show(std::string line);

  std::uint32_t connections_;
  bool silent_;
  bool terminal_;
  std::string label_;
};

}  // namespace levada::load
