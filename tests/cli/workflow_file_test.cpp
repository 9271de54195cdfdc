#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "distorch/base/error.h"
#include "distorch/cli/machine_options.h"
#include "tests/support/source_dir.h"

using namespace distorch;

TEST_CASE("a workflow is taken from the videos that carry one") {
  auto parity = test::parity_dir();
  auto facts = graph::Json::parse(std::ifstream(parity / "video.json"));
  // What was executed comes first: of ComfyUI's tags, and of VideoHelperSuite's comment.
  for (const char* name : {"video_saved.mp4", "video_saved.webm", "video_combined.mp4"}) {
    CAPTURE(name);
    auto text = cli::workflow_text((parity / name).string());
    CHECK(graph::Json::parse(text) == facts["prompt"]);
  }
  CHECK_THROWS_WITH_AS(cli::workflow_text((parity / "video_turned.mp4").string()),
                       doctest::Contains("is a video without a workflow inside"), Error);
}
