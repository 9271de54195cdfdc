#include "distorch/nodes/pulid.h"

#include <ATen/CPUGeneratorImpl.h>
#include <fmt/format.h>

#include <atomic>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/models/pulid_faces/scrfd.h"
#include "distorch/models/sdxl/family.h"
#include "distorch/nodes/changed_model.h"
#include "distorch/nodes/one_call.h"
#include "distorch/nodes/pictures.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::link;
using graph::number;
using graph::Value;
using models::sd::PromptJoin;

namespace {

namespace faces = models::pulid_faces;
namespace sd = models::sd;

/// How a node wants the face to be looked at.
struct Wish {
  double weight = 1.0;
  PromptJoin join = PromptJoin::Plain;
  std::int64_t further_tokens = 0;  // that say nothing: attention goes there instead of to the face
  double noise = 0;                 // of what negative conditionings look at
  double start = 0, end = 1;
};

/// Where no picture is looked at, to plan the calls for one: a face that fills it.
faces::FoundFace planned_face(const Tensor& picture) {
  const auto height = static_cast<double>(picture.size(0)),
             width = static_cast<double>(picture.size(1));
  faces::FoundFace face;
  face.right = static_cast<float>(width);
  face.bottom = static_cast<float>(height);
  face.landmarks = {{{width * 0.35, height * 0.4},
                     {width * 0.65, height * 0.4},
                     {width * 0.5, height * 0.6},
                     {width * 0.35, height * 0.75},
                     {width * 0.65, height * 0.75}}};
  return face;
}

bool plan_only(Call& call) { return call.context<streaming::Engine>().plan_only(); }

template <class Network>
weights::Tensors run_face(Call& call, Loaded<Network>& loaded, const Tensor& pixels) {
  return run_network(call, loaded, pixels, [](const auto& network, const Tensor& x) {
    return weights::Tensors{network.forward(x)};
  });
}

/// ArcFace's numbers of the largest face, [1, width]; undefined where there is none. A large face is
/// found in a smaller picture where it is too large for the network in the full one.
Tensor identity_of(Call& call, const FaceAnalysis& analysis, const Tensor& picture,
                   std::int64_t width) {
  constexpr std::int64_t largest_size = 640, least_size = 256, step = 64;
  for (auto size = largest_size; size > least_size; size -= step) {
    auto boxed = faces::letterboxed(picture, size);
    auto outputs = run_face(call, *analysis.detector, boxed.pixels);
    std::vector<faces::FoundFace> found = {planned_face(picture)};
    if (!plan_only(call))
      found = faces::scrfd_faces(outputs, size, boxed.scale,
                                 analysis.detector->weights->checkpoint().path());
    const auto* face = faces::largest(found);
    if (!face) continue;
    const auto& network = *analysis.recogniser->network;
    outputs = run_face(call, *analysis.recogniser,
                       faces::arcface_pixels(picture, face->landmarks, network.graph()));
    return plan_only(call) ? at::zeros({1, width}) : outputs[0].to(at::kCPU).reshape({1, -1});
  }
  return {};
}

/// The face in gray on white, [1, 3, 512, 512] 0..1; undefined where there is none.
Tensor cut_out(Call& call, const FaceAnalysis& analysis, const Tensor& picture) {
  const auto height = picture.size(0), width = picture.size(1);
  auto outputs = run_face(call, *analysis.cutter, faces::retina_pixels(picture));
  std::vector<faces::FoundFace> found = {planned_face(picture)};
  if (!plan_only(call)) found = faces::retina_faces(outputs, height, width);
  const auto* face = faces::central(found, height, width);
  if (!face) return {};
  const auto aligned = faces::aligned_face(picture, face->landmarks);
  outputs = run_face(call, *analysis.parts, faces::bisenet_pixels(aligned));
  const auto parts = plan_only(call) ? at::zeros({1, 1, aligned.size(0), aligned.size(1)})
                                     : outputs[0].to(at::kCPU);
  return faces::face_on_white(aligned, parts);
}

/// What the networks say about the face in a picture [H, W, 3] uint8, as Adapter::tokens_of() takes it:
/// [1, numbers of an identity and EVA's states] on the CPU; undefined where there is no face. `width`:
/// numbers of an identity that the adapter takes. Source: pulid.py, apply_pulid.
Tensor described_face(Call& call, const FaceAnalysis& analysis, const EvaClip& eva,
                      const Tensor& picture, std::int64_t width) {
  const auto& config = eva.loaded->network->config();
  auto identity = identity_of(call, analysis, picture, width - config.projection);
  if (!identity.defined()) return {};
  const auto face = cut_out(call, analysis, picture);
  if (!face.defined()) return {};
  const auto said = run_network(call, *eva.loaded, models::pulid::eva_pixels(face, config),
                                [](const auto& network, const Tensor& x) {
                                  auto states = network.forward(x);
                                  states.hidden.push_back(states.embeds);
                                  return states.hidden;
                                });
  if (plan_only(call)) {
    const auto tokens = config.grid * config.grid + 1;
    return at::zeros({1, width + models::pulid::kEvaLooks * tokens * config.width});
  }
  const auto embeds = said.back().to(at::kCPU);
  std::vector<Tensor> all = {identity.to(at::kFloat), embeds / embeds.norm(2, 1, true)};
  for (std::size_t i = 0; i + 1 < said.size(); ++i) all.push_back(said[i].to(at::kCPU).flatten(1));
  return at::cat(all, 1);
}

/// The described faces of a batch of pictures, one after the other.
std::vector<Tensor> described_faces(Call& call, const Tensor& image, std::int64_t width) {
  const auto& analysis = call.get<FaceAnalysis>("face_analysis");
  const auto& eva = call.get<EvaClip>("eva_clip");
  const auto bytes = (match_channels(image, 3) * 255.0).clamp(0, 255).to(at::kByte).contiguous();
  std::vector<Tensor> all;
  for (std::int64_t i = 0; i < bytes.size(0); ++i) {
    auto face = described_face(call, analysis, eva, bytes[i], width);
    if (face.defined())
      all.push_back(std::move(face));
    else
      log::warn("{}: no face is found in picture {} of 'image'", call.place(), i);
  }
  return all;
}

/// What tokens for positive and for negative conditionings become, [2, T, width]: keys and values of
/// the adapter in the order of the UNet's layers, the values as strong as the node says.
Tensor heads_for(Call& call, Loaded<models::pulid::Adapter>& adapter, const Tensor& tokens,
                 const std::vector<sd::PromptedLayer>& layers, double weight) {
  const auto& config = adapter.network->config();
  const auto said = run_network(call, adapter, tokens, [](const auto& network, const Tensor& x) {
    return weights::Tensors{network.heads_of(x)};
  });
  std::vector<Tensor> parts;
  for (const auto& layer : layers) {
    std::int64_t first = 0;
    const models::pulid::AdapterConfig::Layer* own = nullptr;
    for (const auto& candidate : config.layers) {
      if (candidate.number == layer.number) own = &candidate;
      if (own) break;
      first += 2 * candidate.channels;
    }
    if (!own || own->channels != layer.channels)
      throw Error(ErrorKind::Shape, adapter.weights->checkpoint().path(),
                  fmt::format("has {} for the {} channels of '{}': it belongs to another model",
                              own ? fmt::format("'ip_adapter.{}.to_k_ip.weight' of {} channels",
                                                layer.number, own->channels)
                                  : fmt::format("no 'ip_adapter.{}.to_k_ip.weight'", layer.number),
                              layer.channels, layer.stage));
    if (plan_only(call)) {
      parts.push_back(at::zeros({2, tokens.size(1), 2 * layer.channels}));
      continue;
    }
    parts.push_back(said[0].narrow(2, first, layer.channels));
    parts.push_back(said[0].narrow(2, first + layer.channels, layer.channels) * weight);
  }
  return at::cat(parts, 2).to(at::kCPU, at::kFloat);
}

/// The tokens of all faces, their mean, for positive and for negative conditionings: [2, T, context].
Tensor tokens_for(Call& call, Loaded<models::pulid::Adapter>& adapter,
                  const std::vector<Tensor>& described, const Wish& wish) {
  const auto count = static_cast<std::int64_t>(described.size());
  const auto& config = adapter.network->config();
  // The original draws other numbers each time; here a workflow gives the same picture again.
  auto drawn = at::detail::createCPUGenerator(0);
  auto nothing = [&](at::IntArrayRef shape) {
    return wish.noise == 0 ? at::zeros(shape) : at::rand(shape, drawn) * wish.noise;
  };
  const auto seen = at::cat(described);
  const auto said = run_network(
      call, adapter, at::cat({seen, nothing(seen.sizes())}),
      [](const auto& network, const Tensor& x) { return weights::Tensors{network.tokens_of(x)}; });
  const std::vector<std::int64_t> shape = {2, count, config.tokens + config.looks, config.context};
  auto tokens = plan_only(call) ? at::zeros(shape) : said[0].to(at::kCPU).reshape(shape);
  tokens = tokens.mean(1);
  if (wish.further_tokens == 0) return tokens;
  auto further = nothing({1, wish.further_tokens, config.context});
  return at::cat({tokens, further.expand({2, -1, -1})}, 1);
}

void apply(Call& call, const Wish& wish) {
  auto model = call.get<Model>("model");
  const auto* config = models::sdxl::config_of(*model.loaded->family);
  if (!config)
    throw Error(
        ErrorKind::Usage, call.place(),
        fmt::format("{} is {}, and PuLID is for SDXL", model.loaded->weights->checkpoint().path(),
                    model.loaded->family->name()));
  const auto layers = sd::prompted_layers(*config);
  if (layers.empty())
    throw Error(ErrorKind::Usage, call.place(),
                fmt::format("{} has none of the layers that PuLID is for",
                            model.loaded->weights->checkpoint().path()));
  auto& adapter = *call.get<PulidModel>("pulid").loaded;
  const auto described =
      described_faces(call, image_input(call, "image"), adapter.network->config().identity);
  if (described.empty()) {
    log::warn("{}: no face is found in any picture, the model stays as it is", call.place());
    call.out(0, Value::of("MODEL", std::move(model)));
    return;
  }
  const auto heads =
      heads_for(call, adapter, tokens_for(call, adapter, described, wish), layers, wish.weight);
  sd::ImagePrompt prompt{.positive = heads.narrow(0, 0, 1).contiguous(),
                         .negative = heads.narrow(0, 1, 1).contiguous(),
                         .join = wish.join,
                         .mask = {}};
  if (call.has("attn_mask")) prompt.mask = mask_input(call, "attn_mask").to(at::kFloat);
  const auto& levels = model.noise_levels();
  prompt.sigma_start = static_cast<float>(levels.percent_to_sigma(wish.start));
  prompt.sigma_end = static_cast<float>(levels.percent_to_sigma(wish.end));
  static std::atomic<int> count = 0;
  model.loaded =
      changed_model(*model.loaded,
                    {.key = fmt::format("face {} beside the text", ++count),
                     .family = models::sdxl::looking_at(*model.loaded->family, std::move(prompt)),
                     .dtype = {}},
                    call.context<streaming::Engine>());
  call.out(0, Value::of("MODEL", std::move(model)));
}

Wish wish_of(const Call& call, PromptJoin join, std::int64_t further_tokens) {
  return {.weight = call.number("weight"),
          .join = join,
          .further_tokens = further_tokens,
          .start = call.number("start_at"),
          .end = call.number("end_at")};
}

void run_apply(Call& call) {
  const auto method = call.text("method");
  apply(call, method == "fidelity" ? wish_of(call, PromptJoin::Faithful, 8)
              : method == "style"  ? wish_of(call, PromptJoin::Orthogonal, 16)
                                   : wish_of(call, PromptJoin::Plain, 0));
}

void run_apply_advanced(Call& call) {
  const auto projection = call.text("projection");
  auto wish = wish_of(call,
                      projection == "ortho_v2" ? PromptJoin::Faithful
                      : projection == "ortho"  ? PromptJoin::Orthogonal
                                               : PromptJoin::Plain,
                      call.integer("fidelity"));
  wish.noise = call.number("noise");
  apply(call, wish);
}

}  // namespace

void add_pulid_nodes(graph::Catalog& catalog) {
  auto share = [](const char* name, double usual) {
    return number(name, {.def = usual, .min = 0.0, .max = 1.0, .step = 0.001});
  };
  auto add = [&](const char* name, const char* display, std::vector<graph::Input> own,
                 void (*run)(Call&)) {
    graph::NodeType type{
        .name = name,
        .display_name = display,
        .category = kPulidCategory,
        .description = "SDXL looks at a face beside the text, so that pictures show that person.",
        .python_module = kPulidModule,
        .inputs = {link("model", "MODEL"), link("pulid", "PULID"), link("eva_clip", "EVA_CLIP"),
                   link("face_analysis", "FACEANALYSIS"), link("image", "IMAGE")},
        .outputs = {"MODEL"},
        .run = run,
    };
    type.inputs.insert(type.inputs.end(), own.begin(), own.end());
    type.inputs.push_back(share("start_at", 0.0));
    type.inputs.push_back(share("end_at", 1.0));
    type.inputs.push_back(graph::optional(link("attn_mask", "MASK")));
    catalog.add(std::move(type));
  };
  const auto weight = number("weight", {.def = 1.0, .min = -1.0, .max = 5.0, .step = 0.05});
  add("ApplyPulid", "Apply PuLID", {choice("method", {"fidelity", "style", "neutral"}), weight},
      run_apply);
  add("ApplyPulidAdvanced", "Apply PuLID Advanced",
      {weight, choice("projection", {"ortho_v2", "ortho", "none"}),
       integer("fidelity", {.def = 8, .min = 0, .max = 32, .step = 1}),
       number("noise", {.def = 0.0, .min = -1.0, .max = 1.0, .step = 0.1})},
      run_apply_advanced);
}

}  // namespace distorch::nodes
