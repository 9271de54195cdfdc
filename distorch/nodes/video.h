#pragma once
#include <ATen/core/Tensor.h>

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "distorch/graph/call.h"
#include "distorch/media/video.h"
#include "distorch/media/video_writer.h"
#include "distorch/nodes/output_files.h"

/// What travels over links of the types VIDEO and AUDIO, and how nodes read and write it.
namespace distorch::nodes {

/// AUDIO: waveform [B, C, samples] float32 -1..1 on the CPU.
struct Audio {
  at::Tensor waveform;
  int rate = 44100;  // samples a second
};

/// VIDEO: a part of a file, or where `file` is empty frames with their sound.
struct Video {
  std::filesystem::path file;
  media::TimeRange range;
  at::Tensor images;  // [T, H, W, C] as an IMAGE
  std::optional<Audio> audio;
  media::Rate rate;
  int bits = 8;  // of a channel, where the frames are encoded
};

/// A video as frames and sound in memory.
struct VideoParts {
  at::Tensor images;  // [T, H, W, 3]
  std::optional<Audio> audio;
  media::Rate rate;
  int bits = 8;
  media::Colours colours = media::Colours::Unmarked;
};
VideoParts parts_of(const Video& video);
/// Frames and sound of a file, without decoding them.
media::VideoFacts facts_of(const Video& video);

/// [H, W, 3] of the frame's values / 255.
at::Tensor to_tensor(const media::Image& image);
/// [1, C, samples]
Audio to_audio(const media::Sound& sound);
/// Of one item of the batch. Error(Shape) where the waveform is no [B, C, samples].
media::Sound to_sound(const Audio& audio, std::int64_t item = 0);
/// The AUDIO of an input; Error(Usage) with a sentence where a video without sound gave none.
const Audio& audio_input(const graph::Call& call, const char* name);

/// How numbers 0..1 become 8 or 16 bits: ComfyUI cuts fractions off, VideoHelperSuite rounds.
enum class Rounding { Cut, Nearest };

/// Encodes frames [T, H, W, C], one after the other in the order given, with the node's progress
/// going along. Error(Internal) where they hold NaN or infinite values; nothing is saved then.
void encode_frames(graph::Call& call, media::VideoWriter& writer, const at::Tensor& images,
                   const std::vector<std::int64_t>& order, int bits, Rounding rounding);
/// 0, 1, ... count - 1
std::vector<std::int64_t> in_order(std::int64_t count);
/// One frame [H, W, C] as a picture. Errors as above.
media::Image picture_of(graph::Call& call, const at::Tensor& image, Rounding rounding);

/// Gives a finished file the next free number of the place; returns its name.
std::string commit_numbered(media::VideoWriter& writer, const OutputPlace& place,
                            std::int64_t number, const std::string& extension);

/// The texts of a video that carries its workflow; none with --disable-metadata.
std::vector<media::Text> video_texts(graph::Call& call);

/// "sRGB", "HDR" or "HDR PQ", as the nodes name them.
const char* color_space_name(media::Colours colours);

/// "[{filename, subfolder, type}]"
graph::Json shown_file(const std::string& file, const OutputPlace& place, const char* type);

/// The endings of files that loaders of videos, and of sound, list.
const std::vector<std::string>& video_endings();
const std::vector<std::string>& audio_endings();

}  // namespace distorch::nodes
