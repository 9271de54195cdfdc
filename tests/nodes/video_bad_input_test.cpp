// What goes wrong with videos in a workflow: files that are cut short, forms and codecs that are not there, a full disk.
#include <fstream>

#include "distorch/base/atomic_file.h"
#include "distorch/nodes/video.h"
#include "tests/nodes/tiny_app.h"
#include "tests/support/faults.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;

namespace {

/// Nine frames; how often they have been made.
class ClipApp : public TinyApp {
 public:
  ClipApp() : TinyApp({}, "bad_video") {
    catalog.add({.name = "Frames", .outputs = {"IMAGE"}, .run = [this](graph::Call& call) {
                   ++made;
                   auto images =
                       at::linspace(0.1, 0.9, 9).view({9, 1, 1, 1}).repeat({1, 64, 64, 3});
                   call.out(0, graph::Value::of("IMAGE", images));
                 }});
  }
  Json saved(const char* codec = "auto") const {
    return {{"1", node("Frames", Json::object())},
            {"2", node("CreateVideo", {{"images", {"1", 0}}, {"fps", 16.0}})},
            {"3", node("SaveVideo", {{"video", {"2", 0}},
                                     {"filename_prefix", "clip"},
                                     {"format", "auto"},
                                     {"codec", codec}})}};
  }
  std::size_t files() const {
    std::size_t count = 0;
    std::error_code ignored;
    for (const auto& entry : fs::recursive_directory_iterator(folder() / "output", ignored))
      count += entry.is_regular_file();
    return count;
  }
  std::string error(const Json& prompt) {
    auto result = run(prompt);
    std::string all = result.error;
    for (const auto& line : result.validation.lines()) all += line + "\n";
    return all;
  }

  int made = 0;
};

}  // namespace

TEST_CASE("video: frames of one that could not be written are saved as pictures from the cache") {
  ClipApp tiny;
  // The disk is full at every one of the writings in turn: at the start, in the middle, at the end.
  int writings = 0;
  for (;; ++writings) {
    CAPTURE(writings);
    REQUIRE(writings < 100);
    fail_call(Call::Write, writings + 1);
    const auto error = tiny.error(tiny.saved());
    const bool failed = !call_pending(Call::Write);
    fail_call(Call::Write, 0);
    if (!failed) break;
    CHECK(error.find("No space left on device") != std::string::npos);
    CHECK(error.find("clip_00001_.mp4") != std::string::npos);
    CHECK(tiny.files() == 0);
  }
  CHECK(writings >= 2);
  // The last one was written whole, by the frames that were made once.
  const auto video = tiny.folder() / "output" / "clip_00001_.mp4";
  CHECK(fs::exists(video));
  fs::remove(video);
  auto prompt = tiny.saved();
  prompt.erase("2");
  prompt["3"] = node("SaveImage", {{"images", {"1", 0}}, {"filename_prefix", "frame"}});
  tiny.run_well(prompt);
  CHECK(tiny.made == 1);
  CHECK(tiny.files() == 9);
}

TEST_CASE(
    "video: forms and codecs that are not there are told, with what is, before anything runs") {
  ClipApp tiny;
  auto error = tiny.error(tiny.saved("h267"));
  CHECK(error.find("h267") != std::string::npos);
  CHECK(error.find("h264") != std::string::npos);
  auto prompt = tiny.saved();
  prompt["3"] = node("VHS_VideoCombine", {{"images", {"1", 0}},
                                          {"frame_rate", 16},
                                          {"loop_count", 0},
                                          {"filename_prefix", "clip"},
                                          {"format", "video/h267-mp4"},
                                          {"pingpong", false},
                                          {"save_output", true}});
  error = tiny.error(prompt);
  CHECK(error.find("video/h267-mp4") != std::string::npos);
  CHECK(error.find("video/h264-mp4") != std::string::npos);
  CHECK(tiny.made == 0);
  CHECK(tiny.files() == 0);
}

TEST_CASE("video: nodes that load one that is cut short name the file") {
  ClipApp tiny;
  tiny.run_well(tiny.saved());
  const auto input = tiny.folder() / "input";
  fs::create_directories(input);
  auto bytes = read_file(tiny.folder() / "output" / "clip_00001_.mp4");
  for (auto size : {bytes.size() / 2, bytes.size() / 4, std::size_t{20}}) {
    CAPTURE(size);
    std::ofstream(input / "short.mp4", std::ios::binary) << bytes.substr(0, size);
    tiny.app.settings.input_folder = input;
    Json parts = {{"1", node("LoadVideo", {{"file", "short.mp4"}})},
                  {"2", node("GetVideoComponents", {{"video", {"1", 0}}})},
                  {"3", node("SaveImage", {{"images", {"2", 0}}, {"filename_prefix", "frame"}})}};
    CHECK(tiny.error(parts).find("short.mp4") != std::string::npos);
    Json frames = {{"1", node("VHS_LoadVideo", {{"video", "short.mp4"},
                                                {"force_rate", 0},
                                                {"custom_width", 0},
                                                {"custom_height", 0},
                                                {"frame_load_cap", 0},
                                                {"skip_first_frames", 0},
                                                {"select_every_nth", 1},
                                                {"format", "None"}})},
                   {"3", node("SaveImage", {{"images", {"1", 0}}, {"filename_prefix", "frame"}})}};
    CHECK(tiny.error(frames).find("short.mp4") != std::string::npos);
  }
  CHECK(tiny.files() == 1);
}
