#pragma once
#include <fstream>

#include "distorch/device/sim/sim.h"
#include "tests/nodes/tiny_app.h"
#include "tests/support/devices.h"

/// What workflows on the tiny transformers share: model files of their own and nodes that make
/// seeded inputs, as the scripts make_nodes_*.py of tests/parity have them.
namespace distorch::test {

/// The cases of a dump of workflows: "nodes_flux".
inline graph::Json workflow_cases(const std::string& dump) {
  return graph::Json::parse(std::ifstream(parity_dir() / (dump + ".json")))["cases"];
}

inline graph::Json workflow_case(const std::string& dump, const std::string& name) {
  for (const auto& one : workflow_cases(dump))
    if (one["name"] == name) return one;
  FAIL("no case " << name);
  return {};
}

/// The workflow with the diffusion model computed on sim:0 and its weights where `allocation` says.
inline graph::Json with_split_model(graph::Json workflow, const std::string& allocation) {
  for (auto& [id, node] : workflow.items())
    if (node["class_type"] == "UNETLoader") {
      node["class_type"] = "UNETLoaderDisTorch2MultiGPU";
      auto& inputs = node["inputs"];
      inputs["compute_device"] = "sim:0";
      inputs["virtual_vram_gb"] = 0.0;
      inputs["donor_device"] = "cpu";
      inputs["expert_mode_allocations"] = allocation;
      inputs["eject_models"] = true;
    }
  return workflow;
}

/// The latent that a node of a workflow is given by its inputs "name", "batch", "height", "width".
inline at::Tensor seeded_latent(const graph::Call& call, std::int64_t channels) {
  std::vector<std::int64_t> shape = {call.integer("batch"), channels, call.integer("height"),
                                     call.integer("width")};
  auto name = call.text("name");
  return name.empty() ? at::zeros(shape) : tiny_weight(name, shape);
}

class SeededApp : public TinyApp {
 public:
  using TinyApp::TinyApp;

  /// What a prompt says that cannot give what `link` names.
  std::string error(graph::Json prompt, const graph::Json& link) {
    prompt["keep"] = node("Keep", {{"value", link}});
    return run(prompt).error;
  }
  /// The LATENT that a case names.
  at::Tensor latent(const graph::Json& one) {
    return value_of(one["workflow"], one["latent"]).as<sampling::Latent>().samples;
  }

 protected:
  void write(const std::string& type, const std::string& name,
             const std::map<std::string, at::Tensor>& tensors) {
    fs::create_directories(folder() / type);
    write_tensors(folder() / type / (name + ".safetensors"), tensors);
    app.folders.add(type, folder() / type);
  }

  /// TinyLatent of as many channels as a workflow says.
  void add_latents() {
    using graph::Value;
    catalog.add(
        {.name = "TinyLatent",
         .inputs = {graph::text("name"), graph::integer("batch"), graph::integer("channels"),
                    graph::integer("height"), graph::integer("width")},
         .outputs = {"LATENT"},
         .run = [](graph::Call& call) {
           call.out(
               0, Value::of("LATENT", sampling::Latent{
                                          seeded_latent(call, call.integer("channels")), {}, {}}));
         }});
  }

  /// TinyImage, TinyMask, and TinyLatent of so many channels.
  void add_pictures(std::int64_t channels) {
    using graph::Value;
    catalog.add({.name = "TinyImage",
                 .inputs = {graph::text("name"), graph::integer("height"), graph::integer("width")},
                 .outputs = {"IMAGE"},
                 .run = [](graph::Call& call) {
                   auto seeded = at::detail::createCPUGenerator(call.text("name").size());
                   call.out(0, Value::of("IMAGE", at::rand({1, call.integer("height"),
                                                            call.integer("width"), 3},
                                                           seeded)));
                 }});
    catalog.add({.name = "TinyMask",
                 .inputs = {graph::integer("height"), graph::integer("width")},
                 .outputs = {"MASK"},
                 .run = [](graph::Call& call) {
                   auto height = call.integer("height"), width = call.integer("width");
                   auto row = (at::arange(width) > width / 3).to(at::kFloat);
                   call.out(0, Value::of("MASK", row.expand({1, height, width}).contiguous()));
                 }});
    catalog.add({.name = "TinyLatent",
                 .inputs = {graph::text("name"), graph::integer("batch"), graph::integer("height"),
                            graph::integer("width")},
                 .outputs = {"LATENT"},
                 .run = [channels](graph::Call& call) {
                   call.out(0, Value::of("LATENT",
                                         sampling::Latent{seeded_latent(call, channels), {}, {}}));
                 }});
  }
};

/// All workflows of a dump give the latents that ComfyUI gave.
inline void check_latents(SeededApp& app, const std::string& dump) {
  Dump wanted(dump);
  double worst = 0;
  const auto all = workflow_cases(dump);
  for (const auto& one : all) {
    const auto title = one["name"].get<std::string>();
    INFO(title);
    const auto error = difference(app.latent(one), wanted[title]);
    CHECK(error < 1e-4);
    worst = std::max(worst, error);
  }
  MESSAGE(dump << ": " << all.size() << " workflows, largest difference " << worst);
}

/// Those workflows give ComfyUI's latents wherever their model rests, the same bits everywhere.
template <class App>
void check_split(const std::string& dump, const std::vector<std::string>& names) {
  const auto rig = small_rig();
  sim::install(rig, sim::Mode::Exec);
  streaming::EngineOptions options;
  options.rig = rig;
  for (const auto& name : names) {
    const auto one = workflow_case(dump, name);
    at::Tensor whole;
    for (const char* allocation : {"sim:0,100%", "cpu,*", "sim:0,1mb;sim:1,1mb;cpu,*"}) {
      INFO(name << " " << allocation);
      App tiny(options);
      auto split = one;
      split["workflow"] = with_split_model(one["workflow"], allocation);
      const auto latent = tiny.latent(split);
      if (!whole.defined()) whole = latent;
      CHECK(at::equal(latent, whole));
    }
    CHECK(difference(whole, Dump(dump)[name]) < 1e-4);
  }
}

}  // namespace distorch::test
