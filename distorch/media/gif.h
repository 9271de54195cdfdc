#pragma once
#include <string>
#include <string_view>

#include "distorch/media/frames.h"

namespace distorch::media {

bool is_gif(std::string_view bytes);

/// Every frame on its canvas, as a viewer shows it one after the other: RGBA where the first frame
/// has a transparent colour, else RGB. Frames after one that makes the canvas larger are left out:
/// a batch has one size. Details where viewers differ are Pillow's, which ComfyUI uses: what is
/// cleared becomes transparent where the frame has a transparent colour, else the background
/// colour; a frame that does not say how it goes goes as the one before it; a palette that is a
/// plain ramp of grays makes a picture without alpha.
void decode_gif(std::string_view bytes, const std::string& where, const TakeFrame& take);

}  // namespace distorch::media
