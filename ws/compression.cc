#include <levada/ws/compression.h>

#include <cassert>
#include <utility>

#include <levada/net/reactor.h>

namespace levada::ws {

Compression& Compression::of(net::Reactor& reactor) {
  std::shared_ptr<void>& attachment = reactor.attachment();
  if (attachment == nullptr) attachment = std::make_shared<Compression>(reactor.blocks());
  return *static_cast<Compression*>(attachment.get());
}

void Compression::remove(SlotId connection) {
  own_.erase(connection.packed());
  if (auto node = in_fragments_.extract(connection.packed())) free_fragments(std::move(node));
  if (--connections_ == 0) clear();
}

void Compression::clear() {
  assert(own_.empty() && in_fragments_.empty());
  deflaters_.clear();
  free_inflaters_.clear();
}

// ---- Deflaters ----

Compression::Deflaters& Compression::deflaters(const DeflaterOptions& options) {
  for (Deflaters& each : deflaters_) {
    if (each.options == options) return each;
  }
  return deflaters_.emplace_back(Deflaters{.options = options, .shared = {}, .fragments = {}});
}

Deflater& Compression::deflater(const DeflateOptions& options, SlotId connection, const DeflateState& state,
                                bool fragments) {
  const DeflaterOptions wanted = deflater_options(options, state.agreement());
  if (fragments && !wanted.takeover) return begin_fragments(connection, wanted);
  std::unique_ptr<Deflater>& place =
      wanted.takeover ? own_[connection.packed()].deflater : deflaters(wanted).shared;
  if (place == nullptr) place = std::make_unique<Deflater>(wanted, blocks_);
  return *place;
}

Deflater& Compression::begin_fragments(SlotId connection, const DeflaterOptions& options) {
  const auto found = in_fragments_.find(connection.packed());
  if (found != in_fragments_.end()) return *found->second;
  auto& free = deflaters(options).fragments;
  if (free.empty()) {
    return *in_fragments_.emplace(connection.packed(), std::make_unique<Deflater>(options, blocks_))
                .first->second;
  }
  InFragments::node_type node = std::move(free.back());
  free.pop_back();
  node.key() = connection.packed();
  return *in_fragments_.insert(std::move(node)).position->second;
}

void Compression::end_fragments(SlotId connection, const DeflateState& state) {
  if (!state.own_takeover()) free_fragments(in_fragments_.extract(connection.packed()));
}

void Compression::free_fragments(InFragments::node_type node) {
  Deflater& deflater = *node.mapped();
  deflater.reset();
  auto& free = deflaters(deflater.options()).fragments;
  if (keeps(free.size(), deflater)) free.push_back(std::move(node));
}

// ---- Inflaters ----

Inflater& Compression::take_inflater(const CompressionOptions& options, SlotId connection,
                                     const DeflateState& state) {
  const InflaterOptions wanted =
      inflater_options(options.deflate, state.agreement(), options.max_message_bytes, options.streaming);
  if (wanted.takeover) {
    std::unique_ptr<Inflater>& own = own_[connection.packed()].inflater;
    if (own == nullptr) own = std::make_unique<Inflater>(wanted, blocks_);
    return *own;
  }
  if (free_inflaters_.empty()) return *new Inflater(wanted, blocks_);
  Inflater* inflater = free_inflaters_.back().release();
  free_inflaters_.pop_back();
  inflater->use(wanted);
  return *inflater;
}

void Compression::give_inflater(Inflater& inflater) {
  if (inflater.options().takeover) return;
  std::unique_ptr<Inflater> given(&inflater);
  given->reset();
  if (keeps(free_inflaters_.size(), *given)) free_inflaters_.push_back(std::move(given));
}

// ---- Slices ----

bool Compression::wait(SlotId connection) {
  waiting_.push_back(connection);
  return waiting() == 1 && !in_slices_turn_;
}

// What is served is taken off the vector when it is half of it: each moves once.
void Compression::end_wait() {
  first_waiting_++;
  if (2 * first_waiting_ < waiting_.size()) return;
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(first_waiting_));
  first_waiting_ = 0;
}

}  // namespace levada::ws
