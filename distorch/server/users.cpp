#include "distorch/server/users.h"

#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/graph/json_text.h"
#include "distorch/server/confined_path.h"

namespace distorch::server {

namespace {

constexpr const char* kOnlyUser = "default";
constexpr std::size_t kNameLength = 100;  // bytes

/// Ids with this prefix belong to programs, never to people.
bool is_reserved(std::string_view text) { return text.substr(0, 2) == "__"; }

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
         c == '_';
}

/// A random UUID of version 4.
std::string random_uuid() {
  std::random_device device;
  std::uniform_int_distribution<std::uint32_t> any;
  std::uint32_t a = any(device), b = any(device), c = any(device), d = any(device);
  return fmt::format("{:08x}-{:04x}-4{:03x}-{:04x}-{:04x}{:08x}", a, b >> 16, b & 0xfff,
                     0x8000 | (c >> 16 & 0x3fff), c & 0xffff, d);
}

/// "Jane D." becomes "Jane-D-": each run of other characters is one dash.
std::string id_of(std::string_view name) {
  std::string id;
  bool dash = false;
  for (char c : name) {
    if (is_word(c))
      id += c;
    else if (!dash)
      id += '-';
    dash = !is_word(c);
  }
  return id;
}

std::string trimmed(std::string_view text) {
  constexpr const char* space = " \t\r\n\f\v";
  auto begin = text.find_first_not_of(space);
  if (begin == std::string_view::npos) return {};
  return std::string(text.substr(begin, text.find_last_not_of(space) - begin + 1));
}

}  // namespace

Users::Users(std::filesystem::path folder, bool several)
    : folder_(std::move(folder)), several_(several) {
  if (!several_) {
    names_[kOnlyUser] = kOnlyUser;
    return;
  }
  auto file = folder_ / "users.json";
  std::error_code ignored;
  if (!std::filesystem::exists(file, ignored)) return;
  auto json = graph::parse_json(read_file(file, std::size_t{1} << 24), file.string());
  auto wrong = [&] {
    return Error(ErrorKind::Format, file.string(), "must hold an object of names by id");
  };
  if (!json.is_object()) throw wrong();
  for (const auto& [id, name] : json.items()) {
    if (!name.is_string()) throw wrong();
    bool usable = !id.empty() && !is_reserved(id) && std::all_of(id.begin(), id.end(), is_word);
    if (usable) names_[id] = name.get<std::string>();
  }
}

std::optional<std::string> Users::of(const Request& request) const {
  std::string id = kOnlyUser;
  if (several_ && request.headers.count("comfy-user")) id = request.header("comfy-user");
  std::lock_guard lock(mutex_);
  if (is_reserved(id) || !names_.count(id)) return {};
  return id;
}

std::map<std::string, std::string> Users::all() const {
  std::lock_guard lock(mutex_);
  return names_;
}

std::string Users::add(std::string_view given) {
  if (!several_)
    throw Error(ErrorKind::Usage, "username", "cannot be added: the server has one user only");
  auto name = trimmed(given);
  if (name.empty()) throw Error(ErrorKind::Usage, "username", "is empty");
  if (name.size() > kNameLength || !is_utf8(name))
    throw Error(ErrorKind::Usage, "username",
                fmt::format("is not UTF-8 of at most {} bytes", kNameLength));
  auto id = id_of(name);
  if (is_reserved(name) || is_reserved(id))
    throw Error(ErrorKind::Usage, "username", "begins with '__', which is reserved");
  id += '_';
  id += random_uuid();
  std::lock_guard lock(mutex_);
  for (const auto& [known, taken] : names_)
    if (taken == name) throw Error(ErrorKind::Usage, "username", "Duplicate username.");
  auto names = names_;
  names[id] = name;
  std::filesystem::create_directories(folder_);
  write_file(folder_ / "users.json", Json(names).dump());
  names_ = std::move(names);
  return id;
}

}  // namespace distorch::server
