#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <mutex>
#include <string>
#include <tuple>

namespace distorch::nodes {

/// The numbers of saved files: a folder is looked through once for each name, and again only when
/// somebody else has changed it since. What it says may be late by a moment, so that a file must be
/// given its name without replacing another one. Safe to call from any thread.
class OutputNumbers {
 public:
  /// One above the highest N among files "<name>_N_..." and "<name>_N.<...>" of the folder; 1 where
  /// there is none.
  std::int64_t next(const std::filesystem::path& folder, const std::string& name);
  /// This process has just given a file this number, nothing else happened in the folder since
  /// next(): what is known of it stays true.
  void wrote(const std::filesystem::path& folder, const std::string& name, std::int64_t number);
  /// How often a folder was looked through.
  std::int64_t looks() const;

 private:
  /// What changes with a folder's entries: device, inode, and the time in seconds and nanoseconds;
  /// zeros where it cannot be told.
  using Stamp = std::tuple<std::uint64_t, std::uint64_t, std::int64_t, std::int64_t>;
  struct Folder {
    Stamp stamp;
    std::map<std::string, std::int64_t> highest;  // by name
  };
  static Stamp stamp_of(const std::filesystem::path& folder);

  mutable std::mutex mutex_;
  std::map<std::string, Folder> folders_;
  std::int64_t looks_ = 0;
};

/// The one of this process.
OutputNumbers& output_numbers();

}  // namespace distorch::nodes
