#include <fmt/format.h>

#include <cmath>
#include <fstream>
#include <set>

#include "distorch/base/run_token.h"
#include "distorch/media/read_image.h"
#include "distorch/media/video_reader.h"
#include "distorch/media/workflow_texts.h"
#include "distorch/nodes/video.h"
#include "tests/nodes/tiny_app.h"
#include "tests/support/faults.h"
#include "tests/support/source_dir.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

/// Sixteen frames that become brighter, with a second of sound.
class VideoApp : public TinyApp {
 public:
  VideoApp() : TinyApp({}, "video") {
    app.settings.input_folder = parity_dir();
    catalog.add({.name = "Frames",
                 .inputs = {graph::optional(graph::integer("count", {.def = 16})),
                            graph::optional(graph::integer("width", {.def = 64})),
                            graph::optional(graph::boolean("broken", {.def = false}))},
                 .outputs = {"IMAGE", "AUDIO"},
                 .run = [](graph::Call& call) {
                   auto count = call.integer("count");
                   auto images = at::linspace(0.1, 0.9, count)
                                     .view({count, 1, 1, 1})
                                     .repeat({1, 64, call.integer("width"), 3});
                   if (call.boolean("broken")) images[count - 1].fill_(NAN);
                   call.out(0, graph::Value::of("IMAGE", images));
                   auto time = at::arange(0, 44100, at::kFloat) / 44100.0;
                   auto wave = at::sin(time * 1382.3).mul(0.5).expand({1, 2, -1}).contiguous();
                   call.out(1, graph::Value::of("AUDIO", nodes::Audio{wave, 44100}));
                 }});
  }

  fs::path output(const std::string& name) const { return folder() / "output" / name; }
  std::set<std::string> written(const char* place = "output") const {
    std::set<std::string> names;
    std::error_code ignored;
    for (const auto& entry : fs::recursive_directory_iterator(folder() / place, ignored))
      if (entry.is_regular_file()) names.insert(entry.path().filename().string());
    return names;
  }
  std::string error(const Json& prompt) {
    auto result = run(prompt);
    std::string all = result.error;
    for (const auto& line : result.validation.lines()) all += line + "\n";
    return all;
  }
};

Json combine(Json inputs) {
  Json all = {{"images", {"1", 0}},        {"frame_rate", 16},           {"loop_count", 0},
              {"filename_prefix", "clip"}, {"format", "video/h264-mp4"}, {"pingpong", false},
              {"save_output", true}};
  if (inputs.is_object()) all.update(inputs);
  return {{"1", node("Frames", Json::object())}, {"2", node("VHS_VideoCombine", all)}};
}

at::Tensor bytes_of(const fs::path& file) {
  nodes::Video video{.file = file};
  return (nodes::parts_of(video).images * 255).round().to(at::kByte);
}

double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return (a.to(at::kFloat) - b.to(at::kFloat)).abs().max().item<double>();
}

struct Gifs : graph::EventSink {
  void send(const graph::Event& event) override {
    if (const auto* executed = std::get_if<graph::Executed>(&event)) shown = executed->output;
  }
  Json shown;
};

}  // namespace

TEST_CASE("video: what ComfyUI and VideoHelperSuite wrote is read as PyAV reads it") {
  Dump dump("video");
  auto facts = Json::parse(std::ifstream(parity_dir() / "video.json"));
  for (const char* name :
       {"video_saved.mp4", "video_saved.webm", "video_combined.mp4", "video_turned.mp4"}) {
    CAPTURE(name);
    auto file = parity_dir() / name;
    auto ours = bytes_of(file);
    auto theirs = dump[name];
    REQUIRE(ours.sizes() == theirs.sizes());
    // Other processors may round in other ways.
    CHECK(largest_difference(ours, theirs) <= 1);
    CHECK(media::VideoReader(file).facts().rate == media::Rate{16, 1});
    if (std::string(name) == "video_turned.mp4") continue;
    auto texts = media::workflow_texts(file);
    CHECK(Json::parse(texts.prompt.value()) == facts["prompt"]);
    CHECK(Json::parse(texts.workflow.value()) == facts["workflow"]);
  }
  auto sound = media::VideoReader(parity_dir() / "video_saved.mp4").sound();
  CHECK(sound.rate == 44100);
  auto part = dump["waveform"];
  auto waveform = nodes::to_audio(sound).waveform[0].narrow(1, 4000, 4000);
  CHECK(largest_difference(waveform, part) < 1e-4);
}

TEST_CASE("SaveVideo and LoadVideo: frames, sound, rate and workflow go round") {
  VideoApp tiny;
  for (const char* format : {"auto", "mkv", "webm"}) {
    CAPTURE(format);
    Json prompt = {
        {"1", node("Frames", Json::object())},
        {"2", node("CreateVideo", {{"images", {"1", 0}}, {"fps", 16.0}, {"audio", {"1", 1}}})},
        {"3", node("SaveVideo", {{"video", {"2", 0}},
                                 {"filename_prefix", "video/a"},
                                 {"format", format},
                                 {"codec", "auto"}})}};
    Gifs events;
    auto result = tiny.run(prompt, &events);
    REQUIRE_MESSAGE(result.run.status == graph::RunStatus::Success, result.error);
    CHECK(events.shown["animated"] == Json::array({true}));
    auto shown = events.shown["images"][0];
    CHECK(shown["subfolder"] == "video");
    CHECK(shown["type"] == "output");
    auto name = shown["filename"].get<std::string>();
    auto path = tiny.output("video/" + name);
    auto facts = media::VideoReader(path).facts();
    CHECK(facts.rate == media::Rate{16, 1});
    CHECK(facts.codec == (std::string(format) == "webm" ? "av1" : "h264"));
    CHECK(facts.colours == media::Colours::Srgb);
    CHECK(facts.has_sound);
    auto texts = media::workflow_texts(path);
    CHECK(Json::parse(texts.prompt.value())["3"]["class_type"] == "SaveVideo");
    CHECK(Json::parse(texts.workflow.value())["note"] == "gr\u00fc\u00df");
    tiny.app.settings.input_folder = tiny.output("video");
    Json load = {{"1", node("LoadVideo", {{"file", name}})},
                 {"2", node("GetVideoComponents", {{"video", {"1", 0}}})}};
    auto images = tiny.value_of(load, {"2", 0}).as<at::Tensor>();
    REQUIRE(images.sizes() == at::IntArrayRef({16, 64, 64, 3}));
    auto wanted = at::linspace(0.1, 0.9, 16).view({16, 1, 1, 1}).expand_as(images);
    CHECK(largest_difference(images, wanted) < 0.03);
    CHECK(tiny.value_of(load, {"2", 2}).as<Json>() == 16.0);
    const auto audio = tiny.value_of(load, {"2", 1}).as<nodes::Audio>();
    CHECK(audio.waveform.size(1) == 2);
    CHECK(audio.waveform.size(2) == doctest::Approx(audio.rate).epsilon(0.1));
    // Copied without being decoded.
    load["3"] = node("SaveVideo", {{"video", {"1", 0}},
                                   {"filename_prefix", "copy/a"},
                                   {"format", format},
                                   {"codec", "auto"}});
    tiny.run_well(load);
    auto copy = tiny.output("copy/" + name);
    CHECK(at::equal(bytes_of(copy), bytes_of(path)));
    CHECK(Json::parse(media::workflow_texts(copy).prompt.value())["3"]["class_type"] ==
          "SaveVideo");
  }
}

TEST_CASE("SaveVideo: codec, quality and depth are as asked") {
  VideoApp tiny;
  Json prompt = {
      {"1", node("Frames", Json::object())},
      {"2", node("CreateVideo", {{"images", {"1", 0}}, {"fps", 23.976}, {"bit_depth", 10}})},
      {"3", node("SaveVideo", {{"video", {"2", 0}},
                               {"filename_prefix", "a"},
                               {"format", "mp4"},
                               {"format.codec", "h264"},
                               {"format.codec.encoding", "re-encode"},
                               {"format.codec.encoding.crf", 5.0},
                               {"format.codec.encoding.color_space", "HDR"}})}};
  tiny.run_well(prompt);
  auto facts = media::VideoReader(tiny.output("a_00001_.mp4")).facts();
  CHECK(facts.bits == 10);
  CHECK(facts.colours == media::Colours::Hlg);
  CHECK(facts.rate == media::Rate{2997, 125});
  prompt["3"]["inputs"]["format"] = "webm";
  prompt["3"]["inputs"]["format.codec"] = "h264";
  CHECK(tiny.error(prompt) != "");
  CHECK(tiny.written() == std::set<std::string>{"a_00001_.mp4"});
}

TEST_CASE("Video Slice takes a part of a file and of frames") {
  VideoApp tiny;
  tiny.app.settings.input_folder = parity_dir();
  for (bool of_file : {true, false}) {
    CAPTURE(of_file);
    Json prompt = {{"1", node("Frames", {{"count", 6}})},
                   {"5", of_file ? node("LoadVideo", {{"file", "video_saved.mp4"}})
                                 : node("CreateVideo", {{"images", {"1", 0}}, {"fps", 16.0}})},
                   {"2", node("Video Slice", {{"video", {"5", 0}},
                                              {"start_time", 0.125},
                                              {"duration", 0.1875},
                                              {"strict_duration", true}})},
                   {"3", node("GetVideoComponents", {{"video", {"2", 0}}})}};
    auto whole = tiny.value_of({{"1", prompt["1"]},
                                {"5", prompt["5"]},
                                {"3", node("GetVideoComponents", {{"video", {"5", 0}}})}},
                               {"3", 0})
                     .as<at::Tensor>();
    auto part = tiny.value_of(prompt, {"3", 0}).as<at::Tensor>();
    REQUIRE(part.size(0) == 3);
    CHECK(at::equal(part, whole.narrow(0, 2, 3)));
    prompt["2"]["inputs"]["start_time"] = -0.125;
    prompt["2"]["inputs"]["duration"] = 0.0;
    CHECK(tiny.value_of(prompt, {"3", 0}).as<at::Tensor>().size(0) == 2);
    prompt["2"]["inputs"]["duration"] = 1.0;
    prompt["keep"] = node("Keep", {{"value", {"3", 0}}});
    CHECK(tiny.error(prompt).find("are not there, the video has") != std::string::npos);
  }
}

TEST_CASE("SaveWEBM writes both codecs, and transparency") {
  VideoApp tiny;
  for (const char* codec : {"vp9", "av1"}) {
    Json prompt = {{"1", node("Frames", Json::object())},
                   {"2", node("SaveWEBM", {{"images", {"1", 0}},
                                           {"filename_prefix", codec},
                                           {"codec", codec},
                                           {"fps", 24.0},
                                           {"crf", 20.0}})}};
    tiny.run_well(prompt);
    media::VideoReader reader(tiny.output(std::string(codec) + "_00001_.webm"));
    CHECK(reader.facts().codec == codec);
    CHECK(reader.facts().rate == media::Rate{24, 1});
    CHECK(bytes_of(tiny.output(std::string(codec) + "_00001_.webm")).size(0) == 16);
  }
}

TEST_CASE("VHS_VideoCombine writes its formats, with the PNG beside them") {
  VideoApp tiny;
  struct Form {
    const char *format, *name, *codec;
  };
  int number = 0;
  for (const Form& form :
       {Form{"video/h264-mp4", "mp4", "h264"}, Form{"video/h265-mp4", "mp4", "hevc"},
        Form{"video/webm", "webm", "vp9"}, Form{"video/ProRes", "mov", "prores"},
        Form{"video/ffv1-mkv", "mkv", "ffv1"}, Form{"video/ffmpeg-gif", "gif", "gif"},
        Form{"image/gif", "gif", "gif"}, Form{"image/webp", "webp", ""}}) {
    CAPTURE(form.format);
    auto prompt = combine({{"format", form.format}});
    Gifs events;
    auto result = tiny.run(prompt, &events);
    REQUIRE_MESSAGE(result.run.status == graph::RunStatus::Success, result.error);
    auto start = fmt::format("clip_{:05}", ++number);
    auto shown = events.shown["gifs"][0];
    CHECK(shown["filename"] == start + "." + form.name);
    CHECK(shown["workflow"] == start + ".png");
    CHECK(shown["format"] == form.format);
    CHECK(shown["frame_rate"] == 16);
    CHECK(shown["type"] == "output");
    CHECK(shown["fullpath"] == tiny.output(start + "." + form.name).string());
    CHECK(media::workflow_texts(tiny.output(start + ".png")).workflow);
    auto path = tiny.output(start + "." + form.name);
    auto frames = *form.codec ? bytes_of(path) : at::Tensor();
    if (*form.codec) {
      CHECK(media::VideoReader(path).facts().codec == form.codec);
      REQUIRE(frames.sizes() == at::IntArrayRef({16, 64, 64, 3}));
      auto wanted = (at::linspace(0.1, 0.9, 16) * 255).view({16, 1, 1, 1}).expand_as(frames);
      CHECK(largest_difference(frames, wanted) < 8);
    } else {
      CHECK(media::read_frames(path).size() == 16);
    }
    bool tagged = std::string(form.codec) == "h264" || std::string(form.codec) == "vp9";
    if (tagged)
      CHECK(Json::parse(media::workflow_texts(path).prompt.value())["2"]["class_type"] ==
            "VHS_VideoCombine");
  }
}

TEST_CASE("VHS_VideoCombine: sound, back and forth, repeats, odd sizes, widgets") {
  VideoApp tiny;
  auto prompt = combine({{"audio", {"1", 1}}, {"crf", 30}, {"pix_fmt", "yuv420p10le"}});
  prompt["1"]["inputs"] = {{"count", 4}, {"width", 63}};
  prompt["2"]["inputs"]["pingpong"] = true;
  prompt["2"]["inputs"]["loop_count"] = 1;
  Gifs events;
  auto result = tiny.run(prompt, &events);
  REQUIRE_MESSAGE(result.run.status == graph::RunStatus::Success, result.error);
  CHECK(events.shown["gifs"][0]["filename"] == "clip_00001-audio.mp4");
  CHECK(tiny.written() ==
        std::set<std::string>{"clip_00001.png", "clip_00001.mp4", "clip_00001-audio.mp4"});
  for (const char* name : {"clip_00001.mp4", "clip_00001-audio.mp4"}) {
    auto facts = media::VideoReader(tiny.output(name)).facts();
    CHECK(facts.width == 64);
    CHECK(facts.bits == 10);
    CHECK(facts.colours == media::Colours::Bt709);
    auto frames = bytes_of(tiny.output(name));
    REQUIRE(frames.size(0) == 10);  // 4 and 4 and 2 on the way back
    CHECK(largest_difference(frames[0], frames[4]) < 8);
    CHECK(largest_difference(frames[9], frames[1]) < 12);
  }
  media::VideoReader heard(tiny.output("clip_00001-audio.mp4"));
  CHECK(heard.facts().sound_codec == "aac");
  CHECK(heard.sound().seconds() == doctest::Approx(10 / 16.0).epsilon(0.1));
  CHECK(media::workflow_texts(tiny.output("clip_00001-audio.mp4")).prompt);
  auto gif = prompt;
  gif["2"]["inputs"].update({{"format", "video/ffmpeg-gif"}, {"filename_prefix", "gif"}});
  tiny.run_well(gif);
  CHECK(bytes_of(tiny.output("gif_00001.gif")).sizes() == at::IntArrayRef({10, 64, 64, 3}));
  prompt["2"]["inputs"].update({{"save_output", false}, {"save_metadata", false}});
  prompt["2"]["inputs"].erase("audio");
  tiny.run_well(prompt);
  CHECK(tiny.written("temp") == std::set<std::string>{"clip_00001.png", "clip_00001.mp4"});
  CHECK(!media::workflow_texts(tiny.folder() / "temp" / "clip_00001.mp4").prompt);
}

TEST_CASE("video: an error at any frame, a stop and a full disk leave nothing") {
  VideoApp tiny;
  for (const char* format : {"video/h264-mp4", "video/webm", "image/gif", "video/8bit-png"}) {
    CAPTURE(format);
    auto prompt = combine({{"format", format}});
    prompt["1"]["inputs"]["broken"] = true;
    CHECK(tiny.error(prompt).find("NaN") != std::string::npos);
    CHECK(tiny.written().empty());
  }
  auto prompt = combine({{"pix_fmt", "nothing"}});
  CHECK(tiny.error(prompt).find("pix_fmt") != std::string::npos);
  // A file of some size, so that it is written in several pieces.
  prompt = combine({{"crf", 0}});
  int pieces = 0;
  for (int nth = 1; nth < 200; ++nth) {
    fail_call(Call::Write, nth);
    auto error = tiny.error(prompt);
    bool failed = !call_pending(Call::Write);
    fail_call(Call::Write, 0);
    if (!failed) break;
    ++pieces;
    CHECK(error.find("cannot write: No space left on device") != std::string::npos);
    CHECK(tiny.written().empty());
  }
  CHECK(pieces >= 3);
}

TEST_CASE("video: a run that is stopped while it encodes leaves nothing") {
  VideoApp tiny;
  struct Stopping : graph::EventSink {
    void send(const graph::Event& event) override {
      const auto* progress = std::get_if<graph::Progress>(&event);
      if (!progress || progress->node != "2") return;
      ++steps;
      if (auto token = current_run(); token && steps == 5) token->interrupt();
    }
    int steps = 0;
  } events;
  auto result = tiny.run(combine({}), &events);
  CHECK(result.run.status == graph::RunStatus::Interrupted);
  CHECK(events.steps == 5);
  CHECK(tiny.written().empty());
}

TEST_CASE("VHS_LoadVideo takes the frames that it is asked for") {
  VideoApp tiny;
  tiny.app.settings.input_folder = parity_dir();
  auto load = [&](const Json& inputs, int slot) {
    Json all = {{"video", "video_saved.mp4"}, {"force_rate", 0},     {"custom_width", 0},
                {"custom_height", 0},         {"frame_load_cap", 0}, {"skip_first_frames", 0},
                {"select_every_nth", 1},      {"format", "None"}};
    all.update(inputs);
    Json prompt = {{"1", node("VHS_LoadVideo", all)},
                   {"2", node("VHS_VideoInfo", {{"video_info", {"1", 3}}})}};
    return tiny.value_of(prompt, slot < 10 ? Json{"1", slot} : Json{"2", slot - 10});
  };
  auto whole = load(Json::object(), 0).as<at::Tensor>();
  REQUIRE(whole.sizes() == at::IntArrayRef({6, 24, 32, 3}));
  CHECK(load(Json::object(), 1).as<Json>() == 6);
  CHECK(load(Json::object(), 2).as<nodes::Audio>().rate == 44100);
  CHECK(at::equal(load({{"skip_first_frames", 2}, {"frame_load_cap", 3}}, 0).as<at::Tensor>(),
                  whole.narrow(0, 2, 3)));
  CHECK(at::equal(load({{"select_every_nth", 2}}, 0).as<at::Tensor>(),
                  at::stack({whole[0], whole[2], whole[4]})));
  CHECK(at::equal(load({{"force_rate", 8}}, 0).as<at::Tensor>(),
                  at::stack({whole[0], whole[2], whole[4]})));
  auto twice = load({{"force_rate", 32}}, 0).as<at::Tensor>();
  // The first frame is taken once, as VideoHelperSuite does.
  REQUIRE(twice.size(0) == 11);
  CHECK(at::equal(twice[5], twice[6]));
  CHECK(!at::equal(twice[6], twice[7]));
  CHECK(load({{"custom_width", 16}}, 0).as<at::Tensor>().sizes() ==
        at::IntArrayRef({6, 12, 16, 3}));
  CHECK(load({{"format", "Wan"}}, 0).as<at::Tensor>().size(0) == 5);
  CHECK(load(Json::object(), 10).as<Json>() == 16.0);
  CHECK(load(Json::object(), 11).as<Json>() == 6);
  CHECK(load({{"select_every_nth", 2}}, 15).as<Json>() == 8.0);
  Json none = {{"1", node("VHS_LoadVideo", {{"video", "video_saved.mp4"},
                                            {"force_rate", 0},
                                            {"custom_width", 0},
                                            {"custom_height", 0},
                                            {"frame_load_cap", 0},
                                            {"skip_first_frames", 50},
                                            {"select_every_nth", 1}})},
               {"keep", node("Keep", {{"value", {"1", 0}}})}};
  CHECK(tiny.error(none).find("skip_first_frames is 50") != std::string::npos);
  none["1"]["inputs"]["video"] = "video.json";
  CHECK(tiny.error(none).find("no video or sound of a known container") != std::string::npos);
}

TEST_CASE("sound: saved in each form, loaded again, cut") {
  VideoApp tiny;
  struct Form {
    const char *type, *quality, *name;
  };
  for (const Form& form :
       {Form{"SaveAudio", "", "a_00001_.flac"}, Form{"SaveAudioMP3", "V0", "a_00001_.mp3"},
        Form{"SaveAudioMP3", "128k", "a_00002_.mp3"},
        Form{"SaveAudioOpus", "128k", "a_00001_.opus"}}) {
    CAPTURE(form.name);
    Json inputs = {{"audio", {"1", 1}}, {"filename_prefix", "audio/a"}};
    if (*form.quality) inputs["quality"] = form.quality;
    // Numbers count the files of every ending.
    tiny.app.settings.output_folder = tiny.folder() / form.type / form.quality;
    Gifs events;
    auto result =
        tiny.run({{"1", node("Frames", Json::object())}, {"2", node(form.type, inputs)}}, &events);
    REQUIRE_MESSAGE(result.run.status == graph::RunStatus::Success, result.error);
    auto shown = events.shown["audio"][0];
    CHECK(shown["subfolder"] == "audio");
    auto name = shown["filename"].get<std::string>();
    tiny.app.settings.input_folder = tiny.app.settings.output_folder / "audio";
    CHECK(media::workflow_texts(tiny.app.settings.input_folder / name).prompt);
    Json load = {{"1", node("LoadAudio", {{"audio", name}})},
                 {"2", node("TrimAudioDuration",
                            {{"audio", {"1", 0}}, {"start_index", 0.25}, {"duration", 0.5}})}};
    auto audio = tiny.value_of(load, {"1", 0}).as<nodes::Audio>();
    CHECK(audio.waveform.size(1) == 2);
    CHECK(audio.waveform.size(2) == doctest::Approx(audio.rate).epsilon(0.1));
    auto part = tiny.value_of(load, {"2", 0}).as<nodes::Audio>();
    CHECK(part.waveform.size(2) == audio.rate / 2);
  }
  Json silent = {{"1", node("LoadVideo", {{"file", "video_turned.mp4"}})},
                 {"2", node("GetVideoComponents", {{"video", {"1", 0}}})},
                 {"3", node("SaveAudio", {{"audio", {"2", 1}}, {"filename_prefix", "a"}})}};
  tiny.app.settings.input_folder = parity_dir();
  CHECK(tiny.error(silent).find("has no sound") != std::string::npos);
}
