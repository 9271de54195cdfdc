#include "distorch/device/measure.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>
#include <nlohmann/json.hpp>

#include <chrono>
#include <cstdlib>

#include "distorch/base/atomic_file.h"
#include "distorch/base/cache_folder.h"
#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "distorch/device/device.h"
#include "distorch/device/registered.h"
#include "distorch/device/sim/sim.h"
#include "distorch/device/streams.h"

namespace distorch::device {
namespace {

double wall_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// Seconds of the clock that the device lives by.
double clock_s(c10::Device device) {
  return device.type() == c10::DeviceType::PrivateUse1 ? sim::now() : wall_s();
}

at::Tensor bytes_on(c10::Device device, std::int64_t bytes) {
  return at::empty({bytes}, at::TensorOptions().dtype(at::kByte).device(device));
}

// Shortest time of `repeats` copies, each waited for, after one that warms up.
double best_copy_s(const at::Tensor& dst, const at::Tensor& src, c10::Device accelerator,
                   int repeats) {
  auto stream = new_stream(accelerator);
  synchronize(accelerator);  // the tensors were made on other streams
  double best = 1e30;
  for (int i = 0; i <= repeats; ++i) {
    throw_if_interrupted();
    const double start = clock_s(accelerator);
    copy_async(dst, src, stream);
    synchronize(stream);
    if (i > 0) best = std::min(best, clock_s(accelerator) - start);
  }
  return best;
}

struct Ends {
  at::Tensor to, from;
};

LinkSpeed speed_of(const Ends& large, const Ends& small, c10::Device accelerator,
                   const MeasureOptions& options) {
  LinkSpeed speed;
  speed.latency_s = best_copy_s(small.to, small.from, accelerator, options.repeats);
  const double seconds = best_copy_s(large.to, large.from, accelerator, options.repeats);
  // The latency belongs to every copy: what is left is the flow of the bytes.
  speed.gbps =
      static_cast<double>(large.to.nbytes()) / std::max(seconds - speed.latency_s, 1e-12) / 1e9;
  return speed;
}

constexpr std::int64_t kFewBytes = 64;

void measure_host(const DeviceInfo& info, const MeasureOptions& options, LinkTable& table) {
  const auto device = to_torch(info.name);
  HostBuffer locked(options.bytes, {device}), few(kFewBytes, {device});
  auto pageable = bytes_on(at::kCPU, options.bytes).fill_(1);
  auto large = bytes_on(device, options.bytes), small = bytes_on(device, kFewBytes);
  locked.tensor().fill_(1);
  auto down = speed_of({large, locked.tensor()}, {small, few.tensor()}, device, options);
  down.from = "cpu";
  down.to = info.name;
  down.pageable_gbps = static_cast<double>(options.bytes) /
                       best_copy_s(large, pageable, device, options.repeats) / 1e9;
  auto up = speed_of({locked.tensor(), large}, {few.tensor(), small}, device, options);
  up.from = info.name;
  up.to = "cpu";
  up.pageable_gbps = static_cast<double>(options.bytes) /
                     best_copy_s(pageable, large, device, options.repeats) / 1e9;
  table.links.push_back(down);
  table.links.push_back(up);
}

void measure_pair(const DeviceInfo& from, const DeviceInfo& to, const MeasureOptions& options,
                  LinkTable& table) {
  const auto source = to_torch(from.name), target = to_torch(to.name);
  if (source.type() != target.type()) return;
  auto speed =
      speed_of({bytes_on(target, options.bytes), bytes_on(source, options.bytes)},
               {bytes_on(target, kFewBytes), bytes_on(source, kFewBytes)}, target, options);
  speed.from = from.name;
  speed.to = to.name;
  table.links.push_back(speed);
}

double cpu_memory_gbps(const MeasureOptions& options) {
  auto from = bytes_on(at::kCPU, options.bytes).fill_(1),
       to = bytes_on(at::kCPU, options.bytes).fill_(0);
  double best = 1e30;
  for (int i = 0; i < options.repeats; ++i) {
    const double start = wall_s();
    to.copy_(from);
    best = std::min(best, wall_s() - start);
  }
  return 2.0 * static_cast<double>(options.bytes) / best / 1e9;
}

struct OpenFile {
  explicit OpenFile(const std::filesystem::path& path)
      : descriptor(open(path.c_str(), O_RDONLY | O_CLOEXEC)) {}
  ~OpenFile() {
    if (descriptor >= 0) close(descriptor);
  }
  OpenFile(const OpenFile&) = delete;
  OpenFile& operator=(const OpenFile&) = delete;
  int descriptor;
};

}  // namespace

const LinkSpeed* LinkTable::find(const std::string& from, const std::string& to) const {
  for (const auto& link : links)
    if (link.from == from && link.to == to) return &link;
  return nullptr;
}

LinkTable measure(const MeasureOptions& options) {
  LinkTable table;
  table.machine = machine_id();
  const auto devices = list_devices();
  for (const auto& device : devices)
    if (device.accelerator) measure_host(device, options, table);
  for (const auto& from : devices)
    for (const auto& to : devices)
      if (from.accelerator && to.accelerator && from.name != to.name)
        measure_pair(from, to, options, table);
  table.cpu_memory_gbps = cpu_memory_gbps(options);
  if (!options.disk_file.empty())
    table.disk_gbps = measure_file_read(options.disk_file, 4 * options.bytes);
  return table;
}

double measure_file_read(const std::filesystem::path& path, std::int64_t limit_bytes) {
  OpenFile file(path);
  if (file.descriptor < 0)
    throw Error(ErrorKind::MissingFile, path.string(), "cannot be opened for reading");
  posix_fadvise(file.descriptor, 0, limit_bytes, POSIX_FADV_DONTNEED);
  posix_fadvise(file.descriptor, 0, limit_bytes, POSIX_FADV_SEQUENTIAL);
  std::vector<char> piece(std::size_t{8} << 20);
  std::int64_t total = 0;
  const double start = wall_s();
  while (total < limit_bytes) {
    throw_if_interrupted();
    const auto got = read(file.descriptor, piece.data(), piece.size());
    if (got < 0) throw Error(ErrorKind::Format, path.string(), "cannot be read");
    if (got == 0) break;
    total += got;
  }
  return static_cast<double>(total) / std::max(wall_s() - start, 1e-9) / 1e9;
}

std::string machine_id() {
  std::string id;
  for (const auto& device : list_devices())
    id += fmt::format("{}{} {}", id.empty() ? "" : "; ", device.name, device.description);
  return id;
}

std::filesystem::path default_link_file() { return cache_folder() / "links.json"; }

void save(const LinkTable& table, const std::filesystem::path& path) {
  auto links = nlohmann::json::array();
  for (const auto& link : table.links)
    links.push_back({{"from", link.from},
                     {"to", link.to},
                     {"gbps", link.gbps},
                     {"pageable_gbps", link.pageable_gbps},
                     {"latency_s", link.latency_s}});
  nlohmann::json all{
      {"machine", table.machine}, {"links", links}, {"cpu_memory_gbps", table.cpu_memory_gbps}};
  if (table.disk_gbps) all["disk_gbps"] = *table.disk_gbps;
  std::error_code ignored;  // write_file says what is wrong with the folder
  if (path.has_parent_path()) std::filesystem::create_directories(path.parent_path(), ignored);
  write_file(path, all.dump(2) + "\n");
}

std::optional<LinkTable> load_links(const std::filesystem::path& path) {
  std::error_code missing;
  if (!std::filesystem::exists(path, missing)) return std::nullopt;
  try {
    const auto all = nlohmann::json::parse(read_file(path, 1 << 20));
    LinkTable table;
    table.machine = all.at("machine");
    for (const auto& link : all.at("links"))
      table.links.push_back({link.at("from"), link.at("to"), link.at("gbps"),
                             link.at("pageable_gbps"), link.at("latency_s")});
    table.cpu_memory_gbps = all.at("cpu_memory_gbps");
    if (all.contains("disk_gbps")) table.disk_gbps = all.at("disk_gbps").get<double>();
    if (table.machine != machine_id()) return std::nullopt;
    return table;
  } catch (const nlohmann::json::exception&) {
    return std::nullopt;
  } catch (const Error&) {
    return std::nullopt;
  }
}

}  // namespace distorch::device
