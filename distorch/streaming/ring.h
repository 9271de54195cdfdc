#pragma once
#include <ATen/core/Tensor.h>

#include <atomic>
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

class Ring;

/// One block's bytes on the compute device, for as long as this object lives. Move-only. Dropping
/// it never blocks the host: its slot is overwritten only after everything the compute stream had
/// to do until then.
class [[nodiscard]] Lease {
 public:
  Lease() = default;
  Lease(Ring* ring, int slot) : ring_(ring), slot_(slot) {}
  ~Lease();
  Lease(Lease&& other) noexcept : ring_(std::exchange(other.ring_, nullptr)), slot_(other.slot_) {}
  Lease& operator=(Lease&& other) noexcept;

  int slot() const { return slot_; }
  /// uint8 [slot_bytes], laid out as the block's Layout says; undefined where places() tells.
  const at::Tensor& bytes() const;
  /// On a CPU the address of each run of the Layout, in the file's mapping or in a slot; empty
  /// elsewhere.
  const std::vector<const std::byte*>& places() const;

 private:
  Ring* ring_ = nullptr;
  int slot_ = -1;
};

/// Where the bytes of a ring's blocks come from.
struct RingBlock {
  int id = 0;
  const Layout* layout = nullptr;
  at::Tensor donor;  // uint8 on a donor device, laid out as `layout`; undefined: from the file
};

/// What the race check's own test leaves out, one at a time. Everywhere else: all true.
struct RingWaits {
  bool copy_after_compute = true;  // a slot is overwritten only when its last user is done
  bool compute_after_copy = true;  // a block computes only when its bytes have arrived
  bool host_after_copy = true;     // a staging buffer is refilled only when its copy is done
};

struct RingOptions {
  at::Device compute = at::kCPU;
  int slots = 2;     // 2 hide transfers behind compute, a third brings nothing; 1 saves memory
  std::string lane;  // for traces: "cpu -> cuda:0"
  bool registered =
      true;  // the file's mapping is registered with the compute device (see RegisteredRange)
  bool keep_cached = true;  // false: the file does not fit into RAM, give its pages back once read
  RingWaits waits;
};

/// The fixed slots through which the blocks of one link reach the compute device, fetched ahead in
/// the order in which they were used last time, cyclic over steps: during the last blocks of a step
/// the first ones of the next are on their way. One kind for devices with streams, one for the CPU
/// (ring_stream.cpp, ring_thread.cpp).
class Ring {
 public:
  Ring(std::vector<RingBlock> blocks, const RingOptions& options);
  virtual ~Ring() = default;
  Ring(const Ring&) = delete;
  Ring& operator=(const Ring&) = delete;

  /// The block's bytes; starts the copy now if it was not foreseen. On devices with streams the
  /// compute stream waits for the copy, the host does not (except for staged copies that have not
  /// been read from disk yet).
  Lease pin(int block);
  std::int64_t slot_bytes() const { return slot_bytes_; }
  int slots() const { return static_cast<int>(states_.size()); }
  const at::Tensor& bytes(int slot) const { return bytes_.empty() ? none_ : bytes_[slot]; }
  virtual const std::vector<const std::byte*>& places(int) const { return nowhere_; }
  /// Bytes copied so far, and how many of them were not foreseen.
  std::int64_t copied_bytes() const { return copied_bytes_; }
  std::int64_t unforeseen_bytes() const { return unforeseen_bytes_; }

 protected:
  virtual void fill(int slot,
                    const RingBlock& block) = 0;  // start copying; the slot is free or being freed
  virtual void wait_filled(int slot) = 0;         // compute may use the slot after this
  virtual void mark_free(int slot) = 0;  // what compute does from now on does not use the slot
  const RingOptions& options() const { return options_; }
  void allocate_slots(const at::TensorOptions& options);
  bool has_donors() const;  // whether blocks come from the memory of a device

 private:
  friend class Lease;
  struct State {
    int block = -1;
    bool leased = false;
    bool fresh = false;  // filled, not used yet
  };
  void release(int slot) noexcept;  // what goes wrong is thrown by the next pin()
  void prefetch();
  int free_slot(bool may_drop_fresh) const;
  void start_fill(int slot, int block);
  int successor(int block) const;

  std::map<int, RingBlock> blocks_;
  std::map<int, int> successor_;
  RingOptions options_;
  std::int64_t slot_bytes_ = 0;
  std::vector<at::Tensor> bytes_;
  at::Tensor none_;
  std::vector<const std::byte*> nowhere_;
  std::vector<State> states_;
  std::exception_ptr failure_;
  int last_pinned_ = -1;
  int next_slot_ = 0;
  std::int64_t copied_bytes_ = 0, unforeseen_bytes_ = 0;
};

/// A ring for the compute device of the options.
std::unique_ptr<Ring> make_ring(std::vector<RingBlock> blocks, const RingOptions& options);

/// Reads a run of a file. Error(Format) where the file no longer has the bytes. With `keep_cached`
/// false the pages are given back afterwards.
void read_run(const Run& run, void* to, bool keep_cached);

}  // namespace distorch::streaming
