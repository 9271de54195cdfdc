#pragma once
#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "distorch/nn/conv.h"
#include "distorch/nn/norm.h"
#include "distorch/weights/checkpoint.h"
#include "distorch/weights/manifest.h"

/// What networks that attend within windows of pixels share (SwinIR, HAT, DAT): windows, the way
/// into features and the way back to pixels.
namespace distorch::models::upscale {

/// Two numbers of pixels, of a window or of a shift.
struct Sides {
  std::int64_t height = 8, width = 8;
  std::int64_t pixels() const { return height * width; }
};

/// x [B, H, W, C] -> [windows, pixels of one, C]; both sides are multiples of the window's.
at::Tensor to_windows(const at::Tensor& x, const Sides& window);
/// The other way round: [B, height, width, C].
at::Tensor from_windows(const at::Tensor& windows, const Sides& window, std::int64_t height,
                        std::int64_t width);
/// For each pair of pixels of a window the row of a table of biases by distance: [pixels²].
at::Tensor bias_rows(const Sides& window);
/// What is added to the scores of shifted windows, so that pixels of opposite borders, which lie in
/// one window then, do not see each other: [windows of one picture, pixels, pixels].
at::Tensor border_mask(const Sides& window, const Sides& shift, std::int64_t height,
                       std::int64_t width);

at::Tensor pixels_last(const at::Tensor& x);
at::Tensor channels_first(const at::Tensor& x);

/// Mean colour that training took away, [1, channels, 1, 1] on `device`; 0 unless there are three
/// channels.
at::Tensor mean_color(std::int64_t channels, at::Device device);

/// How a network comes from features to pixels.
enum class PixelExit {
  Shuffle,  // "pixelshuffle": doublings by convolutions to channels that become pixels
  Direct,   // "pixelshuffledirect": the same in one step
  Nearest,  // "nearest+conv": doublings by nearest neighbours
  Repair,   // none: the picture keeps its size
};

/// The convolutions behind a group of blocks.
enum class Residual {
  One,
  Narrow,  // "3conv": three, through a quarter of the width
  None
};

/// What surrounds the groups of blocks, as files name it.
struct Frame {
  std::int64_t in_channels = 3;
  std::int64_t out_channels = 3;
  std::int64_t width = 180;
  PixelExit exit = PixelExit::Shuffle;
  std::int64_t features = 64;  // of the exit
  std::int64_t scale = 4;
  Residual residual = Residual::One;
};

/// Reads all of it off a file's shapes.
Frame frame_of(const weights::Checkpoint& file);

/// Those convolutions: x [B, width, H, W] -> the same shape.
class ResidualLayers {
 public:
  ResidualLayers(const weights::Scope& s, const Frame& frame);
  at::Tensor operator()(const at::Tensor& x) const;

 private:
  std::vector<nn::Conv2d> layers_;
};

/// The first features, and the same normed. The norm's weights lie below `norm`.
class FrameEntry {
 public:
  FrameEntry(const weights::Scope& s, const Frame& frame, const std::string& norm);
  /// image [B, in_channels, H, W] -> two of [B, width, H, W].
  weights::Tensors forward(const at::Tensor& image) const;

 private:
  weights::Block block_;
  nn::Conv2d first_;
  nn::LayerNorm norm_;
};

/// From the features behind the last group, and the first ones, to pixels.
class FrameExit {
 public:
  FrameExit(const weights::Scope& s, const Frame& frame);
  at::Tensor forward(const at::Tensor& features, const at::Tensor& first) const;

 private:
  std::int64_t step() const;
  void add_shuffles(const weights::Scope& s);

  weights::Block block_;
  Frame frame_;
  nn::LayerNorm norm_;
  ResidualLayers body_;
  std::optional<nn::Conv2d> before_, sharp_, last_;
  std::vector<nn::Conv2d> ups_;
};

/// The whole root of a square, rounded.
std::int64_t root(std::int64_t square);

}  // namespace distorch::models::upscale
