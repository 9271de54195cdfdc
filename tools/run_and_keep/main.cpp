// Runs workflows in API format one after the other in one application and writes for each the
// latents, conditionings, pictures and masks that its nodes put out, as OUT/<workflow>.safetensors
// with the tensors "<node>.<slot>" and "<node>.<slot>.pooled": what tests/parity/beside_comfyui.py
// compares with ComfyUI's. --help says how.
#include <fmt/format.h>

#include <iostream>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/cli/machine_options.h"
#include "distorch/cli/workflow_run.h"
#include "distorch/device/host_pool.h"
#include "distorch/formats/safetensors.h"
#include "distorch/graph/validation.h"
#include "distorch/nodes/catalog.h"
#include "distorch/sampling/conditioning.h"
#include "distorch/sampling/ksampler.h"

namespace {

using namespace distorch;
using Tensors = std::map<std::string, at::Tensor>;

struct Silent final : graph::EventSink {
  void send(const graph::Event&) override {}
};

/// The tensors of one output under their names.
void keep(const std::string& name, const std::string& type, const graph::Value& value,
          Tensors& kept) {
  auto add = [&](const std::string& key, const at::Tensor& tensor) {
    if (tensor.defined()) kept[key] = tensor.to(at::kCPU, at::kFloat).contiguous();
  };
  if (type == "LATENT") return add(name, value.as<sampling::Latent>().samples);
  if (type != "CONDITIONING") return add(name, value.as<at::Tensor>());
  const auto& items = value.as<sampling::Conditioning>();
  if (items.empty()) return;
  add(name, items[0].cross_attn);
  add(name + ".pooled", items[0].pooled_output);
}

class Runner {
 public:
  explicit Runner(nodes::App& app) : context_(app.context()) {
    nodes::add_all(catalog_, app);
    catalog_.add(
        {.name = "Keep",
         .inputs = {graph::link("value", "*"), graph::text("name", {}), graph::text("type", {})},
         .output_node = true,
         .not_idempotent = true,
         .run = [this](graph::Call& call) {
           auto one = [&](const char* key) {
             return call.in(key).as<graph::Json>().get<std::string>();
           };
           ::keep(one("name"), one("type"), call.in("value"), kept_);
         }});
  }

  Tensors run(graph::Json prompt, const std::string& where) {
    const auto names = add_keepers(prompt);
    auto validation = graph::validate(prompt, catalog_, {.targets = {}, .context = &context_});
    if (!validation.clean()) {
      std::string all;
      for (const auto& line : validation.lines()) all += "\n  " + line;
      throw Error(ErrorKind::Format, where, "cannot be run:" + all);
    }
    graph::RunRequest request;
    request.prompt = std::move(prompt);
    request.outputs = validation.good_outputs;
    request.context = &context_;
    Silent silent;
    auto result = executor_.run(request, silent);
    if (result.status != graph::RunStatus::Success) cli::rethrow_with_node(result);
    // A node whose inputs are those of the workflow before does not run again.
    Tensors tensors;
    for (const auto& name : names)
      for (const auto& key : {name, name + ".pooled"})
        if (auto found = kept_.find(key); found != kept_.end()) tensors.insert(*found);
    return tensors;
  }

 private:
  /// Adds a node behind each output that is wanted; their names.
  std::vector<std::string> add_keepers(graph::Json& prompt) {
    const auto nodes = prompt;
    std::vector<std::string> names;
    for (const auto& [id, node] : nodes.items()) {
      const auto* type = catalog_.find(node.at("class_type").get<std::string>());
      if (!type) continue;
      for (std::size_t slot = 0; slot < type->outputs.size(); ++slot) {
        const auto& kind = type->outputs[slot].type;
        if (kind != "LATENT" && kind != "CONDITIONING" && kind != "IMAGE" && kind != "MASK")
          continue;
        auto name = fmt::format("{}.{}", id, slot);
        prompt["keep " + name] = {
            {"class_type", "Keep"},
            {"inputs", {{"value", {id, slot}}, {"name", name}, {"type", kind}}}};
        names.push_back(name);
      }
    }
    return names;
  }

  graph::Catalog catalog_;
  graph::Context context_;
  graph::Executor executor_{catalog_};
  Tensors kept_;
};

void write(const std::filesystem::path& path, const Tensors& tensors) {
  std::vector<formats::TensorToWrite> list;
  for (const auto& [name, tensor] : tensors)
    list.push_back({.name = name,
                    .dtype = formats::DType::F32,
                    .shape = tensor.sizes().vec(),
                    .bytes = {static_cast<const std::byte*>(tensor.const_data_ptr()),
                              static_cast<std::size_t>(tensor.nbytes())}});
  formats::write_safetensors(path, std::move(list));
}

int run(int argc, char** argv) {
  CLI::App command("Runs workflows and writes the tensors that their nodes put out.");
  cli::MachineOptions options;
  std::string out;
  std::vector<std::string> workflows;
  command.add_option("out", out, "Folder for the tensors")->required();
  command.add_option("workflows", workflows, "Workflows in API format")->required();
  cli::declare(command, options);
  CLI11_PARSE(command, argc, argv);
  auto app = cli::make_app(options, cli::install_rig(options), false);
  Runner runner(*app);
  std::filesystem::create_directories(out);
  for (const auto& workflow : workflows) {
    const std::filesystem::path path(workflow);
    auto kept = runner.run(graph::Json::parse(read_file(path)), workflow);
    write(std::filesystem::path(out) / (path.stem().string() + ".safetensors"), kept);
    std::cout << path.stem().string() << std::endl;
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  device::set_up_host_memory();
  log::set_up("warning");
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "run_and_keep: {}\n", error.what());
    return 1;
  }
}
