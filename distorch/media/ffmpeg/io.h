#pragma once
#include <memory>
#include <string>

#include "distorch/media/ffmpeg/failures.h"
#include "distorch/media/ffmpeg/handles.h"
#include "distorch/media/ffmpeg/library.h"

namespace distorch::media::ffmpeg {

/// An open container that reads from a ByteSource and opens nothing else. Error(Format) unless it is
/// one of the known ones.
class Input {
 public:
  Input(ByteSource& source, const std::string& where);
  Input(const Input&) = delete;

  AVFormatContext* get() { return format_.get(); }
  /// The next packet; false at the end. Error(Format) where the file is broken or cut short.
  bool read(AVPacket* packet);
  /// To the last whole picture before the time in units of AV_TIME_BASE; false where that cannot be
  /// done: the input is of no use then.
  bool seek(std::int64_t time);
  /// Throws for a code below 0: what the source threw, else Error(Format): "<where>: <doing>: ...".
  void check(int code, const char* doing);

 private:
  static int read_bytes(void* self, std::uint8_t* to, int count);
  static std::int64_t seek_bytes(void* self, std::int64_t offset, int whence);

  ByteSource& source_;
  std::string where_;
  Pending pending_;
  std::int64_t at_ = 0;
  Held<AVIOContext> io_;
  std::unique_ptr<AVFormatContext, CloseInput> format_;
};

/// A container that is written into a ByteSink.
class Output {
 public:
  Output(ByteSink& sink, const VideoOptions& options, const std::string& where);
  Output(const Output&) = delete;

  AVFormatContext* get() { return format_.get(); }
  AVStream* add_stream();
  /// After the streams are there.
  void begin();
  /// Takes what the packet holds.
  void write(AVPacket* packet);
  void end();
  /// Throws for a code below 0: what the sink threw, else Error(Usage).
  void check(int code, const std::string& doing);
  /// The container wants what a decoder has to know apart from the packets.
  bool wants_headers() const { return (format_->oformat->flags & AVFMT_GLOBALHEADER) != 0; }

 private:
  static int write_bytes(void* self, std::uint8_t* from, int count);
  static std::int64_t seek_bytes(void* self, std::int64_t offset, int whence);

  ByteSink& sink_;
  VideoOptions options_;
  std::string where_;
  Pending pending_;
  std::int64_t at_ = 0, size_ = 0;
  Held<AVIOContext> io_;
  std::unique_ptr<AVFormatContext, CloseOutput> format_;
};

}  // namespace distorch::media::ffmpeg
