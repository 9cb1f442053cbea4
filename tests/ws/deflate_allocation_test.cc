// The proof that compressing and inflating allocate nothing in the steady state, in every mode.
#include <doctest/doctest.h>

#include <string>

#include <levada/tests/support/count_alloc.h>
#include <levada/tests/support/deflating.h>

using namespace levada;
using namespace levada::ws;
using namespace levada::ws::test;

TEST_CASE("messages of any size, whole and in pieces, are compressed and inflated without an allocation") {
  BlockPool blocks(16 << 20);
  std::string wire(Deflater::bound(200'000), '\0');
  std::string texts[] = {json_text(16), json_text(128), json_text(1024), json_text(16384),
                         json_text(200'000)};
  for (const bool takeover : {false, true}) {
    for (const bool streaming : {false, true}) {
      for (const bool final_blocks : {false, true}) {
        Deflater deflater({.takeover = takeover, .final_blocks = final_blocks}, blocks);
        Inflater inflater({.takeover = takeover, .streaming = streaming}, blocks);
        std::size_t inflated = 0;
        const auto round = [&] {
          for (const std::string& text : texts) {
            for (const std::size_t cut : {std::size_t{0}, text.size() / 2}) {
              const MutableBytes out(reinterpret_cast<std::uint8_t*>(wire.data()), wire.size());
              std::size_t size = cut == 0 ? 0 : deflater.compress(to_bytes(text).first(cut), false, out);
              size += deflater.compress(to_bytes(text).subspan(cut), true, out.subspan(size));
              for (const bool last : {false, true}) {
                Bytes in = last
                               ? Bytes(out).subspan(cut == 0 ? 0 : size / 2, size - (cut == 0 ? 0 : size / 2))
                               : Bytes(out).first(cut == 0 ? 0 : size / 2);
                if (cut == 0 && !last) continue;
                Inflated result;
                do {
                  result = inflater.next(in, last);
                  inflated += result.fresh.size();
                } while (result.event == InflateEvent::more ||
                         (result.event == InflateEvent::fragment && (!last || !result.fin)));
              }
              inflater.release();
            }
          }
        };
        for (int i = 0; i < 3; i++) round();
        inflated = 0;
        const std::uint64_t before = levada::test::allocations();
        for (int i = 0; i < 100; i++) round();
        CHECK(levada::test::allocations() == before);
        CHECK(inflated == 200 * (16 + 128 + 1024 + 16384 + 200'000));
      }
    }
  }
}
