// VideoHelperSuite's loaders. Source: videohelpersuite/load_video_nodes.py.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <tuple>
#include <utility>

#include "distorch/base/error.h"
#include "distorch/media/video_reader.h"
#include "distorch/nodes/catalog.h"
#include "distorch/nodes/input_files.h"
#include "distorch/nodes/pictures.h"
#include "distorch/nodes/vae_coding.h"
#include "distorch/nodes/video.h"

namespace distorch::nodes {

using at::Tensor;
using graph::Call;
using graph::choice;
using graph::Choices;
using graph::integer;
using graph::Json;
using graph::link;
using graph::number;
using graph::optional;
using graph::Value;

namespace {

constexpr const char* kModule = "custom_nodes.ComfyUI-VideoHelperSuite";
constexpr std::int64_t kAny = 9007199254740991;  // the largest number that pages keep exactly

std::string marked(const char* text, const char* before = " ") {
  return std::string(text) + before + "\U0001F3A5\U0001F165\U0001F157\U0001F162";
}

/// What a model wants of a video: the rate, sides that are multiples of `step`, and as many frames
/// as a multiple of `frames` and one more.
struct ModelForm {
  const char* name;
  int rate, step, width, height, frames;
};
constexpr ModelForm kForms[] = {
    {"AnimateDiff", 8, 8, 512, 512, 0}, {"Mochi", 24, 16, 848, 480, 6},
    {"LTXV", 24, 32, 768, 512, 8},      {"Hunyuan", 24, 16, 848, 480, 4},
    {"Cosmos", 24, 16, 1280, 704, 8},   {"Wan", 16, 8, 832, 480, 4},
};

const ModelForm* form_named(const std::string& name) {
  for (const auto& form : kForms)
    if (name == form.name) return &form;
  return nullptr;
}

Json form_options() {
  Json all = {{"None", Json::object()}};
  for (const auto& form : kForms) {
    Json& one = all[form.name];
    one["target_rate"] = form.rate;
    one["dim"] = {form.step, 0, form.width, form.height};
    if (form.frames > 0) one["frames"] = {form.frames, 1};
  }
  return all;
}

/// VHS_VIDEOINFO
struct VideoInfo {
  double source_rate = 0;
  std::int64_t source_frames = 0;
  double source_seconds = 0;
  std::int64_t source_width = 0, source_height = 0;
  double loaded_rate = 0;
  std::int64_t loaded_frames = 0;
  double loaded_seconds = 0;
  std::int64_t loaded_width = 0, loaded_height = 0;
};

/// Which frames are taken.
struct Choice {
  explicit Choice(Call& call)
      : rate(call.number("force_rate")),
        most(call.integer("frame_load_cap")),
        skipped(call.integer("skip_first_frames")),
        every(call.integer("select_every_nth")) {}
  double rate;
  std::int64_t most, skipped, every;
};

/// Frames whose times come next at the wanted rate: one of the file may be taken several times or
/// not at all.
class Picker {
 public:
  Picker(const Choice& choice, double source_rate)
      : choice_(choice),
        base_(1 / source_rate),
        target_(choice.rate > 0 ? 1 / choice.rate : base_),
        ahead_(target_ - base_) {}

  double target_seconds() const { return target_; }
  bool enough() const { return choice_.most > 0 && taken_ >= choice_.most; }

  /// How often the next frame of the file is taken.
  int times() {
    ahead_ += base_;
    int count = 0;
    while (ahead_ >= target_ && !enough()) {
      ahead_ -= target_;
      if (++seen_ <= choice_.skipped) continue;
      if (evaluated_++ % choice_.every != 0) continue;
      ++taken_;
      ++count;
    }
    return count;
  }

 private:
  Choice choice_;
  double base_, target_, ahead_;
  std::int64_t seen_ = 0, evaluated_ = 0, taken_ = 0;
};

/// The size that a video is loaded in: 0 follows the other side or stays.
std::pair<std::int64_t, std::int64_t> target_size(double width, double height, Call& call,
                                                  std::int64_t step) {
  auto wanted_width = static_cast<double>(call.integer("custom_width"));
  auto wanted_height = static_cast<double>(call.integer("custom_height"));
  if (wanted_width > 0 && wanted_height > 0) {
    width = wanted_width;
    height = wanted_height;
  } else if (wanted_width > 0) {
    height *= wanted_width / width;
    width = wanted_width;
  } else if (wanted_height > 0) {
    width *= wanted_height / height;
    height = wanted_height;
  }
  auto stepped = [step](double side) {
    auto count = static_cast<std::int64_t>(side / static_cast<double>(step) + 0.5);
    return std::max<std::int64_t>(count, 1) * step;
  };
  return {stepped(width), stepped(height)};
}

class Loading {
 public:
  Loading(Call& call, const std::filesystem::path& path)
      : call_(call), path_(path), reader_(path), choice_(call) {
    const auto& facts = reader_.facts();
    if (!facts.has_pictures)
      throw Error(ErrorKind::Format, path.string(), "holds no pictures, only sound");
    info_.source_rate = facts.rate.value();
    info_.source_seconds = facts.seconds;
    info_.source_frames =
        facts.frames > 0 ? facts.frames : std::llround(facts.seconds * info_.source_rate);
    info_.source_width = facts.width;
    info_.source_height = facts.height;
    if (call.has("format")) form_ = form_named(call.text("format"));
    coded_ = call.has("vae");
    std::int64_t step = coded_ ? vae_coding_of(call).factor() : form_ ? form_->step : 1;
    std::tie(info_.loaded_width, info_.loaded_height) =
        target_size(facts.width, facts.height, call, step);
  }

  void run() {
    auto images = load();
    info_.loaded_frames = images.size(0);
    info_.loaded_seconds = static_cast<double>(images.size(0)) / info_.loaded_rate;
    auto audio = sound();
    if (coded_)
      call_.out(0,
                Value::of("LATENT", sampling::Latent{vae_coding_of(call_).encode(images), {}, {}}));
    else
      image_out(call_, 0, images);
    call_.out(1, Value::constant(images.size(0)));
    call_.out(2, std::move(audio));
    call_.out(3, Value::of("VHS_VIDEOINFO", info_));
  }

 private:
  Tensor load() {
    Picker picker(choice_, info_.source_rate);
    target_ = picker.target_seconds();
    info_.loaded_rate = 1 / (target_ * static_cast<double>(choice_.every));
    std::vector<Tensor> frames;
    reader_.frames([&](const media::Image& picture, double) {
      if (auto times = picker.times(); times > 0) {
        auto frame = fitted(to_tensor(picture));
        for (int i = 0; i < times; ++i) frames.push_back(frame);
        call_.progress(static_cast<double>(frames.size()), progress_end(frames.size()));
      }
      return !picker.enough();
    });
    if (frames.empty())
      throw Error(ErrorKind::Usage, call_.place(),
                  fmt::format("no frame of {} is left: skip_first_frames is {}", path_.string(),
                              choice_.skipped));
    if (form_ && form_->frames > 0) {
      auto fitting = (frames.size() - 1) / static_cast<std::size_t>(form_->frames) *
                         static_cast<std::size_t>(form_->frames) +
                     1;
      frames.resize(fitting);
    }
    return at::stack(frames);
  }

  double progress_end(std::size_t loaded) const {
    auto expected = choice_.most > 0 ? choice_.most : info_.source_frames;
    return std::max(static_cast<double>(expected), static_cast<double>(loaded));
  }

  Tensor fitted(const Tensor& frame) const {
    if (frame.size(0) == info_.loaded_height && frame.size(1) == info_.loaded_width) return frame;
    return resize_image(frame.unsqueeze(0),
                        {info_.loaded_width, info_.loaded_height, "lanczos", true})[0]
        .contiguous();
  }

  Value sound() {
    if (!reader_.facts().has_sound) return Value::constant(nullptr);
    media::TimeRange range{
        static_cast<double>(choice_.skipped) * target_,
        static_cast<double>(choice_.most) * static_cast<double>(choice_.every) * target_};
    auto sound = reader_.sound(range);
    return sound.length() == 0 ? Value::constant(nullptr) : Value::of("AUDIO", to_audio(sound));
  }

  Call& call_;
  std::filesystem::path path_;
  media::VideoReader reader_;
  Choice choice_;
  const ModelForm* form_ = nullptr;
  bool coded_ = false;
  double target_ = 0;
  VideoInfo info_;
};

void run_load(Call& call) {
  Loading(call, annotated_path(call.text("video"), call.context<Settings>())).run();
}

void run_info(Call& call) {
  const auto& info = call.get<VideoInfo>("video_info");
  const Json values[] = {info.source_rate,   info.source_frames,  info.source_seconds,
                         info.source_width,  info.source_height,  info.loaded_rate,
                         info.loaded_frames, info.loaded_seconds, info.loaded_width,
                         info.loaded_height};
  for (std::size_t i = 0; i < std::size(values); ++i) call.out(i, Value::constant(values[i]));
}

void run_sound(Call& call) {
  auto path = annotated_path(call.text("audio"), call.context<Settings>());
  media::VideoReader reader(path);
  auto sound = reader.sound({call.number("start_time"), call.number("duration")});
  if (sound.length() == 0)
    throw Error(ErrorKind::Format, path.string(),
                fmt::format("has no sound from second {} on", call.number("start_time")));
  call.out(1, Value::constant(sound.seconds()));
  call.out(0, Value::of("AUDIO", to_audio(sound)));
}

using NameCheck = std::vector<graph::InputCheck>;

NameCheck named_file(App& app, const char* input, std::function<std::vector<std::string>()> names) {
  return {{{input}, [&app, input, names](const Call& call) {
             return missing_input(call.text(input), app.settings, names());
           }}};
}

auto change_of(App& app, const char* input) {
  return [&app, input](const Call& call) {
    return std::optional(ModelCache::identity(annotated_path(call.text(input), app.settings)));
  };
}

graph::Input any_count(const char* name, std::int64_t initial, bool can_be_off) {
  Json extra = can_be_off ? Json{{"disable", 0}} : Json();
  return integer(name, {.def = initial, .min = initial, .max = kAny, .step = 1, .extra = extra});
}

void add_info_node(graph::Catalog& catalog) {
  const std::string source = "\U0001F7E8", loaded = "\U0001F7E6";
  std::vector<graph::Output> outputs;
  for (const auto& [which, mark] : {std::pair{"source_", source}, std::pair{"loaded_", loaded}})
    for (const auto& [type, what] :
         {std::pair{"FLOAT", "fps"}, std::pair{"INT", "frame_count"},
          std::pair{"FLOAT", "duration"}, std::pair{"INT", "width"}, std::pair{"INT", "height"}})
      outputs.emplace_back(type, which + std::string(what) + mark);
  catalog.add({
      .name = "VHS_VideoInfo",
      .display_name = marked("Video Info"),
      .category = marked("Video Helper Suite"),
      .python_module = kModule,
      .inputs = {link("video_info", "VHS_VIDEOINFO")},
      .outputs = std::move(outputs),
      .run = run_info,
  });
}

}  // namespace

void add_video_load_nodes(graph::Catalog& catalog, App& app) {
  auto videos = [&app] {
    auto endings = video_endings();
    endings.emplace_back(".gif");
    return input_names(app.settings, endings);
  };
  auto sounds = [&app] { return input_names(app.settings, audio_endings()); };
  std::vector<std::string> forms = {"None"};
  for (const auto& form : kForms) forms.emplace_back(form.name);
  auto side = [](const char* name) {
    return integer(name, {.def = 0, .min = 0, .max = 8192, .extra = {{"disable", 0}}});
  };
  catalog.add({
      .name = "VHS_LoadVideo",
      .display_name = marked("Load Video (Upload)"),
      .category = marked("Video Helper Suite"),
      .python_module = kModule,
      .inputs = {choice("video", Choices(videos)),
                 number("force_rate",
                        {.def = 0, .min = 0, .max = 60, .step = 1, .extra = {{"disable", 0}}}),
                 side("custom_width"), side("custom_height"), any_count("frame_load_cap", 0, true),
                 any_count("skip_first_frames", 0, false), any_count("select_every_nth", 1, false),
                 optional(link("meta_batch", "VHS_BatchManager")), optional(link("vae", "VAE")),
                 optional(choice("format", forms,
                                 {.def = "AnimateDiff", .extra = {{"formats", form_options()}}}))},
      .hidden = {{"force_size", "STRING"}, {"unique_id", "UNIQUE_ID"}},
      .outputs =
          {"IMAGE", {"INT", "frame_count"}, {"AUDIO", "audio"}, {"VHS_VIDEOINFO", "video_info"}},
      .run = run_load,
      .change_key = change_of(app, "video"),
      .checks = named_file(app, "video", videos),
  });
  add_info_node(catalog);
  auto stamp = [](const char* name) {
    return optional(number(name, {.def = 0,
                                  .min = 0,
                                  .max = 10000000,
                                  .step = 0.01,
                                  .extra = {{"widgetType", "VHSTIMESTAMP"}}}));
  };
  catalog.add({
      .name = "VHS_LoadAudioUpload",
      .display_name = marked("Load Audio (Upload)", ""),
      .category = marked("Video Helper Suite") + "/audio",
      .python_module = kModule,
      .inputs = {choice("audio", Choices(sounds)), stamp("start_time"), stamp("duration")},
      .outputs = {{"AUDIO", "audio"}, {"FLOAT", "duration"}},
      .run = run_sound,
      .change_key = change_of(app, "audio"),
      .checks = named_file(app, "audio", sounds),
  });
}

}  // namespace distorch::nodes
