#include "distorch/formats/safetensors_header.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <unordered_set>

#include "distorch/base/error.h"

namespace distorch::formats {

namespace {

using Json = nlohmann::json;

/// Receives the JSON piece by piece: a header of 100 MB is never held as a tree, and a key given
/// twice is seen.
class Reader : public nlohmann::json_sax<Json> {
 public:
  explicit Reader(const std::string& where) : where_(where) {}
  HeaderJson take() { return std::move(result_); }

  bool null() override { return value("null"); }
  bool boolean(bool) override { return value("a boolean"); }
  bool number_float(double, const std::string&) override { return value("a fraction"); }
  bool number_integer(std::int64_t) override { return value("a negative number"); }
  bool binary(binary_t&) override { return value("binary data"); }

  bool number_unsigned(std::uint64_t number) override {
    if (position_ == Position::Shape)
      entry().shape.push_back(number);
    else if (position_ == Position::Offsets && entry().data_offsets.size() < 3)
      entry().data_offsets.push_back(number);
    else
      return value("a number");
    return true;
  }

  bool string(std::string& text) override {
    if (position_ == Position::Metadata) {
      result_.metadata[key_] = std::move(text);
    } else if (position_ == Position::Tensor && key_ == "dtype") {
      entry().dtype = std::move(text);
    } else {
      return value("a text");
    }
    return true;
  }

  bool start_object(std::size_t) override {
    if (position_ == Position::Unknown) return ++depth_, true;
    if (position_ == Position::Outside) {
      position_ = Position::Top;
    } else if (position_ == Position::Top) {
      if (key_ == "__metadata__") {
        position_ = Position::Metadata;
      } else {
        position_ = Position::Tensor;
        result_.entries.push_back({.name = key_});
      }
    } else {
      return open_other("an object");
    }
    return true;
  }

  bool end_object() override {
    if (position_ == Position::Unknown) return close_other();
    position_ = position_ == Position::Top ? Position::Outside : Position::Top;
    return true;
  }

  bool start_array(std::size_t) override {
    if (position_ == Position::Unknown) return ++depth_, true;
    if (position_ == Position::Tensor && key_ == "shape")
      position_ = Position::Shape;
    else if (position_ == Position::Tensor && key_ == "data_offsets")
      position_ = Position::Offsets;
    else
      return open_other("a list");
    return true;
  }

  bool end_array() override {
    if (position_ == Position::Unknown) return close_other();
    position_ = Position::Tensor;
    return true;
  }

  bool key(std::string& text) override {
    if (position_ == Position::Unknown) return true;
    key_ = std::move(text);
    if (position_ == Position::Top && !names_.insert(key_).second)
      fail(fmt::format("names '{}' twice", key_));
    if (position_ == Position::Metadata && result_.metadata.contains(key_))
      fail(fmt::format("has the metadata key '{}' twice", key_));
    if (position_ == Position::Tensor) note_key();
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    fail(fmt::format("has a header that is no valid JSON: byte {}: {}", position, error.what()));
  }

 private:
  enum class Position { Outside, Top, Metadata, Tensor, Shape, Offsets, Unknown };

  HeaderEntry& entry() { return result_.entries.back(); }

  [[noreturn]] void fail(const std::string& sentence) const {
    throw Error(ErrorKind::Format, where_, sentence);
  }

  void note_key() {
    auto& e = entry();
    bool* seen = key_ == "dtype" ? &e.has_dtype : key_ == "shape" ? &e.has_shape : nullptr;
    if (key_ == "data_offsets") seen = &e.has_offsets;
    if (seen != nullptr && std::exchange(*seen, true))
      fail(fmt::format("'{}' has '{}' twice", e.name, key_));
  }

  bool known_key() const { return key_ == "dtype" || key_ == "shape" || key_ == "data_offsets"; }

  /// A plain value where `kind` was not expected: an error, except under keys of a tensor that we
  /// do not know.
  bool value(const char* kind) const {
    if (position_ == Position::Unknown || (position_ == Position::Tensor && !known_key()))
      return true;
    if (position_ == Position::Outside)
      fail(fmt::format("has a header that is {} instead of an object", kind));
    if (position_ == Position::Metadata)
      fail(fmt::format("has metadata '{}' that is {} instead of a text", key_, kind));
    if (position_ == Position::Top)
      fail(fmt::format("'{}' is {} instead of an object", key_, kind));
    fail(fmt::format("'{}' has {} in its '{}'", result_.entries.back().name, kind, key_));
  }

  bool open_other(const char* kind) {
    value(kind);
    position_ = Position::Unknown;
    depth_ = 1;
    return true;
  }

  bool close_other() {
    if (--depth_ == 0) position_ = Position::Tensor;
    return true;
  }

  std::string where_;
  HeaderJson result_;
  Position position_ = Position::Outside;
  std::size_t depth_ = 0;  // inside a value that is skipped
  std::string key_;
  std::unordered_set<std::string> names_;
};

}  // namespace

HeaderJson read_header_json(std::string_view text, const std::string& where) {
  Reader reader(where);
  Json::sax_parse(text.begin(), text.end(), &reader);
  return reader.take();
}

}  // namespace distorch::formats
