#include "distorch/graph/executor.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <new>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "distorch/base/interrupt.h"
#include "distorch/base/log.h"
#include "distorch/graph/json_text.h"
#include "distorch/graph/schedule.h"
#include "distorch/graph/validation.h"

namespace distorch::graph {
namespace {

constexpr std::size_t kMaxExpanded = 100'000;  // nodes that one prompt may grow to

std::int64_t now_ms() {
  auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

const char* exception_name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::Usage: return "ValueError";
    case ErrorKind::Format: return "FormatError";
    case ErrorKind::MissingFile: return "FileNotFoundError";
    case ErrorKind::MissingWeight: return "MissingWeightError";
    case ErrorKind::Shape: return "ShapeError";
    case ErrorKind::OutOfMemory: return "OOMError";
    case ErrorKind::Interrupted: return "Interrupted";
    case ErrorKind::Internal: return "RuntimeError";
  }
  return "RuntimeError";
}

bool says_out_of_memory(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text.find("out of memory") != std::string::npos;
}

// A node of this run: from the prompt, or made by another node.
struct RunNode {
  const Json* json = nullptr;
  const NodeType* type = nullptr;
  std::string parent, display;  // "" for nodes of the prompt

  const Json& inputs() const {
    static const Json none = Json::object();
    auto found = json->find("inputs");
    return found != json->end() && found->is_object() ? *found : none;
  }
};

// One element of an output slot while calls are collected: a value, or a link into the node's expansion.
struct Item {
  Value value;
  std::optional<PromptLink> link;
};
struct Collected {
  std::vector<std::vector<Item>> slots;
  Json ui;
  std::size_t calls = 0;
};

enum class Step { Done, Waiting };

}  // namespace

class Run : public CallListener {
 public:
  Run(Executor& executor, const RunRequest& request, EventSink& sink)
      : executor_(executor), request_(request), sink_(sink) {}

  RunResult go() {
    if (request_.clear_interrupt) clear_interrupt();
    report(ExecutionStart{request_.prompt_id, now_ms()});
    try {
      prepare();
      while (!schedule_.empty()) {
        auto next = schedule_.pick();
        if (!next) {
          current_ = schedule_.remaining().front();
          throw Error(ErrorKind::Usage, place_of(current_), "waits for its own result (dependency cycle)");
        }
        current_ = *next;
        if (execute(*next) == Step::Done) complete(*next);
      }
      report(ExecutionSuccess{request_.prompt_id, now_ms()});
    } catch (const Error& error) {
      if (error.kind() == ErrorKind::Interrupted)
        interrupted();
      else
        failed(exception_name(error.kind()), error.what(), error.kind() == ErrorKind::OutOfMemory);
    } catch (const std::bad_alloc&) {
      failed("OOMError", "out of memory", true);
    } catch (const std::exception& error) {
      bool memory = says_out_of_memory(error.what());
      failed(memory ? "OOMError" : "RuntimeError", error.what(), memory);
    }
    return std::move(result_);
  }

  void on_progress(double value, double max) override {
    NodeState& state = touch(current_);
    state.value = value;
    state.max = max;
    send_progress_state();
    flush_preview();
    sink_.send(Progress{request_.prompt_id, current_, value, max});
  }
  void on_preview(const Value& image) override {
    flush_preview();
    preview_ = image;
  }

 private:
  // --- setting up -----------------------------------------------------------------------------------------
  void prepare() {
    for (auto& [id, json] : request_.prompt.items()) {
      if (!json.is_object() || !json.contains("class_type") || !json["class_type"].is_string()) continue;
      const NodeType* type = executor_.catalog_.find(json["class_type"].get<std::string>());
      if (type) nodes_[id] = {&json, type, "", ""};
    }
    std::vector<std::string> needed = closure(request_.outputs);
    std::vector<CacheKey> keys;
    std::vector<std::string> owners, hits;
    for (auto& id : needed) keys.push_back(key_of(id));
    for (auto& [id, node] : nodes_) owners.push_back(owner_name(id));
    executor_.cache_.begin_prompt(keys, owners);
    forget_states(owners);
    for (auto& id : needed)
      if (executor_.cache_.find(key_of(id))) hits.push_back(id);
    report(ExecutionCached{request_.prompt_id, hits, now_ms()});
    for (auto& id : request_.outputs) {
      if (!nodes_.count(id)) throw Error(ErrorKind::Internal, "node " + id, "is to be executed but is not in the prompt");
      if (executor_.cache_.find(key_of(id)))
        schedule_.add(id, true);  // reported from the cache, needs nothing
      else
        need(id);
    }
  }

  // The nodes these outputs depend on, lazily too, in the order of the prompt.
  std::vector<std::string> closure(const std::vector<std::string>& outputs) {
    std::vector<std::string> stack = outputs;
    std::unordered_set<std::string> seen;
    while (!stack.empty()) {
      std::string id = stack.back();
      stack.pop_back();
      auto found = nodes_.find(id);
      if (found == nodes_.end() || !seen.insert(id).second) continue;
      for (auto& [name, link] : links_of(found->second)) {
        stack.push_back(link.node);
        readers_[link.node].insert(id);
      }
    }
    std::vector<std::string> ordered;
    for (auto& [id, json] : request_.prompt.items())
      if (seen.count(id)) ordered.push_back(id);
    return ordered;
  }

  void forget_states(const std::vector<std::string>& owners) {
    std::set<std::string> present(owners.begin(), owners.end());
    for (auto it = executor_.states_.begin(); it != executor_.states_.end();)
      it = present.count(it->first) ? std::next(it) : executor_.states_.erase(it);
  }

  // Links on declared inputs.
  static std::vector<std::pair<const Input*, PromptLink>> links_of(const RunNode& node) {
    std::vector<std::pair<const Input*, PromptLink>> links;
    const Json& inputs = node.inputs();
    for (auto& input : node.type->inputs) {
      auto found = inputs.find(input.name);
      if (found == inputs.end()) continue;
      if (auto link = as_link(*found)) links.emplace_back(&input, std::move(*link));
    }
    return links;
  }

  std::string owner_name(const std::string& id) { return id + " " + nodes_.at(id).type->name; }

  // The node of the prompt that `id` belongs to.
  std::string visible(std::string id) const {
    for (auto found = nodes_.find(id); found != nodes_.end() && !found->second.parent.empty(); found = nodes_.find(id))
      id = found->second.parent;
    return id;
  }
  std::string display(std::string id) const {
    for (auto found = nodes_.find(id); found != nodes_.end() && !found->second.display.empty(); found = nodes_.find(id))
      id = found->second.display;
    return id;
  }
  std::string place_of(const std::string& id) {
    auto found = nodes_.find(id);
    return found == nodes_.end() ? "node " + id : fmt::format("node {} ({})", id, found->second.type->name);
  }

  // --- keys -----------------------------------------------------------------------------------------------
  CacheKey key_of(const std::string& start) {
    std::vector<std::string> stack{start};
    std::unordered_set<std::string> open;
    while (!stack.empty()) {
      std::string id = stack.back();
      auto found = nodes_.find(id);
      bool first = !keys_.count(id) && found != nodes_.end() && open.insert(id).second;
      bool waiting = false;
      if (first)
        for (auto& [name, value] : found->second.inputs().items())
          if (auto link = as_link(value); link && !keys_.count(link->node) && !open.count(link->node)) {
            stack.push_back(link->node);
            waiting = true;
          }
      if (waiting) continue;
      if (!keys_.count(id)) keys_[id] = make_key(id);
      stack.pop_back();
    }
    return keys_.at(start);
  }

  CacheKey make_key(const std::string& id) {
    KeyBuilder builder;
    auto found = nodes_.find(id);
    if (found == nodes_.end()) {
      builder.add(unequal());
      return builder.key();
    }
    const RunNode& node = found->second;
    builder.add(node.type->name);
    builder.add(change_value(id, node));
    bool own_id = node.type->not_idempotent;
    for (auto& hidden : node.type->hidden) own_id = own_id || hidden.type == "UNIQUE_ID";
    builder.add(own_id ? id : std::string());
    std::map<std::string, const Json*> sorted;
    for (auto& [name, value] : node.inputs().items()) sorted[name] = &value;
    for (auto& [name, value] : sorted) {
      builder.add(name);
      auto link = as_link(*value);
      builder.add(link ? "link" : json_line(*value));
      if (!link) continue;
      auto source = keys_.find(link->node);
      builder.add(source == keys_.end() ? unequal() : std::string());  // a circle: never equal
      if (source != keys_.end()) builder.add(source->second);
      builder.add(std::to_string(link->slot));
    }
    return builder.key();
  }

  std::string unequal() { return fmt::format("never equal {}", ++executor_.nonce_); }

  std::string change_value(const std::string& id, const RunNode& node) {
    if (!node.type->change_key) return "";
    Call::Inputs given = surroundings(id);
    const Json& inputs = node.inputs();
    for (auto& input : node.type->inputs) {
      auto found = inputs.find(input.name);
      if (found != inputs.end() && !as_link(*found)) given.values[input.name] = {Value::constant(*found)};
    }
    try {
      auto change = node.type->change_key(Call(*node.type, std::move(given)));
      return change ? "changed " + *change : unequal();
    } catch (const std::exception& problem) {
      log::debug("{} cannot tell whether it changed: {}", place_of(id), problem.what());
      return unequal();
    }
  }

  // --- schedule -------------------------------------------------------------------------------------------
  // Makes sure that `start` has a result or will have one.
  void need(const std::string& start) {
    std::vector<std::string> stack{start};
    std::vector<std::pair<std::string, std::string>> blocks;
    while (!stack.empty()) {
      std::string id = stack.back();
      stack.pop_back();
      auto found = nodes_.find(id);
      if (found == nodes_.end())
        throw Error(ErrorKind::Usage, place_of(current_), fmt::format("needs node {}, which does not exist", id));
      if (schedule_.contains(id) || available(id)) continue;
      schedule_.add(id, found->second.type->output_node);
      for (auto& [input, link] : links_of(found->second)) {
        if (input->lazy() || input->raw_link()) continue;
        stack.push_back(link.node);
        blocks.emplace_back(link.node, id);
      }
    }
    for (auto& [from, to] : blocks)
      if (!results_.count(from)) schedule_.block(from, to);
  }

  // Has a result, or takes it from the cache.
  bool available(const std::string& id) {
    if (results_.count(id)) return true;
    auto cached = executor_.cache_.find(key_of(id));
    if (cached) results_[id] = cached;
    return cached != nullptr;
  }

  void wait_for(const std::string& from, const std::string& to) {
    need(from);
    readers_[from].insert(to);
    if (!results_.count(from)) schedule_.block(from, to);
  }

  void complete(const std::string& id) {
    schedule_.finish(id);
    if (executor_.cache_.mode() != CacheMode::None) return;
    // Nothing is kept: a result goes when its last reader has run.
    std::vector<std::string> sources;
    for (auto& [input, link] : links_of(nodes_.at(id))) sources.push_back(link.node);
    auto made = expanded_.find(id);
    if (made != expanded_.end()) sources.insert(sources.end(), made->second.begin(), made->second.end());
    for (auto& source : sources) {
      auto readers = readers_.find(source);
      if (readers == readers_.end()) continue;
      readers->second.erase(id);
      if (readers->second.empty()) results_.erase(source);
    }
  }

  // --- one node -------------------------------------------------------------------------------------------
  Step execute(const std::string& id) {
    if (auto cached = executor_.cache_.find(key_of(id))) {
      answer_from_cache(id, cached);
      return Step::Done;
    }
    auto open = pending_.find(id);
    if (open != pending_.end()) {
      Collected collected = std::move(open->second);
      pending_.erase(open);
      store(id, std::move(collected));
      return Step::Done;
    }
    throw_if_interrupted();
    const RunNode& node = nodes_.at(id);
    touch(id);
    send_progress_state();
    sink_.send(Executing{request_.prompt_id, id, display(id)});
    std::map<std::string, std::vector<Value>> inputs = gather(id, node);
    if (ask_lazy(id, node, inputs)) return Step::Waiting;
    Collected collected = call_all(id, node, inputs);
    if (await_expansion(id, collected)) {
      pending_[id] = std::move(collected);
      return Step::Waiting;
    }
    store(id, std::move(collected));
    return Step::Done;
  }

  void answer_from_cache(const std::string& id, const std::shared_ptr<const NodeResult>& cached) {
    results_[id] = cached;
    if (!cached->ui.is_null() || nodes_.at(id).type->output_node)
      sink_.send(Executed{request_.prompt_id, id, display(id), cached->ui});
    note_ui(id, cached->ui);
    finish_state(id);
  }

  std::map<std::string, std::vector<Value>> gather(const std::string& id, const RunNode& node) {
    std::map<std::string, std::vector<Value>> values;
    const Json& inputs = node.inputs();
    for (auto& input : node.type->inputs) {
      auto found = inputs.find(input.name);
      if (found == inputs.end()) continue;
      auto link = as_link(*found);
      if (!link || input.raw_link()) {
        bool wrapped = found->is_object() && found->contains("__value__");
        values[input.name] = {Value::constant(wrapped ? (*found)["__value__"] : *found)};
        continue;
      }
      auto result = results_.find(link->node);
      if (result == results_.end()) continue;  // lazy and not known yet
      if (link->slot >= result->second->outputs.size())
        throw Error(ErrorKind::Usage, place_of(id),
                    fmt::format("input '{}' is linked to output {} of node {}, which has none such", input.name, link->slot,
                                link->node));
      values[input.name] = result->second->outputs[link->slot];
    }
    return values;
  }

  // Asks a node with lazy inputs what it still needs. True: it waits for more.
  bool ask_lazy(const std::string& id, const RunNode& node, const std::map<std::string, std::vector<Value>>& inputs) {
    if (!node.type->needed_lazy) return false;
    std::set<std::string> wanted;
    for (std::size_t i = 0, calls = call_count(id, node, inputs); i < calls; ++i) {
      Call::Inputs given = surroundings(id);
      given.values = slice(node, inputs, i);
      if (blocker_in(given.values)) continue;
      for (auto& name : node.type->needed_lazy(Call(*node.type, std::move(given)))) wanted.insert(name);
    }
    bool waiting = false;
    for (auto& [input, link] : links_of(node)) {
      if (!wanted.count(input->name) || inputs.count(input->name)) continue;
      wait_for(link.node, id);
      // What is known now may be all that was asked for: then ask again at once by going round.
      waiting = true;
    }
    return waiting;
  }

  static std::size_t call_count(const std::string& id, const RunNode& node,
                                const std::map<std::string, std::vector<Value>>& inputs) {
    if (node.type->input_is_list) return 1;
    std::size_t longest = 0;
    for (auto& [name, values] : inputs) longest = std::max(longest, values.size());
    if (longest == 0) return 1;
    for (auto& [name, values] : inputs)
      if (values.empty())
        throw Error(ErrorKind::Usage, fmt::format("node {} ({})", id, node.type->name),
                    fmt::format("input '{}' is an empty list while others are not", name));
    return longest;
  }

  static std::map<std::string, std::vector<Value>> slice(const RunNode& node,
                                                         const std::map<std::string, std::vector<Value>>& inputs, std::size_t i) {
    if (node.type->input_is_list) return inputs;
    std::map<std::string, std::vector<Value>> one;
    for (auto& [name, values] : inputs)
      if (!values.empty()) one[name] = {values[std::min(i, values.size() - 1)]};
    return one;
  }

  static const Value* blocker_in(const std::map<std::string, std::vector<Value>>& inputs) {
    for (auto& [name, values] : inputs)
      for (auto& value : values)
        if (value.is_blocker()) return &value;
    return nullptr;
  }

  Call::Inputs surroundings(const std::string& id) {
    Call::Inputs given;
    given.node_id = id;
    given.prompt = &request_.prompt;
    given.extra_pnginfo = &request_.extra_pnginfo;
    given.context = request_.context;
    given.listener = this;
    given.state = &executor_.states_[owner_name(id)];
    return given;
  }

  Collected call_all(const std::string& id, const RunNode& node, const std::map<std::string, std::vector<Value>>& inputs) {
    Collected collected;
    collected.slots.resize(node.type->outputs.size());
    std::size_t calls = call_count(id, node, inputs);
    for (std::size_t i = 0; i < calls; ++i) {
      Call::Inputs given = surroundings(id);
      given.values = slice(node, inputs, i);
      if (const Value* blocker = blocker_in(given.values)) {
        report_blocked(id, *blocker);
        for (auto& slot : collected.slots) slot.push_back({Value::blocker(), {}});
        continue;
      }
      throw_if_interrupted();
      Call call(*node.type, std::move(given));
      node.type->run(call);
      collect(id, node, call, i, collected);
    }
    return collected;
  }

  void collect(const std::string& id, const RunNode& node, const Call& call, std::size_t index, Collected& collected) {
    std::string prefix = fmt::format("{}.{}.0.", id, index);
    if (!call.expansion().is_null()) expand(id, prefix, call.expansion());
    for (std::size_t slot = 0; slot < collected.slots.size(); ++slot) {
      const Call::Output& output = call.outputs()[slot];
      for (auto& link : output.links)
        collected.slots[slot].push_back({{}, PromptLink{prefix + link.node, static_cast<std::size_t>(std::max(link.slot, 0))}});
      for (auto& value : output.values) collected.slots[slot].push_back({value, {}});
      if (output.links.empty() && output.values.empty() && !node.type->outputs[slot].is_list)
        throw Error(ErrorKind::Internal, place_of(id), fmt::format("gave nothing on output {}", slot));
    }
    if (call.ui_output().is_null()) return;
    if (collected.ui.is_null()) collected.ui = Json::object();
    for (auto& [key, values] : call.ui_output().items()) {
      Json& all = collected.ui[key];
      if (all.is_null()) all = Json::array();
      for (auto& value : values) all.push_back(value);
    }
  }

  // --- expansion ------------------------------------------------------------------------------------------
  void expand(const std::string& id, const std::string& prefix, const Json& graph) {
    if (nodes_.size() + graph.size() > kMaxExpanded)
      throw Error(ErrorKind::Usage, place_of(id), "expands to too many nodes");
    for (auto& [local, node] : graph.items()) {
      std::string full = prefix + local;
      Json copy = node;
      const NodeType* type = copy.is_object() && copy.contains("class_type") && copy["class_type"].is_string()
                                 ? &executor_.catalog_.get(copy["class_type"].get<std::string>())
                                 : nullptr;
      if (!type) throw Error(ErrorKind::Internal, place_of(id), fmt::format("expands to node '{}' without a class", local));
      if (nodes_.count(full)) throw Error(ErrorKind::Internal, place_of(id), fmt::format("expands to node {} twice", full));
      if (copy.contains("inputs") && copy["inputs"].is_object())
        for (auto& [name, value] : copy["inputs"].items())
          if (auto link = as_link(value); link && graph.contains(link->node)) value[0] = prefix + link->node;
      std::string shown = id;
      if (copy.contains("override_display_id") && copy["override_display_id"].is_string())
        shown = copy["override_display_id"].get<std::string>();
      made_.push_back(std::move(copy));
      nodes_[full] = {&made_.back(), type, id, shown == full ? id : shown};
    }
    for (auto& [local, node] : graph.items())
      if (nodes_.at(prefix + local).type->output_node) await(prefix + local, id);
  }

  void await(const std::string& made, const std::string& id) {
    wait_for(made, id);
    expanded_[id].push_back(made);
  }

  // Makes the node wait for the results that its outputs are links to. True when it waits for any made node.
  bool await_expansion(const std::string& id, const Collected& collected) {
    for (auto& slot : collected.slots)
      for (auto& item : slot)
        if (item.link) await(item.link->node, id);
    return expanded_.count(id) != 0;
  }

  void store(const std::string& id, Collected collected) {
    auto result = std::make_shared<NodeResult>();
    for (auto& slot : collected.slots) {
      auto& values = result->outputs.emplace_back();
      for (auto& item : slot) {
        if (!item.link) {
          values.push_back(std::move(item.value));
          continue;
        }
        auto& source = results_.at(item.link->node)->outputs;
        if (item.link->slot >= source.size())
          throw Error(ErrorKind::Internal, place_of(id), fmt::format("expands to output {} of node {}, which has none such",
                                                                     item.link->slot, item.link->node));
        auto& all = source[item.link->slot];
        values.insert(values.end(), all.begin(), all.end());
      }
    }
    result->ui = std::move(collected.ui);
    flush_preview();
    if (!result->ui.is_null()) sink_.send(Executed{request_.prompt_id, id, display(id), result->ui});
    note_ui(id, result->ui);
    finish_state(id);
    bool made = !nodes_.at(id).parent.empty();
    executor_.cache_.store(key_of(id), made ? owner_name(visible(id)) : "", result);
    results_[id] = std::move(result);
    result_.executed.push_back(id);
  }

  // --- reports --------------------------------------------------------------------------------------------
  NodeState& touch(const std::string& id) {
    auto [found, fresh] = touched_.emplace(id, states_.size());
    if (fresh) {
      const RunNode& node = nodes_.at(id);
      NodeState state{id, display(id), visible(id), {}};
      if (!node.parent.empty()) state.parent_node_id = node.parent;
      states_.push_back(std::move(state));
    }
    return states_[found->second];
  }

  void finish_state(const std::string& id) {
    NodeState& state = touch(id);
    state.state = "finished";
    state.value = state.max;
    send_progress_state();
  }

  void send_progress_state() { sink_.send(ProgressState{request_.prompt_id, states_}); }

  void flush_preview() {
    if (preview_.empty()) return;
    sink_.send(Preview{request_.prompt_id, touch(current_), std::exchange(preview_, {})});
  }

  void note_ui(const std::string& id, const Json& ui) {
    if (ui.is_null()) return;
    result_.outputs[id] = ui;
    const RunNode& node = nodes_.at(id);
    result_.meta[id] = {{"node_id", id},
                        {"display_node", display(id)},
                        {"parent_node", node.parent.empty() ? Json() : Json(node.parent)},
                        {"real_node_id", visible(id)}};
  }

  void report(const Event& event) {
    Json json = to_json(event);
    result_.messages.emplace_back(json["type"].get<std::string>(), std::move(json["data"]));
    sink_.send(event);
  }

  void report_blocked(const std::string& id, const Value& blocker) {
    auto message = blocker.blocker_message();
    if (!message) return;
    ExecutionError error = describe_error("ExecutionBlocked", "Execution Blocked: " + *message);
    error.node_id = id;
    error.node_type = nodes_.at(id).type->name;
    sink_.send(error);
  }

  ExecutionError describe_error(const std::string& type, const std::string& message) {
    ExecutionError error;
    error.prompt_id = request_.prompt_id;
    error.node_id = visible(current_);
    auto node = nodes_.find(error.node_id);
    if (node != nodes_.end()) error.node_type = node->second.type->name;
    error.executed = result_.executed;
    error.exception_message = message;
    error.exception_type = type;
    for (auto& [id, result] : results_) error.current_outputs.push_back(id);
    error.timestamp = now_ms();
    return error;
  }

  void failed(const std::string& type, const std::string& message, bool out_of_memory) {
    result_.status = RunStatus::Error;
    result_.exception = std::current_exception();
    std::string text = message + "\n";
    if (out_of_memory) text += "Offload more of the model, or use a smaller picture or batch.\n";
    ExecutionError error = describe_error(type, text);
    if (!current_.empty() && nodes_.count(current_)) {
      error.traceback = {"in " + place_of(current_) + "\n"};
      error.current_inputs = current_inputs();
      touch(current_).state = "error";
      send_progress_state();
    }
    report(error);
    result_.error = std::move(error);
  }

  Json current_inputs() {
    Json shown = Json::object();
    for (auto& [name, values] : gather_quietly(current_)) {
      Json list = Json::array();
      for (auto& value : values) {
        bool plain = value.is<Json>() && value.as<Json>().is_primitive();
        list.push_back(plain ? value.as<Json>() : Json(value.is<Json>() ? json_line(value.as<Json>()) : value.type()));
      }
      shown[name] = std::move(list);
    }
    return shown;
  }

  std::map<std::string, std::vector<Value>> gather_quietly(const std::string& id) {
    try {
      return gather(id, nodes_.at(id));
    } catch (const std::exception&) {
      return {};
    }
  }

  void interrupted() {
    result_.status = RunStatus::Interrupted;
    result_.exception = std::current_exception();
    clear_interrupt();
    std::string id = visible(current_);
    auto node = nodes_.find(id);
    report(ExecutionInterrupted{request_.prompt_id, id, node == nodes_.end() ? "" : node->second.type->name, result_.executed,
                                now_ms()});
  }

  Executor& executor_;
  const RunRequest& request_;
  EventSink& sink_;
  RunResult result_;

  std::unordered_map<std::string, RunNode> nodes_;
  std::deque<Json> made_;  // nodes made by expansion
  std::unordered_map<std::string, CacheKey> keys_;
  Schedule schedule_;
  std::map<std::string, std::shared_ptr<const NodeResult>> results_;
  std::unordered_map<std::string, std::set<std::string>> readers_;
  std::unordered_map<std::string, Collected> pending_;                   // expanded, waiting for results
  std::unordered_map<std::string, std::vector<std::string>> expanded_;  // made nodes that it waits for
  std::unordered_map<std::string, std::size_t> touched_;
  std::vector<NodeState> states_;
  std::string current_;
  Value preview_;
};

RunResult Executor::run(const RunRequest& request, EventSink& sink) { return Run(*this, request, sink).go(); }

void Executor::release() {
  cache_.clear();
  states_.clear();
}

Event finished(const std::string& prompt_id) { return Executing{prompt_id, std::nullopt, ""}; }

}  // namespace distorch::graph
