#include "distorch/convert/write_behind.h"

#include <ATen/ATen.h>

namespace distorch::convert {
namespace {

constexpr std::size_t kRoom = std::size_t{64} << 20;  // bytes that may wait

}  // namespace

WriteBehind::WriteBehind(Output& output) : output_(output), thread_([this] { run(); }) {}

WriteBehind::~WriteBehind() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
    waiting_.clear();
  }
  changed_.notify_all();
  thread_.join();
}

void WriteBehind::write(std::int64_t offset, at::Tensor bytes) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return error_ || waiting_bytes_ < kRoom; });
  throw_error();
  waiting_bytes_ += bytes.nbytes();
  waiting_.push_back({offset, std::move(bytes)});
  changed_.notify_all();
}

void WriteBehind::finish() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [&] { return error_ || waiting_bytes_ == 0; });
  throw_error();
}

void WriteBehind::throw_error() const {
  if (error_) std::rethrow_exception(error_);
}

void WriteBehind::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return stop_ || !waiting_.empty(); });
    if (stop_) return;
    auto piece = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    std::exception_ptr error;
    try {
      output_.write(piece.offset,
                    {static_cast<const char*>(piece.bytes.const_data_ptr()), piece.bytes.nbytes()});
    } catch (...) {
      error = std::current_exception();
    }
    const auto bytes = piece.bytes.nbytes();
    piece.bytes.reset();
    lock.lock();
    waiting_bytes_ -= bytes;
    if (error) error_ = error;
    changed_.notify_all();
    if (error_) return;
  }
}

}  // namespace distorch::convert
