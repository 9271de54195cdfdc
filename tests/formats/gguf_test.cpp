#include "distorch/formats/gguf.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <fstream>
#include <random>

#include "distorch/base/error.h"
#include "distorch/formats/gguf_writer.h"
#include "tests/fuzz/gguf_input.h"

using namespace distorch;
using namespace distorch::formats;
namespace fs = std::filesystem;

namespace {

using Shape = std::vector<std::int64_t>;

GgufTensor tensor(const char* name, const char* type, Shape shape) {
  return {.name = name, .type = block_type_named(type), .shape = std::move(shape)};
}

/// A file of these tensors, filled with zeros.
std::string file_of(const std::vector<GgufTensor>& tensors, const GgufSettings& settings = {}) {
  auto bytes = gguf_head(tensors, settings);
  for (const auto& one : tensors) {
    std::int64_t elements = 1;
    for (auto n : one.shape) elements *= n;
    bytes.resize(bytes.size() + elements / one.type->elements * one.type->bytes);
    bytes.resize((bytes.size() + 31) / 32 * 32);
  }
  return bytes;
}

GgufHeader parse(const std::string& bytes) {
  return parse_gguf(
      [&](std::size_t offset, std::span<std::byte> to) {
        REQUIRE(offset + to.size() <= bytes.size());
        std::memcpy(to.data(), bytes.data() + offset, to.size());
      },
      bytes.size(), "tiny.gguf");
}

std::string message(const std::string& bytes) {
  try {
    parse(bytes);
  } catch (const Error& problem) {
    CHECK((problem.kind() == ErrorKind::Format));
    return problem.what();
  }
  return "accepted";
}

/// `bytes` with a number written over what stands at `at`.
template <class Number>
std::string with(std::string bytes, std::size_t at, Number number) {
  std::memcpy(bytes.data() + at, &number, sizeof number);
  return bytes;
}

struct Folder {
  fs::path path = fs::temp_directory_path() / ("distorch_gguf_" + std::to_string(::getpid()));
  Folder() { fs::create_directories(path); }
  ~Folder() { fs::remove_all(path); }
  fs::path put(const std::string& name, const std::string& bytes) const {
    std::ofstream(path / name, std::ios::binary) << bytes;
    return path / name;
  }
};

bool contains(const std::string& text, const std::string& part) {
  CHECK_MESSAGE(text.find(part) != std::string::npos, text << " has no '" << part << "'");
  return text.find(part) != std::string::npos;
}

// Where things stand in a file of one tensor without values: magic, version, two counts, then the
// name's length, the name, the number of dimensions, the dimensions, the type, the offset.
constexpr std::size_t kTensorCount = 8, kValueCount = 16, kFirst = 24;
constexpr std::size_t kDimensions = kFirst + 8 + 1, kSizes = kDimensions + 4;

}  // namespace

TEST_CASE("gguf: tensors have torch's shapes, packed ones the shape of their numbers") {
  auto header = parse(file_of({tensor("a", "F32", {3, 5}), tensor("b", "Q4_K", {2, 512}),
                               tensor("c", "BF16", {7}), tensor("d", "Q8_0", {4, 2, 64})},
                              {{"general.architecture", "flux"}}));
  CHECK(header.version == 3);
  REQUIRE(header.tensors.size() == 4);
  const auto& t = header.tensors;
  CHECK((t[0].dtype == DType::F32 && t[0].packing.empty() && t[0].shape == Shape{3, 5}));
  CHECK((t[1].dtype == DType::U8 && t[1].packing == "Q4_K" && t[1].shape == Shape{2, 512}));
  CHECK(t[1].size_bytes == 4 * 144);
  CHECK((t[2].dtype == DType::BF16 && t[2].shape == Shape{7}));
  CHECK((t[3].packing == "Q8_0" && t[3].shape == Shape{4, 2, 64} && t[3].size_bytes == 16 * 34));
  for (const auto& one : t) CHECK(one.offset_bytes % 32 == 0);
  CHECK(std::get<std::string>(header.values.at("general.architecture")) == "flux");
  // Version 2 differs in nothing that is read.
  CHECK(parse(with(file_of({tensor("a", "F32", {2})}), 4, 2u)).tensors.size() == 1);
}

TEST_CASE("gguf: every type that the format lists, in blocks of its own") {
  CHECK(block_types().size() == 34);
  for (const auto& type : block_types()) {
    auto header = parse(file_of({tensor("w", type.name, {2, 2 * type.elements})}));
    CHECK_MESSAGE(header.tensors[0].size_bytes == static_cast<std::size_t>(4 * type.bytes),
                  type.name);
    CHECK(header.tensors[0].packing == (type.plain ? "" : type.name));
  }
}

TEST_CASE("gguf: a kernel whose rows are no whole blocks keeps its shape beside") {
  auto bytes = file_of({tensor("conv", "Q4_K", {320, 4, 3, 4}), tensor("plain", "F16", {3, 3})});
  auto header = parse(bytes);
  CHECK(header.tensors[0].shape == Shape{320, 4, 3, 4});
  CHECK(header.tensors[0].size_bytes == 320 * 48 / 256 * 144);
  // The same with a shape of another number of elements.
  auto at = bytes.find("conv") + 4 + 4 + 4 + 8;
  contains(message(with(bytes, at, 321)),
           "value 'comfy.gguf.orig_shape.conv' says [321, 4, 3, 4], but the tensor has shape [60, "
           "256]");
  contains(message(with(bytes, at - 12, 4u)), "must be an array of at most 8 32-bit integers");
}

TEST_CASE("gguf: values of the header, arrays where they lie") {
  Folder folder;
  auto path = folder.put(
      "a.gguf", file_of({tensor("a", "F32", {2})}, {{"general.architecture", "t5"},
                                                    {"count", 7u},
                                                    {"low", -3},
                                                    {"half", 0.5f},
                                                    {"flag", true},
                                                    {"tokens", std::vector<std::string>{"x", "yz"}},
                                                    {"kinds", std::vector<std::int32_t>{1, -6}}}));
  auto file = open_tensor_file(path);
  CHECK(file.format() == "gguf");
  CHECK(file.metadata().at("count") == "7");
  CHECK(file.metadata().at("low") == "-3");
  CHECK(file.metadata().at("half") == "0.5");
  CHECK(file.metadata().at("flag") == "true");
  CHECK(file.metadata().count("tokens") == 0);
  auto header = gguf_header(*file.mapping());
  const auto& tokens = std::get<GgufArray>(header.values.at("tokens"));
  const auto& kinds = std::get<GgufArray>(header.values.at("kinds"));
  CHECK(gguf_strings(*file.mapping(), tokens) == std::vector<std::string>{"x", "yz"});
  CHECK(gguf_numbers(*file.mapping(), kinds) == std::vector<double>{1, -6});
  CHECK_THROWS_AS(gguf_numbers(*file.mapping(), tokens), Error);
  CHECK_THROWS_AS(gguf_strings(*file.mapping(), kinds), Error);
}

TEST_CASE("gguf: one of several files says so in its name") {
  Folder folder;
  const GgufSettings second = {{"split.no", 1u}, {"split.count", 3u}};
  auto bytes = file_of({tensor("a", "F32", {2})}, second);
  CHECK(open_tensor_file(folder.put("m-00002-of-00003.gguf", bytes)).tensors().size() == 1);
  CHECK_THROWS_WITH_AS(open_tensor_file(folder.put("m.gguf", bytes)),
                       ((folder.path / "m.gguf").string() +
                        ": is part 2 of a model in 3 files and must be called "
                        "'NAME-00002-of-00003.gguf', as the others in its folder")
                           .c_str(),
                       Error);
}

TEST_CASE("gguf: lying headers are refused with the tensor and the byte") {
  const auto good = file_of({tensor("w", "Q8_0", {2, 64})});
  const auto type_at = kSizes + 16, offset_at = type_at + 4;
  CHECK(message(good) == "accepted");
  contains(message("GGU"), "the format's mark takes 1 bytes, the file has 0 left (byte 3)");
  contains(message(with(good, 0, 'X')), "does not begin with 'GGUF'");
  contains(message(with(good, 4, 0x03000000u)), "is a big-endian GGUF file");
  contains(message(with(good, 4, 1u)), "is GGUF of version 1; versions 2 and 3 are read (byte 4)");
  contains(message(with(good, kTensorCount, ~std::uint64_t{0})),
           "says it has 18446744073709551615 tensors, the file has ");
  contains(message(with(good, kValueCount, std::uint64_t{1} << 60)), " values, the file has ");
  contains(message(with(good, kFirst, std::uint64_t{1} << 60)),
           "the name of tensor 0 has 1152921504606846976 bytes, at most 65535 are taken (byte 24)");
  contains(message(with(good, kDimensions, 9u)), "'w' has 9 dimensions, at most 8 are taken");
  contains(message(with(good, kSizes, std::int64_t{-1})), "'w' has a dimension of 184467440737");
  contains(
      message(with(with(good, kSizes, std::int64_t{1} << 40), kSizes + 8, std::int64_t{1} << 40)),
      "'w' has shape [1099511627776, 1099511627776], which has too many elements (byte 24)");
  contains(message(with(good, kSizes, std::int64_t{40})),
           "'w' is of type Q8_0 with rows of 40 elements, which are no whole blocks of 32");
  contains(message(with(good, type_at, 99u)), "'w' is of type 99, which is not known (byte 24)");
  contains(message(with(good, type_at, 31u)),
           "'w' is of type Q4_0_4_4, which is no longer in use (byte 24)");
  contains(message(with(good, offset_at, std::uint64_t{16})),
           "'w' begins at byte 16 of the tensor data, which is no multiple of 32");
  contains(message(with(good, offset_at, std::uint64_t{1} << 62)),
           "'w' has 136 bytes from byte 4611686018427387904 of the tensor data on, which has 160");
  contains(message(good.substr(0, good.size() - 32)),
           "'w' has 136 bytes from byte 0 of the tensor data on, which has 128");
}

TEST_CASE("gguf: lying values, names twice, tensors in one another") {
  const GgufSettings one = {{"k", "text"}};
  const auto good = file_of({tensor("w", "F32", {8})}, one);
  const auto type_at = kFirst + 8 + 1;
  contains(message(with(good, type_at + 4, std::uint64_t{1} << 60)),
           "value 'k' has 1152921504606846976 bytes, at most 67108864 are taken");
  contains(message(with(good, type_at + 4, std::uint64_t{1000})),
           "value 'k' takes 1000 bytes, the file has ");
  contains(message(with(good, type_at, 77u)), "value 'k' has the type 77, which is not known");
  contains(message(file_of({}, {{"k", 1u}, {"k", 2u}})), "value 'k' is there twice");
  contains(message(file_of({}, {{"general.alignment", 48u}})),
           "value 'general.alignment' must be a power of two");
  contains(message(file_of({}, {{"general.alignment", "32"}})), "must be a power of two");
  contains(message(file_of({tensor("w", "F32", {8}), tensor("w", "F32", {8})})),
           "'w' is there twice");
  auto list = file_of({}, {{"k", std::vector<std::string>{"a"}}});
  contains(message(with(list, type_at + 8, std::uint64_t{1} << 61)),
           "value 'k' says it has 2305843009213693952 entries");
  auto two = file_of({tensor("a", "F32", {16}), tensor("b", "F32", {16})});
  auto offset_of_second = two.find('b') + 1 + 4 + 8 + 4;
  contains(message(with(two, offset_of_second, std::uint64_t{32})), "inside 'a' which ends at");
}

TEST_CASE("gguf: headers with bytes changed, added or cut off are read or refused, never worse") {
  const auto seed = file_of({tensor("a", "Q4_K", {3, 512}), tensor("b.weight", "F16", {4, 3}),
                             tensor("conv", "Q8_0", {16, 4, 3, 4})},
                            {{"general.architecture", "sd1"},
                             {"general.alignment", 32u},
                             {"tokens", std::vector<std::string>{"x", "yz"}}});
  constexpr std::size_t tensor_bytes = 6 * 144 + 32 + 832;
  const auto head = seed.size() - tensor_bytes;
  std::mt19937 random(20);
  for (int round = 0; round < 20000; ++round) {
    auto bytes = seed;
    for (auto changes = 1 + random() % 3; changes > 0; --changes) {
      const auto at = random() % head;
      const std::uint64_t wild[] = {0, 1, random(), ~std::uint64_t{0}, std::uint64_t{1} << 60};
      const auto number = wild[random() % 5];
      const auto size = std::size_t{1} << random() % 4;
      std::memcpy(bytes.data() + at, &number, std::min(size, bytes.size() - at));
    }
    if (random() % 8 == 0) bytes.resize(random() % bytes.size());
    test::check_gguf_input(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
  }
}
