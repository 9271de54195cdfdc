#pragma once
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "distorch/base/link_clock.h"
#include "distorch/base/rig.h"

namespace distorch::placement {

enum class DeviceKind { Accelerator, Host, Disk };
/// "cpu" -> Host, "disk" -> Disk, every other name -> Accelerator.
DeviceKind kind_of(std::string_view device);

struct Device {
  std::string name;
  std::int64_t total_bytes = 0;  // what DeviceFraction counts from
  // what we may use of it; weights + rings + activations stay within
  std::int64_t budget_bytes = 0;
};

/// The machine a plan is for. Device numbers everywhere are indices into `devices`.
struct System {
  std::vector<Device> devices;
  std::vector<LinkSpec> links;
  std::vector<RootSpec> roots;
  int compute = 0;

  int find(std::string_view device) const;  // -1 where there is none
  /// Error(Usage) that names the device and what there is instead.
  int at(std::string_view device) const;
};

/// Budgets are the whole memory. Error(Usage) where the rig lacks `compute`.
System system_of(const Rig& rig, std::string_view compute);

/// What is used together: a transformer block, a stage of a UNet. One that streams may rest on the
/// compute device in part, its weights (`parts`) being the smallest things that are placed.
struct Block {
  std::string name;        // "double_blocks.0"
  std::string type;        // "DoubleBlock": one row of the layer table; may be empty
  std::int64_t bytes = 0;  // as in the file: what rests on a device and what a link carries
  // seconds[d]: one step's compute of it on devices[d]; absent or < 0: cannot run there
  std::vector<double> seconds;
  // added to seconds where it streams: waiting and starting anew, its bytes' arrival in the
  // device's memory, converting, laying out
  double unpack_s = 0;
  double restart_s = 0;  // of unpack_s: what counts however little of it streams
  // crosses a link when it runs on another device than the block before it
  std::int64_t activation_bytes = 0;
  // stays on the compute device (embedding tables, tiny layers), charged to it
  bool pinned = false;
  // bytes of its weights, small ones taken together; 64 at most and no more than `bytes` in all;
  // empty: it has one
  std::vector<std::int64_t> parts;
  // no call of a step runs it, as what makes the modulations of all steps
  bool idle = false;
  // of an idle block that is brought for each of its runs: its bytes; `bytes` is 0 then
  std::int64_t aside_bytes = 0;

  double seconds_on(int device) const;  // < 0: cannot run there
  /// The same weights in another form: parts in proportion.
  void resize(std::int64_t new_bytes);
};

/// Blocks in execution order.
struct Model {
  std::string name;
  std::vector<Block> blocks;
  // peak on the compute device while this model runs, weights apart
  std::int64_t activation_bytes = 0;
  // the host, which issues copies too, is the last to be done with a block
  bool late_host = false;

  std::int64_t bytes() const;
  std::int64_t aside_bytes() const;
};

/// The same with its idle blocks aside: they have no place on a device and no part in a step. Activations
/// have room for the largest of them, which is brought while those of no step are there.
Model without_idle(Model model);

enum class How {
  Resident,  // rests on the compute device and runs there
  Streamed,  // rests on a donor, copied into a ring slot for every step
  OnDonor,   // rests on a donor and runs there; activations travel
  Aside      // brought for each of its runs, which are no part of a step, and let go
};

struct Home {
  int device = 0;
  How how = How::Resident;
  // Of a streamed block: which of its parts stay on the compute device, a bit each.
  std::uint64_t rests = 0;
  bool operator==(const Home&) const = default;
};

/// Bytes of a streamed block that stay on the compute device, and those that a link carries.
std::int64_t resting_bytes(const Block& block, const Home& home);
std::int64_t streamed_bytes(const Block& block, const Home& home);
/// The bits of all its parts.
std::uint64_t all_parts(const Block& block);

/// Memory on the compute device for what streams from one donor: room for `slots` times the most
/// that does of one block (slot_bytes), and for more where it is less (ring_layout.h). Not only whole
/// slots: in one and a half a block comes but for its last part while the one before it computes.
struct RingSize {
  int device = 0;  // the donor
  double slots = 2;
  std::int64_t slot_bytes = 0;
  /// What blocks find room in: of a part of a slot whole pages, so that what lies at the end is
  /// aligned as sizes are.
  std::int64_t room_bytes() const;
  /// What is kept for it. Where weights fill the device beside a ring of no whole slots, small
  /// tensors that nobody has counted find no gap: two pages are for them.
  std::int64_t bytes() const;
  bool operator==(const RingSize&) const = default;
};

/// Where every block of one model rests and how it reaches its compute. Integer bytes throughout.
struct Placement {
  std::string model;
  int compute = 0;
  std::vector<Home> blocks;           // one per block, execution order
  std::vector<std::int64_t> bytes;    // per device of the System: weights that rest there
  std::vector<RingSize> rings;        // one per donor that streams, by device number
  std::int64_t activation_bytes = 0;  // on the compute device

  std::int64_t ring_bytes() const;
  /// Weights + rings + activations on the compute device.
  std::int64_t peak_bytes() const;
  /// Of what runs in a step.
  bool all_resident() const;
  bool operator==(const Placement&) const = default;
};

/// Fills bytes, rings and activation_bytes from homes. `slots` for every ring. A streamed block of
/// which everything rests is a resident one, and what has aside_bytes is aside whatever `homes` says.
Placement make_placement(const System& system, const Model& model, std::vector<Home> homes,
                         double slots = 2);

}  // namespace distorch::placement
