#include "distorch/server/outbox.h"

namespace distorch::server {
namespace {

constexpr std::uint32_t kEveryKind = 0;

}  // namespace

bool Outbox::push(Frame frame) {
  if (frame.preview != 0) drop_previews(frame.preview);
  bytes_ += frame.bytes->size();
  waiting_.push_back(std::move(frame));
  if (is_full()) drop_previews(kEveryKind);
  return !is_full();
}

void Outbox::drop_previews(std::uint32_t kind) {
  std::erase_if(waiting_, [&](const Frame& frame) {
    const bool goes = frame.preview != 0 && (kind == kEveryKind || frame.preview == kind);
    if (goes) bytes_ -= frame.bytes->size();
    return goes;
  });
}

std::optional<Frame> Outbox::pop() {
  if (waiting_.empty()) return std::nullopt;
  Frame frame = std::move(waiting_.front());
  waiting_.pop_front();
  bytes_ -= frame.bytes->size();
  return frame;
}

}  // namespace distorch::server
