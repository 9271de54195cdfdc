#include "distorch/quant/four_bit.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>

#include "distorch/base/error.h"
#include "distorch/formats/safetensors.h"
#include "distorch/weights/checkpoint.h"

using namespace distorch;
using at::Tensor;
using formats::DType;

namespace {

formats::TensorToWrite to_write(const std::string& name, DType dtype, const Tensor& tensor) {
  return {.name = name,
          .dtype = dtype,
          .shape = tensor.sizes().vec(),
          .bytes = {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}};
}

Tensor text(const std::string& json) {
  auto bytes = at::empty({static_cast<std::int64_t>(json.size())}, at::kByte);
  std::copy(json.begin(), json.end(), bytes.mutable_data_ptr<std::uint8_t>());
  return bytes;
}

/// "layer.weight" of 16 rows (as many as the table has entries) of 128 numbers, as bitsandbytes
/// saves it.
struct File {
  explicit File(bool nested, const std::string& shape = "[16, 128]") {
    auto generator = at::make_generator<at::CPUGeneratorImpl>(3);
    codes = at::randint(0, 256, {1024, 1}, generator).to(at::kByte);
    absmax =
        nested ? at::randint(0, 256, {32}, generator).to(at::kByte) : at::rand({32}, generator);
    map = at::linspace(-1, 1, 16, at::kFloat);
    largest = at::rand({1}, generator);
    nested_map = at::linspace(0, 1, 256, at::kFloat);
    state = text(R"({"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": )" +
                 shape + (nested ? R"(, "nested_blocksize": 256, "nested_offset": 0.5})" : "}"));
    std::vector<formats::TensorToWrite> list = {
        to_write("layer.weight", DType::U8, codes),
        to_write("layer.weight.absmax", nested ? DType::U8 : DType::F32, absmax),
        to_write("layer.weight.quant_map", DType::F32, map),
        to_write("layer.weight.quant_state.bitsandbytes__nf4", DType::U8, state)};
    if (nested) {
      list.push_back(to_write("layer.weight.nested_absmax", DType::F32, largest));
      list.push_back(to_write("layer.weight.nested_quant_map", DType::F32, nested_map));
    }
    path = std::filesystem::temp_directory_path() /
           ("distorch_nf4_" + std::to_string(::getpid()) + ".safetensors");
    formats::write_safetensors(path, list);
  }
  ~File() { std::filesystem::remove(path); }

  weights::Checkpoint open() const {
    return weights::Checkpoint(
        std::make_shared<formats::TensorFile>(formats::open_tensor_file(path)));
  }
  Tensor wanted() const {
    auto code = at::stack({codes.bitwise_right_shift(4), codes.bitwise_and(15)}, -1).flatten();
    auto magnitude = absmax;
    if (absmax.scalar_type() == at::kByte)
      magnitude = nested_map.index_select(0, absmax.to(at::kInt)) * largest + 0.5;
    return (map.index_select(0, code.to(at::kInt)).view({-1, 64}) * magnitude.unsqueeze(1))
        .view({16, 128});
  }

  Tensor codes, absmax, map, largest, nested_map, state;
  std::filesystem::path path;
};

}  // namespace

TEST_CASE("checkpoint: 4-bit weights of bitsandbytes have the shape that their state says") {
  for (bool nested : {false, true}) {
    File file(nested);
    auto checkpoint = file.open();
    CHECK(checkpoint.tensors().size() == 1);
    CHECK(checkpoint.shape("layer.weight") == std::vector<std::int64_t>{16, 128});
    CHECK(checkpoint.main_dtype() == DType::BF16);
    auto wanted = file.wanted();
    CHECK(at::equal(read_dense(*checkpoint.find("layer.weight"), at::kFloat), wanted));
    // Rows of it, as fused projections are cut.
    checkpoint.add_rows("part", *checkpoint.find("layer.weight"), 5, 6);
    CHECK(at::equal(read_dense(*checkpoint.find("part"), at::kFloat), wanted.narrow(0, 5, 6)));
  }
}

TEST_CASE("checkpoint: 4-bit weights whose parts do not fit are refused by name") {
  File file(false, "[16, 130]");
  CHECK_THROWS_WITH_AS(file.open(),
                       doctest::Contains("'layer.weight': its codes has 1024 elements where 1040"),
                       Error);
}

TEST_CASE("checkpoint: packed bf16 whose parts do not fit is refused by name") {
  const auto path = std::filesystem::temp_directory_path() /
                    ("distorch_planes_" + std::to_string(::getpid()) + ".safetensors");
  auto bytes = [](std::vector<std::int64_t> shape) { return at::zeros(shape, at::kByte); };
  auto fault = [&](const Tensor& codes, DType type, const Tensor& exponents) {
    const auto planes = bytes({4, 64});
    formats::write_safetensors(path, {to_write("layer.weight", DType::U8, planes),
                                      to_write("layer.weight_codes", type, codes),
                                      to_write("layer.weight_exponents", DType::U8, exponents)});
    try {
      weights::Checkpoint(std::make_shared<formats::TensorFile>(formats::open_tensor_file(path)));
    } catch (const Error& error) {
      return error.sentence();
    }
    return std::string("accepted");
  };
  CHECK(fault(bytes({4, 32}), DType::U8, bytes({4, 16})) == "accepted");
  CHECK(fault(bytes({4, 31}), DType::U8, bytes({4, 16})).find("'layer.weight'") == 0);
  CHECK(fault(bytes({4, 31}), DType::U8, bytes({4, 16})).find("[4, 32] is needed") !=
        std::string::npos);
  CHECK(fault(bytes({4, 32}), DType::I8, bytes({4, 16})).find("of type I8 where U8 is needed") !=
        std::string::npos);
  CHECK(fault(bytes({4, 32}), DType::U8, bytes({4, 18})).find("a multiple of 4") !=
        std::string::npos);
  std::filesystem::remove(path);
}
