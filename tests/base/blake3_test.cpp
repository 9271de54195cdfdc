#include "distorch/base/blake3.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "distorch/base/error.h"

using namespace distorch;

namespace {

/// The input of the published test vectors: bytes that count to 250 and begin again.
std::string counted(std::size_t bytes) {
  std::string text(bytes, '\0');
  for (std::size_t i = 0; i < bytes; ++i) text[i] = static_cast<char>(i % 251);
  return text;
}

std::string hash_of(std::string_view text, std::size_t piece) {
  Blake3 hash;
  for (std::size_t at = 0; at < text.size(); at += piece) hash.update(text.substr(at, piece));
  return hash.hex();
}

struct Vector {
  std::size_t bytes;
  const char* hash;
};

constexpr Vector kVectors[] = {
    {0, "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262"},
    {1, "2d3adedff11b61f14c886e35afa036736dcd87a74d27b5c1510225d0f592e213"},
    {64, "4eed7141ea4a5cd4b788606bd23f46e212af9cacebacdc7d1f4c6dc7f2511b98"},
    {65, "de1e5fa0be70df6d2be8fffd0e99ceaa8eb6e8c93a63f2d8d1c30ecb6b263dee"},
    {1024, "42214739f095a406f3fc83deb889744ac00df831c10daa55189b5d121c855af7"},
    {1025, "d00278ae47eb27b34faecf67b4fe263f82d5412916c1ffd97c8cb7fb814b8444"},
    {2048, "e776b6028c7cd22a4d0ba182a8bf62205d2ef576467e838ed6f2529b85fba24a"},
    {2049, "5f4d72f40d7a5f82b15ca2b2e44b1de3c2ef86c426c95c1af0b6879522563030"},
    {3073, "7124b49501012f81cc7f11ca069ec9226cecb8a2c850cfe644e327d22d3e1cd3"},
    {5120, "9cadc15fed8b5d854562b26a9536d9707cadeda9b143978f319ab34230535833"},
    {7168, "61da957ec2499a95d6b8023e2b0e604ec7f6b50e80a9678b89d2628e99ada77a"},
    {31744, "62b6960e1a44bcc1eb1a611a8d6235b6b4b78f32e7abc4fb4c6cdcce94895c47"},
    {102400, "bc3e3d41a1146b069abffad3c0d44860cf664390afce4d9661f7902e7943e085"},
};

}  // namespace

TEST_CASE("blake3: the published vectors, whatever pieces the bytes come in") {
  for (const auto& vector : kVectors) {
    CAPTURE(vector.bytes);
    auto text = counted(vector.bytes);
    CHECK(hash_of(text, vector.bytes + 1) == vector.hash);
    CHECK(hash_of(text, 64) == vector.hash);
    CHECK(hash_of(text, 1000) == vector.hash);
  }
}

TEST_CASE("blake3: asking does not end it, and a file gives the same") {
  Blake3 hash;
  hash.update(counted(1024));
  CHECK(hash.hex() == kVectors[4].hash);
  hash.update(counted(1025).substr(1024));
  CHECK(hash.hex() == kVectors[5].hash);
  auto file = std::filesystem::temp_directory_path() / "distorch_blake3_test";
  std::ofstream(file, std::ios::binary) << counted(102400);
  CHECK(blake3_of_file(file) == kVectors[12].hash);
  std::filesystem::remove(file);
  CHECK_THROWS_AS(blake3_of_file(file), Error);
}
