#pragma once
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

namespace distorch::server {

/// A site that publishes models as the Hugging Face hub does, or a mirror of it: "author/name" is a
/// repository of files. Nothing is asked of it before a call of fetch().
class Hub {
 public:
  /// `mirror`: "https://huggingface.co"; `token`: shown to the mirror and nobody else, "" for none.
  /// Error(Usage) where the mirror is no address.
  Hub(std::string mirror, std::string token);

  /// Of all files of a repository those that are wanted.
  using Wanted = std::function<std::vector<std::string>(const std::vector<std::string>&)>;
  /// Bytes that are there, and bytes in all.
  using Progress = std::function<void(double, double)>;

  /// Brings files of a repository, in a folder that appears under its name when all of them are there
  /// and have the size and the checksum that the mirror says. Until then they lie beside it, in
  /// ".<name>.incomplete": a later call goes on where an earlier one stopped.
  ///
  /// Errors, with what can be done: Usage (terms that have to be accepted, a token; another process
  /// that brings the same), MissingFile (no such repository, or none of its files wanted), Format (the
  /// mirror does not answer or something else than what was asked for; a wrong checksum: the file is
  /// removed), OutOfMemory (the disk is full), Interrupted.
  void fetch(const std::string& repository, const Wanted& wanted,
             const std::filesystem::path& folder, const Progress& progress) const;

  struct File {
    std::string path;
    std::uint64_t bytes = 0;
    std::string sha256;    // "": not told
    std::string git_blob;  // SHA-1 as git names the content; "": not told
  };
  /// Every file of a repository.
  std::vector<File> files(const std::string& repository) const;

 private:
  std::string mirror_, token_;
};

}  // namespace distorch::server
