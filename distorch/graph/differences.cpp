#include <fmt/format.h>

#include <set>

#include "distorch/graph/catalog.h"

namespace distorch::graph {
namespace {

// Texts for people, which are nobody's signature.
bool is_prose(const std::string& key) {
  return key == "tooltip" || key == "description" || key == "output_tooltips";
}

// Fields of a definition that are compared as they are.
bool same_value(const Json& ours, const Json& theirs) {
  if (ours.is_number() && theirs.is_number() && ours.is_number_float() != theirs.is_number_float())
    return false;
  if (ours.is_object() && theirs.is_object()) {
    // Choices with inputs of their own bring the prose of those along.
    auto facts = [](const Json& object) {
      std::size_t count = 0;
      for (auto& [key, value] : object.items()) count += !is_prose(key);
      return count;
    };
    if (facts(ours) != facts(theirs)) return false;
    for (auto& [key, value] : theirs.items())
      if (!is_prose(key) && (!ours.contains(key) || !same_value(ours[key], value))) return false;
    return true;
  }
  if (ours.is_array() && theirs.is_array()) {
    if (ours.size() != theirs.size()) return false;
    for (std::size_t i = 0; i < ours.size(); ++i)
      if (!same_value(ours[i], theirs[i])) return false;
    return true;
  }
  return ours == theirs;
}

bool is_device_list(const Json& list) {
  if (list.empty()) return false;
  for (auto& entry : list) {
    if (!entry.is_string()) return false;
    auto& name = entry.get_ref<const std::string&>();
    if (name != "cpu" && name.find(':') == std::string::npos) return false;
  }
  return true;
}

bool machine_dependent(const Json& theirs) { return theirs.empty() || is_device_list(theirs); }

class Comparison {
 public:
  explicit Comparison(std::set<std::string> dynamic) : dynamic_(std::move(dynamic)) {}

  void input(const std::string& name, const Json& ours, const Json& theirs) {
    std::string place = "input " + name;
    if (!ours.is_array() || !theirs.is_array() || ours.empty() || theirs.empty()) {
      note(place, ours, theirs);
      return;
    }
    bool list = ours[0].is_array() && theirs[0].is_array();
    bool free = dynamic_.count(name) != 0;
    bool devices = list && (free || machine_dependent(theirs[0]));
    if (!devices && !same_value(ours[0], theirs[0])) note(place, ours[0], theirs[0]);
    options(place, options_of(ours), options_of(theirs), free || devices);
  }

  void note(const std::string& place, const Json& ours, const Json& theirs) {
    found.push_back(fmt::format("{}: ours {}, reference {}", place, ours.dump(), theirs.dump()));
  }

  std::vector<std::string> found;

 private:
  // An input without options may be written without them.
  static Json options_of(const Json& input) { return input.size() > 1 ? input[1] : Json::object(); }

  void options(const std::string& place, const Json& ours, const Json& theirs, bool free) {
    for (auto& [key, value] : theirs.items()) {
      if (is_prose(key)) continue;
      if (!ours.contains(key)) {
        note(place + " option " + key, Json(), value);
        continue;
      }
      bool list = key == "options" && (free || machine_dependent(value));
      bool device = key == "default" && value == "cpu" && free;
      if (!list && !device && !same_value(ours[key], value))
        note(place + " option " + key, ours[key], value);
    }
    for (auto& [key, value] : ours.items())
      if (!is_prose(key) && !theirs.contains(key)) note(place + " option " + key, value, Json());
  }

  std::set<std::string> dynamic_;
};

void compare_inputs(Comparison& comparison, const Json& ours, const Json& theirs) {
  const Json none = Json::object();
  for (const char* section : {"required", "optional", "hidden"}) {
    const Json& mine = ours.contains(section) ? ours[section] : none;
    const Json& other = theirs.contains(section) ? theirs[section] : none;
    std::vector<std::string> my_order, other_order;
    for (auto& [name, value] : mine.items()) my_order.push_back(name);
    for (auto& [name, value] : other.items()) other_order.push_back(name);
    if (my_order != other_order)
      comparison.note(std::string(section) + " inputs", my_order, other_order);
    for (auto& [name, value] : other.items()) {
      if (!mine.contains(name)) continue;
      if (value.is_array() && mine[name].is_array())
        comparison.input(name, mine[name], value);
      else if (mine[name] != value)
        comparison.note("hidden input " + name, mine[name], value);
    }
  }
}

std::vector<std::string> compare(const Json& ours, const Json& theirs,
                                 std::set<std::string> dynamic) {
  Comparison comparison(std::move(dynamic));
  if (!ours.is_object() || !theirs.is_object()) {
    comparison.note("definition", ours, theirs);
    return comparison.found;
  }
  for (auto& [key, value] : theirs.items()) {
    if (is_prose(key)) continue;
    if (!ours.contains(key))
      comparison.note(key, Json(), value);
    else if (key == "input")
      compare_inputs(comparison, ours[key], value);
    else if (!same_value(ours[key], value))
      comparison.note(key, ours[key], value);
  }
  for (auto& [key, value] : ours.items())
    if (!is_prose(key) && !theirs.contains(key)) comparison.note(key, value, Json());
  return comparison.found;
}

}  // namespace

std::vector<std::string> differences(const Json& ours, const Json& reference) {
  return compare(ours, reference, {});
}

std::vector<std::string> differences(const NodeType& type, const Json& reference) {
  std::set<std::string> dynamic;
  for (auto& input : type.inputs)
    if (input.is_list() && input.choices.dynamic()) dynamic.insert(input.name);
  return compare(definition_of(type), reference, std::move(dynamic));
}

}  // namespace distorch::graph
