#include "distorch/nodes/next_run.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "distorch/graph/catalog.h"
#include "distorch/graph/dynamic_inputs.h"
#include "distorch/sampling/sigmas.h"

namespace distorch::nodes {

using graph::Json;
using graph::NodeType;
using graph::Pace;
using graph::Upcoming;
using sampling::Conditioning;
using sampling::Sigmas;

namespace {

/// Models as they are opened, what says how they are sampled, plain values, and what switches give.
constexpr std::array<std::string_view, 13> kQuick = {
    "MODEL",  "CLIP", "VAE",   "CLIP_VISION", "SAMPLER", "SIGMAS",         "NOISE",
    "GUIDER", "INT",  "FLOAT", "BOOLEAN",     "STRING",  graph::kMatchType};

Pace pace_of(const NodeType& type) {
  auto is_quick = [](const graph::Output& output) {
    return std::find(kQuick.begin(), kQuick.end(), output.type) != kQuick.end();
  };
  if (type.outputs.empty() || type.output_node || type.background) return Pace::Usual;
  if (std::all_of(type.outputs.begin(), type.outputs.end(), is_quick)) return Pace::Quick;
  const bool samples = std::any_of(
      type.inputs.begin(), type.inputs.end(),
      [](const graph::Input& input) { return input.type == "MODEL" || input.type == "GUIDER"; });
  return samples && type.outputs.front().type == "LATENT" ? Pace::Long : Pace::Usual;
}

/// What is known of a node's inputs.
class Known {
 public:
  explicit Known(const Upcoming::Node& node) : values_(node.values) {}

  template <class T>
  const T* get(const char* name) const {
    auto found = values_.find(name);
    return found != values_.end() && found->second.is<T>() ? &found->second.as<T>() : nullptr;
  }
  std::optional<double> number(const char* name) const {
    const auto* json = get<Json>(name);
    return json && json->is_number() ? std::optional(json->get<double>()) : std::nullopt;
  }

 private:
  const std::map<std::string, graph::Value>& values_;
};

/// With the inputs "model", "positive", "negative" and "cfg".
std::optional<ModelGuider> plain_guider(const Known& known) {
  const auto* model = known.get<Model>("model");
  const auto* positive = known.get<Conditioning>("positive");
  const auto* negative = known.get<Conditioning>("negative");
  auto cfg = known.number("cfg");
  if (!model || !positive || !negative || !cfg) return {};
  return ModelGuider{*model, {*cfg, *positive, *negative, {}}};
}

bool is_sampler(const NodeType& type) {
  return type.name == "KSampler" || type.name == "KSamplerAdvanced" ||
         type.name == "SamplerCustom" || type.name == "SamplerCustomAdvanced";
}

std::optional<NextRun> run_of(const Upcoming::Node& node) {
  Known known(node);
  if (node.type->name == "KSampler" || node.type->name == "KSamplerAdvanced") {
    auto guider = plain_guider(known);
    auto steps = known.number("steps");
    if (!guider || !steps) return {};
    return NextRun{std::move(*guider), static_cast<int>(*steps)};
  }
  const auto* sigmas = known.get<Sigmas>("sigmas");
  if (!sigmas || sigmas->size() < 2) return {};
  const auto steps = static_cast<int>(sigmas->size()) - 1;
  if (node.type->name == "SamplerCustom") {
    auto guider = plain_guider(known);
    return guider ? std::optional(NextRun{std::move(*guider), steps}) : std::nullopt;
  }
  const auto* guider = known.get<ModelGuider>("guider");
  return guider ? std::optional(NextRun{*guider, steps}) : std::nullopt;
}

}  // namespace

graph::Paces& paces() {
  static graph::Paces known{pace_of};
  return known;
}

std::optional<NextRun> next_run(graph::Call& call, const Model& model) {
  if (!call.has_context<Upcoming>()) return {};
  for (const auto& node : call.context<Upcoming>().after(call.node_id())) {
    if (!is_sampler(*node.type)) continue;
    auto run = run_of(node);
    const bool other = run && run->guider.model.loaded->weights != model.loaded->weights;
    return other ? std::move(run) : std::nullopt;
  }
  return {};
}

}  // namespace distorch::nodes
