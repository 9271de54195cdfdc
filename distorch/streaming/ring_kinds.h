#pragma once
#include <functional>

#include "distorch/streaming/ring.h"

namespace distorch::streaming {

/// A thread that does jobs in order. An exception of a job is kept and thrown by the next wait() for it.
class Worker {
 public:
  Worker();
  ~Worker();
  /// Returns the job's number, counted from 1.
  std::uint64_t add(std::function<void()> job);
  /// The host waits until job `number` is done; rethrows what it threw.
  void wait(std::uint64_t number);

 private:
  void loop();

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::function<void()>> jobs_;
  std::uint64_t added_ = 0, done_ = 0;
  std::exception_ptr failure_;
  bool stop_ = false;
  std::thread thread_;
};

/// For devices with streams: one copy stream, events in both directions, no host waits. Bytes come from a donor
/// device or from the registered mapping; where registration was refused a worker stages them through two
/// page-locked buffers.
class StreamRing final : public Ring {
 public:
  StreamRing(std::vector<RingBlock> blocks, const RingOptions& options);
  ~StreamRing() override;

 protected:
  void fill(int slot, const RingBlock& block) override;
  void wait_filled(int slot) override;
  void mark_free(int slot) override;

 private:
  void copy_mapped(const at::Tensor& slot, const Layout& layout);
  void copy_staged(const at::Tensor& slot, const Layout& layout);

  c10::Stream copy_stream_;
  std::vector<device::Event> filled_, freed_;
  std::vector<std::uint64_t> jobs_;  // staged copies: the worker's job that fills a slot
  std::vector<device::HostBuffer> staging_;
  std::vector<device::Event> staged_;
  std::size_t next_staging_ = 0;
  std::unique_ptr<Worker> worker_;
};

/// For the CPU. Blocks of a file are used where they lie in the mapping, so nothing is copied: one thread asks the disk
/// for the pages of the blocks that come next and, where the file does not fit into RAM, gives those of used blocks back;
/// another waits until the pages are there and maps them. Pages that were in the page cache before we came stay there.
/// Only blocks of a donor device are copied into slots.
class ThreadRing final : public Ring {
 public:
  ThreadRing(std::vector<RingBlock> blocks, const RingOptions& options);

 protected:
  void fill(int slot, const RingBlock& block) override;
  void wait_filled(int slot) override;
  void mark_free(int slot) override;

 private:
  void bring(int slot, const Layout& layout);

  std::vector<std::uint64_t> jobs_;
  std::vector<const Layout*> filled_by_;  // what of a file a slot stands for
  std::vector<char> brought_;             // whether its pages came from the disk; set before its job is done
  Worker asker_, worker_;                 // the second waits for the first
};

}  // namespace distorch::streaming
