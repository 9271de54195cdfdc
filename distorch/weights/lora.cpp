#include "distorch/weights/lora.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <set>
#include <tuple>

#include "distorch/base/error.h"

namespace distorch::weights {

namespace {

/// A tensor of an adapter by its ending.
struct Ending {
  Part part;
  const char* text;
  bool optional = false;
};

/// One way of writing one kind: its first ending says that it is there.
struct Spelling {
  AdapterKind kind;
  std::vector<Ending> endings;
};

/// In ComfyUI's order: of these only the first that is there counts.
const std::vector<Spelling>& low_rank_spellings() {
  using enum Part;
  constexpr auto kind = AdapterKind::LowRank;
  static const std::vector<Spelling> list{
      {kind,
       {{Up, ".lora_up.weight"}, {Down, ".lora_down.weight"}, {Mid, ".lora_mid.weight", true}}},
      {kind, {{Up, "_lora.up.weight"}, {Down, "_lora.down.weight"}}},
      {kind, {{Up, ".lora_B.weight"}, {Down, ".lora_A.weight"}}},
      {kind, {{Up, ".lora.up.weight"}, {Down, ".lora.down.weight"}}},
      {kind, {{Up, ".lora_B"}, {Down, ".lora_A"}}},
      {kind, {{Up, ".lora_linear_layer.up.weight"}, {Down, ".lora_linear_layer.down.weight"}}},
      {kind, {{Up, ".lora_B.default.weight"}, {Down, ".lora_A.default.weight"}}},
      {kind, {{Up, ".up.weight"}, {Down, ".down.weight"}}},
  };
  return list;
}

const Spelling& hadamard_spelling() {
  using enum Part;
  static const Spelling spelling{AdapterKind::Hadamard,
                                 {{W1a, ".hada_w1_a"},
                                  {W1b, ".hada_w1_b"},
                                  {W2a, ".hada_w2_a"},
                                  {W2b, ".hada_w2_b"},
                                  {T1, ".hada_t1", true},
                                  {T2, ".hada_t2", true}}};
  return spelling;
}

const Spelling& generalized_spelling() {
  using enum Part;
  static const Spelling spelling{
      AdapterKind::Generalized,
      {{A1, ".a1.weight"}, {A2, ".a2.weight"}, {B1, ".b1.weight"}, {B2, ".b2.weight"}}};
  return spelling;
}

const Spelling& rotation_spelling() {
  using enum Part;
  static const Spelling spelling{AdapterKind::Rotation,
                                 {{Blocks, ".oft_blocks"}, {Rescale, ".rescale", true}}};
  return spelling;
}

constexpr std::array<Ending, 7> kronecker_endings{{{Part::W1, ".lokr_w1"},
                                                   {Part::W1a, ".lokr_w1_a"},
                                                   {Part::W1b, ".lokr_w1_b"},
                                                   {Part::W2, ".lokr_w2"},
                                                   {Part::W2a, ".lokr_w2_a"},
                                                   {Part::W2b, ".lokr_w2_b"},
                                                   {Part::T2, ".lokr_t2"}}};

constexpr std::string_view weight_ending = ".weight";

/// Control LoRAs of FLUX.1 as its makers publish them widen the first layer without saying so. Source:
/// ComfyUI comfy/lora_convert.py, convert_lora_bfl_control.
constexpr const char* widened_layer = "img_in";
bool is_control_lora(const Checkpoint& file) {
  return file.has("img_in.lora_A.weight") && file.has("single_blocks.0.norm.key_norm.scale");
}

/// The dimension of a part along which the rows of the weight lie; nothing for the other parts.
std::optional<std::int64_t> row_dimension(const NamedAdapter& named, Part part) {
  using enum Part;
  auto has = [&](Part which) { return named.parts.count(which) != 0; };
  switch (named.kind) {
    case AdapterKind::LowRank: return part == Up ? std::optional<std::int64_t>(0) : std::nullopt;
    case AdapterKind::Difference:
      return part == Value ? std::optional<std::int64_t>(0) : std::nullopt;
    // With a core the factors lie the other way round.
    case AdapterKind::Hadamard:
      if (part == W1a) return has(T1) ? 1 : 0;
      if (part == W2a) return has(T2) ? 1 : 0;
      return std::nullopt;
    // Each row of the first matrix stands for as many of the weight as the second one has.
    case AdapterKind::Kronecker:
      return part == (has(W1) ? W1 : W1a) ? std::optional<std::int64_t>(0) : std::nullopt;
    default: return std::nullopt;
  }
}

/// Whether its rows can be told apart: `rows` is what the whole matrix has.
bool goes_by_rows(const NamedAdapter& named, std::int64_t rows) {
  if (!named.reshape.empty()) return false;
  bool any = false;
  for (const auto& [part, stored] : named.parts) {
    if (part == Part::Magnitude && named.piece.of > 0 &&
        (stored.shape.empty() || stored.shape[0] != rows))
      return false;
    auto dim = row_dimension(named, part);
    if (!dim || *dim >= static_cast<std::int64_t>(stored.shape.size())) continue;
    any = true;
    auto size = stored.shape[static_cast<std::size_t>(*dim)];
    auto each = size > 0 ? rows / size : 0;
    if (each == 0 || each * size != rows || (named.swapped && size % 2 != 0) ||
        named.piece.first % each != 0 || named.piece.count % each != 0)
      return false;
  }
  return any;
}

/// A part as the weight needs it: see make_adapter.
at::Tensor fitted(const NamedAdapter& named, Part part, const at::Tensor& tensor) {
  auto dim = row_dimension(named, part);
  if (part == Part::Magnitude && named.piece.of > 0)
    return tensor.narrow(0, named.piece.first, named.piece.count);
  if (!dim) return tensor;
  auto result = tensor;
  auto size = tensor.size(*dim);
  if (named.piece.of > 0)
    result = result.narrow(*dim, named.piece.first * size / named.piece.of,
                           named.piece.count * size / named.piece.of);
  return named.swapped ? result.roll(size / 2, *dim) : result;
}

class Matcher {
 public:
  Matcher(const Checkpoint& file, const Manifest& model)
      : file_(file), widens_(is_control_lora(file)) {
    for (const auto& weight : model.weights()) shapes_[weight.name] = &weight.shape;
  }

  void match(const std::string& base, const LoraTarget& target) {
    for (const auto& other : target.others) match(base, other);
    const auto& weight = target.weight;
    if (!shapes_.count(weight)) return;
    target_ = &target;
    low_rank(base, weight);
    spelled(hadamard_spelling(), base, weight);
    kronecker(base, weight);
    spelled(generalized_spelling(), base, weight);
    spelled(rotation_spelling(), base, weight);
    value(base, ".w_norm", weight, AdapterKind::Difference);
    value(base, ".diff", weight, AdapterKind::Difference);
    value(base, ".set_weight", weight, AdapterKind::Replacement);
    if (weight.ends_with(".scale")) value(base, "", weight, AdapterKind::Replacement);
    if (!weight.ends_with(weight_ending)) return;
    auto bias = weight.substr(0, weight.size() - weight_ending.size()) + ".bias";
    if (file_.has(base + ".w_norm")) value(base, ".b_norm", bias, AdapterKind::Difference);
    value(base, ".diff_b", bias, AdapterKind::Difference);
    value(base, ".lora_B.bias", bias, AdapterKind::Difference);
  }

  LoraFile finish(const LoraTargets& names) && {
    for (auto& [place, named] : found_) {
      auto fault = fault_of(named);
      if (fault.empty())
        result_.adapters.push_back(std::move(named));
      else
        result_.left_out.push_back(fmt::format("the adapter of '{}' {}", named.weight, fault));
    }
    for (const auto& [name, stored] : file_.tensors())
      if (!used_.count(name)) leave_out(name, names);
    return std::move(result_);
  }

 private:
  /// Why it cannot be applied, as the end of a sentence; empty where it can.
  std::string fault_of(const NamedAdapter& named) const {
    auto shape = *shapes_.at(named.weight);
    if (named.rows > 0) {
      if (named.first_row + named.rows > shape.at(0))
        return fmt::format("would change rows {} to {} of {}", named.first_row,
                           named.first_row + named.rows, shape[0]);
      shape[0] = named.rows;
      if (named.kind == AdapterKind::Replacement || !named.reshape.empty())
        return "changes some of its rows in a way that is known for whole weights only";
    }
    if (named.piece.of > 0) shape[0] = named.piece.of;
    if ((named.piece.of > 0 || named.swapped) && !goes_by_rows(named, shape[0]))
      return named.swapped ? "is for a weight whose halves stand the other way round, which this "
                             "kind of adapter cannot be turned for"
                           : "is for a matrix that the model's file keeps in pieces, and this kind "
                             "of adapter needs it whole";
    PartShapes shapes;
    for (const auto& [part, stored] : named.parts) shapes[part] = stored.shape;
    return misfit(named.kind, shapes, shape, named.reshape);
  }

  double one_number(const Stored& stored, const std::string& name) const {
    if (c10::multiply_integers(stored.shape) == 1)
      return read_tensor(stored).to(at::kDouble).item<double>();
    throw Error(ErrorKind::Format, file_.path(),
                fmt::format("'{}' has shape [{}], one number is needed", name,
                            fmt::join(stored.shape, ", ")));
  }

  const Stored* take(const std::string& name) {
    const auto* stored = file_.find(name);
    if (stored) used_.insert(name);
    return stored;
  }

  void add(NamedAdapter named, const std::string& base) {
    const auto *alpha = take(base + ".alpha"), *magnitude = take(base + ".dora_scale");
    if (named.kind != AdapterKind::Difference && named.kind != AdapterKind::Replacement) {
      if (alpha) named.alpha = one_number(*alpha, base + ".alpha");
      if (magnitude) named.parts[Part::Magnitude] = *magnitude;
    }
    const bool is_bias = named.weight != target_->weight;
    if (widens_ && !is_bias && base == widened_layer) widen(named);
    named.first_row = target_->first_row;
    named.rows = target_->rows;
    named.piece = target_->piece;
    named.swapped = target_->swapped;
    put(std::move(named));
  }

  void put(NamedAdapter named) {
    auto place = std::tuple(named.weight, named.first_row, named.rows);
    found_[place] = std::move(named);
  }

  /// Where a low-rank change has more columns than its weight.
  void widen(NamedAdapter& named) const {
    auto up = named.parts.find(Part::Up), down = named.parts.find(Part::Down);
    const auto& shape = *shapes_.at(named.weight);
    if (!named.reshape.empty() || up == named.parts.end() || down == named.parts.end() ||
        shape.size() != 2 || up->second.shape.size() != 2 || down->second.shape.size() != 2 ||
        up->second.shape[0] < shape[0] || down->second.shape[1] <= shape[1])
      return;
    named.reshape = {up->second.shape[0], down->second.shape[1]};
  }

  bool spelled(const Spelling& spelling, const std::string& base, const std::string& weight) {
    if (!file_.has(base + spelling.endings.front().text)) return false;
    NamedAdapter named{.weight = weight, .kind = spelling.kind};
    for (const auto& ending : spelling.endings) {
      if (const auto* stored = take(base + ending.text))
        named.parts[ending.part] = *stored;
      else if (!ending.optional)
        lacks(base + spelling.endings.front().text, base + ending.text);
    }
    if (named.parts.count(Part::T1) && !named.parts.count(Part::T2))
      lacks(base + ".hada_t1", base + ".hada_t2");
    if (spelling.kind == AdapterKind::Rotation && named.parts[Part::Blocks].shape.size() == 4)
      named.kind = AdapterKind::Butterfly;
    if (spelling.kind == AdapterKind::LowRank)
      if (const auto* shape = take(base + ".reshape_weight")) {
        auto numbers = read_tensor(*shape).to(at::kLong).flatten();
        for (std::int64_t i = 0; i < numbers.numel(); ++i)
          named.reshape.push_back(numbers[i].item<std::int64_t>());
      }
    add(std::move(named), base);
    return true;
  }

  void low_rank(const std::string& base, const std::string& weight) {
    for (const auto& spelling : low_rank_spellings())
      if (spelled(spelling, base, weight)) return;
  }

  void kronecker(const std::string& base, const std::string& weight) {
    NamedAdapter named{.weight = weight, .kind = AdapterKind::Kronecker};
    for (const auto& ending : kronecker_endings)
      if (const auto* stored = take(base + ending.text)) named.parts[ending.part] = *stored;
    if (named.parts.empty()) return;
    auto whole_or_product = [&](Part whole, Part first, Part second, const char* text) {
      const auto& parts = named.parts;
      if (!parts.count(whole) && !(parts.count(first) && parts.count(second)))
        lacks(base + ".lokr_*", base + text);
    };
    whole_or_product(Part::W1, Part::W1a, Part::W1b, ".lokr_w1");
    whole_or_product(Part::W2, Part::W2a, Part::W2b, ".lokr_w2");
    add(std::move(named), base);
  }

  void value(const std::string& base, const char* ending, const std::string& weight,
             AdapterKind kind) {
    if (!shapes_.count(weight)) return;
    if (const auto* stored = take(base + ending))
      add({.weight = weight, .kind = kind, .parts = {{Part::Value, *stored}}}, base);
  }

  [[noreturn]] void lacks(const std::string& there, const std::string& missing) const {
    throw Error(ErrorKind::Format, file_.path(),
                fmt::format("has '{}' but not '{}'", there, missing));
  }

  /// `name` was not used: because of its ending, or because nobody knows it.
  void leave_out(const std::string& name, const LoraTargets& names) {
    for (auto dot = name.rfind('.'); dot != std::string::npos && dot > 0;
         dot = name.rfind('.', dot - 1)) {
      auto base = names.find(name.substr(0, dot));
      if (base == names.end() || !shapes_.count(base->second.weight)) continue;
      result_.left_out.push_back(fmt::format(
          "'{}' belongs to '{}', but no kind of adapter that distorch knows has a tensor '{}'",
          name, base->second.weight, name.substr(dot)));
      return;
    }
    result_.unknown.push_back(name);
  }

  const Checkpoint& file_;
  bool widens_;
  std::map<std::string, const std::vector<std::int64_t>*> shapes_;
  const LoraTarget* target_ = nullptr;  // of the name that is being matched
  /// By weight, first row and number of rows.
  std::map<std::tuple<std::string, std::int64_t, std::int64_t>, NamedAdapter> found_;
  std::set<std::string> used_;
  LoraFile result_;
};

}  // namespace

std::int64_t NamedAdapter::size_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& [part, stored] : parts) bytes += stored.size_bytes;
  return bytes;
}

LoraFile match_lora(const Checkpoint& file, const LoraTargets& names, const Manifest& model) {
  Matcher matcher(file, model);
  for (const auto& [base, target] : names) matcher.match(base, target);
  return std::move(matcher).finish(names);
}

Adapter make_adapter(const NamedAdapter& named, const std::vector<at::Tensor>& parts,
                     double strength) {
  Adapter adapter{.kind = named.kind,
                  .parts = {},
                  .alpha = named.alpha,
                  .reshape = named.reshape,
                  .first_row = named.first_row,
                  .rows = named.rows,
                  .strength = strength};
  std::size_t index = 0;
  for (const auto& [part, stored] : named.parts)
    adapter.parts[part] = fitted(named, part, parts.at(index++));
  return adapter;
}

Adapter read_adapter(const NamedAdapter& named, at::Device device) {
  std::vector<at::Tensor> parts;
  for (const auto& [part, stored] : named.parts) parts.push_back(read_tensor(stored).to(device));
  return make_adapter(named, parts, 1.0);
}

}  // namespace distorch::weights
