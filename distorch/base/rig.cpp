#include "distorch/base/rig.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>

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

  void allow(std::initializer_list<std::string_view> keys) const {
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

RigDevice read_device(const Entry& entry) {
  entry.allow({"name", "label", "memory", "tflops", "memory_bandwidth_GBps", "launch_us"});
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

}  // namespace

double RigDevice::flops(std::string_view dtype) const {
  auto found = tflops.find(std::string(dtype));
  if (found == tflops.end()) found = tflops.find("default");
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

}  // namespace distorch
