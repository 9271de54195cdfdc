#pragma once
#include <cmath>
#include <random>
#include <string>

#include "distorch/base/units.h"
#include "distorch/placement/placement.h"

namespace distorch::placement {

/// Machines and models for the tests of this folder.

inline std::int64_t gib(double count) { return static_cast<std::int64_t>(count * GiB); }

/// cuda:0 (24 GiB, computes), cuda:1 (24 GiB), cpu (64 GiB) with the given links, bytes/s.
inline System two_cards(double cpu_link = 12e9, double peer_link = 25e9) {
  System system;
  system.devices = {
      {"cuda:0", gib(24), gib(24)}, {"cuda:1", gib(24), gib(24)}, {"cpu", gib(64), gib(64)}};
  system.links = {
      {"cpu", "cuda:0", cpu_link}, {"cpu", "cuda:1", cpu_link}, {"cuda:1", "cuda:0", peer_link}};
  return system;
}

/// Equal blocks; seconds on device 0 only.
inline Model even_model(int blocks, std::int64_t bytes, double seconds) {
  Model model{.name = "even"};
  for (int i = 0; i < blocks; ++i) {
    model.blocks.push_back({.name = "block." + std::to_string(i),
                            .type = "Block",
                            .bytes = bytes,
                            .seconds = {seconds},
                            .activation_bytes = 1 << 20});
  }
  return model;
}

struct Random {
  std::mt19937_64 engine;
  explicit Random(std::uint64_t seed) : engine(seed) {}
  double real(double from, double to) {
    return std::uniform_real_distribution<double>(from, to)(engine);
  }
  /// Evenly over orders of magnitude.
  double scale(double from, double to) { return from * std::pow(to / from, real(0, 1)); }
  int whole(int from, int to) { return std::uniform_int_distribution<int>(from, to)(engine); }
  bool chance(double p) { return real(0, 1) < p; }
};

/// 1 to 4 accelerators, RAM, sometimes disk; links of any speed, sometimes under a shared root.
inline System random_system(Random& random) {
  System system;
  const int cards = random.whole(1, 4);
  for (int i = 0; i < cards; ++i) {
    auto total = gib(random.scale(2, 48));
    system.devices.push_back(
        {"cuda:" + std::to_string(i), total,
         static_cast<std::int64_t>(static_cast<double>(total) * random.real(0.5, 1))});
  }
  system.devices.push_back({"cpu", gib(256), gib(256)});
  const bool root = random.chance(0.4);
  if (root) system.roots.push_back({"pcie", random.scale(4e9, 60e9)});
  for (int i = 0; i < cards; ++i) {
    system.links.push_back({"cpu", system.devices[i].name, random.scale(1e9, 60e9),
                            random.chance(0.5) ? 0 : 2e-5, random.chance(0.8), root ? "pcie" : ""});
    for (int j = 0; j < i; ++j) {
      if (random.chance(0.6))
        system.links.push_back(
            {system.devices[j].name, system.devices[i].name, random.scale(1e9, 200e9)});
    }
  }
  if (random.chance(0.3)) {
    system.devices.push_back({"disk", gib(4096), gib(4096)});
    system.links.push_back({"disk", "cpu", random.scale(0.5e9, 8e9), 1e-4});
  }
  return system;
}

/// 1 to 60 blocks, equal, in two kinds, or of any size; donors compute it slower or faster, or not
/// at all.
inline Model random_model(Random& random, const System& system) {
  Model model{.name = "random"};
  const int blocks = random.whole(1, 60);
  const double bytes = random.scale(1e7, 30e9) / blocks, seconds = random.scale(1e-3, 20) / blocks;
  const int shape = random.whole(0, 2);
  std::vector<double> slower;
  for (const Device& device : system.devices) {
    bool cannot = device.name == "disk" || (device.name == "cpu" && random.chance(0.5));
    slower.push_back(cannot                 ? -1
                     : device.name == "cpu" ? random.scale(5, 100)
                                            : random.scale(0.7, 8));
  }
  slower[static_cast<std::size_t>(system.compute)] = 1;
  for (int i = 0; i < blocks; ++i) {
    double size = shape == 0 ? 1 : shape == 1 ? (i < blocks / 3 ? 2.4 : 1) : random.scale(0.2, 5);
    double work = shape == 2 ? random.scale(0.2, 5) : 1;
    Block block{.name = "block." + std::to_string(i),
                .type = "Block",
                .bytes = static_cast<std::int64_t>(bytes * size),
                .activation_bytes = static_cast<std::int64_t>(random.scale(1e5, 1e8))};
    for (double factor : slower) block.seconds.push_back(factor < 0 ? -1 : seconds * work * factor);
    model.blocks.push_back(std::move(block));
  }
  model.blocks[0].pinned = random.chance(0.1);
  model.activation_bytes = static_cast<std::int64_t>(random.scale(1e7, 3e9));
  return model;
}

}  // namespace distorch::placement
