#include "distorch/graph/json_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <cmath>
#include <vector>

namespace distorch::graph {
namespace {

// Looks at a text before it becomes a tree: counts depth and keys, keeps nothing.
class Gauge : public nlohmann::json_sax<nlohmann::json> {
 public:
  explicit Gauge(const JsonLimits& limits) : limits_(limits) {}

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }
  bool start_object(std::size_t) override { return open(); }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override { return open(); }
  bool end_array() override { return close(); }
  bool key(string_t&) override {
    if (++keys_.back() <= limits_.keys_per_object) return true;
    problem = fmt::format("has an object with more than {} keys", limits_.keys_per_object);
    return false;
  }
  bool parse_error(std::size_t position, const std::string& token,
                   const nlohmann::detail::exception&) override {
    problem = fmt::format("is not JSON: fault at byte {} near '{}'", position, token.substr(0, 40));
    return false;
  }

  std::string problem;

 private:
  bool open() {
    keys_.push_back(0);
    if (keys_.size() <= limits_.depth) return true;
    problem = fmt::format("is nested more than {} deep", limits_.depth);
    return false;
  }
  bool close() {
    keys_.pop_back();
    return true;
  }

  JsonLimits limits_;
  std::vector<std::size_t> keys_;
};

bool word_at(std::string_view text, std::size_t at, std::string_view word) {
  return text.substr(at, word.size()) == word;
}

// NaN, Infinity and -Infinity outside of strings become null.
std::string without_nan(std::string_view text) {
  std::string result;
  result.reserve(text.size());
  bool quoted = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    char c = text[i];
    if (quoted) {
      result += c;
      if (c == '\\' && i + 1 < text.size()) result += text[++i];
      if (c == '"') quoted = false;
      continue;
    }
    quoted = c == '"';
    std::size_t skip = 0;
    for (std::string_view word : {"-Infinity", "Infinity", "NaN"})
      if (!skip && word_at(text, i, word)) skip = word.size();
    if (skip) {
      result += "null";
      i += skip - 1;
    } else {
      result += c;
    }
  }
  return result;
}

std::string check(std::string_view text, const JsonLimits& limits) {
  Gauge gauge(limits);
  bool fine = nlohmann::json::sax_parse(text, &gauge);
  return fine ? "" : gauge.problem.empty() ? "is not JSON" : gauge.problem;
}

std::string quoted(const std::string& text) {
  char mark =
      text.find('\'') != std::string::npos && text.find('"') == std::string::npos ? '"' : '\'';
  std::string result(1, mark);
  for (char c : text) {
    if (c == '\\' || c == mark) result += '\\';
    if (c == '\n')
      result += "\\n";
    else if (c == '\t')
      result += "\\t";
    else if (c == '\r')
      result += "\\r";
    else
      result += c;
  }
  return result + mark;
}

std::string number_text(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number > 0 ? "inf" : "-inf";
  std::string text = fmt::format("{}", number);
  bool plain = text.find_first_of(".e") == std::string::npos;
  return plain ? text + ".0" : text;
}

}  // namespace

Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits) {
  if (text.size() > limits.bytes)
    throw Error(ErrorKind::Format, where,
                fmt::format("has {} bytes of JSON, the limit is {}", text.size(), limits.bytes));
  if (word_at(text, 0, "\xEF\xBB\xBF")) text.remove_prefix(3);
  std::string problem = check(text, limits), repaired;
  if (!problem.empty()) {
    repaired = without_nan(text);
    if (repaired != text && check(repaired, limits).empty()) {
      text = repaired;
      problem.clear();
    }
  }
  if (!problem.empty()) throw Error(ErrorKind::Format, where, problem);
  return Json::parse(text);
}

std::string json_line(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

std::string python_str(const Json& value) {
  return value.is_string() ? value.get<std::string>() : python_repr(value);
}

std::string python_repr(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null: return "None";
    case Json::value_t::boolean: return value.get<bool>() ? "True" : "False";
    case Json::value_t::string: return quoted(value.get_ref<const std::string&>());
    case Json::value_t::number_float: return number_text(value.get<double>());
    case Json::value_t::number_integer:
    case Json::value_t::number_unsigned: return value.dump();
    default: break;
  }
  // Depth is bounded by parse_json.
  std::string text;
  if (value.is_array()) {
    for (auto& element : value) text += (text.empty() ? "" : ", ") + python_repr(element);
    return fmt::format("[{}]", text);
  }
  for (auto& [key, element] : value.items())
    text += (text.empty() ? "" : ", ") + quoted(key) + ": " + python_repr(element);
  return fmt::format("{{{}}}", text);
}

}  // namespace distorch::graph
