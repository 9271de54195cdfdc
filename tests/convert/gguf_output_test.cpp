#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <doctest/doctest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <map>

#include "distorch/base/atomic_file.h"
#include "distorch/convert/blocks.h"
#include "distorch/convert/convert.h"
#include "distorch/formats/safetensors.h"

using namespace distorch;
using at::Tensor;

namespace {

struct Info {
  std::vector<std::uint64_t> sizes;  // innermost first
  std::uint32_t type = 0;
  std::uint64_t offset = 0;
};

/// As much of a reader as the test needs, from the format's description.
struct Reader {
  explicit Reader(std::string bytes) : text(std::move(bytes)) {
    REQUIRE(text.substr(0, 4) == "GGUF");
    at = 4;
    CHECK(number<std::uint32_t>() == 3);
    const auto tensors = number<std::uint64_t>(), values = number<std::uint64_t>();
    for (std::uint64_t i = 0; i < values; ++i) {
      auto key = string();
      const auto kind = number<std::uint32_t>();
      if (kind == 8) {
        strings[key] = string();
      } else if (kind == 4) {
        numbers[key] = {static_cast<std::int32_t>(number<std::uint32_t>())};
      } else {
        REQUIRE(kind == 9);
        REQUIRE(number<std::uint32_t>() == 5);
        for (auto n = number<std::uint64_t>(); n > 0; --n)
          numbers[key].push_back(number<std::int32_t>());
      }
    }
    for (std::uint64_t i = 0; i < tensors; ++i) {
      auto& info = infos[string()];
      for (auto n = number<std::uint32_t>(); n > 0; --n)
        info.sizes.push_back(number<std::uint64_t>());
      info.type = number<std::uint32_t>();
      info.offset = number<std::uint64_t>();
      CHECK(info.offset % 32 == 0);
    }
    start = (at + 31) / 32 * 32;
  }

  template <class T>
  T number() {
    T value{};
    REQUIRE(at + sizeof value <= text.size());
    std::memcpy(&value, text.data() + at, sizeof value);
    at += sizeof value;
    return value;
  }
  std::string string() {
    const auto length = number<std::uint64_t>();
    REQUIRE(length <= text.size() - at);
    at += length;
    return text.substr(at - length, length);
  }
  const char* data(const Info& info) const { return text.data() + start + info.offset; }

  std::string text;
  std::size_t at = 0, start = 0;
  std::map<std::string, std::string> strings;
  std::map<std::string, std::vector<std::int32_t>> numbers;
  std::map<std::string, Info> infos;
};

}  // namespace

TEST_CASE("convert: GGUF has the diffusion model's names, types, shapes and bytes") {
  const auto folder = std::filesystem::temp_directory_path() /
                      ("distorch_gguf_output_" + std::to_string(::getpid()));
  std::filesystem::create_directories(folder);
  auto normal = [](std::vector<std::int64_t> shape) {
    return (at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(2)) * 0.03).to(at::kBFloat16);
  };
  const std::map<std::string, Tensor> tensors = {
      {"model.diffusion_model.blocks.0.proj.weight", normal({40, 96})},
      {"model.diffusion_model.blocks.0.proj.bias", normal({40})},
      {"model.diffusion_model.blocks.0.odd.weight", normal({40, 50})},
      {"model.diffusion_model.patch.weight", normal({8, 4, 2, 6, 6})},
      {"first_stage_model.conv.weight", normal({64, 64})}};
  std::vector<formats::TensorToWrite> list;
  for (const auto& [name, tensor] : tensors)
    list.push_back(
        {.name = name,
         .dtype = formats::DType::BF16,
         .shape = tensor.sizes().vec(),
         .bytes = {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}});
  formats::write_safetensors(folder / "in.safetensors", list, {{"title", "tiny"}});
  convert::Request request{.from = folder / "in.safetensors", .to = folder / "out.gguf"};
  request.form = &convert::form_named("Q8_0");
  request.architecture = "flux";
  const auto report = convert::convert(request);
  CHECK(report.converted == 1);
  CHECK(report.bytes_after ==
        static_cast<std::int64_t>(std::filesystem::file_size(folder / "out.gguf")));

  const Reader file(read_file(folder / "out.gguf"));
  std::filesystem::remove_all(folder);
  CHECK(file.strings.at("general.architecture") == "flux");
  CHECK(file.strings.at("title") == "tiny");
  CHECK(file.numbers.at("general.quantization_version") == std::vector<std::int32_t>{2});
  CHECK(file.infos.size() == 4);
  const auto& proj = file.infos.at("blocks.0.proj.weight");
  CHECK(proj.type == 8);
  CHECK(proj.sizes == std::vector<std::uint64_t>{96, 40});
  const auto weight = tensors.at("model.diffusion_model.blocks.0.proj.weight").to(at::kFloat);
  std::string wanted(34, '\0');
  for (int block : {0, 7, 119}) {
    convert::pack_q8_0(weight.const_data_ptr<float>() + 32 * block,
                       reinterpret_cast<std::uint8_t*>(wanted.data()), 1);
    CHECK(std::string(file.data(proj) + 34 * block, 34) == wanted);
  }
  // Vectors are float32; rows that are no whole blocks keep 16 bits; more than four sizes are noted.
  const auto& bias = file.infos.at("blocks.0.proj.bias");
  CHECK(bias.type == 0);
  const auto numbers = tensors.at("model.diffusion_model.blocks.0.proj.bias").to(at::kFloat);
  CHECK(std::memcmp(file.data(bias), numbers.const_data_ptr(), numbers.nbytes()) == 0);
  CHECK(file.infos.at("blocks.0.odd.weight").type == 30);
  CHECK(file.infos.at("patch.weight").sizes == std::vector<std::uint64_t>{6, 6, 2, 32});
  CHECK(file.numbers.at("comfy.gguf.orig_shape.patch.weight") ==
        std::vector<std::int32_t>{8, 4, 2, 6, 6});
}
