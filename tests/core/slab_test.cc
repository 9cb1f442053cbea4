#include <levada/core/slab.h>

#include <cstring>
#include <set>
#include <vector>

#include <doctest/doctest.h>

using namespace levada;

TEST_CASE("an id of zeros names no slot") {
  Slab<64> slab;
  CHECK(slab.find({}) == nullptr);
  const SlotId first = slab.allocate();
  CHECK(first.index == 0);
  CHECK(slab.find({}) == nullptr);
  CHECK(slab.find(first) == slab.at(0));
}

TEST_CASE("an id dies with its slot, also when the slot is used again") {
  Slab<64> slab;
  const SlotId old = slab.allocate();
  slab.release(old.index);
  CHECK(slab.find(old) == nullptr);
  const SlotId fresh = slab.allocate();
  CHECK(fresh.index == old.index);
  CHECK(fresh != old);
  CHECK(slab.find(old) == nullptr);
  CHECK(slab.find(fresh) != nullptr);
  CHECK(slab.find({12345678, 1}) == nullptr);
}

TEST_CASE("a packed id unpacks to itself") {
  const SlotId id{0x0ABCDEF1, 0x87654321};
  CHECK(SlotId::unpack(id.packed()) == id);
}

TEST_CASE("slots are aligned, apart from each other, and stay where they are as the slab grows") {
  Slab<100> slab;
  std::vector<SlotId> ids;
  std::set<void*> places;
  for (std::uint32_t i = 0; i < 3 * Slab<100>::chunk_slots; i++) {
    const SlotId id = slab.allocate();
    void* place = slab.find(id);
    REQUIRE(reinterpret_cast<std::uintptr_t>(place) % 64 == 0);
    REQUIRE(places.insert(place).second);
    std::memcpy(place, &i, sizeof i);
    ids.push_back(id);
  }
  CHECK(slab.in_use() == ids.size());
  for (std::uint32_t i = 0; i < ids.size(); i++) {
    std::uint32_t value = 0;
    std::memcpy(&value, slab.find(ids[i]), sizeof value);
    REQUIRE(value == i);
    slab.release(ids[i].index);
  }
  CHECK(slab.in_use() == 0);
  CHECK(slab.capacity() == 3 * Slab<100>::chunk_slots);
}
