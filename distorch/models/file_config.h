#pragma once
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "distorch/weights/checkpoint.h"

namespace distorch::models {

/// What a model file says of one of its parts in its metadata: the object `part` of the JSON text
/// "config" ("transformer", "vae"), as the files of LTX-Video have it. An empty object where the
/// file says nothing. Error(Format) naming the file where the text is no such JSON.
nlohmann::json config_in(const weights::Checkpoint& file, const std::string& part);

/// Reads the entries of such an object and says which one is wrong.
class ConfigEntries {
 public:
  ConfigEntries(const nlohmann::json& object, std::string path)
      : object_(object), path_(std::move(path)) {}
  /// Error(Format) naming file and entry unless it is a whole number of `least` to `most`.
  std::int64_t whole(const char* name, std::int64_t otherwise, std::int64_t least,
                     std::int64_t most) const;
  bool flag(const char* name, bool otherwise) const;
  std::string text(const char* name, const std::string& otherwise) const;
  /// Throws what the three above do.
  [[noreturn]] void fail(const std::string& name, const std::string& wanted) const;

 private:
  const nlohmann::json& object_;
  std::string path_;
};

}  // namespace distorch::models
