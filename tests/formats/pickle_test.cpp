#include <doctest/doctest.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <random>

#include "distorch/base/error.h"
#include "distorch/formats/tensor_file.h"
#include "tests/support/source_dir.h"

using namespace distorch;
using namespace distorch::formats;
namespace fs = std::filesystem;

namespace {

fs::path data_file(const std::string& name) {
  return test::source_dir() / "tests" / "formats" / "data" / name;
}

std::string content_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

/// A file that goes away with the object.
struct TemporaryFile {
  explicit TemporaryFile(const std::string& content)
      : path(fs::temp_directory_path() /
             ("distorch_pickle_" + std::to_string(::getpid()) + ".pth")) {
    std::ofstream(path, std::ios::binary) << content;
  }
  ~TemporaryFile() { fs::remove(path); }
  fs::path path;
};

template <class T>
std::vector<T> numbers(const TensorFile& file, const std::string& name) {
  const auto* tensor = file.find(name);
  REQUIRE_MESSAGE(tensor, name);
  std::vector<T> values(static_cast<std::size_t>(tensor->elements()));
  REQUIRE(tensor->size_bytes == values.size() * sizeof(T));
  if (!values.empty()) std::memcpy(values.data(), file.bytes(*tensor).data(), tensor->size_bytes);
  return values;
}

std::string refusal(const fs::path& path) {
  try {
    open_tensor_file(path);
  } catch (const Error& problem) {
    CHECK((problem.kind() == ErrorKind::Format));
    return problem.sentence();
  }
  return "accepted";
}

}  // namespace

TEST_CASE("torch.save's files, archives and older rows of pickles, are read where they lie") {
  for (const char* name : {"torch_zip.pth", "torch_row.pth"}) {
    CAPTURE(name);
    auto file = open_tensor_file(data_file(name));
    CHECK(file.tensors().size() == 8);
    CHECK(file.find("weight")->shape == std::vector<std::int64_t>{4, 6});
    CHECK(numbers<float>(file, "weight")[23] == 23.0f);
    // A view of the same numbers lies within them.
    CHECK(file.find("rows")->shape == std::vector<std::int64_t>{2, 6});
    CHECK(numbers<float>(file, "rows").front() == 6.0f);
    CHECK(numbers<std::uint16_t>(file, "half") == std::vector<std::uint16_t>{0x3e00, 0xc000});
    CHECK((file.find("brain")->dtype == DType::BF16));
    CHECK(numbers<std::int64_t>(file, "count") == std::vector<std::int64_t>{7});
    CHECK(file.find("count")->shape.empty());
    CHECK(numbers<std::uint8_t>(file, "flags") == std::vector<std::uint8_t>{1, 0});
    CHECK(numbers<float>(file, "parameter") == std::vector<float>{9, 8});
    CHECK(file.find("empty")->shape == std::vector<std::int64_t>{0, 3});
  }
}

TEST_CASE("dictionaries inside a torch file become names with dots, programs are not run") {
  auto nested = open_tensor_file(data_file("torch_nested.pth"));
  CHECK(numbers<float>(nested, "params.a.weight") == std::vector<float>{0, 1});
  CHECK(numbers<float>(nested, "params_ema.a.weight") == std::vector<float>{2, 3});
  auto program = open_tensor_file(data_file("torch_program.pth"));
  CHECK(program.tensors().size() == 1);
  CHECK(numbers<float>(program, "weight") == std::vector<float>{0, 1, 2});
}

TEST_CASE("torch files that lie are refused") {
  CHECK(refusal(data_file("torch_turned.pth")).find("'turned' does not lie row by row") !=
        std::string::npos);
  auto zip = content_of(data_file("torch_zip.pth"));
  CHECK(refusal(TemporaryFile(zip.substr(0, zip.size() - 30)).path) != "accepted");
  CHECK(refusal(TemporaryFile(zip.substr(0, zip.size() / 2)).path) != "accepted");
  auto row = content_of(data_file("torch_row.pth"));
  CHECK(refusal(TemporaryFile(row.substr(0, row.size() - 3)).path).find("cut short") !=
        std::string::npos);
  // A dictionary that is its own only entry.
  std::string circle = "\x80\x02}q\x01X\x01";
  circle += std::string("\0\0\0", 3) + "ah\x01s.";
  CHECK(refusal(TemporaryFile(circle).path) != "accepted");
  CHECK(refusal(TemporaryFile("\x80\x02" + std::string(100000, '(') + ".").path) != "accepted");
}

TEST_CASE("no change of a byte makes reading a torch file crash") {
  std::mt19937 random(7);
  for (const char* name : {"torch_zip.pth", "torch_row.pth"}) {
    auto honest = content_of(data_file(name));
    for (int i = 0; i < 400; ++i) {
      auto changed = honest;
      for (int k = 0; k < 3; ++k) changed[random() % changed.size()] = static_cast<char>(random());
      TemporaryFile file(changed);
      try {
        auto opened = open_tensor_file(file.path);
        for (const auto& tensor : opened.tensors())
          CHECK(opened.bytes(tensor).size() == tensor.size_bytes);
      } catch (const Error&) {
        // Refused: as good.
      }
    }
  }
}
