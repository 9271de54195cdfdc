#include "distorch/base/rig.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <yaml-cpp/yaml.h>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/base/units.h"

namespace distorch {
namespace {

constexpr std::size_t kLargestRig = 1 << 20;

// One mapping of the file, with its place in words ("rig.yaml: link 2") for messages.
struct Entry {
  YAML::Node node;
  std::string where;

  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ErrorKind::Usage, where, what);
  }

  void allow(const std::vector<std::string_view>& keys) const {
    if (!node.IsMap()) fail("must be a list of 'key: value'");
    for (const auto& pair : node) {
      std::string key = pair.first.as<std::string>("");
      if (std::find(keys.begin(), keys.end(), key) == keys.end()) {
        fail(fmt::format("does not know '{}'; it may have {}", key, fmt::join(keys, ", ")));
      }
    }
  }

  std::string text(const char* key, bool required) const {
    const YAML::Node value = node[key];
    if (!value) {
      if (required) fail(fmt::format("needs '{}'", key));
      return "";
    }
    if (!value.IsScalar()) fail(fmt::format("'{}' must be one word or line", key));
    return value.as<std::string>();
  }

  double number(const char* key, bool required, bool zero_ok = false) const {
    const std::string value = text(key, required);
    if (value.empty()) return 0;
    double number = node[key].as<double>(std::nan(""));
    if (!std::isfinite(number) || number < 0 || (number == 0 && !zero_ok)) {
      fail(fmt::format("'{}' must be a number {}, not '{}'", key,
                       zero_ok ? "of 0 or more" : "above 0", value));
    }
    return number;
  }
};

std::vector<Entry> list(const YAML::Node& root, const char* key, const std::string& where) {
  std::vector<Entry> entries;
  const YAML::Node nodes = root[key];
  if (!nodes) return entries;
  if (!nodes.IsSequence())
    throw Error(ErrorKind::Usage, where, fmt::format("'{}' must be a list", key));
  std::string one(key, std::string_view(key).size() - 1);  // "links" -> "link"
  for (std::size_t i = 0; i < nodes.size(); ++i) {
    entries.push_back({nodes[i], fmt::format("{}: {} {}", where, one, i + 1)});
  }
  return entries;
}

constexpr std::array kKindNames{"matmul", "convolution", "attention", "normalization",
                                "elementwise"};

KernelSpeed read_speed(const Entry& entry) {
  entry.allow({"compute", "memory", "half_depth", "start_us"});
  KernelSpeed speed;
  if (entry.node["compute"]) speed.compute = entry.number("compute", true);
  if (entry.node["memory"]) speed.memory = entry.number("memory", true);
  speed.half_depth = entry.number("half_depth", false, true);
  if (entry.node["start_us"]) speed.start_s = entry.number("start_us", true, true) * 1e-6;
  return speed;
}

void read_operations(const Entry& entry, RigDevice& device) {
  const YAML::Node operations = entry.node["operations"];
  if (!operations) return;
  const Entry kinds{operations, entry.where + ": operations"};
  kinds.allow({kKindNames.begin(), kKindNames.end()});
  for (const auto& pair : operations) {
    const auto name = pair.first.as<std::string>();
    device.speed(*kind_of_name(name)) = read_speed({pair.second, kinds.where + ": " + name});
  }
}

RigDevice read_device(const Entry& entry) {
  entry.allow({"name", "label", "memory", "tflops", "memory_bandwidth_GBps", "launch_us",
               "issue_us", "operations"});
  RigDevice device;
  device.name = entry.text("name", true);
  device.label = entry.text("label", false);
  const std::string memory = entry.text("memory", true);
  try {
    device.memory_bytes = parse_bytes(memory);
  } catch (const Error& error) {
    entry.fail("'memory' is not a size: " + error.sentence());
  }
  if (device.memory_bytes <= 0) entry.fail("'memory' must be above 0");
  if (const YAML::Node tflops = entry.node["tflops"]) {
    Entry speeds{tflops, entry.where + ": tflops"};
    if (!tflops.IsMap()) speeds.fail("must be a list of 'dtype: number'");
    for (const auto& pair : tflops) {
      std::string dtype = pair.first.as<std::string>("");
      device.tflops[dtype] = speeds.number(dtype.c_str(), true);
    }
  }
  device.memory_bytes_per_s = entry.number("memory_bandwidth_GBps", false) * 1e9;
  device.launch_s = entry.number("launch_us", false, true) * 1e-6;
  device.issue_s = entry.number("issue_us", false, true) * 1e-6;
  read_operations(entry, device);
  return device;
}

LinkSpec read_link(const Entry& entry, const Rig& rig) {
  entry.allow({"from", "to", "GBps", "latency_us", "duplex", "root"});
  LinkSpec link;
  link.from = entry.text("from", true);
  link.to = entry.text("to", true);
  for (const std::string& end : {link.from, link.to}) {
    if (!rig.find(end)) {
      std::vector<std::string> names;
      for (const RigDevice& device : rig.devices) names.push_back(device.name);
      entry.fail(fmt::format("joins '{}', but the devices are {}", end, fmt::join(names, ", ")));
    }
  }
  if (link.from == link.to) entry.fail("joins a device with itself");
  link.bytes_per_s = entry.number("GBps", true) * 1e9;
  link.latency_s = entry.number("latency_us", false, true) * 1e-6;
  const std::string duplex = entry.text("duplex", false);
  if (!duplex.empty() && duplex != "full" && duplex != "half") {
    entry.fail(fmt::format("'duplex' is full or half, not '{}'", duplex));
  }
  link.full_duplex = duplex != "half";
  link.root = entry.text("root", false);
  bool known = link.root.empty() ||
               std::any_of(rig.roots.begin(), rig.roots.end(),
                           [&](const RootSpec& root) { return root.name == link.root; });
  if (!known) entry.fail(fmt::format("names the root '{}', which is not under 'roots'", link.root));
  return link;
}

// A word or line between quotes that YAML takes as it is.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

std::string speed_text(const KernelSpeed& speed) {
  auto text = fmt::format("{{compute: {:.4g}, memory: {:.4g}", speed.compute, speed.memory);
  if (speed.half_depth > 0) text += fmt::format(", half_depth: {:.4g}", speed.half_depth);
  if (speed.start_s) text += fmt::format(", start_us: {:.4g}", *speed.start_s * 1e6);
  return text + "}";
}

std::string device_text(const RigDevice& device) {
  auto text = fmt::format("  - name: {}\n", quoted(device.name));
  if (!device.label.empty()) text += fmt::format("    label: {}\n", quoted(device.label));
  text += fmt::format("    memory: {}\n", device.memory_bytes);
  std::vector<std::string> speeds;
  for (const auto& [dtype, tflops] : device.tflops)
    speeds.push_back(fmt::format("{}: {:.4g}", dtype, tflops));
  if (!speeds.empty()) text += fmt::format("    tflops: {{{}}}\n", fmt::join(speeds, ", "));
  if (device.memory_bytes_per_s > 0)
    text += fmt::format("    memory_bandwidth_GBps: {:.4g}\n", device.memory_bytes_per_s / 1e9);
  text += fmt::format("    launch_us: {:.4g}\n", device.launch_s * 1e6);
  if (device.issue_s > 0) text += fmt::format("    issue_us: {:.4g}\n", device.issue_s * 1e6);
  std::string kinds;
  for (auto kind : kKernelKinds)
    if (device.speed(kind) != KernelSpeed{})
      kinds += fmt::format("      {}: {}\n", kind_name(kind), speed_text(device.speed(kind)));
  return kinds.empty() ? text : text + "    operations:\n" + kinds;
}

}  // namespace

const char* kind_name(KernelKind kind) { return kKindNames[static_cast<std::size_t>(kind)]; }

std::optional<KernelKind> kind_of_name(std::string_view name) {
  const auto found = std::find(kKindNames.begin(), kKindNames.end(), name);
  if (found == kKindNames.end()) return std::nullopt;
  return static_cast<KernelKind>(found - kKindNames.begin());
}

double seconds_of(const RigDevice& device, const KernelWork& work) {
  const auto& speed = device.speed(work.kind);
  double seconds = 0;
  if (const double bandwidth = device.memory_bytes_per_s * speed.memory; bandwidth > 0)
    seconds = work.bytes / bandwidth;
  if (work.flops > 0) {
    const double filled = work.depth > 0 ? work.depth / (work.depth + speed.half_depth) : 1;
    if (const double rate = device.flops(work.dtype) * speed.compute * filled; rate > 0)
      seconds = std::max(seconds, work.flops / rate);
  }
  return seconds + speed.start_s.value_or(device.launch_s);
}

double RigDevice::flops(std::string_view dtype) const {
  auto found = tflops.find(dtype);
  if (found == tflops.end()) found = tflops.find(std::string_view("default"));
  return found == tflops.end() ? 0 : found->second * 1e12;
}

const RigDevice* Rig::find(std::string_view device) const {
  for (const RigDevice& candidate : devices) {
    if (candidate.name == device) return &candidate;
  }
  return nullptr;
}

Rig parse_rig(const std::string& text, const std::string& where) {
  YAML::Node root;
  try {
    root = YAML::Load(text);
  } catch (const YAML::Exception& error) {
    throw Error(ErrorKind::Usage, where, fmt::format("is not YAML: {}", error.what()));
  }
  try {
    Entry top{root, where};
    top.allow({"name", "devices", "links", "roots"});
    Rig rig;
    rig.name = top.text("name", true);
    for (const Entry& entry : list(root, "devices", where)) {
      RigDevice device = read_device(entry);
      if (rig.find(device.name)) entry.fail(fmt::format("'{}' is there twice", device.name));
      rig.devices.push_back(std::move(device));
    }
    if (rig.devices.empty()) top.fail("lists no devices");
    for (const Entry& entry : list(root, "roots", where)) {
      entry.allow({"name", "GBps"});
      rig.roots.push_back({entry.text("name", true), entry.number("GBps", true) * 1e9});
    }
    for (const Entry& entry : list(root, "links", where))
      rig.links.push_back(read_link(entry, rig));
    return rig;
  } catch (const YAML::Exception& error) {
    throw Error(ErrorKind::Usage, where, fmt::format("cannot be read: {}", error.what()));
  }
}

Rig read_rig(const std::filesystem::path& file) {
  return parse_rig(read_file(file, kLargestRig), file.string());
}

std::string rig_text(const Rig& rig) {
  auto text = fmt::format("name: {}\ndevices:\n", quoted(rig.name));
  for (const auto& device : rig.devices) text += device_text(device);
  if (!rig.links.empty()) text += "links:\n";
  for (const auto& link : rig.links) {
    text +=
        fmt::format("  - {{from: {}, to: {}, GBps: {:.4g}, latency_us: {:.4g}", quoted(link.from),
                    quoted(link.to), link.bytes_per_s / 1e9, link.latency_s * 1e6);
    if (!link.full_duplex) text += ", duplex: half";
    if (!link.root.empty()) text += ", root: " + quoted(link.root);
    text += "}\n";
  }
  if (!rig.roots.empty()) text += "roots:\n";
  for (const auto& root : rig.roots)
    text +=
        fmt::format("  - {{name: {}, GBps: {:.4g}}}\n", quoted(root.name), root.bytes_per_s / 1e9);
  return text;
}

}  // namespace distorch
