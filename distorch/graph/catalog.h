#pragma once
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "distorch/graph/call.h"
#include "distorch/graph/inputs.h"
#include "distorch/graph/value.h"

namespace distorch::graph {

struct Output {
  Output(const char* type_name) : type(type_name) {}
  Output(std::string type_name, std::string shown_name = {}, std::string tip = {},
         bool list = false)
      : type(std::move(type_name)),
        name(std::move(shown_name)),
        tooltip(std::move(tip)),
        is_list(list) {}
  std::string type;
  std::string name;      // the type when empty
  std::string tooltip;   // shown only if any output has one
  bool is_list = false;  // the node returns a list of values here (Call::out_list)
};

/// A check of a node's own, asked while a prompt is validated. The inputs named here are then not
/// tested against their bounds and choice lists. Only constants are in the call; linked inputs are
/// missing.
struct InputCheck {
  std::vector<std::string> inputs;
  /// Returns the reason why the values are wrong, or "" when they are fine.
  std::function<std::string(const Call&)> reason;
};

/// One node type: everything /object_info says about it, and what runs. Declared in one expression:
///
///   catalog.add({
///       .name = "EmptyLatentImage", .display_name = "Empty Latent Image", .category = "latent",
///       .inputs = {integer("width", {.def = 512, .min = 16, .max = 16384, .step = 8}), ...},
///       .outputs = {{"LATENT", "", "The empty latent image batch."}},
///       .run = run_empty_latent,  // void run_empty_latent(graph::Call& call)
///   });
struct NodeType {
  std::string name;
  std::string display_name;  // the name when empty (null in the newer schema)
  std::string category = "sd";
  std::string description;
  std::string python_module = "nodes";
  // in the order of the definition; required and optional ones may be mixed
  std::vector<Input> inputs;
  std::vector<Hidden> hidden;
  std::vector<Output> outputs;
  bool output_node = false;
  bool deprecated = false;
  bool experimental = false;
  /// Newer node classes: COMBO lists, options always there, tooltips and flags always listed.
  bool newer_schema = false;
  bool input_is_list = false;   // called once with whole lists
  bool not_idempotent = false;  // results are never shared between nodes with equal inputs
  /// Links beyond the declared inputs are inputs as well, of any type.
  bool takes_more_links = false;
  /// Its run() mostly waits for something outside (a network, a clock): it is called on a thread of
  /// its own while other nodes run, and for all elements of a list at once. It must not expand.
  bool background = false;

  std::function<void(Call&)> run;
  /// Extra part of the cache key, computed from constants only (a file's hash, say). nullopt: never
  /// equal, the node always runs.
  std::function<std::optional<std::string>(const Call&)> change_key;
  /// For inputs with .lazy: which of them are still needed, given what is known (the others are
  /// missing).
  std::function<std::vector<std::string>(const Call&)> needed_lazy;
  std::vector<InputCheck> checks;
  /// The node accepts any link type on its inputs and looks itself.
  bool any_link_types = false;

  const Input* find_input(const std::string& input_name) const;
};

/// All node types that exist. Filled once at start-up by plain functions (nodes/catalog.cpp), then
/// read only.
class Catalog {
 public:
  /// Throws Error(Internal) for a name that is there already or a type without `run`.
  void add(NodeType type);
  /// Another spelling under which find() finds `name`; not listed in object_info.
  void add_alias(std::string alias, std::string name);
  /// nullptr when there is none.
  const NodeType* find(const std::string& name) const;
  /// Throws Error(Usage) with near names.
  const NodeType& get(const std::string& name) const;
  const std::vector<std::unique_ptr<NodeType>>& all() const { return types_; }
  std::vector<std::string> names() const;

  /// GET /object_info: {name: definition}. A definition whose choices cannot be read is left out.
  Json object_info() const;
  /// GET /object_info/{class}: {name: definition}, or {} for an unknown class.
  Json object_info(const std::string& name) const;

 private:
  std::vector<std::unique_ptr<NodeType>> types_;
  std::map<std::string, const NodeType*> by_name_;
};

/// The definition of one type as /object_info shows it.
Json definition_of(const NodeType& type);

/// Compares one definition with a reference's: every key, value and the order of inputs, but not the
/// prose (descriptions and tooltips are our own); integers and fractions differ (1 and 1.0). Choice lists that depend on the machine are compared by kind
/// only: those of dynamic inputs, and lists that the reference has empty or as ["cpu"]. Returns one
/// readable line per difference.
std::vector<std::string> differences(const Json& ours, const Json& reference);
std::vector<std::string> differences(const NodeType& type, const Json& reference);

/// Which device-placement variants a loader gets (see multigpu.cpp for names, inputs and defaults).
struct VariantOptions {
  Choices devices;            // "cpu", "cuda:0", ...; the default is the first that is not "cpu"
  bool text_encoder = false;  // `device` in place of `compute_device`, eject_models false
  bool legacy_v1 = false;     // also XDisTorchMultiGPU (GGUF loaders)
  /// Says why a device name cannot be used, "" when it can. By default any well-formed name is
  /// taken, also one of a device that this machine lacks: the loader then decides what replaces it.
  std::function<std::string(const std::string& device)> refuse_device;
};
/// XMultiGPU, XDisTorch2MultiGPU and, on request, XDisTorchMultiGPU of loader X. They run X's own
/// `run`, which reads the added inputs through the call: call.has("virtual_vram_gb"),
/// call.has("device"), ...
std::vector<NodeType> multigpu_variants(const NodeType& loader, const VariantOptions& options);
/// Adds the loader, its variants and the spelling XDistorch2MultiGPU.
void add_loader(Catalog& catalog, NodeType loader, const VariantOptions& options);

/// Calls a node once outside of any workflow and returns its outputs (lists flattened to their
/// elements). Constants: {{"width", 64}}; for tests and tools.
std::vector<Value> run_node(const NodeType& type, const std::map<std::string, Value>& inputs,
                            const Context& context = {});

}  // namespace distorch::graph
