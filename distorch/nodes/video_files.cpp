// Videos as files: loading, and saving as ComfyUI does.
#include <fmt/format.h>

#include <cmath>

#include "distorch/base/error.h"
#include "distorch/graph/dynamic_inputs.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/input_files.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/video.h"
#include "distorch/streaming/engine.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::choice;
using graph::Choices;
using graph::dynamic_choice;
using graph::link;
using graph::number;
using graph::optional;
using graph::text;
using graph::Value;

namespace {

constexpr const char* kModule = "comfy_extras.nodes_video";

std::string setting_of(double value) {
  return value == std::floor(value) ? fmt::format("{}", static_cast<std::int64_t>(value))
                                    : fmt::format("{}", value);
}

/// What SaveVideo is asked for.
struct Wish {
  explicit Wish(Call& call) {
    format = call.text("format");
    for (const char* name : {"format.codec", "codec"})
      if (call.has(name) && codec == "auto") read_codec(call, name);
    container = format == "mkv" ? "matroska" : format == "auto" ? "mp4" : format;
    extension = format == "auto" ? ".mp4" : "." + format;
    encoded_as = codec != "auto" ? codec : format == "webm" ? "av1" : "h264";
    if (format == "webm" && encoded_as != "av1")
      throw Error(ErrorKind::Usage, call.place(), "codec: a WebM file takes av1, not " + codec);
  }

  void read_codec(Call& call, const std::string& name) {
    codec = call.text(name);
    auto encoding = name + ".encoding";
    if (!call.has(encoding) || call.text(encoding) != "re-encode") return;
    if (call.has(encoding + ".crf")) crf = call.number(encoding + ".crf");
    if (call.has(encoding + ".color_space")) colour_space = call.text(encoding + ".color_space");
    if (colour_space == "auto") colour_space.clear();
  }

  std::string format, codec = "auto", colour_space;
  std::optional<double> crf;
  std::string container, extension, encoded_as;
};

media::Colours colours_named(const std::string& name) {
  return name == "HDR"      ? media::Colours::Hlg
         : name == "HDR PQ" ? media::Colours::Pq
                            : media::Colours::Srgb;
}

/// Options without frames: the container and its texts.
media::VideoOptions container_options(Call& call, const Wish& wish) {
  media::VideoOptions options;
  options.container = wish.container;
  options.texts = video_texts(call);
  if (options.container == "mp4") options.container_settings["movflags"] = "use_metadata_tags";
  return options;
}

bool is_hdr(media::Colours colours) {
  return colours == media::Colours::Hlg || colours == media::Colours::Pq;
}

media::VideoOptions encoding_options(Call& call, const Wish& wish, const VideoParts& parts) {
  auto options = container_options(call, wish);
  auto colours = wish.colour_space.empty() ? parts.colours : colours_named(wish.colour_space);
  if (colours == media::Colours::Unmarked) colours = media::Colours::Srgb;
  if (is_hdr(parts.colours) && !wish.colour_space.empty() && colours != parts.colours)
    throw Error(ErrorKind::Usage, call.place(),
                fmt::format("color_space: the video is {} and would have to be converted to {}; "
                            "take auto",
                            color_space_name(parts.colours), wish.colour_space));
  bool deep = parts.bits > 8 || is_hdr(colours);
  media::VideoOptions::Pictures pictures;
  pictures.encoder = wish.encoded_as == "av1" ? "libsvtav1" : "libx264";
  pictures.pixel_format = deep ? "yuv420p10le" : "yuv420p";
  pictures.width = static_cast<int>(parts.images.size(2));
  pictures.height = static_cast<int>(parts.images.size(1));
  pictures.rate = parts.rate;
  pictures.colours = colours;
  if (wish.crf) {
    bool lossless = wish.encoded_as == "av1" && *wish.crf == 0;
    pictures.settings[lossless ? "svtav1-params" : "crf"] =
        lossless ? "lossless=1" : setting_of(*wish.crf);
  }
  options.pictures = std::move(pictures);
  if (parts.audio) options.sounds = {.encoder = wish.format == "webm" ? "libopus" : "aac"};
  return options;
}

/// Of the sound what the frames last.
media::Sound sound_of(const VideoParts& parts) {
  if (!parts.audio) return {};
  auto sound = to_sound(*parts.audio);
  auto length = static_cast<std::size_t>(
      std::ceil(sound.rate / parts.rate.value() * static_cast<double>(parts.images.size(0))));
  for (auto& channel : sound.channels) channel.resize(std::min(channel.size(), length));
  return sound;
}

/// The file's own streams in the new container; "" where they have to be encoded anew.
std::string save_copied(Call& call, const Wish& wish, const Video& video,
                        const media::VideoFacts& facts, const OutputPlace& place) {
  bool whole = !video.file.empty() && video.range.start == 0 && video.range.duration == 0;
  bool as_it_is =
      !wish.crf && wish.colour_space.empty() && (wish.codec == "auto" || wish.codec == facts.codec);
  if (!whole || !as_it_is) return "";
  auto number = next_number(place);
  AtomicFile file(place.folder / numbered(place.name, number, wish.extension));
  if (!media::copy_streams(video.file, file, container_options(call, wish))) return "";
  while (!file.commit_if_absent(place.folder / numbered(place.name, number, wish.extension)))
    ++number;
  return numbered(place.name, number, wish.extension);
}

void show(Call& call, const std::string& file, const OutputPlace& place) {
  call.ui({{"images", shown_file(file, place, "output")}, {"animated", {true}}});
}

void run_save(Call& call) {
  const auto& video = call.get<Video>("video");
  call.out(0, call.in("video"));
  if (call.context<streaming::Engine>().plan_only()) return;
  Wish wish(call);
  auto facts = facts_of(video);
  auto place = output_place(call.text("filename_prefix"), call.context<Settings>().output_folder,
                            facts.width, facts.height);
  auto file = save_copied(call, wish, video, facts, place);
  if (file.empty()) {
    auto parts = parts_of(video);
    auto options = encoding_options(call, wish, parts);
    auto number = next_number(place);
    media::VideoWriter writer(place.folder / numbered(place.name, number, wish.extension), options,
                              sound_of(parts));
    bool deep = options.pictures->pixel_format == "yuv420p10le";
    encode_frames(call, writer, parts.images, in_order(parts.images.size(0)), deep ? 10 : 8,
                  Rounding::Cut);
    writer.finish();
    file = commit_numbered(writer, place, number, wish.extension);
  }
  show(call, file, place);
}

void run_webm(Call& call) {
  const auto& images = image_input(call, "images");
  call.out(0, call.in("images"));
  if (call.context<streaming::Engine>().plan_only()) return;
  bool av1 = call.text("codec") == "av1";
  // Transparency is kept by VP9 alone.
  bool alpha = images.size(3) == 4 && !av1;
  media::VideoOptions options{.container = "webm"};
  options.pictures = {.encoder = av1 ? "libsvtav1" : "libvpx-vp9",
                      .pixel_format = av1     ? "yuv420p10le"
                                      : alpha ? "yuva420p"
                                              : "yuv420p",
                      .width = static_cast<int>(images.size(2)),
                      .height = static_cast<int>(images.size(1)),
                      .rate = media::rate_of(call.number("fps")),
                      .settings = {{"crf", setting_of(std::round(call.number("crf")))}}};
  if (av1) options.pictures->settings["preset"] = "6";
  options.texts = video_texts(call);
  auto place = output_place(call.text("filename_prefix"), call.context<Settings>().output_folder,
                            images.size(2), images.size(1));
  auto number = next_number(place);
  media::VideoWriter writer(place.folder / numbered(place.name, number, ".webm"), options);
  auto shown = images.size(3) == 4 && !alpha ? images.narrow(3, 0, 3) : images;
  encode_frames(call, writer, shown, in_order(images.size(0)), 8, Rounding::Cut);
  writer.finish();
  show(call, commit_numbered(writer, place, number, ".webm"), place);
}

void run_load(Call& call) {
  Video video;
  video.file = annotated_path(call.text("file"), call.context<Settings>());
  // A file that is none is refused here, not where it is used.
  if (!facts_of(video).has_pictures)
    throw Error(ErrorKind::Format, video.file.string(), "holds no pictures, only sound");
  call.out(0, Value::of("VIDEO", std::move(video)));
}

/// The codecs, each with what encoding anew can be told.
graph::Input codec_input(const std::vector<std::string>& codecs) {
  std::vector<graph::Option> options;
  for (const auto& codec : codecs) {
    graph::Option option{codec, {}};
    if (codec != "auto") {
      bool h264 = codec == "h264";
      auto colour_space = choice("color_space", {"auto", "sRGB", "HDR", "HDR PQ"},
                                 {.def = "auto",
                                  .tooltip = "What the numbers of the frames mean; nothing is "
                                             "converted. HDR and HDR PQ are written with 10 bits.",
                                  .combo = true,
                                  .extra = {{"display_name", "color space"}}});
      auto crf = number("crf", {.def = h264 ? 23.0 : 30.0,
                                .min = 0.0,
                                .max = h264 ? 51.0 : 63.0,
                                .step = 1.0,
                                .tooltip = "How much may be lost: the lower the better, and the "
                                           "larger."});
      auto encoding = dynamic_choice("encoding", {{"auto", {}}, {"re-encode", {crf, colour_space}}},
                                     "Whether streams of that codec are kept as they are.");
      encoding.options["display_name"] = "encoding mode";
      option.inputs.push_back(optional(encoding));
    }
    options.push_back(std::move(option));
  }
  return dynamic_choice("codec", options, "How frames are encoded; auto keeps what fits.");
}

void add_saving_nodes(graph::Catalog& catalog) {
  std::vector<graph::Hidden> hidden = {{"prompt", "PROMPT"}, {"extra_pnginfo", "EXTRA_PNGINFO"}};
  auto any = codec_input({"auto", "h264", "av1"});
  auto older = optional(any);
  older.options["hidden"] = true;
  catalog.add({
      .name = "SaveVideo",
      .display_name = "Save Video",
      .category = "video",
      .description = "Writes a video into the output folder, with the workflow inside.",
      .python_module = kModule,
      .inputs = {link("video", "VIDEO", {.tooltip = "What is written."}),
                 text("filename_prefix",
                      {.def = "video/ComfyUI",
                       .multiline = false,
                       .tooltip = "How file names begin; a number follows. %date:yyyy-MM-dd% "
                                  "stands for the date, folder/name for a folder."}),
                 dynamic_choice("format",
                                {{"auto", {any}},
                                 {"mp4", {any}},
                                 {"mkv", {any}},
                                 {"webm", {codec_input({"auto", "av1"})}}},
                                "The container of the file."),
                 older},
      .hidden = hidden,
      .outputs = {{"VIDEO", "video"}},
      .output_node = true,
      .newer_schema = true,
      .run = run_save,
  });
  catalog.add({
      .name = "SaveWEBM",
      .display_name = "Save WEBM",
      .category = "video",
      .description = "Writes a batch as the frames of a WebM video.",
      .python_module = kModule,
      .inputs = {link("images", "IMAGE", {.tooltip = "The frames; transparency is kept with vp9."}),
                 text("filename_prefix", {.def = "ComfyUI", .multiline = false}),
                 choice("codec", {"vp9", "av1"}, {.combo = true}),
                 number("fps", {.def = 24.0, .min = 0.01, .max = 1000.0, .step = 0.01}),
                 number("crf", {.def = 32.0,
                                .min = 0,
                                .max = 63.0,
                                .step = 1,
                                .tooltip = "How much may be lost: the lower the better, and the "
                                           "larger."})},
      .hidden = hidden,
      .outputs = {{"IMAGE", "images"}},
      .output_node = true,
      .experimental = true,
      .newer_schema = true,
      .run = run_webm,
  });
}

}  // namespace

void add_video_file_nodes(graph::Catalog& catalog, App& app) {
  add_saving_nodes(catalog);
  auto names = [&app] { return input_names(app.settings, video_endings()); };
  catalog.add({
      .name = "LoadVideo",
      .display_name = "Load Video",
      .category = "video",
      .description = "Opens a video of the input folder.",
      .python_module = kModule,
      .inputs = {choice("file", Choices(names),
                        {.combo = true, .extra = {{"video_upload", true}}})},
      .outputs = {"VIDEO"},
      .newer_schema = true,
      .run = run_load,
      .change_key =
          [&app](const Call& call) {
            return ModelCache::identity(annotated_path(call.text("file"), app.settings));
          },
      .checks = {{{"file"},
                  [&app, names](const Call& call) {
                    return missing_input(call.text("file"), app.settings, names());
                  }}},
  });
}

}  // namespace distorch::nodes
