#include "distorch/graph/value.h"

#include <cxxabi.h>
#include <fmt/format.h>

#include <cstdlib>

namespace distorch::graph {
namespace {

struct Blocker {
  std::optional<std::string> message;
};

const char* constant_type(const Json& json) {
  if (json.is_boolean()) return "BOOLEAN";
  if (json.is_number_integer()) return "INT";
  if (json.is_number()) return "FLOAT";
  if (json.is_string()) return "STRING";
  return "*";
}

}  // namespace

std::string readable_name(const std::type_info& type) {
  int status = 0;
  char* text = abi::__cxa_demangle(type.name(), nullptr, nullptr, &status);
  std::string name = status == 0 && text ? text : type.name();
  std::free(text);
  if (type == typeid(Json)) return "Json";
  if (type == typeid(std::string)) return "std::string";
  return name;
}

Value Value::constant(Json json) {
  const char* type = constant_type(json);
  return of(type, std::move(json));
}

Value Value::blocker(std::optional<std::string> message) {
  return of("BLOCKER", Blocker{std::move(message)});
}

const std::string& Value::type() const {
  static const std::string none;
  return content_ ? content_->type : none;
}

bool Value::is_blocker() const { return is<Blocker>(); }

std::optional<std::string> Value::blocker_message() const {
  return is_blocker() ? as<Blocker>().message : std::nullopt;
}

void Value::refuse(const std::type_info& wanted) const {
  if (!content_)
    throw Error(ErrorKind::Internal, "value", "is empty, wanted " + readable_name(wanted));
  throw Error(ErrorKind::Internal, content_->type,
              fmt::format("holds {}, wanted {}", readable_name(content_->payload_type()),
                          readable_name(wanted)));
}

}  // namespace distorch::graph
