#include "distorch/server/confined_path.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <vector>

#include "distorch/base/error.h"
#include "distorch/base/text.h"

namespace distorch::server {

namespace fs = std::filesystem;

namespace {

/// A name as messages quote it: short, and without bytes that would disturb a terminal or a header.
std::string quoted(std::string_view name) {
  constexpr std::size_t shown = 80;
  std::string text(name.substr(0, shown));
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f || static_cast<unsigned char>(c) >= 0x80)
      c = '?';
  if (name.size() > shown) text += "...";
  return text.empty() ? "name" : text;
}

[[noreturn]] void refuse(std::string_view name, const std::string& why) {
  throw Error(ErrorKind::Usage, quoted(name), why);
}

std::vector<std::string> parts_of(std::string_view name) {
  std::vector<std::string> parts;
  std::string part;
  auto finish = [&] {
    if (!part.empty() && part != ".") parts.push_back(part);
    part.clear();
  };
  for (char c : name)
    if (c == '/' || c == '\\')
      finish();
    else
      part += c;
  finish();
  return parts;
}

/// "nul", "COM1.tar.gz", "aux ": Windows opens a device where it meets such a part.
bool is_device_name(const std::string& part) {
  static constexpr std::array names = {"con", "prn", "aux", "nul", "conin$", "conout$", "clock$"};
  auto stem = lower(part.substr(0, part.find('.')));
  while (!stem.empty() && stem.back() == ' ') stem.pop_back();
  if (std::find(names.begin(), names.end(), stem) != names.end()) return true;
  if (stem.rfind("com", 0) != 0 && stem.rfind("lpt", 0) != 0) return false;
  // Superscript one, two and three count as digits there.
  static constexpr std::array digits = {"0", "1", "2", "3",        "4",        "5",       "6",
                                        "7", "8", "9", "\xc2\xb9", "\xc2\xb2", "\xc2\xb3"};
  return std::find(digits.begin(), digits.end(), stem.substr(3)) != digits.end();
}

void check_characters(std::string_view name) {
  if (name.size() > kNameLimit)
    refuse(name, fmt::format("has {} bytes, more than the {} that a name may have", name.size(),
                             kNameLimit));
  for (unsigned char c : name)
    if (c < 0x20 || c == 0x7f) refuse(name, "holds a control character");
  if (!is_utf8(name)) refuse(name, "is not UTF-8");
}

void check_part(std::string_view name, const std::string& part) {
  if (part == "..") refuse(name, "leads out of its folder with '..'");
  if (part.size() > kPartLimit)
    refuse(name, fmt::format("has a part of {} bytes, more than the {} that a file name may have",
                             part.size(), kPartLimit));
  if (part.find_first_not_of(". ") == std::string::npos)
    refuse(name, "has a part of dots and spaces alone");
  if (is_device_name(part)) refuse(name, "names a device of Windows");
}

/// Names that start at a root or a drive, with either slash.
void check_relative(std::string_view name) {
  if (name.empty()) return;
  bool letter = (name[0] >= 'a' && name[0] <= 'z') || (name[0] >= 'A' && name[0] <= 'Z');
  if (name[0] == '/' || name[0] == '\\' || (letter && name.size() > 1 && name[1] == ':'))
    refuse(name, "is absolute; a name relative to its folder is wanted");
}

}  // namespace

bool is_utf8(std::string_view bytes) {
  std::size_t at = 0;
  while (at < bytes.size()) {
    auto first = static_cast<unsigned char>(bytes[at++]);
    if (first < 0x80) continue;
    int more = first >= 0xf0 ? 3 : first >= 0xe0 ? 2 : 1;
    if (first < 0xc2 || first > 0xf4) return false;
    char32_t character = first & (0x3fu >> more);
    for (; more > 0; --more) {
      if (at >= bytes.size()) return false;
      auto next = static_cast<unsigned char>(bytes[at++]);
      if ((next & 0xc0) != 0x80) return false;
      character = (character << 6) | (next & 0x3f);
    }
    bool overlong = (first >= 0xf0 && character < 0x10000) || (first >= 0xe0 && character < 0x800);
    bool surrogate = character >= 0xd800 && character <= 0xdfff;
    if (overlong || surrogate || character > 0x10ffff) return false;
  }
  return true;
}

bool lies_within(const fs::path& folder, const fs::path& found) {
  std::error_code error;
  auto root = fs::weakly_canonical(folder, error);
  if (error) return false;
  // A link to nothing is not followed by weakly_canonical(), but by whoever opens it later.
  auto links = found;
  while (links != folder && links.has_relative_path()) {
    if (fs::is_symlink(links, error) && !fs::exists(links, error)) return false;
    links = links.parent_path();
  }
  auto real = fs::weakly_canonical(found, error);
  if (error) return false;
  auto relative = real.lexically_relative(root);
  return !relative.empty() && *relative.begin() != "..";
}

fs::path relative_name(std::string_view name) {
  check_characters(name);
  check_relative(name);
  fs::path path;
  for (const auto& part : parts_of(name)) {
    check_part(name, part);
    path /= part;
  }
  return path;
}

fs::path confined_path(const fs::path& folder, std::string_view name) {
  auto relative = relative_name(name);
  auto path = relative.empty() ? folder : folder / relative;
  if (!lies_within(folder, path)) refuse(name, "leads out of its folder through a link");
  return path;
}

fs::path confined_file(const fs::path& folder, std::string_view name) {
  check_characters(name);
  if (parts_of(name).empty()) refuse(name, "names no file");
  return confined_path(folder, name);
}

}  // namespace distorch::server
