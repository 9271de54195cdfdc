#include <fmt/format.h>

#include <algorithm>

#include "distorch/media/ffmpeg/io.h"

namespace distorch::media::ffmpeg {

namespace {

constexpr int kBuffer = 1 << 16;  // bytes written at once

}  // namespace

Output::Output(ByteSink& sink, const VideoOptions& options, const std::string& where)
    : sink_(sink), options_(options), where_(where) {
  forget_messages();
  AVFormatContext* format = nullptr;
  check(avformat_alloc_output_context2(&format, nullptr, options_.container.c_str(), nullptr),
        fmt::format("cannot be written as '{}'", options_.container));
  format_.reset(format);
  auto* buffer = static_cast<unsigned char*>(av_malloc(kBuffer));
  if (buffer)
    io_.reset(avio_alloc_context(buffer, kBuffer, 1, this, nullptr, write_bytes, seek_bytes));
  if (!io_) throw std::bad_alloc();
  format_->pb = io_.get();
  format_->flags |= AVFMT_FLAG_CUSTOM_IO;
}

AVStream* Output::add_stream() {
  auto* stream = avformat_new_stream(format_.get(), nullptr);
  if (!stream) throw std::bad_alloc();
  return stream;
}

void Output::begin() {
  for (const auto& text : options_.texts)
    av_dict_set(&format_->metadata, text.keyword.c_str(), text.value.c_str(), 0);
  Settings settings;
  for (const auto& [name, value] : options_.container_settings)
    settings.set(name.c_str(), value.c_str());
  check(avformat_write_header(format_.get(), settings.get()),
        fmt::format("cannot be begun as {}", options_.container));
}

void Output::write(AVPacket* packet) {
  check(av_interleaved_write_frame(format_.get(), packet), "cannot be written");
}

void Output::end() {
  check(av_write_trailer(format_.get()), "cannot be ended");
  avio_flush(io_.get());
  check(io_->error, "cannot be written");
}

void Output::check(int code, const std::string& doing) {
  pending_.rethrow();
  if (code < 0) throw Error(ErrorKind::Usage, where_, fmt::format("{} ({})", doing, text_of(code)));
}

int Output::write_bytes(void* self, std::uint8_t* from, int count) {
  auto& output = *static_cast<Output*>(self);
  auto done = output.pending_.guard([&]() -> std::int64_t {
    output.sink_.write_at(output.at_, {reinterpret_cast<const char*>(from),
                                       static_cast<std::size_t>(std::max(count, 0))});
    return count;
  });
  if (done < 0) return AVERROR(ENOSPC);
  output.at_ += count;
  output.size_ = std::max(output.size_, output.at_);
  return count;
}

std::int64_t Output::seek_bytes(void* self, std::int64_t offset, int whence) {
  auto& output = *static_cast<Output*>(self);
  whence &= ~AVSEEK_FORCE;
  if (whence == AVSEEK_SIZE) return output.size_;
  auto to = offset + (whence == SEEK_CUR ? output.at_ : whence == SEEK_END ? output.size_ : 0);
  if (to < 0) return AVERROR(EINVAL);
  return output.at_ = to;
}

}  // namespace distorch::media::ffmpeg
