#include "distorch/media/video_reader.h"

#include "distorch/base/run_token.h"
#include "distorch/media/ffmpeg/library.h"
#include "distorch/media/file_bytes.h"
#include "distorch/media/frames.h"

namespace distorch::media {

namespace {

class TextBytes : public ffmpeg::ByteSource {
 public:
  explicit TextBytes(std::string bytes) : bytes_(std::move(bytes)) {}
  std::int64_t size() const override { return static_cast<std::int64_t>(bytes_.size()); }
  std::size_t read_at(std::int64_t offset, char* to, std::size_t count) override {
    if (offset >= size()) return 0;
    return bytes_.copy(to, count, static_cast<std::size_t>(offset));
  }

 private:
  std::string bytes_;
};

}  // namespace

VideoReader::VideoReader(const std::filesystem::path& path)
    : where_(path.string()), source_(file_bytes(path)) {
  decoder_ = ffmpeg::library().open(*source_, where_);
}

VideoReader::VideoReader(std::string bytes, const std::string& where)
    : where_(where), source_(std::make_unique<TextBytes>(std::move(bytes))) {
  decoder_ = ffmpeg::library().open(*source_, where_);
}

VideoReader::~VideoReader() = default;
VideoReader::VideoReader(VideoReader&&) noexcept = default;
VideoReader& VideoReader::operator=(VideoReader&&) noexcept = default;

const VideoFacts& VideoReader::facts() const { return decoder_->facts(); }

void VideoReader::frames(const TakeVideoFrame& take, TimeRange range) {
  FrameBudget budget(where_);
  decoder_->frames(range, [&](Image frame, double seconds) {
    throw_if_interrupted();
    budget.add(static_cast<std::uint64_t>(frame.width), static_cast<std::uint64_t>(frame.height));
    return take(std::move(frame), seconds);
  });
}

Sound VideoReader::sound(TimeRange range) { return decoder_->sound(range); }

}  // namespace distorch::media
