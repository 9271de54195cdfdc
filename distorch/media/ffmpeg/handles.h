#pragma once
extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libavutil/audio_fifo.h>
#include <libavutil/display.h>
#include <libavutil/opt.h>
#include <libavutil/pixdesc.h>
#include <libswresample/swresample.h>
#include <libswscale/swscale.h>
}

#include <memory>

// What FFmpeg gives out, freed with what holds it. Of the module only.
namespace distorch::media::ffmpeg {

struct Free {
  void operator()(AVPacket* packet) const { av_packet_free(&packet); }
  void operator()(AVFrame* frame) const { av_frame_free(&frame); }
  void operator()(AVCodecContext* codec) const { avcodec_free_context(&codec); }
  void operator()(SwsContext* scaler) const { sws_freeContext(scaler); }
  void operator()(SwrContext* resampler) const { swr_free(&resampler); }
  void operator()(AVAudioFifo* queue) const { av_audio_fifo_free(queue); }
  void operator()(AVIOContext* io) const {
    av_freep(&io->buffer);
    avio_context_free(&io);
  }
};

/// A container that is read, and one that is written, need other ends.
struct CloseInput {
  void operator()(AVFormatContext* format) const { avformat_close_input(&format); }
};
struct CloseOutput {
  void operator()(AVFormatContext* format) const { avformat_free_context(format); }
};
template <class T>
using Held = std::unique_ptr<T, Free>;

/// Settings by name. What FFmpeg took of them it removes.
class Settings {
 public:
  Settings() = default;
  ~Settings() { av_dict_free(&settings_); }
  Settings(const Settings&) = delete;
  void set(const char* name, const char* value) { av_dict_set(&settings_, name, value, 0); }
  AVDictionary** get() { return &settings_; }
  /// The name of the first that is left; nullptr where none is.
  const char* left() const {
    auto* entry = av_dict_get(settings_, "", nullptr, AV_DICT_IGNORE_SUFFIX);
    return entry ? entry->key : nullptr;
  }

 private:
  AVDictionary* settings_ = nullptr;
};

inline const char* name_of(AVPixelFormat format) {
  const char* name = av_get_pix_fmt_name(format);
  return name ? name : "unknown";
}

}  // namespace distorch::media::ffmpeg
