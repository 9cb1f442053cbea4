#include <levada/net/send_queue.h>

#include <algorithm>
#include <deque>
#include <string>
#include <string_view>

#include <doctest/doctest.h>

#include <levada/core/random.h>

using namespace levada;
using namespace levada::net;

namespace {

std::string gathered(const SendQueue& queue, int limit = 1000) {
  iovec vectors[1000];
  std::size_t total = 0;
  const int count = queue.gather(vectors, limit, total);
  std::string text;
  for (int i = 0; i < count; i++)
    text.append(static_cast<const char*>(vectors[i].iov_base), vectors[i].iov_len);
  CHECK(text.size() == total);
  return text;
}

struct Counted : Owner {
  Counted() : Owner(&Counted::count) {}
  static void count(Owner* owner) { static_cast<Counted*>(owner)->released++; }
  int released = 0;
};

}  // namespace

TEST_CASE("views leave in order and views that follow each other in memory become one segment") {
  SegmentPool pool;
  SendQueue queue;
  const std::string_view text = "0123456789";
  queue.append(pool, to_bytes(text.substr(0, 3)));
  queue.append(pool, to_bytes(text.substr(3, 3)));
  CHECK(pool.in_use() == 1);
  CHECK(to_text(queue.single()) == "012345");
  queue.append(pool, to_bytes(text.substr(8)));
  CHECK(pool.in_use() == 2);
  CHECK(queue.single().empty());
  CHECK(gathered(queue) == "01234589");
  CHECK(gathered(queue, 1) == "012345");
  CHECK(queue.bytes() == 8);
  queue.clear(pool);
  CHECK(queue.empty());
  CHECK(queue.bytes() == 0);
  CHECK(pool.in_use() == 0);
}

TEST_CASE(
    "a reference is dropped when the last byte of its segment has left, and at once for an empty view") {
  SegmentPool pool;
  SendQueue queue;
  Counted owner;
  queue.append(pool, {}, &owner);
  CHECK(owner.released == 1);
  CHECK(queue.empty());
  const std::string_view text = "abcdef";
  queue.append(pool, to_bytes(text.substr(0, 2)), &owner);
  owner.add_reference();
  queue.append(pool, to_bytes(text.substr(2, 2)), &owner);  // merged: one reference is enough
  CHECK(owner.references() == 1);
  queue.advance(pool, 3);
  CHECK(owner.released == 1);
  CHECK(gathered(queue) == "d");
  queue.advance(pool, 1);
  CHECK(owner.released == 2);
}

TEST_CASE("a view beyond the size of a segment is split and keeps a reference for each part") {
  SegmentPool pool;
  SendQueue queue;
  Counted owner;
  // Never read: only its bounds are looked at.
  const auto* start = reinterpret_cast<const std::uint8_t*>(std::uintptr_t{1} << 40);
  queue.append(pool, {start, 2 * SendQueue::max_segment_bytes + 5}, &owner);
  CHECK(pool.in_use() == 3);
  CHECK(owner.references() == 3);
  CHECK(queue.bytes() == 2 * SendQueue::max_segment_bytes + 5);
  queue.advance(pool, SendQueue::max_segment_bytes + 1);
  CHECK(owner.references() == 2);
  queue.clear(pool);
  CHECK(owner.released == 1);
}

TEST_CASE("spilled bytes survive their memory, and what has an owner is not copied") {
  BlockPool blocks(1 << 20);
  SegmentPool pool;
  SendQueue queue;
  Counted owner;
  std::string turn = "first second";
  const std::string_view owned = "OWNED";
  queue.append(pool, to_bytes(std::string_view(turn).substr(0, 5)));
  queue.append(pool, to_bytes(std::string_view(turn).substr(6)));
  queue.append(pool, to_bytes(owned), &owner);
  queue.append(pool, to_bytes(std::string_view(turn).substr(0, 5)));
  queue.spill(pool, blocks);
  std::fill(turn.begin(), turn.end(), '!');
  CHECK(gathered(queue) == "firstsecondOWNEDfirst");
  CHECK(owner.released == 0);
  CHECK(blocks.blocks_in_use() == 2);
  std::string more = "more";
  queue.append(pool, to_bytes(more));
  queue.spill(pool, blocks);  // fits behind what was spilled last
  more = "!!!!";
  CHECK(blocks.blocks_in_use() == 2);
  CHECK(gathered(queue) == "firstsecondOWNEDfirstmore");
  queue.clear(pool);
  CHECK(owner.released == 1);
  CHECK(blocks.blocks_in_use() == 0);
}

TEST_CASE("random appends, partial sends and spills never change the bytes") {
  SeededRandom random(11);
  for (int round = 0; round < 50; round++) {
    BlockPool blocks(1 << 20);
    SegmentPool pool;
    SendQueue queue;
    std::deque<std::string> turn;
    std::string expected, sent;
    for (int step = 0; step < 400; step++) {
      const std::uint64_t what = random.below(8);
      if (what < 5) {
        std::string text(random.below(what == 0 ? 9000 : 90), '\0');
        for (char& byte : text) byte = static_cast<char>(random.next());
        expected += text;
        if (what < 3) {
          turn.push_back(text);
          queue.append(pool, to_bytes(turn.back()));
        } else {
          Block* block = blocks.allocate(text.size());
          std::copy(text.begin(), text.end(), block->data());
          queue.append(pool, {block->data(), text.size()}, block);
        }
      } else if (what < 7) {
        const std::string all = gathered(queue);
        const std::size_t size = random.below(all.size() + 1);
        sent += all.substr(0, size);
        queue.advance(pool, size);
      } else {
        queue.spill(pool, blocks);
        for (std::string& text : turn) std::fill(text.begin(), text.end(), '?');
        turn.clear();
      }
      REQUIRE(queue.bytes() == expected.size() - sent.size());
    }
    sent += gathered(queue);
    REQUIRE(sent == expected);
    queue.clear(pool);
    REQUIRE(pool.in_use() == 0);
    REQUIRE(blocks.blocks_in_use() == 0);
  }
}
