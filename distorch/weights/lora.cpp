#include "distorch/weights/lora.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>
#include <set>

#include "distorch/base/error.h"

namespace distorch::weights {

namespace {

/// One way of writing the two factors of a base name.
struct Spelling {
  const char* up;
  const char* down;
  const char* mid;
};

constexpr std::array<Spelling, 7> spellings{{
    {".lora_up.weight", ".lora_down.weight", ".lora_mid.weight"},
    {"_lora.up.weight", "_lora.down.weight", nullptr},
    {".lora.up.weight", ".lora.down.weight", nullptr},
    {".lora_B.weight", ".lora_A.weight", nullptr},
    {".lora_B.default.weight", ".lora_A.default.weight", nullptr},
    {".lora_B", ".lora_A", nullptr},
    {".lora_linear_layer.up.weight", ".lora_linear_layer.down.weight", nullptr},
}};

/// Endings of adapters that are not low-rank sums; leaving them out silently would give another
/// picture.
constexpr std::array<const char*, 7> unsupported{".dora_scale",    ".hada_w1_a",  ".lokr_w1",
                                                 ".lokr_w1_a",     ".oft_blocks", ".set_weight",
                                                 ".reshape_weight"};

class Matcher {
 public:
  explicit Matcher(const Checkpoint& file) : file_(file) {}

  at::Tensor take(const std::string& name) {
    const auto* stored = file_.find(name);
    if (!stored) return {};
    used_.insert(name);
    return mapped_tensor(*stored);
  }

  void match(const std::string& base, const std::string& weight, std::vector<NamedPatch>& out) {
    for (const char* ending : unsupported)
      if (file_.has(base + ending))
        throw Error(
            ErrorKind::Format, file_.path(),
            fmt::format("holds '{}{}': this kind of adapter is not supported", base, ending));
    auto alpha = take(base + ".alpha");
    for (const auto& spelling : spellings) {
      auto up = take(base + spelling.up);
      if (!up.defined()) continue;
      auto down = take(base + spelling.down);
      if (!down.defined())
        throw Error(ErrorKind::Format, file_.path(),
                    fmt::format("'{}' lacks '{}'", base + spelling.up, base + spelling.down));
      auto mid = spelling.mid ? take(base + spelling.mid) : at::Tensor();
      double scale = alpha.defined()
                         ? alpha.to(at::kDouble).item<double>() / static_cast<double>(down.size(0))
                         : 1.0;
      out.push_back({weight, {down, up, mid, {}, scale}});
      break;
    }
    if (auto delta = take(base + ".diff"); delta.defined())
      out.push_back({weight, {{}, {}, {}, delta, 1.0}});
    if (auto delta = take(base + ".diff_b"); delta.defined() && weight.ends_with(".weight"))
      out.push_back({weight.substr(0, weight.size() - 6) + "bias", {{}, {}, {}, delta, 1.0}});
  }

  std::vector<std::string> unknown() const {
    std::vector<std::string> names;
    for (const auto& [name, stored] : file_.tensors())
      if (!used_.count(name)) names.push_back(name);
    return names;
  }

 private:
  const Checkpoint& file_;
  std::set<std::string> used_;
};

[[noreturn]] void misfit(const NamedPatch& named, const at::Tensor& factor,
                         const std::vector<std::int64_t>& shape) {
  throw Error(ErrorKind::Shape, named.weight,
              fmt::format("a LoRA factor of shape [{}] does not fit the weight of shape [{}]",
                          fmt::join(factor.sizes(), ", "), fmt::join(shape, ", ")));
}

/// Gives a factor the number of dimensions of its weight: [a, b] <-> [a, b, 1, 1].
at::Tensor with_dims(at::Tensor factor, std::int64_t dims) {
  while (factor.dim() < dims) factor = factor.unsqueeze(-1);
  while (factor.dim() > dims && factor.size(-1) == 1) factor = factor.squeeze(-1);
  return factor;
}

}  // namespace

LoraFile match_lora(const Checkpoint& file, const std::map<std::string, std::string>& names) {
  LoraFile result;
  Matcher matcher(file);
  for (const auto& [base, weight] : names) matcher.match(base, weight, result.patches);
  result.unknown = matcher.unknown();
  return result;
}

Patch fit_patch(const NamedPatch& named, const std::vector<std::int64_t>& shape, double strength,
                at::ScalarType dtype, at::Device device) {
  auto dims = static_cast<std::int64_t>(shape.size());
  auto place = [&](const at::Tensor& t) {
    return t.defined() ? t.to(device, dtype).contiguous() : t;
  };
  Patch patch;
  patch.scale = named.patch.scale * strength;
  if (named.patch.delta.defined()) {
    auto elements = c10::multiply_integers(shape);
    if (named.patch.delta.numel() != elements) misfit(named, named.patch.delta, shape);
    patch.delta = place(named.patch.delta.reshape(shape));
    return patch;
  }
  auto up = with_dims(named.patch.up, dims), down = with_dims(named.patch.down, dims);
  if (dims < 2 || up.dim() != dims || up.size(0) != shape[0]) misfit(named, named.patch.up, shape);
  if (down.dim() != dims || down.size(1) != shape[1]) misfit(named, named.patch.down, shape);
  if (!named.patch.mid.defined() && up.size(1) != down.size(0))
    misfit(named, named.patch.down, shape);
  patch.up = place(up);
  patch.down = place(down);
  patch.mid = place(named.patch.mid);
  return patch;
}

}  // namespace distorch::weights
