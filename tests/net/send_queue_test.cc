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

TEST_CASE("bytes move to the end of another queue, uncopied, with a reference for each part") {
  SegmentPool pool;
  SendQueue queue, other;
  Counted owner;
  const std::string_view text = "0123456789abcdef";
  other.append(pool, to_bytes(text.substr(14)));
  queue.append(pool, to_bytes(text.substr(0, 4)));
  queue.append(pool, to_bytes(text.substr(5, 6)), &owner);
  queue.move(pool, 7, other);
  CHECK(gathered(other) == "ef0123567");
  CHECK(gathered(queue) == "89a");
  other.advance(pool, 6);
  CHECK(other.single().data() == to_bytes(text).data() + 5);
  other.clear(pool);
  CHECK(owner.released == 0);
  queue.clear(pool);
  CHECK(owner.released == 1);
  CHECK(pool.in_use() == 0);
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

// ---- Marks ----

TEST_CASE("the oldest message that may be dropped goes first, whole, and only as many as are needed") {
  SegmentPool pool;
  SendQueue queue;
  const std::string text = "aaabbbcccddd";
  for (std::size_t at = 0; at < text.size(); at += 3)
    queue.append(pool, to_bytes(std::string_view(text).substr(at, 3)), nullptr, Mark::message);
  CHECK(pool.in_use() == 4);  // marked views stay apart, though they follow each other in memory
  CHECK(queue.drop_oldest(pool, 0) == 0);
  CHECK(queue.drop_oldest(pool, 3) == 1);
  CHECK(gathered(queue) == "bbbcccddd");
  CHECK(queue.drop_oldest(pool, 4) == 2);
  CHECK(gathered(queue) == "ddd");
  CHECK(queue.bytes() == 3);
  CHECK(queue.drop_oldest(pool, 3) == 1);
  CHECK(queue.empty());
  CHECK(queue.bytes() == 0);
  CHECK(pool.in_use() == 0);
  queue.append(pool, to_bytes("new"));
  CHECK(gathered(queue) == "new");
}

TEST_CASE("nothing is dropped when all that may be dropped is not enough") {
  SegmentPool pool;
  SendQueue queue;
  queue.append(pool, to_bytes("keep"), nullptr, Mark::kept);
  queue.append(pool, to_bytes("drop"), nullptr, Mark::message);
  CHECK(queue.drop_oldest(pool, 5) == 0);
  CHECK(gathered(queue) == "keepdrop");
  CHECK(queue.drop_oldest(pool, 4) == 1);
  CHECK(gathered(queue) == "keep");
}

TEST_CASE("what has to be kept stays in its order, and the tail stays right when the last ones are dropped") {
  SegmentPool pool;
  SendQueue queue;
  queue.append(pool, to_bytes("[head]"));  // before any mark: an answer to a handshake
  queue.append(pool, to_bytes("m1"), nullptr, Mark::message);
  queue.append(pool, to_bytes("ping"), nullptr, Mark::kept);
  queue.append(pool, to_bytes("m2"), nullptr, Mark::message);
  queue.append(pool, to_bytes("m3"), nullptr, Mark::message);
  CHECK(queue.drop_oldest(pool, 5) == 3);
  CHECK(gathered(queue) == "[head]ping");
  queue.append(pool, to_bytes("m4"), nullptr, Mark::message);
  CHECK(gathered(queue) == "[head]pingm4");
  CHECK(queue.drop_oldest(pool, 3) == 0);
  CHECK(queue.drop_oldest(pool, 2) == 1);
  queue.append(pool, to_bytes("!"));  // continues what has to be kept
  CHECK(gathered(queue) == "[head]ping!");
  CHECK(queue.drop_oldest(pool, 1) == 0);
  queue.clear(pool);
  CHECK(pool.in_use() == 0);
}

TEST_CASE("a header and its payloads are one message, and their references are dropped with it") {
  SegmentPool pool;
  SendQueue queue;
  Counted first, second;
  const std::string payload = "payload";
  for (Counted* owner : {&first, &second}) {
    queue.append(pool, to_bytes("h"), nullptr, Mark::message);
    queue.append(pool, to_bytes(payload), owner);
    queue.append(pool, to_bytes("tail"));
  }
  CHECK(queue.drop_oldest(pool, 1) == 1);
  CHECK(first.released == 1);
  CHECK(second.released == 0);
  CHECK(gathered(queue) == "hpayloadtail");
  CHECK(queue.drop_oldest(pool, 12) == 1);
  CHECK(second.released == 1);
  CHECK(pool.in_use() == 0);
}

TEST_CASE("a message of which a byte has left is not dropped any more, wherever it was cut") {
  for (std::size_t sent = 1; sent <= 8; sent++) {
    CAPTURE(sent);
    SegmentPool pool;
    SendQueue queue;
    Counted owner;
    const std::string payload = "payload", all = "hpayloadnext";
    queue.append(pool, to_bytes("h"), nullptr, Mark::message);
    queue.append(pool, to_bytes(payload), &owner);
    queue.append(pool, to_bytes("next"), nullptr, Mark::message);
    queue.advance(pool, sent);
    CHECK(queue.drop_oldest(pool, 5) == 0);
    CHECK(queue.drop_oldest(pool, 4) == 1);
    CHECK(gathered(queue) == all.substr(sent, 8 - sent));
    queue.clear(pool);
    CHECK(owner.released == 1);
  }
}

TEST_CASE("a mark is of the first part of a view that has to be split") {
  SegmentPool pool;
  SendQueue queue;
  Counted owner;
  const auto* start = reinterpret_cast<const std::uint8_t*>(std::uintptr_t{1} << 40);
  queue.append(pool, {start, 2 * SendQueue::max_segment_bytes + 5}, &owner, Mark::message);
  CHECK(pool.in_use() == 3);
  CHECK(queue.drop_oldest(pool, 1) == 1);
  CHECK(queue.empty());
  CHECK(owner.released == 1);
}

TEST_CASE("spilled messages share a block, can still be dropped one by one, and it returns with the last") {
  BlockPool blocks(0);
  SegmentPool pool;
  SendQueue queue;
  std::string turn = "onetwothreefour";
  queue.append(pool, to_bytes(std::string_view(turn).substr(0, 3)), nullptr, Mark::message);
  queue.append(pool, to_bytes(std::string_view(turn).substr(3, 3)), nullptr, Mark::kept);
  queue.append(pool, to_bytes(std::string_view(turn).substr(6, 5)), nullptr, Mark::message);
  queue.spill(pool, blocks);
  CHECK(blocks.blocks_in_use() == 1);
  queue.append(pool, to_bytes(std::string_view(turn).substr(11)), nullptr, Mark::message);
  queue.spill(pool, blocks);
  CHECK(blocks.blocks_in_use() == 1);
  std::fill(turn.begin(), turn.end(), '!');
  CHECK(gathered(queue) == "onetwothreefour");
  CHECK(queue.drop_oldest(pool, 4) == 2);
  CHECK(gathered(queue) == "twofour");
  CHECK(queue.drop_oldest(pool, 4) == 1);
  CHECK(blocks.blocks_in_use() == 1);
  std::string more = "more";
  queue.append(pool, to_bytes(more));
  queue.spill(pool, blocks);
  more = "!!!!";
  CHECK(gathered(queue) == "twomore");
  queue.advance(pool, 7);
  CHECK(blocks.blocks_in_use() == 0);
}

TEST_CASE("blocks of several reactors in one queue each return to their own") {
  BlockPool ours(0), theirs(0);
  SegmentPool pool;
  SendQueue queue;
  for (BlockPool* from : {&ours, &theirs, &ours, &theirs}) {
    Block* block = from->allocate(1000);
    std::fill_n(block->data(), 1000, std::uint8_t{'x'});
    queue.append(pool, {block->data(), 1000}, block, Mark::message);
  }
  std::string turn = "turn";
  queue.append(pool, to_bytes(turn), nullptr, Mark::message);
  queue.spill(pool, ours);
  CHECK(ours.blocks_in_use() == 3);
  CHECK(theirs.blocks_in_use() == 2);
  CHECK(queue.drop_oldest(pool, 2000) == 2);
  CHECK(ours.blocks_in_use() == 2);
  CHECK(theirs.blocks_in_use() == 1);
  queue.clear(pool);
  CHECK(ours.blocks_in_use() == 0);
  CHECK(theirs.blocks_in_use() == 0);
}

namespace {

// What a queue with marks has to do, in the simplest way: a list of frames.
struct Model {
  struct Entry {
    std::string bytes;
    bool droppable;
  };
  std::deque<Entry> entries;

  std::string all() const {
    std::string text;
    for (const Entry& entry : entries) text += entry.bytes;
    return text;
  }
  void send(std::size_t size) {
    while (size > 0) {
      Entry& first = entries.front();
      const std::size_t part = std::min(size, first.bytes.size());
      first.bytes.erase(0, part);
      first.droppable = false;
      size -= part;
      if (first.bytes.empty()) entries.pop_front();
    }
  }
  std::size_t drop(std::size_t size) {
    std::size_t sum = 0, dropped = 0;
    for (const Entry& entry : entries) sum += entry.droppable ? entry.bytes.size() : 0;
    if (sum < size) return 0;
    for (std::size_t freed = 0, at = 0; freed < size;) {
      if (!entries[at].droppable) {
        at++;
        continue;
      }
      freed += entries[at].bytes.size();
      entries.erase(entries.begin() + static_cast<std::ptrdiff_t>(at));
      dropped++;
    }
    return dropped;
  }
};

}  // namespace

TEST_CASE("random frames, partial sends, spills and drops are what a simple model says") {
  std::size_t all_dropped = 0;
  for (std::uint64_t seed = 1; seed <= 200; seed++) {
    CAPTURE(seed);
    SeededRandom random(seed);
    BlockPool blocks(1 << 16), other(1 << 16);
    SegmentPool pool;
    SendQueue queue;
    std::deque<std::string> turn;
    Model model;
    const auto letters = [&](std::size_t size) {
      std::string text(size, '\0');
      for (char& byte : text) byte = static_cast<char>(random.next());
      return text;
    };
    // Turn memory lies together, as a reactor's does, so that frames may follow each other in it.
    const auto append_turn = [&](const std::string& text, Mark mark) {
      if (turn.empty()) turn.emplace_back().reserve(1 << 20);
      std::string& memory = turn.back();
      const std::size_t at = memory.size();
      memory += text;
      queue.append(pool, to_bytes(std::string_view(memory).substr(at)), nullptr, mark);
    };
    for (int step = 0; step < 300; step++) {
      const std::uint64_t what = random.below(10);
      if (what < 6) {
        const bool droppable = random.below(3) != 0;
        const Mark mark = droppable ? Mark::message : Mark::kept;
        std::string frame = letters(1 + random.below(what == 0 ? 6000 : 60));
        append_turn(frame, mark);
        if (what < 2) {  // a payload of somebody else's behind the header
          const std::string payload = letters(1 + random.below(900));
          Block* block = (what == 0 ? blocks : other).allocate(payload.size());
          std::copy(payload.begin(), payload.end(), block->data());
          queue.append(pool, {block->data(), payload.size()}, block);
          frame += payload;
        }
        model.entries.push_back({frame, droppable});
      } else if (what < 8) {
        const std::size_t size = random.below(queue.bytes() + 1) / (1 + random.below(4));
        queue.advance(pool, size);
        model.send(size);
      } else if (what == 8) {
        const std::size_t size = random.below(queue.bytes() / 2 + 2);
        const std::size_t dropped = queue.drop_oldest(pool, size);
        REQUIRE(dropped == model.drop(size));
        all_dropped += dropped;
      } else {
        queue.spill(pool, blocks);
        for (std::string& memory : turn) std::fill(memory.begin(), memory.end(), '?');
        turn.clear();
      }
      REQUIRE(gathered(queue, 1000) == model.all());
      REQUIRE(queue.bytes() == model.all().size());
      REQUIRE(queue.empty() == model.entries.empty());
    }
    queue.clear(pool);
    REQUIRE(pool.in_use() == 0);
    REQUIRE(blocks.blocks_in_use() == 0);
    REQUIRE(other.blocks_in_use() == 0);
  }
  CHECK(all_dropped > 500);
}
