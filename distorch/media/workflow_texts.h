#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace distorch::media {

/// The JSON texts that ComfyUI puts into pictures and videos, unparsed.
struct WorkflowTexts {
  std::optional<std::string> prompt;    // API format: what was executed
  std::optional<std::string> workflow;  // UI format: what was drawn
};

/// Whether a file that begins so is a video or sound that can carry a workflow: MP4 and MOV, WebM
/// and Matroska, AVI, Ogg, FLAC, MP3.
bool begins_as_video(std::string_view bytes);

/// From the text chunks of a PNG; from the EXIF tags of a WebP or JPEG, where each stands as
/// "prompt:{...}" and "workflow:{...}"; from the tags of a video or sound, of those names or (as
/// VideoHelperSuite writes them) both in the JSON of its comment. Both are absent where the file
/// carries none. Error(MissingFile), Error(Format) if this is neither.
WorkflowTexts workflow_texts(const std::filesystem::path& path);
WorkflowTexts workflow_texts_in(std::string_view bytes, const std::string& where);

}  // namespace distorch::media
