#include "distorch/nodes/mixed_weights.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/base/run_token.h"
#include "distorch/formats/safetensors.h"

namespace distorch::nodes {

using at::Tensor;
using weights::Checkpoint;
using weights::Stored;

namespace {

Tensor mixed(const Stored& one, const Stored* other, const Mix& mix) {
  auto first = weights::mapped_tensor(one);
  if (!other || (mix.first == 1 && mix.second == 0)) return first;
  auto second = weights::mapped_tensor(*other).to(at::kFloat);
  auto sum = first.to(at::kFloat) * mix.first + second * mix.second;
  return sum.to(first.scalar_type()).contiguous();
}

}  // namespace

Mix Mix::of(const std::string& name) const {
  for (const auto& ending : kept)
    if (name.ends_with(ending)) return {};
  Mix found = {first, second};
  std::size_t longest = 0;
  for (const auto& part : parts)
    if (part.prefix.size() > longest && name.starts_with(part.prefix)) {
      longest = part.prefix.size();
      found = {part.first, part.second};
    }
  return found;
}

std::string Mix::key() const {
  auto text = fmt::format("{} {}", first, second);
  for (const auto& part : parts)
    text += fmt::format(" {}: {} {}", part.prefix, part.first, part.second);
  if (!kept.empty()) text += fmt::format(" without {}", fmt::join(kept, " "));
  return text;
}

std::shared_ptr<const void> write_mixed(const std::filesystem::path& file, const Checkpoint& one,
                                        const Checkpoint& other, const Mix& mix) {
  std::vector<formats::TensorToWrite> list;
  std::size_t alone = 0;
  Tensor current;
  for (const auto& [name, stored] : one.tensors()) {
    const auto* second = other.find(name);
    if (second && second->shape != stored.shape) second = nullptr;
    for (const auto* packed : {&stored, second})
      if (packed && packed->encoding)
        throw Error(ErrorKind::Usage, packed->file->mapping()->path().string(),
                    "holds packed weights, which cannot be mixed");
    alone += second == nullptr;
    list.push_back({.name = name,
                    .dtype = stored.dtype,
                    .shape = stored.shape,
                    .make = [&current, stored, second, mix = mix.of(name)] {
                      throw_if_interrupted();
                      current = mixed(stored, second, mix);
                      return std::span(static_cast<const std::byte*>(current.const_data_ptr()),
                                       current.nbytes());
                    }});
  }
  if (alone == list.size())
    throw Error(ErrorKind::Usage, other.path(),
                "has no weight in common with the model that it is to be mixed with");
  if (alone > 0)
    log::warn("{} of {} weights stay as they are: {} has them not, or in another shape", alone,
              list.size(), other.path());
  std::filesystem::create_directories(file.parent_path());
  formats::write_safetensors(file, std::move(list));
  one.tensors().begin()->second.file->mapping()->check();
  other.tensors().begin()->second.file->mapping()->check();
  return {nullptr, [file](const void*) {
            std::error_code ignored;
            std::filesystem::remove(file, ignored);
          }};
}

}  // namespace distorch::nodes
