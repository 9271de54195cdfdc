// What is written as safetensors: order, holes, tensors made when their turn comes, and refusals
// that leave nothing behind.
#include <doctest/doctest.h>
#include <unistd.h>

#include <random>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/formats/safetensors.h"

using namespace distorch;
using namespace distorch::formats;

namespace {

struct Folder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("distorch_writing_" + std::to_string(::getpid()));
  Folder() { std::filesystem::create_directories(path); }
  ~Folder() { std::filesystem::remove_all(path); }
  bool empty() const { return std::filesystem::is_empty(path); }
};

std::span<const std::byte> bytes_of(const std::string& text) {
  return std::as_bytes(std::span(text));
}

std::string text_of(const TensorFile& file, const std::string& name) {
  const auto* info = file.find(name);
  REQUIRE(info);
  auto bytes = file.bytes(*info);
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string refusal(const std::filesystem::path& path, std::vector<TensorToWrite> tensors) {
  try {
    write_safetensors(path, std::move(tensors));
  } catch (const Error& error) {
    CHECK((error.kind() == ErrorKind::Internal));
    CHECK(error.where() == path.string());
    return error.sentence();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("types: names, sizes and the way back, for every one") {
  int count = 0;
  for (int i = 0; i <= static_cast<int>(DType::U64); ++i, ++count) {
    auto type = static_cast<DType>(i);
    CHECK(dtype_named(name_of(type)) == type);
    const std::string name = name_of(type);
    // The number in a name is that of its bits.
    auto digit = name.find_first_of("0123456789");
    if (digit != std::string::npos) CHECK(bits_of(type) == std::stoi(name.substr(digit)));
  }
  CHECK(count == 20);
  CHECK(bits_of(DType::BOOL) == 8);
  for (const char* none : {"", "f32", "F32 ", "F3", "INT8", "BF32"})
    CHECK_FALSE(dtype_named(none).has_value());
}

TEST_CASE("writing: random files of every type are read back as they were") {
  Folder folder;
  std::mt19937 random(5);
  for (int round = 0; round < 100; ++round) {
    std::map<std::string, std::string> contents;
    std::vector<TensorToWrite> tensors;
    for (auto n = random() % 12; n > 0; --n) {
      auto type = static_cast<DType>(random() % 20);
      // Eight in the last dimension: whole bytes whatever the type.
      std::vector<std::int64_t> shape{static_cast<std::int64_t>(random() % 3), 8};
      if (random() % 4 == 0) shape = {8};
      auto elements = shape.size() == 1 ? 8 : shape[0] * 8;
      std::string content(static_cast<std::size_t>(elements * bits_of(type) / 8), '\0');
      for (char& c : content) c = static_cast<char>(random());
      auto name = "t\"\\\xc3\xa9." + std::to_string(random() % 1000);
      if (!contents.emplace(name, content).second) continue;
      tensors.push_back({name, type, shape, {}});
    }
    for (auto& tensor : tensors) tensor.bytes = bytes_of(contents.at(tensor.name));
    TensorFile::Metadata metadata{{"k", "v\n\"" + std::to_string(round)}};
    write_safetensors(folder.path / "m", tensors, metadata);
    auto file = read_safetensors(folder.path / "m");
    CHECK(file.metadata() == metadata);
    REQUIRE(file.tensors().size() == tensors.size());
    for (const auto& tensor : tensors) {
      CHECK(text_of(file, tensor.name) == contents.at(tensor.name));
      CHECK((file.find(tensor.name)->dtype == tensor.dtype));
      CHECK(file.find(tensor.name)->shape == tensor.shape);
    }
    // Wide types come first, equal ones by name.
    for (std::size_t i = 1; i < file.tensors().size(); ++i) {
      const auto &a = file.tensors()[i - 1], &b = file.tensors()[i];
      if (a.size_bytes == 0 || b.size_bytes == 0) continue;
      CHECK((a.dtype > b.dtype || (a.dtype == b.dtype && a.name < b.name)));
    }
    if (!file.tensors().empty()) CHECK(file.tensors()[0].offset_bytes % 8 == 0);
  }
}

TEST_CASE(
    "writing: holes are zeros, and tensors are made one after the other in the file's order") {
  Folder folder;
  std::vector<std::string> made;
  std::string a = "aaaa", b = "bb";
  auto make = [&](const std::string& name, const std::string& text) {
    return [&made, name, &text] {
      made.push_back(name);
      return bytes_of(text);
    };
  };
  write_safetensors(folder.path / "m",
                    {{.name = "b", .dtype = DType::U8, .shape = {2}, .make = make("b", b)},
                     {.name = "hole", .dtype = DType::F64, .shape = {1000}, .hole = true},
                     {.name = "a", .dtype = DType::F32, .shape = {1}, .make = make("a", a)},
                     {.name = "none", .dtype = DType::U8, .shape = {0}}});
  CHECK(made == std::vector<std::string>{"a", "b"});
  auto file = read_safetensors(folder.path / "m");
  CHECK(text_of(file, "hole") == std::string(8000, '\0'));
  CHECK(text_of(file, "a") == a);
  CHECK(text_of(file, "b") == b);
  CHECK(text_of(file, "none").empty());
  CHECK(file.tensor_bytes() == 8006);
}

TEST_CASE("writing: what does not fit is refused, and nothing is left of it") {
  Folder folder;
  auto path = folder.path / "m";
  std::string four = "1234", five = "12345";
  CHECK(refusal(path, {{"x", DType::F32, {2}, bytes_of(four)}}) ==
        "'x' of shape [2] takes 8 bytes, 4 were given");
  CHECK(refusal(path, {{"x", DType::U8, {4}, bytes_of(four)},
                       {"x", DType::U8, {4}, bytes_of(four)}}) == "'x' was given twice");
  // Only when its turn comes is it known; the others were written by then.
  CHECK(refusal(path, {{"w", DType::F32, {1}, bytes_of(four)},
                       {.name = "x", .dtype = DType::U8, .shape = {4}, .make = [&] {
                          return bytes_of(five);
                        }}}) == "'x' of shape [4] takes 4 bytes, 5 were given");
  CHECK_THROWS_AS(write_safetensors(path, {{.name = "x",
                                            .dtype = DType::U8,
                                            .shape = {4},
                                            .make = []() -> std::span<const std::byte> {
                                              throw Error(ErrorKind::Interrupted, "",
                                                          "interrupted");
                                            }}}),
                  Error);
  CHECK(folder.empty());
  // What was there before is still there.
  write_file(path, "before");
  CHECK(refusal(path, {{"x", DType::F32, {2}, bytes_of(four)}}) != "accepted");
  CHECK(read_file(path) == "before");
}

TEST_CASE(
    "reading: a header with any byte changed is refused in words, or still keeps its promises") {
  std::string header =
      R"({"__metadata__":{"k":"v"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},)"
      R"("b":{"dtype":"U8","shape":[5],"data_offsets":[24,29]}})";
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(header.size() >> (8 * i)));
  bytes += header + std::string(29, '\0');
  std::mt19937 random(6);
  int accepted = 0;
  for (int round = 0; round < 20000; ++round) {
    auto changed = bytes;
    for (auto n = 1 + random() % 3; n > 0; --n)
      changed[random() % (8 + header.size())] =
          random() % 2 ? static_cast<char>(random()) : "0123456789\"{}[],:"[random() % 17];
    try {
      auto read = parse_safetensors(std::as_bytes(std::span(changed)), changed.size(), "f");
      ++accepted;
      std::size_t end = 0;
      for (const auto& tensor : read.tensors) {
        CHECK(tensor.offset_bytes + tensor.size_bytes <= changed.size());
        CHECK(static_cast<std::int64_t>(tensor.size_bytes) * 8 ==
              tensor.elements() * bits_of(tensor.dtype));
        CHECK((end == 0 || tensor.offset_bytes == end));
        end = tensor.offset_bytes + tensor.size_bytes;
      }
    } catch (const Error& error) {
      CHECK((error.kind() == ErrorKind::Format));
    }
  }
  CHECK(accepted > 0);
}
