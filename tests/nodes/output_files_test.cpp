#include "distorch/nodes/output_files.h"

#include <fstream>

#include "distorch/base/error.h"
#include "distorch/media/png.h"
#include "distorch/media/read_image.h"
#include "tests/nodes/tiny_app.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;
using nodes::next_number;
using nodes::output_place;

namespace {

void touch(const fs::path& file) { std::ofstream(file) << "x"; }

Json save_prompt(const Json& inputs, const char* type = "SaveImage") {
  Json prompt = {
      {"1",
       {{"class_type", "EmptyImage"},
        {"inputs", {{"width", 6}, {"height", 4}, {"batch_size", 2}, {"color", 0x3380C8}}}}}};
  Json all = {{"images", {"1", 0}}};
  if (inputs.is_object()) all.update(inputs);
  prompt["2"] = {{"class_type", type}, {"inputs", all}};
  return prompt;
}

}  // namespace

TEST_CASE("output names: numbers go on from the highest") {
  TemporaryFolder folder("numbers");
  auto place = output_place("ComfyUI", folder);
  CHECK(next_number(place) == 1);
  touch(folder.path() / "ComfyUI_00007_.png");
  touch(folder.path() / "ComfyUI_00003_.png");
  touch(folder.path() / "ComfyUI_x_.png");
  touch(folder.path() / "ComfyUIx_00050_.png");
  touch(folder.path() / "Other_00060_.png");
  CHECK(next_number(place) == 8);
  touch(folder.path() / "ComfyUI_123456_.latent");
  CHECK(next_number(place) == 123457);
  CHECK(nodes::numbered("a", 3, ".png") == "a_00003_.png");
  CHECK(nodes::numbered("a", 123457, ".png") == "a_123457_.png");
}

TEST_CASE("output names: variables and subfolders") {
  TemporaryFolder folder("variables");
  auto place = output_place("a/b/%width%x%height%_%year%", folder, 64, 32);
  CHECK(place.subfolder == "a/b");
  CHECK(place.name.find("64x32_2") == 0);
  CHECK(fs::is_directory(folder.path() / "a" / "b"));
  CHECK(output_place("%date:yyyy%_x", folder).name == "%date:yyyy%_x");
  CHECK(output_place("./x", folder).subfolder == "");
}

TEST_CASE("output names: nothing is written outside of the output folder") {
  TemporaryFolder folder("outside");
  auto out = folder.path() / "output";
  for (const char* prefix : {"../x", "a/../../x", "/tmp/x", "../output2/x"})
    CHECK_THROWS_WITH_AS(output_place(prefix, out),
                         doctest::Contains("leads out of the output folder"), Error);
  fs::create_directories(out);
  fs::create_directory_symlink(folder.path(), out / "link");
  CHECK_THROWS_AS(output_place("link/x", out), Error);
  CHECK_NOTHROW(output_place("a/../x", out));
}

TEST_CASE("output names: a folder that cannot be made or written is named") {
  TemporaryFolder folder("unwritable");
  touch(folder.path() / "file");
  CHECK_THROWS_WITH_AS(output_place("x", folder.path() / "file"),
                       doctest::Contains("cannot be made"), Error);
}

TEST_CASE("SaveImage writes numbered PNGs that carry their workflow") {
  TinyApp tiny;
  auto prompt = save_prompt({{"filename_prefix", "pictures/red"}});
  auto result = tiny.run(prompt);
  REQUIRE(result.run.status == graph::RunStatus::Success);
  auto images = result.run.outputs["2"]["images"];
  REQUIRE(images.size() == 2);
  CHECK(images[0] ==
        Json{{"filename", "red_00001_.png"}, {"subfolder", "pictures"}, {"type", "output"}});
  CHECK(images[1]["filename"] == "red_00002_.png");
  auto file = tiny.folder() / "output" / "pictures" / "red_00002_.png";
  auto texts = media::read_png_texts(file);
  REQUIRE(texts.size() == 2);
  CHECK(texts[0].keyword == "prompt");
  CHECK(Json::parse(texts[0].value) == prompt);
  CHECK(texts[1].keyword == "workflow");
  CHECK(texts[1].value == "{\"note\":\"gr\\u00fc\\u00df\"}");
  auto image = media::read_image(file);
  CHECK(image.width == 6);
  CHECK(image.height == 4);
  CHECK(image.pixels[0] == 0x33);
  CHECK(image.pixels[1] == 0x80);
  CHECK(image.pixels[2] == 0xC8);

  // Unchanged: shown again, not written again. Changed: the next numbers.
  tiny.run_well(prompt);
  CHECK_FALSE(fs::exists(tiny.folder() / "output" / "pictures" / "red_00003_.png"));
  prompt["1"]["inputs"]["color"] = 1;
  tiny.run_well(prompt);
  CHECK(fs::exists(tiny.folder() / "output" / "pictures" / "red_00004_.png"));
}

TEST_CASE("SaveImage numbers each file of %batch_num% on its own") {
  TinyApp tiny;
  auto result = tiny.run(save_prompt({{"filename_prefix", "n%batch_num%"}}));
  REQUIRE(result.run.status == graph::RunStatus::Success);
  CHECK(result.run.outputs["2"]["images"][0]["filename"] == "n0_00001_.png");
  CHECK(result.run.outputs["2"]["images"][1]["filename"] == "n1_00001_.png");
}

TEST_CASE("PreviewImage writes into the temporary folder; metadata can be left out") {
  TinyApp tiny;
  tiny.app.settings.disable_metadata = true;
  auto result = tiny.run(save_prompt({}, "PreviewImage"));
  REQUIRE(result.run.status == graph::RunStatus::Success);
  auto shown = result.run.outputs["2"]["images"][0];
  CHECK(shown["type"] == "temp");
  CHECK(shown["filename"].get<std::string>().find("ComfyUI_temp_") == 0);
  CHECK(
      media::read_png_texts(tiny.folder() / "temp" / shown["filename"].get<std::string>()).empty());
}

TEST_CASE("SaveImage outside of the output folder fails and names the node's input") {
  TinyApp tiny;
  auto result = tiny.run(save_prompt({{"filename_prefix", "../../x"}}));
  CHECK(result.run.status == graph::RunStatus::Error);
  CHECK(result.error.find("leads out of the output folder") != std::string::npos);
}

TEST_CASE("latents come back as they were saved") {
  TinyApp tiny;
  auto sample = at::randn({2, 4, 5, 7});
  tiny.catalog.add({.name = "Random", .outputs = {"LATENT"}, .run = [&](graph::Call& call) {
                      call.out(0, graph::Value::of("LATENT", sampling::Latent{sample, {}, {}}));
                    }});
  auto result =
      tiny.run({{"1", {{"class_type", "Random"}, {"inputs", Json::object()}}},
                {"2",
                 {{"class_type", "SaveLatent"},
                  {"inputs", {{"samples", {"1", 0}}, {"filename_prefix", "latents/x"}}}}}});
  REQUIRE(result.run.status == graph::RunStatus::Success);
  CHECK(result.run.outputs["2"]["latents"][0] ==
        Json{{"filename", "x_00001_.latent"}, {"subfolder", "latents"}, {"type", "output"}});
  auto file = open_checkpoint(tiny.folder() / "output" / "latents" / "x_00001_.latent");
  CHECK(file.has("latent_format_version_0"));
  auto loaded = tiny.value_of({{"3",
                                {{"class_type", "LoadLatent"},
                                 {"inputs", {{"latent", "latents/x_00001_.latent [output]"}}}}}},
                              {"3", 0});
  CHECK(at::equal(loaded.as<sampling::Latent>().samples, sample));
}
