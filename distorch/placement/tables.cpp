#include "distorch/placement/tables.h"

#include <algorithm>
#include <map>

#include <fmt/format.h>

#include "distorch/base/units.h"
#include "distorch/placement/spread.h"

namespace distorch::placement {
namespace {

constexpr int kWidth = 58;
constexpr int kDecimals = 4;
constexpr int kMostDecimals = 14;
constexpr double kClearly = 8;  // rounding of all shares together stays this far below a block

std::string line() { return std::string(kWidth, '-') + "\n"; }

std::string title(const char* text) {
  return fmt::format("{0}{1:^{2}}\n{0}", line(), text, kWidth);
}

double gib(std::int64_t bytes) { return static_cast<double>(bytes) / GiB; }
double mib(std::int64_t bytes) { return static_cast<double>(bytes) / MiB; }
double percent(std::int64_t part, std::int64_t whole) {
  return whole > 0 ? 100.0 * static_cast<double>(part) / static_cast<double>(whole) : 0;
}

// The compute device first, then the rest by name: the order of every table.
std::vector<int> rows(const System& system) {
  auto order = by_name(system);
  auto compute = std::find(order.begin(), order.end(), system.compute);
  std::rotate(order.begin(), compute, compute + 1);
  return order;
}

std::int64_t model_bytes(const Placement& placement) {
  std::int64_t sum = 0;
  for (std::int64_t bytes : placement.bytes) sum += bytes;
  return sum;
}

// What the compute device seems to have once a part of the model rests elsewhere.
std::string virtual_memory(const System& system, const Placement& placement) {
  std::string text = title("Virtual memory");
  text += fmt::format("{:<12}{:<12}{:>11}{:>11}{:>12}\n", "Device", "Role", "Original", "Total",
                      "Virtual");
  text += line();
  const std::int64_t moved = model_bytes(placement) - placement.bytes[placement.compute];
  for (int d : rows(system)) {
    const Device& device = system.devices[d];
    const bool compute = d == placement.compute;
    const std::int64_t lent = compute ? moved : -placement.bytes[d];
    if (!compute && lent == 0) continue;
    text += fmt::format("{:<12}{:<12}{:>8.2f} GB{:>8.2f} GB{:>+9.2f} GB\n", device.name,
                        compute ? "recipient" : "donor", gib(device.total_bytes),
                        gib(device.total_bytes + lent), gib(lent));
  }
  return text;
}

std::string allocations(const System& system, const Placement& placement) {
  std::string text = title("Model allocations");
  text += fmt::format("{:<12}{:>12}{:>12}{:>11}{:>11}\n", "Device", "VRAM GB", "Share", "Model GB",
                      "Dist %");
  text += line();
  const std::int64_t total = model_bytes(placement);
  for (int d : rows(system)) {
    const std::int64_t bytes = placement.bytes[d];
    if (bytes == 0) continue;
    const Device& device = system.devices[d];
    text += fmt::format("{:<12}{:>12.2f}{:>11.2f}%{:>11.2f}{:>10.1f}%\n", device.name,
                        gib(device.total_bytes), percent(bytes, device.total_bytes), gib(bytes),
                        percent(bytes, total));
  }
  return text;
}

std::string layers(const Model& model) {
  struct Row {
    int count = 0;
    std::int64_t bytes = 0;
  };
  std::map<std::string, Row> types;
  for (const Block& block : model.blocks) {
    Row& row = types[block.type.empty() ? "block" : block.type];
    ++row.count;
    row.bytes += block.bytes;
  }
  std::string text = title("Layers of the model");
  text += fmt::format("{:<24}{:>8}{:>15}{:>11}\n", "Layer type", "Count", "MB", "%");
  text += line();
  const std::int64_t total = model.bytes();
  for (const auto& [type, row] : types) {
    text += fmt::format("{:<24}{:>8}{:>15.2f}{:>10.1f}%\n", type, row.count, mib(row.bytes),
                        percent(row.bytes, total));
  }
  return text;
}

std::string assignments(const System& system, const Placement& placement) {
  std::string text = title("Layers by device");
  text += fmt::format("{:<24}{:>8}{:>15}{:>11}\n", "Device", "Layers", "MB", "%");
  text += line();
  const std::int64_t total = model_bytes(placement);
  for (int d : rows(system)) {
    auto count = std::count_if(placement.blocks.begin(), placement.blocks.end(),
                               [&](const Home& home) { return home.device == d; });
    if (count == 0) continue;
    text += fmt::format("{:<24}{:>8}{:>15.2f}{:>10.1f}%\n", system.devices[d].name, count,
                        mib(placement.bytes[d]), percent(placement.bytes[d], total));
  }
  return text;
}

}  // namespace

std::string expert_string(const System& system, const Model& model, const Placement& placement) {
  double memory = 0, largest = 1;
  for (std::size_t d = 0; d < placement.bytes.size(); ++d) {
    memory += placement.bytes[d] > 0 ? static_cast<double>(system.devices[d].total_bytes) : 0;
  }
  for (const Block& block : model.blocks)
    largest = std::max(largest, static_cast<double>(block.bytes));
  const bool exact = std::any_of(placement.blocks.begin(), placement.blocks.end(),
                                 [](const Home& home) { return home.rests != 0; });
  if (exact) largest = kClearly;
  int decimals = kDecimals;
  for (double step = 1e-4; step * memory > largest / kClearly && decimals < kMostDecimals;
       step /= 10)
    ++decimals;
  std::string text;
  for (int d : rows(system)) {
    if (placement.bytes[d] == 0) continue;
    double share = static_cast<double>(placement.bytes[d]) /
                   static_cast<double>(system.devices[d].total_bytes);
    text += fmt::format("{}{},{:.{}f}", text.empty() ? "" : ";", system.devices[d].name, share,
                        decimals);
  }
  return text;
}

std::string summary(const System& system, const Model& model, const Placement& placement) {
  const auto& compute = system.devices[placement.compute].name;
  auto text = fmt::format("{} in {} blocks", human_bytes(static_cast<double>(model.bytes())),
                          model.blocks.size());
  if (const auto aside = model.aside_bytes(); aside > 0)
    text += fmt::format(" and {} aside", human_bytes(static_cast<double>(aside)));
  if (placement.all_resident()) return fmt::format("{} on {}", text, compute);
  text += fmt::format(", computed on {}", compute);
  const char* before = ", at rest ";
  for (int d : rows(system)) {
    if (placement.bytes[d] == 0) continue;
    text += fmt::format("{}{} on {}", before, human_bytes(static_cast<double>(placement.bytes[d])),
                        system.devices[d].name);
    before = ", ";
  }
  return text;
}

std::string tables(const System& system, const Model& model, const Placement& placement) {
  return virtual_memory(system, placement) + allocations(system, placement) + layers(model) +
         assignments(system, placement) + line() + "v2 Expert String " +
         expert_string(system, model, placement) + "\n";
}

}  // namespace distorch::placement
