#include "distorch/formats/safetensors.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <fstream>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "tests/support/source_dir.h"

using namespace distorch;
using namespace distorch::formats;

namespace {

std::string with_length(const std::string& header, std::uint64_t length) {
  std::string bytes;
  for (int i = 0; i < 8; ++i) bytes.push_back(static_cast<char>(length >> (8 * i)));
  return bytes + header;
}

/// A file of this header and `data` zero bytes.
std::string file_of(const std::string& header, std::size_t data) {
  return with_length(header, header.size()) + std::string(data, '\0');
}

SafetensorsHeader parse(const std::string& bytes) {
  return parse_safetensors(std::as_bytes(std::span(bytes)), bytes.size(), "tiny");
}

std::string message(const std::string& bytes) {
  try {
    parse(bytes);
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::Format);
    return e.what();
  }
  return "accepted";
}

struct Folder {
  std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("distorch_formats_" + std::to_string(::getpid()));
  Folder() { std::filesystem::create_directories(path); }
  ~Folder() { std::filesystem::remove_all(path); }
};

std::filesystem::path official() {
  return test::source_dir() / "tests/formats/data/official.safetensors";
}

}  // namespace

TEST_CASE("safetensors: honest files are read") {
  auto one = parse(file_of(R"({"w":{"dtype":"F16","shape":[2,3],"data_offsets":[0,12]}})", 12));
  REQUIRE(one.tensors.size() == 1);
  CHECK(one.tensors[0].name == "w");
  CHECK(one.tensors[0].dtype == DType::F16);
  CHECK(one.tensors[0].shape == std::vector<std::int64_t>{2, 3});
  CHECK(one.tensors[0].offset_bytes == 8 + 57);
  CHECK(one.tensors[0].size_bytes == 12);
  CHECK(one.tensors[0].elements() == 6);

  CHECK(parse(file_of("{}", 0)).tensors.empty());

  // Order in the header does not matter, padding and unknown keys neither; a scalar has no
  // dimensions.
  auto two = parse(
      file_of(R"({"b":{"dtype":"U8","shape":[3],"data_offsets":[4,7],"note":{"x":[1,{"y":null}]}},)"
              R"("__metadata__":{"k":"v"},"a":{"shape":[],"dtype":"F32","data_offsets":[0,4]}}   )",
              7));
  REQUIRE(two.tensors.size() == 2);
  CHECK(two.tensors[0].name == "a");
  CHECK(two.tensors[0].elements() == 1);
  CHECK(two.tensors[1].name == "b");
  CHECK(two.metadata.at("k") == "v");

  // Only the start of a large file has to be at hand.
  auto head = file_of(R"({"w":{"dtype":"F32","shape":[1000000],"data_offsets":[0,4000000]}})", 0);
  CHECK(parse_safetensors(std::as_bytes(std::span(head)), head.size() + 4000000, "big")
            .tensors.size() == 1);
}

TEST_CASE("safetensors: lying lengths are refused with both numbers") {
  CHECK(message("") == "tiny: has 0 bytes, a safetensors file has at least 8");
  CHECK(message("1234567") == "tiny: has 7 bytes, a safetensors file has at least 8");
  CHECK(message(with_length("{}", 3)) == "tiny: says its header ends at byte 11, the file has 10");
  CHECK(message(with_length("{}", 100'000'001)) ==
        "tiny: says its header has 100000001 bytes, the limit is 100000000");
  CHECK(message(with_length("{}", ~0ULL)) ==
        "tiny: says its header has 18446744073709551615 bytes, the limit is 100000000");
  CHECK(message(file_of("", 0)) == "tiny: has a header that does not start with '{'");
}

TEST_CASE("safetensors: broken headers are refused") {
  CHECK(message(file_of("{\"w\":", 0)).find("no valid JSON") != std::string::npos);
  CHECK(message(file_of("{} {}", 0)).find("no valid JSON") != std::string::npos);
  CHECK(message(file_of("{\"\xff\xfe\":{}}", 0)).find("no valid JSON") != std::string::npos);
  CHECK(message(file_of("{" + std::string(200000, '['), 0)).find("no valid JSON") !=
        std::string::npos);
  CHECK(message(file_of(R"({"w":[1]})", 0)) == "tiny: 'w' is a list instead of an object");
  CHECK(message(file_of(R"({"w":7})", 0)) == "tiny: 'w' is a number instead of an object");
  CHECK(message(file_of(R"({"w":{}})", 0)) == "tiny: 'w' has no 'dtype'");
  CHECK(message(file_of(R"({"w":{"dtype":"F32","shape":[1]}})", 4)) ==
        "tiny: 'w' has no 'data_offsets'");
  CHECK(message(file_of(R"({"__metadata__":{"a":1}})", 0)) ==
        "tiny: has metadata 'a' that is a number instead of a text");
  CHECK(message(file_of(R"({"w":{"dtype":"Q4","shape":[1],"data_offsets":[0,4]}})", 4)) ==
        "tiny: 'w' has the unknown dtype 'Q4'");
  CHECK(message(file_of(R"({"w":{"dtype":4,"shape":[1],"data_offsets":[0,4]}})", 4)) ==
        "tiny: 'w' has a number in its 'dtype'");
  CHECK(message(file_of(R"({"w":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4)) ==
        "tiny: 'w' has a negative number in its 'shape'");
  CHECK(message(file_of(R"({"w":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", 4)) ==
        "tiny: 'w' has a fraction in its 'shape'");
  CHECK(message(file_of(R"({"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4,8]}})", 4)) ==
        "tiny: 'w' must have two data_offsets");
}

TEST_CASE("safetensors: names and keys given twice are refused") {
  CHECK(
      message(file_of(
          R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"w":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
          2)) == "tiny: names 'w' twice");
  CHECK(message(file_of(R"({"w":{"dtype":"U8","dtype":"I8","shape":[1],"data_offsets":[0,1]}})",
                        1)) == "tiny: 'w' has 'dtype' twice");
  CHECK(message(file_of(R"({"__metadata__":{"a":"1","a":"2"}})", 0)) ==
        "tiny: has the metadata key 'a' twice");
}

TEST_CASE("safetensors: lying shapes and ranges are refused by name") {
  CHECK(message(file_of(R"({"w":{"dtype":"F16","shape":[2,3],"data_offsets":[0,10]}})", 10)) ==
        "tiny: 'w' is F16 of shape [2, 3], which takes 12 bytes, but has 10");
  CHECK(message(file_of(R"({"w":{"dtype":"F16","shape":[5],"data_offsets":[0,10]}})", 6)) ==
        "tiny: 'w' ends at byte 10 of the tensor data, the file has 6");
  CHECK(message(file_of(R"({"w":{"dtype":"F16","shape":[5],"data_offsets":[12,2]}})", 12)) ==
        "tiny: 'w' begins at byte 12 and ends before that, at 2");
  CHECK(message(file_of(
            R"({"w":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,4]}})", 4)) ==
        "tiny: 'w' has shape [4294967296, 4294967296], which has too many elements");
  CHECK(message(file_of(
            R"({"w":{"dtype":"F64","shape":[2305843009213693952],"data_offsets":[0,0]}})", 0)) ==
        "tiny: 'w' has shape [2305843009213693952], which has too many bytes");
  CHECK(message(file_of(R"({"w":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}})", 1)) ==
        "tiny: 'w' has 12 bits, which is no whole number of bytes");
}

TEST_CASE("safetensors: overlaps, holes and surplus bytes are refused") {
  CHECK(
      message(file_of(
          R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})",
          6)) == "tiny: 'b' begins at byte 115, inside 'a' which ends at 117");
  CHECK(
      message(file_of(
          R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"b":{"dtype":"U8","shape":[2],"data_offsets":[4,6]}})",
          6)) == "tiny: 'b' begins at byte 117, which leaves a hole after byte 115");
  CHECK(message(file_of(R"({"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}})", 5)) ==
        "tiny: the tensors end at byte 63, the file has 66");
  CHECK(message(file_of("{}", 1)) == "tiny: the tensors end at byte 10, the file has 11");
}

TEST_CASE("safetensors: a file of the official writer is read, and written again byte for byte") {
  auto file = read_safetensors(official());
  CHECK(file.format() == "safetensors");
  CHECK(file.metadata() == TensorFile::Metadata{{"format", "pt"}});
  CHECK(file.tensors().size() == 14);
  CHECK(file.find("nothing") == nullptr);

  REQUIRE(file.find("ints") != nullptr);
  CHECK(file.find("ints")->shape == std::vector<std::int64_t>{2, 3});
  std::int64_t ints[6];
  std::memcpy(ints, file.bytes(*file.find("ints")).data(), sizeof ints);
  for (int i = 0; i < 6; ++i) CHECK(ints[i] == i);
  float scalar = 0;
  std::memcpy(&scalar, file.bytes(*file.find("scalar")).data(), sizeof scalar);
  CHECK(scalar == 2.5f);
  CHECK(file.find("float8")->dtype == DType::F8_E4M3);
  CHECK(file.find("empty")->size_bytes == 0);
  CHECK(file.find("name with \xc3\xa4\xe2\x98\x83 \"quotes\"") != nullptr);

  Folder folder;
  std::vector<TensorToWrite> tensors;
  for (const auto& t : file.tensors())
    tensors.insert(tensors.begin(), {t.name, t.dtype, t.shape, file.bytes(t)});
  write_safetensors(folder.path / "copy.safetensors", tensors, file.metadata());
  CHECK(read_file(folder.path / "copy.safetensors") == read_file(official()));

  tensors.push_back(tensors.front());
  CHECK_THROWS_AS(write_safetensors(folder.path / "twice.safetensors", tensors), Error);
  CHECK_FALSE(std::filesystem::exists(folder.path / "twice.safetensors"));
}

TEST_CASE("safetensors: opening a large file touches its header only") {
  Folder folder;
  auto path = folder.path / "large.safetensors";
  constexpr std::size_t size = 20'000'000'000;
  auto head =
      file_of(R"({"w":{"dtype":"F16","shape":[100000,100000],"data_offsets":[0,20000000000]}})", 0);
  write_file(path, head);
  std::filesystem::resize_file(path, head.size() + size);  // sparse
  auto start = std::chrono::steady_clock::now();
  auto file = read_safetensors(path);
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::milliseconds(500));
  CHECK(file.tensor_bytes() == size);
  // What the kernel read around the header, not the file.
  CHECK(file.mapping()->resident_bytes({0, file.mapping()->size()}) < 4'000'000);
}

TEST_CASE("open_tensor_file: by content, by extension, and what is refused") {
  Folder folder;
  auto file = [&](const char* name, const std::string& bytes) {
    write_file(folder.path / name, bytes);
    return folder.path / name;
  };
  auto honest = file_of(R"({"w":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}})", 1);
  // misnamed, still safetensors
  CHECK(open_tensor_file(file("a.ckpt", honest)).tensors().size() == 1);
  auto refusal = [&](const std::filesystem::path& path) -> std::string {
    try {
      open_tensor_file(path);
    } catch (const Error& e) {
      CHECK(e.where() == path.string());
      return e.sentence();
    }
    return "accepted";
  };
  CHECK(refusal(file("b.ckpt", "PK\x03\x04zip")).find("has no directory") != std::string::npos);
  CHECK(refusal(file("c.pt", "\x80\x02}q")).find("ends too early") != std::string::npos);
  CHECK(refusal(file("d.PTH", "?")).find("is not known") != std::string::npos);
  CHECK(refusal(file("e.safetensors", "version https://git-lfs.github.com/spec/v1\n"))
            .find("Git LFS") != std::string::npos);
  CHECK(refusal(file("f.safetensors", "<!DOCTYPE html>")).find("web page") != std::string::npos);
  CHECK(refusal(file("g.safetensors", "abc")).find("has 3 bytes") != std::string::npos);
  CHECK(refusal(file("h.xyz", "whatever"))
            .find("is of no known format (safetensors, gguf, pickle)") != std::string::npos);
  CHECK(refusal(folder.path).find("is a folder") != std::string::npos);
  CHECK(refusal(folder.path / "nothing.safetensors").find("No such file") != std::string::npos);
  try {
    open_tensor_file(folder.path / "nothing.safetensors");
  } catch (const Error& e) {
    CHECK(e.kind() == ErrorKind::MissingFile);
  }
}
