#include <algorithm>
#include <cstring>
#include <utility>

#include <levada/net/tls_session.h>
#include <levada/net/turn_memory.h>

namespace levada::net {

void TlsPieces::add(Bytes piece) {
  join(std::exchange(rest_, {}));
  if (filled_ > 0) {
    const Bytes front = piece.first(std::min(piece.size(), tls_record_bytes - filled_));
    join(front);
    piece = piece.subspan(front.size());
  }
  const Bytes whole = piece.first(piece.size() / tls_record_bytes * tls_record_bytes);
  if (!whole.empty() && !error_) error_ = session_.write(whole);
  rest_ = piece.subspan(whole.size());
}

// Appends to the record that is being joined, in which there is room.
void TlsPieces::join(Bytes piece) {
  if (piece.empty()) return;
  if (joined_ == nullptr) joined_ = memory_.allocate(tls_record_bytes);
  std::memcpy(joined_ + filled_, piece.data(), piece.size());
  filled_ += piece.size();
  if (filled_ < tls_record_bytes) return;
  filled_ = 0;
  if (!error_) error_ = session_.write({joined_, tls_record_bytes});
}

Error TlsPieces::finish() {
  if (error_) return error_;
  return session_.write(filled_ > 0 ? Bytes{joined_, filled_} : rest_);
}

}  // namespace levada::net
