// Journal: what happened in a simulation, in order, and the first rule that was broken.
#pragma once

#include <cstdint>
#include <deque>
#include <string>

namespace levada::ws::test {

class Journal {
 public:
  struct Entry {
    const char* what;
    std::uint64_t link;  // the connection it concerns; 0: none
    std::int64_t value;
  };

  // `what` has static storage.
  void note(const char* what, std::uint64_t link = 0, std::int64_t value = 0) {
    for (const char* at = what; *at != '\0'; at++) mix(static_cast<unsigned char>(*at));
    mix(link);
    mix(static_cast<std::uint64_t>(value));
    last_.push_back({what, link, value});
    if (last_.size() > kept) last_.pop_front();
    count_++;
  }

  // Notes that `rule` is broken unless it holds; returns whether it does. The first one counts.
  bool require(bool holds, const char* rule, std::uint64_t link = 0, std::int64_t value = 0) {
    if (holds || broken()) return holds;
    note(rule, link, value);
    problem_ =
        std::string(rule) + " (connection " + std::to_string(link) + ", " + std::to_string(value) + ")";
    return false;
  }

  bool broken() const { return !problem_.empty(); }
  const std::string& problem() const { return problem_; }
  std::uint64_t hash() const { return hash_; }
  std::uint64_t count() const { return count_; }

  // The last entries, one on a line.
  std::string text() const {
    std::string text;
    for (const Entry& entry : last_) {
      text += "  " + std::string(entry.what);
      if (entry.link != 0) text += ", connection " + std::to_string(entry.link);
      text += ": " + std::to_string(entry.value) + '\n';
    }
    return text;
  }

 private:
  static constexpr std::size_t kept = 80;

  void mix(std::uint64_t value) {
    hash_ ^= value;
    hash_ *= 0x100000001B3u;
    hash_ ^= hash_ >> 29;
  }

  std::deque<Entry> last_;
  std::string problem_;
  std::uint64_t hash_ = 0xCBF29CE484222325u, count_ = 0;
};

}  // namespace levada::ws::test
