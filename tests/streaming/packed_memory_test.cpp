// What a packed model takes: never more than its file and the room of the layer that computes, on the
// device and in the process.
#include <doctest/doctest.h>
#include <malloc.h>

#include <fstream>

#include "distorch/device/sim/sim.h"
#include "distorch/formats/catalog.h"
#include "distorch/formats/gguf_writer.h"
#include "distorch/quant/bf16_planes.h"
#include "distorch/quant/gguf_encode.h"
#include "distorch/quant/quantize.h"
#include "distorch/streaming/streamed_model.h"
#include "tests/streaming/toy_model.h"

using namespace distorch;
using namespace distorch::streaming;
using placement::How;

namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kIsSanitized = true;
#else
constexpr bool kIsSanitized = false;
#endif

constexpr int kBlocks = 24;
constexpr std::int64_t kWidth = 1024;
constexpr std::int64_t kMatrix = kWidth * kWidth;
constexpr double kAllowed = 1.02;  // x the file
// One weight decoded to bf16, and what becomes of a few rows of inputs.
constexpr std::int64_t kScratch = 2 * kMatrix + (std::int64_t{512} << 10);
// What allocators and libraries keep for themselves; much less than any of the files.
constexpr std::int64_t kKept = std::int64_t{6} << 20;

/// Matrices one after the other, multiplied as they lie where that is possible, else decoded.
struct Layers {
  weights::Manifest manifest;
  std::vector<std::pair<weights::Block, weights::Weight>> list;

  Layers() {
    for (int i = 0; i < kBlocks; ++i) {
      auto scope = (weights::Scope(manifest) / "blocks" / i).block();
      list.emplace_back(weights::Block(scope), scope.weight("weight", {kWidth, kWidth}));
    }
  }
  at::Tensor forward(at::Tensor x) const {
    for (const auto& [block, weight] : list)
      x = block.run1({x}, [&, w = weight](const weights::Tensors& in) {
        const auto* packed = w.packed();
        REQUIRE(packed);
        auto y = packed->encoding->product(in[0], *packed, {});
        return y.defined() ? y : quant::linear(in[0], *packed, {});
      });
    return x;
  }
};

std::vector<at::Tensor> matrices() {
  std::vector<at::Tensor> list;
  auto generator = at::make_generator<at::CPUGeneratorImpl>(4);
  for (int i = 0; i < kBlocks; ++i)
    list.push_back((at::randn({kWidth, kWidth}, generator) / 32).to(at::kBFloat16));
  return list;
}

std::string name_of(int block) { return "blocks." + std::to_string(block) + "."; }

weights::Checkpoint write_gguf(const std::filesystem::path& path) {
  const auto* type = formats::block_type_named("Q8_0");
  std::vector<formats::GgufTensor> list;
  std::vector<at::Tensor> bytes;
  for (const auto& matrix : matrices()) {
    bytes.push_back(
        quant::encode_blocks(matrix.to(at::kFloat).flatten(), static_cast<int>(type->id)));
    list.push_back({.name = name_of(static_cast<int>(list.size())) + "weight",
                    .type = type,
                    .shape = {kWidth, kWidth},
                    .bytes = {static_cast<const std::byte*>(bytes.back().const_data_ptr()),
                              bytes.back().nbytes()}});
  }
  formats::write_gguf(path, list, {{"general.architecture", std::string("flux")}});
  return weights::Checkpoint(
      std::make_shared<formats::TensorFile>(formats::open_tensor_file(path)));
}

using Make = std::function<quant::Packed(const at::Tensor&)>;

weights::Checkpoint write_packed(toy::Folder& folder, const Make& make) {
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (int i = 0; const auto& matrix : matrices()) {
    const auto packed = make(matrix);
    const auto base = name_of(i++);
    tensors.emplace_back(base + "weight", packed.values);
    for (std::size_t part = 0; part < packed.parts.size(); ++part)
      if (packed.parts[part].defined())
        tensors.emplace_back(base + packed.encoding->companions()[part].names.back(),
                             packed.parts[part]);
    const auto text = packed.encoding->marker();
    tensors.emplace_back(base + "comfy_quant",
                         at::tensor(std::vector<std::uint8_t>(text.begin(), text.end())));
  }
  return folder.write(tensors, "packed.safetensors");
}

/// Bytes that this process holds and no file backs; what the heap keeps of freed ones is given back.
std::int64_t own_bytes() {
  ::malloc_trim(0);
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("RssAnon:")) return std::stoll(line.substr(8)) << 10;
  return 0;
}

struct Taken {
  std::int64_t resident = 0, peak = 0;  // of the device
  std::int64_t process = 0;             // own bytes of the process
};

Taken taken_by(const weights::Checkpoint& file, const std::string& compute) {
  const bool simulated = compute != "cpu";
  if (simulated) sim::install(toy::rig(1, std::int64_t{1} << 26), sim::Mode::Exec);
  Layers layers;
  StreamedModel streamed(layers.manifest, file,
                         {.name = "packed", .compute = compute, .dtype = at::kBFloat16});
  auto x = at::ones({4, kWidth}, at::kBFloat16).to(at::Device(compute));
  const auto before = own_bytes(), held = simulated ? sim::memory(0).in_use : 0;
  if (simulated) sim::reset_peak(0);
  streamed.load(std::vector<BlockHome>(kBlocks, {How::Resident, compute}));
  for (int step = 0; step < 2; ++step) layers.forward(x);
  Taken taken{.resident = streamed.device_bytes(compute), .process = own_bytes() - before};
  if (simulated) taken.peak = sim::memory(0).peak - held;
  return taken;
}

}  // namespace

TEST_CASE("packed memory: a resident model takes its file and the room of one layer") {
  const std::vector<std::pair<std::string, Make>> kinds = {
      {"Q8_0", {}},
      {"int8", [](const at::Tensor& w) { return quant::to_int8(w, true, 256); }},
      {"packed bf16", [](const at::Tensor& w) { return *quant::pack_bf16(w); }},
      {"nvfp4", [](const at::Tensor& w) { return quant::to_nvfp4(w); }}};
  for (const auto& [name, make] : kinds) {
    CAPTURE(name);
    toy::Folder folder;
    const auto path = folder.path() / (make ? "packed.safetensors" : "packed.gguf");
    const auto checkpoint = make ? write_packed(folder, make) : write_gguf(path);
    const auto file = static_cast<double>(std::filesystem::file_size(path));
    const auto there = taken_by(checkpoint, "sim:0"), here = taken_by(checkpoint, "cpu");
    INFO("file ", file, ", device ", there.resident, ", its peak ", there.peak,
         ", process with it ", there.process, ", on the processor ", here.process);
    CHECK(static_cast<double>(there.resident) <= kAllowed * file);
    CHECK(static_cast<double>(there.peak) <= kAllowed * file + kScratch);
    // Sanitizers keep memory of their own beside the process's.
    if (kIsSanitized) continue;
    // The simulated card's memory is the process's too.
    CHECK(static_cast<double>(there.process) <= kAllowed * file + kScratch + kKept);
    // On the processor weights stay where the file is mapped.
    CHECK(here.process <= kScratch + kKept);
  }
}
