// Every loader that takes a device, on each device: where its weights are and what the log says of it
// (docs/loaders_by_device.md). Which loaders there are is asked of the catalogue; how each is used is
// in loader_devices.json.
#include <cctype>
#include <sstream>

#include "distorch/streaming/engine_watch.h"
#include "tests/nodes/simulated.h"
#include "tests/nodes/tiny_controls.h"
#include "tests/nodes/tiny_gguf.h"
#include "tests/nodes/tiny_seeded.h"
#include "tests/support/told.h"
#include "tools/make_random_model/llama_vocabulary.h"

using namespace distorch;
using namespace distorch::test;
using graph::Json;
using graph::Value;

namespace {

TensorMap with_prefix(const TensorMap& tensors, const std::string& prefix) {
  TensorMap result;
  for (const auto& [name, tensor] : tensors) result[prefix + name] = tensor;
  return result;
}

/// The tiny files of every loader, or of those of pictures.
class LoadersApp : public SeededApp {
 public:
  explicit LoadersApp(bool pictures_only = false) : SeededApp(simulated(), "loader_devices") {
    // Whatever the tests of other nodes keep quiet: here the lines are what is tested.
    const_cast<streaming::EngineOptions&>(app.engine.options()).log_tables = true;
    write_pictures();
    if (!pictures_only) {
      write_texts();
      write_videos();
      write_sounds();
    }
    catalog.add({.name = "TinyConditioning",
                 .inputs = {graph::integer("width"), graph::integer("pooled")},
                 .outputs = {"CONDITIONING"},
                 .run = [](graph::Call& call) {
                   sampling::ConditioningItem item;
                   item.cross_attn = tiny_weight("cat", {1, 7, call.integer("width")});
                   if (const auto width = call.integer("pooled"); width > 0)
                     item.pooled_output = tiny_weight("cat pooled", {1, width});
                   call.out(0, Value::of("CONDITIONING", sampling::Conditioning{item}));
                 }});
  }

 private:
  /// A file anywhere below the folder of a type.
  void write_at(const std::string& type, const fs::path& file, const TensorMap& tensors) {
    fs::create_directories((folder() / type / file).parent_path());
    write_tensors(folder() / type / file, tensors);
    app.folders.add(type, folder() / type);
  }

  /// A file whose header has the settings of a dump.
  void write_described(const std::string& type, const std::string& name, const TensorMap& tensors,
                       const std::string& dump) {
    const auto known = Json::parse(std::ifstream(parity_dir() / (dump + ".json")));
    std::vector<formats::TensorToWrite> list;
    for (const auto& [tensor, value] : tensors)
      list.push_back({tensor,
                      formats::DType::F32,
                      value.sizes().vec(),
                      {static_cast<const std::byte*>(value.const_data_ptr()), value.nbytes()}});
    fs::create_directories(folder() / type);
    formats::write_safetensors(folder() / type / (name + ".safetensors"), list,
                               {{"config", known.at("config").get<std::string>()}});
    app.folders.add(type, folder() / type);
  }

  void write_pictures() {
    write_tiny_controls();
    const auto unet = tiny_part({"unet_sd1"}, "model.diffusion_model.");
    write("diffusion_models", "unet", unet);
    write_tiny_gguf(folder() / "unet" / "unet_q8.gguf", unet, "Q8_0", "sd1");
    app.folders.add("unet_gguf", folder() / "unet");
    const auto vae = tiny_part({"vae"}, "first_stage_model.");
    write("vae", "pictures", vae);
    write("text_encoders", "words", tiny_part({"clip_l"}, "cond_stage_model.transformer."));
    write_at("diffusers", "tiny/unet/diffusion_pytorch_model.safetensors", unet);
    write_at("diffusers", "tiny/vae/diffusion_pytorch_model.safetensors", vae);
    write_at("diffusers", "tiny/text_encoder/model.safetensors",
             tiny_part({"clip_l"}, "cond_stage_model.transformer."));
    std::ofstream(folder() / "diffusers" / "tiny" / "model_index.json") << "{}";
    write("diffusion_models", "flux", tiny_tensors({"flux_dev"}));
    write("xlabs_controlnets", "xlabs_control", tiny_tensors({"xlabs_control"}));
    const auto florence = folder() / "LLM" / "Florence-2-base";
    write_at("LLM", "Florence-2-base/model.safetensors", tiny_tensors({"florence2"}));
    for (const char* file : {"config.json", "vocab.json", "merges.txt"})
      fs::copy_file(parity_dir() / "florence2" / file, florence / file);
    std::ofstream(florence / "preprocessor_config.json")
        << R"({"size": {"height": 64, "width": 64}})";
  }

  void write_texts() {
    for (std::string name : {"clip_l", "clip_g", "t5xxl"})
      write("text_encoders", name,
            tiny_part({"text_sd3"}, "text_encoders." + name + ".transformer."));
    write_tiny_gguf(folder() / "text_encoders" / "t5.gguf",
                    tiny_part({"text_sd3"}, "text_encoders.t5xxl.transformer."), "Q8_0",
                    "t5encoder");
    auto umt5 = tiny_tensors({"umt5"});
    umt5["spiece_model"] = Dump("umt5")["spiece_model"];
    write("text_encoders", "umt5", umt5);
    write("clip_vision", "vision", tiny_tensors({"clip_vision"}));
    auto llava = with_prefix(tiny_part({"text_llama"}, "text_encoders.llama.transformer."),
                             "language_model.");
    llava.merge(tiny_tensors({"nodes_hyvideo_text"}));
    const std::string name = "llava-llama-3-8b-v1_1-transformers";
    write_at("LLM", name + "/model.safetensors", llava);
    Json tokenizer = {{"model", {{"vocab", Json::object()}}}};
    int id = 0;
    for (const auto& token : random_model::llama_vocabulary())
      tokenizer["model"]["vocab"][token] = id++;
    std::ofstream(folder() / "LLM" / name / "tokenizer.json") << tokenizer.dump();
    write_at("text_encoders", "clip-vit-large-patch14/model.safetensors",
             tiny_part({"clip_l"}, "cond_stage_model.transformer."));
  }

  void write_videos() {
    for (std::string name : {"hunyuan_video", "wan_t2v"})
      write("diffusion_models", name, tiny_tensors({name}));
    for (std::string name : {"hunyuan_vae", "wan_vae"}) write("vae", name, tiny_tensors({name}));
    write("vae_approx", "taehv", tiny_tensors({"taehv"}));
    for (std::string name : {"wan_control_net", "wan_uni3c"})
      write("controlnet", name, tiny_tensors({name}));
    auto ltxv = with_prefix(tiny_tensors({"ltxv"}), "model.diffusion_model.");
    for (const auto& [name, value] : tiny_tensors({"ltxv_vae"}))
      ltxv["vae." + name] = name.ends_with(".std-of-means") ? value.abs().add_(0.5) : value;
    write_described("checkpoints", "ltxv", ltxv, "ltxv_vae");
  }

  void write_sounds() {
    for (std::string name : {"network", "vae_44k", "synchformer", "clip"})
      write("mmaudio", name, tiny_tensors({"mmaudio_" + name}));
    const fs::path vocoder = "nvidia/bigvgan_v2_44khz_128band_512x";
    write_at("mmaudio", vocoder / "bigvgan_generator.pt", tiny_tensors({"mmaudio_vocoder_44k"}));
    std::ofstream(folder() / "mmaudio" / vocoder / "config.json")
        << R"({"resblock": "1", "upsample_rates": [4, 2], "use_tanh_at_final": false,
               "resblock_dilation_sizes": [[1, 3, 5], [1, 2, 4]]})";
    write("diffusion_models", "speech", tiny_tensors({"nodes_wan_speech"}));
    const auto hears = tiny_tensors({"wav2vec2_base"});
    write("wav2vec2", "hears", with_prefix(hears, "wav2vec2."));
    const std::string published = "facebook/wav2vec2-base-960h";
    write_at("transformers", published + "/model.safetensors", hears);
    const auto known =
        Json::parse(std::ifstream(parity_dir() / "nodes_wan_speech.json"))["encoders"];
    const auto place = folder() / "transformers" / published;
    std::ofstream(place / "config.json") << known["wav2vec2_base"]["config"].dump();
    std::ofstream(place / "preprocessor_config.json") << R"({"do_normalize": true})";
  }
};

bool ends_with(const std::string& text, const std::string& end) { return text.ends_with(end); }

/// The loader that a variant's name comes from.
std::string base_of(std::string name) {
  for (const std::string end : {"_2", "MultiGPU", "DisTorch2", "DisTorch"})
    if (ends_with(name, end)) name.resize(name.size() - end.size());
  return name;
}

/// What came of one use of a loader: of each of its models where the engine has its weights, and what
/// the log says behind its name.
struct Outcome {
  std::string error;
  std::map<std::string, streaming::ModelState> models;
  std::map<std::string, std::string> said;
};

/// Where a line of the log says that weights are: behind "on ", or what is "at rest".
std::string place_in(const std::string& line) {
  const std::string whole = " blocks on ", rest = "at rest ";
  if (const auto at = line.find(whole); at != std::string::npos)
    return line.substr(at + whole.size());
  const auto at = line.find(rest);
  return at == std::string::npos ? "" : line.substr(at + rest.size());
}

Outcome outcome_of(LoadersApp& tiny, const graph::NodeType& type, const Json& row, const Json& uses,
                   const std::string& device, const std::string& allocation) {
  Json prompt = uses.at(row["use"].get<std::string>());
  Json inputs = row["inputs"];
  for (const auto& input : type.inputs) {
    const auto choices = input.choices.read();
    const bool names_devices = std::ranges::find(choices, "sim:1") != choices.end();
    if (ends_with(input.name, "donor_device"))
      inputs[input.name] = "cpu";
    else if (names_devices)
      inputs[input.name] = device;
    if (ends_with(input.name, "virtual_vram_gb")) inputs[input.name] = 0.0;
    if (ends_with(input.name, "expert_mode_allocations")) inputs[input.name] = allocation;
    if (input.name == "use_other_vram") inputs[input.name] = false;
  }
  prompt["load"] = node(type.name, inputs);
  prompt["keep"] = node("Keep", {{"value", {"run", 0}}});
  Outcome outcome;
  tiny.kept.clear();
  tiny.forget_results();
  Told told;
  const auto result = tiny.run(prompt);
  outcome.error = result.error;
  for (const auto& line : result.validation.lines()) outcome.error += line + "\n";
  for (auto& model : streaming::engine_watch().state().models)
    outcome.models[model.model] = std::move(model);
  std::istringstream lines(told.text());
  for (std::string line; std::getline(lines, line);)
    for (const auto& [name, model] : outcome.models)
      if (const auto start = "] " + name + ": ", text = line; text.find(start) != text.npos)
        if (const auto words = text.substr(text.find(start) + start.size());
            !place_in(words).empty())
          outcome.said[name] = words;
  return outcome;
}

/// A cell of the page: where the log says that the models went.
std::string cell_of(const Outcome& outcome, const Json& models) {
  std::set<std::string> places;
  std::string each;
  for (const auto& name : models) {
    const auto place = place_in(outcome.said.at(name));
    places.insert(place);
    each += (each.empty() ? "`" : "; `") + name.get<std::string>() + "` " + place;
  }
  return places.size() == 1 ? *places.begin() : each;
}

std::string sizes_of(const Outcome& outcome, const Json& models) {
  std::string text;
  for (const auto& name : models) {
    const auto& words = outcome.said.at(name);
    text += (text.empty() ? "`" : ", `") + name.get<std::string>() + "` " +
            words.substr(0, words.find(" in "));
  }
  return text;
}

/// The models that a row promises are in place, the first `spread` at `rest`, all computed on
/// `device`; the log says the same.
bool check_places(const Outcome& outcome, const Json& models, const std::string& device,
                  const std::string& rest, std::size_t spread) {
  bool good = true;
  std::size_t index = 0;
  for (const auto& model : models) {
    const auto name = model.get<std::string>();
    CAPTURE(name);
    const auto& wanted = index++ < spread ? rest : device;
    std::string known;
    for (const auto& [other, state] : outcome.models) known += other + " | ";
    const auto found = outcome.models.find(name);
    CHECK_MESSAGE(found != outcome.models.end(), known);
    if (found == outcome.models.end() || !outcome.said.count(name)) {
      CHECK_MESSAGE(outcome.said.count(name), "the log names no place");
      good = false;
      continue;
    }
    const auto& state = found->second;
    CHECK(state.compute == device);
    CHECK(state.bytes > 0);
    // Of what is lent layers of less than a thousandth of the model may stay: they are too small to
    // be worth a copy.
    std::int64_t elsewhere = 0;
    for (const auto& share : state.shares) elsewhere += share.device == wanted ? 0 : share.bytes;
    CHECK(elsewhere <= (wanted == device ? 0 : state.bytes / 1000));
    const auto place = place_in(outcome.said.at(name));
    CHECK_MESSAGE(place.ends_with(wanted), outcome.said.at(name));
    CHECK_MESSAGE((place.find(',') == std::string::npos) == (elsewhere == 0),
                  outcome.said.at(name));
  }
  return good;
}

/// Whether the test of a pack's own nodes, named in the table, uses a loader on the devices, too.
bool used_elsewhere(const Json& elsewhere, const std::string& name) {
  if (!elsewhere.contains(name)) return false;
  std::stringstream text;
  text << std::ifstream(test::source_dir() / "tests" / "nodes" / elsewhere[name].get<std::string>())
              .rdbuf();
  for (const auto& part : {base_of(name), std::string("MultiGPU"), std::string("\"sim:1\"")})
    CHECK_MESSAGE(text.str().find(part) != std::string::npos, name << ": " << part);
  return true;
}

constexpr const char* kHead =
    "| loader | its models | cpu | sim:0 | sim:1 | sim:0 computes, sim:1 lends |\n"
    "|---|---|---|---|---|---|\n";

/// The page, or its rows written anew where the environment asks for it.
std::string page_with(const std::string& rows) {
  const auto path = test::source_dir() / "docs" / "loaders_by_device.md";
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  const auto page = text.str();
  if (!std::getenv("DISTORCH_WRITE_PAGES")) return page;
  const auto made = page.substr(0, page.find(kHead)) + kHead + rows;
  std::ofstream(path) << made;
  return made;
}

}  // namespace

TEST_CASE("every loader with a device: weights are there, and the log says so") {
  LoadersApp tiny;
  const auto table =
      Json::parse(std::ifstream(test::source_dir() / "tests" / "nodes" / "loader_devices.json"));
  const auto& rows = table["loaders"];
  const auto others = table["no loaders"].get<std::set<std::string>>();
  std::map<std::string, const graph::NodeType*> loaders;
  std::set<std::string> bases;
  for (const auto& type : tiny.catalog.all()) {
    if (type->name.find("MultiGPU") == std::string::npos) continue;
    if (others.count(type->name) || used_elsewhere(table["elsewhere"], type->name)) continue;
    bases.insert(base_of(type->name));
    CHECK_MESSAGE(rows.contains(base_of(type->name)),
                  type->name << " is not in tests/nodes/loader_devices.json");
    if (rows.contains(base_of(type->name))) loaders[type->name] = type.get();
  }
  CHECK(loaders.size() >= 66);
  for (const auto& row : rows.items()) CHECK_MESSAGE(bases.count(row.key()), row.key());

  std::string page;
  for (const auto& loader : loaders) {
    const auto& name = loader.first;
    const auto& type = *loader.second;
    CAPTURE(name);
    const auto& row = rows[base_of(name)];
    const auto& models = row["models"];
    const bool spreads = name.find("DisTorch") != std::string::npos;
    std::string cells, sizes;
    auto use = [&](const std::string& device, const std::string& rest) {
      CAPTURE(device);
      CAPTURE(rest);
      const auto outcome =
          outcome_of(tiny, type, row, table["uses"], device, rest == device ? "" : rest + ",*");
      if (row.contains("refused")) {
        CHECK_MESSAGE(outcome.error.find(row["refused"].get<std::string>()) != std::string::npos,
                      outcome.error);
        cells += " | refused";
        return;
      }
      CHECK(outcome.error == "");
      const std::size_t spread = rest == device ? 0 : row.value("spread", models.size());
      if (!check_places(outcome, models, device, rest, spread)) return;
      cells += " | " + cell_of(outcome, models);
      if (sizes.empty()) sizes = sizes_of(outcome, models);
    };
    for (const char* device : {"cpu", "sim:0", "sim:1"}) use(device, device);
    if (spreads)
      use("sim:0", "sim:1");
    else
      cells += " | ";
    page += "| `" + name + "` | " + sizes + cells + " |\n";
  }
  const auto shown = page_with(page);
  std::istringstream lines(page);
  for (std::string line; std::getline(lines, line);)
    CHECK_MESSAGE(shown.find(line) != std::string::npos,
                  line << ": make docs/loaders_by_device.md anew, as it says");
}

TEST_CASE("text encoder, VAE and network on three devices: the picture of one device") {
  constexpr bool pictures_only = true;
  LoadersApp tiny(pictures_only);
  auto prompt = sampling_prompt();
  prompt.erase("1");
  prompt["load"] =
      node("UNETLoaderMultiGPU", {{"unet_name", "unet.safetensors"}, {"weight_dtype", "default"}});
  prompt["clip"] = node("CLIPLoaderMultiGPU",
                        {{"clip_name", "words.safetensors"}, {"type", "stable_diffusion"}});
  prompt["vae"] = node("VAELoaderMultiGPU", {{"vae_name", "pictures.safetensors"}});
  prompt["5"]["inputs"]["model"] = {"load", 0};
  for (const char* id : {"2", "3"}) prompt[id]["inputs"]["clip"] = {"clip", 0};
  prompt["6"] = node("VAEDecode", {{"samples", {"5", 0}}, {"vae", {"vae", 0}}});
  const std::vector<std::pair<std::string, std::string>> parts = {
      {"load", "unet"}, {"clip", "words (text encoder)"}, {"vae", "pictures (VAE)"}};
  // Where convolutions compute on the CPU they take weights as they lie in the file, and on a device
  // in an order of their own: then the last bits differ.
  struct Case {
    std::vector<std::string> devices;
    bool to_the_bit;
  };
  at::Tensor whole;
  for (const auto& one :
       {Case{{"sim:0", "sim:0", "sim:0"}, true}, Case{{"sim:0", "cpu", "sim:1"}, true},
        Case{{"sim:1", "cpu", "sim:0"}, true}, Case{{"sim:1", "sim:0", "cpu"}, false},
        Case{{"cpu", "sim:0", "sim:1"}, false}, Case{{"cpu", "cpu", "cpu"}, false}}) {
    CAPTURE(one.devices);
    for (std::size_t i = 0; i < parts.size(); ++i)
      prompt[parts[i].first]["inputs"]["device"] = one.devices[i];
    tiny.forget_results();
    tiny.kept.clear();
    Told told;
    const auto picture = tiny.value_of(prompt, {"6", 0}).as<at::Tensor>();
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const auto start = told.text().find("] " + parts[i].second + ": ");
      REQUIRE(start != std::string::npos);
      const auto line = told.text().substr(start, told.text().find('\n', start) - start);
      CHECK_MESSAGE(line.ends_with(" on " + one.devices[i]), line);
    }
    if (!whole.defined()) whole = picture;
    if (one.to_the_bit) CHECK(at::equal(picture, whole));
    CHECK(difference(picture, whole) < 1e-5);
  }
}
