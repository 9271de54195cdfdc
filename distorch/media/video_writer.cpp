#include "distorch/media/video_writer.h"

#include <fmt/format.h>

#include <cmath>
#include <numeric>

#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "distorch/media/ffmpeg/library.h"
#include "distorch/media/file_bytes.h"

namespace distorch::media {

namespace {

class FileSink : public ffmpeg::ByteSink {
 public:
  explicit FileSink(AtomicFile& file) : file_(file) {}
  void write_at(std::int64_t offset, std::string_view bytes) override {
    throw_if_interrupted();
    file_.write_at(offset, bytes);
  }

 private:
  AtomicFile& file_;
};

}  // namespace

Rate rate_of(double frames_a_second) {
  if (!(frames_a_second >= 0.001 && frames_a_second <= 1e6))
    throw Error(ErrorKind::Usage, "frame rate",
                fmt::format("{} frames a second cannot be encoded", frames_a_second));
  auto thousandths = static_cast<int>(std::lround(frames_a_second * 1000));
  int common = std::gcd(thousandths, 1000);
  return {thousandths / common, 1000 / common};
}

VideoWriter::VideoWriter(const std::filesystem::path& path, const VideoOptions& options,
                         Sound sound)
    : file_(path), sink_(std::make_unique<FileSink>(file_)) {
  if (options.pictures) {
    width_ = options.pictures->width;
    height_ = options.pictures->height;
  }
  encoder_ = ffmpeg::library().create(*sink_, options, std::move(sound), path.filename().string());
}

VideoWriter::~VideoWriter() = default;

void VideoWriter::add(const FrameView& frame) {
  throw_if_interrupted();
  if (frame.width != width_ || frame.height != height_ || frame.channels < 3)
    throw Error(ErrorKind::Shape, file_.path().filename().string(),
                fmt::format("has frames of {} x {}, and one came of {} x {} with {} channels",
                            width_, height_, frame.width, frame.height, frame.channels));
  encoder_->add(frame);
}

void VideoWriter::finish() { encoder_->finish(); }

bool has_video_encoder(const std::string& name) { return ffmpeg::library().has_encoder(name); }

bool copy_streams(const std::filesystem::path& from, AtomicFile& to, const VideoOptions& options,
                  Sound sound) {
  auto source = file_bytes(from);
  FileSink sink(to);
  return ffmpeg::library().copy(*source, sink, options, std::move(sound), from.string());
}

}  // namespace distorch::media
