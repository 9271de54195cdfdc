#pragma once
#include <any>
#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <typeindex>
#include <unordered_map>
#include <vector>

#include "distorch/graph/value.h"

namespace distorch::graph {

struct NodeType;

/// The key under which Call::hold() puts the place of a value among Call::held().
constexpr const char* kHeldInCall = "__held_in_call__";

/// Things of the application that nodes need (model folders, devices, settings), by their type.
/// graph does not know them. The objects must outlive the context.
class Context {
 public:
  template <class T>
  void set(T& object) {
    objects_[typeid(T)] = &object;
  }
  template <class T>
  T& get() const {
    auto found = objects_.find(typeid(T));
    if (found == objects_.end())
      throw Error(ErrorKind::Internal, readable_name(typeid(T)), "is not in the run's context");
    return *static_cast<T*>(found->second);
  }
  template <class T>
  bool has() const {
    return objects_.count(typeid(T)) != 0;
  }

  /// What has to hold on a thread while it runs nodes (a mode of a library, say) and graph does not
  /// know: `surround` is called with the work and calls it once.
  using Work = std::function<void()>;
  void set_surround(std::function<void(const Work&)> surround) { surround_ = std::move(surround); }
  /// Does `work` as whoever runs nodes has to.
  void enter(const Work& work) const { surround_ ? surround_(work) : work(); }

 private:
  std::function<void(const Work&)> surround_;
  std::unordered_map<std::type_index, void*> objects_;
};

/// What a running node reports; the executor passes it on to its EventSink.
class CallListener {
 public:
  virtual ~CallListener() = default;
  virtual void on_progress(double /*value*/, double /*max*/) {}
  /// `image` is whatever the front end can encode; graph does not look inside.
  virtual void on_preview(const Value& /*image*/) {}
};

/// A link into the graph that a node expands to: "output `slot` of the node with this local id".
struct LocalLink {
  std::string node;
  int slot = 0;
};

/// One call of a node: its inputs, its outputs and its line to the outside. Given to NodeType::run.
class Call {
 public:
  struct Inputs {
    // one element each, unless the type takes lists
    std::map<std::string, std::vector<Value>> values;
    std::string node_id;
    const Json* prompt = nullptr;         // the prompt as it is executed
    const Json* extra_pnginfo = nullptr;  // {"workflow": ...} or null
    const Context* context = nullptr;
    CallListener* listener = nullptr;
    std::any* state = nullptr;  // kept for the node between runs
    /// The nodes of the run; empty: those of the prompt.
    std::function<const Json*(const std::string& id)> find_node;
  };
  Call(const NodeType& type, Inputs inputs);

  // --- inputs
  /// True when the input was given: linked to a value or set by a widget, and not null.
  bool has(const std::string& name) const;
  /// The value given, else the declared default. Throws Error(Usage) naming node and input if there
  /// is none.
  const Value& in(const std::string& name) const;
  /// in(name).as<T>()
  template <class T>
  const T& get(const std::string& name) const {
    return in(name).as<T>();
  }
  /// A number of either kind as int64 (fractions are cut off). Throws Error(Usage) when it does not
  /// fit.
  std::int64_t integer(const std::string& name) const;
  /// The whole range 0 .. 2^64-1; negative numbers wrap as in two's complement.
  std::uint64_t seed(const std::string& name) const;
  double number(const std::string& name) const;
  std::string text(const std::string& name) const;
  bool boolean(const std::string& name) const;
  /// All elements of an input of a type with input_is_list (one element otherwise); empty when not
  /// given.
  const std::vector<Value>& list(const std::string& name) const;
  /// Names of everything given, declared or not.
  std::vector<std::string> given() const;

  // --- outputs
  void out(std::size_t slot, Value value);
  /// For a slot declared with is_list: any number of values, none too.
  void out_list(std::size_t slot, std::vector<Value> values);
  /// What a page shows for this node: {"images": [...]}, {"text": [...]}. Values are arrays;
  /// several calls add up.
  void ui(Json output);
  /// The node's work is done by a small graph: `nodes` is {local id: {"class_type", "inputs"}},
  /// links among them use local ids. Outputs given by out_link() are taken from it when it has run.
  void expand(Json nodes);
  void out_link(std::size_t slot, LocalLink link);
  /// What stands for `value` as an input of a node given to expand().
  Json hold(Value value);

  // --- progress
  /// Reports a step; throws Error(Interrupted) when the user asked to stop.
  void progress(double value, double max);
  void preview(const Value& image);

  // --- surroundings
  const NodeType& node_type() const { return *type_; }
  const std::string& node_id() const { return inputs_.node_id; }
  /// "node 5 (KSampler)", as messages name it.
  std::string place() const;
  const Json& prompt() const;         // null where there is none
  const Json& extra_pnginfo() const;  // null where there is none
  /// A node of the run, also one made by an expansion: {"class_type", "inputs"}; null where there is
  /// none. Not for background nodes.
  const Json* node_of_run(const std::string& id) const;
  template <class T>
  T& context() const {
    return find_context().get<T>();
  }
  template <class T>
  bool has_context() const {
    return inputs_.context && inputs_.context->has<T>();
  }

  /// What this node keeps from one run of its prompt to the next: made on the first use, dropped
  /// when a prompt comes without a node of this id and type. One T for a node type.
  template <class T>
  T& state() {
    std::any& kept = inputs_.state ? *inputs_.state : own_state_;
    if (!kept.has_value()) kept = T{};
    return std::any_cast<T&>(kept);
  }

  // --- results, read by the executor and by tests
  struct Output {
    std::vector<Value> values;     // one, unless out_list was used
    std::vector<LocalLink> links;  // in place of values after out_link
  };
  const std::vector<Output>& outputs() const { return outputs_; }
  const Json& ui_output() const { return ui_; }         // null when ui() was not called
  const Json& expansion() const { return expansion_; }  // null when expand() was not called
  const std::vector<Value>& held() const { return held_; }

 private:
  const Context& find_context() const;
  const Json& scalar(const std::string& name) const;
  [[noreturn]] void refuse(const std::string& name, const std::string& sentence) const;

  const NodeType* type_;
  Inputs inputs_;
  mutable std::map<std::string, Value> defaults_;
  std::vector<Output> outputs_;
  Json ui_, expansion_;
  std::vector<Value> held_;
  std::any own_state_;
};

}  // namespace distorch::graph
