#include "distorch/weights/packed_layers.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <functional>

#include "distorch/base/error.h"
#include "distorch/formats/safetensors.h"
#include "distorch/quant/fp8.h"
#include "distorch/quant/int8.h"
#include "distorch/quant/quantize.h"

using namespace distorch;
using formats::DType;
using quant::Packed;
using Named = std::map<std::string, at::Tensor>;

namespace {

at::Tensor text_tensor(const std::string& text) {
  return at::tensor(std::vector<std::uint8_t>(text.begin(), text.end()));
}

/// The tensors of a packed layer "a" as files have them.
Named layer(const Packed& packed, bool marked = true) {
  Named tensors{{"a.weight", packed.values.clone()}};
  for (std::size_t i = 0; i < packed.parts.size(); ++i)
    if (packed.parts[i].defined())
      tensors["a." + packed.encoding->companions()[i].names.back()] = packed.parts[i].clone();
  if (marked) tensors["a.comfy_quant"] = text_tensor(packed.encoding->marker());
  return tensors;
}

struct Folder {
  std::filesystem::path path = std::filesystem::temp_directory_path() /
                               ("distorch_packed_layers_" + std::to_string(::getpid()));
  Folder() { std::filesystem::create_directories(path); }
  ~Folder() { std::filesystem::remove_all(path); }

  weights::Checkpoint write(const Named& tensors,
                            const formats::TensorFile::Metadata& metadata = {}) const {
    const std::map<at::ScalarType, DType> types = {{at::kFloat, DType::F32},
                                                   {at::kByte, DType::U8},
                                                   {at::kChar, DType::I8},
                                                   {at::kInt, DType::I32},
                                                   {at::kFloat8_e4m3fn, DType::F8_E4M3},
                                                   {at::kFloat8_e8m0fnu, DType::F8_E8M0}};
    std::vector<at::Tensor> kept;
    std::vector<formats::TensorToWrite> list;
    for (const auto& [name, tensor] : tensors) {
      kept.push_back(tensor.contiguous());
      const auto* data = static_cast<const std::byte*>(kept.back().const_data_ptr());
      list.push_back({name,
                      types.at(tensor.scalar_type()),
                      tensor.sizes().vec(),
                      {data, kept.back().nbytes()}});
    }
    formats::write_safetensors(path / "x.safetensors", list, metadata);
    return weights::Checkpoint(
        std::make_shared<formats::TensorFile>(formats::open_tensor_file(path / "x.safetensors")));
  }
};

at::Tensor matrix(std::int64_t rows = 136, std::int64_t width = 256) {
  return at::randn({rows, width}, at::make_generator<at::CPUGeneratorImpl>(3));
}

std::vector<Packed> all_kinds() {
  auto w = matrix();
  return {quant::to_int8(w, false, 0),
          quant::to_int8(w, true, 0),
          quant::to_int8(w, true, 64),
          quant::to_nvfp4(w),
          quant::to_mxfp8(w),
          quant::to_convrot_w4a4(w, 256),
          quant::to_float8(w, at::kFloat8_e4m3fn)};
}

}  // namespace

TEST_CASE("packed layers: found by their markers, in a tensor or in the file's header") {
  Folder folder;
  for (const auto& packed : all_kinds()) {
    CAPTURE(packed.encoding->marker());
    auto wanted = quant::decode(packed, at::kFloat);
    auto file = folder.write(layer(packed));
    CHECK(file.tensors().size() == 1);
    CHECK(file.shape("a.weight") == std::vector<std::int64_t>{136, 256});
    const bool same = file.find("a.weight")->encoding == packed.encoding;
    CHECK(same);
    CHECK(at::equal(weights::read_dense(*file.find("a.weight"), at::kFloat), wanted));
    auto header =
        folder.write(layer(packed, false),
                     {{"_quantization_metadata", R"({"format_version": "1.0", "layers": {"a": )" +
                                                     packed.encoding->marker() + "}}"}});
    CHECK(at::equal(weights::read_dense(*header.find("a.weight"), at::kFloat), wanted));
  }
}

TEST_CASE("packed layers: rows of them, wherever they begin, and rows of those") {
  Folder folder;
  for (const auto& packed : all_kinds()) {
    CAPTURE(packed.encoding->marker());
    auto wanted = quant::decode(packed, at::kFloat);
    auto file = folder.write(layer(packed));
    for (auto [first, count] : {std::pair(0, 40), std::pair(40, 96), std::pair(129, 5)}) {
      file.add_rows("some", *file.find("a.weight"), first, count);
      CHECK(at::equal(weights::read_dense(*file.find("some"), at::kFloat),
                      wanted.narrow(0, first, count)));
      file.add_rows("less", *file.find("some"), 2, 3);
      CHECK(at::equal(weights::read_dense(*file.find("less"), at::kFloat),
                      wanted.narrow(0, first + 2, 3)));
    }
  }
}

TEST_CASE("packed layers: settings of markers") {
  Folder folder;
  auto packed = quant::to_int8(matrix(), true, 64);
  auto tensors = layer(packed);
  tensors["a.comfy_quant"] = text_tensor(
      R"({"format": "int8_tensorwise", "params": {"convrot": true, "convrot_groupsize": 64}})");
  const bool rotated = folder.write(tensors).find("a.weight")->encoding == packed.encoding;
  CHECK(rotated);
  auto eight = layer(quant::to_float8(matrix(), at::kFloat8_e4m3fn));
  eight["a.comfy_quant"] =
      text_tensor(R"({"format": "float8_e4m3fn", "full_precision_matrix_mult": true})");
  const bool decoded =
      folder.write(eight).find("a.weight")->encoding == &quant::float8_e4m3fn_decoded();
  CHECK(decoded);
}

TEST_CASE("packed layers: the mark of older files with two elements asks for full precision") {
  Folder folder;
  for (int elements : {0, 2})
    for (std::string prefix : {"", "model.diffusion_model."}) {
      auto packed = quant::to_float8(matrix(), at::kFloat8_e4m3fn);
      Named tensors{{prefix + "b.weight", packed.values},
                    {prefix + "b.scale_weight", packed.parts[0]}};
      tensors[prefix + "scaled_fp8"] = at::zeros({elements}).to(at::kFloat8_e4m3fn);
      auto file = folder.write(tensors);
      CHECK(file.tensors().size() == 1);
      const auto& wanted = elements == 2 ? quant::float8_e4m3fn_decoded() : quant::float8_e4m3fn();
      const bool same = file.find(prefix + "b.weight")->encoding == &wanted;
      CHECK(same);
    }
}

TEST_CASE("packed layers: what does not fit is refused with the file, the weight and the reason") {
  Folder folder;
  auto refused = [&](const Packed& packed, const std::function<void(Named&)>& spoil,
                     const std::string& words) {
    auto tensors = layer(packed);
    spoil(tensors);
    CAPTURE(words);
    CHECK_THROWS_WITH_AS(folder.write(tensors), doctest::Contains(words.c_str()), Error);
    CHECK_THROWS_WITH_AS(folder.write(tensors), doctest::Contains("x.safetensors: 'a.weight'"),
                         Error);
  };
  auto int8 = quant::to_int8(matrix(), true, 256), four = quant::to_nvfp4(matrix());
  auto eight = quant::to_mxfp8(matrix()), nibbles = quant::to_convrot_w4a4(matrix(), 256);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const auto& packed : {int8, four, eight, nibbles})
    refused(packed, [](Named& t) { t.erase("a.weight_scale"); }, "has no 'weight_scale'");
  refused(
      int8, [](Named& t) { t["a.weight_scale"] = at::ones({7, 1}); },
      "has 'weight_scale' of shape [7, 1], where one number or [136, 1] is needed");
  refused(
      int8, [](Named& t) { t["a.weight_scale"][5] = 0; },
      "has 'weight_scale' with the value 0 at 5");
  refused(int8, [&](Named& t) { t["a.weight_scale"][0] = nan; }, "with the value nan at 0");
  refused(
      int8, [](Named& t) { t["a.weight_scale"] = at::ones({136, 1}, at::kInt); },
      "has 'weight_scale' of type I32, where F32 or F16 or BF16 is needed");
  refused(
      int8, [](Named& t) { t["a.weight"] = at::ones({136, 256}); },
      "has 'weight' of type F32, where I8 is needed");
  refused(
      int8, [](Named& t) { t["a.weight"] = at::ones({136, 250}, at::kChar); },
      "which groups of 256 do not divide");
  refused(
      four, [](Named& t) { t["a.weight_scale"] = t["a.weight_scale"].slice(0, 0, 128); },
      "where [256, 16] is needed");
  refused(four, [](Named& t) { t.erase("a.weight_scale_2"); }, "has no 'weight_scale_2'");
  refused(four, [&](Named& t) { t["a.weight_scale_2"] = at::tensor(nan); }, "the value nan at 0");
  refused(eight, [](Named& t) { t["a.weight_scale"] = at::ones({136, 8}); }, "of type F32");
  auto marked = [](const std::string& text) {
    return [text](Named& t) { t["a.comfy_quant"] = text_tensor(text); };
  };
  refused(int8, marked("{"), "has a marker that names no format");
  refused(int8, marked(R"({"format": 3})"), "has a marker that names no format");
  refused(int8, marked(R"({"format": "svdquant_w4a4"})"),
          "is packed as 'svdquant_w4a4', which is not supported");
  refused(int8,
          marked(R"({"format": "int8_tensorwise", "convrot": true, "convrot_groupsize": 48})"),
          "convrot_groupsize = 48, which is no power of 4");
  refused(int8, marked(R"({"format": "int8_tensorwise", "convrot": "yes"})"), "convrot = \"yes\"");
  refused(nibbles, marked(R"({"format": "asym_w4a8_int8", "group_size": 3})"), "group_size = 3");
  refused(nibbles, marked(R"({"format": "asym_w4a8_int8"})"), "has no 'weight_s_rel'");
  refused(nibbles, marked(R"({"format": "convrot_w4a4", "linear_dtype": "int2"})"), "int2");
}

TEST_CASE("packed layers: a header that lies and files for Nunchaku are refused") {
  Folder folder;
  for (const char* text : {"[", "{}", R"({"layers": 3})"})
    CHECK_THROWS_WITH_AS(
        folder.write({{"a.weight", at::ones({2, 2})}}, {{"_quantization_metadata", text}}),
        doctest::Contains("'_quantization_metadata' that is no list of layers"), Error);
  CHECK_THROWS_WITH_AS(
      folder.write({{"a.qweight", at::ones({2, 2}, at::kChar)}, {"a.wscales", at::ones({2})}}),
      doctest::Contains("'a.qweight' is packed as 'svdquant'"), Error);
}
