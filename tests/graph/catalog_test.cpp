#include "distorch/graph/catalog.h"

#include <doctest/doctest.h>

#include "distorch/graph/json_text.h"
#include "distorch/graph/near_names.h"
#include "distorch/graph/validation.h"

using namespace distorch;
using namespace distorch::graph;

namespace {

void nothing(Call&) {}

NodeType sampler() {
  return {
      .name = "KSampler",
      .category = "sampling",
      .description = "Denoises.",
      .inputs = {graph::link("model", "MODEL", {.tooltip = "The model."}),
                 integer("seed", {.def = 0,
                                  .min = 0,
                                  .max = 18446744073709551615ull,
                                  .control_after_generate = true}),
                 number("cfg", {.def = 8.0, .min = 0.0, .max = 100.0, .step = 0.1, .round = 0.01}),
                 choice("sampler_name", {"euler", "heun"}, {.tooltip = "How."}),
                 optional(graph::link("extra", "MASK"))},
      .hidden = {{"prompt", "PROMPT"}},
      .outputs = {{"LATENT", "", "The latent."}},
      .run = nothing};
}

NodeType loader(bool own_device = false) {
  NodeType type{
      .name = "CLIPLoader",
      .display_name = "Load CLIP",
      .category = "advanced/loaders",
      .inputs = {choice("clip_name", [] { return std::vector<std::string>{"a.safetensors"}; })},
      .outputs = {"CLIP"},
      .run = nothing};
  if (own_device)
    type.inputs.push_back(
        optional(choice("device", {"default", "cpu"}, {.extra = {{"advanced", true}}})));
  type.inputs.push_back(optional(text("last")));
  return type;
}

VariantOptions devices(std::vector<std::string> list) {
  return {.devices = Choices([list] { return list; })};
}

}  // namespace

TEST_CASE("object_info: fields, their order and the form of numbers") {
  CHECK(
      definition_of(sampler()).dump() ==
      R"({"input":{"required":{"model":["MODEL",{"tooltip":"The model."}],)"
      R"("seed":["INT",{"default":0,"min":0,"max":18446744073709551615,"control_after_generate":true}],)"
      R"("cfg":["FLOAT",{"default":8.0,"min":0.0,"max":100.0,"step":0.1,"round":0.01}],)"
      R"("sampler_name":[["euler","heun"],{"tooltip":"How."}]},"optional":{"extra":["MASK"]},"hidden":{"prompt":"PROMPT"}},)"
      R"("input_order":{"required":["model","seed","cfg","sampler_name"],"optional":["extra"],"hidden":["prompt"]},)"
      R"("output":["LATENT"],"output_is_list":[false],"output_name":["LATENT"],"name":"KSampler","display_name":"KSampler",)"
      R"("description":"Denoises.","python_module":"nodes","category":"sampling","output_node":false,)"
      R"("output_tooltips":["The latent."]})");
}

TEST_CASE("object_info: the newer schema shows every flag and lists as COMBO") {
  NodeType type = sampler();
  type.newer_schema = true;
  type.inputs = {choice("format", {"auto", "mp4"}, {.def = "auto"}), graph::link("a", "LATENT")};
  type.outputs = {"LATENT"};
  CHECK(
      definition_of(type).dump() ==
      R"({"input":{"required":{"format":["COMBO",{"default":"auto","multiselect":false,"options":["auto","mp4"]}],"a":["LATENT",{}]},)"
      R"("hidden":{"prompt":["PROMPT"]}},"input_order":{"required":["format","a"],"hidden":["prompt"]},"output":["LATENT"],)"
      R"("output_is_list":[false],"output_name":["LATENT"],"output_tooltips":[null],"name":"KSampler","display_name":null,)"
      R"("description":"Denoises.","python_module":"nodes","category":"sampling","output_node":false,"deprecated":false,)"
      R"("experimental":false,"api_node":false})");
}

TEST_CASE(
    "differences: numbers, order, options and missing inputs are found; machine lists are not") {
  Json reference = definition_of(sampler());
  CHECK(differences(sampler(), reference).empty());
  NodeType other = sampler();
  other.inputs[2].options["max"] = 100;
  CHECK(differences(other, reference).size() == 1);
  other = sampler();
  std::swap(other.inputs[0], other.inputs[1]);
  CHECK(differences(other, reference).size() == 2);  // the inputs and input_order
  other = sampler();
  other.inputs[3] = choice("sampler_name", {"euler"}, {.tooltip = "How."});
  CHECK(differences(other, reference).size() == 1);
  other.inputs[3] =
      choice("sampler_name", [] { return std::vector<std::string>{"x"}; }, {.tooltip = "How."});
  CHECK(differences(other, reference).empty());
  other.inputs.pop_back();
  CHECK(differences(other, reference).size() == 2);
  other = sampler();
  other.display_name = "other";
  CHECK(differences(other, reference).size() == 1);
}

TEST_CASE("differences: descriptions and tooltips are not compared, also where one side has none") {
  Json reference = definition_of(sampler());
  NodeType other = sampler();
  other.description = "other";
  other.inputs[0] = graph::link("model", "MODEL");
  other.inputs[3] = choice("sampler_name", {"euler", "heun"}, {.tooltip = "Another."});
  other.outputs = {"LATENT"};
  CHECK(differences(other, reference).empty());
  CHECK(differences(definition_of(sampler()), definition_of(other)).empty());
}

TEST_CASE("variants of a loader: names, places, inputs and defaults") {
  VariantOptions options = devices({"cpu", "cuda:0", "cuda:1"});
  options.legacy_v1 = true;
  auto variants = multigpu_variants(loader(), options);
  REQUIRE(variants.size() == 3);
  CHECK(variants[0].name == "CLIPLoaderMultiGPU");
  CHECK(variants[0].category == "multigpu");
  CHECK(variants[1].name == "CLIPLoaderDisTorch2MultiGPU");
  CHECK(variants[1].category == "multigpu/distorch_2");
  CHECK(variants[2].name == "CLIPLoaderDisTorchMultiGPU");
  CHECK(variants[2].category == "multigpu/legacy");
  Json inputs = definition_of(variants[1])["input"]["optional"];
  CHECK(
      inputs.dump() ==
      R"({"last":["STRING"],"compute_device":[["cpu","cuda:0","cuda:1"],{"default":"cuda:0"}],)"
      R"("virtual_vram_gb":["FLOAT",{"default":4.0,"min":0.0,"max":128.0,"step":0.1}],)"
      R"("donor_device":[["cpu","cuda:0","cuda:1"],{"default":"cpu"}],)"
      R"("expert_mode_allocations":["STRING",{"default":"","multiline":false}],"eject_models":["BOOLEAN",{"default":true}]})");
  CHECK(definition_of(variants[1])["display_name"] == "CLIPLoaderDisTorch2MultiGPU");
}

TEST_CASE("variants: a text encoder has `device`, in the place of its own") {
  VariantOptions options = devices({"cpu"});
  options.text_encoder = true;
  auto variants = multigpu_variants(loader(true), options);
  Json info = definition_of(variants[1]);
  CHECK(
      info["input_order"]["optional"].dump() ==
      R"(["device","last","virtual_vram_gb","donor_device","expert_mode_allocations","eject_models"])");
  CHECK(info["input"]["optional"]["device"].dump() == R"([["cpu"],{"default":"cpu"}])");
  CHECK(info["input"]["optional"]["eject_models"][1]["default"] == false);
}

TEST_CASE("variants: a device that this machine lacks is no reason to refuse a workflow") {
  Catalog catalog;
  add_loader(catalog, loader(), devices({"cpu"}));
  catalog.add(
      {.name = "End", .inputs = {graph::link("x", "CLIP")}, .output_node = true, .run = nothing});
  auto lines = [&](const char* device, const char* donor) {
    Json prompt = {
        {"1",
         {{"class_type", "CLIPLoaderDisTorch2MultiGPU"},
          {"inputs",
           {{"clip_name", "a.safetensors"}, {"compute_device", device}, {"donor_device", donor}}}}},
        {"2", {{"class_type", "End"}, {"inputs", {{"x", {"1", 0}}}}}}};
    return validate(prompt, catalog).lines();
  };
  CHECK(lines("cuda:1", "sim:0").empty());
  auto found = lines("cuda:x", "graphics card");
  REQUIRE(found.size() == 2);
  CHECK(found[0].find("input compute_device: 'cuda:x' is not a device name") != std::string::npos);
}

TEST_CASE("catalog: aliases, duplicates, near names") {
  Catalog catalog;
  add_loader(catalog, loader(), devices({"cpu"}));
  CHECK(catalog.find("CLIPLoaderDistorch2MultiGPU") == catalog.find("CLIPLoaderDisTorch2MultiGPU"));
  CHECK(catalog.find("CLIPLoaderDisTorch2MultiGPU") != nullptr);
  CHECK(catalog.object_info().size() == 3);
  CHECK(catalog.object_info("nothing").dump() == "{}");
  CHECK_THROWS_AS(catalog.add(loader()), Error);
  CHECK_THROWS_WITH_AS(catalog.get("ClipLoadr"), doctest::Contains("Did you mean 'CLIPLoader'"),
                       Error);
}

TEST_CASE("catalog: a definition that cannot be made is left out") {
  Catalog catalog;
  catalog.add(sampler());
  NodeType broken = loader();
  broken.inputs[0] = choice("x", []() -> std::vector<std::string> {
    throw Error(ErrorKind::MissingFile, "models", "is gone");
  });
  catalog.add(broken);
  CHECK(catalog.object_info().size() == 1);
}

TEST_CASE("a call: given values, defaults, conversions and clear refusals") {
  NodeType type = sampler();
  Call::Inputs given;
  given.node_id = "5";
  given.values["seed"] = {Value::constant(18446744073709551615ull)};
  given.values["cfg"] = {Value::constant(7)};
  given.values["model"] = {Value::of("MODEL", std::string("weights"))};
  given.values["extra"] = {Value::constant(nullptr)};
  Call call(type, std::move(given));
  CHECK(call.seed("seed") == 18446744073709551615ull);
  CHECK_THROWS_AS(call.integer("seed"), Error);
  CHECK(call.number("cfg") == 7.0);
  CHECK(call.text("sampler_name") == "euler");
  CHECK_FALSE(call.has("sampler_name"));
  CHECK_FALSE(call.has("extra"));
  CHECK(call.get<std::string>("model") == "weights");
  CHECK_THROWS_WITH_AS(call.get<int>("model"), doctest::Contains("holds std::string, wanted int"),
                       Error);
  CHECK_THROWS_WITH_AS(call.in("extra"),
                       doctest::Contains("node 5 (KSampler): input 'extra' was not given"), Error);
  CHECK_THROWS_AS(call.in("nosuch"), Error);
  CHECK_THROWS_AS(call.out(1, Value()), Error);
}

TEST_CASE("near names: swaps, cases and parts; nothing for strangers") {
  std::vector<std::string> names = {"euler", "euler_ancestral", "heun", "dpmpp_2m"};
  CHECK(edit_distance("kitten", "sitting") == 3);
  CHECK(edit_distance("Euelr", "euler") == 1);
  CHECK(near_names("eulr", names).front() == "euler");
  CHECK(near_names("ancestral", names) == std::vector<std::string>{"euler_ancestral"});
  CHECK(near_names("zzzzzz", names).empty());
  CHECK(did_you_mean("zzzzzz", names).empty());
}
