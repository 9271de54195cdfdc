#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace distorch::media {

/// The JSON texts that ComfyUI puts into pictures, unparsed.
struct WorkflowTexts {
  std::optional<std::string> prompt;    // API format: what was executed
  std::optional<std::string> workflow;  // UI format: what was drawn
};

/// From the text chunks of a PNG; from the EXIF tags of a WebP or JPEG, where each stands as
/// "prompt:{...}" and "workflow:{...}". Both are absent where the picture carries none.
/// Error(MissingFile), Error(Format) if this is no picture.
WorkflowTexts workflow_texts(const std::filesystem::path& path);
WorkflowTexts workflow_texts_in(std::string_view bytes, const std::string& where);

}  // namespace distorch::media
