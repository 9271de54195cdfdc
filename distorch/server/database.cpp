#include "distorch/server/database.h"

#include <fmt/format.h>
#include <sqlite3.h>

#include <utility>

#include "distorch/base/error.h"
#include "distorch/base/log.h"

namespace distorch::server {

namespace {

[[noreturn]] void fail(sqlite3* database, const std::string& where) {
  int code = database ? sqlite3_errcode(database) : SQLITE_NOMEM;
  std::string text = database ? sqlite3_errmsg(database) : "out of memory";
  switch (code & 0xff) {
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      throw Error(ErrorKind::Usage, where, "is in use by another process (" + text + ")");
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB: throw Error(ErrorKind::Format, where, "is damaged (" + text + ")");
    case SQLITE_FULL: throw Error(ErrorKind::OutOfMemory, where, "the disk is full (" + text + ")");
    case SQLITE_READONLY:
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_CANTOPEN:
    case SQLITE_IOERR: throw Error(ErrorKind::Usage, where, "cannot be written (" + text + ")");
    default: throw Error(ErrorKind::Internal, where, text);
  }
}

}  // namespace

Statement::Statement(sqlite3* database, const std::string& where, const std::string& sql)
    : database_(database), where_(where) {
  if (sqlite3_prepare_v2(database_, sql.c_str(), static_cast<int>(sql.size()), &statement_,
                         nullptr) != SQLITE_OK)
    fail(database_, where_);
}

Statement::~Statement() { sqlite3_finalize(statement_); }

Statement& Statement::bind(std::int64_t value) {
  if (sqlite3_bind_int64(statement_, ++bound_, value) != SQLITE_OK) fail(database_, where_);
  return *this;
}

Statement& Statement::bind(const std::string& value) {
  if (sqlite3_bind_text64(statement_, ++bound_, value.data(), value.size(), SQLITE_TRANSIENT,
                          SQLITE_UTF8) != SQLITE_OK)
    fail(database_, where_);
  return *this;
}

Statement& Statement::bind(std::nullptr_t) {
  if (sqlite3_bind_null(statement_, ++bound_) != SQLITE_OK) fail(database_, where_);
  return *this;
}

Statement& Statement::bind(const std::optional<std::int64_t>& value) {
  return value ? bind(*value) : bind(nullptr);
}

bool Statement::step() {
  int code = sqlite3_step(statement_);
  if (code == SQLITE_ROW) return true;
  if (code != SQLITE_DONE) fail(database_, where_);
  return false;
}

void Statement::run() {
  while (step()) {
  }
}

std::int64_t Statement::number(int column) const {
  return sqlite3_column_int64(statement_, column);
}

std::string Statement::text(int column) const {
  const auto* bytes = sqlite3_column_text(statement_, column);
  if (!bytes) return {};
  return {reinterpret_cast<const char*>(bytes),
          static_cast<std::size_t>(sqlite3_column_bytes(statement_, column))};
}

bool Statement::is_null(int column) const {
  return sqlite3_column_type(statement_, column) == SQLITE_NULL;
}

Database::Database(sqlite3* handle, std::string where)
    : handle_(handle), where_(std::make_unique<std::string>(std::move(where))) {}

Database Database::open(const std::filesystem::path& file) {
  sqlite3* handle = nullptr;
  int code =
      sqlite3_open_v2(file.c_str(), &handle, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, nullptr);
  Database database(handle, file.string());
  if (code != SQLITE_OK) fail(handle, file.string());
  if (sqlite3_db_readonly(handle, "main") == 1)
    throw Error(ErrorKind::Usage, file.string(), "cannot be written");
  // Another process that is about to end (a restart) is waited for.
  constexpr int patience_ms = 2000;
  sqlite3_busy_timeout(handle, patience_ms);
  database.run("PRAGMA locking_mode=EXCLUSIVE");
  database.run("PRAGMA journal_mode=WAL");
  database.run("PRAGMA synchronous=NORMAL");
  return database;
}

Database Database::in_memory() {
  sqlite3* handle = nullptr;
  int code = sqlite3_open(":memory:", &handle);
  Database database(handle, "the database in memory");
  if (code != SQLITE_OK) fail(handle, database.where());
  return database;
}

Database::~Database() { sqlite3_close_v2(handle_); }

Database::Database(Database&& other) noexcept
    : handle_(std::exchange(other.handle_, nullptr)), where_(std::move(other.where_)) {}

Database& Database::operator=(Database&& other) noexcept {
  std::swap(handle_, other.handle_);
  std::swap(where_, other.where_);
  return *this;
}

void Database::run(const std::string& sql) {
  if (sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr) != SQLITE_OK)
    fail(handle_, *where_);
}

void Database::copy_from(const Database& source) {
  auto* backup = sqlite3_backup_init(handle_, "main", source.handle_, "main");
  if (!backup) fail(handle_, *where_);
  sqlite3_backup_step(backup, -1);
  if (sqlite3_backup_finish(backup) != SQLITE_OK) fail(handle_, *where_);
}

bool Database::is_whole() {
  auto row = prepare("PRAGMA quick_check(1)");
  return row.step() && row.text(0) == "ok";
}

Transaction::Transaction(Database& database) : database_(database) {
  database_.run("BEGIN IMMEDIATE");
}

Transaction::~Transaction() {
  if (!open_) return;
  try {
    database_.run("ROLLBACK");
  } catch (const Error&) {
    // SQLite has taken it back itself after such an error.
  }
}

void Transaction::commit() {
  database_.run("COMMIT");
  open_ = false;
}

void Database::make_tables(const char* tables, int schema) {
  const auto version = [&] {
    auto statement = prepare("PRAGMA user_version");
    statement.step();
    return statement.number(0);
  }();
  if (version > schema)
    throw Error(ErrorKind::Usage, where(),
                fmt::format("was written by a newer distorch (schema {}, this one knows {})",
                            version, schema));
  if (version == schema) return;
  Transaction transaction(*this);
  run(tables);
  run(fmt::format("PRAGMA user_version={}", schema));
  transaction.commit();
}

Database copy_in_memory(const Database& database, const char* loss) {
  auto memory = Database::in_memory();
  try {
    memory.copy_from(database);
    if (memory.is_whole()) return memory;
    throw Error(ErrorKind::Format, database.where(), "is damaged, as a copy of it is");
  } catch (const Error& error) {
    log::error("{}: {}", error.what(), loss);
  }
  return Database::in_memory();
}

}  // namespace distorch::server
