#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "distorch/graph/catalog.h"
#include "distorch/models/clip/text_model.h"
#include "distorch/models/mmaudio/network.h"
#include "distorch/models/mmaudio/sound.h"
#include "distorch/models/mmaudio/synchformer.h"
#include "distorch/nodes/app.h"
#include "distorch/nodes/clip_vision.h"
#include "distorch/nodes/values.h"
#include "distorch/tokenizers/clip_bpe.h"

/// MMAudio's nodes, as ComfyUI-MMAudio has them: sound for a video, or for a text alone.
namespace distorch::nodes {

inline constexpr const char* kMMAudioModule = "custom_nodes.ComfyUI-MMAudio";
inline constexpr const char* kMMAudioCategory = "MMAudio";
inline constexpr std::int64_t kMMAudioPixels = 384;  // of the pictures that CLIP looks at, each way

using LoadedMMAudio = Loaded<models::mmaudio::Network>;

/// What is beside the network: what a video and a text say, and sound of a latent.
struct MMAudioParts {
  std::shared_ptr<LoadedVision> vision;
  std::shared_ptr<Loaded<models::clip::TextModel>> text;
  std::shared_ptr<const tokenizers::ClipBpe> words;
  std::shared_ptr<Loaded<models::mmaudio::Synchformer>> synchformer;
  std::shared_ptr<Loaded<models::mmaudio::MelDecoder>> decoder;
  std::shared_ptr<Loaded<models::mmaudio::Vocoder>> vocoder;
};

/// What a loader opened, where it was asked to compute, and the same elsewhere: a sampler may name
/// another device. Nothing is loaded before it is used.
template <class Opened>
class OnDevice {
 public:
  using Open = std::function<Opened(const std::string& device)>;
  OnDevice(Opened here, Open open)
      : here_(std::move(here)),
        open_(std::move(open)),
        elsewhere_(std::make_shared<std::map<std::string, Opened>>()) {}
  /// "": where the loader was asked to.
  const Opened& at(const std::string& device) const {
    if (device.empty()) return here_;
    auto found = elsewhere_->find(device);
    if (found == elsewhere_->end()) found = elsewhere_->emplace(device, open_(device)).first;
    return found->second;
  }

 private:
  Opened here_;
  Open open_;
  std::shared_ptr<std::map<std::string, Opened>> elsewhere_;
};

/// What travels over links of the types MMAUDIO_MODEL and MMAUDIO_FEATUREUTILS.
using MMAudioModel = OnDevice<std::shared_ptr<LoadedMMAudio>>;
using MMAudioFeatures = OnDevice<MMAudioParts>;

/// What travels over links of type VOCODER_MODEL.
struct MMAudioVocoder {
  std::filesystem::path file;
};

/// The loaders (mmaudio.cpp) and MMAudioSampler (mmaudio_sampler.cpp), each with its variant that
/// names a device.
void add_mmaudio_loader_nodes(graph::Catalog& catalog, App& app);
void add_mmaudio_sampler_node(graph::Catalog& catalog);

}  // namespace distorch::nodes
