#pragma once
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "distorch/server/asset_store.h"
#include "distorch/server/surroundings.h"

namespace distorch::server {

/// Files by what they hold: clients ask whether the server has a content before they send it, and
/// name it in workflows by its id. Files lie in the input folder, or in a folder of models, under
/// the name that the client wished, and are whole there or not at all. Safe to call from any thread.
class Assets {
 public:
  /// What is handed over must outlive this object.
  Assets(const FileFolders& folders, const ModelPlaces& models, std::filesystem::path database);

  struct Added {
    Asset asset;
    bool created = false;  // false: the server had this content already
  };
  struct Upload {
    std::string path;  // as the client wishes it: "a.png", "input/sub/a.png", "loras/b.safetensors"
    std::string_view content;
    std::string content_type;   // as the client says; "" where it says nothing
    std::string expected_hash;  // "blake3:..."; "" where it says nothing
  };
  /// RefusedV2: 422 for a name that is not allowed or a model that is no safetensors file, 409
  /// where the content is not what the hash says or the model's name is taken.
  Added upload(const Upload& upload);
  /// A file that lies in the input, output or temp folder, or in one of models, is known from now on
  /// without being copied. RefusedV2: 404 where it is none, 422 where it lies elsewhere.
  Added know(const std::filesystem::path& file, const std::string& path,
             const std::string& content_type);

  std::optional<Asset> by_id(const std::string& id) const { return store_.find(id); }
  /// One whose file still holds this content; `hash` as "blake3:..." or its digits alone.
  std::optional<Asset> by_hash(const std::string& hash);
  /// What a loader's input names it by: "sub/a.png", "a.png [output]", "b.safetensors".
  static std::string input_value(const Asset& asset);
  /// Its file; nothing where it is gone.
  std::optional<std::filesystem::path> file_of(const Asset& asset) const;
  /// The file stays.
  bool forget(const std::string& id) { return store_.remove(id); }

  AssetStore& store() { return store_; }
  const FileFolders& folders() const { return folders_; }

 private:
  bool holds_still(Asset& asset);
  Asset described(const std::filesystem::path& file) const;
  void place_input(const Upload& upload, const std::string& name, Asset& asset) const;
  void place_model(const Upload& upload, const std::string& name, Asset& asset) const;
  bool is_model_folder(const std::string& name) const;

  const FileFolders& folders_;
  const ModelPlaces& models_;
  AssetStore store_;
  std::mutex placing_;
};

/// Whether the bytes begin as a safetensors file does: the length of a header, and in it an object of
/// tensors with type, shape and place.
bool looks_like_safetensors(std::string_view bytes);

}  // namespace distorch::server
