#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace distorch::server {

/// The longest name from outside, and the longest of its parts, in bytes.
inline constexpr std::size_t kNameLimit = 2000;
inline constexpr std::size_t kPartLimit = 255;

/// Names that come from outside, kept within a folder. A name is UTF-8, relative, with "/" or "\"
/// between its parts; empty parts and "." count for nothing. Error(Usage, name) says why a name is
/// refused: "..", absolute names and drive letters, NUL and other control characters, bytes that
/// are no UTF-8 (overlong spellings among them), names of Windows devices ("NUL", "com1.txt"), parts
/// of dots and spaces alone, names that are too long, and names that a symbolic link leads out of
/// the folder. The folder itself may be a link. The file need not be there.
///
/// The result is folder / name with the parts as they were given, for file operations and for
/// relative(). "" gives the folder itself.
std::filesystem::path confined_path(const std::filesystem::path& folder, std::string_view name);

/// The relative path that a name says, with every check but that of links.
std::filesystem::path relative_name(std::string_view name);

/// confined_path() for a file: a name without any part is refused, too.
std::filesystem::path confined_file(const std::filesystem::path& folder, std::string_view name);

/// Whether a file or folder that was found below `folder` really lies there, links followed.
bool lies_within(const std::filesystem::path& folder, const std::filesystem::path& found);

/// Whether these bytes are UTF-8 as the standard has it: no overlong spelling, no surrogates.
bool is_utf8(std::string_view bytes);

}  // namespace distorch::server
