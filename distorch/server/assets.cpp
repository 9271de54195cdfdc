#include "distorch/server/assets.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "distorch/base/atomic_file.h"
#include "distorch/base/blake3.h"
#include "distorch/base/text.h"
#include "distorch/graph/json_text.h"
#include "distorch/server/api_v2.h"
#include "distorch/server/confined_path.h"
#include "distorch/server/file_types.h"
#include "distorch/server/job.h"
#include "distorch/server/stored_file.h"
#include "distorch/server/uuid.h"

namespace distorch::server {

namespace fs = std::filesystem;

namespace {

constexpr std::string_view kPrefix = "blake3:";

[[noreturn]] void refuse(const std::string& sentence, int status = 422,
                         const char* code = "invalid_request") {
  throw RefusedV2(status, code, sentence);
}

/// The digits of "blake3:..." or of digits alone; "" for anything else.
std::string digits_of(const std::string& hash) {
  auto digits = lower(hash);
  if (digits.starts_with(kPrefix)) digits.erase(0, kPrefix.size());
  constexpr std::size_t kDigits = 64;
  bool good =
      digits.size() == kDigits && digits.find_first_not_of("0123456789abcdef") == std::string::npos;
  return good ? digits : "";
}

std::int64_t time_of(const fs::path& file) {
  std::error_code error;
  auto time = fs::last_write_time(file, error);
  return error ? 0 : static_cast<std::int64_t>(time.time_since_epoch().count());
}

/// What the client says where it is a plain type that no browser runs, else what the name says.
std::string safe_type(const std::string& said, const std::string& name) {
  auto plain = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '/' || c == '-' || c == '+' ||
           c == '.';
  };
  auto type = lower(said.substr(0, said.find(';')));
  constexpr std::size_t kLongest = 100;
  if (type.empty() || type.size() > kLongest || !std::all_of(type.begin(), type.end(), plain) ||
      std::count(type.begin(), type.end(), '/') != 1)
    type = type_of_name(name);
  return may_run(type) ? "application/octet-stream" : type;
}

std::string joined(const std::vector<std::string>& parts, std::size_t first) {
  std::string text;
  for (auto i = first; i < parts.size(); ++i) text += (text.empty() ? "" : "/") + parts[i];
  return text;
}

std::vector<std::string> parts_of(const std::string& path) {
  std::vector<std::string> parts;
  if (!path.empty() && (path[0] == '/' || path[0] == '\\'))
    refuse("'file_path' is to be relative.");
  try {
    for (const auto& part : relative_name(path)) parts.push_back(part.string());
  } catch (const Error& error) {
    refuse(fmt::format("'file_path' {}", error.sentence()));
  }
  if (parts.empty()) refuse("'file_path' is to name a file.");
  return parts;
}

}  // namespace

bool looks_like_safetensors(std::string_view bytes) {
  constexpr std::size_t kHead = 8;
  constexpr std::uint64_t kLongest = 100'000'000;
  if (bytes.size() < kHead) return false;
  std::uint64_t length = 0;
  for (auto i = kHead; i-- > 0;) length = length << 8 | static_cast<unsigned char>(bytes[i]);
  if (length == 0 || length > kLongest || length > bytes.size() - kHead) return false;
  Json header;
  try {
    header =
        graph::parse_json(bytes.substr(kHead, length), "header", {.bytes = kLongest, .depth = 8});
  } catch (const Error&) {
    return false;
  }
  if (!header.is_object()) return false;
  return std::all_of(header.items().begin(), header.items().end(), [](const auto& item) {
    const auto& tensor = item.value();
    return item.key() == "__metadata__" ||
           (tensor.is_object() && tensor.contains("dtype") && tensor.contains("shape") &&
            tensor.contains("data_offsets"));
  });
}

Assets::Assets(const FileFolders& folders, const ModelPlaces& models, fs::path database)
    : folders_(folders), models_(models), store_(database) {}

bool Assets::is_model_folder(const std::string& name) const {
  // What lies in these is code or is read as such.
  if (name == "custom_nodes" || name == "configs") return false;
  auto types = models_.types();
  return std::find(types.begin(), types.end(), name) != types.end();
}

std::optional<fs::path> Assets::file_of(const Asset& asset) const {
  std::error_code ignored;
  if (asset.type == "models") {
    for (const auto& folder : models_.folders(asset.folder)) {
      auto file = confined_file(folder, asset.name);
      if (fs::is_regular_file(file, ignored)) return file;
    }
    return {};
  }
  const auto* folder = folders_.of_type(asset.type);
  if (!folder) return {};
  auto file = confined_file(*folder, asset.name);
  if (!fs::is_regular_file(file, ignored)) return {};
  return file;
}

/// Whether the asset's file is as it was, or holds the same all the same.
bool Assets::holds_still(Asset& asset) {
  try {
    auto file = file_of(asset);
    if (!file) return false;
    std::error_code ignored;
    if (static_cast<std::int64_t>(fs::file_size(*file, ignored)) != asset.size_bytes) return false;
    auto time = time_of(*file);
    if (time == asset.file_time) return true;
    if (blake3_of_file(*file) != asset.hash) return false;
    asset.file_time = time;
    store_.put(asset);
    return true;
  } catch (const Error&) {
    return false;
  }
}

std::optional<Asset> Assets::by_hash(const std::string& hash) {
  auto digits = digits_of(hash);
  if (digits.empty()) return {};
  for (auto& asset : store_.with_hash(digits))
    if (holds_still(asset)) return asset;
  return {};
}

std::string Assets::input_value(const Asset& asset) {
  bool elsewhere = asset.type == "output" || asset.type == "temp";
  return elsewhere ? asset.name + " [" + asset.type + "]" : asset.name;
}

void Assets::place_input(const Upload& upload, const std::string& name, Asset& asset) const {
  asset.type = "input";
  asset.name = store_file(confined_file(folders_.input, name), name, upload.content, false);
}

void Assets::place_model(const Upload& upload, const std::string& name, Asset& asset) const {
  if (!lower(name).ends_with(".safetensors"))
    refuse(fmt::format("'{}' is not taken: models are to be .safetensors files.", name));
  if (!looks_like_safetensors(upload.content))
    refuse(fmt::format("'{}' does not begin as a safetensors file does.", name));
  auto folders = models_.folders(asset.folder);
  if (folders.empty()) refuse(fmt::format("There is no folder for '{}'.", asset.folder));
  auto place = confined_file(folders.front(), name);
  std::error_code error;
  fs::create_directories(place.parent_path(), error);
  if (error) refuse(fmt::format("'{}' cannot be made: {}", name, error.message()));
  AtomicFile file(place);
  file.write(upload.content);
  if (!file.commit_if_absent(place))
    refuse(fmt::format("'{}' is there already, with another content.", name), 409, "hash_mismatch");
  asset.type = "models";
  asset.name = name;
}

Assets::Added Assets::upload(const Upload& upload) {
  auto parts = parts_of(upload.path);
  if (parts.front() == "models") parts.erase(parts.begin());
  if (parts.empty()) refuse("'file_path' is to name a file.");
  const bool model = parts.size() > 1 && is_model_folder(parts.front());
  if (parts.size() > 1 && !model && parts.front() != "input")
    refuse(fmt::format("'{}' is no folder that files may be put into: 'input', or one of models.",
                       parts.front()));
  Blake3 hash;
  hash.update(upload.content);
  Asset asset;
  asset.hash = hash.hex();
  if (!upload.expected_hash.empty() && digits_of(upload.expected_hash) != asset.hash)
    refuse("The content is not what 'expected_hash' says.", 409, "hash_mismatch");
  // Two uploads of one content at one time become one asset.
  std::lock_guard lock(placing_);
  if (auto known = by_hash(asset.hash)) return {std::move(*known), false};
  auto name = joined(parts, parts.size() > 1 ? 1 : 0);
  if (model) asset.folder = parts.front();
  if (model)
    place_model(upload, name, asset);
  else
    place_input(upload, name, asset);
  asset.id = new_uuid();
  asset.path = upload.path;
  asset.content_type = safe_type(upload.content_type, name);
  asset.size_bytes = static_cast<std::int64_t>(upload.content.size());
  asset.created_ms = now_ms();
  if (auto file = file_of(asset)) asset.file_time = time_of(*file);
  store_.put(asset);
  return {std::move(asset), true};
}

/// Where a file lies among the folders that clients know.
Asset Assets::described(const fs::path& file) const {
  Asset asset;
  auto lies_in = [&](const fs::path& folder) {
    std::error_code error;
    auto root = fs::canonical(folder, error);
    if (error) return false;
    auto relative = file.lexically_relative(root).generic_string();
    if (relative.empty() || relative == "." || relative.starts_with("..")) return false;
    asset.name = relative;
    return true;
  };
  for (const char* type : {"input", "output", "temp"})
    if (lies_in(*folders_.of_type(type))) {
      asset.type = type;
      return asset;
    }
  for (const auto& type : models_.types())
    for (const auto& folder : models_.folders(type))
      if (is_model_folder(type) && lies_in(folder)) {
        asset.type = "models";
        asset.folder = type;
        return asset;
      }
  refuse("The file is to lie in the input, output or temp folder, or in one of models.");
}

Assets::Added Assets::know(const fs::path& given, const std::string& path,
                           const std::string& content_type) {
  std::error_code error;
  auto file = fs::canonical(given, error);
  if (error || !fs::is_regular_file(file, error))
    refuse("There is no such file.", 404, "blob_not_found");
  auto asset = described(file);
  if (asset.type == "models" && !lower(asset.name).ends_with(".safetensors"))
    refuse("Of models only .safetensors files are taken.");
  asset.file_time = time_of(file);
  asset.hash = blake3_of_file(file);
  std::lock_guard lock(placing_);
  if (auto known = by_hash(asset.hash)) return {std::move(*known), false};
  asset.id = new_uuid();
  asset.path = path.empty() ? asset.name : path;
  asset.content_type = safe_type(content_type, asset.name);
  asset.size_bytes = static_cast<std::int64_t>(fs::file_size(file, error));
  asset.created_ms = now_ms();
  store_.put(asset);
  return {std::move(asset), true};
}

}  // namespace distorch::server
