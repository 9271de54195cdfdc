#pragma once
#include <ATen/core/Tensor.h>

#include <exception>
#include <future>
#include <map>
#include <memory>
#include <optional>
#include <vector>

#include "distorch/device/registered.h"
#include "distorch/device/streams.h"
#include "distorch/placement/ring_layout.h"
#include "distorch/streaming/layout.h"

namespace distorch::streaming {

class Ring;

/// One block's bytes on the compute device, for as long as this object lives. Move-only. Dropping
/// it never blocks the host: its place is overwritten only after everything the compute stream had
/// to do until then.
class [[nodiscard]] Lease {
 public:
  Lease() = default;
  Lease(Ring* ring, int block) : ring_(ring), block_(block) {}
  ~Lease();
  Lease(Lease&& other) noexcept
      : ring_(std::exchange(other.ring_, nullptr)), block_(other.block_) {}
  Lease& operator=(Lease&& other) noexcept;

  /// uint8 [layout.slot_bytes], laid out as the block's Layout says; undefined where places()
  /// tells.
  at::Tensor bytes() const;
  /// On a CPU the address of each stretch of the Layout, in the file's mapping or in the ring; empty
  /// elsewhere.
  const std::vector<const std::byte*>& places() const;
  /// Where the block lies in the ring's memory.
  std::int64_t offset() const;

 private:
  Ring* ring_ = nullptr;
  int block_ = -1;
};

/// Where the bytes of a ring's blocks come from.
struct RingBlock {
  int id = 0;
  const Layout* layout = nullptr;
  at::Tensor donor;  // uint8 on a donor device, laid out as `layout`; undefined: from the file
  /// Items of the layout (by index) that are convolution weights to be laid out as channels-last in
  /// their place once they are there.
  std::vector<int> channels_last;
};

struct RingOptions {
  at::Device compute = at::kCPU;
  double slots = 2;  // room for that many of the largest block; fewer save memory, see placement.h
  std::string lane;  // for traces: "cpu -> cuda:0"
  // the file's mapping is registered with the compute device (see RegisteredRange)
  bool registered = true;
  std::vector<const std::byte*> seams;  // where pieces of registered memory begin, sorted or not
  bool keep_cached = true;  // false: the file does not fit into RAM, give its pages back once read
};

/// The memory through which the blocks of one link reach the compute device. Each has its fixed
/// places in it (placement/ring_layout.h). They are fetched ahead, as far as there is room, in the
/// order in which they were used last time, cyclic over steps: during the last blocks of a step the
/// first ones of the next are on their way. What of a block does not lie where the block before it
/// lies comes while that one is still at work. One kind for devices with streams, one for the CPU
/// (ring_stream.cpp, ring_thread.cpp).
///
/// A block counts as filled only where its fill has not failed. Any failure empties the ring: the
/// next pin() fills from scratch. A fill ahead of need is a hint: only one on demand throws, and
/// Error(Internal).
class Ring {
 public:
  /// `sizes`: bytes that each block takes in the ring.
  Ring(std::vector<RingBlock> blocks, const std::vector<std::int64_t>& sizes,
       const RingOptions& options);
  virtual ~Ring() = default;
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  /// The block's bytes; starts the copy now if it was not foreseen. On devices with streams the
  /// compute stream waits for the copy, the host does not (except for staged copies that have not
  /// been read from disk yet). Throws what the fill throws: Error(Format) where a file no longer has
  /// the bytes, what the device says where a copy fails.
  Lease pin(int block);
  /// Which blocks lie in the ring now, and where the order stands: what places the next step's
  /// blocks get depends on it.
  struct Position {
    std::vector<std::pair<int, std::int64_t>> fresh;  // index and offset of blocks not used yet
    int last_pinned = -1, last_filled = -1, round = 0;
    std::vector<int> successors;  // the order in which blocks will be fetched ahead
    bool operator==(const Position&) const = default;
  };
  Position position() const;

  /// Memory of the ring on the compute device.
  std::int64_t capacity_bytes() const { return capacity_bytes_; }
  /// Bytes copied so far, and how many of them were not foreseen.
  std::int64_t copied_bytes() const { return copied_bytes_; }
  std::int64_t unforeseen_bytes() const { return unforeseen_bytes_; }

 protected:
  /// Bytes of a block, [begin, end), whose place came or comes free by one release.
  struct Piece {
    std::int64_t begin = 0, end = 0;
    std::optional<std::uint32_t> release;  // what mark_free() said; nothing: nobody has used it
  };
  /// Where a block goes this time.
  struct Place {
    int index = 0;  // of the block, as the constructor was given them
    std::int64_t offset = 0;
    std::vector<Piece> pieces;    // all of it, what comes free first in front
    bool after_given_up = false;  // a block that was filled before has not been used since
  };
  /// Starts copying. The future is ready when everything has been issued, and throws what went
  /// wrong; without a state where all was issued at once.
  virtual std::shared_future<void> fill(const Place& place, const RingBlock& block) = 0;
  /// Compute may use the block after this, once fill()'s future is ready.
  virtual void let_use(int index) = 0;
  /// What compute does from now on does not use the block. Returns what fill() knows this by.
  virtual std::uint32_t mark_free(int index) = 0;
  /// Waits until no fill is at work and the device is past everything that uses the ring's memory.
  virtual void come_to_rest() noexcept = 0;
  virtual const std::vector<const std::byte*>& places(int) const { return nowhere_; }
  const RingOptions& options() const { return options_; }
  void allocate(const at::TensorOptions& options);
  const at::Tensor& buffer() const { return buffer_; }
  std::size_t block_count() const { return blocks_.size(); }
  bool has_donors() const;  // whether blocks come from the memory of a device

 private:
  friend class Lease;
  /// A use of a block that has been released; the device may still be at it.
  struct Use {
    std::int64_t offset = 0;
    std::uint64_t when = 0;  // counted in releases; 0: there was none
    std::uint32_t release = 0;
  };
  struct State {
    RingBlock block;
    std::int64_t size_bytes = 0, offset = 0;
    int successor = 0;
    bool leased = false;
    bool fresh = false;             // filled or being filled, not used yet
    std::shared_future<void> fill;  // of a fresh one, see fill()
    Use latest, before;             // `before`: the latest one at another place
  };
  void release(int index) noexcept;
  void prefetch() noexcept;
  void wait_for(const State& state) const;
  bool came(const State& state);
  void recover(const std::exception& error) noexcept;
  void empty() noexcept;
  bool may_fill(int index, bool drop_fresh);
  void start_fill(int index);
  std::int64_t next_offset(int index) const;
  std::vector<Piece> pieces_of(int index, std::int64_t begin);

  std::vector<State> blocks_;
  std::map<int, int> index_;  // of a block's id
  placement::RingLayout layout_;
  RingOptions options_;
  std::int64_t capacity_bytes_ = 0;
  at::Tensor buffer_;
  std::vector<const std::byte*> nowhere_;
  std::exception_ptr failure_;
  int last_pinned_ = -1;
  int last_filled_ = -1, round_ = 0;
  std::uint64_t releases_ = 0;
  bool given_up_ = false;  // a filled block was dropped since the last fill
  std::int64_t copied_bytes_ = 0, unforeseen_bytes_ = 0;
};

/// A ring for the compute device of the options.
std::unique_ptr<Ring> make_ring(std::vector<RingBlock> blocks, const RingOptions& options);

/// Reads a stretch of a file. Error(Format) where the file no longer has the bytes. With `keep_cached`
/// false the pages are given back afterwards.
void read_stretch(const Stretch& stretch, void* to, bool keep_cached);

}  // namespace distorch::streaming
