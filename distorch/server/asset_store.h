#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "distorch/server/database.h"

namespace distorch::server {

/// A file that a client gave to the server, or that it told the server of.
struct Asset {
  std::string id;            // a UUID
  std::string hash;          // BLAKE3, 64 hexadecimal digits
  std::string content_type;  // one that no browser runs
  std::string path;          // as the client called it
  std::string type;          // "input", "output", "temp", or "models"
  std::string folder;        // of "models": "checkpoints", "loras", ...
  std::string name;          // relative to the folder, with "/"
  std::int64_t size_bytes = 0;
  std::int64_t created_ms = 0;
  std::int64_t file_time = 0;  // when the file was written, as its file system counts
};

/// Keeps what is known of assets, and the keys under which jobs were posted, in an SQLite file. What
/// a function wrote is on disk when it returns. Where the file cannot be used the store says so in
/// problem() and in the log and goes on in memory. Safe to call from any thread.
class AssetStore {
 public:
  explicit AssetStore(const std::filesystem::path& file);
  /// "" while the file is used; else why it is not.
  std::string problem() const;

  /// Takes the place of one of the same id.
  void put(const Asset& asset);
  bool remove(const std::string& id);
  std::optional<Asset> find(const std::string& id) const;
  /// All with this content, the oldest first.
  std::vector<Asset> with_hash(const std::string& hash) const;

  /// False where the key was claimed before. Of claimed keys the newest 10,000 are remembered.
  bool claim(const std::string& key);
  void release(const std::string& key);

 private:
  void set_up();
  void write(const std::function<void()>& work);

  mutable std::mutex mutex_;
  mutable Database database_;
  std::string problem_;
};

}  // namespace distorch::server
