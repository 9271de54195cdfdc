#pragma once
#include "distorch/media/image.h"

namespace distorch::media {

/// A finished picture for whoever posted the prompt, sent in place of a file: receivers keep its
/// size and encode it without loss. The payload of a preview (graph::Call::preview).
struct SentPicture {
  Image image;
};

}  // namespace distorch::media
