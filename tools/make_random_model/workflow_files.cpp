#include "tools/make_random_model/workflow_files.h"

#include <set>
#include <string_view>

#include "distorch/base/error.h"
#include "distorch/base/text.h"

namespace distorch::random_model {
namespace {

using graph::Json;

struct Rule {
  const char* loader;  // part of the node's type
  const char* name;    // part of the file's name; "": every other
  const char* kind;
};

// The first that fits counts.
constexpr Rule kRules[] = {
    {"Florence2", "large", "florence2-large"},
    {"Florence2", "", "florence2"},
    {"LTXVLoader", "13b", "ltxv-13b"},
    {"LTXVLoader", "", "ltxv-2b"},
    {"Checkpoint", "ltxv-13b", "ltxv-13b"},
    {"Checkpoint", "ltx", "ltxv-2b"},
    {"Checkpoint", "xl", "sdxl"},
    {"Checkpoint", "", "sd15"},
    {"UNET", "schnell", "flux-schnell"},
    {"UNET", "flux1", "flux-dev"},
    {"UNET", "klein-4b", "flux2-klein-4b"},
    {"UNET", "klein-9b", "flux2-klein-9b"},
    {"UNET", "qwen_image", "qwen-image"},
    {"UNET", "z_image", "z-image"},
    {"UNET", "sd3.5_large", "sd3.5-large"},
    {"UNET", "sd3.5_medium", "sd3.5-medium"},
    {"UNET", "sd3_medium", "sd3-medium"},
    {"UNET", "wan2.2_ti2v_5b", "wan2.2-ti2v-5b"},
    {"UNET", "wan2.2_i2v", "wan2.2-i2v-14b"},
    {"UNET", "wan2.1_vace_1.3b", "wan-vace-1.3b"},
    {"UNET", "wan2.1_vace_14b", "wan-vace-14b"},
    {"UNET", "wan2.1_i2v", "wan-i2v-14b"},
    {"UNET", "t2v_1.3b", "wan-t2v-1.3b"},
    {"UNET", "wan2", "wan-t2v-14b"},
    {"UNET", "hunyuan_video_image_to_video", "hunyuan-video-i2v"},
    {"UNET", "skyreels-hunyuan-i2v", "skyreels-i2v"},
    {"UNET", "hunyuanvideo1.5", "hunyuan-video-1.5"},
    {"UNET", "hunyuan", "hunyuan-video"},
    {"UNET", "ltx", "ltxv-2b-transformer"},
    {"HyVideoModelLoader", "i2v", "hunyuan-video-i2v"},
    {"HyVideoModelLoader", "", "hunyuan-video"},
    {"HyVideoTextEncoder", "text-encoder-tokenizer", "llava-words"},
    {"HyVideoTextEncoder", "llava", "llava"},
    {"HyVideoTextEncoder", "clip-vit-large", "clip-l"},
    {"WanVideoModelLoader", "i2v-a14b", "wan2.2-i2v-14b"},
    {"WanVideoModelLoader", "i2v_14b", "wan-i2v-14b"},
    {"WanVideoModelLoader", "i2v-14b", "wan-i2v-14b"},
    {"WanVideoModelLoader", "1.3b", "wan-t2v-1.3b"},
    {"WanVideoModelLoader", "1_3b", "wan-t2v-1.3b"},
    {"WanVideoModelLoader", "", "wan-t2v-14b"},
    {"MMAudioModelLoader", "", "mmaudio-large-44k"},
    {"MMAudioFeatureUtils", "bigvgan", "bigvgan-44k"},
    {"MMAudioFeatureUtils", "synchformer", "mmaudio-synchformer"},
    {"MMAudioFeatureUtils", "clip", "mmaudio-clip"},
    {"MMAudioFeatureUtils", "vae_44k", "mmaudio-vae-44k"},
    {"FantasyTalkingModelLoader", "", "fantasytalking"},
    {"DownloadAndLoadWav2Vec", "wav2vec2-base", "wav2vec2-base"},
    {"Wav2VecModelLoader", "", "wav2vec2-base-file"},
    {"WanVideoLora", "", "wan-lora-14b"},
    {"WanVideoVAE", "wan2.2_vae", "wan2.2-vae"},
    {"WanVideoVAE", "", "qwen-vae"},
    {"T5TextEncoder", "umt5", "umt5-xxl"},
    {"TextEncodeCached", "umt5", "umt5-xxl"},
    {"Lora", "wan2", "wan-lora-14b"},
    {"CLIPVision", "vision_h", "clip-vision-h"},
    {"CLIPVision", "llava", "llava-vision"},
    {"CLIPVision", "sigclip", "siglip-vision"},
    {"AudioEncoder", "wav2vec2", "wav2vec2-large"},
    {"CLIP", "umt5", "umt5-xxl"},
    {"CLIP", "llava", "llama3-8b"},
    {"CLIP", "byt5_small", "byt5-small"},
    {"CLIP", "t5xxl", "t5xxl"},
    {"CLIP", "t5-v1_1-xxl", "t5xxl"},
    {"CLIP", "clip_l", "clip-l"},
    {"CLIP", "clip_g", "clip-g"},
    {"CLIP", "qwen_2.5_vl", "qwen2.5-vl-7b"},
    {"CLIP", "qwen_3_4b", "qwen3-4b"},
    {"CLIP", "qwen_3_8b", "qwen3-8b"},
    {"VAE", "hunyuan_video_vae", "hunyuan-vae"},
    {"VAE", "hunyuanvideo15_vae", "hunyuan-vae-1.5"},
    {"VAE", "qwen_image_vae", "qwen-vae"},
    {"VAE", "wan2.2_vae", "wan2.2-vae"},
    {"VAE", "wan_2.1_vae", "qwen-vae"},
    {"VAE", "flux2-vae", "flux2-vae"},
    {"VAE", "ae.", "flux-vae"},
    {"VAE", "", "sd-vae"},
};

/// What MMAudio's loader looks for where its mode is "44k", and no input names.
constexpr const char* kVocoder = "nvidia/bigvgan_v2_44khz_128band_512x";

bool is_model_file(const std::string& text) {
  return text.ends_with(".safetensors") || text.ends_with(".sft") || text.ends_with(".gguf");
}

/// Models of Florence-2, the text encoders of HunyuanVideoWrapper and audio encoders are named by
/// whose they are, and lie in folders.
bool is_folder(const std::string& loader, const std::string& text) {
  if (loader.find("HyVideoTextEncoder") != std::string::npos ||
      loader.find("DownloadAndLoadWav2Vec") != std::string::npos)
    return text.find('/') != std::string::npos;
  return loader.find("Florence2Model") != std::string::npos &&
         lower(text).find("florence") != std::string::npos;
}

NamedFile named_file(const std::string& loader, const std::string& file) {
  const auto name = lower(file);
  for (const auto& rule : kRules) {
    if (lower(loader).find(lower(rule.loader)) == std::string::npos ||
        name.find(rule.name) == std::string::npos)
      continue;
    NamedFile named{"", &find_kind(rule.kind), {}};
    named.path = std::string(named.kind->folder) + "/" + file;
    if (file == kVocoder) {
      named.path += "/bigvgan_generator.pt";
    } else if (is_folder(loader, file)) {
      // Folders of transformers have the whole name, others its last part.
      const bool whole = named.kind->folder == std::string_view("transformers");
      named.path = std::string(named.kind->folder) + "/" +
                   (whole ? file : file.substr(file.rfind('/') + 1)) + "/model.safetensors";
    }
    for (const char* type : {"Q8_0", "Q4_0", "Q4_K"})
      if (name.ends_with(".gguf") && file.find(type) != std::string::npos)
        named.options.dtype = type;
    if (name.find("fp8") != std::string::npos)
      named.options.dtype = name.find("e5m2") != std::string::npos ? "F8_E5M2" : "F8_E4M3";
    named.options.scaled = name.find("scaled") != std::string::npos;
    return named;
  }
  throw Error(ErrorKind::Usage, file,
              "is named by a " + loader +
                  " node, and neither tells what kind of model it is; make it on its own");
}

/// Every text among the values of a node's inputs or widgets.
void collect(const std::string& loader, const Json& values,
             std::vector<std::pair<std::string, std::string>>& found) {
  if (values.is_string() &&
      (is_model_file(values.get<std::string>()) || is_folder(loader, values.get<std::string>())))
    found.emplace_back(loader, values.get<std::string>());
  if (values == "44k" && loader.find("MMAudioFeatureUtils") != std::string::npos)
    found.emplace_back(loader, kVocoder);
  if (values.is_structured())
    for (const auto& value : values) collect(loader, value, found);
}

void collect_nodes(const Json& nodes, std::vector<std::pair<std::string, std::string>>& found) {
  for (const auto& node : nodes) {
    if (!node.is_object()) continue;
    // Nodes that are muted or bypassed read nothing.
    constexpr int kMuted = 2, kBypassed = 4;
    if (const auto mode = node.value("mode", 0); mode == kMuted || mode == kBypassed) continue;
    const auto type = node.value("class_type", node.value("type", std::string()));
    // What reads files is called a loader, or says that it loads, selects or keeps what it read.
    auto says = [&](const char* word) { return type.find(word) != std::string::npos; };
    if (!says("Load") && !says("LoraSelect") && !says("TextEncodeCached")) continue;
    if (node.contains("inputs") && node.contains("class_type"))
      collect(type, node["inputs"], found);
    if (node.contains("widgets_values")) collect(type, node["widgets_values"], found);
  }
}

}  // namespace

std::vector<NamedFile> files_of_workflow(const Json& workflow) {
  std::vector<std::pair<std::string, std::string>> found;
  collect_nodes(workflow.contains("nodes") ? workflow["nodes"] : workflow, found);
  if (workflow.contains("definitions") && workflow["definitions"].contains("subgraphs"))
    for (const auto& subgraph : workflow["definitions"]["subgraphs"])
      collect_nodes(subgraph["nodes"], found);
  std::vector<NamedFile> files;
  std::set<std::string> known;
  for (const auto& [loader, file] : found)
    if (auto named = named_file(loader, file); known.insert(named.path).second)
      files.push_back(std::move(named));
  return files;
}

}  // namespace distorch::random_model
