// Streaming measured on the real CPU:
//   disk    a model of 1.5 x the memory limit (a cgroup of its own where the system lets us make
//   one) is computed from
//           disk, beside a plain sequential reader of the same file; both in turn, page cache
//           dropped before each
//   cached  the SD 1.5-size UNet in bf16 with its file in the page cache: streamed beside resident
//   weights memory  RSS over the mapped files, with one and with two models, for the CPU and for an
//   accelerator behind a link bench_streaming [--out FOLDER] [--only disk|cached|memory]
#include <fcntl.h>
#include <sys/stat.h>

#include <optional>
#include <thread>

#include "bench/bench.h"
#include "bench/unet_file.h"
#include "distorch/base/log.h"
#include "distorch/device/host_pool.h"
#include "distorch/device/sim/sim.h"
#include "distorch/streaming/streamed_model.h"

namespace {

using namespace distorch;
using placement::How;
using streaming::BlockHome;
using streaming::StreamedModel;

constexpr std::int64_t width = 2560;  // a block is 26 MB of float32
constexpr double gb = 1e9;

/// Large matrices and light compute: one row through each.
class Matrices {
 public:
  explicit Matrices(int blocks) {
    weights::Scope root(manifest_);
    for (int i = 0; i < blocks; ++i) {
      auto scope = (root / "blocks" / i).block();
      layers_.emplace_back(weights::Block(scope), scope.weight("weight", {width, width}));
    }
  }
  at::Tensor forward(at::Tensor x) const {
    for (const auto& [block, weight] : layers_)
      x = block.run1({x}, [&, w = &weight](const weights::Tensors& in) {
        return at::tanh(at::mv(w->dense(), in[0]));
      });
    return x;
  }
  weights::Manifest& manifest() { return manifest_; }

 private:
  weights::Manifest manifest_;
  std::vector<std::pair<weights::Block, weights::Weight>> layers_;
};

weights::Checkpoint open(const std::filesystem::path& file) {
  return weights::Checkpoint(
      std::make_shared<formats::TensorFile>(formats::open_tensor_file(file)));
}

std::vector<BlockHome> all(const StreamedModel& model, How how, const std::string& device) {
  return std::vector<BlockHome>(model.block_count(), BlockHome{how, device});
}

// --- disk

/// A memory limit for a child process: a cgroup below our own, removed at the end.
class MemoryLimit {
 public:
  explicit MemoryLimit(std::int64_t bytes) {
    std::ifstream list("/proc/self/cgroup");
    for (std::string line; std::getline(list, line);) {
      auto name = line.substr(line.find(':') + 1);
      bool first = name.rfind("memory:", 0) == 0, second = name.rfind(":", 0) == 0;
      if (!first && !second) continue;
      auto base = std::string("/sys/fs/cgroup") + (first ? "/memory" : "") +
                  name.substr(name.find(':') + 1);
      auto folder = std::filesystem::path(base) / fmt::format("distorch_bench_{}", ::getpid());
      if (::mkdir(folder.c_str(), 0755) != 0) continue;
      auto file = folder / (first ? "memory.limit_in_bytes" : "memory.max");
      std::ofstream limit(file);
      if (std::filesystem::exists(file) && limit << bytes << std::flush) {
        folder_ = folder;
        return;
      }
      ::rmdir(folder.c_str());
    }
  }
  ~MemoryLimit() {
    // A moment may pass until the child that just ended has left.
    for (int i = 0; i < 50 && !folder_.empty() && ::rmdir(folder_.c_str()) != 0; ++i)
      ::usleep(20'000);
  }
  explicit operator bool() const { return !folder_.empty(); }
  void enter() const {
    if (!folder_.empty()) std::ofstream(folder_ / "cgroup.procs") << ::getpid();
  }

 private:
  std::filesystem::path folder_;
};

/// Reads the file from front to back into one buffer, in pieces of 8 MiB; GB/s.
double read_plainly(const std::filesystem::path& file, bool direct) {
  int descriptor = ::open(file.c_str(), O_RDONLY | (direct ? O_DIRECT : 0));
  if (descriptor < 0) return NAN;
  constexpr std::size_t piece = 8 << 20;
  static void* buffer = std::aligned_alloc(4096, piece);
  if (!direct) ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_SEQUENTIAL);
  auto start = bench::now_s();
  std::int64_t total = 0;
  for (ssize_t count; (count = ::read(descriptor, buffer, piece)) > 0;) total += count;
  auto seconds = bench::now_s() - start;
  ::close(descriptor);
  return static_cast<double>(total) / seconds / gb;
}

int disk_part(const std::filesystem::path& file, int blocks) {
  auto limited_rss = bench::process_bytes("VmRSS");
  Matrices network(blocks);
  StreamedModel model(network.manifest(), open(file), {.name = "toy", .compute = "cpu"});
  model.load(all(model, How::Streamed, "disk"));
  const auto& mapping = *model.checkpoint().tensors().begin()->second.file->mapping();
  auto x = at::randn({width});
  std::size_t left = 0;  // in the page cache in spite of that
  auto drop = [&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(300));  // what was fetched ahead arrives
    mapping.evict({0, mapping.size()});
    left = std::max(left, mapping.resident_bytes({0, mapping.size()}));
  };
  bench::reset_peak();
  std::vector<double> buffered, direct, ours;
  constexpr int turns = 8, steps = 2;
  auto stream = [&] {
    drop();
    auto start = bench::now_s();
    for (int step = 0; step < steps; ++step) network.forward(x);
    return steps * static_cast<double>(model.total_file_bytes()) / (bench::now_s() - start) / gb;
  };
  auto plain = [&](bool past_cache) {
    drop();
    return read_plainly(file, past_cache);
  };
  // Strictly in turn, because a disk behind a virtual machine remembers what was read; the first
  // turn is not counted.
  for (int turn = -1; turn < turns; ++turn) {
    double first = plain(false), second = stream();
    if (turn < 0) continue;
    buffered.push_back(first);
    ours.push_back(second);
  }
  for (int turn = 0; turn < 3; ++turn) direct.push_back(plain(true));
  auto peak = bench::process_bytes("VmHWM") - limited_rss;
  fmt::print("{}\n", bench::Json{{"buffered", buffered},
                                 {"direct", direct},
                                 {"ours", ours},
                                 {"bytes", model.total_file_bytes()},
                                 {"peak", peak},
                                 {"left", left}}
                         .dump());
  return 0;
}

void disk(bench::Results& results, const std::filesystem::path& out) {
  constexpr int blocks = 72;
  const auto bytes = static_cast<std::int64_t>(blocks) * width * width * 4;
  const std::int64_t limit = bytes * 2 / 3;
  auto file = out / "matrices.safetensors";
  {
    Matrices network(blocks);
    bench::write_weights(file, network.manifest(), at::kFloat);
  }
  MemoryLimit memory(limit);
  auto text = bench::run_self(
      {"--part", "disk", "--file", file.string(), "--blocks", std::to_string(blocks)},
      [&] { memory.enter(); });
  std::filesystem::remove(file);
  auto answer = bench::Json::parse(text);
  std::vector<double> ratios, ours = answer["ours"], buffered = answer["buffered"],
                              direct = answer["direct"];
  for (std::size_t i = 0; i < ours.size(); ++i) ratios.push_back(ours[i] / buffered[i]);
  bench::Json more{
      {"model_GB", static_cast<double>(bytes) / gb},
      {"limit_GB", memory ? bench::Json(static_cast<double>(limit) / gb) : bench::Json()},
      {"limit",
       memory ? "cgroup" : "none (no cgroup to be had): page cache dropped before each turn"},
      {"turns", {{"ours", ours}, {"buffered", buffered}, {"direct", direct}}},
      {"cached_before_a_turn_MB", answer["left"].get<double>() / 1e6},
      {"median_of_ratios", bench::median(ratios)}};
  results.add("disk: model at 1.5 x the memory limit, beside read()", bench::median(ours),
              bench::median(buffered), "GB/s", more);
  results.add("disk: median of the turns' ratios (wanted: 0.9)", bench::median(ratios), NAN,
              "ours / read()");
  results.add("disk: the same, beside read() with O_DIRECT", bench::median(ours),
              bench::median(direct), "GB/s");
  results.add("disk: peak RSS beyond the process at start", answer["peak"].get<double>() / gb,
              static_cast<double>(limit) / gb, "GB", {{"peer_is", "limit"}});
}

// --- cached

/// One way of resting for the UNet's weights.
struct Way {
  Way(const std::filesystem::path& file, const std::vector<BlockHome>& home)
      : network(bench::sd_config()),
        model(network.manifest(), open(file),
              {.name = "unet", .compute = "cpu", .dtype = at::kBFloat16, .channels_last = true}) {
    model.load(all(model, home[0].how, home[0].device));
  }
  double step(const models::Inputs& input) {
    auto start = bench::now_s();
    result = network.apply(input);
    return bench::now_s() - start;
  }
  models::sd::UNet network;
  StreamedModel model;
  at::Tensor result;
};

void cached(bench::Results& results, const std::filesystem::path& out) {
  auto file = out / "sd15_unet_bf16.safetensors";
  bench::make_unet_file(file, at::kBFloat16);
  read_plainly(file, false);  // into the page cache
  models::Inputs input{{"x", at::randn({2, 4, 64, 64})},
                       {"timestep", at::full({2}, 500.0, at::kFloat)},
                       {"context", at::randn({2, 77, 768})}};
  Way resident(file, {{How::Resident, "cpu"}}), ram(file, {{How::Streamed, "cpu"}}),
      disk(file, {{How::Streamed, "disk"}});
  std::vector<double> seconds[3], over[3];
  constexpr int turns = 6;
  for (int turn = -1; turn < turns; ++turn) {
    double now[3];
    // The order changes, so that nobody always comes after the same neighbour.
    for (int i = 0; i < 3; ++i) {
      int which = (i + turn + 3) % 3;
      now[which] = (which == 0 ? resident : which == 1 ? ram : disk).step(input);
    }
    if (turn < 0) continue;
    for (int i = 0; i < 3; ++i) {
      seconds[i].push_back(now[i]);
      over[i].push_back(now[i] / now[0]);
    }
  }
  if (!at::equal(resident.result, ram.result) || !at::equal(resident.result, disk.result))
    throw std::runtime_error("streamed weights gave another result than resident ones");
  for (int i : {1, 2})
    results.add(i == 1 ? "page cache: UNet step, streamed from RAM, beside resident"
                       : "page cache: UNet step, streamed from a cached file, beside resident",
                bench::median(seconds[i]), bench::median(seconds[0]), "s",
                {{"median_of_ratios", bench::median(over[i])},
                 {"turns", {{"ours", seconds[i]}, {"resident", seconds[0]}}}});
}

// --- memory

Rig accelerator() {
  Rig rig;
  rig.name = "one accelerator";
  rig.devices = {{"sim:0", "", std::int64_t{8} << 30, {{"default", 10}}, 500e9, 0},
                 {"cpu", "", std::int64_t{64} << 30, {{"default", 0.1}}, 20e9, 0}};
  LinkSpec link;
  link.from = "cpu";
  link.to = "sim:0";
  link.bytes_per_s = 10e9;
  rig.links.push_back(link);
  return rig;
}

/// Bytes of RAM beyond the mapped files and what stands for device memory, after two steps of each
/// model.
int memory_part(const std::vector<std::filesystem::path>& files, const std::string& compute,
                int blocks) {
  if (compute != "cpu") sim::install(accelerator(), sim::Mode::Exec);
  at::Device device(compute);
  auto x = at::randn({width}).to(device);
  // Threads and kernels are there. Kept to the end: its pages would take in what is measured.
  auto square = at::full({width, width}, 0.01, at::TensorOptions().device(device));
  at::tanh(at::mv(square, x));
  auto before = bench::process_bytes("VmRSS");
  std::vector<std::unique_ptr<Matrices>> networks;
  std::vector<std::unique_ptr<StreamedModel>> models;
  bench::Json list = bench::Json::array();
  std::int64_t file_bytes = 0, device_bytes = 0;
  for (const auto& file : files) {
    networks.push_back(std::make_unique<Matrices>(blocks));
    models.push_back(std::make_unique<StreamedModel>(
        networks.back()->manifest(), open(file),
        streaming::StreamedOptions{.name = "toy", .compute = compute}));
    auto& model = *models.back();
    model.load(all(model, compute == "cpu" ? How::Resident : How::Streamed, "cpu"));
    file_bytes += model.total_file_bytes();
    if (compute != "cpu") device_bytes += model.device_bytes(compute);
    for (const auto& network : networks)
      for (int step = 0; step < 2; ++step) network->forward(x).cpu();
    auto over = bench::process_bytes("VmRSS") - before - device_bytes - file_bytes;
    list.push_back({{"over", over}, {"files", file_bytes}});
  }
  fmt::print("{}\n", list.dump());
  return 0;
}

void memory(bench::Results& results, const std::filesystem::path& out) {
  constexpr int blocks = 36;
  std::vector<std::filesystem::path> files{out / "matrices_a.safetensors",
                                           out / "matrices_b.safetensors"};
  for (const auto& file : files) {
    Matrices network(blocks);
    bench::write_weights(file, network.manifest(), at::kFloat);
  }
  for (const std::string compute : {"cpu", "sim:0"}) {
    auto answer = bench::Json::parse(
        bench::run_self({"--part", "memory", "--blocks", std::to_string(blocks), "--compute",
                         compute, "--file", files[0].string(), "--second", files[1].string()}));
    for (std::size_t i = 0; i < answer.size(); ++i) {
      double over = answer[i]["over"], bytes = answer[i]["files"];
      results.add(
          fmt::format("memory: RSS over the mapped file{}, {}", i == 0 ? "" : "s of two models",
                      compute == "cpu" ? "CPU computes" : "streamed to an accelerator (simulated)"),
          over / bytes * 100, 3.0, "% of the files",
          {{"peer_is", "limit"}, {"over_MB", over / 1e6}, {"files_GB", bytes / gb}});
    }
  }
  for (const auto& file : files) std::filesystem::remove(file);
}

}  // namespace

int main(int argc, char** argv) {
  device::set_up_host_memory();
  log::set_up("warning");
  try {
    auto part = bench::option(argc, argv, "--part");
    int blocks = std::stoi(bench::option(argc, argv, "--blocks", "0"));
    auto file = bench::option(argc, argv, "--file");
    if (part == "disk") return disk_part(file, blocks);
    if (part == "memory")
      return memory_part({file, bench::option(argc, argv, "--second")},
                         bench::option(argc, argv, "--compute"), blocks);
    auto out = bench::out_folder(argc, argv);
    auto only = bench::option(argc, argv, "--only");
    bench::Results results(only.empty() ? "streaming" : "streaming_" + only, out);
    bench::Results::head();
    if (only.empty() || only == "disk") disk(results, out);
    if (only.empty() || only == "memory") memory(results, out);
    if (only.empty() || only == "cached") cached(results, out);
    results.write();
    return 0;
  } catch (const std::exception& error) {
    fmt::print(stderr, "bench_streaming: {}\n", error.what());
    return 1;
  }
}
