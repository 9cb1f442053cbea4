// Choices: where everything that a simulation leaves open is decided: by a seed, or by a script of bytes (what a fuzzer
// mutates). The same seed or script gives the same choices. A script that is used up chooses 0 for ever, so that 0 has
// to be the harmless choice.
#pragma once

#include <algorithm>
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>

#include <levada/core/bytes.h>
#include <levada/core/random.h>

namespace levada::ws::test {

class Choices {
 public:
  explicit Choices(std::uint64_t seed) : random_(seed) {}
  // `script` must outlive this.
  explicit Choices(Bytes script) : random_(1), script_(script), scripted_(true) {}

  // From 0 to bound - 1; `bound` is at least 1.
  std::uint64_t below(std::uint64_t bound) {
    if (!scripted_) return random_.below(bound);
    std::uint64_t value = 0;
    for (std::uint64_t reach = 1; reach < bound && !exhausted(); reach *= 256) {
      value = value << 8 | script_.front();
      script_ = script_.subspan(1);
    }
    return value % bound;
  }
  std::uint64_t between(std::uint64_t least, std::uint64_t most) { return least + below(most - least + 1); }
  bool one_in(std::uint64_t n) { return below(n) == n - 1; }
  std::uint64_t of(std::initializer_list<std::uint64_t> values) {
    return values.begin()[below(values.size())];
  }

  // Bytes of any kind: of the script itself where there is one.
  std::string raw(std::size_t size) {
    std::string text(size, '\0');
    for (char& byte : text) byte = static_cast<char>(below(256));
    return text;
  }

  bool exhausted() const { return scripted_ && script_.empty(); }

 private:
  SeededRandom random_;
  Bytes script_;
  bool scripted_ = false;
};

// Payloads are cut out of constant text: letters, UTF-8 of all lengths, or any bytes. Views of static storage.
enum class Content : std::uint8_t { letters, characters, bytes };

inline std::string_view payload(Choices& choices, std::size_t size, Content content) {
  static const std::string letters = [] {
    std::string text;
    SeededRandom random(1);
    while (text.size() < (std::size_t{1} << 18)) text += static_cast<char>('a' + random.below(26));
    return text;
  }();
  static const std::string bytes = [] {
    std::string text;
    SeededRandom random(2);
    while (text.size() < (std::size_t{1} << 18)) text += static_cast<char>(random.next());
    return text;
  }();
  static const std::string characters = [] {
    std::string text;
    while (text.size() < (std::size_t{1} << 18)) text += "aé€😀bßﬀ🂡";
    return text;
  }();
  const std::string& from = content == Content::letters ? letters
                            : content == Content::bytes ? bytes
                                                        : characters;
  std::size_t at = choices.below(from.size() - size);
  const auto inside_character = [&](std::size_t i) {
    return content == Content::characters && (static_cast<unsigned char>(from[i]) & 0xC0u) == 0x80;
  };
  while (at > 0 && inside_character(at)) at--;
  while (inside_character(at + size)) size--;
  return std::string_view(from).substr(at, size);
}

}  // namespace levada::ws::test
