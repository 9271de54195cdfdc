#pragma once
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>

#include "distorch/server/http.h"

namespace distorch::server {

/// Who a request belongs to and where that user's files lie. With one user that is "default" and
/// the header Comfy-User counts for nothing; with several each request names one of those in
/// users.json. For any thread.
class Users {
 public:
  /// `folder` holds a folder a user and users.json. Error(Format) where that file is none of ours.
  Users(std::filesystem::path folder, bool several);

  bool several() const { return several_; }
  /// The user's id, or nothing where the header names nobody that is known.
  std::optional<std::string> of(const Request& request) const;
  /// Where the user's files lie; may not exist yet.
  std::filesystem::path folder_of(const std::string& id) const { return folder_ / id; }
  /// Names by id.
  std::map<std::string, std::string> all() const;
  /// Adds one and returns the id. Error(Usage) for a name that is empty, too long, taken or
  /// reserved ("__..."), or where there is one user only.
  std::string add(std::string_view name);

 private:
  std::filesystem::path folder_;
  bool several_;
  std::map<std::string, std::string> names_;
  mutable std::mutex mutex_;
};

}  // namespace distorch::server
