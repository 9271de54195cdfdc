#pragma once
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "distorch/graph/value.h"

namespace distorch::graph {

/// The choices of a list input: fixed, or a function that is asked each time the list is shown or
/// checked (model files, devices).
class Choices {
 public:
  Choices() = default;
  Choices(std::vector<std::string> fixed);
  Choices(std::initializer_list<const char*> fixed);
  /// Any function without arguments that returns std::vector<std::string> or a Json array.
  template <class F>
    requires std::is_invocable_v<F>
  Choices(F function) : read_([function] { return Json(function()); }), dynamic_(true) {}

  /// The list as a Json array; empty array when there are none.
  Json read() const { return read_ ? read_() : Json::array(); }
  /// The same list with a note of where it comes from ("searched: /models/checkpoints"), which
  /// messages about a value that is not in it show.
  Choices with_origin(std::function<std::string()> origin) const {
    Choices result = *this;
    result.origin_ = std::move(origin);
    return result;
  }
  std::string origin() const { return origin_ ? origin_() : std::string(); }
  /// True when the list depends on the machine.
  bool dynamic() const { return dynamic_; }
  explicit operator bool() const { return static_cast<bool>(read_); }

 private:
  std::function<Json()> read_;
  std::function<std::string()> origin_;
  bool dynamic_ = false;
};

/// One declared input of a node type. Made by the functions below.
struct Input {
  std::string name;
  /// INT, FLOAT, STRING, BOOLEAN, COMBO, or a link type: "MODEL", "*" (anything), "A,B" (either).
  std::string type;
  /// The options object of /object_info without the choices; null where the definition has none.
  Json options;
  bool required = true;
  Choices choices;                // for COMBO
  bool combo_in_options = false;  // ["COMBO", {"options": [...]}] in place of [[...], {...}]

  bool is_list() const { return type == "COMBO"; }
  /// A widget holds a constant; everything else needs a link.
  bool is_widget() const;
  bool lazy() const { return flag("lazy"); }
  bool raw_link() const { return flag("rawLink"); }
  /// The declared default, or the first choice of a list; null where there is none.
  Json default_value() const;
  /// [type], [type, options] or [[choices], options] as /object_info shows it. `newer` is the
  /// schema of the newer node classes (NodeType::newer_schema).
  Json definition(bool newer) const;

 private:
  bool flag(const char* option) const;
};

/// A value that the engine fills in: PROMPT, DYNPROMPT, EXTRA_PNGINFO, UNIQUE_ID.
struct Hidden {
  std::string name, type;
};

/// Options. A field left out does not appear in /object_info. Numbers appear as they are written: 1
/// and 1.0 differ, so write what object_info.json has. `extra` is merged in for everything not
/// named here.
struct LinkOptions {
  std::string tooltip;
  bool lazy = false;
  Json extra;  // Json::object() gives ["TYPE", {}]
};
struct NumberOptions {
  Json def, min, max, step, round;
  std::string display;  // "number", "slider", ...
  bool control_after_generate = false;
  std::string tooltip;
  Json extra;
};
struct TextOptions {
  Json def, multiline, dynamic_prompts;  // text, boolean, boolean
  std::string tooltip;
  Json extra;
};
struct BooleanOptions {
  Json def, label_on, label_off;
  std::string tooltip;
  Json extra;
};
struct ChoiceOptions {
  Json def;
  bool image_upload = false;
  std::string tooltip;
  bool combo = false;  // the COMBO form, see Input::combo_in_options
  Json extra;
};

Input link(std::string name, std::string type, LinkOptions options = {});
Input integer(std::string name, NumberOptions options = {});
Input number(std::string name, NumberOptions options = {});
Input text(std::string name, TextOptions options = {});
Input boolean(std::string name, BooleanOptions options = {});
Input choice(std::string name, Choices choices, ChoiceOptions options = {});
/// The same input, not required.
Input optional(Input input);

}  // namespace distorch::graph
