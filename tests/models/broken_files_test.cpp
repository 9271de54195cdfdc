// Files of every kind of model with one tensor missing or of another shape: each is refused in
// distorch's own words, or is a whole model of another size; nothing else may come of it.
#include <fmt/format.h>

#include <set>

#include "distorch/base/error.h"
#include "distorch/models/catalog.h"
#include "distorch/models/clip_vision/vision_model.h"
#include "distorch/models/control/control.h"
#include "distorch/models/flux/image_prompt.h"
#include "distorch/models/mmaudio/network.h"
#include "distorch/models/mmaudio/sound.h"
#include "distorch/models/mmaudio/synchformer.h"
#include "distorch/models/text_recipes.h"
#include "distorch/models/upscale/upscale.h"
#include "distorch/models/wan/control_net.h"
#include "distorch/models/wan/uni3c.h"
#include "tests/models/tiny.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::models;
using weights::Checkpoint;
using Shape = std::vector<std::int64_t>;

namespace {

/// Opens whatever the file holds, down to the last shape; throws where it cannot.
using Open = std::function<void(const Checkpoint& file)>;

void open_diffusion(const Checkpoint& file) {
  auto family = detect_family(file);
  auto network = family->make_network();
  weights::check_complete(network->manifest(), family->diffusion(), family->name());
}

void open_text(const Checkpoint& file) {
  auto recipe = find_text(file);
  if (recipe.empty()) throw Error(ErrorKind::Format, file.path(), "holds no text encoder");
  for (const auto& part : recipe.encoders)
    weights::check_complete(part.make(nullptr)->manifest(), part.part, part.name);
}

void open_vae(const Checkpoint& file) {
  auto vae = find_vae(file);
  if (vae.empty()) throw Error(ErrorKind::Format, file.path(), "holds no VAE");
  weights::check_complete(vae.make()->manifest(), vae.part, "VAE");
}

void open_control(const Checkpoint& file) {
  auto part = control::control_part(file);
  if (part.empty()) throw Error(ErrorKind::Format, file.path(), "holds no ControlNet");
  weights::check_complete(control::make_control(part)->manifest(), part, "ControlNet");
}

void open_vision(const Checkpoint& file) {
  auto part = clip_vision::vision_part(file);
  if (part.empty()) throw Error(ErrorKind::Format, file.path(), "holds no picture encoder");
  clip_vision::VisionModel model(clip_vision::vision_config(part));
  weights::check_complete(model.manifest(), part, "picture encoder");
}

void open_image_prompt(const Checkpoint& file) {
  auto part = flux::image_prompt_part(file);
  flux::ImagePromptAdapter model(flux::image_prompt_config(part));
  weights::check_complete(model.manifest(), part, "IP-Adapter");
}

void open_wan_control(const Checkpoint& file) {
  auto part = wan::control_net_part(file);
  wan::ControlNet model(wan::control_net_config(part));
  weights::check_complete(model.manifest(), part, "ControlNet");
}

void open_uni3c(const Checkpoint& file) {
  wan::Uni3C model(wan::uni3c_config(file));
  weights::check_complete(model.manifest(), file, "Uni3C");
}

void open_upscale(const Checkpoint& file) {
  auto found = upscale::find_upscale(file);
  weights::check_complete(found.make()->manifest(), found.part, "upscaler");
}

/// A network of MMAudio from its part and its shape.
template <class Network, class Part, class Shape>
Open open_mmaudio(Part part_of, Shape shape_of) {
  return [part_of, shape_of](const Checkpoint& file) {
    auto part = part_of(file);
    if (part.empty()) throw Error(ErrorKind::Format, file.path(), "holds nothing of MMAudio");
    Network network(shape_of(part));
    weights::check_complete(network.manifest(), part, "part of MMAudio");
  };
}

Checkpoint without(const Checkpoint& file, const std::string& name) {
  Checkpoint result;
  for (const auto& [other, stored] : file.tensors())
    if (other != name) result.add(other, stored);
  return result;
}

Checkpoint reshaped(const Checkpoint& file, const std::string& name, const Shape& shape) {
  auto result = file;
  auto stored = *file.find(name);
  stored.shape = shape;
  result.add(name, stored);
  return result;
}

/// Shapes that a tensor might have instead, never of more numbers.
std::vector<Shape> others(const Shape& shape) {
  std::vector<Shape> list{{}, {c10::multiply_integers(shape)}, {0}};
  if (!shape.empty()) {
    auto flat = shape;
    flat.push_back(1);
    list.push_back(flat);
    list.emplace_back(shape.begin() + 1, shape.end());
  }
  for (std::size_t i = 0; i < shape.size(); ++i)
    for (auto size : {std::int64_t{0}, shape[i] - 1, shape[i] / 2}) {
      list.push_back(shape);
      list.back()[i] = size;
    }
  std::erase_if(list, [&](const Shape& other) {
    return other == shape || c10::multiply_integers(other) > c10::multiply_integers(shape);
  });
  return list;
}

struct Outcome {
  int refused = 0;
  std::set<std::string> accepted;
};

Outcome broken_in_every_way(const std::vector<std::string>& dumps, const Open& open) {
  TemporaryCheckpoint file(tiny_tensors(dumps));
  REQUIRE_NOTHROW(open(*file));
  Outcome outcome;
  auto attempt = [&](const Checkpoint& broken, const std::string& what) {
    CAPTURE(what);
    try {
      open(broken);
      outcome.accepted.insert(what);
    } catch (const Error& error) {
      ++outcome.refused;
      CHECK((error.kind() == ErrorKind::MissingWeight || error.kind() == ErrorKind::Shape ||
             error.kind() == ErrorKind::Format));
      CHECK_FALSE(error.sentence().empty());
    } catch (const std::exception& other) {
      FAIL_CHECK(dumps[0], ": ", what, ": ", std::string(other.what()).substr(0, 120));
    }
  };
  for (const auto& [name, stored] : file->tensors()) {
    attempt(without(*file, name), name + " is missing");
    // Sizes are read off the first of everything; what has a higher number only has to fit.
    if (name.find_first_of("3456789", name.find('.') + 1) != std::string::npos) continue;
    for (const auto& shape : others(stored.shape))
      attempt(reshaped(*file, name, shape),
              fmt::format("{} is [{}], not [{}]", name, fmt::join(shape, ", "),
                          fmt::join(stored.shape, ", ")));
  }
  return outcome;
}

void check(const std::vector<std::string>& dumps, const Open& open) {
  auto outcome = broken_in_every_way(dumps, open);
  std::string some;
  for (const auto& what : outcome.accepted)
    if (some.size() < 3000) some += "\n  " + what;
  MESSAGE(dumps[0] << ": " << outcome.refused << " refused, " << outcome.accepted.size()
                   << " accepted" << some);
  CHECK(outcome.refused > 20 * static_cast<int>(outcome.accepted.size()));
}

}  // namespace

TEST_CASE("broken files: UNets of Stable Diffusion") {
  for (const char* name : {"unet_sd1", "unet_sd2", "unet_sdxl", "unet_refiner"})
    check({name}, open_diffusion);
}

TEST_CASE("broken files: transformers") {
  for (const char* name : {"sd3_medium", "sd3_large", "sd3_dual", "flux_dev", "flux_schnell",
                           "flux2_dev", "flux2_klein", "z_image", "lumina2", "qwen_image",
                           "hunyuan_video", "hunyuan_video_diffusers", "hunyuan_video15", "ltxv"})
    check({name}, open_diffusion);
}

TEST_CASE("broken files: text encoders") {
  for (const char* name : {"clip_l", "clip_h"}) check({name}, open_text);
}

TEST_CASE("broken files: autoencoders") {
  for (const char* name :
       {"vae", "vae_flux", "vae_flux2", "causal_vae", "hunyuan_vae", "hunyuan_vae15", "taesd"})
    check({name}, open_vae);
}

TEST_CASE("broken files: ControlNets and adapters") {
  for (const char* name :
       {"control_sd1", "control_sdxl", "control_union", "adapter_sd1", "xlabs_control"})
    check({name}, open_control);
  check({"xlabs_adapter"}, open_image_prompt);
  check({"wan_control_net"}, open_wan_control);
  check({"wan_uni3c"}, open_uni3c);
}

TEST_CASE("broken files: picture encoders") {
  for (const char* name : {"clip_vision", "clip_vision_open", "siglip"}) check({name}, open_vision);
}

TEST_CASE("broken files: upscalers") {
  for (const char* name :
       {"upscale_esrgan", "upscale_esrgan_plus", "upscale_realesrgan", "upscale_compact"})
    check({name}, open_upscale);
}

TEST_CASE("broken files: MMAudio") {
  namespace mmaudio = models::mmaudio;
  for (const char* name : {"mmaudio_network", "mmaudio_network_16k"})
    check({name}, open_mmaudio<mmaudio::Network>(mmaudio::network_part, mmaudio::network_config));
  check({"mmaudio_synchformer"},
        open_mmaudio<mmaudio::Synchformer>(mmaudio::synchformer_part, mmaudio::synchformer_config));
  check({"mmaudio_vae_44k"},
        open_mmaudio<mmaudio::MelDecoder>(mmaudio::mel_part, mmaudio::mel_config));
  check({"mmaudio_vocoder_44k"},
        open_mmaudio<mmaudio::Vocoder>(mmaudio::vocoder_part, [](const Checkpoint& part) {
          return mmaudio::vocoder_config(part, "", "");
        }));
}
