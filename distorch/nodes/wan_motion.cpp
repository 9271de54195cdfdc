// Nodes of Wan's video models that move a picture: by a face and a pose (Animate), by sound (S2V).
// Source: ComfyUI comfy_extras/nodes_wan.py.
#include <fmt/format.h>

#include <cmath>

#include "distorch/base/error.h"
#include "distorch/nodes/audio_states.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/resize.h"
#include "distorch/nodes/vae_coding.h"
#include "distorch/nodes/values.h"
#include "distorch/nodes/wan_common.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::integer;
using graph::link;
using graph::Value;
using sampling::Latent;
using namespace wan;

namespace {

constexpr const char* kArea = "area";

/// Frames of a linked video from `offset` on, at most as many as the video has; undefined where
/// there are none.
Tensor from_offset(Call& call, const char* input, std::int64_t offset, std::int64_t length) {
  if (!call.has(input)) return {};
  const auto& frames = call.get<Tensor>(input);
  if (frames.size(0) <= offset) return {};
  return frames.narrow(0, offset, std::min(length, frames.size(0) - offset));
}

/// What WanAnimateToVideo makes, step by step.
class AnimateNode {
 public:
  explicit AnimateNode(Call& call)
      : call_(call),
        wish_(call),
        coding_(vae_of(call)),
        offset_(call.integer("video_frame_offset")) {}

  void run() {
    auto character = coding_.encode(character_image());
    auto trim = character.size(2);
    auto video = begun();
    add_vision(call_, {"clip_vision_output"}, given_);
    add_pose();
    add_face();
    auto known = std::max<std::int64_t>(0, kFramesOfCell * motion_cells_ - 3);
    add_background(video, known);
    auto mask = by_cell(mask_of(character, known));
    auto before = at::zeros({1, kFramesOfCell, trim, character.size(3), character.size(4)});
    given_.tensors["concat_latent_image"] = at::cat({character, coding_.encode(video)}, 2);
    given_.tensors["concat_mask"] = at::cat({before, mask}, 2);
    auto sizes = wish_.blank().sizes().vec();
    sizes[2] += trim;
    answer(call_, given_, at::zeros(sizes), instead_);
    call_.out(3, Value::constant(trim));
    call_.out(4, Value::constant(known));
    call_.out(5, Value::constant(offset_ + wish_.length));
  }

 private:
  Tensor character_image() const {
    if (!call_.has("reference_image")) return at::zeros({1, wish_.height, wish_.width, 3});
    const auto& image = call_.get<Tensor>("reference_image");
    return wish_.fitted(image.narrow(0, 0, std::min(wish_.length, image.size(0))), kArea);
  }

  /// A gray video that begins as the one before ended.
  Tensor begun() {
    auto video = wish_.gray();
    if (!call_.has("continue_motion")) return video;
    auto before = call_.get<Tensor>("continue_motion");
    auto most = call_.integer("continue_motion_max_frames");
    auto last = [](const Tensor& frames, std::int64_t count) {
      auto kept = std::min(count, frames.size(0));
      return frames.narrow(0, frames.size(0) - kept, kept);
    };
    before = last(before, most);
    offset_ = std::max<std::int64_t>(0, offset_ - before.size(0));
    before = wish_.fitted(last(before, wish_.length), kArea);
    video.narrow(0, 0, before.size(0)).copy_(before);
    motion_cells_ = latent_frames(before.size(0));
    return video;
  }

  void add_pose() {
    auto pose = from_offset(call_, "pose_video", offset_, wish_.length);
    if (!pose.defined()) return;
    pose = wish_.fitted(pose, kArea);
    if (auto missing = wish_.length - pose.size(0); missing > 0)
      pose = at::cat({pose, pose.narrow(0, pose.size(0) - 1, 1).repeat({missing, 1, 1, 1})});
    given_.tensors["pose_video_latent"] = coding_.encode(pose);
  }

  void add_face() {
    constexpr std::int64_t side = 512;
    auto face = from_offset(call_, "face_video", offset_, wish_.length);
    if (!face.defined()) return;
    auto colours = face.narrow(3, 0, 3).movedim(-1, 1).contiguous();
    auto pixels = resize(colours, {side, side, kArea, true}) * 2.0 - 1.0;
    auto clip = pixels.movedim(0, 1).unsqueeze(0);
    given_.tensors["face_video_pixels"] = clip;
    instead_["face_video_pixels"] = at::full_like(clip, -1.0);
  }

  void add_background(const Tensor& video, std::int64_t known) {
    auto background = from_offset(call_, "background_video", offset_, wish_.length);
    if (!background.defined() || background.size(0) <= known) return;
    auto count = background.size(0) - known;
    video.narrow(0, known, count).copy_(wish_.fitted(background, kArea).narrow(0, known, count));
  }

  /// Which frames, and which parts of them, are made anew: [1, 1, 4 · T, h, w].
  Tensor mask_of(const Tensor& latent, std::int64_t known) const {
    auto frames = latent_frames(wish_.length) * kFramesOfCell;
    auto mask = at::ones({1, 1, frames, latent.size(3), latent.size(4)});
    mask.narrow(2, 0, motion_cells_ * kFramesOfCell).zero_();
    if (!call_.has("character_mask")) return mask;
    auto given = call_.get<Tensor>("character_mask");
    if (given.size(0) == 1)
      given = given.repeat({wish_.length, 1, 1});
    else if (given.size(0) > offset_)
      given = given.narrow(0, offset_, given.size(0) - offset_);
    else
      return mask;
    given = given.narrow(0, 0, std::min(wish_.length, given.size(0)));
    if (given.size(0) <= known) return mask;
    auto sized = resize(given.unsqueeze(1).contiguous(),
                        {latent.size(4), latent.size(3), "nearest-exact", true});
    auto count = given.size(0) - known;
    mask.narrow(2, known, count)
        .copy_(sized.narrow(0, known, count)
                   .squeeze(1)
                   .view({1, 1, count, mask.size(3), mask.size(4)}));
    return mask;
  }

  Call& call_;
  Wish wish_;
  VaeCoding coding_;
  std::int64_t offset_, motion_cells_ = 0;
  Given given_;
  std::map<std::string, Tensor> instead_;
};

constexpr double kStateRate = 50, kSoundRate = 30, kVideoRate = 16;

/// Layers of an audio encoder [L, T, C] by the video's frames [1, L, C, n], n a multiple of `clip`;
/// where the sound has ended, zeros.
Tensor by_frame(const AudioStates& heard, std::int64_t clip) {
  auto all = at::cat(heard.layers).transpose(1, 2);  // [L, C, T]
  auto seconds = static_cast<double>(all.size(2)) / kStateRate;
  auto steps = static_cast<std::int64_t>(seconds * kSoundRate);
  auto sound = at::upsample_linear1d(all, {steps}, /*align_corners=*/true);
  auto per_clip = static_cast<double>(clip) * (kSoundRate / kVideoRate);
  auto frames = clip * (static_cast<std::int64_t>(static_cast<double>(steps) / per_clip) + 1);
  auto result = at::zeros({1, all.size(0), all.size(1), frames});
  for (std::int64_t i = 0; i < frames; ++i) {
    auto step = std::llrint(static_cast<double>(i) / kVideoRate * kSoundRate);
    if (step < steps) result.select(3, i).copy_(sound.select(2, step).unsqueeze(0));
  }
  return result;
}

/// What both nodes of S2V do; `earlier` is a latent of frames before, undefined: none.
void sound_to_video(Call& call, const Wish& wish, std::int64_t offset, Tensor earlier) {
  auto coding = vae_of(call);
  auto latent = wish.blank();
  Given given;
  std::map<std::string, Tensor> instead;
  if (call.has("audio_encoder_output")) {
    auto count = latent.size(2) * kFramesOfCell;
    auto heard = by_frame(call.get<AudioStates>("audio_encoder_output"), count);
    if (auto left = heard.size(3) - offset; left > 0) {
      heard = heard.narrow(3, offset, std::min(count, left));
      given.tensors["audio_embed"] = heard;
      instead["audio_embed"] = at::zeros_like(heard);
    }
  }
  if (call.has("ref_image"))
    given.references = {coding.encode(wish.fitted(call.get<Tensor>("ref_image").narrow(0, 0, 1)))};
  constexpr std::int64_t earlier_frames = 73, earlier_cells = 19;
  if (call.has("ref_motion")) {
    auto frames = call.get<Tensor>("ref_motion");
    auto kept = std::min(earlier_frames, frames.size(0));
    auto motion = at::full({earlier_frames, wish.height, wish.width, 3}, kGray);
    motion.narrow(0, earlier_frames - kept, kept)
        .copy_(wish.fitted(frames.narrow(0, frames.size(0) - kept, kept)));
    earlier = coding.encode(motion);
  }
  if (earlier.defined()) {
    auto kept = std::min(earlier_cells, earlier.size(2));
    given.tensors["reference_motion"] = earlier.narrow(2, earlier.size(2) - kept, kept);
  }
  auto control = nothing(latent.sizes());
  if (auto video = wish.first_of(call, "control_video"); video.defined())
    put(control, 0, coding.encode(video));
  given.tensors["control_video"] = control;
  answer(call, given, latent, instead);
}

void run_sound(Call& call) { sound_to_video(call, Wish(call), 0, {}); }

void run_sound_extend(Call& call) {
  const auto& video = call.get<Latent>("video_latent").samples;
  if (video.dim() != 5)
    throw Error(ErrorKind::Shape, call.place(),
                "goes on from a latent of video, and 'video_latent' is of pictures");
  Wish wish(call, video.size(4) * kPixelsOfCell, video.size(3) * kPixelsOfCell, video.size(0));
  sound_to_video(call, wish, video.size(2) * kFramesOfCell, video);
}

}  // namespace

void add_wan_motion_nodes(graph::Catalog& catalog) {
  constexpr std::int64_t largest = 16384;
  auto image = [](const char* name) { return link(name, "IMAGE"); };
  auto animate = conditioned(
      {"WanAnimateToVideo",
       {link("clip_vision_output", "CLIP_VISION_OUTPUT"), image("reference_image"),
        image("face_video"), image("pose_video"), image("background_video"),
        link("character_mask", "MASK"), image("continue_motion")},
       [](Call& call) { AnimateNode(call).run(); },
       {integer("continue_motion_max_frames", {.def = 5, .min = 1, .max = largest, .step = 4}),
        integer("video_frame_offset",
                {.def = 0,
                 .min = 0,
                 .max = largest,
                 .step = 1,
                 .tooltip = "How many frames of the given videos were used before. Link the output "
                            "of the same name of the node before, to go on."})},
       77});
  for (const char* name : {"trim_latent", "trim_image", "video_frame_offset"})
    animate.outputs.push_back({"INT", name});
  animate.experimental = true;
  catalog.add(std::move(animate));
  catalog.add(conditioned({"WanSoundImageToVideo",
                           {link("audio_encoder_output", "AUDIO_ENCODER_OUTPUT"),
                            image("ref_image"), image("control_video"), image("ref_motion")},
                           run_sound,
                           {},
                           77}));
  auto extend = conditioned({"WanSoundImageToVideoExtend",
                             {link("audio_encoder_output", "AUDIO_ENCODER_OUTPUT"),
                              image("ref_image"), image("control_video")},
                             run_sound_extend,
                             {link("video_latent", "LATENT")},
                             77});
  std::erase_if(extend.inputs, [](const graph::Input& input) {
    return input.name == "width" || input.name == "height" || input.name == "batch_size";
  });
  catalog.add(std::move(extend));
}

}  // namespace distorch::nodes
