#include "distorch/streaming/known_devices.h"

#include <algorithm>
#include <array>

#include "distorch/base/units.h"

namespace distorch::streaming {

namespace {

struct Card {
  const char* name;    // part of the description
  double half_tflops;  // dense bf16 matmul that is reached in practice
  double float_tflops;
  double memory_gbps;
};

// H200 measured (see docs/benchmarks_gpu.md); others: data sheets, dense, with float32
// accumulation.
constexpr std::array<Card, 10> cards{{{"H200", 700, 45, 4000},
                                      {"H100", 650, 45, 3000},
                                      {"A100", 250, 17, 1700},
                                      {"5090", 210, 90, 1700},
                                      {"4090", 160, 75, 950},
                                      {"4070", 58, 27, 480},
                                      {"3090", 70, 33, 900},
                                      {"3060", 25, 12, 340},
                                      {"1660", 9, 5, 270},
                                      {"A6000", 75, 36, 720}}};

constexpr double launch_s = 4e-6;  // one kernel launch
constexpr double issue_s = 8e-6;   // of the host, for one operation of ATen

}  // namespace

KernelSpeeds typical_kernels() {
  RigDevice device;
  device.speed(KernelKind::Matmul) = {.compute = 1, .memory = 0.8};
  device.speed(KernelKind::Convolution) = {.compute = 0.4, .memory = 0.6, .start_s = 8e-6};
  // 0.8 at FLUX's heads of 128, 0.43 at the 40 of Stable Diffusion 1.
  device.speed(KernelKind::Attention) = {.compute = 1.3, .memory = 0.8, .half_depth = 80};
  device.speed(KernelKind::Normalization) = {.memory = 0.4};
  device.speed(KernelKind::Elementwise) = {.memory = 0.9};
  return device.kernels;
}

RigDevice known_speeds(const device::DeviceInfo& info) {
  RigDevice speeds;
  speeds.name = info.name;
  speeds.label = info.description;
  speeds.memory_bytes = info.total_bytes;
  if (info.accelerator) {
    Card guess{"", 30, 15, 400};
    auto known = std::find_if(cards.begin(), cards.end(), [&](const Card& card) {
      return info.description.find(card.name) != std::string::npos;
    });
    const auto& card = known == cards.end() ? guess : *known;
    speeds.tflops = {{"bfloat16", card.half_tflops},
                     {"float16", card.half_tflops},
                     {"default", card.float_tflops}};
    speeds.memory_bytes_per_s = card.memory_gbps * GB;
    speeds.launch_s = launch_s;
    speeds.kernels = typical_kernels();
    if (info.kind == "cuda") speeds.issue_s = issue_s;
  } else {
    double threads = std::max(1, info.threads);
    speeds.tflops = {{"bfloat16", (info.fast_bf16 ? 0.12 : 0.01) * threads},
                     {"default", 0.05 * threads}};
    speeds.memory_bytes_per_s = 15 * GB;
    speeds.launch_s = 5e-6;
  }
  return speeds;
}

std::int64_t default_budget(const device::DeviceInfo& info, const device::MemoryUse& use,
                            std::int64_t foreign_bytes) {
  auto ours = info.accelerator ? std::max(use.in_use, use.reserved) : use.own;
  auto free = info.accelerator ? use.free : info.free_bytes;
  auto reachable = free + std::max<std::int64_t>(0, ours - foreign_bytes);
  auto reserve = info.accelerator ? static_cast<std::int64_t>(0.5 * GiB)
                                  : static_cast<std::int64_t>(1.0 * GiB);
  return std::clamp<std::int64_t>(std::min(info.total_bytes, reachable) - reserve, 0,
                                  info.total_bytes);
}

namespace {

LinkSpec make_link(const std::string& from, const std::string& to, double gbps, double latency_s) {
  LinkSpec link;
  link.from = from;
  link.to = to;
  link.bytes_per_s = gbps * GB;
  link.latency_s = latency_s;
  return link;
}

/// The rig's name of a present sim device: its N-th accelerator is sim:N.
std::string rig_name(const Rig& rig, const std::string& device) {
  if (device.rfind("sim:", 0) != 0) return device;
  int index = std::stoi(device.substr(4));
  for (const auto& described : rig.devices)
    if (placement::kind_of(described.name) == placement::DeviceKind::Accelerator && index-- == 0)
      return described.name;
  return device;
}

}  // namespace

void add_links(placement::System& system, const std::vector<device::DeviceInfo>& devices,
               const device::LinkTable* measured, const Rig* rig) {
  if (rig) {
    system.roots = rig->roots;
    for (auto link : rig->links) {
      bool from = link.from == "disk", to = link.to == "disk";
      for (const auto& info : devices) {
        if (!from && rig_name(*rig, info.name) == link.from) link.from = info.name, from = true;
        if (!to && rig_name(*rig, info.name) == link.to) link.to = info.name, to = true;
      }
      if (from && to) system.links.push_back(link);
    }
  }
  auto linked = [&](const std::string& a, const std::string& b) {
    return std::any_of(system.links.begin(), system.links.end(), [&](const LinkSpec& link) {
      return (link.from == a && link.to == b) || (link.from == b && link.to == a);
    });
  };
  const bool has_host = std::any_of(devices.begin(), devices.end(),
                                    [](const auto& info) { return !info.accelerator; });
  constexpr double pcie_gbps = 20, peer_gbps = 10, disk_gbps = 1.5, latency_s = 15e-6;
  for (const auto& info : devices) {
    // What comes from the disk passes through RAM, and has no more than that of the way from there.
    const double disk = measured && measured->disk_gbps ? *measured->disk_gbps : disk_gbps;
    if ((!info.accelerator || !has_host) && !linked("disk", info.name))
      system.links.push_back(make_link("disk", info.name, disk, 1e-4));
    for (const auto& other : devices) {
      if (&other == &info || linked(info.name, other.name) ||
          (!info.accelerator && !other.accelerator))
        continue;
      const auto& from = info.accelerator && !other.accelerator ? other.name : info.name;
      const auto& to = from == info.name ? other.name : info.name;
      const auto* speed = measured ? measured->find(from, to) : nullptr;
      double common = info.accelerator && other.accelerator ? peer_gbps : pcie_gbps;
      system.links.push_back(
          make_link(from, to, speed ? speed->gbps : common, speed ? speed->latency_s : latency_s));
    }
  }
}

}  // namespace distorch::streaming
