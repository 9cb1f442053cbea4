#include <levada/tools/load/shaper.h>

#include <algorithm>

#include <levada/ws/encoder.h>

namespace levada::load {

void Shaper::append(Piece& piece, ws::Opcode opcode, Bytes payload, bool fin) {
  const std::size_t size = piece.size();
  piece.resize(size + ws::frame_size(payload.size(), true));
  ws::write_masked_frame(piece.data() + size, opcode, payload, keys_.next_u32(), fin);
}

// 2 to 5 frames; some may be empty. With `pings` there is one between each two.
Piece Shaper::fragments(ws::Opcode opcode, Bytes payload, Pings* pings) {
  std::vector<std::size_t> cuts(1 + random_.below(4));
  for (std::size_t& cut : cuts) cut = random_.below(payload.size() + 1);
  std::sort(cuts.begin(), cuts.end());
  Piece piece;
  std::size_t begin = 0;
  for (const std::size_t cut : cuts) {
    append(piece, begin == 0 && piece.empty() ? opcode : ws::Opcode::continuation,
           payload.subspan(begin, cut - begin), false);
    if (pings != nullptr) append(piece, ws::Opcode::ping, pings->next(), true);
    begin = cut;
  }
  append(piece, ws::Opcode::continuation, payload.subspan(begin), true);
  return piece;
}

void Shaper::add_message(Trickle& trickle, Pings& pings, ws::Opcode opcode, Bytes payload,
                         std::uint64_t sequence) {
  constexpr Shape kinds[] = {Shape::whole, Shape::fragments, Shape::control, Shape::bytes, Shape::cuts};
  const bool mix = shape_ == Shape::mix;
  const Shape shape = mix ? kinds[sequence % std::size(kinds)] : shape_;
  if (shape == Shape::fragments || shape == Shape::control)
    return trickle.add(fragments(opcode, payload, shape == Shape::control ? &pings : nullptr));
  Piece frame;
  append(frame, opcode, payload, true);
  if (shape == Shape::bytes) {
    for (const std::uint8_t byte : frame) trickle.add({byte});
  } else if (shape == Shape::cuts) {
    const std::uint64_t turn = mix ? sequence / std::size(kinds) : sequence;
    const auto cut = static_cast<std::ptrdiff_t>(1 + turn % (frame.size() - 1));
    trickle.add(Piece(frame.begin(), frame.begin() + cut));
    trickle.add(Piece(frame.begin() + cut, frame.end()));
  } else if (shape == Shape::batch) {
    trickle.join(std::move(frame), frames_);
  } else {
    trickle.add(std::move(frame));
  }
}

void Shaper::add_control(Trickle& trickle, ws::Opcode opcode, Bytes payload) {
  Piece frame;
  append(frame, opcode, payload, true);
  trickle.add(std::move(frame));
}

}  // namespace levada::load
