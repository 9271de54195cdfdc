#pragma once
#include <filesystem>
#include <optional>
#include <string>

namespace distorch::server {

/// The bytes of the picture that stands for a model: one beside it with the same stem ("a.png" or
/// "a.preview.png" for "a.safetensors") that lies within `folder`, else the first cover picture in
/// the file's own metadata. Nothing where there is none.
std::optional<std::string> picture_of_model(const std::filesystem::path& model,
                                            const std::filesystem::path& folder);

/// The bytes of a base64 text; nothing where it is none. Line breaks are passed over.
std::optional<std::string> base64_decoded(std::string_view text);

}  // namespace distorch::server
