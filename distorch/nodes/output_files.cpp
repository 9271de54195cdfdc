#include "distorch/nodes/output_files.h"

#include <fmt/chrono.h>
#include <fmt/format.h>
#include <unistd.h>

#include <ctime>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/nodes/output_numbers.h"

namespace distorch::nodes {

namespace fs = std::filesystem;

namespace {

void replace_all(std::string& text, const std::string& from, const std::string& to) {
  for (auto at = text.find(from); at != std::string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
}

std::string fill_in(std::string prefix, std::int64_t width, std::int64_t height) {
  if (prefix.find('%') == std::string::npos) return prefix;
  std::time_t now = std::time(nullptr);
  std::tm local{};
  localtime_r(&now, &local);
  replace_all(prefix, "%width%", std::to_string(width));
  replace_all(prefix, "%height%", std::to_string(height));
  replace_all(prefix, "%year%", std::to_string(local.tm_year + 1900));
  replace_all(prefix, "%month%", fmt::format("{:02}", local.tm_mon + 1));
  replace_all(prefix, "%day%", fmt::format("{:02}", local.tm_mday));
  replace_all(prefix, "%hour%", fmt::format("{:02}", local.tm_hour));
  replace_all(prefix, "%minute%", fmt::format("{:02}", local.tm_min));
  replace_all(prefix, "%second%", fmt::format("{:02}", local.tm_sec));
  return prefix;
}

bool is_inside(const fs::path& path, const fs::path& folder) {
  auto relative = path.lexically_relative(folder);
  return !relative.empty() && *relative.begin() != "..";
}

}  // namespace

OutputPlace output_place(const std::string& prefix, const fs::path& output, std::int64_t width,
                         std::int64_t height) {
  if (prefix.find('\0') != std::string::npos)
    throw Error(ErrorKind::Usage, "filename_prefix",
                "holds a character of the number 0, which no file's name can have");
  auto filled = fill_in(prefix, width, height);
  auto wanted = fs::path(filled).lexically_normal();
  auto root = fs::absolute(output).lexically_normal();
  if (!root.has_filename()) root = root.parent_path();  // "output/" is "output"
  OutputPlace place;
  place.name = wanted.filename().string();
  place.folder = (root / wanted.parent_path()).lexically_normal();
  if (!place.folder.has_filename()) place.folder = place.folder.parent_path();
  // Links below the output folder count as what they point to.
  if (!is_inside(place.folder, root) ||
      !is_inside(fs::weakly_canonical(place.folder), fs::weakly_canonical(root)))
    throw Error(ErrorKind::Usage, "filename_prefix",
                fmt::format("'{}' leads out of the output folder {}", prefix, root.string()));
  place.subfolder = wanted.parent_path().generic_string();
  if (place.subfolder == ".") place.subfolder.clear();
  std::error_code error;
  fs::create_directories(place.folder, error);
  if (error || !fs::is_directory(place.folder))
    throw Error(ErrorKind::Usage, place.folder.string(),
                fmt::format("cannot be made as an output folder: {}", error.message()));
  if (::access(place.folder.c_str(), W_OK) != 0)
    throw Error(ErrorKind::Usage, place.folder.string(),
                "is an output folder that cannot be written to");
  return place;
}

std::int64_t next_number(const OutputPlace& place) {
  return output_numbers().next(place.folder, place.name);
}

std::string numbered(const std::string& name, std::int64_t number, const std::string& extension,
                     const std::string& behind) {
  return fmt::format("{}_{:05}{}{}", name, number, behind, extension);
}

std::string write_numbered(const OutputPlace& place, const std::string& extension,
                           const std::string& bytes, const std::string& behind) {
  auto number = next_number(place);
  AtomicFile file(place.folder / numbered(place.name, number, extension, behind));
  file.write(bytes);
  // Again: while nothing else is done between the question and the name, the answer is right.
  number = next_number(place);
  while (!file.commit_if_absent(place.folder / numbered(place.name, number, extension, behind)))
    ++number;
  output_numbers().wrote(place.folder, place.name, number);
  return numbered(place.name, number, extension, behind);
}

std::vector<media::Text> workflow_texts(const graph::Json& prompt,
                                        const graph::Json& extra_pnginfo) {
  auto ascii = [](const graph::Json& json) {
    return json.dump(-1, ' ', true, graph::Json::error_handler_t::replace);
  };
  std::vector<media::Text> texts;
  if (!prompt.is_null()) texts.push_back({"prompt", ascii(prompt)});
  if (extra_pnginfo.is_object())
    for (const auto& [key, value] : extra_pnginfo.items()) texts.push_back({key, ascii(value)});
  return texts;
}

}  // namespace distorch::nodes
