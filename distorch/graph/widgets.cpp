#include "distorch/graph/widgets.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "distorch/graph/dynamic_inputs.h"
#include "distorch/graph/json_text.h"

namespace distorch::graph {
namespace {

const Json kNull;
constexpr std::size_t kMaxNesting = 32;    // dynamic combos inside of options
constexpr std::size_t kMaxGrowing = 1000;  // sockets of one growing list

const Json& field(const Json& object, const char* name) {
  if (!object.is_object()) return kNull;
  auto found = object.find(name);
  return found == object.end() ? kNull : *found;
}

const Json& option(const Json& input, const char* name) {
  return input.is_array() && input.size() >= 2 ? field(input[1], name) : kNull;
}

bool truthy(const Json& value) {
  return value.is_string() || (value.is_boolean() && value.get<bool>());
}

bool is_widget_type(const std::string& type) {
  static const std::set<std::string> types = {
      "INT",        "FLOAT",  "STRING",   "BOOLEAN",      "COMBO",          "MARKDOWN",
      "COLOR",      "COLORS", "CURVE",    "BOUNDING_BOX", "BOUNDING_BOXES", "PAINTER",
      "COMPOSITOR", "WEBCAM", "LOAD_3D",  "AUDIO_RECORD", "IMAGECOMPARE",   "CHART",
      "GALLERIA",   "RANGE",  "TEXTAREA", kDynamicChoice};
  return types.count(type) != 0;
}

std::string widget_type(const Json& input) {
  const Json& named = option(input, "widgetType");
  return named.is_string() ? named.get<std::string>() : link_type(input);
}

const Json& choices_of(const Json& input) {
  return input.is_array() && !input.empty() && input[0].is_array() ? input[0]
                                                                   : option(input, "options");
}

Json first_choice(const Json& input, const std::string& type) {
  const Json& choices = choices_of(input);
  if (!choices.is_array() || choices.empty()) return nullptr;
  if (type == kDynamicChoice) return field(choices.front(), "key");
  return type == "COMBO" ? choices.front() : Json();
}

Json initial_value(const Json& input, const std::string& type) {
  const Json& given = option(input, "default");
  if (type == "MARKDOWN") return "";
  if (!given.is_null()) return given;
  if (type == "INT" || type == "FLOAT") return 0;
  if (type == "BOOLEAN") return false;
  if (type == "COMBO" || type == kDynamicChoice) return first_choice(input, type);
  if (type == "COLORS" || type == "BOUNDING_BOXES") return Json::array();
  if (type == "BOUNDING_BOX") return {{"x", 0}, {"y", 0}, {"width", 512}, {"height", 512}};
  if (type == "COMPOSITOR") return Json::object();
  if (type == "PAINTER") return nullptr;
  if (type == "CURVE") {
    Json line = Json::array({Json::array({0, 0}), Json::array({1, 1})});
    return {{"points", line}, {"interpolation", "monotone_cubic"}};
  }
  return "";
}

// A text area holds text alone: whatever else is stored becomes text.
Json as_text(Json value) {
  if (value.is_null()) return "";
  return value.is_number() || value.is_boolean() ? Json(text_of_value(value)) : value;
}

std::vector<std::string> input_names(const Json& holder, const char* section) {
  std::vector<std::string> names;
  const Json& inputs = field(field(holder, "input"), section);
  if (!inputs.is_object()) return names;
  const Json& order = field(field(holder, "input_order"), section);
  if (order.is_array()) {
    for (auto& name : order)
      if (name.is_string() && inputs.contains(name.get<std::string>()))
        names.push_back(name.get<std::string>());
    return names;
  }
  for (auto& [name, input] : inputs.items()) names.push_back(name);
  return names;
}

// Walks over a definition and takes the stored values one place after the other.
class Reader {
 public:
  Reader(const StoredNode& stored, bool forced_have_places)
      : stored_(stored), forced_have_places_(forced_have_places) {}

  void read(const Json& definition) {
    bool upload = false;
    for (const char* section : {"required", "optional"})
      for (auto& name : input_names(definition, section)) {
        const Json& input = definition["input"][section][name];
        add(name, input, 0);
        upload = upload || (section == std::string("required") && is_upload(input));
      }
    if (upload) skip(1);
    if (stored_.type == "SaveGLB" || stored_.type == "Preview3D") add_text("image", "");
    if (stored_.type == "WebcamCapture") {
      skip(1);
      send("waiting for camera...", nullptr);
    }
    form_.inputs = std::move(sockets_);
    form_.inputs.insert(form_.inputs.end(), widget_sockets_.begin(), widget_sockets_.end());
  }

  NodeForm take() { return std::move(form_); }
  std::size_t places() const { return place_; }
  bool saw_forced() const { return saw_forced_; }

 private:
  static bool is_upload(const Json& input) {
    if (widget_type(input) != "COMBO") return false;
    for (const char* kind :
         {"image_upload", "video_upload", "animated_image_upload", "audio_upload"})
      if (truthy(option(input, kind))) return true;
    return false;
  }

  void add(const std::string& name, const Json& input, std::size_t depth) {
    std::string type = widget_type(input);
    // What an option brings stands right behind its combo, sockets too.
    auto& sockets = depth > 0 ? widget_sockets_ : sockets_;
    if (link_type(input) == kGrowing) return add_growing(name, input, sockets);
    bool widget = is_widget_type(type);
    if (widget && truthy(option(input, "forceInput"))) {
      saw_forced_ = true;
      if (forced_have_places_) skip(1);
      widget = false;
    }
    if (!widget) {
      std::string of_links = link_type(input);
      const Json& allowed = field(option(input, "template"), "allowed_types");
      if (of_links == kMatchType && allowed.is_string()) of_links = allowed.get<std::string>();
      sockets.push_back({name, of_links, false});
      return;
    }
    widget_sockets_.push_back({name, link_type(input), true});
    add_widget(name, type, input);
    if (type == kDynamicChoice)
      add_option(name, input, Json(form_.widgets.back().value), depth);
    else
      add_followers(name, type, input);
    if (type == "COMBO") add_named_widgets(input, Json(form_.widgets.back().value));
  }

  // What a choice brings (widgets_of) stands in files that name their values.
  void add_named_widgets(const Json& input, const Json& chosen) {
    if (!stored_.values.is_object() || !chosen.is_string() || input.size() < 2) return;
    for (const auto& widget : widgets_of(input[1], chosen.get<std::string>()))
      if (stored_.values.contains(widget.at(0).get<std::string>()))
        send(widget[0], stored_.values[widget[0].get<std::string>()]);
  }

  void add_widget(const std::string& name, const std::string& type, const Json& input) {
    Widget widget{name, type, {}, first_choice(input, type), false};
    // The pictures compared are the page's own, they are not stored.
    if (type == "IMAGECOMPARE")
      widget.value = {"", ""};
    else
      widget.value = fixed_up(widget, next(name, initial_value(input, type)));
    bool text_area = type == "MARKDOWN" || (type == "STRING" && truthy(option(input, "multiline")));
    if (text_area) widget.value = as_text(std::move(widget.value));
    widget.stored = stored_.values.is_array() && place_ <= stored_.values.size();
    widget.dynamic_prompts = truthy(option(input, "dynamicPrompts"));
    form_.widgets.push_back(std::move(widget));
  }

  void add_option(const std::string& name, const Json& input, const Json& chosen,
                  std::size_t depth) {
    const Json& options = option(input, "options");
    if (!options.is_array() || depth >= kMaxNesting) return;
    for (auto& entry : options) {
      if (field(entry, "key") != chosen) continue;
      const Json& inputs = field(entry, "inputs");
      for (const char* section : {"required", "optional"})
        if (field(inputs, section).is_object())
          for (auto& [inner, definition] : inputs[section].items())
            add(name + "." + inner, definition, depth + 1);
      return;
    }
  }

  // As many sockets as the page shows: up to the last one linked, and one to grow.
  void add_growing(const std::string& name, const Json& input,
                   std::vector<DeclaredInput>& sockets) {
    const Json& shape = option(input, "template");
    const Json& elements = field(field(shape, "input"), "required");
    std::string type =
        elements.is_object() && !elements.empty() ? link_type(elements.front()) : std::string("*");
    std::vector<std::string> names;
    if (field(shape, "names").is_array()) {
      for (auto& own : shape["names"])
        if (own.is_string()) names.push_back(name + "." + own.get<std::string>());
    } else if (field(shape, "prefix").is_string() && field(shape, "max").is_number_integer()) {
      auto most = std::clamp<long long>(shape["max"].get<long long>(), 0, kMaxGrowing);
      for (long long i = 0; i < most; ++i)
        names.push_back(name + "." + shape["prefix"].get<std::string>() + std::to_string(i));
    }
    std::size_t shown = 0;
    if (field(shape, "min").is_number_integer())
      shown = static_cast<std::size_t>(
          std::clamp<long long>(shape["min"].get<long long>(), 0, kMaxGrowing));
    for (std::size_t i = 0; i < names.size(); ++i)
      if (is_linked(names[i])) shown = std::max(shown, i + 1);
    for (std::size_t i = 0; i < std::min(shown + 1, names.size()); ++i)
      sockets.push_back({names[i], type, false});
  }

  bool is_linked(const std::string& name) const {
    return std::find(stored_.linked.begin(), stored_.linked.end(), name) != stored_.linked.end();
  }

  // Widgets that the page puts behind another: seed control, filter and refresh of a list, the
  // numbers of a box.
  void add_followers(const std::string& name, const std::string& type, const Json& input) {
    const Json& control = option(input, "control_after_generate");
    bool unasked = control.is_null() && (name == "seed" || name == "noise_seed");
    if (type == "INT" && (truthy(control) || unasked)) skip(1);
    if (type == "FLOAT" && truthy(control)) skip(1);
    if (type == "BOUNDING_BOX") skip(4);
    if (type == "AUDIO_RECORD") skip(1);
    if (type == "COMBO") {
      if (truthy(control)) skip(2);
      if (truthy(field(option(input, "remote"), "refresh_button"))) {
        skip(2);
        send("refresh", "refresh");
      }
    }
    if (stored_.type == "CustomCombo" && name == "choice") add_custom_choices();
    if (stored_.type == "Load3D" && name == "model_file")
      for (auto& [button, text] : {std::pair{"upload 3d model", "upload3dmodel"},
                                   std::pair{"upload extra resources", "uploadExtraResources"},
                                   std::pair{"clear", "clear"}}) {
        skip(1);
        send(button, text);
      }
  }

  // The user's own choices: as many as are stored, the last one empty.
  void add_custom_choices() {
    Widget& choice = form_.widgets.back();
    const Json& values = stored_.values;
    std::vector<Json> options;
    for (std::size_t i = place_ + 1; values.is_array() && i < values.size(); ++i)
      options.push_back(values[i]);
    if (options.empty() || options.back() != "") options.push_back("");
    if (choice.value.is_null() && values.is_array() && !values.empty()) choice.value = options[0];
    auto chosen = std::find(options.begin(), options.end(), choice.value);
    skip(1 + options.size());
    send("index", chosen == options.end() ? -1 : chosen - options.begin());
    for (std::size_t i = 0; i < options.size(); ++i)
      send("option" + std::to_string(i + 1), options[i]);
  }

  void add_text(const std::string& name, const char* initial) {
    form_.widgets.push_back({name, "STRING", next(name, initial), {}, false});
  }
  void send(const std::string& name, Json value) {
    form_.widgets.push_back({name, "", std::move(value), {}, false});
  }
  void skip(std::size_t places) { place_ += places; }

  Json next(const std::string& name, Json initial) {
    std::size_t place = place_++;
    if (stored_.values.is_array() && place < stored_.values.size()) return stored_.values[place];
    if (stored_.values.is_object() && stored_.values.contains(name)) return stored_.values[name];
    return initial;
  }

  Json fixed_up(const Widget& widget, Json value) const {
    if (value.is_null()) return widget.first_choice;
    bool sampler = stored_.type == "KSampler" || stored_.type == "KSamplerAdvanced";
    if (sampler && widget.name == "sampler_name" && value.is_string()) {
      auto& name = value.get_ref<std::string&>();
      if (name.rfind("sample_", 0) == 0) name.erase(0, 7);
    }
    return value;
  }

  const StoredNode& stored_;
  bool forced_have_places_;
  bool saw_forced_ = false;
  std::size_t place_ = 0;
  NodeForm form_;
  std::vector<DeclaredInput> sockets_, widget_sockets_;
};

}  // namespace

const Widget* NodeForm::find_widget(const std::string& name) const {
  for (auto& widget : widgets)
    if (widget.name == name) return &widget;
  return nullptr;
}

const DeclaredInput* NodeForm::find_input(const std::string& name) const {
  for (auto& input : inputs)
    if (input.name == name) return &input;
  return nullptr;
}

bool NodeForm::drops(const std::string& socket) const {
  if (find_input(socket)) return false;
  for (std::size_t dot = socket.find('.'); dot != std::string::npos;
       dot = socket.find('.', dot + 1)) {
    const Widget* choice = find_widget(socket.substr(0, dot));
    if (choice && choice->stored && choice->type == kDynamicChoice) return true;
  }
  return false;
}

NodeForm node_form(const Json& definition, const StoredNode& stored) {
  Reader usual(stored, false);
  usual.read(definition);
  std::size_t count = stored.values.is_array() ? stored.values.size() : 0;
  if (usual.saw_forced() && count != usual.places()) {
    Reader older(stored, true);
    older.read(definition);
    if (older.places() == count) return older.take();
  }
  return usual.take();
}

std::string link_type(const Json& input) {
  if (!input.is_array() || input.empty()) return "*";
  if (input[0].is_array()) return "COMBO";
  return input[0].is_string() ? input[0].get<std::string>() : "*";
}

std::string text_of_value(const Json& value) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_null()) return "";
  if (value.is_number_float()) {
    double number = value.get<double>();
    if (std::trunc(number) == number && std::abs(number) < 1e21)
      return fmt::format("{:.0f}", number);
    return fmt::format("{}", number);
  }
  return json_line(value);
}

bool types_fit(const std::string& from, const std::string& to) {
  // What matches another type is checked where that one is known.
  auto any = [](const std::string& type) {
    return type.empty() || type == "*" || type == kMatchType;
  };
  if (from == to || any(from) || any(to)) return true;
  // DeviceSelectorMultiGPU once gave the list of devices itself, which goes into every list.
  if (from == "MULTIGPUDEVICE" && to == "COMBO") return true;
  auto members = [](const std::string& list) {
    std::set<std::string> names;
    for (std::size_t at = 0; at <= list.size();) {
      std::size_t comma = std::min(list.find(',', at), list.size());
      std::string name = list.substr(at, comma - at);
      name.erase(0, std::min(name.find_first_not_of(' '), name.size()));
      while (!name.empty() && name.back() == ' ') name.pop_back();
      names.insert(name);
      at = comma + 1;
    }
    return names;
  };
  auto accepted = members(to);
  for (auto& name : members(from))
    if (accepted.count(name)) return true;
  return false;
}

}  // namespace distorch::graph
