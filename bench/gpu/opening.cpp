// From a file in the page cache to the first step done, everything resident: seconds and GB/s. The
// device is up and its libraries have run before the clock starts. Then three bare ways of bringing
// the same bytes over, to compare.
//   bench_gpu_opening --file WEIGHTS [--device cuda:0] [--out FOLDER] [--link BYTES_PER_S] [--tiny
//   1] [--rig FILE]
#include <ATen/ATen.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "bench/gpu/flux_like.h"
#include "bench/gpu/harness.h"
#include "bench/gpu/placed.h"
#include "distorch/device/device.h"
#include "distorch/device/memory.h"
#include "distorch/device/registered.h"
#include "distorch/device/streams.h"
#include "distorch/formats/tensor_file.h"
#include "distorch/streaming/streamed_model.h"
#include "distorch/streaming/upload.h"
#include "tests/support/plain_source.h"

namespace {

using namespace distorch;
using namespace distorch::bench;

FluxInputs inputs(std::int64_t width, std::int64_t image, std::int64_t text, c10::Device device) {
  return {seeded({1, image, width}, 11, at::kBFloat16, device),
          seeded({1, text, width}, 12, at::kBFloat16, device),
          seeded({1, width}, 13, at::kBFloat16, device)};
}

/// One block of each kind with made-up weights, so that no library has to start during the
/// measurement.
void warm_up(const weights::Checkpoint& checkpoint, const FluxInputs& given) {
  weights::Checkpoint small;
  for (const auto& [name, stored] : checkpoint.tensors())
    if (name.rfind("double_blocks.0.", 0) == 0 || name.rfind("single_blocks.0.", 0) == 0)
      small.add(name, stored);
  FluxLike model(small);
  test::PlainSource source(model.manifest(), [&](const weights::Declared& declared) {
    return at::full(declared.shape, 1e-3, given.image.options());
  });
  for (int i = 0; i < 3; ++i) model.forward(given);
  device::synchronize(given.image.device());
}

// --- bare ways

class Mapping {
 public:
  explicit Mapping(const std::string& path) : fd(::open(path.c_str(), O_RDONLY)) {
    bytes = static_cast<std::int64_t>(std::filesystem::file_size(path));
    start = static_cast<char*>(mmap(nullptr, bytes, PROT_READ, MAP_SHARED, fd, 0));
  }
  ~Mapping() {
    munmap(start, bytes);
    ::close(fd);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;
  int fd;
  std::int64_t bytes = 0;
  char* start = nullptr;
};

void in_threads(int count, const std::function<void(int)>& work) {
  std::vector<std::thread> threads;
  for (int i = 0; i < count; ++i) threads.emplace_back(work, i);
  for (auto& thread : threads) thread.join();
}

constexpr std::int64_t kPiece = std::int64_t{64} << 20;

/// Page tables filled by several threads, pieces registered by several threads, copies as pieces
/// become ready.
double registered_in_pieces(const std::string& path, c10::Device device, int threads,
                            std::int64_t piece, bool populate) {
  auto target = at::empty({piece}, at::TensorOptions().dtype(at::kByte).device(device));
  auto stream = device::new_stream(device);
  Mapping file(path);
  auto pieces = (file.bytes + piece - 1) / piece;
  std::vector<device::RegisteredRange> ranges(pieces);
  std::vector<std::atomic<bool>> ready(pieces);
  std::atomic<std::int64_t> next{0};
  auto start = now_s();
  std::thread registrar([&] {
    in_threads(threads, [&](int) {
      for (std::int64_t i; (i = next++) < pieces;) {
        auto size = std::min(piece, file.bytes - i * piece);
        constexpr int kPopulateRead = 22;  // MADV_POPULATE_READ
        if (populate) madvise(file.start + i * piece, size, kPopulateRead);
        ranges[i] = device::RegisteredRange(file.start + i * piece, size, {device});
        ready[i] = true;
        ready[i].notify_one();
      }
    });
  });
  for (std::int64_t i = 0; i < pieces; ++i) {
    ready[i].wait(false);
    auto size = std::min(piece, file.bytes - i * piece);
    device::copy_async(target.narrow(0, 0, size),
                       at::from_blob(file.start + i * piece, {size}, at::kByte), stream);
  }
  device::synchronize(device);
  auto seconds = now_s() - start;
  registrar.join();
  return seconds;
}

/// Threads read pieces of the file into page-locked buffers, which are copied on: what resident
/// weights are brought with.
double uploaded(const std::string& path, c10::Device device,
                const streaming::UploadOptions& options) {
  auto file = std::make_shared<formats::TensorFile>(formats::open_tensor_file(path));
  auto bytes = static_cast<std::int64_t>(file->mapping()->bytes().size());
  constexpr std::int64_t block_bytes = 4 * kPiece;
  auto target = at::empty({block_bytes}, at::TensorOptions().dtype(at::kByte).device(device));
  std::vector<streaming::Layout> blocks;
  for (std::int64_t done = 0; done < bytes; done += block_bytes) {
    auto size = std::min(block_bytes, bytes - done);
    blocks.push_back({{{file, done, 0, size}}, {}, size, size});
  }
  device::synchronize(device);
  auto start = now_s();
  streaming::Upload upload(device, options);
  for (std::size_t i = 0; i < blocks.size(); ++i)
    upload.add(static_cast<int>(i), blocks[i], target);
  for (std::size_t i = 0; i < blocks.size(); ++i) upload.wait(static_cast<int>(i));
  device::synchronize(device);
  return now_s() - start;
}

double registered_whole(const std::string& path, c10::Device device, double& register_s) {
  auto target = at::empty({kPiece}, at::TensorOptions().dtype(at::kByte).device(device));
  Mapping file(path);
  auto stream = device::new_stream(device);
  auto start = now_s();
  device::RegisteredRange range(file.start, file.bytes, {device});
  register_s = now_s() - start;
  for (std::int64_t done = 0; done < file.bytes; done += kPiece) {
    auto size = std::min(kPiece, file.bytes - done);
    device::copy_async(target.narrow(0, 0, size),
                       at::from_blob(file.start + done, {size}, at::kByte), stream);
  }
  device::synchronize(device);
  return now_s() - start;
}

void bare_ways(Results& results, const std::string& path, c10::Device device, double bytes,
               double link) {
  double register_s = 0;
  auto whole = registered_whole(path, device, register_s);
  results.add("bare: register the whole file", register_s, bytes / link, "s");
  results.add("bare: register whole, then copy / link", whole, bytes / link, "s");
  results.add("bare: 8 register pieces of 256 MiB, copies follow / link",
              registered_in_pieces(path, device, 8, std::int64_t{256} << 20, true), bytes / link,
              "s");
}

/// Ways of bringing the whole file over, the memory for it allocated before; then what comes before
/// the first byte moves.
void ways_of_upload(Results& results, const std::string& path, c10::Device device, double link) {
  auto bytes = static_cast<std::int64_t>(std::filesystem::file_size(path));
  struct Way {
    const char* name;
    streaming::UploadOptions options;
  };
  const std::vector<Way> ways = {{"12 threads, 2 MiB one by one", {12, 2 << 20, 1}},
                                 {"12 threads, 2 MiB x 2", {12, 2 << 20, 2}},
                                 {"12 threads, 2 MiB x 4", {12, 2 << 20, 4}},
                                 {"12 threads, 2 MiB x 8", {12, 2 << 20, 8}},
                                 {"12 threads, 1 MiB x 4", {12, 1 << 20, 4}},
                                 {"12 threads, 1 MiB x 8", {12, 1 << 20, 8}},
                                 {"16 threads, 1 MiB x 8", {16, 1 << 20, 8}},
                                 {"8 threads, 2 MiB x 4", {8, 2 << 20, 4}}};
  for (const auto& way : ways)
    for (int round : {1, 2}) {
      auto seconds = uploaded(path, device, way.options);
      results.add(fmt::format("upload: {}, time {} / link", way.name, round), seconds,
                  static_cast<double>(bytes) / link, "s");
    }
  for (std::int64_t piece : {std::int64_t{64} << 20, std::int64_t{400} << 20}) {
    device::empty_cache(device);
    std::vector<at::Tensor> held;
    auto start = now_s();
    for (std::int64_t done = 0; done < bytes; done += piece)
      held.push_back(at::empty({piece}, at::TensorOptions().dtype(at::kByte).device(device)));
    results.add(fmt::format("allocate as much in pieces of {} MiB", piece >> 20), now_s() - start,
                static_cast<double>(bytes) / link, "s");
  }
}

// --------------------------------------------------------------------------------------------------

int run(const Args& args) {
  auto name = args.get("--device", "cuda:0"), path = args.get("--file");
  device::list_devices();
  auto device = device::to_torch(name);
  bool tiny = args.number("--tiny", 0) != 0;
  Results results(std::filesystem::path(args.get("--out", ".")) / "opening.json");
  double link = args.number("--link", 55.5e9);

  weights::Checkpoint header(
      std::make_shared<formats::TensorFile>(formats::open_tensor_file(path)));
  auto width = header.shape("single_blocks.0.linear2.weight")[0];
  auto given = inputs(width, tiny ? 48 : 1024, tiny ? 16 : 512, device);
  warm_up(header, given);
  device::empty_cache(device);
  if (args.number("--ways", 0) != 0) {
    ways_of_upload(results, path, device, link);
    return 0;
  }

  auto start = now_s();
  weights::Checkpoint checkpoint(
      std::make_shared<formats::TensorFile>(formats::open_tensor_file(path)));
  FluxLike flux(checkpoint);
  streaming::StreamedOptions options;
  options.name = "flux-like";
  options.compute = name;
  options.dtype = at::kBFloat16;
  streaming::StreamedModel model(flux.manifest(), checkpoint, options);
  auto opened = now_s();
  model.load(
      std::vector<streaming::BlockHome>(model.block_count(), {placement::How::Resident, name}));
  auto loading = now_s();
  auto result = flux.forward(given);
  device::synchronize(device);
  auto stepped = now_s();

  auto bytes = static_cast<double>(model.total_file_bytes());
  results.add("open: header and layout", opened - start, 1, "s");
  results.add("open: until load() returns", loading - start, 1, "s");
  results.add("open: file to first step done / link", stepped - start, bytes / link, "s",
              {{"GBps", bytes / (stepped - start) / 1e9}});
  auto bits = result_bits("first step", result);
  for (int i = 0; i < 2; ++i) flux.forward(given);
  results.add("open: bits of the first step equal to a later one",
              result_bits("later step", flux.forward(given)) == bits ? 1 : 0, 1, "");
  // Again, now that the buffers' pages are there.
  for (int round = 0; round < 3; ++round) {
    model.unload();
    device::empty_cache(device);
    device::synchronize(device);
    auto again = now_s();
    model.load(
        std::vector<streaming::BlockHome>(model.block_count(), {placement::How::Resident, name}));
    flux.forward(given);
    device::synchronize(device);
    results.add(fmt::format("open: once more, {} / link", round + 1), now_s() - again, bytes / link,
                "s");
  }
  model.unload();
  device::empty_cache(device);
  bare_ways(results, path, device, bytes, link);
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  return distorch::bench::run_program("bench_gpu_opening", argc, argv, run);
}
