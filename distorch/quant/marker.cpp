#include "distorch/quant/marker.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "distorch/base/error.h"
#include "distorch/quant/codebook4.h"
#include "distorch/quant/int8.h"
#include "distorch/quant/rotation.h"
#include "distorch/quant/signed4.h"

namespace distorch::quant {
namespace {

using Json = nlohmann::json;

/// A marker and what messages about it name.
struct Marker {
  Json json;
  const std::string& file;
  const std::string& weight;

  [[noreturn]] void refuse(const std::string& why) const {
    throw Error(ErrorKind::Format, file, fmt::format("'{}' {}", weight, why));
  }

  /// A setting beside the format or among its "params"; null: not there.
  const Json* find(const char* key) const {
    if (auto at = json.find(key); at != json.end()) return &*at;
    auto params = json.find("params");
    if (params == json.end() || !params->is_object()) return nullptr;
    auto at = params->find(key);
    return at == params->end() ? nullptr : &*at;
  }

  bool flag(const char* key) const {
    const auto* value = find(key);
    if (!value || value->is_null()) return false;
    if (value->is_boolean()) return value->get<bool>();
    if (value->is_number()) return value->get<double>() != 0;
    refuse(
        fmt::format("is marked with {} = {}, which is neither true nor false", key, value->dump()));
  }

  int number(const char* key, int otherwise) const {
    const auto* value = find(key);
    if (!value) return otherwise;
    constexpr std::int64_t largest = 1 << 20;
    if (!value->is_number_integer() || value->get<std::int64_t>() < 1 ||
        value->get<std::int64_t>() > largest)
      refuse(fmt::format("is marked with {} = {}, which is no size", key, value->dump()));
    return value->get<int>();
  }

  /// Of the groups of inputs that are rotated together.
  int rotated() const {
    constexpr int usual = 256;
    const int group = number("convrot_groupsize", usual);
    if (!is_rotation(group))
      refuse(fmt::format("is marked with convrot_groupsize = {}, which is no power of 4 from 4 on",
                         group));
    return group;
  }
};

const Encoding& int8_of(const Marker& marker) {
  return int8_tensorwise(marker.flag("convrot") ? marker.rotated() : 0);
}

const Encoding& signed4_of(const Marker& marker) {
  if (const auto* dtype = marker.find("linear_dtype"))
    if (*dtype != "int4" && *dtype != "int8")
      marker.refuse(
          fmt::format("is marked with linear_dtype = {}, where \"int4\" or \"int8\" is "
                      "possible",
                      dtype->dump()));
  return convrot_w4a4(marker.rotated());
}

const Encoding& codebook4_of(const Marker& marker) {
  constexpr int usual = 16, block = 16, least = 4;
  const int group = marker.number("group_size", usual);
  if (group < least || (block % group != 0 && group % block != 0))
    marker.refuse(
        fmt::format("is marked with group_size = {}, which is neither 4, 8 nor a "
                    "multiple of 16",
                    group));
  return asym_w4a8_int8(group, marker.rotated());
}

}  // namespace

const Encoding& encoding_of_marker(std::string_view json, const std::string& file,
                                   const std::string& weight) {
  Marker marker{Json::parse(json, nullptr, false), file, weight};
  std::string format;
  if (marker.json.is_object())
    if (auto at = marker.json.find("format"); at != marker.json.end() && at->is_string())
      format = at->get<std::string>();
  if (format.empty()) marker.refuse("has a marker that names no format it is packed as");
  const bool exact = marker.flag("full_precision_matrix_mult");
  if (format == "int8_tensorwise") return int8_of(marker);
  if (format == "convrot_w4a4") return signed4_of(marker);
  if (format == "asym_w4a8_int8") return codebook4_of(marker);
  const auto* encoding = encoding_named(format);
  if (!encoding) marker.refuse(fmt::format("is packed as '{}', which is not supported", format));
  return exact ? *encoding->decoded() : *encoding;
}

}  // namespace distorch::quant
