// VHS_VideoCombine: frames as a video file, a PNG with the workflow beside it.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <ctime>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/media/gif_writer.h"
#include "distorch/media/png.h"
#include "distorch/media/webp.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/vae_coding.h"
#include "distorch/nodes/video.h"
#include "distorch/nodes/video_formats.h"
#include "distorch/streaming/engine.h"

namespace distorch::nodes {

namespace fs = std::filesystem;
using at::Tensor;
using graph::boolean;
using graph::Call;
using graph::choice;
using graph::integer;
using graph::Json;
using graph::link;
using graph::number;
using graph::optional;
using graph::text;
using graph::Value;

namespace {

/// VHS_FILENAMES: what was written, and whether it is to be kept.
struct Filenames {
  bool saved = true;
  std::vector<std::string> paths;
};

/// Frames [T, H, W, C] of the images, or of a latent.
Tensor frames_of(Call& call) {
  if (!call.in("images").is<sampling::Latent>()) return image_input(call, "images");
  if (!call.has("vae"))
    throw Error(ErrorKind::Usage, call.place(),
                "images: a latent is linked; link the 'vae' that decodes it too");
  return vae_coding_of(call).decode(latent_input(call, "images").samples);
}

/// Sides become multiples of 2 by repeating the edges, half of it on each side.
Tensor padded(const Tensor& frames) {
  auto across = frames.size(2) % 2, down = frames.size(1) % 2;
  if (across == 0 && down == 0) return frames;
  log::warn_once("VHS_VideoCombine: widths and heights of videos are even: edges are repeated");
  auto channels_first = frames.movedim(-1, 1).contiguous();
  return at::replication_pad2d(channels_first,
                               {across / 2, across - across / 2, down / 2, down - down / 2})
      .movedim(1, -1)
      .contiguous();
}

/// The frames in the order in which they are shown.
std::vector<std::int64_t> order_of(std::int64_t count, bool pingpong, std::int64_t repeats) {
  auto order = in_order(count);
  if (pingpong)
    for (auto i = count - 2; i > 0; --i) order.push_back(i);
  // Only what comes before the way back is repeated.
  std::vector<std::int64_t> all;
  for (std::int64_t r = 0; r < repeats; ++r)
    all.insert(all.end(), order.begin(), order.begin() + count);
  all.insert(all.end(), order.begin(), order.end());
  return all;
}

std::string now() {
  std::time_t seconds = std::time(nullptr);
  std::tm local{};
  localtime_r(&seconds, &local);
  return fmt::format("{:%Y-%m-%d %H:%M:%S}", local);
}

std::string utc() {
  std::time_t seconds = std::time(nullptr);
  std::tm time{};
  gmtime_r(&seconds, &time);
  return fmt::format("{:%Y-%m-%dT%H:%M:%S}.000000Z", time);
}

/// What the page's extra options of the workflow say; they are on where it says nothing.
bool extra_option(Call& call, const char* name) {
  auto where = Json::json_pointer(std::string("/workflow/extra/") + name);
  const auto& extra = call.extra_pnginfo();
  return !extra.is_object() || !extra.contains(where) || extra[where] != false;
}

/// One run of the node.
class Combining {
 public:
  explicit Combining(Call& call)
      : call_(call),
        frames_(frames_of(call)),
        first_(frames_[0]),
        rate_(media::rate_of(call.number("frame_rate"))),
        saved_(call.boolean("save_output")),
        format_(call.text("format")),
        place_(output_place(call.text("filename_prefix"),
                            saved_ ? call.context<Settings>().output_folder
                                   : call.context<Settings>().temp_folder)),
        number_(next_number(place_)) {
    widget_ = [&call](const std::string& name) {
      return call.has(name) && call.in(name).is<Json>() ? call.get<Json>(name) : Json();
    };
  }
  /// Files that are there when an error comes, go.
  ~Combining() {
    std::error_code ignored;
    if (!done_)
      for (const auto& file : written_) fs::remove(place_.folder / file, ignored);
  }
  Combining(const Combining&) = delete;

  void run() {
    const auto* video = find_video_format(format_);
    if (video && std::string_view(video->extension) == ".png")
      write_pictures(*video);
    else if (video && *video->container != 0)
      write_video(*video);
    else
      write_animation(video);
    done_ = true;
    answer();
  }

 private:
  std::string name(const std::string& extension, const std::string& behind = "") const {
    return numbered(place_.name, number_, extension, behind);
  }

  /// Gives the file its name, and the first frame's picture the same number.
  template <class Commit>
  void commit(const std::string& extension, Commit commit_as) {
    auto png = first_frame();
    for (;; ++number_) {
      AtomicFile picture(place_.folder / name(".png"));
      picture.write(png);
      bool wanted = extra_option(call_, "VHS_MetadataImage");
      if (wanted && !picture.commit_if_absent(place_.folder / name(".png"))) continue;
      if (wanted) written_.push_back(name(".png"));
      if (commit_as(place_.folder / name(extension))) break;
      std::error_code ignored;
      if (wanted) fs::remove(place_.folder / written_.back(), ignored);
      written_.clear();
    }
    written_.push_back(name(extension));
    shown_ = written_.back();
  }

  std::string first_frame() {
    media::PngOptions options{.compression = 4, .texts = video_texts(call_)};
    options.texts.push_back({"CreationTime", now()});
    return media::encode_png(picture_of(call_, first_, Rounding::Nearest), options);
  }

  /// {"prompt": "...", "workflow": {...}} as the video's comment.
  std::vector<media::Text> comment() const {
    if (call_.context<Settings>().disable_metadata) return {};
    auto ascii = [](const Json& json) {
      return json.dump(-1, ' ', true, Json::error_handler_t::replace);
    };
    Json all = Json::object();
    if (!call_.prompt().is_null()) all["prompt"] = ascii(call_.prompt());
    if (call_.extra_pnginfo().is_object()) all.update(call_.extra_pnginfo());
    return {{"comment", ascii(all)}, {"creation_time", utc()}};
  }

  void write_video(const VideoFormat& format) {
    frames_ = padded(frames_);
    auto options = combine_options(format, widget_, static_cast<int>(frames_.size(2)),
                                   static_cast<int>(frames_.size(1)), rate_);
    if (widget_flag(format, widget_, "save_metadata")) options.texts = comment();
    auto order = order_of(frames_.size(0), call_.boolean("pingpong"), call_.integer("loop_count"));
    media::VideoWriter writer(place_.folder / name(format.extension), options);
    encode_frames(call_, writer, frames_, order, is_deep(format, widget_) ? 16 : 8,
                  Rounding::Nearest);
    writer.finish();
    commit(format.extension, [&](const fs::path& path) { return writer.commit_if_absent(path); });
    if (call_.has("audio") && call_.in("audio").is<Audio>())
      add_sound(format, options, static_cast<double>(order.size()) / rate_.value());
  }

  /// A second file, with the sound, of which the first one is the silent half.
  void add_sound(const VideoFormat& format, media::VideoOptions options, double seconds) {
    auto sound = to_sound(call_.get<Audio>("audio"));
    auto length = static_cast<std::size_t>(std::ceil(seconds * sound.rate));
    // Silence follows a sound that is too short, unless it is to end the video.
    bool cut = widget_flag(format, widget_, "trim_to_audio");
    for (auto& channel : sound.channels)
      channel.resize(cut ? std::min(channel.size(), length) : length);
    options.sounds = {.encoder = format.sound};
    options.pictures.reset();
    if (cut) options.seconds = sound.seconds();
    // Where VideoHelperSuite has the comment there: in its first file it is an older kind of tag.
    if (std::string_view(format.name).ends_with("h264-mp4"))
      options.container_settings["movflags"] = "use_metadata_tags";
    auto silent = shown_;
    auto with_sound = name(format.extension, "-audio");
    AtomicFile file(place_.folder / with_sound);
    if (!media::copy_streams(place_.folder / silent, file, options, std::move(sound)))
      throw Error(ErrorKind::Internal, call_.place(), "the video cannot be copied");
    file.commit();
    written_.push_back(with_sound);
    shown_ = with_sound;
    if (extra_option(call_, "VHS_KeepIntermediate")) return;
    std::error_code ignored;
    fs::remove(place_.folder / silent, ignored);
    std::erase(written_, silent);
  }

  std::vector<media::Image> pictures(std::int64_t repeats) {
    auto order = order_of(frames_.size(0), call_.boolean("pingpong"), repeats);
    std::vector<media::Image> all;
    for (auto index : order) {
      all.push_back(picture_of(call_, frames_[index], Rounding::Nearest));
      call_.progress(static_cast<double>(all.size()), static_cast<double>(order.size()) + 1);
    }
    return all;
  }

  void write_animation(const VideoFormat* format) {
    auto loops = static_cast<int>(call_.integer("loop_count"));
    std::string bytes, extension = ".gif";
    if (format) {
      frames_ = padded(frames_);
      bytes = media::encode_gif(
          pictures(loops),
          {.rate = rate_, .one_palette = true, .dither = widget_text(*format, widget_, "dither")});
    } else if (format_ == "image/gif") {
      bytes = media::encode_gif(pictures(0), {.rate = rate_, .loops = loops});
    } else {
      extension = ".webp";
      auto lossless = widget_("lossless");
      bytes = media::encode_webp_animation(
          pictures(0), {.milliseconds = static_cast<int>(std::lround(1000 / rate_.value())),
                        .lossless = !lossless.is_boolean() || lossless.get<bool>(),
                        .loops = loops});
    }
    AtomicFile file(place_.folder / name(extension));
    file.write(bytes);
    auto steps = static_cast<double>(frames_.size(0)) + 1;
    call_.progress(steps, steps);
    commit(extension, [&](const fs::path& path) { return file.commit_if_absent(path); });
  }

  /// Frames as PNG files of their own: name_00001.001.png
  void write_pictures(const VideoFormat& format) {
    frames_ = padded(frames_);
    auto order = order_of(frames_.size(0), call_.boolean("pingpong"), call_.integer("loop_count"));
    AtomicFile picture(place_.folder / name(".png"));
    picture.write(first_frame());
    while (!picture.commit_if_absent(place_.folder / name(".png"))) ++number_;
    written_.push_back(name(".png"));
    for (std::size_t i = 0; i < order.size(); ++i) {
      auto file = name(fmt::format(".{:03}.png", i + 1));
      auto frame = frames_[order[i]];
      write_file(place_.folder / file,
                 format.deep ? deep_picture(frame)
                             : media::encode_png(picture_of(call_, frame, Rounding::Nearest)));
      written_.push_back(file);
      if (i == 0) shown_ = file;
      call_.progress(static_cast<double>(i + 1), static_cast<double>(order.size()));
    }
  }

  static std::string deep_picture(const Tensor& frame) {
    auto scaled = (frame.to(at::kCPU, at::kFloat) * 65535.0 + 0.5).clamp(0, 65535).to(at::kInt);
    scaled = scaled.contiguous();
    const auto* begin = scaled.const_data_ptr<int>();
    std::vector<std::uint16_t> values(begin, begin + scaled.numel());
    return media::encode_png16(values, static_cast<int>(frame.size(1)),
                               static_cast<int>(frame.size(0)), static_cast<int>(frame.size(2)));
  }

  void answer() {
    Filenames names{saved_, {}};
    for (const auto& file : written_) names.paths.push_back((place_.folder / file).string());
    call_.ui({{"gifs",
               {{{"filename", shown_},
                 {"subfolder", place_.subfolder},
                 {"type", saved_ ? "output" : "temp"},
                 {"format", format_},
                 {"frame_rate", call_.number("frame_rate")},
                 {"workflow", name(".png")},
                 {"fullpath", (place_.folder / shown_).string()}}}}});
    call_.out(0, Value::of("VHS_FILENAMES", std::move(names)));
  }

  Call& call_;
  Tensor frames_;
  Tensor first_;  // as it came
  media::Rate rate_;
  bool saved_;
  std::string format_;
  OutputPlace place_;
  std::int64_t number_;
  WidgetValue widget_;
  std::vector<std::string> written_;
  std::string shown_;
  bool done_ = false;
};

void run_combine(Call& call) {
  bool nothing = call.in("images").is<Tensor>() && call.get<Tensor>("images").size(0) == 0;
  if (nothing || call.context<streaming::Engine>().plan_only()) {
    if (!nothing && !call.in("images").is<Tensor>()) frames_of(call);
    call.out(0, Value::of("VHS_FILENAMES", Filenames{call.boolean("save_output"), {}}));
    return;
  }
  Combining(call).run();
}

}  // namespace

void add_video_combine_nodes(graph::Catalog& catalog) {
  const std::string mark = " \U0001F3A5\U0001F165\U0001F157\U0001F162";
  catalog.add({
      .name = "VHS_VideoCombine",
      .display_name = "Video Combine" + mark,
      .category = "Video Helper Suite" + mark,
      .python_module = "custom_nodes.ComfyUI-VideoHelperSuite",
      .inputs = {link("images", "IMAGE"), number("frame_rate", {.def = 8, .min = 1, .step = 1}),
                 integer("loop_count", {.def = 0, .min = 0, .max = 100, .step = 1}),
                 text("filename_prefix", {.def = "AnimateDiff"}),
                 choice("format", combine_formats(), {.extra = {{"formats", combine_widgets()}}}),
                 boolean("pingpong", {.def = false}), boolean("save_output", {.def = true}),
                 optional(link("audio", "AUDIO")), optional(link("meta_batch", "VHS_BatchManager")),
                 optional(link("vae", "VAE"))},
      .hidden = {{"prompt", "PROMPT"},
                 {"extra_pnginfo", "EXTRA_PNGINFO"},
                 {"unique_id", "UNIQUE_ID"}},
      .outputs = {{"VHS_FILENAMES", "Filenames"}},
      .output_node = true,
      .run = run_combine,
      .any_link_types = true,
  });
}

}  // namespace distorch::nodes
