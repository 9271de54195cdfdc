#include "distorch/placement/placement.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "distorch/base/align.h"
#include "distorch/base/error.h"

namespace distorch::placement {
namespace {

using Bytes = std::int64_t;

std::string names(const System& system) {
  std::vector<std::string_view> all;
  for (const Device& device : system.devices) all.push_back(device.name);
  return fmt::format("{}", fmt::join(all, ", "));
}

}  // namespace

DeviceKind kind_of(std::string_view device) {
  if (device == "cpu") return DeviceKind::Host;
  return device == "disk" ? DeviceKind::Disk : DeviceKind::Accelerator;
}

int System::find(std::string_view device) const {
  for (std::size_t i = 0; i < devices.size(); ++i) {
    if (devices[i].name == device) return static_cast<int>(i);
  }
  return -1;
}

int System::at(std::string_view device) const {
  int found = find(device);
  if (found < 0) {
    throw Error(ErrorKind::Usage, fmt::format("device {}", device),
                fmt::format("is not there; there are {}", names(*this)));
  }
  return found;
}

System system_of(const Rig& rig, std::string_view compute) {
  System system;
  for (const RigDevice& device : rig.devices)
    system.devices.push_back({device.name, device.memory_bytes, device.memory_bytes});
  system.links = rig.links;
  system.roots = rig.roots;
  system.compute = system.at(compute);
  return system;
}

double Block::seconds_on(int device) const {
  return device >= 0 && device < static_cast<int>(seconds.size()) ? seconds[device] : -1;
}

void Block::resize(Bytes new_bytes) {
  const double ratio = bytes > 0 ? static_cast<double>(new_bytes) / static_cast<double>(bytes) : 0;
  Bytes left = bytes = new_bytes;
  for (Bytes& part : parts) {
    part = std::min(left, static_cast<Bytes>(static_cast<double>(part) * ratio));
    left -= part;
  }
}

std::uint64_t all_parts(const Block& block) {
  const auto n = block.parts.size();
  return n >= 64 ? ~std::uint64_t{0} : (std::uint64_t{1} << n) - 1;
}

Bytes resting_bytes(const Block& block, const Home& home) {
  if (home.how != How::Streamed || home.rests == 0) return 0;
  Bytes bytes = 0;
  for (std::size_t p = 0; p < block.parts.size(); ++p)
    bytes += home.rests >> p & 1 ? block.parts[p] : 0;
  return bytes;
}

Bytes streamed_bytes(const Block& block, const Home& home) {
  return home.how == How::Streamed ? block.bytes - resting_bytes(block, home) : 0;
}

Bytes Model::bytes() const {
  return std::accumulate(blocks.begin(), blocks.end(), Bytes{0},
                         [](Bytes sum, const Block& block) { return sum + block.bytes; });
}

Bytes Model::aside_bytes() const {
  return std::accumulate(blocks.begin(), blocks.end(), Bytes{0},
                         [](Bytes sum, const Block& block) { return sum + block.aside_bytes; });
}

Model without_idle(Model model) {
  Bytes largest = 0;
  for (Block& block : model.blocks) {
    if (!block.idle || block.bytes == 0) continue;
    largest = std::max(largest, block.bytes);
    block.aside_bytes = std::exchange(block.bytes, 0);
    block.parts.clear();
    block.pinned = true;
  }
  constexpr Bytes small = 8;  // part of such a block that what it computes with takes at most
  if (largest > 0)
    model.activation_bytes = std::max(model.activation_bytes,
                                      largest + std::min(model.activation_bytes, largest / small));
  return model;
}

Bytes RingSize::room_bytes() const {
  const double whole = std::floor(slots);
  const auto rest = static_cast<Bytes>((slots - whole) * static_cast<double>(slot_bytes));
  return static_cast<Bytes>(whole) * slot_bytes + align_down(rest, kPageBytes);
}

Bytes RingSize::bytes() const {
  return room_bytes() + (slots == std::floor(slots) ? 0 : 2 * kPageBytes);
}

Bytes Placement::ring_bytes() const {
  return std::accumulate(rings.begin(), rings.end(), Bytes{0},
                         [](Bytes sum, const RingSize& ring) { return sum + ring.bytes(); });
}

bool Placement::all_resident() const {
  return std::all_of(blocks.begin(), blocks.end(), [](const Home& home) {
    return home.how == How::Resident || home.how == How::Aside;
  });
}

Bytes Placement::peak_bytes() const { return bytes[compute] + ring_bytes() + activation_bytes; }

Placement make_placement(const System& system, const Model& model, std::vector<Home> homes,
                         double slots) {
  Placement placement;
  placement.model = model.name;
  placement.compute = system.compute;
  placement.blocks = std::move(homes);
  placement.activation_bytes = model.activation_bytes;
  placement.bytes.assign(system.devices.size(), 0);
  std::vector<Bytes> largest(system.devices.size(), 0);
  std::vector<int> streams(system.devices.size(), 0);
  for (std::size_t i = 0; i < placement.blocks.size(); ++i) {
    Home& home = placement.blocks[i];
    const Block& block = model.blocks[i];
    if (block.aside_bytes > 0) {
      if (const int host = system.find("cpu"); host >= 0) home = {host, How::Aside};
      continue;
    }
    if (home.rests != 0 && (home.how != How::Streamed || home.rests == all_parts(block)))
      home = home.how == How::Streamed ? Home{system.compute, How::Resident}
                                       : Home{home.device, home.how};
    const Bytes resting = resting_bytes(block, home);
    placement.bytes[system.compute] += resting;
    placement.bytes[home.device] += block.bytes - resting;
    if (home.how != How::Streamed) continue;
    largest[home.device] = std::max(largest[home.device], block.bytes - resting);
    ++streams[home.device];
  }
  for (std::size_t d = 0; d < streams.size(); ++d) {
    if (streams[d] > 0)
      placement.rings.push_back(
          {static_cast<int>(d), std::min<double>(slots, streams[d]), largest[d]});
  }
  return placement;
}

}  // namespace distorch::placement
