#pragma once
#include "distorch/streaming/ring.h"
#include "distorch/streaming/worker.h"

namespace distorch::streaming {

/// For devices with streams: one copy stream that waits for a count of releases, counts of what is
/// filled the other way, no host waits. Bytes come from a donor device or from the registered
/// mapping; where registration was refused a worker stages them through two page-locked buffers.
/// Convolutions are laid out on a stream of their own, beside the copies that follow and the blocks
/// that compute.
class StreamRing final : public Ring {
 public:
  StreamRing(std::vector<RingBlock> blocks, const RingOptions& options);
  ~StreamRing() override;

 protected:
  std::shared_future<void> fill(const Place& place, const RingBlock& block) override;
  void let_use(int index) override;
  std::uint32_t mark_free(int index) override;
  void come_to_rest() noexcept override;

 private:
  void filled(int index, const at::Tensor& place, const RingBlock& block);
  void copy(const Place& place, const at::Tensor& to, const RingBlock& block);
  void copy_mapped(const at::Tensor& to, const Layout& layout, const Piece& piece);
  void copy_staged(const at::Tensor& to, const Layout& layout, const Piece& piece);

  c10::Stream copy_stream_;
  c10::Stream layout_stream_;
  device::Event copied_, laid_out_;
  /// What computing waits for before it uses a block.
  struct Filled {
    device::Counter* counter = nullptr;
    std::uint32_t count = 0;
  };
  std::vector<Filled> filled_;        // per block
  device::Counter copies_, layouts_;  // of blocks, that are done on the two streams
  device::Counter released_;
  std::uint32_t waited_ = 0;  // the latest count that the copy stream has waited for
  std::vector<const std::byte*> seams_;
  std::vector<device::HostBuffer> staging_;
  std::vector<device::Event> staged_;
  std::size_t next_staging_ = 0;
  bool stages_ =
      false;  // the worker reads files; it must not look at worker_, which goes before it
  std::unique_ptr<Worker> worker_;
};

/// For the CPU. A worker makes the blocks that come next ready. One that lies in the page cache is
/// used there, in the file's mapping, without a copy. One that does not is read from the disk into
/// the ring past the page cache (O_DIRECT), which costs the CPU next to nothing and pushes nothing
/// else out of RAM; where the file system cannot do that, or the file is to stay in RAM, its pages
/// are brought into the cache and used there. Only blocks of a donor are copied.
class ThreadRing final : public Ring {
 public:
  ThreadRing(std::vector<RingBlock> blocks, const RingOptions& options);
  ~ThreadRing() override;

 protected:
  std::shared_future<void> fill(const Place& place, const RingBlock& block) override;
  void let_use(int index) override;
  std::uint32_t mark_free(int index) override;
  void come_to_rest() noexcept override;
  const std::vector<const std::byte*>& places(int index) const override {
    return filled_[index].places;
  }

 private:
  struct Filled {
    std::shared_future<void> job;
    std::int64_t offset = 0;               // for direct reads, into room_
    const Layout* layout = nullptr;        // of a file's block
    std::vector<const std::byte*> places;  // of all its stretches, once the job has been done well
    bool give_back = false;                // we brought its pages into the cache
  };
  int direct_descriptor(const formats::MappedFile& mapping);
  std::byte* room();
  std::vector<const std::byte*> fill_directly(const Filled& filled, const Layout& layout);
  void fill_from_file(Filled& filled, const Layout& layout);

  std::vector<Filled> filled_;
  at::Tensor room_;  // for direct reads, made when first needed
  std::map<const formats::MappedFile*, int> direct_;
  std::unique_ptr<Worker> worker_;
};

}  // namespace distorch::streaming
