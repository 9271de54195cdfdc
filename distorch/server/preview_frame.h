#pragma once
#include <cstdint>
#include <string>

#include "distorch/graph/events.h"
#include "distorch/media/image.h"

namespace distorch::server {

/// Events of binary frames.
inline constexpr std::uint32_t kPreviewFrame = 1;
inline constexpr std::uint32_t kTextFrame = 3;
inline constexpr std::uint32_t kPreviewWithMetadataFrame = 4;

/// The picture scaled so that its longer side has `side` pixels, keeping its shape: every pixel is
/// the weighted mean of those it covers, with a triangle as weight, as Pillow's bilinear resize.
media::Image fitted(const media::Image& image, int side);

/// A preview encoded: JPEG, or PNG where it has alpha.
struct EncodedPreview {
  bool png = false;
  std::string bytes;
};
EncodedPreview encode_preview(const media::Image& image, int side);
/// The picture in its own size, as PNG.
EncodedPreview encode_whole(const media::Image& image);

/// What follows the event number in a frame of either kind: u32 kind (1 JPEG, 2 PNG), picture; or
/// u32 length, JSON of that length, picture. Numbers are big-endian.
std::string preview_payload(const EncodedPreview& preview);
std::string preview_payload(const EncodedPreview& preview, const graph::Preview& event);
/// What follows the event number in a frame of text: u32 length, the node's id, the text.
std::string text_payload(const std::string& node, const std::string& text);

}  // namespace distorch::server
