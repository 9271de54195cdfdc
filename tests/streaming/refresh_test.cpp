#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "tests/streaming/toy_model.h"

using namespace distorch;
using namespace distorch::streaming;
using placement::How;

TEST_CASE("a file that could not be read for a while is read again once it is refreshed") {
  constexpr int blocks = 4;
  // Used in place, and streamed from the file.
  for (const auto& home : {BlockHome{How::Resident, "cpu"}, BlockHome{How::Streamed, "disk"}}) {
    CAPTURE(home.device);
    toy::Folder folder;
    toy::Model model(blocks, 128);
    StreamedModel weights(model.manifest(), folder.write(model), {.name = "toy"});
    weights.load(std::vector<BlockHome>(blocks, home));
    auto x = at::ones({3, 128});
    auto plain = model.forward(x);
    auto path = folder.path() / "toy.safetensors";
    auto whole = read_file(path);
    auto time = std::filesystem::last_write_time(path);
    // With its size and time as they were it stands for a disk that failed for a moment.
    std::filesystem::resize_file(path, 4096);
    CHECK_THROWS_AS(model.forward(x), Error);
    std::ofstream(path, std::ios::binary) << whole;
    std::filesystem::last_write_time(path, time);
    for (int i = 0; i < 2; ++i) {
      weights.checkpoint().refresh_files();
      CHECK(at::equal(model.forward(x), plain));
    }
  }
}
