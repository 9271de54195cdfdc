#pragma once
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <typeinfo>
#include <utility>
#include <variant>

#include "distorch/base/error.h"

namespace distorch::graph {

/// JSON whose objects keep the order in which their keys were written: the order of inputs matters
/// to a workflow page.
using Json = nlohmann::ordered_json;

/// The C++ name of a type, readable, for messages.
std::string readable_name(const std::type_info& type);

/// What travels over a link: one shared, immutable value and the name of its link type ("MODEL",
/// "LATENT", "INT", ...). Copies are cheap and share the content; the content lives as long as one
/// copy does.
///
/// Three kinds: empty (nothing was given), a payload of any C++ type, and a *blocker*, which stops
/// every node that would consume it (see Value::blocker). Numbers, texts, booleans and lists from
/// widgets are payloads of type Json, made by Value::constant; nodes that output such values do the
/// same.
class Value {
 public:
  Value() = default;

  /// Value::of("LATENT", Latent{...}): the payload is stored as std::decay_t<T>.
  template <class T>
  static Value of(std::string type, T payload) {
    Value value;
    value.content_ =
        std::make_shared<const Holder<std::decay_t<T>>>(std::move(type), std::move(payload));
    return value;
  }

  /// A number, text, boolean or list; its type name is INT, FLOAT, STRING, BOOLEAN or "*".
  static Value constant(Json json);

  /// Consumers are not called and pass the blocker on. With a message the first consumer reports
  /// it.
  static Value blocker(std::optional<std::string> message = {});

  bool empty() const { return !content_; }
  explicit operator bool() const { return content_ != nullptr; }
  /// "" for an empty value.
  const std::string& type() const;

  template <class T>
  bool is() const {
    return content_ && content_->payload_type() == typeid(T);
  }
  /// The payload. Throws Error(Internal) naming both types when it is another one.
  template <class T>
  const T& as() const {
    if (!is<T>()) refuse(typeid(T));
    return static_cast<const Holder<T>&>(*content_).payload;
  }

  bool is_blocker() const;
  /// The message of a blocker; nullopt for a silent one.
  std::optional<std::string> blocker_message() const;

  /// True when both share one content.
  bool same(const Value& other) const { return content_ == other.content_; }

 private:
  struct Content {
    explicit Content(std::string name) : type(std::move(name)) {}
    virtual ~Content() = default;
    virtual const std::type_info& payload_type() const = 0;
    std::string type;
  };
  template <class T>
  struct Holder : Content {
    Holder(std::string name, T value) : Content(std::move(name)), payload(std::move(value)) {}
    const std::type_info& payload_type() const override { return typeid(T); }
    T payload;
  };
  [[noreturn]] void refuse(const std::type_info& wanted) const;

  std::shared_ptr<const Content> content_;
};

}  // namespace distorch::graph
