#include "distorch/graph/executor.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <new>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "distorch/base/run_token.h"
#include "distorch/graph/background.h"
#include "distorch/graph/exception_name.h"
#include "distorch/graph/json_text.h"
#include "distorch/graph/list_inputs.h"
#include "distorch/graph/run_graph.h"
#include "distorch/graph/schedule.h"
#include "distorch/graph/upcoming.h"

namespace distorch::graph {
namespace {

std::int64_t now_ms() {
  auto now = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::milliseconds>(now).count();
}

// One element of an output slot while calls are collected: a value, or a link into the node's
// expansion.
struct Element {
  Value value;
  std::optional<PromptLink> link;
};
struct Collected {
  std::vector<std::vector<Element>> slots;
  Json ui;
  std::size_t calls = 0;
};

enum class Step { Done, Waiting };

}  // namespace

class Run : public CallListener, public Upcoming {
 public:
  Run(Executor& executor, const RunRequest& request, EventSink& sink)
      : executor_(executor),
        request_(request),
        sink_(sink),
        graph_(executor.catalog_, request, executor.nonce_) {
    if (request.context) context_ = *request.context;
    context_.set(*current_run());
    context_.set<Upcoming>(*this);
  }

  RunResult go() {
    report(ExecutionStart{request_.prompt_id, now_ms()});
    try {
      prepare();
      while (!schedule_.empty()) {
        hear_background();
        auto next = schedule_.pick();
        if (!next && background_.running()) continue;
        if (!next) {
          current_ = schedule_.circle().at(0);
          throw Error(ErrorKind::Usage, graph_.place_of(current_),
                      "waits for its own result (dependency cycle)");
        }
        current_ = *next;
        if (execute(*next) == Step::Done) complete(*next);
      }
      executor_.cache_.end_prompt(expanding_owners_);
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

  void on_progress(double value, double max) override { progressed(current_, value, max); }
  void on_preview(const Value& image) override {
    flush_preview();
    preview_ = image;
  }
  std::vector<Node> after(const std::string& id) override {
    std::vector<Node> later;
    for (const auto& next : schedule_.after(id)) {
      const RunNode& node = graph_.at(next);
      Node& known = later.emplace_back(Node{node.type, {}});
      for (auto& [name, values] : gather_quietly(next))
        if (!values.empty()) known.values[name] = values.front();
    }
    return later;
  }

 private:
  // --- setting up
  void prepare() {
    std::vector<std::string> needed = graph_.closure(request_.outputs);
    std::vector<CacheKey> keys;
    std::vector<std::string> owners, hits;
    for (auto& id : needed)
      for (auto& [input, link] : graph_.at(id).links()) readers_[link.node].insert(id);
    // Also of nodes that these outputs do not need: their results are to stay.
    for (auto& [id, node] : graph_.all()) {
      keys.push_back(graph_.key_of(id));
      owners.push_back(graph_.owner_of(id));
    }
    executor_.cache_.begin_prompt(keys, owners);
    forget_states(owners);
    for (auto& [id, json] : request_.prompt.items())
      if (graph_.contains(id) && executor_.cache_.find(graph_.key_of(id))) hits.push_back(id);
    report(ExecutionCached{request_.prompt_id, hits, now_ms()});
    for (auto& id : request_.outputs) {
      if (!graph_.contains(id))
        throw Error(ErrorKind::Internal, "node " + id,
                    "is to be executed but is not in the prompt");
      // reported from the cache, needs nothing
      if (executor_.cache_.find(graph_.key_of(id)))
        schedule_.add(id, true);
      else
        need(id);
    }
  }

  void forget_states(const std::vector<std::string>& owners) {
    std::set<std::string> present(owners.begin(), owners.end());
    for (auto it = executor_.states_.begin(); it != executor_.states_.end();)
      it = present.count(it->first) ? std::next(it) : executor_.states_.erase(it);
  }

  // --- background nodes
  // Passes on what they report; waits a moment for it where nothing else can be done.
  void hear_background() {
    while (background_.running()) {
      bool wait = !schedule_.pick();
      if (wait) throw_if_interrupted();
      auto news = background_.next(wait);
      if (!news) return;
      if (news->progress)
        progressed(news->node, news->progress->first, news->progress->second);
      else
        schedule_.resume(news->node);
    }
  }

  // --- schedule
  // Makes sure that `start` has a result or will have one.
  void need(const std::string& start) {
    std::vector<std::string> stack{start};
    std::vector<std::pair<std::string, std::string>> blocks;
    while (!stack.empty()) {
      std::string id = stack.back();
      stack.pop_back();
      const RunNode* found = graph_.find(id);
      if (!found)
        throw Error(ErrorKind::Usage, graph_.place_of(current_),
                    fmt::format("needs node {}, which does not exist", id));
      if (schedule_.contains(id) || available(id)) continue;
      schedule_.add(id, found->type->output_node, found->type->background, pace_of(*found->type));
      for (auto& [input, link] : found->links()) {
        if (input->lazy() || input->raw_link()) continue;
        stack.push_back(link.node);
        readers_[link.node].insert(id);
        blocks.emplace_back(link.node, id);
      }
    }
    for (auto& [from, to] : blocks)
      if (!results_.count(from)) schedule_.block(from, to);
  }

  Pace pace_of(const NodeType& type) const {
    return context_.has<Paces>() ? context_.get<Paces>().of(type) : Pace::Usual;
  }

  // Has a result, or takes it from the cache.
  bool available(const std::string& id) {
    if (results_.count(id)) return true;
    auto cached = executor_.cache_.find(graph_.key_of(id));
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
    for (auto& [input, link] : graph_.at(id).links()) sources.push_back(link.node);
    auto made = expanded_.find(id);
    if (made != expanded_.end()) {
      sources.insert(sources.end(), made->second.begin(), made->second.end());
      expanded_.erase(made);  // it may have to run, and to expand, again
      ++rounds_[id];
    }
    for (auto& source : sources) {
      auto readers = readers_.find(source);
      if (readers == readers_.end()) continue;
      readers->second.erase(id);
      if (readers->second.empty()) results_.erase(source);
    }
  }

  // --- one node
  Step execute(const std::string& id) {
    if (background_.has(id)) {
      store(id, collect_all(id, graph_.at(id), background_.take(id)));
      return Step::Done;
    }
    if (auto cached = executor_.cache_.find(graph_.key_of(id))) {
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
    const RunNode& node = graph_.at(id);
    touch(id);
    send_progress_state();
    sink_.send(Executing{request_.prompt_id, id, graph_.display(id)});
    ListInputs inputs = gather(id, node);
    if (ask_lazy(id, node, inputs)) return Step::Waiting;
    auto calls = calls_of(id, node, inputs);
    if (node.type->background) {
      schedule_.suspend(id);
      background_.start(id, std::move(calls));
      return Step::Waiting;
    }
    Collected collected = collect_all(id, node, std::move(calls));
    if (await_expansion(id, collected)) {
      pending_[id] = std::move(collected);
      return Step::Waiting;
    }
    store(id, std::move(collected));
    return Step::Done;
  }

  void answer_from_cache(const std::string& id, const std::shared_ptr<const NodeResult>& cached) {
    results_[id] = cached;
    if (!cached->ui.is_null() || graph_.at(id).type->output_node)
      sink_.send(Executed{request_.prompt_id, id, graph_.display(id), cached->ui});
    note_ui(id, cached->ui);
    finish_state(id);
  }

  ListInputs gather(const std::string& id, const RunNode& node) {
    ListInputs values;
    const Json& inputs = node.inputs();
    for (auto& input : node.declared()) {
      auto found = inputs.find(input.name);
      if (found == inputs.end()) continue;
      auto link = as_link(*found);
      if (const Value* held = graph_.held_by(node, *found)) {
        values[input.name] = {*held};
        continue;
      }
      if (!link || input.raw_link()) {
        bool wrapped = found->is_object() && found->contains("__value__");
        values[input.name] = {Value::constant(wrapped ? (*found)["__value__"] : *found)};
        continue;
      }
      auto result = results_.find(link->node);
      if (result == results_.end()) continue;  // lazy and not known yet
      if (link->slot >= result->second->outputs.size())
        throw Error(ErrorKind::Usage, graph_.place_of(id),
                    fmt::format("input '{}' is linked to output {} of node {}, which has none such",
                                input.name, link->slot, link->node));
      values[input.name] = result->second->outputs[link->slot];
    }
    return values;
  }

  // Asks a node with lazy inputs what it still needs. True: it waits for more.
  bool ask_lazy(const std::string& id, const RunNode& node, const ListInputs& inputs) {
    if (!node.type->needed_lazy) return false;
    std::set<std::string> wanted;
    for (std::size_t i = 0, calls = call_count(*node.type, graph_.place_of(id), inputs); i < calls;
         ++i) {
      Call::Inputs given = surroundings(id);
      given.values = slice(*node.type, inputs, i);
      if (blocker_in(given.values)) continue;
      for (auto& name : node.type->needed_lazy(Call(*node.type, std::move(given))))
        wanted.insert(name);
    }
    bool waiting = false;
    for (auto& [input, link] : node.links()) {
      if (!wanted.count(input->name) || inputs.count(input->name)) continue;
      wait_for(link.node, id);
      // What is known now may be all that was asked for: then ask again at once by going round.
      waiting = true;
    }
    return waiting;
  }

  Call::Inputs surroundings(const std::string& id) {
    Call::Inputs given = graph_.surroundings(id);
    given.context = &context_;
    given.listener = this;
    given.state = &executor_.states_[graph_.owner_of(id)];
    return given;
  }

  // One call for each element; null where it is blocked.
  BackgroundCalls::Calls calls_of(const std::string& id, const RunNode& node,
                                  const ListInputs& inputs) {
    BackgroundCalls::Calls calls;
    for (std::size_t i = 0, count = call_count(*node.type, graph_.place_of(id), inputs); i < count;
         ++i) {
      Call::Inputs given = surroundings(id);
      if (node.type->background) given.listener = background_.listener(id);
      given.values = slice(*node.type, inputs, i);
      const Value* blocker = blocker_in(given.values);
      if (blocker) report_blocked(id, *blocker);
      calls.push_back(blocker ? nullptr : std::make_unique<Call>(*node.type, std::move(given)));
    }
    return calls;
  }

  // What the calls gave; those of nodes that are not background nodes are made one by one.
  Collected collect_all(const std::string& id, const RunNode& node, BackgroundCalls::Calls calls) {
    Collected collected;
    collected.slots.resize(node.type->outputs.size());
    for (std::size_t i = 0; i < calls.size(); ++i) {
      auto call = std::move(calls[i]);
      if (!call) {
        for (auto& slot : collected.slots) slot.push_back({Value::blocker(), {}});
        continue;
      }
      if (!node.type->background) {
        throw_if_interrupted();
        node.type->run(*call);
      }
      collect(id, node, *call, i, collected);
    }
    return collected;
  }

  void collect(const std::string& id, const RunNode& node, const Call& call, std::size_t index,
               Collected& collected) {
    std::string prefix = fmt::format("{}.{}.{}.", id, index, rounds_[id]);
    if (!call.expansion().is_null()) {
      expanding_owners_.insert(graph_.owner_of(graph_.visible(id)));
      for (auto& output : graph_.expand(id, prefix, call)) await(output, id);
    }
    for (std::size_t slot = 0; slot < collected.slots.size(); ++slot) {
      const Call::Output& output = call.outputs()[slot];
      for (auto& link : output.links)
        collected.slots[slot].push_back(
            {{}, PromptLink{prefix + link.node, static_cast<std::size_t>(std::max(link.slot, 0))}});
      for (auto& value : output.values) collected.slots[slot].push_back({value, {}});
      if (output.links.empty() && output.values.empty() && !node.type->outputs[slot].is_list)
        throw Error(ErrorKind::Internal, graph_.place_of(id),
                    fmt::format("gave nothing on output {}", slot));
    }
    if (call.ui_output().is_null()) return;
    if (collected.ui.is_null()) collected.ui = Json::object();
    for (auto& [key, values] : call.ui_output().items()) {
      Json& all = collected.ui[key];
      if (all.is_null()) all = Json::array();
      for (auto& value : values) all.push_back(value);
    }
  }

  // --- expansion
  void await(const std::string& made, const std::string& id) {
    wait_for(made, id);
    expanded_[id].push_back(made);
  }

  // Makes the node wait for the results that its outputs are links to. True when it waits for any
  // made node.
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
          throw Error(ErrorKind::Internal, graph_.place_of(id),
                      fmt::format("expands to output {} of node {}, which has none such",
                                  item.link->slot, item.link->node));
        auto& all = source[item.link->slot];
        values.insert(values.end(), all.begin(), all.end());
      }
    }
    result->ui = std::move(collected.ui);
    flush_preview();
    if (!result->ui.is_null())
      sink_.send(Executed{request_.prompt_id, id, graph_.display(id), result->ui});
    note_ui(id, result->ui);
    finish_state(id);
    bool made = !graph_.at(id).parent.empty();
    CacheKey key = graph_.key_of(id);
    if (!graph_.never_equal(id))
      executor_.cache_.store(key, made ? graph_.owner_of(graph_.visible(id)) : "", result);
    results_[id] = std::move(result);
    result_.executed.push_back(id);
  }

  // --- reports
  NodeState& touch(const std::string& id) {
    auto [found, fresh] = touched_.emplace(id, states_.size());
    if (fresh) {
      const RunNode& node = graph_.at(id);
      NodeState state{id, graph_.display(id), graph_.visible(id), {}};
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

  void progressed(const std::string& id, double value, double max) {
    NodeState& state = touch(id);
    state.value = value;
    state.max = max;
    send_progress_state();
    flush_preview();
    sink_.send(Progress{request_.prompt_id, id, value, max});
  }

  void flush_preview() {
    if (preview_.empty()) return;
    sink_.send(Preview{request_.prompt_id, touch(current_), std::exchange(preview_, {})});
  }

  void note_ui(const std::string& id, const Json& ui) {
    if (ui.is_null()) return;
    result_.outputs[id] = ui;
    const RunNode& node = graph_.at(id);
    result_.meta[id] = {{"node_id", id},
                        {"display_node", graph_.display(id)},
                        {"parent_node", node.parent.empty() ? Json() : Json(node.parent)},
                        {"real_node_id", graph_.visible(id)}};
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
    error.node_type = graph_.at(id).type->name;
    sink_.send(error);
  }

  ExecutionError describe_error(const std::string& type, const std::string& message) {
    ExecutionError error;
    error.prompt_id = request_.prompt_id;
    error.node_id = graph_.visible(current_);
    if (auto* node = graph_.find(error.node_id)) error.node_type = node->type->name;
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
    if (!current_.empty() && graph_.contains(current_)) {
      error.traceback = {"in " + graph_.place_of(current_) + "\n"};
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
        list.push_back(plain ? value.as<Json>()
                             : Json(value.is<Json>() ? json_line(value.as<Json>()) : value.type()));
      }
      shown[name] = std::move(list);
    }
    return shown;
  }

  ListInputs gather_quietly(const std::string& id) {
    try {
      return gather(id, graph_.at(id));
    } catch (const std::exception&) {
      return {};
    }
  }

  void interrupted() {
    result_.status = RunStatus::Interrupted;
    result_.exception = std::current_exception();
    std::string id = graph_.visible(current_);
    const RunNode* node = graph_.find(id);
    report(ExecutionInterrupted{request_.prompt_id, id, node ? node->type->name : "",
                                result_.executed, now_ms()});
  }

  Executor& executor_;
  const RunRequest& request_;
  EventSink& sink_;
  Context context_;  // the application's, and the run's token
  RunResult result_;

  RunGraph graph_;
  Schedule schedule_;
  std::map<std::string, std::shared_ptr<const NodeResult>> results_;
  std::unordered_map<std::string, std::set<std::string>> readers_;
  std::unordered_map<std::string, Collected> pending_;  // expanded, waiting for results
  // made nodes that it waits for
  std::unordered_map<std::string, std::vector<std::string>> expanded_;
  std::unordered_map<std::string, int> rounds_;  // how often a node has run before and expanded
  std::unordered_map<std::string, std::size_t> touched_;
  std::vector<NodeState> states_;
  std::string current_;
  Value preview_;
  std::set<std::string> expanding_owners_;
  // Last: its threads end before anything goes that they use.
  BackgroundCalls background_{&context_};
};

RunResult Executor::run(const RunRequest& request, EventSink& sink) {
  auto token = request.token ? request.token : std::make_shared<RunToken>(request.prompt_id);
  RunScope scope(token);
  RunResult result;
  auto work = [&] { result = Run(*this, request, sink).go(); };
  if (request.context)
    request.context->enter(work);
  else
    work();
  token->end();
  return result;
}

void Executor::release() {
  cache_.clear();
  states_.clear();
}

Event finished(const std::string& prompt_id) { return Executing{prompt_id, std::nullopt, ""}; }

}  // namespace distorch::graph
