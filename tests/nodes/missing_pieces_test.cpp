// What belongs to a model or a video and is not there: tokenizers, the half of an encoder that sees,
// sound, whole latent frames. The file and where it belongs are told.
#include "distorch/nodes/video.h"
#include "tests/nodes/tiny_gguf.h"
#include "tests/nodes/tiny_seeded.h"
#include "tests/support/told.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;
using graph::Value;

namespace {

/// Tokenizers are looked for in a folder of this case as long as it lives.
class TokenizersIn {
 public:
  explicit TokenizersIn(const fs::path& folder) {
    if (const char* before = std::getenv("DISTORCH_TOKENIZERS")) before_ = before;
    ::setenv("DISTORCH_TOKENIZERS", folder.c_str(), 1);
  }
  ~TokenizersIn() {
    if (before_)
      ::setenv("DISTORCH_TOKENIZERS", before_->c_str(), 1);
    else
      ::unsetenv("DISTORCH_TOKENIZERS");
  }

 private:
  std::optional<std::string> before_;
};

class PiecesApp : public SeededApp {
 public:
  PiecesApp() : SeededApp({}, "missing_pieces") {
    write("text_encoders", "clip_l", tiny_part({"text_sd3"}, "text_encoders.clip_l.transformer."));
    write("text_encoders", "t5xxl", tiny_part({"text_sd3"}, "text_encoders.t5xxl.transformer."));
    write("text_encoders", "umt5", tiny_tensors({"umt5"}));
    auto words = tiny_part({"text_qwen25"}, "text_encoders.qwen25_7b.transformer.");
    std::erase_if(words, [](const auto& entry) { return entry.first.starts_with("visual."); });
    write("text_encoders", "blind", words);
    for (std::string name : {"wan_vae", "wan_vae22"}) write("vae", name, tiny_tensors({name}));
    write("audio_encoders", "hears", tiny_tensors({"wav2vec2"}));
    catalog.add({.name = "Silence", .outputs = {"AUDIO"}, .run = [](graph::Call& call) {
                   call.out(0, Value::constant(nullptr));
                 }});
  }
  /// What a prompt says that cannot give what `link` names, also where it is not begun.
  std::string told(Json prompt, const Json& link) {
    prompt["keep"] = node("Keep", {{"value", link}});
    auto result = run(prompt);
    for (const auto& line : result.validation.lines()) result.error += line + "\n";
    return result.error;
  }
};

bool says(const std::string& error, const std::string& part) {
  CAPTURE(part);
  CAPTURE(error);
  return error.find(part) != std::string::npos;
}

Json read_by(const std::string& file, const std::string& type) {
  return {{"1", node("CLIPLoader", {{"clip_name", file + ".safetensors"}, {"type", type}})},
          {"2", node("CLIPTextEncode", {{"text", "a cat"}, {"clip", {"1", 0}}})}};
}

}  // namespace

TEST_CASE("a tokenizer that is not there: the file and its folder are told") {
  TemporaryFolder empty("no_tokenizers");
  const auto clip = empty.path() / "clip";
  fs::create_directories(clip);
  TokenizersIn there(clip);
  PiecesApp tiny;
  struct Missing {
    const char *file, *type, *vocabulary, *way_out;
  };
  for (const auto& [file, type, vocabulary, way_out] :
       {Missing{"clip_l", "stable_diffusion", "clip/bpe_simple_vocab_16e6.txt.gz",
                "tools/setup.sh"},
        Missing{"t5xxl", "ltxv", "t5/tokenizer.json", "spiece.model of any T5 v1.1"},
        Missing{"umt5", "wan", "umt5/spiece.model", "put the model's spiece.model there"},
        Missing{"blind", "qwen_image", "qwen/qwen.tiktoken", "qwen.tiktoken of any Qwen model"}}) {
    const auto error = tiny.told(read_by(file, type), {"2", 0});
    CHECK(says(error, (empty.path() / vocabulary).string()));
    CHECK(says(error, way_out));
  }
}

TEST_CASE("a text encoder without the half that sees is told by its file, with a picture only") {
  PiecesApp tiny;
  auto prompt = read_by("blind", "qwen_image");
  prompt["2"] = node("TextEncodeQwenImageEditPlus", {{"clip", {"1", 0}}, {"prompt", "go"}});
  CHECK(tiny.told(prompt, {"2", 0}) == "");
  prompt["3"] =
      node("EmptyImage", {{"width", 96}, {"height", 64}, {"batch_size", 1}, {"color", 77}});
  prompt["2"]["inputs"]["image1"] = {"3", 0};
  const auto error = tiny.told(prompt, {"2", 0});
  CHECK(says(error, (tiny.folder() / "text_encoders" / "blind.safetensors").string() +
                        ": has no vision tower"));
  CHECK(says(error, "Qwen2.5-VL"));
}

TEST_CASE("a video without sound, and a file that is not there: who wants it says so") {
  PiecesApp tiny;
  tiny.app.settings.input_folder = parity_dir();
  const Json silent = {
      {"1", node("LoadVideo", {{"file", "video_turned.mp4"}})},
      {"2", node("GetVideoComponents", {{"video", {"1", 0}}})},
      {"3", node("AudioEncoderLoader", {{"audio_encoder_name", "hears.safetensors"}})},
      {"4", node("Silence")}};
  for (const Json& sound : {Json{"2", 1}, Json{"4", 0}})
    for (const auto& [type, more] : std::map<std::string, Json>{
             {"AudioEncoderEncode", {{"audio_encoder", {"3", 0}}}},
             {"TrimAudioDuration", {{"start_index", 0.0}, {"duration", 1.0}}},
             {"SaveAudio", {{"filename_prefix", "a"}}},
             {"SaveAudioMP3", {{"filename_prefix", "a"}, {"quality", "V0"}}},
             {"SaveAudioOpus", {{"filename_prefix", "a"}, {"quality", "128k"}}},
             {"PreviewAudio", Json::object()}}) {
      auto prompt = silent;
      prompt["5"] = node(type, more);
      prompt["5"]["inputs"]["audio"] = sound;
      const auto error = tiny.told(prompt, {"5", 0});
      CHECK(says(error, type));
      CHECK(says(error, "'audio' has no sound: the video that it comes from is silent"));
    }
  CHECK_FALSE(fs::exists(tiny.folder() / "output"));
  auto load = [&](const char* type, const char* name, const Json& more) {
    Json prompt = {{"1", node(type, more)}};
    prompt["1"]["inputs"]["audio"] = name;
    return tiny.told(prompt, {"1", 0});
  };
  const auto video = (parity_dir() / "video_turned.mp4").string();
  const Json from_start = {{"start_time", 0.0}, {"duration", 0.0}};
  CHECK(says(load("LoadAudio", "video_turned.mp4", Json::object()),
             video + ": is a video without sound"));
  CHECK(says(load("VHS_LoadAudioUpload", "video_turned.mp4", from_start), video));
  for (const auto& error : {load("LoadAudio", "gone.flac", Json::object()),
                            load("VHS_LoadAudioUpload", "gone.flac", from_start)}) {
    CHECK(says(error, "gone.flac"));
    CHECK(says(error, parity_dir().string()));
  }
}

TEST_CASE("videos and the autoencoders of Wan: what is cut is said, and the other one's latents") {
  PiecesApp tiny;
  Json prompt = {
      {"1", node("VAELoader", {{"vae_name", "wan_vae.safetensors"}})},
      {"2", node("EmptyImage", {{"width", 32}, {"height", 32}, {"batch_size", 9}, {"color", 77}})},
      {"3", node("VAEEncode", {{"pixels", {"2", 0}}, {"vae", {"1", 0}}})},
      {"4", node("VAELoader", {{"vae_name", "wan_vae22.safetensors"}})},
      {"5", node("VAEDecode", {{"samples", {"3", 0}}, {"vae", {"4", 0}}})}};
  auto latent = [&] { return tiny.value_of(prompt, {"3", 0}).as<sampling::Latent>().samples; };
  const auto whole = latent();
  for (const bool in_tiles : {false, true}) {
    if (in_tiles)
      prompt["3"] = node("VAEEncodeTiled", {{"pixels", {"2", 0}},
                                            {"vae", {"1", 0}},
                                            {"tile_size", 64},
                                            {"overlap", 0},
                                            {"temporal_size", 64},
                                            {"temporal_overlap", 8}});
    for (auto [frames, said] : {std::pair(11, true), std::pair(9, false)}) {
      prompt["2"]["inputs"]["batch_size"] = frames;
      Told told;
      CHECK(latent().sizes() == whole.sizes());
      CHECK(told.has("of 11 frames the last 2 are left out, as lengths are 4n + 1") == said);
    }
  }
  const auto error = tiny.told(prompt, {"5", 0});
  CHECK(says(error, "wan_vae22.safetensors: decodes latents of 48 channels, got 16"));
  CHECK(says(error, "load the VAE of that"));
}
