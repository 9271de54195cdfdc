#include "distorch/device/device.h"

#include <fmt/format.h>

#include <charconv>

#include "distorch/base/error.h"
#include "distorch/device/holes.h"
#include "distorch/device/kind.h"
#include "distorch/device/names.h"
#include "distorch/device/wake.h"

namespace distorch::device {
namespace {

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const auto& name : names) text += (text.empty() ? "" : ", ") + name;
  return text;
}

// "cuda:1" -> {"cuda", 1}, "cuda" -> {"cuda", 0}; nothing for another spelling.
std::optional<std::pair<std::string, int>> split(const std::string& name) {
  const auto colon = name.find(':');
  const auto kind = name.substr(0, colon);
  int index = 0;
  if (colon != std::string::npos) {
    const char *first = name.data() + colon + 1, *last = name.data() + name.size();
    const auto [end, error] = std::from_chars(first, last, index);
    if (error != std::errc() || end != last || first == last || index < 0 || index > 127)
      return std::nullopt;
  }
  return std::make_pair(kind, index);
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

std::string substitute(const std::string& wanted, const std::vector<std::string>& present) {
  const auto parts = split(wanted);
  const auto index = parts ? parts->second : 0;
  std::string first;
  for (const auto& name : present) {
    const auto other = split(name);
    if (name == "cpu" || !other) continue;
    if (other->second == index) return name;
    if (first.empty()) first = name;
  }
  return first.empty() ? "cpu" : first;
}

std::string canonical(const std::string& name) {
  const auto parts = split(name);
  if (!parts) return name;
  return parts->first == "cpu" ? "cpu" : fmt::format("{}:{}", parts->first, parts->second);
}

std::vector<std::string> names_in(Kind& kind) {
  std::vector<std::string> names;
  for (auto& device : kind.list()) names.push_back(std::move(device.name));
  return names;
}

}  // namespace

const std::vector<Kind*>& kinds() {
  static const std::vector<Kind*> all{&cuda_kind(), &sim_kind(), &cpu_kind()};
  return all;
}

Kind& kind_of(c10::DeviceType type) {
  for (auto* kind : kinds())
    if (kind->type() == type) return *kind;
  throw Error(ErrorKind::Usage, c10::DeviceTypeName(type, true),
              "is no kind of device that distorch knows");
}

std::vector<DeviceInfo> list_devices() {
  std::vector<DeviceInfo> all;
  for (auto* kind : kinds())
    for (auto& device : kind->list()) all.push_back(std::move(device));
  return all;
}

void wake(const std::string& name) {
  const auto device = to_torch(name);
  kind_of(device.type()).wake(device.has_index() ? device.index() : 0);
}

void avoid_holes(c10::Device device, bool tight) { kind_of(device.type()).avoid_holes(tight); }

std::vector<std::string> accelerator_names() {
  // Cards neither come nor go while a process runs; simulated ones do.
  static const auto cards = names_in(cuda_kind());
  auto all = cards;
  for (auto& name : names_in(sim_kind())) all.push_back(std::move(name));
  return all;
}

DeviceInfo find_device(const std::string& name) {
  std::vector<std::string> names;
  for (auto& device : list_devices()) {
    if (device.name == canonical(name)) return device;
    names.push_back(device.name);
  }
  throw Error(ErrorKind::Usage, name, "is not among the devices of this machine: " + join(names));
}

std::string default_device() { return list_devices().front().name; }

c10::Device to_torch(const std::string& name) {
  const auto parts = split(name);
  if (parts) {
    const auto index = static_cast<c10::DeviceIndex>(parts->second);
    if (parts->first == "cpu" && index == 0) return c10::Device(c10::kCPU);
    if (parts->first == "cuda") return {c10::DeviceType::CUDA, index};
    if (parts->first == "sim") return {c10::DeviceType::PrivateUse1, index};
  }
  throw Error(ErrorKind::Usage, name,
              "is no device name; devices are called cpu, cuda:0, cuda:1, ...");
}

std::string name_of(c10::Device device) {
  const int index = device.has_index() ? device.index() : 0;
  switch (device.type()) {
    case c10::DeviceType::CPU: return "cpu";
    case c10::DeviceType::CUDA: return fmt::format("cuda:{}", index);
    case c10::DeviceType::PrivateUse1: return fmt::format("sim:{}", index);
    default: return device.str();
  }
}

bool computes_as_cpu(c10::Device device) {
  if (device.is_cpu()) return true;
  return device.type() == c10::DeviceType::PrivateUse1 && sim_kind().computes_as_cpu();
}

Resolved resolve_devices(const std::vector<std::string>& requested,
                         const std::vector<std::string>& present,
                         const std::map<std::string, std::string>& device_map, bool strict) {
  Resolved resolved;
  for (const auto& [from, to] : device_map)
    if (!contains(present, canonical(to)))
      throw Error(ErrorKind::Usage, "--device-map " + from + "=" + to,
                  "there is no " + to + " on this machine; it has " + join(present));
  for (const auto& wanted : requested) {
    if (resolved.mapping.count(wanted)) continue;
    const auto name = canonical(wanted);
    auto mapped = device_map.find(wanted);
    if (mapped == device_map.end()) mapped = device_map.find(name);
    if (mapped != device_map.end()) {
      resolved.mapping[wanted] = canonical(mapped->second);
    } else if (contains(present, name)) {
      resolved.mapping[wanted] = name;
    } else if (strict) {
      throw Error(ErrorKind::Usage, wanted, "is not on this machine, which has " + join(present));
    } else {
      const auto instead = substitute(name, present);
      resolved.mapping[wanted] = instead;
      resolved.warnings.push_back(
          fmt::format("{} is not on this machine; {} is used in its place", wanted, instead));
    }
  }
  return resolved;
}

std::map<std::string, std::string> parse_device_map(const std::vector<std::string>& entries) {
  std::map<std::string, std::string> map;
  for (const auto& entry : entries) {
    const auto equals = entry.find('=');
    const auto from = entry.substr(0, equals);
    if (equals == std::string::npos || from.empty() || !split(from))
      throw Error(ErrorKind::Usage, "--device-map " + entry,
                  "expects NAME=DEVICE, such as cuda:1=cuda:0");
    const auto to = entry.substr(equals + 1);
    to_torch(to);
    map[canonical(from)] = canonical(to);
  }
  return map;
}

}  // namespace distorch::device
