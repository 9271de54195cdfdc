#include "distorch/server/asset_store.h"

#include "distorch/base/error.h"
#include "distorch/base/log.h"

namespace distorch::server {

namespace {

constexpr int kSchema = 1;
constexpr int kMostKeys = 10'000;

constexpr const char* kTables = R"(
CREATE TABLE IF NOT EXISTS assets(
  id TEXT PRIMARY KEY,
  hash TEXT NOT NULL,
  content_type TEXT NOT NULL,
  path TEXT NOT NULL,
  type TEXT NOT NULL,
  folder TEXT NOT NULL,
  name TEXT NOT NULL,
  size INTEGER NOT NULL,
  created INTEGER NOT NULL,
  file_time INTEGER NOT NULL);
CREATE INDEX IF NOT EXISTS assets_hash ON assets(hash);
CREATE TABLE IF NOT EXISTS keys(number INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE);
)";

constexpr const char* kColumns =
    "SELECT id, hash, content_type, path, type, folder, name, size, created, file_time FROM "
    "assets ";

Asset asset_of(const Statement& row) {
  Asset asset;
  asset.id = row.text(0);
  asset.hash = row.text(1);
  asset.content_type = row.text(2);
  asset.path = row.text(3);
  asset.type = row.text(4);
  asset.folder = row.text(5);
  asset.name = row.text(6);
  asset.size_bytes = row.number(7);
  asset.created_ms = row.number(8);
  asset.file_time = row.number(9);
  return asset;
}

}  // namespace

AssetStore::AssetStore(const std::filesystem::path& file) : database_(Database::in_memory()) {
  try {
    database_ = Database::open(file);
    set_up();
  } catch (const Error& error) {
    database_ = Database::in_memory();
    set_up();
    problem_ = error.what();
    log::error("{}: assets are known until this process ends", problem_);
  }
}

void AssetStore::set_up() { database_.make_tables(kTables, kSchema); }

std::string AssetStore::problem() const {
  std::lock_guard lock(mutex_);
  return problem_;
}

/// Where the file fails, what it holds is taken into memory and the work done there.
void AssetStore::write(const std::function<void()>& work) {
  auto whole = [&] {
    Transaction transaction(database_);
    work();
    transaction.commit();
  };
  try {
    whole();
  } catch (const Error& error) {
    if (!problem_.empty() || error.kind() == ErrorKind::Internal) throw;
    problem_ = error.what();
    log::error("{}: assets are known until this process ends", problem_);
    database_ = copy_in_memory(database_, "earlier assets are not known any more");
    set_up();
    whole();
  }
}

void AssetStore::put(const Asset& asset) {
  std::lock_guard lock(mutex_);
  write([&] {
    database_
        .prepare(
            "INSERT OR REPLACE INTO assets(id, hash, content_type, path, type, folder, name, size, "
            "created, file_time) VALUES(?,?,?,?,?,?,?,?,?,?)")
        .bind(asset.id)
        .bind(asset.hash)
        .bind(asset.content_type)
        .bind(asset.path)
        .bind(asset.type)
        .bind(asset.folder)
        .bind(asset.name)
        .bind(asset.size_bytes)
        .bind(asset.created_ms)
        .bind(asset.file_time)
        .run();
  });
}

bool AssetStore::remove(const std::string& id) {
  std::lock_guard lock(mutex_);
  auto known = [&] { return database_.prepare("SELECT 1 FROM assets WHERE id=?").bind(id).step(); };
  if (!known()) return false;
  write([&] { database_.prepare("DELETE FROM assets WHERE id=?").bind(id).run(); });
  return true;
}

std::optional<Asset> AssetStore::find(const std::string& id) const {
  std::lock_guard lock(mutex_);
  auto row = database_.prepare(std::string(kColumns) + "WHERE id=?");
  if (!row.bind(id).step()) return {};
  return asset_of(row);
}

std::vector<Asset> AssetStore::with_hash(const std::string& hash) const {
  std::lock_guard lock(mutex_);
  auto rows = database_.prepare(std::string(kColumns) + "WHERE hash=? ORDER BY created, id");
  rows.bind(hash);
  std::vector<Asset> assets;
  while (rows.step()) assets.push_back(asset_of(rows));
  return assets;
}

bool AssetStore::claim(const std::string& key) {
  std::lock_guard lock(mutex_);
  if (database_.prepare("SELECT 1 FROM keys WHERE key=?").bind(key).step()) return false;
  write([&] {
    database_.prepare("INSERT INTO keys(key) VALUES(?)").bind(key).run();
    database_.prepare("DELETE FROM keys WHERE number <= (SELECT max(number) FROM keys) - ?")
        .bind(std::int64_t{kMostKeys})
        .run();
  });
  return true;
}

void AssetStore::release(const std::string& key) {
  std::lock_guard lock(mutex_);
  write([&] { database_.prepare("DELETE FROM keys WHERE key=?").bind(key).run(); });
}

}  // namespace distorch::server
