#include "distorch/nodes/video_formats.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <utility>

#include "distorch/base/error.h"

namespace distorch::nodes {

using graph::Json;

namespace {

using media::Colours;

constexpr std::array kFormats = {
    VideoFormat{"ProRes", ".mov", "mov", "prores_ks", "pcm_s16le"},
    VideoFormat{"webm", ".webm", "webm", "libvpx-vp9", "libopus", Colours::Unmarked},
    VideoFormat{"ffv1-mkv", ".mkv", "matroska", "ffv1", "flac", Colours::Unmarked, true},
    VideoFormat{"nvenc_av1-mp4", ".mp4", "mp4", "av1_nvenc", "aac"},
    VideoFormat{"h265-mp4", ".mp4", "mp4", "libx265", "aac"},
    VideoFormat{"8bit-png", ".png", "", "", "", Colours::Unmarked},
    VideoFormat{"h264-mp4", ".mp4", "mp4", "libx264", "aac"},
    VideoFormat{"nvenc_hevc-mp4", ".mp4", "mp4", "hevc_nvenc", "aac"},
    VideoFormat{"nvenc_h264-mp4", ".mp4", "mp4", "h264_nvenc", "aac"},
    VideoFormat{"ffmpeg-gif", ".gif", "", "", "", Colours::Unmarked},
    VideoFormat{"av1-webm", ".webm", "webm", "libsvtav1", "libopus", Colours::Unmarked},
    VideoFormat{"16bit-png", ".png", "", "", "", Colours::Unmarked, true},
};

Json choices(const char* name, const std::vector<std::string>& values) {
  return Json::array({name, values});
}
Json choices(const char* name, const std::vector<std::string>& values, const char* initial) {
  return Json::array({name, values, {{"default", initial}}});
}
Json whole(const char* name, int initial, int lowest, int highest) {
  return Json::array(
      {name, "INT", {{"default", initial}, {"min", lowest}, {"max", highest}, {"step", 1}}});
}
Json flag(const char* name, bool initial) {
  return Json::array({name, "BOOLEAN", {{"default", initial}}});
}
const Json& metadata() {
  static const Json widget = flag("save_metadata", true);
  return widget;
}
const Json& trim() {
  static const Json widget = flag("trim_to_audio", false);
  return widget;
}

Json nvenc_widgets() {
  return Json::array({choices("pix_fmt", {"yuv420p", "p010le"}), whole("bitrate", 10, 1, 999),
                      flag("megabit", true), metadata()});
}

Json ffv1_widgets() {
  std::vector<std::string> pixels = {"bgra", "rgba64le"};
  for (const char* depth : {"", "10le", "12le", "14le", "16le"})
    for (const char* form : {"yuv420p", "yuv422p", "yuv444p", "yuva420p", "yuva422p", "yuva444p"}) {
      bool alpha = form[3] == 'a';
      if (alpha && *depth != 0) continue;
      pixels.push_back(std::string(form) + depth);
    }
  for (const char* gray : {"gray", "gray10le", "gray12le", "gray16le"}) pixels.emplace_back(gray);
  return Json::array({choices("level", {"0", "1", "3"}, "3"),
                      choices("coder", {"0", "1", "2"}, "1"), choices("context", {"0", "1"}, "1"),
                      whole("gop_size", 1, 1, 300),
                      choices("slices", {"4", "6", "9", "12", "16", "20", "24", "30"}, "16"),
                      choices("slicecrc", {"0", "1"}, "1"), choices("pix_fmt", pixels, "bgra"),
                      metadata(), trim()});
}

Json gif_widgets() {
  auto dither = choices("dither",
                        {"bayer", "heckbert", "floyd_steinberg", "sierra2", "sierra2_4a", "sierra3",
                         "burkes", "atkinson", "none"},
                        "sierra2_4a");
  // The reference shows its filter's text here.
  dither.push_back(
      "[0:v] split [a][b]; [a] palettegen=reserve_transparent=on:transparency_color=ffffff [p]; "
      "[b][p] paletteuse=dither=$val");
  return Json::array({std::move(dither)});
}

Json widgets_of_format(const VideoFormat& format) {
  std::string_view name = format.name;
  if (name == "ProRes")
    return Json::array({choices("profile", {"lt", "standard", "hq", "4444", "4444xq"}, "hq")});
  if (name == "webm")
    return Json::array({choices("pix_fmt", {"yuv420p", "yuva420p"}), whole("crf", 20, 0, 100),
                        metadata(), trim()});
  if (name == "ffv1-mkv") return ffv1_widgets();
  if (name == "h265-mp4")
    return Json::array(
        {choices("pix_fmt", {"yuv420p10le", "yuv420p"}), whole("crf", 22, 0, 100), metadata()});
  if (name == "h264-mp4")
    return Json::array({choices("pix_fmt", {"yuv420p", "yuv420p10le"}), whole("crf", 19, 0, 100),
                        metadata(), trim()});
  if (name == "av1-webm")
    return Json::array({choices("pix_fmt", {"yuv420p10le", "yuv420p"}), whole("crf", 23, 0, 100),
                        choices("input_color_depth", {"8bit", "16bit"}), metadata()});
  if (name == "ffmpeg-gif") return gif_widgets();
  return name.starts_with("nvenc") ? nvenc_widgets() : Json::array();
}

std::string as_text(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "true" : "false";
  return value.dump();
}

std::string prores_profile(const std::string& name) {
  for (const auto& [known, number] :
       {std::pair{"lt", "1"}, {"standard", "2"}, {"hq", "3"}, {"4444", "4"}, {"4444xq", "5"}})
    if (name == known) return number;
  throw Error(ErrorKind::Usage, "profile", fmt::format("'{}' is no profile of ProRes", name));
}

}  // namespace

const VideoFormat* find_video_format(const std::string& name) {
  for (const auto& format : kFormats)
    if (name == std::string("video/") + format.name) return &format;
  return nullptr;
}

std::vector<std::string> combine_formats() {
  std::vector<std::string> names = {"image/gif", "image/webp"};
  for (const auto& format : kFormats) names.push_back(std::string("video/") + format.name);
  return names;
}

Json combine_widgets() {
  Json all = Json::object();
  for (const auto& format : kFormats)
    if (auto widgets = widgets_of_format(format); !widgets.empty())
      all[std::string("video/") + format.name] = std::move(widgets);
  all["image/webp"] = Json::array({flag("lossless", true)});
  return all;
}

std::string widget_text(const VideoFormat& format, const WidgetValue& widget,
                        const std::string& name) {
  if (auto given = widget(name); !given.is_null()) return as_text(given);
  for (const auto& known : widgets_of_format(format)) {
    if (known[0] != name) continue;
    if (known.size() > 2 && known[2].contains("default")) return as_text(known[2]["default"]);
    return as_text(known[1][0]);
  }
  return "";
}

bool widget_flag(const VideoFormat& format, const WidgetValue& widget, const std::string& name) {
  auto value = widget_text(format, widget, name);
  // Older workflows keep other texts for yes.
  return !value.empty() && value != "false" && value != "False";
}

bool is_deep(const VideoFormat& format, const WidgetValue& widget) {
  return format.deep || widget_text(format, widget, "input_color_depth") == "16bit";
}

namespace {

void set_nvenc(media::VideoOptions::Pictures& pictures, const VideoFormat& format,
               const WidgetValue& widget) {
  auto text = widget_text(format, widget, "bitrate");
  auto number = std::strtoll(text.c_str(), nullptr, 10);
  pictures.bit_rate = number * (widget_flag(format, widget, "megabit") ? 1000000 : 1000);
}

void set_ffv1(media::VideoOptions::Pictures& pictures, const VideoFormat& format,
              const WidgetValue& widget) {
  for (const char* name : {"level", "coder", "context", "slices", "slicecrc"})
    pictures.settings[name] = widget_text(format, widget, name);
  pictures.settings["g"] = widget_text(format, widget, "gop_size");
}

}  // namespace

media::VideoOptions combine_options(const VideoFormat& format, const WidgetValue& widget, int width,
                                    int height, media::Rate rate) {
  media::VideoOptions options{.container = format.container};
  media::VideoOptions::Pictures pictures{.encoder = format.encoder,
                                         .pixel_format = widget_text(format, widget, "pix_fmt"),
                                         .width = width,
                                         .height = height,
                                         .rate = rate,
                                         .colours = format.colours};
  std::string_view name = format.name;
  // The highest quality that the encoder takes is below what the widget allows.
  if (auto crf = widget_text(format, widget, "crf"); !crf.empty()) {
    int highest = name == "webm" || name == "av1-webm" ? 63 : 51;
    pictures.settings["crf"] =
        std::to_string(std::min(highest, static_cast<int>(std::strtol(crf.c_str(), nullptr, 10))));
  }
  if (name == "ProRes") {
    auto profile = widget_text(format, widget, "profile");
    pictures.settings["profile"] = prores_profile(profile);
    pictures.pixel_format = profile.starts_with("4444") ? "yuv444p10le" : "yuv422p10le";
  } else if (name == "ffv1-mkv") {
    set_ffv1(pictures, format, widget);
  } else if (name == "h265-mp4") {
    pictures.tag = "hvc1";
    pictures.settings["preset"] = "medium";
    pictures.settings["x265-params"] = "log-level=none";
  } else if (name.starts_with("nvenc")) {
    set_nvenc(pictures, format, widget);
  }
  options.pictures = std::move(pictures);
  return options;
}

}  // namespace distorch::nodes
