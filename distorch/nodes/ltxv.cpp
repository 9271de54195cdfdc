// ComfyUI's nodes of LTX-Video: what the sampler starts from, pictures that begin or guide a clip,
// noise levels that grow with it. Source: ComfyUI comfy_extras/nodes_lt.py.
#include "distorch/nodes/ltxv.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <set>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/media/video_reader.h"
#include "distorch/media/video_writer.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/resize.h"
#include "distorch/nodes/settings.h"
#include "distorch/nodes/vae_coding.h"
#include "distorch/nodes/values.h"
#include "distorch/nodes/video.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::integer;
using graph::link;
using graph::number;
using graph::optional;
using graph::Value;
using sampling::Conditioning;
using sampling::Latent;

namespace {

namespace fs = std::filesystem;

constexpr const char* kModule = "comfy_extras.nodes_lt";
constexpr const char* kKeyframes = "keyframe_idxs";
constexpr std::int64_t kChannels = 128, kFramesOfCell = 8, kPixelsOfCell = 32;
/// Latent frames of a guide that stand beside the clip; the others take its frames' places.
constexpr std::int64_t kPrefix = 2;

void out_conditionings(Call& call, Conditioning positive, Conditioning negative) {
  call.out(0, Value::of("CONDITIONING", std::move(positive)));
  call.out(1, Value::of("CONDITIONING", std::move(negative)));
}

/// A blank latent of the sizes that the node asks for. Frames that make no whole latent frame are
/// told once a node.
Tensor blank(Call& call) {
  auto length = call.integer("length"), cells = (length - 1) / kFramesOfCell;
  if (auto whole = cells * kFramesOfCell + 1; whole != length)
    log::warn(
        "{}: a video of {} frames has {} in its latent, as lengths are 8n + 1; {} are left out",
        call.place(), length, whole, length - whole);
  return at::zeros({call.integer("batch_size"), kChannels, cells + 1,
                    call.integer("height") / kPixelsOfCell, call.integer("width") / kPixelsOfCell});
}

/// Error(Shape) that names the file where it is no autoencoder of LTX-Video's shape.
VaeCoding video_vae_of(Call& call) {
  auto coding = vae_coding_of(call);
  auto shape = coding.shape();
  if (shape.dimensions != 3 || shape.latent_channels != kChannels ||
      shape.downscale != kPixelsOfCell || shape.time_downscale != kFramesOfCell)
    throw Error(ErrorKind::Shape, coding.file(),
                fmt::format("gives {} of {} channels, and {} makes video latents of {}: load the "
                            "VAE of LTX-Video, which lies in its checkpoints",
                            shape.dimensions == 3 ? "video latents" : "latents of pictures",
                            shape.latent_channels, call.place(), kChannels));
  return coding;
}

/// Frames [T, H, W, C] in another size, in colour.
Tensor resized(const Tensor& frames, std::int64_t width, std::int64_t height, bool crop) {
  auto colours = frames.narrow(3, 0, 3).movedim(-1, 1).contiguous();
  return resize(colours, {width, height, "bilinear", crop}).movedim(1, -1).contiguous();
}

void run_empty(Call& call) { call.out(0, Value::of("LATENT", Latent{blank(call), {}, {}})); }

void run_conditioning(Call& call) {
  auto rate = call.number("frame_rate");
  if (rate <= 0)
    throw Error(ErrorKind::Usage, call.place(), "needs a frame_rate above 0: frames a second");
  auto with_rate = [&](const char* name) {
    auto conditioning = call.get<Conditioning>(name);
    for (auto& item : conditioning) item.numbers["frame_rate"] = rate;
    return conditioning;
  };
  out_conditionings(call, with_rate("positive"), with_rate("negative"));
}

void run_image_to_video(Call& call) {
  auto coding = video_vae_of(call);
  auto begun = coding.encode(
      resized(call.get<Tensor>("image"), call.integer("width"), call.integer("height"), true));
  Latent latent{blank(call), {}, {}};
  auto frames = begun.size(2), all = latent.samples.size(2);
  if (frames > all || begun.sizes().slice(3) != latent.samples.sizes().slice(3))
    throw Error(ErrorKind::Shape, call.place(),
                fmt::format("encodes 'image' to a latent of {}, and the clip's is of {}: 'length' "
                            "has to be as long as the pictures, 'width' and 'height' multiples of "
                            "{}",
                            c10::str(begun.sizes().slice(2)),
                            c10::str(latent.samples.sizes().slice(2)), kPixelsOfCell));
  latent.samples.narrow(2, 0, frames).copy_(begun);
  latent.noise_mask = at::ones({latent.samples.size(0), 1, all, 1, 1});
  latent.noise_mask.narrow(2, 0, frames).fill_(1.0 - call.number("strength"));
  out_conditionings(call, call.get<Conditioning>("positive"), call.get<Conditioning>("negative"));
  call.out(2, Value::of("LATENT", std::move(latent)));
}

/// Places of guiding tokens [1, 3, n] int64; undefined where no item has any.
Tensor keyframes_of(const Conditioning& conditioning) {
  for (const auto& item : conditioning)
    if (auto found = item.tensors.find(kKeyframes); found != item.tensors.end())
      return found->second;
  return {};
}

/// Latent frames at the end of a latent that guide the others: as many as they have different times.
std::int64_t guide_frames(const Conditioning& conditioning) {
  auto places = keyframes_of(conditioning);
  if (!places.defined()) return 0;
  auto times = places.select(1, 0).to(at::kLong).contiguous();
  const auto* first = times.const_data_ptr<std::int64_t>();
  return static_cast<std::int64_t>(std::set<std::int64_t>(first, first + times.numel()).size());
}

/// The latent with frames, and its mask by frame [B, 1, T, 1 or h, 1 or w].
Latent video_latent(Call& call) {
  auto latent = call.get<Latent>("latent");
  if (latent.samples.dim() != 5 || latent.samples.size(1) != kChannels)
    throw Error(ErrorKind::Shape, call.place(),
                fmt::format("takes latents of {} channels with frames, and 'latent' is {}: make it "
                            "with EmptyLTXVLatentVideo or LTXVImgToVideo",
                            kChannels, c10::str(latent.samples.sizes())));
  auto& mask = latent.noise_mask;
  if (!mask.defined()) {
    mask = at::ones({latent.samples.size(0), 1, latent.samples.size(2), 1, 1});
  } else if (mask.dim() != 5 || mask.size(2) != latent.samples.size(2)) {
    throw Error(ErrorKind::Shape, call.place(),
                fmt::format("needs a noise mask with a part for each of {} frames, and that of "
                            "'latent' is {}",
                            latent.samples.size(2), c10::str(mask.sizes())));
  }
  return latent;
}

/// Where a guide begins: the frame of the clip, and the frame of the latent.
struct Start {
  Start(std::int64_t wanted, std::int64_t latent_frames, bool several) : frame(wanted) {
    if (frame < 0)
      frame = std::max<std::int64_t>((latent_frames - 1) * kFramesOfCell + 1 + frame, 0);
    // Several frames begin where a latent frame does.
    if (several && frame != 0) frame = (frame - 1) / kFramesOfCell * kFramesOfCell + 1;
    cell = (frame + kFramesOfCell - 1) / kFramesOfCell;
  }
  std::int64_t frame = 0, cell = 0;
};

/// Places of the tokens of a guide [1, 3, n] that begins at `frame`, behind those that are there.
Tensor with_keyframes(const Tensor& before, const Tensor& guide, std::int64_t frame) {
  std::vector<std::int64_t> shape = {guide.size(2), guide.size(3), guide.size(4)};
  auto along = [&](std::size_t axis, std::int64_t each) {
    std::vector<std::int64_t> view(3, 1);
    view[axis] = shape[axis];
    return (at::arange(shape[axis], at::kLong) * each).view(view);
  };
  auto times = along(0, kFramesOfCell);
  // At the very start the first latent frame is one frame of the clip.
  if (frame == 0) times = (times + (1 - kFramesOfCell)).clamp_min(0);
  auto places = at::stack({(times + frame).expand(shape), along(1, kPixelsOfCell).expand(shape),
                           along(2, kPixelsOfCell).expand(shape)})
                    .flatten(1)
                    .unsqueeze(0);
  return before.defined() ? at::cat({before, places}, 2) : places;
}

void run_add_guide(Call& call) {
  auto coding = video_vae_of(call);
  auto latent = video_latent(call);
  auto positive = call.get<Conditioning>("positive"), negative = call.get<Conditioning>("negative");
  const auto& all = call.get<Tensor>("image");
  auto images = all.narrow(0, 0, (all.size(0) - 1) / kFramesOfCell * kFramesOfCell + 1);
  auto guide = coding.encode(resized(images, latent.samples.size(4) * kPixelsOfCell,
                                     latent.samples.size(3) * kPixelsOfCell, false));
  auto frames = latent.samples.size(2);
  const Start start(call.integer("frame_idx"), frames - guide_frames(positive), images.size(0) > 1);
  if (start.cell + guide.size(2) > frames)
    throw Error(
        ErrorKind::Shape, call.place(),
        fmt::format("puts a guide of {} latent frames behind {} others, and the latent has {}: "
                    "choose an earlier frame_idx or fewer pictures",
                    guide.size(2), start.cell, frames));
  auto batch = latent.samples.size(0), prefix = std::min(kPrefix, guide.size(2));
  auto strength = 1.0 - call.number("strength");
  auto in_batch = guide.expand({batch, -1, -1, -1, -1});
  auto samples = latent.samples.clone(), mask = latent.noise_mask.clone();
  // The first frames of a guide stand beside the clip, whose own frames there are made.
  mask.narrow(2, start.cell, prefix).fill_(1.0);
  if (auto more = guide.size(2) - prefix; more > 0) {
    samples.narrow(2, start.cell + prefix, more).copy_(in_batch.narrow(2, prefix, more));
    mask.narrow(2, start.cell + prefix, more).fill_(strength);
  }
  auto first = guide.narrow(2, 0, prefix);
  auto beside = at::full({mask.size(0), 1, prefix, mask.size(3), mask.size(4)}, strength);
  latent.samples = at::cat({samples, in_batch.narrow(2, 0, prefix)}, 2);
  latent.noise_mask = at::cat({mask, beside}, 2);
  for (auto* conditioning : {&positive, &negative}) {
    auto places = with_keyframes(keyframes_of(*conditioning), first, start.frame);
    for (auto& item : *conditioning) item.tensors[kKeyframes] = places;
  }
  out_conditionings(call, std::move(positive), std::move(negative));
  call.out(2, Value::of("LATENT", std::move(latent)));
}

void run_crop_guides(Call& call) {
  auto latent = video_latent(call);
  auto positive = call.get<Conditioning>("positive"), negative = call.get<Conditioning>("negative");
  auto guides = guide_frames(positive), own = latent.samples.size(2) - guides;
  if (own < 1)
    throw Error(ErrorKind::Shape, call.place(),
                fmt::format("takes {} guiding frames off a latent that has {}: it is not the one "
                            "that they were added to",
                            guides, latent.samples.size(2)));
  if (guides > 0) {
    latent.samples = latent.samples.narrow(2, 0, own).contiguous();
    latent.noise_mask = latent.noise_mask.narrow(2, 0, own).contiguous();
    for (auto* conditioning : {&positive, &negative})
      for (auto& item : *conditioning) item.tensors.erase(kKeyframes);
  }
  out_conditionings(call, std::move(positive), std::move(negative));
  call.out(2, Value::of("LATENT", std::move(latent)));
}

/// A shift that grows with the clip: `base_shift` at 1024 tokens, `max_shift` at 4096.
void run_sampling(Call& call) {
  constexpr double kFewest = 1024, kMost = 4096;
  double tokens = kMost;
  if (call.has("latent")) {
    tokens = 1;
    for (auto size : call.get<Latent>("latent").samples.sizes().slice(2))
      tokens *= static_cast<double>(size);
  }
  auto at_most = call.number("max_shift"), at_fewest = call.number("base_shift");
  auto slope = (at_most - at_fewest) / (kMost - kFewest);
  auto model = call.get<Model>("model");
  model.sampling = sampling::flux_sampling(tokens * slope + (at_fewest - slope * kFewest));
  call.out(0, Value::of("MODEL", std::move(model)));
}

/// A file in the temporary folder that goes away with the object.
class FrameFile {
 public:
  explicit FrameFile(const fs::path& folder) {
    static std::atomic<std::int64_t> count = 0;
    fs::create_directories(folder);
    path_ = folder / fmt::format("frame_{}.mp4", count++);
  }
  ~FrameFile() {
    std::error_code ignored;
    fs::remove(path_, ignored);
  }
  FrameFile(const FrameFile&) = delete;
  const fs::path& path() const { return path_; }

 private:
  fs::path path_;
};

/// The picture [H, W, 3] as a video of one frame shows it, sides cut to even numbers.
Tensor through_video(Call& call, const Tensor& picture, std::int64_t compression) {
  auto even = picture.narrow(0, 0, picture.size(0) / 2 * 2).narrow(1, 0, picture.size(1) / 2 * 2);
  if (even.numel() == 0)
    throw Error(ErrorKind::Shape, call.place(), "needs pictures of at least 2 x 2 pixels");
  media::VideoOptions options;
  options.container = "mp4";
  options.pictures = media::VideoOptions::Pictures{
      .encoder = "libx264",
      .pixel_format = "yuv420p",
      .width = static_cast<int>(even.size(1)),
      .height = static_cast<int>(even.size(0)),
      .rate = {1, 1},
      .settings = {{"crf", std::to_string(compression)}, {"preset", "veryfast"}}};
  const FrameFile file(call.context<Settings>().temp_folder / "frames");
  media::VideoWriter writer(file.path(), options);
  writer.add(picture_of(call, even.contiguous(), Rounding::Cut));
  writer.finish();
  writer.commit();
  Tensor result;
  media::VideoReader(file.path()).frames([&](media::Image frame, double) {
    result = to_tensor(frame);
    return false;
  });
  if (!result.defined())
    throw Error(ErrorKind::Internal, call.place(), "the encoder gave no frame");
  return result;
}

void run_preprocess(Call& call) {
  auto compression = call.integer("img_compression");
  const auto& images = call.get<Tensor>("image");
  if (compression == 0) return call.out(0, call.in("image"));
  std::vector<Tensor> results;
  for (const auto& one : images.narrow(3, 0, 3).unbind(0))
    results.push_back(through_video(call, one, compression));
  call.out(0, Value::of("IMAGE", at::stack(results)));
}

graph::NodeType newer(const char* name, const char* category, std::vector<graph::Input> inputs,
                      void (*run)(Call&)) {
  return {.name = name,
          .category = category,
          .python_module = kModule,
          .inputs = std::move(inputs),
          .newer_schema = true,
          .run = run};
}

const std::vector<graph::Output>& conditionings() {
  static const std::vector<graph::Output> both = {{"CONDITIONING", "positive"},
                                                  {"CONDITIONING", "negative"}};
  return both;
}

std::vector<graph::Output> and_latent() {
  auto outputs = conditionings();
  outputs.push_back({"LATENT", "latent"});
  return outputs;
}

std::vector<graph::Input> sizes(std::int64_t shortest) {
  constexpr std::int64_t largest = 16384;
  auto side = [](const char* name, std::int64_t usual) {
    return integer(name, {.def = usual, .min = 64, .max = largest, .step = kPixelsOfCell});
  };
  return {side("width", 768), side("height", 512),
          integer("length", {.def = 97, .min = shortest, .max = largest, .step = kFramesOfCell}),
          integer("batch_size", {.def = 1, .min = 1, .max = 4096})};
}

}  // namespace

void add_ltxv_nodes(graph::Catalog& catalog) {
  const char* const conditioning = "conditioning/video_models";
  const auto positive = link("positive", "CONDITIONING"),
             negative = link("negative", "CONDITIONING"), vae = link("vae", "VAE"),
             latent = link("latent", "LATENT"), image = link("image", "IMAGE");
  auto add = [&](graph::NodeType type, std::vector<graph::Output> outputs) {
    type.outputs = std::move(outputs);
    catalog.add(std::move(type));
  };
  add(newer("EmptyLTXVLatentVideo", "latent/video/ltxv", sizes(1), run_empty), {"LATENT"});
  std::vector<graph::Input> begun = {positive, negative, vae, image};
  for (auto& input : sizes(kFramesOfCell + 1)) begun.push_back(std::move(input));
  begun.push_back(number("strength", {.def = 1.0,
                                      .min = 0.0,
                                      .max = 1.0,
                                      .tooltip = "How much of the picture is kept: 1 leaves the "
                                                 "first frame as it is, 0 makes it anew."}));
  add(newer("LTXVImgToVideo", conditioning, std::move(begun), run_image_to_video), and_latent());
  auto shift = [](const char* name, double usual) {
    return number(name, {.def = usual, .min = 0.0, .max = 100.0, .step = 0.01});
  };
  add(newer("ModelSamplingLTXV", "advanced/model",
            {link("model", "MODEL"), shift("max_shift", 2.05), shift("base_shift", 0.95),
             optional(latent)},
            run_sampling),
      {"MODEL"});
  add(newer("LTXVConditioning", conditioning,
            {positive, negative,
             number("frame_rate", {.def = 25.0, .min = 0.0, .max = 1000.0, .step = 0.01})},
            run_conditioning),
      conditionings());
  auto guide = link("image", "IMAGE");
  guide.options["tooltip"] =
      "A picture, or a video of 8n + 1 frames, to which the clip keeps. Frames that are too many "
      "are left out.";
  add(newer("LTXVAddGuide", conditioning,
            {positive, negative, vae, latent, std::move(guide),
             integer("frame_idx",
                     {.def = 0,
                      .min = -9999,
                      .max = 9999,
                      .tooltip = "The frame at which the guide begins; below 0 it is counted from "
                                 "the end. One of several frames begins at the nearest 8n + 1 "
                                 "before."}),
             number("strength", {.def = 1.0, .min = 0.0, .max = 1.0, .step = 0.01})},
            run_add_guide),
      and_latent());
  add(newer(
          "LTXVPreprocess", "image",
          {image, integer("img_compression",
                          {.def = 35,
                           .min = 0,
                           .max = 100,
                           .tooltip = "How strongly pictures are compressed, as frames of the "
                                      "videos were that the model learned from; 0: not at all."})},
          run_preprocess),
      {{"IMAGE", "output_image"}});
  add(newer("LTXVCropGuides", conditioning, {positive, negative, latent}, run_crop_guides),
      and_latent());
}

}  // namespace distorch::nodes
