#include <levada/ws/compression.h>

#include <cassert>
#include <utility>

namespace levada::ws {

void Compression::add(SlotId connection, const DeflateAgreement& agreement) {
  if (agreement.own_takeover || agreement.peer_takeover) own_[connection.packed()].agreement = agreement;
}

void Compression::clear() {
  assert(own_.empty());
  deflaters_ = {};
  free_inflaters_.clear();
}

Deflater& Compression::deflater(SlotId connection, const DeflateState& state, bool fragments) {
  const DeflateAgreement agreement{.own_takeover = state.own_takeover(),
                                   .own_window_bits = state.own_window_bits()};
  std::unique_ptr<Deflater>* place = &deflaters(state).shared;
  if (agreement.own_takeover) {
    place = &own_[connection.packed()].deflater;
  } else if (fragments) {
    place = &own_[connection.packed()].fragments;
    auto& free = deflaters(state).fragments;
    if (*place == nullptr && !free.empty()) {
      *place = std::move(free.back());
      free.pop_back();
    }
  }
  if (*place == nullptr) *place = std::make_unique<Deflater>(deflater_options(options_, agreement), blocks_);
  return **place;
}

void Compression::end_fragments(SlotId connection, const DeflateState& state) {
  if (state.own_takeover()) return;
  std::unique_ptr<Deflater> deflater = std::move(own_[connection.packed()].fragments);
  auto& free = deflaters(state).fragments;
  if (keeps(free, *deflater)) free.push_back(std::move(deflater));
}

Inflater& Compression::take_inflater(SlotId connection, const DeflateState& state) {
  if (state.peer_takeover()) {
    Own& own = own_[connection.packed()];
    if (own.inflater == nullptr) {
      own.inflater = std::make_unique<Inflater>(
          inflater_options(options_, own.agreement, max_message_bytes_, streaming_), blocks_);
    }
    return *own.inflater;
  }
  if (free_inflaters_.empty()) {
    return *new Inflater(inflater_options(options_, {}, max_message_bytes_, streaming_), blocks_);
  }
  Inflater* inflater = free_inflaters_.back().release();
  free_inflaters_.pop_back();
  return *inflater;
}

void Compression::give_inflater(Inflater& inflater) {
  if (inflater.options().takeover) return;
  std::unique_ptr<Inflater> given(&inflater);
  given->reset();
  if (keeps(free_inflaters_, *given)) free_inflaters_.push_back(std::move(given));
}

}  // namespace levada::ws
