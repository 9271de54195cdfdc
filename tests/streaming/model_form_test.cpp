#include "distorch/streaming/model_form.h"

#include <doctest/doctest.h>

#include "tests/streaming/known_models.h"

using namespace distorch;
using namespace distorch::streaming;
using placement::How;

// Memory against time: whether weights rest as their file has them or converted.
namespace {

constexpr int blocks = 8;
constexpr std::int64_t width = 256;
constexpr std::int64_t numbers = blocks * (width * width + width);

/// A model whose file and arithmetic have these dtypes.
struct Opened {
  Opened(Engine& engine, toy::Folder& folder, const std::string& name, at::ScalarType stored,
         at::ScalarType dtype, bool many_steps = true, PlacementRequest request = {})
      : engine(engine), model(blocks, width) {
    StreamedOptions options{.name = name, .compute = "sim:0", .dtype = dtype};
    weights = std::make_shared<StreamedModel>(
        model.manifest(), folder.write(model, stored, name + ".safetensors"), options);
    engine.add(weights, request, many_steps);
  }

  RunNeeds needs(double steps, std::int64_t rows = 1) {
    RunNeeds needs;
    needs.key = std::to_string(rows) + " " + std::to_string(steps);
    needs.steps = steps;
    needs.profile = [this, rows](const RigDevice& compute) {
      toy::Model fresh(blocks, width);
      return profile_model(*weights, fresh.manifest(), compute, [&](at::Device device) {
        fresh.forward(at::empty({rows, width}, at::TensorOptions().device(device).dtype(inputs)));
      });
    };
    return needs;
  }

  Engine::Use prepare(double steps, std::int64_t rows = 1) {
    return engine.prepare(weights, needs(steps, rows));
  }

  at::Tensor run(std::int64_t rows = 1) {
    return model.forward(at::ones({rows, width}).to(at::Device("sim:0"))).cpu();
  }
  bool resident() const {
    return std::all_of(weights->homes().begin(), weights->homes().end(),
                       [](const auto& home) { return home.how == How::Resident; });
  }

  Engine& engine;
  at::ScalarType inputs = at::kFloat;
  toy::Model model;
  std::shared_ptr<StreamedModel> weights;
};

/// Decoding is most of a step of one row.
Engine engine_with(std::int64_t budget) {
  return Engine(toy::engine_options(toy::rig(1, std::int64_t{64} << 20), {{"sim:0", budget}}));
}

}  // namespace

TEST_CASE("form: what grows is converted where there is room and time to win") {
  toy::Folder folder;
  auto engine = engine_with(3 * numbers * 4);
  Opened model(engine, folder, "a", at::kHalf, at::kFloat);
  {
    auto use = model.prepare(20);
    CHECK(model.weights->rests_converted());
    CHECK(model.resident());
    CHECK(model.weights->device_bytes("sim:0") >= numbers * 4);
  }
  auto converted = model.run();
  // Once is not worth it, but what has been done stays done.
  {
    auto use = model.prepare(2);
    CHECK(model.weights->rests_converted());
  }
  engine.unload_all();
  auto use = model.prepare(1);
  CHECK_FALSE(model.weights->rests_converted());
  CHECK(model.weights->device_bytes("sim:0") < numbers * 3);
  CHECK(at::equal(model.run(), converted));
}

TEST_CASE("form: without room for more the file's bytes rest") {
  toy::Folder folder;
  auto engine = engine_with(numbers * 3);
  Opened model(engine, folder, "a", at::kHalf, at::kFloat);
  auto use = model.prepare(20);
  CHECK_FALSE(model.weights->rests_converted());
  CHECK(model.resident());
  CHECK(model.weights->device_bytes("sim:0") <= numbers * 2 + blocks * 4096);
}

TEST_CASE("form: work that dwarfs decoding leaves the memory to others") {
  toy::Folder folder;
  auto engine = engine_with(numbers * 60);
  Opened model(engine, folder, "a", at::kHalf, at::kFloat);
  auto use = model.prepare(20, 4096);
  CHECK_FALSE(model.weights->rests_converted());
}

TEST_CASE("form: text encoders stay as they are") {
  toy::Folder folder;
  auto engine = engine_with(numbers * 12);
  Opened text(engine, folder, "text", at::kHalf, at::kFloat, false);
  auto use = text.prepare(1);
  CHECK_FALSE(text.weights->rests_converted());
}

TEST_CASE("form: what takes no more memory is converted") {
  toy::Folder folder;
  auto engine = engine_with(numbers * 12);
  Opened model(engine, folder, "a", at::kFloat, at::kHalf);
  model.inputs = at::kHalf;
  auto use = model.prepare(20);
  CHECK(model.weights->rests_converted());
}

TEST_CASE("form: two models that fit side by side as stored do not drive each other out") {
  toy::Folder folder;
  // One of them fits converted, both of them do not.
  auto engine = engine_with(numbers * 5);
  Opened first(engine, folder, "a", at::kHalf, at::kFloat),
      second(engine, folder, "b", at::kHalf, at::kFloat);
  for (int round = 0; round < 2; ++round)
    for (auto* model : {&first, &second}) auto use = model->prepare(20);
  CHECK(first.weights->loaded());
  CHECK(second.weights->loaded());
  CHECK(first.resident());
  CHECK(second.resident());
}

TEST_CASE("form: an allocation that was asked for is what both forms are planned by") {
  toy::Folder folder;
  auto engine = engine_with(numbers * 12);
  // Half of it streams: converted not all of it stays.
  Opened model(engine, folder, "a", at::kHalf, at::kFloat, true,
               {.allocation = "sim:0,50%;cpu,50%"});
  auto use = model.prepare(20);
  CHECK_FALSE(model.weights->rests_converted());
}

TEST_CASE("form: models that are prepared together keep room for each other's files") {
  toy::Folder folder;
  // Both fit as stored, one of them converted; again with plans made before.
  auto engine = engine_with(numbers * 5);
  Opened first(engine, folder, "a", at::kHalf, at::kFloat),
      second(engine, folder, "b", at::kHalf, at::kFloat);
  for (int round = 0; round < 2; ++round) {
    auto uses = engine.prepare({{first.weights, first.needs(20, round + 1)},
                                {second.weights, second.needs(20, round + 1)}});
    CHECK_FALSE(first.weights->rests_converted());
    CHECK_FALSE(second.weights->rests_converted());
    CHECK(first.resident());
    CHECK(second.resident());
  }
}

TEST_CASE("form: where nothing fits before others make way, that is for the planner to say") {
  toy::Folder folder;
  auto engine = engine_with(numbers * 2 + blocks * 4096);
  Opened text(engine, folder, "text", at::kHalf, at::kFloat, false);
  // It drives others out only where it must.
  Opened model(engine, folder, "a", at::kHalf, at::kFloat, true, {.eject = false});
  { auto use = text.prepare(1); }
  auto use = model.prepare(20);
  CHECK(model.weights->loaded());
  CHECK_FALSE(model.weights->rests_converted());
}
