#include "tools/make_random_model/write_gguf.h"

#include <ATen/ATen.h>

#include <string_view>

#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "distorch/formats/gguf_writer.h"
#include "distorch/quant/gguf_encode.h"
#include "tools/make_random_model/gguf_spellings.h"

namespace distorch::random_model {
namespace {

struct Spelling {
  std::string_view kind;  // the beginning of Kind::name
  const char* architecture;
  Replacements names;  // ours, and what GGUF files have in their place
};

const Spelling& spelling_of(const Kind& kind) {
  const std::string_view name = kind.name;
  static const std::vector<Spelling> list = {
      {"t5xxl", "t5encoder", kT5},
      {"qwen2.5-vl", "qwen2vl", kQwen},
      {"qwen3", "qwen3", kQwen},
      {"llama3", "llama", kQwen},
      {"hunyuan-video", "hyvid", {}},
      {"skyreels", "hyvid", {}},
      {"ltxv-2b-transformer", "ltxv", {}},
      {"qwen-image", "qwen_image", {}},
      {"flux", "flux", {}},
      {"sd3", "sd3", {{"model.diffusion_model.", ""}}},
      {"z-image", "lumina2", {}},
      {"wan", "wan", {}},
      {"sdxl", "sdxl", {{"model.diffusion_model.", ""}}},
      {"sd15", "sd1", {{"model.diffusion_model.", ""}}},
  };
  for (const auto& one : list)
    if (name.starts_with(one.kind)) return one;
  throw Error(ErrorKind::Usage, kind.name, "is no kind of model that GGUF files hold");
}

const formats::BlockType& wanted_type(const WriteOptions& options) {
  const auto* type = formats::block_type_named(options.dtype.value_or("Q8_0"));
  if (!type || !quant::can_encode(static_cast<int>(type->id)))
    throw Error(ErrorKind::Usage, options.dtype.value_or(""),
                "is no type that .gguf files are written in: Q8_0, Q4_0, Q4_K");
  return *type;
}

const formats::BlockType& type_of(const Shape& shape, const formats::BlockType& wanted) {
  if (shape.dims.size() < 2) return *formats::block_type_named("F32");
  return formats::gguf_shape(shape.dims, wanted).empty() ? *formats::block_type_named("F16")
                                                         : wanted;
}

at::Tensor bytes_of(const at::Tensor& numbers, const formats::BlockType& type) {
  if (!type.plain) return quant::encode_blocks(numbers.flatten(), static_cast<int>(type.id));
  return numbers.to(*type.plain == formats::DType::F16 ? at::kHalf : at::kFloat).contiguous();
}

}  // namespace

void write_gguf_model(const std::filesystem::path& path, const Kind& kind,
                      const WriteOptions& options, const Values& values) {
  const auto& wanted = wanted_type(options);
  const auto& spelling = spelling_of(kind);
  std::vector<formats::GgufTensor> list;
  at::Tensor current;
  const bool prefixed = !spelling.names.empty() && spelling.names[0].second.empty();
  for (const auto& shape : kind.shapes(options.size)) {
    // Of whole checkpoints the diffusion model alone.
    if (prefixed && !shape.name.starts_with(spelling.names[0].first)) continue;
    const auto& type = type_of(shape, wanted);
    formats::GgufTensor tensor{.name = spelled(shape.name, spelling.names),
                               .type = &type,
                               .shape = shape.dims,
                               .hole = options.empty};
    if (!options.empty)
      tensor.make = [&current, &values, &type, shape] {
        throw_if_interrupted();
        current = bytes_of(values(shape), type);
        return std::span(static_cast<const std::byte*>(current.const_data_ptr()), current.nbytes());
      };
    list.push_back(std::move(tensor));
  }
  formats::GgufSettings settings = {{"general.architecture", std::string(spelling.architecture)},
                                    {"general.quantization_version", std::uint32_t{2}}};
  if (kind.byte_pairs) {
    settings.emplace_back("tokenizer.ggml.model", std::string("gpt2"));
    settings.emplace_back("tokenizer.ggml.tokens", kind.byte_pairs());
  }
  formats::write_gguf(path, list, settings);
}

}  // namespace distorch::random_model
