#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <numbers>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/media/ffmpeg/library.h"
#include "distorch/media/video_reader.h"
#include "distorch/media/video_writer.h"
#include "tests/media/difference.h"

using namespace distorch;
using namespace distorch::media;
using test::mean_difference;
namespace fs = std::filesystem;

namespace {

class Folder {
 public:
  Folder() : path_(fs::temp_directory_path() / ("distorch_video_" + std::to_string(::getpid()))) {
    fs::remove_all(path_);
    fs::create_directories(path_);
  }
  ~Folder() { fs::remove_all(path_); }
  fs::path operator/(const char* name) const { return path_ / name; }
  std::size_t files() const {
    return static_cast<std::size_t>(
        std::distance(fs::directory_iterator(path_), fs::directory_iterator{}));
  }

 private:
  fs::path path_;
};

constexpr int kWidth = 64, kHeight = 64, kFrames = 12;

/// Smooth, so that encoders keep it, and another one for each index.
Image frame_of(int index, int channels = 3) {
  auto image = blank_image(kWidth, kHeight, channels);
  for (int y = 0; y < kHeight; ++y)
    for (int x = 0; x < kWidth; ++x) {
      auto* pixel = &image.pixels[static_cast<std::size_t>((y * kWidth + x) * channels)];
      pixel[0] = static_cast<std::uint8_t>(40 + 2 * x);
      pixel[1] = static_cast<std::uint8_t>(60 + 2 * y);
      pixel[2] = static_cast<std::uint8_t>(30 + 15 * index);
      if (channels == 4) pixel[3] = 255;
    }
  return image;
}

Sound tone(int rate, double seconds, int channels) {
  Sound sound{rate, {}};
  for (int c = 0; c < channels; ++c) {
    std::vector<float> samples(static_cast<std::size_t>(rate * seconds));
    for (std::size_t i = 0; i < samples.size(); ++i)
      samples[i] = static_cast<float>(
          0.5 * std::sin(2 * std::numbers::pi * (220 * (c + 1)) * static_cast<double>(i) / rate));
    sound.channels.push_back(std::move(samples));
  }
  return sound;
}

VideoOptions options_of(const std::string& container, const std::string& encoder,
                        const std::string& pixels, std::map<std::string, std::string> settings) {
  VideoOptions options;
  options.container = container;
  options.pictures = {.encoder = encoder,
                      .pixel_format = pixels,
                      .width = kWidth,
                      .height = kHeight,
                      .rate = {16, 1},
                      .settings = std::move(settings)};
  return options;
}

void write(const fs::path& path, const VideoOptions& options, Sound sound = {},
           int frames = kFrames) {
  VideoWriter writer(path, options, std::move(sound));
  for (int i = 0; i < frames; ++i) writer.add(frame_of(i));
  writer.finish();
  writer.commit();
}

std::vector<Image> frames_in(VideoReader& reader, TimeRange range = {}) {
  std::vector<Image> frames;
  reader.frames(
      [&](Image frame, double) {
        frames.push_back(std::move(frame));
        return true;
      },
      range);
  return frames;
}

VideoOptions h264() { return options_of("mp4", "libx264", "yuv420p", {{"crf", "12"}}); }

}  // namespace

TEST_CASE("video: frames, rate, size, sound and texts come back in every form") {
  Folder folder;
  struct Form {
    const char* name;
    VideoOptions options;
    const char* sound;
  };
  std::vector<Form> forms = {
      {"a.mp4", h264(), "aac"},
      {"b.mp4",
       options_of("mp4", "libx265", "yuv420p10le",
                  {{"crf", "12"}, {"x265-params", "log-level=none"}}),
       "aac"},
      {"c.webm", options_of("webm", "libvpx-vp9", "yuv420p", {{"crf", "12"}}), "libopus"},
      {"d.webm", options_of("webm", "libsvtav1", "yuv420p10le", {{"crf", "20"}, {"preset", "10"}}),
       "libopus"},
      {"e.mkv", options_of("matroska", "ffv1", "bgra", {{"level", "3"}}), "flac"},
  };
  for (auto& [name, options, sound] : forms) {
    CAPTURE(name);
    options.pictures->colours = Colours::Bt709;
    options.sounds = {.encoder = sound};
    options.texts = {{"prompt", R"({"1": "gr\u00fc; = # \\"})"}, {"workflow", "{}"}};
    if (options.container == "mp4")
      options.container_settings = {{"movflags", "use_metadata_tags"}};
    write(folder / name, options, tone(44100, kFrames / 16.0, 2));
    VideoReader reader(folder / name);
    const auto& facts = reader.facts();
    CHECK(facts.width == kWidth);
    CHECK(facts.height == kHeight);
    CHECK(facts.rate == Rate{16, 1});
    CHECK(facts.seconds == doctest::Approx(kFrames / 16.0).epsilon(0.1));
    CHECK(facts.bits == (options.pictures->pixel_format == "yuv420p10le" ? 10 : 8));
    CHECK(facts.has_sound);
    CHECK(facts.sound_channels == 2);
    int found = 0;
    for (const auto& text : facts.texts)
      for (const auto& wanted : options.texts) found += text == wanted;
    CHECK(found == 2);
    auto frames = frames_in(reader);
    REQUIRE(frames.size() == kFrames);
    for (int i = 0; i < kFrames; ++i)
      CHECK(mean_difference(frames[static_cast<std::size_t>(i)], frame_of(i)) < 4);
    auto heard = reader.sound();
    REQUIRE(heard.channels.size() == 2);
    CHECK(heard.rate == (std::string(sound) == "libopus" ? 48000 : 44100));
    CHECK(heard.seconds() == doctest::Approx(kFrames / 16.0).epsilon(0.1));
    // Once more, so that a reader can be asked again.
    CHECK(frames_in(reader).size() == kFrames);
  }
}

TEST_CASE("video: a part of a file is what lies in its time") {
  Folder folder;
  auto options = h264();
  options.sounds = {.encoder = "aac"};
  write(folder / "a.mp4", options, tone(48000, kFrames / 16.0, 1));
  VideoReader reader(folder / "a.mp4");
  auto all = frames_in(reader);
  auto part = frames_in(reader, {.start = 4 / 16.0, .duration = 5 / 16.0});
  REQUIRE(all.size() == kFrames);
  REQUIRE(part.size() == 5);
  for (std::size_t i = 0; i < part.size(); ++i) CHECK(part[i] == all[i + 4]);
  CHECK(frames_in(reader, {.start = 10 / 16.0}).size() == 2);
  CHECK(frames_in(reader, {.start = 100}).empty());
  auto sound = reader.sound({.start = 0.25, .duration = 0.3});
  REQUIRE(sound.channels.size() == 1);
  CHECK(sound.length() == 14400);
  // Of a tone of 220 Hz at that time.
  auto whole = reader.sound();
  double difference = 0;
  for (std::size_t i = 2000; i < 12000; ++i)
    difference = std::max(difference, std::abs(static_cast<double>(sound.channels[0][i]) -
                                               whole.channels[0][i + 12000]));
  CHECK(difference < 0.02);
  // Reading ends when enough is known.
  int taken = 0;
  reader.frames([&](Image, double) { return ++taken < 3; });
  CHECK(taken == 3);
}

TEST_CASE("video: sound alone, mono and stereo, in every form") {
  Folder folder;
  struct Form {
    const char *name, *container, *encoder;
    int rate;
    double tolerance;
  };
  for (const Form& form :
       {Form{"a.flac", "flac", "flac", 44100, 1e-4}, Form{"a.mp3", "mp3", "libmp3lame", 44100, 0.1},
        Form{"a.opus", "opus", "libopus", 48000, 0.1}, Form{"a.wav", "wav", "pcm_f32le", 22050, 0}})
    for (int channels : {1, 2}) {
      CAPTURE(form.name);
      VideoOptions options;
      options.container = form.container;
      options.sounds = {.encoder = form.encoder};
      options.texts = {{"prompt", "{\"1\": {}}"}};
      auto sound = tone(form.rate, 0.5, channels);
      VideoWriter writer(folder / form.name, options, sound);
      writer.finish();
      writer.commit();
      VideoReader reader(folder / form.name);
      CHECK(!reader.facts().has_pictures);
      CHECK(reader.facts().sound_channels == channels);
      auto heard = reader.sound();
      REQUIRE(heard.channels.size() == sound.channels.size());
      REQUIRE(heard.length() >= sound.length());
      for (std::size_t c = 0; c < heard.channels.size(); ++c) {
        double difference = 0;
        for (std::size_t i = 3000; i < 8000; ++i)
          difference = std::max(difference, std::abs(static_cast<double>(heard.channels[c][i]) -
                                                     sound.channels[c][i]));
        CHECK(difference <= form.tolerance);
      }
      if (std::string(form.container) != "wav") {
        bool found = false;
        for (const auto& text : reader.facts().texts) found |= text == options.texts[0];
        CHECK(found);
      }
      CHECK_THROWS_WITH_AS(frames_in(reader), doctest::Contains("holds no pictures"), Error);
    }
}

TEST_CASE("video: the writer refuses what cannot be encoded, by name, and leaves nothing") {
  Folder folder;
  auto refused = [&](const VideoOptions& options, const char* sentence) {
    CAPTURE(sentence);
    CHECK_THROWS_WITH_AS(write(folder / "a.mp4", options), doctest::Contains(sentence), Error);
    CHECK(folder.files() == 0);
  };
  auto options = h264();
  options.pictures->encoder = "libnothing";
  refused(options, "'libnothing' is an encoder that FFmpeg here");
  options = h264();
  options.pictures->pixel_format = "rgba64le";
  refused(options, "'rgba64le' is no pixel format of libx264: it takes");
  options = h264();
  options.pictures->width = 63;
  refused(options, "63 x 64; libx264 in yuv420p takes widths that are multiples of 2");
  options = h264();
  options.container = "nothing";
  refused(options, "cannot be written as 'nothing'");
  options = h264();
  options.container = "webm";
  refused(options, "h264 does not go into a file of the form webm");
  options = h264();
  options.pictures->settings["nothing"] = "1";
  refused(options, "libx264 has no setting 'nothing'");
  options = h264();
  options.pictures->settings["preset"] = "nothing";
  refused(options, "cannot be encoded with libx264");
  options = h264();
  options.pictures->width = 32;
  refused(options, "has frames of 32 x 64, and one came of 64 x 64");
  options = options_of("webm", "libsvtav1", "yuv420p", {});
  options.pictures->height = 32;
  refused(options, "at least 64 x 64 pixels");
  options = {.container = "mp4"};
  refused(options, "neither pictures nor sound");
  for (double rate : {0.0, -1.0, std::nan(""), 1e9})
    CHECK_THROWS_WITH_AS(rate_of(rate), doctest::Contains("frames a second"), Error);
  CHECK(rate_of(23.976) == Rate{2997, 125});
  CHECK(rate_of(16) == Rate{16, 1});
}

namespace {

/// Takes bytes until the n-th writing, which fails.
struct FailingSink : ffmpeg::ByteSink {
  explicit FailingSink(int nth) : left(nth) {}
  void write_at(std::int64_t, std::string_view) override {
    if (left-- == 0) throw Error(ErrorKind::OutOfMemory, "disk", "is full");
    ++written;
  }
  int left, written = 0;
};

void encode_into(FailingSink& sink) {
  auto options = h264();
  // Little is kept back, so that many writings come.
  options.pictures->settings["tune"] = "zerolatency";
  options.container_settings = {{"movflags", "frag_every_frame+empty_moov"}};
  options.sounds = {.encoder = "aac"};
  auto encoder = ffmpeg::library().create(sink, options, tone(8000, 1, 1), "a.mp4");
  for (int i = 0; i < kFrames; ++i) encoder->add(view_of(frame_of(i)));
  encoder->finish();
}

}  // namespace

TEST_CASE("video: a disk that is full at any step ends with its own error") {
  FailingSink counting(-1);
  encode_into(counting);
  REQUIRE(counting.written >= 4);
  for (int step = 0; step < counting.written; ++step) {
    CAPTURE(step);
    FailingSink sink(step);
    CHECK_THROWS_WITH_AS(encode_into(sink), "disk: is full", Error);
  }
}

TEST_CASE("video: broken, short and foreign files are refused with a sentence") {
  Folder folder;
  auto refused = [&](std::string bytes, const char* sentence) {
    CAPTURE(sentence);
    auto read = [&] {
      VideoReader reader(std::move(bytes), "clip");
      frames_in(reader);
    };
    CHECK_THROWS_WITH_AS(read(), doctest::Contains(sentence), Error);
  };
  refused("", "clip: is empty");
  refused("{\"1\": {}}", "no video or sound of a known container");
  // A playlist must not be followed.
  refused("#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n/etc/hostname\n#EXT-X-ENDLIST\n",
          "no video or sound of a known container");
  refused("ffconcat version 1.0\nfile /etc/hostname\n", "no video or sound of a known container");
  write(folder / "a.mp4", h264());
  auto whole = read_file(folder / "a.mp4");
  refused(whole.substr(0, whole.size() / 2), "cut off");
  // A Matroska file that is short opens, and then ends before the time that it tells.
  auto options = h264();
  options.container = "matroska";
  write(folder / "b.mkv", options);
  auto other = read_file(folder / "b.mkv");
  refused(other.substr(0, other.size() / 2), "cut short");
  auto damaged = whole;
  for (std::size_t i = 100; i < 1200 && i < damaged.size() / 2; ++i) damaged[i] = '\xff';
  CHECK_THROWS_AS(
      [&] {
        VideoReader reader(damaged, "clip");
        frames_in(reader);
      }(),
      Error);
  CHECK_THROWS_WITH_AS(VideoReader(folder / "nothing.mp4"), doctest::Contains("cannot be read"),
                       Error);
  CHECK_THROWS_WITH_AS(VideoReader(fs::temp_directory_path()), doctest::Contains("is no file"),
                       Error);
}

TEST_CASE("video: streams are copied as they are, with new texts") {
  Folder folder;
  auto options = h264();
  options.sounds = {.encoder = "aac"};
  options.texts = {{"title", "one"}, {"prompt", "{}"}};
  options.container_settings = {{"movflags", "use_metadata_tags"}};
  write(folder / "a.mp4", options, tone(44100, 0.5, 2));
  VideoOptions target{.container = "matroska", .texts = {{"prompt", "{\"2\": 1}"}}};
  AtomicFile file(folder / "b.mkv");
  CHECK(copy_streams(folder / "a.mp4", file, target));
  file.commit();
  VideoReader before(folder / "a.mp4"), after(folder / "b.mkv");
  CHECK(frames_in(before) == frames_in(after));
  CHECK(after.facts().sound_codec == "aac");
  // And from a container that does not say when pictures are decoded.
  for (const char* container : {"mp4", "matroska"}) {
    AtomicFile again(folder / "d");
    CHECK(copy_streams(folder / "b.mkv", again, {.container = container}));
    again.commit();
    VideoReader reader(folder / "d");
    CHECK(frames_in(before) == frames_in(reader));
    // The frame by which an AAC encoder is early is heard where the container says nothing of it.
    constexpr std::int64_t kFrame = 1024;
    CHECK(std::abs(static_cast<std::int64_t>(reader.sound().length() - before.sound().length())) <=
          kFrame);
  }
  int found = 0;
  for (const auto& text : after.facts().texts)
    found += text == Text{"title", "one"} || text == Text{"prompt", "{\"2\": 1}"};
  CHECK(found == 2);
  // Players look at the four letters.
  options = options_of("mp4", "libx265", "yuv420p", {{"x265-params", "log-level=none"}});
  options.pictures->tag = "hvc1";
  write(folder / "h.mp4", options);
  AtomicFile tagged(folder / "i.mp4");
  CHECK(copy_streams(folder / "h.mp4", tagged, {.container = "mp4"}));
  tagged.commit();
  CHECK(read_file(folder / "i.mp4").find("hvc1") != std::string::npos);
  AtomicFile other(folder / "c.webm");
  CHECK(!copy_streams(folder / "a.mp4", other, {.container = "webm"}));
}
