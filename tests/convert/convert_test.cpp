#include "distorch/convert/convert.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <doctest/doctest.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <map>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/base/run_token.h"
#include "distorch/formats/safetensors.h"

using namespace distorch;
using at::Tensor;
using formats::DType;
namespace fs = std::filesystem;

namespace {

class Folder {
 public:
  Folder() : path_(fs::temp_directory_path() / ("distorch_convert_" + std::to_string(::getpid()))) {
    fs::remove_all(path_);
    fs::create_directories(path_);
  }
  ~Folder() { fs::remove_all(path_); }
  Folder(const Folder&) = delete;
  fs::path operator/(const std::string& name) const { return path_ / name; }
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(path_))
      names.push_back(entry.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }

 private:
  fs::path path_;
};

using Tensors = std::map<std::string, Tensor>;

void write(const fs::path& path, const Tensors& tensors) {
  const std::map<at::ScalarType, DType> types = {{at::kFloat, DType::F32},
                                                 {at::kHalf, DType::F16},
                                                 {at::kBFloat16, DType::BF16},
                                                 {at::kLong, DType::I64}};
  std::vector<formats::TensorToWrite> list;
  for (const auto& [name, tensor] : tensors)
    list.push_back(
        {.name = name,
         .dtype = types.at(tensor.scalar_type()),
         .shape = tensor.sizes().vec(),
         .bytes = {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}});
  formats::write_safetensors(path, list, {{"modelspec.title", "a \"model\""}});
}

Tensor normal(std::vector<std::int64_t> shape, at::ScalarType dtype, int seed = 5) {
  return (at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed)) * 0.03).to(dtype);
}

/// What a small model has: matrices, kernels, vectors, numbers that are no weights.
Tensors model() {
  return {{"blocks.0.attn.weight", normal({130, 512}, at::kBFloat16, 1)},
          {"blocks.0.attn.bias", normal({130}, at::kBFloat16, 2)},
          {"blocks.0.conv.weight", normal({32, 16, 3, 3}, at::kBFloat16, 3)},
          {"blocks.0.norm.weight", normal({512}, at::kFloat, 4)},
          {"blocks.1.attn.weight", normal({16, 512}, at::kFloat, 6)},
          {"blocks.1.half.weight", normal({16, 256}, at::kHalf, 7)},
          {"img_in.weight", normal({64, 256}, at::kBFloat16, 8)},
          {"ids", at::arange(7)}};
}

weights::Checkpoint open(const fs::path& path) {
  return weights::Checkpoint(
      std::make_shared<formats::TensorFile>(formats::open_tensor_file(path)));
}

Tensor dense(const weights::Checkpoint& file, const std::string& name, at::ScalarType dtype) {
  REQUIRE(file.find(name));
  return weights::read_dense(*file.find(name), dtype);
}

convert::Report converted(const fs::path& from, const fs::path& to, const std::string& type,
                          const std::vector<std::string>& rules = {}) {
  convert::Request request{.from = from, .to = to};
  request.form = &convert::form_named(type);
  for (const auto& rule : rules) request.rules.push_back(convert::parse_rule(rule));
  return convert::convert(request);
}

std::string name_of(const weights::Stored& stored) {
  return std::string(stored.encoding ? stored.encoding->name() : formats::name_of(stored.dtype));
}

}  // namespace

TEST_CASE("convert: packed files are the plain ones, bit for bit, and smaller") {
  Folder folder;
  const auto tensors = model();
  write(folder / "in.safetensors", tensors);
  const auto report = converted(folder / "in.safetensors", folder / "out.safetensors", "packed");
  CHECK(report.converted == 3);
  CHECK(report.kept == 5);
  CHECK(8.0 * static_cast<double>(report.converted_bytes) / static_cast<double>(report.numbers) <
        13.5);
  CHECK(report.bytes_after == static_cast<std::int64_t>(fs::file_size(folder / "out.safetensors")));
  CHECK(folder.names() == std::vector<std::string>{"in.safetensors", "out.safetensors"});
  const auto out = open(folder / "out.safetensors");
  CHECK(out.tensors().size() == tensors.size());
  for (const auto& [name, tensor] : tensors) {
    CAPTURE(name);
    CHECK(at::equal(dense(out, name, tensor.scalar_type()), tensor));
  }
  CHECK(name_of(*out.find("blocks.0.attn.weight")) == "bf16_planes");
  CHECK(name_of(*out.find("blocks.0.conv.weight")) == "bf16_planes");
  CHECK(name_of(*out.find("blocks.1.attn.weight")) == "F32");
  CHECK(out.find("blocks.0.attn.weight")->file->metadata().at("modelspec.title") == "a \"model\"");
  CHECK(out.main_dtype() == DType::BF16);
  // And back.
  converted(folder / "out.safetensors", folder / "back.safetensors", "bf16",
            {"norm|blocks.1=keep"});
  const auto back = open(folder / "back.safetensors");
  for (const auto& [name, tensor] : tensors) {
    CAPTURE(name);
    CHECK(name_of(*back.find(name)) == name_of(*open(folder / "in.safetensors").find(name)));
    CHECK(at::equal(dense(back, name, tensor.scalar_type()), tensor));
  }
}

TEST_CASE("convert: plain types, and 8 bits with a scale of the whole matrix") {
  Folder folder;
  const auto tensors = model();
  write(folder / "in.safetensors", tensors);
  for (auto [type, dtype] : {std::pair("f16", at::kHalf), std::pair("bf16", at::kBFloat16),
                             std::pair("f32", at::kFloat)}) {
    converted(folder / "in.safetensors", folder / "out.safetensors", type);
    const auto out = open(folder / "out.safetensors");
    for (const auto& [name, tensor] : tensors) {
      if (tensor.scalar_type() == at::kLong) continue;
      CHECK((weights::to_torch(*out.find(name)) == dtype));
      CHECK(at::equal(dense(out, name, dtype), tensor.to(dtype)));
    }
  }
  converted(folder / "in.safetensors", folder / "out.safetensors", "fp8_scaled",
            {"attn.weight$=fp8_scaled", "half=f32"});
  const auto out = open(folder / "out.safetensors");
  CHECK(name_of(*out.find("blocks.0.attn.weight")) == "float8_e4m3fn");
  CHECK(name_of(*out.find("blocks.1.half.weight")) == "F32");
  CHECK(name_of(*out.find("img_in.weight")) == "BF16");
  CHECK(name_of(*out.find("blocks.0.norm.weight")) == "F32");
  const auto weight = tensors.at("blocks.0.attn.weight").to(at::kFloat);
  const auto scale = (weight.abs().max() / 448).item<float>();
  CHECK(at::equal(dense(out, "blocks.0.attn.weight", at::kFloat),
                  (weight / scale).to(at::kFloat8_e4m3fn).to(at::kFloat) * scale));
}

TEST_CASE("convert: int8 turns back by the rotation, nvfp4 by its two scales") {
  Folder folder;
  const Tensors tensors = {{"a.weight", normal({40, 512}, at::kBFloat16, 1)},
                           {"b.weight", normal({40, 48}, at::kBFloat16, 2)},
                           {"c.weight", normal({144, 96}, at::kBFloat16, 3)}};
  write(folder / "in.safetensors", tensors);
  auto part = [&](const formats::TensorFile& file, const std::string& name) {
    const auto* info = file.find(name);
    REQUIRE(info);
    weights::Stored stored;
    stored.file = std::shared_ptr<const formats::TensorFile>(&file, [](const auto*) {});
    stored.dtype = info->dtype;
    stored.shape = info->shape;
    stored.offset_bytes = static_cast<std::int64_t>(info->offset_bytes);
    stored.size_bytes = static_cast<std::int64_t>(info->size_bytes);
    return weights::mapped_tensor(stored);
  };
  auto loss = [&](const Tensor& got, const std::string& name) {
    const auto wanted = tensors.at(name).to(at::kFloat);
    return ((got - wanted).norm() / wanted.norm()).item<double>();
  };
  converted(folder / "in.safetensors", folder / "int8.safetensors", "int8");
  const auto eight = formats::open_tensor_file(folder / "int8.safetensors");
  auto numbers = [&](const std::string& layer) {
    return part(eight, layer + ".weight").to(at::kFloat) * part(eight, layer + ".weight_scale");
  };
  CHECK(loss(numbers("b"), "b.weight") < 0.01);
  const auto four =
      at::tensor({1, 1, 1, -1, 1, 1, -1, 1, 1, -1, 1, 1, -1, 1, 1, 1}, at::kFloat).view({4, 4});
  const auto matrix = at::kron(at::kron(four, four), at::kron(four, four)) / 16;
  const auto turned = numbers("a").view({40, 2, 256}).matmul(matrix).reshape({40, 512});
  CHECK(loss(numbers("a"), "a.weight") > 0.5);
  CHECK(loss(turned, "a.weight") < 0.01);

  converted(folder / "in.safetensors", folder / "nvfp4.safetensors", "nvfp4");
  const auto file = formats::open_tensor_file(folder / "nvfp4.safetensors");
  CHECK(file.find("a.weight")->dtype == DType::BF16);  // 40 rows are no whole 16s
  const auto codes = part(file, "c.weight"), scales = part(file, "c.weight_scale").to(at::kFloat);
  CHECK(codes.sizes() == at::IntArrayRef{144, 48});
  CHECK(scales.sizes() == at::IntArrayRef{256, 8});
  const float values[] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
  auto got = at::empty({144, 96});
  const auto flat = scales.contiguous().flatten();
  for (std::int64_t r = 0; r < 144; ++r)
    for (std::int64_t c = 0; c < 96; ++c) {
      const int byte = codes.const_data_ptr<std::uint8_t>()[r * 48 + c / 2];
      const int code = c % 2 == 0 ? byte >> 4 : byte & 15;
      const auto block = c / 16;
      const auto at = (r / 128 * 2 + block / 4) * 512 + r % 32 * 16 + r % 128 / 32 * 4 + block % 4;
      got.mutable_data_ptr<float>()[r * 96 + c] =
          values[code & 7] * (code & 8 ? -1.0f : 1.0f) * flat.const_data_ptr<float>()[at];
    }
  CHECK(loss(got * part(file, "c.weight_scale_2"), "c.weight") < 0.11);
}

TEST_CASE("convert: a model in several files becomes one") {
  Folder folder;
  auto tensors = model();
  write(folder / "m-00001-of-00002.safetensors",
        {{"blocks.0.attn.weight", tensors.at("blocks.0.attn.weight")}});
  write(folder / "m-00002-of-00002.safetensors", {{"ids", tensors.at("ids")}});
  converted(folder / "m-00002-of-00002.safetensors", folder / "out.safetensors", "packed");
  const auto out = open(folder / "out.safetensors");
  CHECK(out.tensors().size() == 2);
  CHECK(at::equal(dense(out, "blocks.0.attn.weight", at::kBFloat16),
                  tensors.at("blocks.0.attn.weight")));
}

TEST_CASE("convert: a failure or a stop leaves nothing, and what was there before") {
  Folder folder;
  write(folder / "in.safetensors", model());
  write_file(folder / "out.safetensors", "before");
  auto untouched = [&] {
    CHECK(folder.names() == std::vector<std::string>{"in.safetensors", "out.safetensors"});
    CHECK(read_file(folder / "out.safetensors") == "before");
  };
  convert::Request request{.from = folder / "in.safetensors", .to = folder / "out.safetensors"};
  request.form = &convert::form_named("packed");
  {
    auto token = std::make_shared<RunToken>();
    RunScope scope(token);
    int calls = 0;
    request.progress = [&](std::int64_t, std::int64_t) {
      if (++calls == 4) token->interrupt();
    };
    CHECK_THROWS_AS(convert::convert(request), Error);
    CHECK(calls == 4);
  }
  untouched();
  request.progress = nullptr;
  {
    // As with a full disk: a write that fails in the middle.
    rlimit before{};
    getrlimit(RLIMIT_FSIZE, &before);
    auto* handler = std::signal(SIGXFSZ, SIG_IGN);
    rlimit small{100000, before.rlim_max};
    setrlimit(RLIMIT_FSIZE, &small);
    CHECK_THROWS_WITH_AS(convert::convert(request), doctest::Contains("cannot write"), Error);
    setrlimit(RLIMIT_FSIZE, &before);
    std::signal(SIGXFSZ, handler);
  }
  untouched();
  request.to = folder / "in.safetensors";
  CHECK_THROWS_WITH_AS(convert::convert(request), doctest::Contains("is read and cannot"), Error);
  CHECK(at::equal(dense(open(folder / "in.safetensors"), "ids", at::kLong), at::arange(7)));
}

TEST_CASE("convert: what is asked for wrongly is told") {
  CHECK_THROWS_WITH_AS(convert::form_named("int3"), doctest::Contains("is no type of weights"),
                       Error);
  CHECK_THROWS_WITH_AS(convert::parse_rule("norm"), doctest::Contains("EXPRESSION=TYPE"), Error);
  CHECK_THROWS_WITH_AS(convert::parse_rule("(=bf16"), doctest::Contains("no regular expression"),
                       Error);
  Folder folder;
  write(folder / "in.safetensors", model());
  CHECK_THROWS_WITH_AS(converted(folder / "in.safetensors", folder / "a.safetensors", "Q4_K"),
                       doctest::Contains("must end in .gguf"), Error);
  CHECK_THROWS_WITH_AS(converted(folder / "in.safetensors", folder / "a.gguf", "packed"),
                       doctest::Contains("which has no type packed"), Error);
}

TEST_CASE("convert: numbers that a type cannot hold are refused with the weight's name") {
  Folder folder;
  auto tensors = model();
  tensors["blocks.0.attn.weight"][3][7] = NAN;
  write(folder / "in.safetensors", tensors);
  for (const char* type : {"Q4_K", "Q6_K", "Q8_0", "Q5_1", "int8", "fp8_scaled"}) {
    CAPTURE(type);
    const auto* ending = convert::form_named(type).gguf ? "out.gguf" : "out.safetensors";
    const std::string wanted =
        fmt::format("'blocks.0.attn.weight' has numbers that {} cannot hold", type);
    CHECK_THROWS_WITH_AS(converted(folder / "in.safetensors", folder / ending, type),
                         doctest::Contains(wanted.c_str()), Error);
    CHECK(folder.names() == std::vector<std::string>{"in.safetensors"});
    const auto report =
        converted(folder / "in.safetensors", folder / ending, type, {"attn.weight=keep"});
    CHECK(report.kept > 0);
    fs::remove(folder / ending);
  }
}
