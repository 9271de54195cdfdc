#include <fmt/format.h>

#include "distorch/media/ffmpeg/io.h"

namespace distorch::media::ffmpeg {

namespace {

constexpr int kBuffer = 1 << 16;  // bytes read at once
constexpr const char* kContainers =
    "mov,mp4,matroska,webm,avi,gif,mpegts,mpeg,ogg,wav,w64,aiff,flac,mp3,aac,flv,asf,ivf";

/// Playlists and references are not followed: a file of a stranger reads no other file.
int refuse_to_open(AVFormatContext*, AVIOContext**, const char*, int, AVDictionary**) {
  return AVERROR(EACCES);
}

}  // namespace

Input::Input(ByteSource& source, const std::string& where) : source_(source), where_(where) {
  forget_messages();
  auto* buffer = static_cast<unsigned char*>(av_malloc(kBuffer));
  if (buffer)
    io_.reset(avio_alloc_context(buffer, kBuffer, 0, this, read_bytes, nullptr, seek_bytes));
  format_.reset(avformat_alloc_context());
  if (!io_ || !format_) throw std::bad_alloc();
  format_->pb = io_.get();
  format_->io_open = refuse_to_open;
  format_->flags |= AVFMT_FLAG_CUSTOM_IO;
  format_->format_whitelist = av_strdup(kContainers);
  // It frees the context where it fails.
  auto* format = format_.release();
  int code = avformat_open_input(&format, nullptr, nullptr, nullptr);
  format_.reset(format);
  if (code == AVERROR_INVALIDDATA || code == AVERROR(EINVAL) || code == AVERROR_EOF) {
    pending_.rethrow();
    throw Error(ErrorKind::Format, where_,
                source_.size() == 0
                    ? std::string("is empty")
                    : fmt::format("is no video or sound of a known container (MP4, MOV, WebM, "
                                  "Matroska, AVI, GIF, MPEG, Ogg, WAV, FLAC, MP3), or is cut off "
                                  "at its beginning or end ({})",
                                  text_of(code)));
  }
  check(code, "cannot be opened");
  check(avformat_find_stream_info(format_.get(), nullptr), "says nothing about its streams");
}

bool Input::read(AVPacket* packet) {
  forget_messages();
  int code = av_read_frame(format_.get(), packet);
  if (code == AVERROR_EOF) {
    pending_.rethrow();
    return false;
  }
  check(code, "is broken or cut short");
  // Streams of broadcasts begin and end anywhere.
  bool anywhere = std::string_view(format_->iformat->name) == "mpegts";
  if ((packet->flags & AV_PKT_FLAG_CORRUPT) != 0 && !anywhere)
    throw Error(ErrorKind::Format, where_, "is broken or cut short: a part of it is not whole");
  return true;
}

bool Input::seek(std::int64_t time) {
  int code = avformat_seek_file(format_.get(), -1, INT64_MIN, time, time, 0);
  pending_.rethrow();
  return code >= 0;
}

void Input::check(int code, const char* doing) {
  pending_.rethrow();
  if (code < 0)
    throw Error(ErrorKind::Format, where_, fmt::format("{} ({})", doing, text_of(code)));
}

int Input::read_bytes(void* self, std::uint8_t* to, int count) {
  auto& input = *static_cast<Input*>(self);
  auto got = input.pending_.guard([&] {
    return static_cast<std::int64_t>(input.source_.read_at(input.at_, reinterpret_cast<char*>(to),
                                                           static_cast<std::size_t>(count)));
  });
  if (got < 0) return AVERROR_EXIT;
  input.at_ += got;
  return got == 0 ? AVERROR_EOF : static_cast<int>(got);
}

std::int64_t Input::seek_bytes(void* self, std::int64_t offset, int whence) {
  auto& input = *static_cast<Input*>(self);
  auto size = input.source_.size();
  whence &= ~AVSEEK_FORCE;
  if (whence == AVSEEK_SIZE) return size;
  auto base = whence == SEEK_CUR ? input.at_ : whence == SEEK_END ? size : 0;
  std::int64_t to = 0;
  if (__builtin_add_overflow(base, offset, &to) || to < 0) return AVERROR(EINVAL);
  return input.at_ = to;
}

}  // namespace distorch::media::ffmpeg
