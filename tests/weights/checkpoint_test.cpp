#include "distorch/weights/checkpoint.h"

#include <doctest/doctest.h>

#include <fstream>

#include "distorch/quant/fp8.h"
#include "distorch/quant/joined.h"
#include "distorch/weights/manifest.h"
#include "tests/support/tensor_files.h"

using namespace distorch;
using namespace distorch::test;
using namespace distorch::weights;
using Shape = std::vector<std::int64_t>;

namespace {

at::Tensor numbers(const Shape& shape, double first = 0) {
  auto count = c10::multiply_integers(shape);
  return (at::arange(count, at::kFloat) + first).view(shape);
}

std::vector<std::string> names_of(const Checkpoint& checkpoint) {
  std::vector<std::string> names;
  for (const auto& [name, stored] : checkpoint.tensors()) names.push_back(name);
  return names;
}

using Names = std::vector<std::string>;

}  // namespace

TEST_CASE("checkpoint: a part has the names below its prefix and no others") {
  TensorFiles files;
  auto one = raw(at::ones({1}));
  auto file = files.checkpoint(std::map<std::string, RawTensor>{
      {"a", one}, {"a.x", one}, {"a.y.z", one}, {"aa.x", one}, {"b.x", one}});
  CHECK(names_of(file.part("a.")) == Names{"x", "y.z"});
  CHECK(names_of(file.part("a.", "model.")) == Names{"model.x", "model.y.z"});
  CHECK(names_of(file.part("a")) == Names{"", ".x", ".y.z", "a.x"});
  CHECK(file.part("c.").empty());
  CHECK(file.part("c.").path() == file.path());
  CHECK(file.has_prefix("a.y"));
  CHECK(file.has_prefix("b.x"));
  CHECK_FALSE(file.has_prefix("a.z"));
  CHECK_FALSE(file.has_prefix("b.x."));
  CHECK_FALSE(file.has_prefix("c"));
  CHECK(file.has_prefix(""));
  CHECK_FALSE(Checkpoint().has_prefix(""));
}

TEST_CASE("checkpoint: indices are counted from 0 up to the first gap, 1 is not 10") {
  TensorFiles files;
  auto one = raw(at::ones({1}));
  auto file = files.checkpoint(std::map<std::string, RawTensor>{{"blocks.0.w", one},
                                                                {"blocks.1.w", one},
                                                                {"blocks.3.w", one},
                                                                {"late.1.w", one},
                                                                {"tens.0.w", one},
                                                                {"tens.10.w", one},
                                                                {"bare.0", one}});
  CHECK(file.count("blocks.") == 2);
  CHECK(file.count("late.") == 0);
  CHECK(file.count("tens.") == 1);
  CHECK(file.count("bare.") == 0);
  CHECK(file.count("none.") == 0);
}

TEST_CASE("checkpoint: renaming moves a tensor, over another one if need be") {
  TensorFiles files;
  auto file = files.checkpoint(
      std::map<std::string, at::Tensor>{{"a", numbers({2})}, {"b", numbers({3}, 5)}});
  file.rename("absent", "b");
  CHECK(file.shape("b") == Shape{3});
  file.rename("a", "b");
  CHECK(names_of(file) == Names{"b"});
  CHECK(at::equal(read_dense(*file.find("b"), at::kFloat), numbers({2})));
  file.rename("b", "c");
  CHECK(names_of(file) == Names{"c"});
  CHECK(refusal([&] { file.shape("b"); }) == "missing_weight|model.safetensors|has no tensor 'b'");
}

TEST_CASE("checkpoint: bytes are summed, the type that most bytes have is the main one") {
  TensorFiles files;
  auto file =
      files.checkpoint(std::map<std::string, at::Tensor>{{"many", at::zeros({9}, at::kHalf)},
                                                         {"few", at::zeros({5}, at::kFloat)},
                                                         {"wide", at::zeros({2}, at::kDouble)}});
  CHECK(file.size_bytes() == 9 * 2 + 5 * 4 + 2 * 8);
  // Nine half numbers are fewer bytes than five whole ones.
  CHECK(file.main_dtype() == formats::DType::F32);
  CHECK(Checkpoint().main_dtype() == formats::DType::F32);
  CHECK(Checkpoint().size_bytes() == 0);
  CHECK(file.part("many").main_dtype() == formats::DType::F16);
}

TEST_CASE("checkpoint: every type that torch has is read, the others are refused by name") {
  TensorFiles files;
  for (auto type : {at::kBool, at::kByte, at::kChar, at::kShort, at::kInt, at::kLong, at::kHalf,
                    at::kBFloat16, at::kFloat, at::kDouble, at::kFloat8_e4m3fn, at::kFloat8_e5m2}) {
    CAPTURE(at::toString(type));
    auto value = at::tensor({0.0f, 1.0f, 1.0f, 0.0f}).to(type);
    auto file = files.checkpoint(std::map<std::string, at::Tensor>{{"x", value}});
    const auto& stored = *file.find("x");
    CHECK((to_torch(stored) == type));
    CHECK((read_tensor(stored).scalar_type() == type));
    CHECK(at::equal(read_dense(stored, at::kFloat), value.to(at::kFloat)));
  }
  auto odd = files.checkpoint(
      std::map<std::string, RawTensor>{{"x", {formats::DType::U32, {2}, std::string(8, '\0')}}},
      "odd.safetensors");
  CHECK(refusal([&] { mapped_tensor(*odd.find("x")); }) ==
        "format|odd.safetensors|tensors of type U32 cannot be used");
}

TEST_CASE("checkpoint: a tensor at an odd address has the same numbers") {
  TensorFiles files;
  // The writer puts wide types first, so a byte between two files' worth of halves needs a trick:
  // rows of bytes, the second of which is read as float32 from an address that is no multiple of 4.
  auto file = files.checkpoint(std::map<std::string, at::Tensor>{{"x", numbers({5}, 0.5)}});
  auto bytes = read_tensor(*file.find("x"));
  auto shifted = files.checkpoint(
      std::map<std::string, RawTensor>{{"x", {formats::DType::U8, {21}, "?" + raw(bytes).bytes}}},
      "odd.safetensors");
  auto stored = *shifted.find("x");
  stored.dtype = formats::DType::F32;
  stored.shape = {5};
  stored.offset_bytes += 1;
  stored.size_bytes = 20;
  CHECK(at::equal(mapped_tensor(stored), numbers({5}, 0.5)));
  CHECK(at::equal(read_tensor(stored), numbers({5}, 0.5)));
}

TEST_CASE("checkpoint: rows of a tensor, none of them, all of them, and one too many") {
  TensorFiles files;
  auto value = numbers({4, 3});
  auto file =
      files.checkpoint(std::map<std::string, at::Tensor>{{"w", value}, {"s", at::ones({})}});
  const auto w = *file.find("w");
  for (std::int64_t first = 0; first <= 4; ++first)
    for (std::int64_t rows = 0; first + rows <= 4; ++rows) {
      file.add_rows("part", w, first, rows);
      CHECK(file.shape("part") == Shape{rows, 3});
      CHECK(file.find("part")->size_bytes == rows * 12);
      if (rows > 0)
        CHECK(at::equal(mapped_tensor(*file.find("part")), value.narrow(0, first, rows)));
    }
  auto before = names_of(file);
  CHECK(refusal([&] { file.add_rows("bad", w, 2, 3); }) ==
        "shape|model.safetensors|'bad' wants rows 2 to 5 of a tensor of shape [4, 3]");
  CHECK(refusal([&] { file.add_rows("bad", w, -1, 2); }).find("rows -1 to 1") != std::string::npos);
  CHECK(refusal([&] { file.add_rows("bad", w, 1, -1); }) != "accepted");
  CHECK(refusal([&] { file.add_rows("bad", *file.find("s"), 0, 1); }).find("of shape []") !=
        std::string::npos);
  CHECK(names_of(file) == before);
}

TEST_CASE("checkpoint: a scale beside an 8-bit weight belongs to it, under both its names") {
  TensorFiles files;
  auto value = at::tensor({1.0f, 2.0f, -3.0f, 4.0f}).view({2, 2});
  for (auto [scale, input] :
       {std::pair("scale_weight", "scale_input"), std::pair("weight_scale", "input_scale")})
    for (auto type : {at::kFloat8_e4m3fn, at::kFloat8_e5m2}) {
      CAPTURE(scale);
      auto file = files.checkpoint(
          std::map<std::string, RawTensor>{{"l.weight", raw(value.to(type))},
                                           {std::string("l.") + scale, raw(at::full({}, 0.5f))},
                                           {std::string("l.") + input, raw(at::full({}, 3.0f))},
                                           {"l.bias", raw(at::ones({2}))},
                                           {"scaled_fp8", raw(at::zeros({0}))},
                                           {"unet.scaled_fp8", raw(at::zeros({2}))}});
      CHECK(names_of(file) == Names{"l.bias", "l.weight"});
      const auto& stored = *file.find("l.weight");
      const auto* wanted =
          type == at::kFloat8_e5m2 ? &quant::float8_e5m2() : &quant::float8_e4m3fn();
      CHECK((stored.encoding == wanted));
      CHECK(at::equal(read_dense(stored, at::kFloat), value * 0.5));
      auto tensors = tensors_of(stored);
      REQUIRE(tensors.size() == 3);
      CHECK((tensors[0].encoding == nullptr));
      CHECK(mapped_tensor(tensors[2]).item<float>() == 3.0f);
    }
}

TEST_CASE("checkpoint: what looks like a scale is none beside a weight of another type") {
  TensorFiles files;
  auto file = files.checkpoint(std::map<std::string, RawTensor>{
      {"half.weight", raw(at::ones({2, 2}).to(at::kHalf))},
      {"half.scale_weight", raw(at::full({}, 2.0f))},
      {"plain.weight", raw(at::ones({2, 2}).to(at::kFloat8_e4m3fn))},
      {"lone.scale_weight", raw(at::full({}, 2.0f))},
      {"other.scaled_fp8x", raw(at::zeros({2}))}});
  CHECK(names_of(file) == Names{"half.scale_weight", "half.weight", "lone.scale_weight",
                                "other.scaled_fp8x", "plain.weight"});
  CHECK((file.find("half.weight")->encoding == nullptr));
  CHECK((file.find("plain.weight")->encoding == nullptr));
}

TEST_CASE("checkpoint: a marker says how a weight is packed, and vanishes") {
  TensorFiles files;
  auto weight = raw(at::full({2, 2}, 4.0f).to(at::kFloat8_e4m3fn));
  auto file = files.checkpoint(
      std::map<std::string, RawTensor>{{"a.weight", weight},
                                       {"a.comfy_quant", raw_text(R"({"format":"float8_e4m3fn"})")},
                                       {"a.weight_scale", raw(at::full({1}, 0.25f))},
                                       {"b.weight", weight},
                                       {"b.comfy_quant", raw_text(R"({"format":"float8_e4m3fn"})")},
                                       {"lone.comfy_quant", raw_text("?")}});
  CHECK(names_of(file) == Names{"a.weight", "b.weight", "lone.comfy_quant"});
  CHECK(at::equal(read_dense(*file.find("a.weight"), at::kFloat), at::ones({2, 2})));
  // A marker counts without a scale too.
  CHECK((file.find("b.weight")->encoding == &quant::float8_e4m3fn()));
  CHECK(at::equal(read_dense(*file.find("b.weight"), at::kFloat), at::full({2, 2}, 4.0f)));
  CHECK(tensors_of(*file.find("b.weight")).size() == 1);
}

TEST_CASE("checkpoint: a marker that nobody understands is refused with the weight's name") {
  TensorFiles files;
  for (auto [text, format] :
       std::vector<std::pair<std::string, std::string>>{{R"({"format":"float3"})", "float3"},
                                                        {R"({"format":7})", ""},
                                                        {R"({"form":"float8_e4m3fn"})", ""},
                                                        {R"(["float8_e4m3fn"])", ""},
                                                        {"{", ""}}) {
    CAPTURE(text);
    auto open = [&] {
      files.checkpoint(
          std::map<std::string, RawTensor>{{"l.weight", raw(at::ones({2}).to(at::kFloat8_e4m3fn))},
                                           {"l.comfy_quant", raw_text(text)}});
    };
    std::string wanted = format.empty() ? "has a marker that names no format it is packed as"
                                        : "is packed as '" + format + "', which is not supported";
    CHECK(refusal(open) == "format|model.safetensors|'l.weight' " + wanted);
  }
}

TEST_CASE("checkpoint: rows of a packed weight take the scales of these rows") {
  TensorFiles files;
  auto value = numbers({4, 2}, 1);
  auto by_row = at::tensor({1.0f, 2.0f, 4.0f, 8.0f}).view({4, 1});
  auto file = files.checkpoint(
      std::map<std::string, RawTensor>{{"l.weight", raw(value.to(at::kFloat8_e4m3fn))},
                                       {"l.weight_scale", raw(by_row)},
                                       {"one.weight", raw(value.to(at::kFloat8_e4m3fn))},
                                       {"one.weight_scale", raw(at::full({1}, 2.0f))}});
  file.add_rows("rows", *file.find("l.weight"), 1, 2);
  CHECK(at::equal(read_dense(*file.find("rows"), at::kFloat), (value * by_row).narrow(0, 1, 2)));
  file.add_rows("ones", *file.find("one.weight"), 3, 1);
  CHECK(at::equal(read_dense(*file.find("ones"), at::kFloat), value.narrow(0, 3, 1) * 2));
}

TEST_CASE("checkpoint: rows of a joined weight lie in the pieces that have them") {
  TensorFiles files;
  auto a = numbers({2, 3}), b = numbers({3, 3}, 100), c = numbers({1, 3}, 200);
  auto file = files.checkpoint(std::map<std::string, at::Tensor>{{"a", a}, {"b", b}, {"c", c}});
  file.add_joined("all", {*file.find("a"), *file.find("b"), *file.find("c")});
  CHECK(file.find("all")->size_bytes == 6 * 3 * 4);
  auto whole = at::cat({a, b, c});
  for (std::int64_t first = 0; first < 6; ++first)
    for (std::int64_t rows = 1; first + rows <= 6; ++rows) {
      file.add_rows("part", *file.find("all"), first, rows);
      CHECK(file.shape("part") == Shape{rows, 3});
      CHECK(at::equal(read_dense(*file.find("part"), at::kFloat), whole.narrow(0, first, rows)));
    }
  file.add_rows("part", *file.find("all"), 6, 0);
  CHECK(file.shape("part") == Shape{0, 3});
  CHECK(refusal([&] { file.add_rows("part", *file.find("all"), 5, 2); }) != "accepted");
}

TEST_CASE(
    "checkpoint: packed pieces of a joined weight keep their scales, whichever rows are cut") {
  TensorFiles files;
  auto a = numbers({2, 4}, 1), b = numbers({3, 4}, 9), c = numbers({1, 4}, 30);
  auto by_row = at::tensor({1.0f, 2.0f, 4.0f}).view({3, 1});
  auto file =
      files.checkpoint(std::map<std::string, RawTensor>{{"a.weight", raw(a.to(at::kFloat8_e4m3fn))},
                                                        {"a.weight_scale", raw(at::full({}, 0.5f))},
                                                        {"b.weight", raw(b.to(at::kFloat8_e4m3fn))},
                                                        {"b.weight_scale", raw(by_row)},
                                                        {"c.weight", raw(c)}});
  file.add_joined("all", {*file.find("a.weight"), *file.find("b.weight"), *file.find("c.weight")});
  auto rounded = [](const at::Tensor& t) { return t.to(at::kFloat8_e4m3fn).to(at::kFloat); };
  auto whole = at::cat({rounded(a) * 0.5, rounded(b) * by_row, c});
  CHECK(file.find("all")->size_bytes == 2 * 4 + 3 * 4 + 4 * 4);
  CHECK(tensors_of(*file.find("all")).size() == 5);
  CHECK(at::equal(read_dense(*file.find("all"), at::kFloat), whole));
  for (std::int64_t first = 0; first < 6; ++first)
    for (std::int64_t rows = 1; first + rows <= 6; ++rows) {
      file.add_rows("part", *file.find("all"), first, rows);
      CHECK(at::equal(read_dense(*file.find("part"), at::kFloat), whole.narrow(0, first, rows)));
    }
  // Blocks that go across rows stay whole.
  auto across = *file.find("c.weight");
  across.encoding = quant::encoding_named("Q8_0");
  across.shape = {4, 8};
  across.value_shape = {34};
  file.add_joined("blocks", {across, across});
  CHECK_NOTHROW(file.add_rows("second", *file.find("blocks"), 4, 4));
  CHECK(refusal([&] {
          file.add_rows("some", *file.find("blocks"), 3, 2);
        }).ends_with("'some' is made of rows of a weight whose blocks go across rows"));
}

TEST_CASE("checkpoint: what cannot be joined is refused, scalars too; packed weights can") {
  TensorFiles files;
  auto file = files.checkpoint(
      std::map<std::string, RawTensor>{{"m", raw(at::ones({2, 3}))},
                                       {"v", raw(at::ones({3}))},
                                       {"s", raw(at::ones({}))},
                                       {"p.weight", raw(at::ones({2, 3}).to(at::kFloat8_e5m2))},
                                       {"p.scale_weight", raw(at::ones({}))}});
  auto join = [&](const std::string& first, const std::string& second) {
    return refusal([&] { file.add_joined("j", {*file.find(first), *file.find(second)}); });
  };
  CHECK(join("m", "v") ==
        "shape|model.safetensors|'j' is made of tensors with unequal rows: [2, 3] and [3]");
  CHECK(join("s", "s") ==
        "shape|model.safetensors|'j' is made of tensors with unequal rows: [] and []");
  CHECK_FALSE(file.has("j"));
  CHECK(join("m", "p.weight") == "accepted");
  CHECK(join("p.weight", "m") == "accepted");
  CHECK(file.shape("j") == Shape{4, 3});
  CHECK(join("v", "v") == "accepted");
  CHECK(file.shape("j") == Shape{6});
}

TEST_CASE("checkpoint: the files of joined pieces are mended with the others") {
  TensorFiles files;
  // Larger than a page, so that pages of it can be lost.
  auto a = files.checkpoint(std::map<std::string, at::Tensor>{{"a", numbers({4096})}}, "a");
  auto b = files.checkpoint(std::map<std::string, at::Tensor>{{"b", numbers({4096}, 1)}}, "b");
  Checkpoint all;
  all.add_joined("all", {*a.find("a"), *b.find("b")});
  auto path = files.path("b");
  std::string content;
  {
    std::ifstream in(path, std::ios::binary);
    content.assign(std::istreambuf_iterator<char>(in), {});
  }
  auto time = std::filesystem::last_write_time(path);
  std::filesystem::resize_file(path, 4096);
  CHECK(mapped_tensor(*b.find("b"))[4095].item<float>() == 0);
  std::ofstream(path, std::ios::binary) << content;
  std::filesystem::last_write_time(path, time);
  const auto& mapping = b.find("b")->file->mapping();
  CHECK_FALSE(mapping->unchanged());
  all.refresh_files();
  CHECK(mapping->unchanged());
  CHECK(at::equal(read_dense(*all.find("all"), at::kFloat),
                  at::cat({numbers({4096}), numbers({4096}, 1)})));
}

TEST_CASE("checkpoint: a refusal names twenty faults in words and counts the rest") {
  TensorFiles files;
  auto file = files.checkpoint(std::map<std::string, at::Tensor>{{"w0", at::ones({2})}});
  for (int count : {1, 20, 21, 25}) {
    CAPTURE(count);
    Manifest manifest;
    auto scope = Scope(manifest).block("only");
    for (int i = 0; i < count; ++i) scope.weight("w" + std::to_string(i), {3});
    auto text = refusal([&] { check_complete(manifest, file, "thing"); });
    CHECK(text.starts_with(count == 1 ? "shape|" : "missing_weight|"));
    CHECK(text.find("'w0' has shape [2] where [3] is needed") != std::string::npos);
    CHECK((text.find("'w19' is missing") != std::string::npos) == (count >= 20));
    CHECK((text.find("'w20'") == std::string::npos));
    auto rest = count > 20 ? "; and " + std::to_string(count - 20) + " more" : "";
    CHECK(text.ends_with(rest));
    CHECK((text.find(" more") != std::string::npos) == (count > 20));
  }
  Manifest fits;
  auto scope = Scope(fits).block("only");
  scope.weight("w0", {2});
  scope.optional_weight("none", {1});
  CHECK(refusal([&] { check_complete(fits, file, "thing"); }) == "accepted");
  scope.optional_weight("w0", {7});
  CHECK(refusal([&] { check_complete(fits, file, "thing"); }).starts_with("shape|"));
}
