#pragma once
#include <filesystem>
#include <memory>

#include "distorch/media/ffmpeg/library.h"

namespace distorch::media {

/// A file as a source of bytes; reading stops with Error(Interrupted) where the run is to stop.
/// Error(MissingFile) where it is not there, Error(Format) where it cannot be read.
std::unique_ptr<ffmpeg::ByteSource> file_bytes(const std::filesystem::path& path);

}  // namespace distorch::media
