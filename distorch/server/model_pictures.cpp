#include "distorch/server/model_pictures.h"

#include <algorithm>
#include <cstdint>
#include <vector>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/graph/json_text.h"
#include "distorch/server/confined_path.h"
#include "distorch/server/file_types.h"
#include "distorch/server/view_routes.h"

namespace distorch::server {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kPictureLimit = std::size_t{1} << 28;  // bytes
constexpr std::size_t kHeaderLimit = std::size_t{1} << 23;   // bytes

/// Pictures beside the model, those with its very stem first.
std::vector<fs::path> beside(const fs::path& model) {
  auto stem = model.stem().string();
  std::vector<fs::path> exact, others;
  std::error_code error;
  for (fs::directory_iterator entry(model.parent_path(), error), end; !error && entry != end;
       entry.increment(error)) {
    auto name = entry->path().filename().string();
    if (name.compare(0, stem.size(), stem) != 0) continue;
    auto type = type_of_name(name);
    if (type.rfind("image/", 0) != 0 || may_run(type)) continue;
    std::error_code ignored;
    if (!entry->is_regular_file(ignored)) continue;
    auto own = entry->path().stem().string();
    if (own == stem) exact.push_back(entry->path());
    if (own == stem + ".preview") others.push_back(entry->path());
  }
  std::sort(exact.begin(), exact.end());
  std::sort(others.begin(), others.end());
  exact.insert(exact.end(), others.begin(), others.end());
  return exact;
}

/// The metadata hold a JSON list as a text, with pictures in base64.
std::optional<std::string> cover_of(const fs::path& model) {
  auto metadata = safetensors_metadata(model, kHeaderLimit);
  if (!metadata) return {};
  auto covers = metadata->find("ssmd_cover_images");
  if (covers == metadata->end() || !covers->is_string()) return {};
  try {
    auto list = graph::parse_json(covers->get_ref<const std::string&>(), "ssmd_cover_images");
    if (!list.is_array() || list.empty() || !list[0].is_string()) return {};
    return base64_decoded(list[0].get_ref<const std::string&>());
  } catch (const Error&) {
    return {};
  }
}

}  // namespace

std::optional<std::string> base64_decoded(std::string_view text) {
  static constexpr std::string_view letters =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string bytes;
  std::uint32_t waiting = 0;
  int bits = 0;
  for (char c : text) {
    if (c == '=') break;
    if (c == '\n' || c == '\r') continue;
    auto value = letters.find(c);
    if (value == std::string_view::npos) return {};
    waiting = (waiting << 6 | static_cast<std::uint32_t>(value)) & 0xffffff;
    bits += 6;
    if (bits < 8) continue;
    bits -= 8;
    bytes += static_cast<char>(waiting >> bits);
  }
  return bytes;
}

std::optional<std::string> picture_of_model(const fs::path& model, const fs::path& folder) {
  for (const auto& picture : beside(model))
    if (lies_within(folder, picture)) return read_file(picture, kPictureLimit);
  if (model.extension() == ".safetensors") return cover_of(model);
  auto twin = model;
  return cover_of(twin.replace_extension(".safetensors"));
}

}  // namespace distorch::server
