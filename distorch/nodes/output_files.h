#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "distorch/graph/value.h"
#include "distorch/media/png.h"

namespace distorch::nodes {

/// Where a saving node writes: a folder below the output folder and a name without number and
/// ending.
struct OutputPlace {
  std::filesystem::path folder;  // created where it was not there
  std::string subfolder;         // relative to the output folder, "" for itself
  std::string name;
};

/// Reads a filename prefix: %width%, %height%, %year%, %month%, %day%, %hour%, %minute%, %second%
/// (local time) are filled in, "a/b/name" goes to the subfolder a/b. Errors: Error(Usage) where it
/// leads out of the output folder or the folder cannot be made or written. Source: ComfyUI
/// folder_paths.py, get_save_image_path.
OutputPlace output_place(const std::string& prefix, const std::filesystem::path& output,
                         std::int64_t width = 0, std::int64_t height = 0);

/// The number that the next file of a place gets (output_numbers.h).
std::int64_t next_number(const OutputPlace& place);

/// "<name>_00001_.png": `behind` stands between number and extension.
std::string numbered(const std::string& name, std::int64_t number, const std::string& extension,
                     const std::string& behind = "_");

/// Writes a file under the next free number of the place: under a temporary name first, then
/// renamed without replacing any other file. Returns the file's name.
std::string write_numbered(const OutputPlace& place, const std::string& extension,
                           const std::string& bytes, const std::string& behind = "_");

/// The texts that make a file carry its workflow: "prompt", then every entry of extra_pnginfo; JSON
/// in ASCII.
std::vector<media::Text> workflow_texts(const graph::Json& prompt,
                                        const graph::Json& extra_pnginfo);

}  // namespace distorch::nodes
