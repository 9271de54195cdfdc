// Sound as files, and what is made of it.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <random>

#include "distorch/base/error.h"
#include "distorch/media/video_reader.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/input_files.h"
#include "distorch/nodes/video.h"
#include "distorch/streaming/engine.h"

namespace distorch::nodes {

using graph::Call;
using graph::choice;
using graph::Choices;
using graph::integer;
using graph::link;
using graph::number;
using graph::text;
using graph::Value;

namespace {

constexpr const char* kModule = "comfy_extras.nodes_audio";

/// What the files are called and how they are encoded.
struct Form {
  const char* extension;
  const char* container;
  const char* encoder;
};
constexpr Form kFlac{".flac", "flac", "flac"};
constexpr Form kMp3{".mp3", "mp3", "libmp3lame"};
constexpr Form kOpus{".opus", "opus", "libopus"};

struct Saving {
  Form form;
  std::string prefix;
  bool temporary = false;
};

/// "128k": bits a second; "V0": the best of the variable rates.
void set_quality(media::VideoOptions::Sounds& sounds, const std::string& quality) {
  if (quality == "V0")
    sounds.quality = 0;
  else if (quality.ends_with("k"))
    sounds.bit_rate = std::stoll(quality) * 1000;
}

void save(Call& call, const Saving& saving) {
  const auto& settings = call.context<Settings>();
  const auto& audio = audio_input(call, "audio");
  call.out(0, call.in("audio"));
  if (call.context<streaming::Engine>().plan_only()) return;
  auto place =
      output_place(saving.prefix, saving.temporary ? settings.temp_folder : settings.output_folder);
  media::VideoOptions options{.container = saving.form.container};
  options.sounds = {.encoder = saving.form.encoder};
  if (call.has("quality")) set_quality(*options.sounds, call.text("quality"));
  options.texts = video_texts(call);
  if (!at::isfinite(audio.waveform).all().item<bool>())
    throw Error(ErrorKind::Internal, call.place(),
                "the sound holds NaN or infinite values, nothing was saved");
  auto results = graph::Json::array();
  for (std::int64_t i = 0; i < audio.waveform.size(0); ++i) {
    auto own = place;
    constexpr std::string_view mark = "%batch_num%";
    if (auto at = place.name.find(mark); at != std::string::npos)
      own.name.replace(at, mark.size(), std::to_string(i));
    auto number = next_number(own);
    media::VideoWriter writer(own.folder / numbered(own.name, number, saving.form.extension),
                              options, to_sound(audio, i));
    writer.finish();
    auto file = commit_numbered(writer, own, number, saving.form.extension);
    results.push_back({{"filename", file},
                       {"subfolder", own.subfolder},
                       {"type", saving.temporary ? "temp" : "output"}});
    call.progress(static_cast<double>(i + 1), static_cast<double>(audio.waveform.size(0)));
  }
  call.ui({{"audio", results}});
}

template <const Form& form>
void run_save(Call& call) {
  save(call, {form, call.text("filename_prefix"), false});
}

void run_preview(Call& call) {
  // One for the life of the process, so that previews of two processes do not meet.
  static const std::string prefix = [] {
    std::random_device random;
    std::string letters = "ComfyUI_temp_";
    for (int i = 0; i < 5; ++i) letters += static_cast<char>('a' + random() % 26);
    return letters;
  }();
  save(call, {kFlac, prefix, true});
}

void run_load(Call& call) {
  auto path = annotated_path(call.text("audio"), call.context<Settings>());
  media::VideoReader reader(path);
  if (!reader.facts().has_sound)
    throw Error(ErrorKind::Format, path.string(), "is a video without sound");
  auto sound = reader.sound();
  if (sound.channels.empty()) throw Error(ErrorKind::Format, path.string(), "holds no sample");
  call.out(0, Value::of("AUDIO", to_audio(sound)));
}

void run_empty(Call& call) {
  auto rate = call.integer("sample_rate"), channels = call.integer("channels");
  auto samples = call.number("duration") * static_cast<double>(rate);
  if (rate < 1 || rate > 384000)
    throw Error(ErrorKind::Usage, call.place(),
                fmt::format("sample_rate: {} is none, take 8000 to 192000", rate));
  if (samples * static_cast<double>(channels) > static_cast<double>(media::sample_limit))
    throw Error(ErrorKind::Usage, call.place(),
                fmt::format("duration: {} s are more than {} samples", call.number("duration"),
                            media::sample_limit));
  call.out(0, Value::of("AUDIO", Audio{at::zeros({1, channels, std::llround(samples)}),
                                       static_cast<int>(rate)}));
}

void run_trim(Call& call) {
  const auto& audio = audio_input(call, "audio");
  auto length = audio.waveform.size(-1);
  auto sample = [&](double seconds) -> std::int64_t {
    // The bounds are far beyond every length.
    return std::llround(std::clamp(seconds * audio.rate, -1e15, 1e15));
  };
  auto start = call.number("start_index");
  auto first = start < 0 ? std::max<std::int64_t>(length + sample(start), 0)
                         : std::min(sample(start), length);
  auto end = std::min(first + sample(call.number("duration")), length);
  if (first >= end)
    throw Error(ErrorKind::Usage, call.place(),
                fmt::format("start_index: nothing is left of a sound of {:.3f} s",
                            static_cast<double>(length) / audio.rate));
  call.out(0, Value::of("AUDIO", Audio{audio.waveform.narrow(-1, first, end - first), audio.rate}));
}

graph::NodeType saving_node(const char* name, const char* shown, const char* tip,
                            std::vector<graph::Input> inputs, void (*run)(Call&)) {
  std::vector<graph::Input> all = {link("audio", "AUDIO")};
  all.insert(all.end(), inputs.begin(), inputs.end());
  return {.name = name,
          .display_name = shown,
          .category = "audio",
          .description = tip,
          .python_module = kModule,
          .inputs = std::move(all),
          .hidden = {{"prompt", "PROMPT"}, {"extra_pnginfo", "EXTRA_PNGINFO"}},
          .outputs = {{"AUDIO", "audio"}},
          .output_node = true,
          .run = run};
}

void add_saving_nodes(graph::Catalog& catalog) {
  auto prefix = text("filename_prefix", {.def = "audio/ComfyUI"});
  catalog.add(saving_node("SaveAudio", "Save Audio (FLAC)", "Writes sound without loss.", {prefix},
                          run_save<kFlac>));
  catalog.add(saving_node("SaveAudioMP3", "Save Audio (MP3)", "Writes sound as MP3.",
                          {prefix, choice("quality", {"V0", "128k", "320k"}, {.def = "V0"})},
                          run_save<kMp3>));
  catalog.add(saving_node(
      "SaveAudioOpus", "Save Audio (Opus)", "Writes sound as Opus.",
      {prefix, choice("quality", {"64k", "96k", "128k", "192k", "320k"}, {.def = "128k"})},
      run_save<kOpus>));
  catalog.add(saving_node("PreviewAudio", "Preview Audio",
                          "Plays sound: it is written into the temporary folder only.", {},
                          run_preview));
}

}  // namespace

void add_audio_nodes(graph::Catalog& catalog, App& app) {
  add_saving_nodes(catalog);
  auto names = [&app] {
    auto endings = audio_endings();
    endings.insert(endings.end(), video_endings().begin(), video_endings().end());
    return input_names(app.settings, endings);
  };
  catalog.add({
      .name = "LoadAudio",
      .display_name = "Load Audio",
      .category = "audio",
      .description = "Opens a sound, or that of a video.",
      .python_module = kModule,
      .inputs = {choice("audio", Choices(names), {.extra = {{"audio_upload", true}}})},
      .outputs = {"AUDIO"},
      .run = run_load,
      .change_key =
          [&app](const Call& call) {
            return ModelCache::identity(annotated_path(call.text("audio"), app.settings));
          },
      .checks = {{{"audio"},
                  [&app, names](const Call& call) {
                    return missing_input(call.text("audio"), app.settings, names());
                  }}},
  });
  catalog.add({
      .name = "EmptyAudio",
      .display_name = "Empty Audio",
      .category = "audio",
      .description = "Makes silence.",
      .python_module = kModule,
      .inputs = {number("duration", {.def = 60.0,
                                     .min = 0.0,
                                     .max = 18446744073709551615u,
                                     .step = 0.01,
                                     .tooltip = "In seconds."}),
                 integer("sample_rate", {.def = 44100, .tooltip = "Samples a second."}),
                 integer("channels",
                         {.def = 2, .min = 1, .max = 2, .tooltip = "1 mono, 2 stereo."})},
      .outputs = {"AUDIO"},
      .run = run_empty,
  });
  catalog.add({
      .name = "TrimAudioDuration",
      .display_name = "Trim Audio Duration",
      .category = "audio",
      .description = "Takes a part of a sound.",
      .python_module = kModule,
      .inputs = {link("audio", "AUDIO"),
                 number("start_index",
                        {.def = 0.0,
                         .min = -18446744073709551615.0,
                         .max = 18446744073709551615u,
                         .step = 0.01,
                         .tooltip = "Where it begins, in seconds; below 0 counted from the end."}),
                 number("duration",
                        {.def = 60.0, .min = 0.0, .step = 0.01, .tooltip = "In seconds."})},
      .outputs = {"AUDIO"},
      .run = run_trim,
  });
}

}  // namespace distorch::nodes
