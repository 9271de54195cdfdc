#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "distorch/media/image.h"
#include "distorch/media/png.h"

namespace distorch::media {

/// Frames a second as a fraction, 30000/1001 say.
struct Rate {
  int numerator = 0;
  int denominator = 1;

  double value() const { return static_cast<double>(numerator) / denominator; }
  bool operator==(const Rate&) const = default;
};

/// The fraction of a decimal number, exact to a thousandth, as ComfyUI's nodes take rates.
/// Error(Usage) unless it is above 0 and at most 1000000.
Rate rate_of(double frames_a_second);

/// Samples -1..1 by channel; all channels are of one length.
struct Sound {
  int rate = 0;  // samples a second
  std::vector<std::vector<float>> channels;

  std::size_t length() const { return channels.empty() ? 0 : channels[0].size(); }
  double seconds() const { return rate > 0 ? static_cast<double>(length()) / rate : 0; }
};

/// More samples than this, of all channels together, are refused when reading.
inline constexpr std::size_t sample_limit = std::size_t{1} << 29;

/// How RGB becomes YUV, and what the file says about it: the matrix of BT.601 and nothing, that of
/// BT.709 with the transfer of BT.709 or of sRGB, that of BT.2020 with the transfer of hybrid
/// log-gamma or of perceptual quantization. The numbers of the frames have that transfer already.
enum class Colours { Unmarked, Bt709, Srgb, Hlg, Pq };

/// What a file of moving pictures or sound says of itself.
struct VideoFacts {
  std::string container;  // FFmpeg's names of it: "mov,mp4,m4a,3gp,3g2,mj2"
  double seconds = 0;     // 0: not known
  // Of the pictures, where there are any: as they are shown, turned upright.
  bool has_pictures = false;
  std::string codec;  // "h264"
  int width = 0;
  int height = 0;
  int bits = 8;  // of a channel
  Colours colours = Colours::Unmarked;
  Rate rate{1, 1};          // the mean one
  std::int64_t frames = 0;  // as the container counts them; 0: it does not
  // Of the sound, where there is any.
  bool has_sound = false;
  std::string sound_codec;
  int sound_rate = 0;
  int sound_channels = 0;
  /// Texts of the container, by names in lower case.
  std::vector<Text> texts;
};

/// A part of a file in seconds from its start; duration 0: to the end.
struct TimeRange {
  double start = 0;
  double duration = 0;
};

/// A frame to encode: RGB or RGBA, rows from the top without padding, of 8 or of 16 bits a channel
/// in the order of the machine.
struct FrameView {
  const void* pixels = nullptr;
  int width = 0;
  int height = 0;
  int channels = 3;
  int bits = 8;

  std::size_t row_bytes() const {
    return static_cast<std::size_t>(width) * static_cast<std::size_t>(channels) *
           static_cast<std::size_t>(bits / 8);
  }
};
inline FrameView view_of(const Image& image) {
  return {image.pixels.data(), image.width, image.height, image.channels, 8};
}

/// Takes frames one after the other, each with its time in seconds; false: no more are wanted.
using TakeVideoFrame = std::function<bool(Image frame, double seconds)>;

/// How a file is encoded. Names of encoders, pixel formats, containers and settings are FFmpeg's.
struct VideoOptions {
  struct Pictures {
    std::string encoder;       // "libx264"
    std::string pixel_format;  // "yuv420p"
    int width = 0;
    int height = 0;
    Rate rate;
    std::map<std::string, std::string> settings;  // {"crf", "19"}
    std::int64_t bit_rate = 0;                    // bits a second; 0: the encoder decides
    std::string tag;                              // four letters, "hvc1"; "": the container's own
    Colours colours = Colours::Unmarked;
  };
  struct Sounds {
    std::string encoder;         // "aac"
    std::int64_t bit_rate = 0;   // 0: the encoder decides
    std::optional<int> quality;  // variable bit rate of that quality, where the encoder has it
  };
  std::string container;  // "mp4"
  std::optional<Pictures> pictures;
  std::optional<Sounds> sounds;
  std::map<std::string, std::string> container_settings;  // {"movflags", "use_metadata_tags"}
  std::vector<Text> texts;
  /// Of a copy: what begins later is left out; 0: nothing is.
  double seconds = 0;
};

}  // namespace distorch::media
