#include "distorch/graph/validation.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "distorch/base/log.h"
#include "distorch/graph/dynamic_inputs.h"
#include "distorch/graph/json_text.h"
#include "distorch/graph/near_names.h"
#include "distorch/graph/widgets.h"

namespace distorch::graph {
namespace {

constexpr std::size_t kLongList = 20;  // choices beyond this are not repeated in messages

struct NodeState {
  Json* json = nullptr;
  const NodeType* type = nullptr;
  std::string class_type;
  std::vector<std::string> needs;  // nodes that its declared inputs are linked to
  std::vector<Problem> problems;
  bool checked = false, bad = false;
};

// [type or choices, options], as error reports show the declaration of an input.
Json input_config(const Input& input, bool newer) {
  Json config = input.definition(newer);
  if (config.size() < 2) config.push_back(Json::object());
  return config;
}

Json structural(const char* type, std::string message, std::string details,
                Json extra = Json::object()) {
  return {{"type", type},
          {"message", std::move(message)},
          {"details", std::move(details)},
          {"extra_info", std::move(extra)}};
}

// -1, 0 or 1; integers are compared exactly.
int compare(const Json& a, const Json& b) {
  auto wide = [](const Json& n) -> __int128 {
    return n.is_number_unsigned() ? static_cast<__int128>(n.get<std::uint64_t>())
                                  : static_cast<__int128>(n.get<std::int64_t>());
  };
  if (a.is_number_integer() && b.is_number_integer())
    return wide(a) < wide(b) ? -1 : wide(a) > wide(b);
  double x = a.get<double>(), y = b.get<double>();
  return x < y ? -1 : x > y;
}

// A file's name as Windows writes it, SD15\model.safetensors, with the slashes of other systems.
Json with_slashes(const Json& value) {
  if (!value.is_string()) return value;
  std::string text = value.get<std::string>();
  std::replace(text.begin(), text.end(), '\\', '/');
  return text;
}

class Validator {
 public:
  Validator(Json& prompt, const Catalog& catalog, const ValidateOptions& options)
      : prompt_(prompt), catalog_(catalog), options_(options) {}

  Validation run() {
    if (!prompt_.is_object()) {
      result_.error = structural("no_prompt", "No prompt provided", "No prompt provided");
      return std::move(result_);
    }
    find_types();
    std::vector<std::string> outputs = output_nodes();
    for (auto& id : outputs) visit(id);
    judge(outputs);
    return std::move(result_);
  }

 private:
  // --- structure
  void find_types() {
    for (auto& [id, node] : prompt_.items()) {
      NodeState& state = states_[id];
      order_.push_back(id);
      state.json = &node;
      bool has_class =
          node.is_object() && node.contains("class_type") && node["class_type"].is_string();
      if (has_class) {
        state.class_type = node["class_type"].get<std::string>();
        state.type = catalog_.find(state.class_type);
        Json& inputs = node["inputs"];
        if (!inputs.is_object()) inputs = Json::object();
      }
      if (!state.type) missing_type(id, state, has_class);
    }
  }

  void missing_type(const std::string& id, NodeState& state, bool has_class) {
    const Json& node = *state.json;
    Json title;
    if (node.is_object() && node.contains("_meta") && node["_meta"].is_object() &&
        node["_meta"].contains("title"))
      title = node["_meta"]["title"];
    Problem problem;
    problem.type = "missing_node_type";
    problem.details = fmt::format("Node ID '#{}'", id);
    problem.extra_info = {{"node_id", id},
                          {"class_type", has_class ? Json(state.class_type) : Json()},
                          {"node_title", title}};
    if (has_class) {
      problem.message = fmt::format("Node type '{}' is not known here; it may belong to an add-on.",
                                    state.class_type);
      // A look at all names takes its time: not for each of very many.
      problem.line = "this node type is not known here.";
      if (++unknown_ <= kMostSuggestions)
        problem.line += did_you_mean(state.class_type, catalog_.names());
    } else {
      problem.message = "A node has no class_type property.";
      problem.line = "it has no class_type";
    }
    if (result_.error.is_null())
      result_.error =
          structural("missing_node_type", problem.message, problem.details, problem.extra_info);
    unknown_types_ = true;
    add(state, std::move(problem));
  }

  std::vector<std::string> output_nodes() {
    std::vector<std::string> outputs;
    for (auto& id : order_) {
      const NodeType* type = states_[id].type;
      if (!type || !type->output_node) continue;
      if (options_.targets && std::find(options_.targets->begin(), options_.targets->end(), id) ==
                                  options_.targets->end())
        continue;
      outputs.push_back(id);
    }
    if (outputs.empty() && result_.error.is_null())
      result_.error = structural("prompt_no_outputs", "Prompt has no outputs", "");
    return outputs;
  }

  // --- walk: depth first, without recursion
  void visit(const std::string& start) {
    struct Frame {
      std::string id;
      std::size_t next = 0;
    };
    std::vector<Frame> stack;
    std::unordered_set<std::string> open;
    auto enter = [&](const std::string& id) {
      NodeState& state = states_[id];
      state.checked = true;
      if (state.type) check_node(id, state);
      state.bad = !state.problems.empty();
      open.insert(id);
      stack.push_back({id, 0});
    };
    if (!states_[start].checked) enter(start);
    while (!stack.empty()) {
      Frame& frame = stack.back();
      NodeState& state = states_[frame.id];
      if (frame.next == state.needs.size()) {
        for (auto& id : state.needs) state.bad = state.bad || states_[id].bad;
        open.erase(frame.id);
        stack.pop_back();
        continue;
      }
      const std::string needed = state.needs[frame.next++];
      if (open.count(needed)) {
        std::vector<std::string> path;
        bool inside = false;
        for (auto& f : stack) {
          inside = inside || f.id == needed;
          if (inside) path.push_back(f.id);
        }
        report_cycle(path);
      } else if (!states_[needed].checked) {
        enter(needed);
      }
    }
  }

  void report_cycle(const std::vector<std::string>& path) {
    std::string text;
    for (auto& id : path) text += fmt::format("{} ({}) -> ", id, states_[id].class_type);
    text += fmt::format("{} ({})", path.front(), states_[path.front()].class_type);
    Problem problem{"dependency_cycle",
                    "Dependency cycle detected",
                    text,
                    {},
                    "",
                    "Dependency cycle detected: " + text};
    problem.extra_info = {{"node_id", path.front()}, {"cycle_nodes", path}};
    add(states_[path.front()], std::move(problem));
    for (auto& id : path) states_[id].bad = true;
  }

  // --- one node
  void check_node(const std::string& id, NodeState& state) {
    std::set<std::string> own_checks;
    for (auto& check : state.type->checks)
      own_checks.insert(check.inputs.begin(), check.inputs.end());
    Json& inputs = (*state.json)["inputs"];
    auto live = live_inputs(*state.type, inputs);
    for (auto& input : live ? *live : state.type->inputs) {
      auto found = inputs.find(input.name);
      if (found == inputs.end()) {
        if (input.required)
          add(state, {"required_input_missing",
                      "Required input is missing",
                      input.name,
                      {{"input_name", input.name}},
                      input.name,
                      "Required input is missing"});
      } else if (found->is_array()) {
        check_link(state, input, *found);
      } else {
        check_constant(state, input, *found, own_checks.count(input.name) != 0);
      }
    }
    if (state.problems.empty()) run_own_checks(id, state);
  }

  void check_link(NodeState& state, const Input& input, const Json& value) {
    auto link = as_link(value);
    if (!link) {
      Problem problem =
          on_input(state, input, "bad_linked_input",
                   "Bad linked input, must be a length-2 list of [node_id, slot_index]");
      problem.details = input.name;
      problem.extra_info["received_value"] = value;
      add(state, std::move(problem));
      return;
    }
    auto source = states_.find(link->node);
    if (source == states_.end()) {
      broken_link(state, input,
                  fmt::format("it is linked to node {}, which does not exist", link->node));
      return;
    }
    const NodeType* type = source->second.type;
    if (type && link->slot >= type->outputs.size()) {
      broken_link(state, input,
                  fmt::format("it is linked to output {} of node {} ({}), which has {} outputs",
                              value[1].dump(), link->node, type->name, type->outputs.size()));
      return;
    }
    state.needs.push_back(link->node);
    if (!type || state.type->any_link_types) return;
    const std::string& received = type->outputs[link->slot].type;
    const std::string wanted = accepted_type(input);
    if (types_fit(received, wanted)) return;
    Problem problem =
        on_input(state, input, "return_type_mismatch", "Return type mismatch between linked nodes");
    problem.details =
        fmt::format("{}, received_type({}) mismatch input_type({})", input.name, received, wanted);
    problem.extra_info["received_type"] = received;
    problem.extra_info["linked_node"] = value;
    problem.line = fmt::format("it needs {} but node {} ({}) gives {}", wanted, link->node,
                               type->name, received);
    add(state, std::move(problem));
  }

  void broken_link(NodeState& state, const Input& input, std::string text) {
    Problem problem{"exception_during_validation",
                    "Exception when validating node",
                    fmt::format("{}: {}", input.name, text),
                    {},
                    input.name,
                    text};
    problem.extra_info = {
        {"input_name", input.name}, {"exception_type", "KeyError"}, {"traceback", Json::array()}};
    add(state, std::move(problem));
  }

  void check_constant(NodeState& state, const Input& input, Json& value, bool own_check) {
    if (value.is_object() && value.contains("__value__")) {
      Json inner = value["__value__"];
      value = std::move(inner);
    }
    std::string reason;
    auto converted = convert_constant(value, input.type, reason);
    if (!converted) {
      Problem problem =
          on_input(state, input, "invalid_input_type",
                   fmt::format("Failed to convert an input value to a {} value", input.type));
      problem.details = fmt::format("{}, {}, {}", input.name, python_str(value), reason);
      problem.extra_info["received_value"] = value;
      problem.extra_info["exception_message"] = reason;
      problem.line = fmt::format("{} is no {}: {}", python_repr(value), input.type, reason);
      add(state, std::move(problem));
      return;
    }
    value = std::move(*converted);
    if (!own_check && check_bounds(state, input, value)) check_list(state, input, value);
  }

  bool check_bounds(NodeState& state, const Input& input, const Json& value) {
    if (!value.is_number() || !input.options.is_object()) return true;
    for (bool low : {true, false}) {
      auto bound = input.options.find(low ? "min" : "max");
      if (bound == input.options.end() || !bound->is_number()) continue;
      if (low ? compare(value, *bound) >= 0 : compare(value, *bound) <= 0) continue;
      Problem problem =
          on_input(state, input, low ? "value_smaller_than_min" : "value_bigger_than_max",
                   fmt::format("Value {} {} of {}", python_str(value),
                               low ? "smaller than min" : "bigger than max", python_str(*bound)));
      problem.details = input.name;
      problem.extra_info["received_value"] = value;
      add(state, std::move(problem));
      return false;
    }
    return true;
  }

  void check_list(NodeState& state, const Input& input, Json& value) {
    if (!(input.is_list() || input.type == kDynamicChoice) ||
        (input.options.is_object() && input.options.contains("remote")))
      return;
    const Json list = input.choices.read();
    bool several = input.options.is_object() && input.options.contains("multiselect") &&
                   input.options["multiselect"] == true && value.is_array();
    auto known = [&](const Json& one) {
      return std::find(list.begin(), list.end(), one) != list.end();
    };
    if (several ? std::all_of(value.begin(), value.end(), known) : known(value)) return;
    if (Json path = with_slashes(value); known(path)) {
      log::warn_once(fmt::format("{} is written as on Windows and read as {}", python_repr(value),
                                 python_repr(path)));
      value = std::move(path);
      return;
    }
    bool longer = list.size() > kLongList;
    Problem problem = on_input(state, input, "value_not_in_list", "Value not in list");
    problem.details =
        fmt::format("{}: '{}' not in {}", input.name, python_str(value),
                    longer ? fmt::format("(list of length {})", list.size()) : python_str(list));
    if (longer) problem.extra_info["input_config"] = nullptr;
    problem.extra_info["received_value"] = value;
    problem.line = "Value not in list: " + list_advice(value, list, longer);
    if (auto origin = input.choices.origin(); !origin.empty()) problem.line += " (" + origin + ")";
    add(state, std::move(problem));
  }

  static std::string list_advice(const Json& value, const Json& list, bool longer) {
    std::vector<std::string> names;
    for (auto& entry : list) names.push_back(python_str(entry));
    std::string shown = python_repr(value);
    if (list.empty())
      return fmt::format("{}, but there is nothing to choose from (no such file was found)", shown);
    std::string near = did_you_mean(python_str(value), names);
    if (longer) return fmt::format("{} is none of {} choices.{}", shown, list.size(), near);
    return fmt::format("{} is none of {}.{}", shown, fmt::join(names, ", "), near);
  }

  void run_own_checks(const std::string& id, NodeState& state) {
    if (state.type->checks.empty()) return;
    Call::Inputs given;
    given.node_id = id;
    given.prompt = &prompt_;
    given.context = options_.context;
    for (auto& input : state.type->inputs) {
      auto found = (*state.json)["inputs"].find(input.name);
      if (found != (*state.json)["inputs"].end() && !found->is_array())
        given.values[input.name] = {Value::constant(*found)};
    }
    Call call(*state.type, std::move(given));
    for (auto& check : state.type->checks) {
      try {
        std::string reason = check.reason(call);
        if (reason.empty()) continue;
        for (auto& name : check.inputs) {
          if (!call.has(name)) continue;
          Problem problem{"custom_validation_failed",
                          "Custom validation failed for node",
                          fmt::format("{} - {}", name, reason),
                          {{"input_name", name}},
                          name,
                          reason};
          add(state, std::move(problem));
        }
      } catch (const std::exception& failure) {
        Problem problem{"exception_during_validation",
                        "Exception when validating node",
                        failure.what(),
                        {},
                        "",
                        failure.what()};
        problem.extra_info = {{"exception_type", "RuntimeError"}, {"traceback", Json::array()}};
        add(state, std::move(problem));
      }
    }
  }

  // --- results
  Problem on_input(const NodeState& state, const Input& input, const char* type,
                   std::string message) {
    Problem problem;
    problem.type = type;
    problem.message = std::move(message);
    problem.input = input.name;
    problem.extra_info = {{"input_name", input.name},
                          {"input_config", input_config(input, state.type->newer_schema)}};
    return problem;
  }

  static void add(NodeState& state, Problem problem) {
    if (problem.line.empty()) problem.line = problem.message;
    state.problems.push_back(std::move(problem));
  }

  void judge(const std::vector<std::string>& outputs) {
    std::unordered_map<std::string, std::vector<std::string>> dependent;
    std::string details;
    for (auto& output : outputs) {
      NodeState& state = states_[output];
      (state.bad ? result_.bad_outputs : result_.good_outputs).push_back(output);
      if (!state.bad) continue;
      for (auto& problem : state.problems)
        details +=
            fmt::format("{}{}: {}", details.empty() ? "" : "\n", problem.message, problem.details);
      for (auto& id : everything_needed(output))
        if (!states_[id].problems.empty()) dependent[id].push_back(output);
    }
    for (auto& id : order_) {
      NodeState& state = states_[id];
      if (!state.problems.empty())
        result_.nodes.push_back({id, state.class_type, state.problems, dependent[id]});
    }
    if (unknown_types_) result_.good_outputs.clear();
    if (result_.error.is_null() && result_.good_outputs.empty())
      result_.error = structural("prompt_outputs_failed_validation",
                                 "Prompt outputs failed validation", details);
  }

  std::vector<std::string> everything_needed(const std::string& start) {
    std::vector<std::string> found{start};
    std::unordered_set<std::string> seen{start};
    for (std::size_t i = 0; i < found.size(); ++i)
      for (auto& id : states_[found[i]].needs)
        if (seen.insert(id).second) found.push_back(id);
    return found;
  }

  Json& prompt_;
  const Catalog& catalog_;
  const ValidateOptions& options_;
  std::unordered_map<std::string, NodeState> states_;
  std::vector<std::string> order_;
  bool unknown_types_ = false;
  static constexpr int kMostSuggestions = 50;
  int unknown_ = 0;
  Validation result_;
};

}  // namespace

Json Validation::node_errors() const {
  Json all = Json::object();
  if (error.is_object() && error["type"] != "prompt_outputs_failed_validation") return all;
  for (auto& node : nodes) {
    Json errors = Json::array();
    for (auto& problem : node.problems)
      errors.push_back({{"type", problem.type},
                        {"message", problem.message},
                        {"details", problem.details},
                        {"extra_info", problem.extra_info}});
    all[node.node_id] = {{"errors", errors},
                         {"dependent_outputs", node.dependent_outputs},
                         {"class_type", node.class_type}};
  }
  return all;
}

std::vector<std::string> Validation::lines() const {
  std::vector<std::string> result;
  for (auto& node : nodes)
    for (auto& problem : node.problems)
      result.push_back(
          fmt::format("node {}{}{}: {}", node.node_id,
                      node.class_type.empty() ? "" : fmt::format(" ({})", node.class_type),
                      problem.input.empty() ? "" : " input " + problem.input, problem.line));
  if (result.empty() && error.is_object())
    result.push_back(error["type"] == "prompt_no_outputs"
                         ? "nothing to do: no node of this workflow saves or shows anything"
                         : error["message"].get<std::string>());
  return result;
}

Validation validate(Json& prompt, const Catalog& catalog, const ValidateOptions& options) {
  return Validator(prompt, catalog, options).run();
}

}  // namespace distorch::graph
