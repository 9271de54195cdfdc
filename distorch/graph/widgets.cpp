#include "distorch/graph/widgets.h"

#include <algorithm>
#include <set>

namespace distorch::graph {
namespace {

const Json kNull;

const Json& option(const Json& input, const char* name) {
  if (!input.is_array() || input.size() < 2 || !input[1].is_object()) return kNull;
  auto found = input[1].find(name);
  return found == input[1].end() ? kNull : *found;
}

bool truthy(const Json& value) {
  return value.is_string() || (value.is_boolean() && value.get<bool>());
}

bool is_widget_type(const std::string& type) {
  static const std::set<std::string> types = {"INT",      "FLOAT", "STRING", "BOOLEAN",     "COMBO",
                                              "MARKDOWN", "COLOR", "CURVE",  "BOUNDING_BOX"};
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

Json initial_value(const Json& input, const std::string& type) {
  const Json& given = option(input, "default");
  if (!given.is_null()) return given;
  if (type == "INT" || type == "FLOAT") return 0;
  if (type == "BOOLEAN") return false;
  if (type == "COMBO") {
    const Json& choices = choices_of(input);
    return choices.is_array() && !choices.empty() ? choices.front() : Json();
  }
  return "";
}

Widget page_place(const char* name) {
  Widget widget;
  widget.name = name;
  widget.place = Widget::Place::Page;
  return widget;
}

// Places that follow a widget of this kind and are the page's own.
void add_followers(const std::string& name, const std::string& type, const Json& input,
                   WidgetLayout& layout) {
  const Json& control = option(input, "control_after_generate");
  if (type == "INT" &&
      (truthy(control) || (control.is_null() && (name == "seed" || name == "noise_seed"))))
    layout.places.push_back(page_place("control_after_generate"));
  if (type == "FLOAT" && truthy(control))
    layout.places.push_back(page_place("control_after_generate"));
  if (type != "COMBO") return;
  if (truthy(control)) {
    layout.places.push_back(page_place("control_after_generate"));
    layout.places.push_back(page_place("control_filter_list"));
  }
  const Json& remote = option(input, "remote");
  if (remote.is_object() && remote.contains("refresh_button") && truthy(remote["refresh_button"])) {
    layout.places.push_back(page_place("auto_refresh"));
    Widget refresh;
    refresh.name = "refresh";
    refresh.place = Widget::Place::Refresh;
    layout.places.push_back(refresh);
  }
}

bool is_upload(const Json& input) {
  return truthy(option(input, "image_upload")) || truthy(option(input, "video_upload")) ||
         truthy(option(input, "animated_image_upload"));
}

std::vector<std::string> input_names(const Json& definition, const char* section) {
  std::vector<std::string> names;
  const Json& inputs = definition["input"][section];
  if (definition.contains("input_order") && definition["input_order"].is_object() &&
      definition["input_order"].contains(section) &&
      definition["input_order"][section].is_array()) {
    for (auto& name : definition["input_order"][section])
      if (name.is_string() && inputs.contains(name.get<std::string>()))
        names.push_back(name.get<std::string>());
    return names;
  }
  for (auto& [name, input] : inputs.items()) names.push_back(name);
  return names;
}

// Places by position; forced inputs have one only in files of older pages.
std::vector<const Widget*> places_for(const WidgetLayout& layout, std::size_t stored) {
  std::vector<const Widget*> all, usual;
  for (auto& widget : layout.places) {
    all.push_back(&widget);
    if (!widget.forced) usual.push_back(&widget);
  }
  return stored == all.size() && stored != usual.size() ? all : usual;
}

Json fixed_up(const Widget& widget, Json value, const std::string& class_type) {
  if (value.is_null() && widget.type == "COMBO") return widget.initial;
  bool sampler = class_type == "KSampler" || class_type == "KSamplerAdvanced";
  if (sampler && widget.name == "sampler_name" && value.is_string()) {
    auto& name = value.get_ref<std::string&>();
    if (name.rfind("sample_", 0) == 0) name.erase(0, 7);
  }
  return value;
}

}  // namespace

std::string link_type(const Json& input) {
  if (!input.is_array() || input.empty()) return "*";
  if (input[0].is_array()) return "COMBO";
  return input[0].is_string() ? input[0].get<std::string>() : "*";
}

bool types_fit(const std::string& from, const std::string& to) {
  // What matches another type is checked where that one is known.
  auto any = [](const std::string& type) {
    return type.empty() || type == "*" || type == "COMFY_MATCHTYPE_V3";
  };
  if (from == to || any(from) || any(to)) return true;
  auto members = [](const std::string& list) {
    std::set<std::string> names;
    for (std::size_t at = 0; at <= list.size();) {
      std::size_t comma = std::min(list.find(',', at), list.size());
      std::string name = list.substr(at, comma - at);
      name.erase(0, name.find_first_not_of(' ') == std::string::npos ? name.size()
                                                                     : name.find_first_not_of(' '));
      while (!name.empty() && name.back() == ' ') name.pop_back();
      names.insert(name);
      at = comma + 1;
    }
    return names;
  };
  for (auto& name : members(from))
    if (members(to).count(name)) return true;
  return false;
}

WidgetLayout widget_layout(const Json& definition) {
  WidgetLayout layout;
  bool upload = false;
  if (!definition.is_object() || !definition.contains("input") || !definition["input"].is_object())
    return layout;
  for (const char* section : {"required", "optional"}) {
    if (!definition["input"].contains(section) || !definition["input"][section].is_object())
      continue;
    for (auto& name : input_names(definition, section)) {
      const Json& input = definition["input"][section][name];
      std::string type = widget_type(input);
      bool forced = truthy(option(input, "forceInput"));
      bool widget = is_widget_type(type) && !forced;
      layout.inputs.push_back({name, link_type(input), widget});
      if (!is_widget_type(type)) continue;
      Widget place;
      place.name = name;
      place.type = type;
      place.initial = initial_value(input, type);
      place.dynamic_prompts = truthy(option(input, "dynamicPrompts"));
      place.forced = forced;
      layout.places.push_back(std::move(place));
      if (!forced) add_followers(name, type, input, layout);
      upload =
          upload || (section == std::string("required") && type == "COMBO" && is_upload(input));
    }
  }
  if (upload) layout.places.push_back(page_place("upload"));
  return layout;
}

std::vector<std::pair<std::string, Json>> widget_values(const WidgetLayout& layout,
                                                        const Json& stored,
                                                        const std::string& class_type) {
  std::vector<std::pair<std::string, Json>> values;
  auto places = places_for(layout, stored.is_array() ? stored.size() : 0);
  for (std::size_t i = 0; i < places.size(); ++i) {
    const Widget& widget = *places[i];
    if (widget.forced || widget.place == Widget::Place::Page) continue;
    if (widget.place == Widget::Place::Refresh) {
      values.emplace_back(widget.name, "refresh");
      continue;
    }
    Json value = widget.initial;
    if (stored.is_array() && i < stored.size()) value = stored[i];
    if (stored.is_object() && stored.contains(widget.name)) value = stored[widget.name];
    values.emplace_back(widget.name, fixed_up(widget, std::move(value), class_type));
  }
  return values;
}

}  // namespace distorch::graph
