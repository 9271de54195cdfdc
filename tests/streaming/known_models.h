#pragma once
#include <doctest/doctest.h>

#include <algorithm>

#include "distorch/device/sim/sim.h"
#include "distorch/streaming/engine.h"
#include "tests/streaming/toy_model.h"

namespace toy {

using placement::How;
using streaming::Engine;
using streaming::EngineOptions;
using streaming::PlacementRequest;
using streaming::Profile;
using streaming::RunNeeds;
using streaming::StreamedModel;
using streaming::StreamedOptions;

/// A toy model that an engine knows.
struct Known {
  struct Size {
    int blocks = 10;
    std::int64_t width = 128;
  };

  Known(Engine& engine, Folder& folder, const std::string& name, PlacementRequest request = {},
        bool many_steps = true)
      : Known(engine, folder, name, Size(), std::move(request), many_steps) {}

  Known(Engine& engine, Folder& folder, const std::string& name, Size size,
        PlacementRequest request = {}, bool many_steps = true)
      : engine(engine),
        size(size),
        model(size.blocks, size.width),
        weights(std::make_shared<StreamedModel>(
            model.manifest(), folder.write(model, at::kFloat, name + ".safetensors"),
            StreamedOptions{.name = name, .compute = engine.device_for(request.compute)})) {
    engine.add(weights, request, many_steps);
  }

  /// For inputs of so many rows.
  RunNeeds needs(std::int64_t rows = 5) {
    RunNeeds needs;
    needs.key = std::to_string(rows);
    needs.steps = 10;
    needs.profile = [this, rows](const RigDevice& compute) {
      ++profiles;
      Model fresh(size.blocks, size.width);
      auto profile = profile_model(*weights, fresh.manifest(), compute, [&](at::Device device) {
        fresh.forward(at::empty({rows, size.width}, at::TensorOptions().device(device)), idle);
      });
      if (idle > 0) streaming::leave_idle(profile);
      return profile;
    };
    return needs;
  }

  Engine::Use prepare(std::int64_t rows = 5) { return engine.prepare(weights, needs(rows)); }

  /// One run, also without preparing it. Like the dry run it keeps no input.
  at::Tensor run(std::int64_t rows = 5) {
    auto device = at::Device(weights->options().compute);
    return model.forward(at::ones({rows, size.width}).to(device)).cpu();
  }

  at::Tensor prepare_and_run(std::int64_t rows = 5) {
    auto use = prepare(rows);
    return run(rows);
  }

  std::int64_t block_bytes() const { return (size.width * size.width + size.width) * 4; }
  bool loaded() const { return weights->loaded(); }
  int count(How how) const {
    return static_cast<int>(std::count_if(weights->homes().begin(), weights->homes().end(),
                                          [&](const auto& home) { return home.how == how; }));
  }

  Engine& engine;
  Size size;
  Model model;
  std::shared_ptr<StreamedModel> weights;
  std::size_t idle = 0;  // so many of the first blocks have no part in a planned run
  int profiles = 0;      // dry runs so far
};

inline EngineOptions engine_options(const Rig& rig,
                                    std::map<std::string, std::int64_t> budgets = {}) {
  sim::install(rig, sim::Mode::Exec);
  EngineOptions options;
  options.rig = rig;
  options.budgets = std::move(budgets);
  options.log_tables = false;
  options.default_device = "sim:0";  // also where there is a real one
  return options;
}

}  // namespace toy
