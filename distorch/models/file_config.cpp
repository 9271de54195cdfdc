#include "distorch/models/file_config.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "distorch/base/error.h"

namespace distorch::models {

using Json = nlohmann::json;

Json config_in(const weights::Checkpoint& file, const std::string& part) {
  if (file.empty()) return Json::object();
  const auto& first = file.tensors().begin()->second.file;
  if (!first) return Json::object();
  const auto text = first->metadata().find("config");
  if (text == first->metadata().end()) return Json::object();
  const auto parsed = Json::parse(text->second, nullptr, false);
  if (!parsed.is_object())
    throw Error(ErrorKind::Format, file.path(), "has a 'config' in its metadata that is no JSON");
  const auto found = parsed.find(part);
  if (found == parsed.end() || found->is_null()) return Json::object();
  if (!found->is_object())
    throw Error(ErrorKind::Format, file.path(),
                fmt::format("has a 'config' in its metadata whose '{}' is no object", part));
  return *found;
}

std::int64_t ConfigEntries::whole(const char* name, std::int64_t otherwise, std::int64_t least,
                                  std::int64_t most) const {
  const auto found = object_.find(name);
  if (found == object_.end()) return otherwise;
  const auto wanted = fmt::format("a whole number of {} to {}", least, most);
  if (!found->is_number_integer()) fail(name, wanted);
  const auto value = found->get<std::int64_t>();
  if (value < least || value > most) fail(name, wanted);
  return value;
}

bool ConfigEntries::flag(const char* name, bool otherwise) const {
  const auto found = object_.find(name);
  if (found == object_.end()) return otherwise;
  if (!found->is_boolean()) fail(name, "true or false");
  return found->get<bool>();
}

std::string ConfigEntries::text(const char* name, const std::string& otherwise) const {
  const auto found = object_.find(name);
  if (found == object_.end()) return otherwise;
  if (!found->is_string()) fail(name, "a text");
  return found->get<std::string>();
}

void ConfigEntries::fail(const std::string& name, const std::string& wanted) const {
  throw Error(ErrorKind::Format, path_,
              fmt::format("has a 'config' in its metadata whose '{}' should be {}", name, wanted));
}

}  // namespace distorch::models
