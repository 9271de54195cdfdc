#include "distorch/weights/shards.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"

namespace distorch::weights {
namespace {

using Path = std::filesystem::path;

constexpr std::size_t kDigits = 5;
constexpr std::string_view kOf = "-of-";

/// "NAME-00002-of-00005.ext" in its pieces.
struct Part {
  std::string name, extension;
  int files = 0;
};

bool is_number(std::string_view text) {
  return text.size() == kDigits && text.find_first_not_of("0123456789") == std::string_view::npos;
}

std::optional<Part> part_of(const Path& file) {
  const auto stem = file.stem().string();
  constexpr auto ending = 1 + kDigits + kOf.size() + kDigits;
  if (stem.size() <= ending) return {};
  const auto tail = std::string_view(stem).substr(stem.size() - ending);
  const auto index = tail.substr(1, kDigits), count = tail.substr(tail.size() - kDigits);
  if (tail[0] != '-' || tail.substr(1 + kDigits, kOf.size()) != kOf || !is_number(index) ||
      !is_number(count))
    return {};
  Part part{stem.substr(0, stem.size() - ending), file.extension().string(),
            std::stoi(std::string(count))};
  const auto number = std::stoi(std::string(index));
  // What counts otherwise is called so by chance.
  if (number < 1 || number > part.files) return {};
  return part;
}

/// Whether it can only be a file beside the one that names it.
bool is_file_name(const std::string& name) {
  return !name.empty() && name != "." && name != ".." && !Path(name).has_parent_path();
}

bool is_index(const Path& file) { return file.string().ends_with(".index.json"); }

/// The files that an index lists, each once.
std::vector<Path> listed_in(const Path& index) {
  auto json = nlohmann::json::parse(read_file(index), nullptr, false);
  if (!json.is_object() || !json.contains("weight_map") || !json["weight_map"].is_object())
    throw Error(ErrorKind::Format, index.string(),
                "is no index of a model in several files: it has no 'weight_map'");
  std::set<std::string> names;
  for (const auto& [tensor, file] : json["weight_map"].items()) {
    if (!file.is_string() || !is_file_name(file.get<std::string>()))
      throw Error(ErrorKind::Format, index.string(),
                  fmt::format("names no file beside it for '{}'", tensor));
    names.insert(file.get<std::string>());
  }
  if (names.empty()) throw Error(ErrorKind::Format, index.string(), "lists no files");
  std::vector<Path> files;
  for (const auto& name : names) files.push_back(index.parent_path() / name);
  return files;
}

}  // namespace

std::vector<Path> shards_of(const Path& file) {
  if (is_index(file)) return listed_in(file);
  const auto part = part_of(file);
  if (!part) return {file};
  const auto index = file.parent_path() / (part->name + part->extension + ".index.json");
  if (std::filesystem::exists(index)) {
    auto files = listed_in(index);
    // An index of another set of files says nothing about this one.
    for (const auto& one : files)
      if (one.filename() == file.filename()) return files;
  }
  std::vector<Path> files;
  for (int i = 1; i <= part->files; ++i)
    files.push_back(file.parent_path() / fmt::format("{}-{:05}-of-{:05}{}", part->name, i,
                                                     part->files, part->extension));
  return files;
}

std::vector<Path> complete_shards_of(const Path& file) {
  auto files = shards_of(file);
  std::vector<std::string> absent;
  for (const auto& one : files)
    if (!std::filesystem::exists(one)) absent.push_back(one.filename().string());
  if (absent.empty() || files.size() == 1) return files;
  throw Error(ErrorKind::MissingFile, file.string(),
              fmt::format("{} {} files of a model; {} of them {} not in its folder: {}",
                          is_index(file) ? "lists" : "is one of", files.size(), absent.size(),
                          absent.size() == 1 ? "is" : "are", fmt::join(absent, ", ")));
}

Checkpoint joined_shards(const std::vector<std::shared_ptr<const formats::TensorFile>>& files) {
  Checkpoint all(files.at(0));
  for (std::size_t i = 1; i < files.size(); ++i) {
    const Checkpoint part(files[i]);
    for (const auto& [name, stored] : part.tensors()) {
      if (const auto* there = all.find(name))
        throw Error(ErrorKind::Format, files[i]->path().string(),
                    fmt::format("holds '{}', which {} holds too", name,
                                there->file->path().filename().string()));
      all.add(name, stored);
    }
  }
  for (const auto& [name, stored] : all.tensors())
    for (std::string_view ending : {"scale_weight", "weight_scale", "comfy_quant"})
      if (auto weight =
              name.substr(0, name.size() - std::min(name.size(), ending.size())) + "weight";
          name.ends_with(ending) && all.has(weight) && all.find(weight)->file != stored.file)
        throw Error(ErrorKind::Format, stored.file->path().string(),
                    fmt::format("holds '{}', and {} the weight; a model in several files must keep "
                                "the two together",
                                name, all.find(weight)->file->path().filename().string()));
  return all;
}

}  // namespace distorch::weights
