#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

struct sqlite3;
struct sqlite3_stmt;

namespace distorch::server {

/// One SQL statement of a Database, which must outlive it.
class Statement {
 public:
  Statement(sqlite3* database, const std::string& where, const std::string& sql);
  ~Statement();
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;

  /// Values take the places of the question marks, in order.
  Statement& bind(std::int64_t value);
  Statement& bind(const std::string& value);
  Statement& bind(std::nullptr_t);
  Statement& bind(const std::optional<std::int64_t>& value);
  /// True while there is a row to read.
  bool step();
  /// Runs to its end.
  void run();

  /// Of the current row; columns count from 0. 0 and "" for NULL.
  std::int64_t number(int column) const;
  std::string text(int column) const;
  bool is_null(int column) const;

 private:
  sqlite3* database_;
  const std::string& where_;
  sqlite3_stmt* statement_ = nullptr;
  int bound_ = 0;
};

/// A connection to an SQLite database. Not for several threads at once. Every failure is an Error
/// whose where() is the file: Format for a file that is damaged or no database, OutOfMemory for a
/// full disk, Usage for a file that is locked, cannot be written or cannot be made.
class Database {
 public:
  /// Opens or makes the file, for this process alone, with a write-ahead log. What was committed
  /// survives the end of the process, whatever ends it. Where the machine itself stops the file is
  /// whole, but may lack what was committed in the last moments: nothing waits for the disk.
  static Database open(const std::filesystem::path& file);
  static Database in_memory();
  ~Database();
  Database(Database&& other) noexcept;
  Database& operator=(Database&& other) noexcept;

  void run(const std::string& sql);
  Statement prepare(const std::string& sql) { return {handle_, *where_, sql}; }
  /// Takes over everything that `source` holds. Error as for every other operation.
  void copy_from(const Database& source);
  /// Makes the tables where the file is older than `schema`, all or none of them. Error(Usage) where
  /// it was written by a program that knows a newer one.
  void make_tables(const char* tables, int schema);
  /// Whether all pages and rows can be read; looks at every one.
  bool is_whole();
  const std::string& where() const { return *where_; }

 private:
  Database(sqlite3* handle, std::string where);
  sqlite3* handle_ = nullptr;
  std::unique_ptr<std::string> where_;
};

/// What the database holds, in memory; nothing where it cannot be read whole, after an error in the
/// log that ends with `loss`.
Database copy_in_memory(const Database& database, const char* loss);

/// From its making to its commit() all or nothing; without commit() it is taken back.
class Transaction {
 public:
  explicit Transaction(Database& database);
  ~Transaction();
  Transaction(const Transaction&) = delete;
  Transaction& operator=(const Transaction&) = delete;
  void commit();

 private:
  Database& database_;
  bool open_ = true;
};

}  // namespace distorch::server
