#pragma once
#include <ATen/core/Tensor.h>

#include <condition_variable>
#include <deque>
#include <exception>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "distorch/device/registered.h"
#include "distorch/device/streams.h"
#include "distorch/streaming/layout.h"

namespace distorch::streaming {

struct UploadOptions {
  int threads = 0;  // that read; 0: three of four that the processor has, 12 at most
  /// What a thread reads at once, bytes: small enough that the two buffers of all threads stay in
  /// the processor's cache, from where the device then fetches them.
  std::int64_t piece_bytes = std::int64_t{2} << 20;
  /// Pieces that are copied as one: enough that what a copy costs beside its bytes hardly counts.
  std::size_t batch_pieces = 4;
};

/// Brings blocks of files into an accelerator's memory, in the order of add(), at the speed of its
/// link: several threads read pieces into page-locked buffers, which are copied on from there.
/// Nothing is mapped or registered. A block may be used as soon as it has arrived, while later ones
/// are on their way.
class Upload {
 public:
  explicit Upload(c10::Device device, const UploadOptions& options = {});
  /// Gives up what has not been read yet.
  ~Upload();
  Upload(const Upload&) = delete;
  Upload& operator=(const Upload&) = delete;

  /// `target`: uint8 [layout.slot_bytes] on the device, allocated on its current stream. The layout
  /// must live until wait() of this block or the end of this object.
  void add(int block, const Layout& layout, const at::Tensor& target);
  /// No more blocks will be added: the threads and their buffers go once everything has been
  /// copied, whether or not anybody waits for it.
  void close();
  /// The device's current stream waits for the block's bytes; the host until they have been read.
  /// Error(Format) where a file no longer has them; after a failure no block arrives any more.
  void wait(int block);
  /// Whether something went wrong, so that what has not arrived never will.
  bool failed() const;

 private:
  struct Coming {
    int block = 0;
    const Layout* layout = nullptr;
    at::Tensor target;
    std::size_t stretch = 0;  // what is read next
    std::int64_t done = 0;    // of that stretch, bytes
  };
  struct Piece {
    Stretch stretch;  // slot_offset is that in the target
    at::Tensor target;
    int block = 0;
  };
  struct Batch {
    explicit Batch(c10::Device device) : done(device) {}
    std::vector<device::Copy> copies;
    std::vector<int> blocks;  // of each copy
    bool issued = false;
    device::Event done;
  };
  struct Pending {
    explicit Pending(c10::Device device) : arrived(device) {}
    std::int64_t left = 0;  // pieces
    device::Event arrived;
  };
  void start(int threads);
  void stop() noexcept;
  void work();
  void copy_pieces();
  bool take(Piece& piece);
  std::shared_ptr<Batch> send(const Piece& piece, const at::Tensor& from);
  void issue(Batch& batch);
  void finish(Batch* batch);

  c10::Device device_;
  UploadOptions options_;
  c10::Stream stream_;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Coming> coming_;
  std::map<int, Pending> pending_;
  std::shared_ptr<Batch> open_;  // what has been read and not been issued
  std::exception_ptr failure_;
  bool stop_ = false, closed_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace distorch::streaming
