#include <ATen/CPUGeneratorImpl.h>
#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <chrono>
#include <thread>

#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "distorch/device/memory.h"
#include "distorch/device/sim/sim.h"
#include "distorch/streaming/engine.h"
#include "tests/streaming/toy_model.h"
#include "tests/support/poison.h"

// Whatever the world refuses in the middle of a prompt: the error says so, and the same prompt
// works again, twice, with the same bits, within the same memory, leaving nothing behind.
using namespace distorch;
using namespace distorch::streaming;
using placement::How;

namespace {

constexpr int blocks = 5, steps = 2;
// So that the bytes of a block are what an allocator counts.
constexpr std::int64_t width = 128;
constexpr std::int64_t block_bytes = (width * width + width) * 4;
constexpr std::int64_t memory_bytes = 64 * block_bytes;

at::Tensor input() {
  auto generator = at::make_generator<at::CPUGeneratorImpl>(3);
  return at::randn({3, width}, generator);
}

std::vector<LoraUse> loras(toy::Folder& folder) {
  toy::Model model(blocks, width);
  return {{"a", folder.write_lora(model, 2), 0.8}};
}

/// How one model is placed and run.
struct Way {
  std::string name;
  std::function<BlockHome(int)> home;
  std::string compute = "sim:0";
  at::ScalarType stored = at::kFloat;
  bool converted = false;
  bool registered = true;
  bool recorded = false;
  std::int64_t upload_from_bytes = std::int64_t{1} << 40;
  int slots = 2;
  std::size_t idle = 0;  // so many blocks run before the steps only
};

/// So that it is read past the page cache, where the file system can do that.
void push_out_of_page_cache(const std::filesystem::path& path) {
  int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  ::fsync(descriptor);
  ::posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);
  ::close(descriptor);
}

class OneModel final : public test::Scene {
 public:
  OneModel(const Way& way, const weights::Checkpoint& checkpoint, std::vector<LoraUse> loras)
      : way_(way), loras_(std::move(loras)), model_(blocks, width) {
    sim::install(toy::rig(2, memory_bytes), sim::Mode::Exec);
    sim::refuse_registration_after(way.registered ? -1 : 0);
    streamed_ = std::make_unique<StreamedModel>(
        model_.manifest(), checkpoint,
        StreamedOptions{
            .name = "toy", .compute = way.compute, .upload_from_bytes = way.upload_from_bytes});
    streamed_->make_room = [this](const std::string&, std::int64_t bytes) {
      return streamed_->shrink(bytes) > 0;
    };
    streamed_->record_steps(way.recorded);
    streamed_->rest_converted(way.converted);
    x_ = input().to(at::Device(way.compute));
  }
  ~OneModel() override { sim::refuse_registration_after(-1); }

  at::Tensor prompt() override {
    std::vector<BlockHome> homes;
    std::map<std::string, double> slots;
    for (int i = 0; i < blocks; ++i) {
      homes.push_back(way_.home(i));
      if (homes.back().how == How::Streamed) slots[homes.back().device] = way_.slots;
    }
    streamed_->set_loras(loras_);
    streamed_->load(homes, slots);
    auto x = x_;
    if (way_.idle > 0) x = streamed_->aside([&] { return model_.forward(x_, 0, way_.idle); });
    for (int step = 0; step < steps; ++step)
      x = streamed_->step(
          {x}, [&](const std::vector<at::Tensor>& in) { return model_.forward(in[0], way_.idle); });
    // Past the recordings, too.
    return model_.forward(x).cpu();
  }

 private:
  Way way_;
  std::vector<LoraUse> loras_;
  toy::Model model_;
  std::unique_ptr<StreamedModel> streamed_;
  at::Tensor x_;
};

/// A text encoder and a diffusion model of which the device holds a part, a LoRA on the latter, and
/// an engine that plans them.
class TwoModels final : public test::Scene {
 public:
  static constexpr std::int64_t budget = 8 * block_bytes;

  TwoModels(const std::vector<weights::Checkpoint>& files, std::vector<LoraUse> loras)
      : engine_(options()), loras_(std::move(loras)) {
    text_ = open("text", files[0], false);
    network_ = open("network", files[1], true);
    x_ = input().to(at::Device("sim:0"));
    sim::reset_peak(0);
  }

  at::Tensor prompt() override {
    RunScope run(std::make_shared<RunToken>());
    prepare(text_, {});
    auto context = text_.model->forward(x_);
    prepare(network_, loras_);
    auto x = context;
    for (int step = 0; step < steps; ++step)
      x = network_.weights->step(
          {x}, [&](const std::vector<at::Tensor>& in) { return network_.model->forward(in[0]); });
    return x.cpu();
  }

  void check() override {
    CHECK(sim::memory(0).peak <= budget);
    engine_.unload_all();
    CHECK(text_.weights->device_bytes("sim:0") == 0);
    CHECK(network_.weights->device_bytes("sim:0") == 0);
  }

 private:
  struct Known {
    std::unique_ptr<toy::Model> model;
    std::shared_ptr<StreamedModel> weights;
  };

  static EngineOptions options() {
    auto rig = toy::rig(1, memory_bytes);
    sim::install(rig, sim::Mode::Exec);
    EngineOptions options;
    options.rig = rig;
    options.budgets = {{"sim:0", budget}};
    options.log_tables = false;
    options.default_device = "sim:0";
    return options;
  }

  Known open(const std::string& name, const weights::Checkpoint& file, bool many_steps) {
    Known known{std::make_unique<toy::Model>(blocks, width), nullptr};
    known.weights = std::make_shared<StreamedModel>(
        known.model->manifest(), file, StreamedOptions{.name = name, .compute = "sim:0"});
    engine_.add(known.weights, {}, many_steps);
    return known;
  }

  void prepare(Known& known, const std::vector<LoraUse>& uses) {
    RunNeeds needs;
    needs.loras = uses;
    needs.key = "3";
    needs.steps = 3;
    needs.profile = [&](const RigDevice& compute) {
      toy::Model fresh(blocks, width);
      return profile_model(*known.weights, fresh.manifest(), compute, [&](at::Device device) {
        fresh.forward(at::empty({3, width}, at::TensorOptions().device(device)));
      });
    };
    engine_.prepare(known.weights, needs);
  }

  Engine engine_;
  std::vector<LoraUse> loras_;
  Known text_, network_;
  at::Tensor x_;
};

}  // namespace

TEST_CASE("poison: a model, however its blocks are placed") {
  auto all = [](How how, const std::string& device) {
    return [how, device](int) { return BlockHome{how, device}; };
  };
  auto mixed = [](int i) {
    const BlockHome kinds[] = {{How::Resident, "sim:0"},
                               {How::Streamed, "cpu"},
                               {How::Streamed, "sim:1"},
                               {How::OnDonor, "sim:1"},
                               {How::OnDonor, "cpu"}};
    return kinds[i % 5];
  };
  // Its matrix rests, or its bias.
  auto in_part = [](const std::string& device) {
    return [device](int i) {
      return BlockHome{How::Streamed, device, i % 2 == 0 ? std::uint64_t{1} : std::uint64_t{2}};
    };
  };
  const std::vector<Way> ways = {
      {.name = "resident, recorded", .home = all(How::Resident, "sim:0"), .recorded = true},
      {.name = "resident, brought by threads",
       .home = all(How::Resident, "sim:0"),
       .upload_from_bytes = 0},
      {.name = "converted, brought by threads",
       .home = all(How::Resident, "sim:0"),
       .stored = at::kHalf,
       .converted = true,
       .upload_from_bytes = 0},
      {.name = "streamed, recorded", .home = all(How::Streamed, "cpu"), .recorded = true},
      {.name = "streamed through staging buffers",
       .home = all(How::Streamed, "cpu"),
       .registered = false},
      {.name = "streamed from disk", .home = all(How::Streamed, "disk")},
      {.name = "streamed from a donor", .home = all(How::Streamed, "sim:1"), .registered = false},
      {.name = "mixed", .home = mixed},
      {.name = "in part, recorded", .home = in_part("cpu"), .recorded = true},
      {.name = "in part, through staging buffers, brought by threads",
       .home = in_part("cpu"),
       .registered = false,
       .upload_from_bytes = 0},
      {.name = "in part from a donor, brought by threads",
       .home = in_part("sim:1"),
       .upload_from_bytes = 0},
      {.name = "aside before streamed ones, recorded",
       .home =
           [](int i) {
             return i < 2 ? BlockHome{How::Aside, "cpu"} : BlockHome{How::Streamed, "cpu"};
           },
       .recorded = true,
       .idle = 2},
      {.name = "aside before resident ones, through staging buffers, recorded",
       .home =
           [](int i) {
             return i < 3 ? BlockHome{How::Aside, "cpu"} : BlockHome{How::Resident, "sim:0"};
           },
       .registered = false,
       .recorded = true,
       .idle = 3},
      {.name = "aside on the CPU",
       .home =
           [](int i) {
             return i < 2 ? BlockHome{How::Aside, "cpu"} : BlockHome{How::Resident, "cpu"};
           },
       .compute = "cpu",
       .idle = 2},
      {.name = "on the CPU", .home = all(How::Resident, "cpu"), .compute = "cpu"},
      {.name = "on the CPU, converted",
       .home = all(How::Resident, "cpu"),
       .compute = "cpu",
       .stored = at::kHalf,
       .converted = true},
      {.name = "on the CPU from disk", .home = all(How::Streamed, "disk"), .compute = "cpu"}};
  for (const auto& way : ways) {
    CAPTURE(way.name);
    toy::Folder folder;
    toy::Model model(blocks, width);
    auto checkpoint = folder.write(model, way.stored);
    auto uses = loras(folder);
    bool from_disk = way.home(0).device == "disk";
    int struck = test::poison([&] {
      if (from_disk) push_out_of_page_cache(folder.path() / "toy.safetensors");
      return std::make_unique<OneModel>(way, checkpoint, uses);
    });
    CHECK(struck > 0);
  }
}

TEST_CASE("poison: prompts of two models under one budget") {
  toy::Folder folder;
  std::vector<weights::Checkpoint> files;
  for (std::string name : {"text", "network"}) {
    toy::Model model(blocks, width);
    files.push_back(folder.write(model, at::kFloat, name + ".safetensors"));
  }
  auto uses = loras(folder);
  int struck = test::poison([&] { return std::make_unique<TwoModels>(files, uses); });
  CHECK(struck > 20);
}
