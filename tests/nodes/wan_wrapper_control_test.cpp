// The WanVideoWrapper's control networks on the tiny models: runs of
// tests/parity/make_nodes_wan_control.py, which are the pack's own, and what is not possible.
#include "distorch/nodes/wan_wrapper_control.h"

#include <fmt/format.h>

#include "tests/nodes/simulated.h"
#include "tests/nodes/tiny_wan_wrapper.h"

using namespace distorch;
using namespace distorch::test;

namespace {

constexpr const char* kDump = "nodes_wan_control";

class ControlApp : public WrapperApp {
 public:
  explicit ControlApp(streaming::EngineOptions engine = {}) : WrapperApp(std::move(engine)) {
    for (std::string name : {"wan_control_net", "wan_uni3c", "xlabs_control"})
      write("controlnet", name, tiny_tensors({name}));
    catalog.add(
        {.name = "TinyControlImages",
         .inputs = {graph::integer("frames"), graph::integer("height"), graph::integer("width")},
         .outputs = {"IMAGE"},
         .run = [](graph::Call& call) {
           auto values = tiny_weight(
               "control images",
               {call.integer("frames"), call.integer("height"), call.integer("width"), 3});
           call.out(0, Value::of("IMAGE", (values * 60).sigmoid()));
         }});
    catalog.add({.name = "TinyRendered",
                 .inputs = {graph::integer("channels"), graph::text("size")},
                 .outputs = {"LATENT"},
                 .run = [](graph::Call& call) {
                   std::vector<std::int64_t> shape = {1, call.integer("channels")};
                   for (const auto& side : Json::parse(call.text("size"))) shape.push_back(side);
                   call.out(
                       0, Value::of("LATENT",
                                    sampling::Latent{tiny_weight("rendered", shape) * 8, {}, {}}));
                 }});
  }

  using SeededApp::write;
};

Json loader(const char* type, const char* file) {
  return node(type, {{"model", file},
                     {"base_precision", "fp32"},
                     {"quantization", "disabled"},
                     {"load_device", "main_device"}});
}

/// A case with the networks that it names, in nodes "net", "follow", "uni3c" and "render".
Json with_networks(const Json& one) {
  auto prompt = prompt_of(one);
  if (one["model"] == "wan_i2v") prompt["size"] = node("TinyPicture");
  if (const auto& how = one["follow"]; !how.is_null()) {
    prompt["net"] = loader("WanVideoControlnetLoader", "wan_control_net.safetensors");
    prompt["images"] = node("TinyControlImages",
                            {{"frames", one["frames"]}, {"height", kHeight}, {"width", kWidth}});
    prompt["follow"] = node("WanVideoControlnet", how);
    prompt["follow"]["inputs"].update(
        {{"model", {"model", 0}}, {"controlnet", {"net", 0}}, {"control_images", {"images", 0}}});
    prompt["run"]["inputs"]["model"] = {"follow", 0};
  }
  if (const auto& how = one["render"]; !how.is_null()) {
    prompt["uni3c"] = loader("WanVideoUni3C_ControlnetLoader", "wan_uni3c.safetensors");
    prompt["uni3c"]["inputs"]["attention_mode"] = "sdpa";
    prompt["latent"] = node("TinyRendered", {{"channels", 16}, {"size", one["size"].dump()}});
    prompt["render"] = node("WanVideoUni3C_embeds", how);
    prompt["render"]["inputs"].update(
        {{"controlnet", {"uni3c", 0}}, {"render_latent", {"latent", 0}}});
    prompt["run"]["inputs"]["uni3c_embeds"] = {"render", 0};
  }
  return prompt;
}

Json steered(const std::string& name) { return with_networks(workflow_case(kDump, name)); }

/// The same run with the networks computed on a device of a MultiGPU node.
Json placed(Json prompt, const std::string& device) {
  for (const char* id : {"net", "uni3c"})
    if (prompt.contains(id)) {
      auto& type = prompt[id]["class_type"];
      type = type.get<std::string>() + "MultiGPU";
      prompt[id]["inputs"]["device"] = device;
    }
  return prompt;
}

}  // namespace

TEST_CASE("the wrapper's control networks: the sampler gives what the pack's own code gives") {
  ControlApp tiny;
  Dump dump(kDump);
  double worst = 0;
  for (const auto& one : workflow_cases(kDump)) {
    const auto title = one["name"].get<std::string>();
    INFO(title);
    auto prompt = with_networks(one);
    if (title == "render in windows") {
      // The pack of October 2025 forgets Uni3C in windows; its later releases do not.
      CHECK(difference(tiny.samples(prompt, {"run", 0}), dump[title]) > 1e-3);
      prompt["run"]["inputs"].erase("uni3c_embeds");
    }
    const auto error = difference(tiny.samples(prompt, {"run", 0}), dump[title]);
    CHECK(error < 1e-4);
    worst = std::max(worst, error);
  }
  MESSAGE("the wrapper's control networks: largest difference " << worst);
}

TEST_CASE("the wrapper's control networks count by their strength and in their part of the run") {
  ControlApp tiny;
  for (const char* name : {"follow", "render"}) {
    INFO(name);
    const auto prompt = steered(name);
    const std::string prefix = name == std::string("follow") ? "control_" : "";
    auto with = [&](double strength, double start, double end) {
      auto changed = prompt;
      auto& inputs = changed[name]["inputs"];
      inputs["strength"] = strength;
      inputs[prefix + "start_percent"] = start;
      inputs[prefix + "end_percent"] = end;
      return tiny.samples(changed, {"run", 0});
    };
    auto bare = prompt;
    bare["run"]["inputs"]["model"] = {"model", 0};
    bare["run"]["inputs"].erase("uni3c_embeds");
    const auto plain = tiny.samples(bare, {"run", 0});
    const auto whole = with(1, 0, 1);
    CHECK(difference(whole, plain) > 1e-3);
    CHECK(at::equal(with(0, 0, 1), plain));
    // A ControlNet's end does not count any more, Uni3C's does, as in the pack.
    CHECK(at::equal(with(1, 0, 0), plain) == (prefix == "control_"));
    CHECK(at::equal(with(1, 0.8, 1), plain));  // four steps begin at 0, 0.25, 0.5 and 0.75
    const auto late = with(1, 0.75, 1);
    CHECK(difference(late, plain) > 1e-6);
    CHECK(difference(late, whole) > 1e-6);
    CHECK(difference(with(0.5, 0, 1), whole) > 1e-6);
  }
}

TEST_CASE("the wrapper's control networks go with windows: one over the whole video is none") {
  ControlApp tiny;
  for (const char* name : {"follow", "render"}) {
    INFO(name);
    auto prompt = steered(name);
    const auto whole = tiny.samples(prompt, {"run", 0});
    auto windows = [&](int frames, int overlap) {
      auto cut = prompt;
      cut["windows"] = node("WanVideoContextOptions", {{"context_schedule", "static_standard"},
                                                       {"context_frames", frames},
                                                       {"context_stride", 4},
                                                       {"context_overlap", overlap},
                                                       {"freenoise", false},
                                                       {"verbose", false}});
      cut["run"]["inputs"]["context_options"] = {"windows", 0};
      return tiny.samples(cut, {"run", 0});
    };
    CHECK(difference(windows(9, 4), whole) < 1e-5);
    CHECK(difference(windows(5, 4), whole) > 1e-4);
  }
}

TEST_CASE("the wrapper's control networks are opened once and rest where a node says") {
  at::Tensor whole;
  for (const std::string device : {"cpu", "sim:0", "sim:1"}) {
    INFO(device);
    ControlApp tiny(simulated());
    const auto prompt = placed(steered("both"), device);
    const auto samples = tiny.samples(prompt, {"run", 0});
    if (!whole.defined()) whole = samples;
    CHECK(at::equal(samples, whole));
    for (const auto& [id, name] :
         std::map<std::string, std::string>{{"net", "wan_control_net"}, {"uni3c", "wan_uni3c"}}) {
      const auto net = tiny.value_of(prompt, {id, 0}).as<WanControl>().loaded;
      CHECK(net->weights->options().compute == device);
      // What the log says of it.
      const auto tables = tiny.app.engine.tables_of(*net->weights);
      CHECK_MESSAGE(contains(tables, device), tables);
      CHECK(contains(net->weights->options().name, name));
      CHECK((net->weights->device_bytes(device) > 0 || device == "cpu"));
      // Another loader of the same file for the same device has the same weights, and one of
      // another precision its own.
      auto again = prompt;
      again["other"] = again[id];
      again["other"]["inputs"]["load_device"] = "offload_device";
      CHECK(tiny.value_of(again, {"other", 0}).as<WanControl>().loaded == net);
      again["other"]["inputs"]["quantization"] = "fp8_e4m3fn";
      CHECK(tiny.value_of(again, {"other", 0}).as<WanControl>().loaded != net);
    }
  }
  CHECK(difference(whole, Dump(kDump)["both"]) < 1e-4);
}

TEST_CASE("the wrapper's control networks: lower precisions and 8-bit weights are near") {
  ControlApp tiny;
  const auto exact = Dump(kDump)["both"];
  // The tests compute in float32 whatever is chosen. A weight of eight bits is off by up to 1/16 with
  // three of them behind the point and by 1/8 with two; over the sums of the network and four steps
  // that was 0.042 and 0.076 of the largest number, and the rounding is the same everywhere.
  struct Lower {
    std::string choice;
    double bound;
  };
  for (const auto& lower :
       {Lower{"bf16", 1e-4}, Lower{"fp8_e4m3fn", 0.05}, Lower{"fp8_e5m2", 0.09}}) {
    const auto& choice = lower.choice;
    const auto bound = lower.bound;
    INFO(choice);
    const bool packed = choice != "bf16";
    auto prompt = steered("both");
    for (const char* id : {"net", "uni3c"})
      prompt[id]["inputs"][packed ? "quantization" : "base_precision"] = choice;
    const auto error = difference(tiny.samples(prompt, {"run", 0}), exact);
    MESSAGE(choice << ": " << error);
    CHECK(error < bound);
    if (packed) CHECK(error > bound / 3);
  }
}

TEST_CASE("the wrapper's control networks: files and videos that do not fit are refused by name") {
  ControlApp tiny;
  // A file that is none: it and the tensor that it lacks.
  auto follow = steered("follow"), render = steered("render");
  auto refuses = [&](const Json& prompt, std::vector<std::string> parts) {
    const auto error = tiny.error(prompt, {"run", 0});
    for (const auto& part : parts) CHECK_MESSAGE(contains(error, part), error << " | " << part);
  };
  auto with_file = [](Json prompt, const char* id, const char* file) {
    prompt[id]["inputs"]["model"] = std::string(file) + ".safetensors";
    return prompt;
  };
  refuses(
      with_file(follow, "net", "xlabs_control"),
      {"xlabs_control.safetensors: holds no ControlNet of Wan", "'control_encoder.0.0.weight'"});
  refuses(with_file(follow, "net", "wan_uni3c"),
          {"wan_uni3c.safetensors: holds no ControlNet of Wan"});
  refuses(with_file(render, "uni3c", "wan_control_net"),
          {"wan_control_net.safetensors: holds no control network of Uni3C",
           "'controlnet_patch_embedding.weight'"});
  // One with a tensor of another shape, and one for a wider model.
  auto tensors = tiny_tensors({"wan_control_net"});
  tensors["blocks.1.attn1.to_k.weight"] = at::zeros({128, 64});
  tiny.write("controlnet", "bent", tensors);
  refuses(with_file(follow, "net", "bent"), {"bent.safetensors", "blocks.1.self_attn.k.weight"});
  tensors = tiny_tensors({"wan_control_net"});
  for (int i : {0, 1}) {
    tensors[fmt::format("controlnet_blocks.{}.weight", i)] = at::zeros({512, 128});
    tensors[fmt::format("controlnet_blocks.{}.bias", i)] = at::zeros({512});
  }
  tiny.write("controlnet", "wide", tensors);
  refuses(with_file(follow, "net", "wide"),
          {"wide.safetensors: steers models of width 512", "wan_t2v.safetensors is of width 256"});
  tensors = tiny_tensors({"wan_uni3c"});
  for (int i : {0, 1}) {
    tensors[fmt::format("proj_out.{}.weight", i)] = at::zeros({512, 128});
    tensors[fmt::format("proj_out.{}.bias", i)] = at::zeros({512});
  }
  tiny.write("controlnet", "wide_uni3c", tensors);
  refuses(with_file(render, "uni3c", "wide_uni3c"),
          {"wide_uni3c.safetensors: steers models of width 512"});
  // Each kind where the other belongs.
  auto crossed = steered("both");
  crossed["follow"]["inputs"]["controlnet"] = {"uni3c", 0};
  refuses(crossed,
          {"wan_uni3c.safetensors, which is of the other kind", "WanVideoControlnetLoader"});
  crossed = steered("both");
  crossed["render"]["inputs"]["controlnet"] = {"net", 0};
  refuses(crossed, {"wan_control_net.safetensors, which is of the other kind"});
  // Videos of another size.
  for (const auto& [side, value] : std::map<std::string, int>{{"frames", 4}, {"width", 64}}) {
    auto other = follow;
    other["images"]["inputs"][side] = value;
    refuses(other, {"wan_control_net.safetensors: got", "for a video of 9 frames of 48 x 32"});
  }
  auto other = render;
  other["latent"]["inputs"]["channels"] = 48;
  refuses(other, {"wan_uni3c.safetensors: takes the latent of one rendered video of 16 channels"});
  other = render;
  other["render"]["inputs"].erase("render_latent");
  refuses(other, {"'render_latent': link WanVideoEncode"});
  // All of that left everything as it was.
  CHECK(difference(tiny.samples(follow, {"run", 0}), Dump(kDump)["follow"]) < 1e-4);
}
