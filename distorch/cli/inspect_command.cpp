#include <fmt/format.h>
#include <fmt/ranges.h>

#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>

#include "distorch/base/error.h"
#include "distorch/base/units.h"
#include "distorch/cli/commands.h"
#include "distorch/cli/table.h"
#include "distorch/cli/verify.h"
#include "distorch/formats/tensor_file.h"
#include "distorch/models/catalog.h"
#include "distorch/weights/checkpoint.h"

namespace distorch::cli {

namespace {

struct Options {
  std::string file;
  bool tensors = false;
  bool json = false;
  bool verify = false;
};

using Json = nlohmann::ordered_json;

/// One model inside a file: what it is, its size, its blocks with their bytes.
Json part_json(const std::string& what, const weights::Checkpoint& part,
               weights::Manifest& manifest) {
  std::vector<std::int64_t> bytes(manifest.blocks().size(), 0);
  Json missing = Json::array();
  for (const auto& weight : manifest.weights()) {
    if (const auto* stored = part.find(weight.name))
      bytes[weight.block] += stored->size_bytes;
    else if (!weight.optional)
      missing.push_back(weight.name);
  }
  Json blocks = Json::array();
  for (std::size_t i = 0; i < bytes.size(); ++i)
    blocks.push_back({{"name", manifest.blocks()[i]}, {"bytes", bytes[i]}});
  return {{"what", what},
          {"bytes", part.size_bytes()},
          {"dtype", name_of(part.main_dtype())},
          {"blocks", blocks},
          {"missing", missing}};
}

Json parts_of(const weights::Checkpoint& file, std::string& family) {
  Json parts = Json::array();
  auto found = models::find_family(file);
  if (found) {
    family = found->name();
    auto network = found->make_network();
    parts.push_back(part_json("diffusion model", found->diffusion(), network->manifest()));
  }
  auto text = found ? found->text(file) : models::find_text(file);
  for (const auto& part : text.encoders) {
    auto encoder = part.make(nullptr);
    auto what = text.encoders.size() == 1 ? "text encoder" : "text encoder " + part.name;
    parts.push_back(part_json(what, part.part, encoder->manifest()));
  }
  if (auto vae = models::find_vae(file); !vae.empty()) {
    auto network = vae.make();
    parts.push_back(part_json("VAE", vae.part, network->manifest()));
  }
  return parts;
}

Json describe(const Options& options) {
  auto opened = std::make_shared<formats::TensorFile>(formats::open_tensor_file(options.file));
  weights::Checkpoint file(opened);
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> dtypes;
  for (const auto& info : opened->tensors()) {
    auto& [count, bytes] = dtypes[name_of(info.dtype)];
    ++count;
    bytes += static_cast<std::int64_t>(info.size_bytes);
  }
  Json result{{"file", options.file},
              {"format", opened->format()},
              {"bytes", opened->mapping()->size()},
              {"tensors", opened->tensors().size()}};
  for (const auto& [name, total] : dtypes)
    result["dtypes"][name] = {{"tensors", total.first}, {"bytes", total.second}};
  std::string family;
  try {
    result["parts"] = parts_of(file, family);
  } catch (const Error& error) {
    result["parts"] = Json::array();
    result["note"] = error.sentence();
  }
  result["family"] = family.empty() ? Json(nullptr) : Json(family);
  result["metadata"] = opened->metadata();
  if (options.tensors)
    for (const auto& info : opened->tensors())
      result["list"].push_back({{"name", info.name},
                                {"dtype", name_of(info.dtype)},
                                {"shape", info.shape},
                                {"bytes", info.size_bytes}});
  if (options.verify) result["verify"] = verified(file);
  return result;
}

/// Every weight with its hash, the faulty ones marked.
void print_verified(const Json& verified) {
  std::vector<std::vector<std::string>> rows{{"weight", "form", "size", "hash", "NaN", "infinite"}};
  for (const auto& weight : verified["weights"])
    rows.push_back({weight["name"], weight["form"], human_bytes(weight["bytes"].get<double>()),
                    weight["hash"], std::to_string(weight["nan"].get<std::int64_t>()),
                    std::to_string(weight["inf"].get<std::int64_t>())});
  fmt::print("\n{}", format_table(rows, {2, 4, 5}));
  const auto& faulty = verified["faulty"];
  fmt::print("\nhash of all: {}\n", verified["hash"].get<std::string>());
  if (faulty.empty())
    fmt::print("verified: every tensor lies within the file, every number is finite\n");
  else
    fmt::print("faulty: {} weights have numbers that are not finite, for example {}\n",
               faulty.size(), faulty[0].get<std::string>());
}

void print(const Json& file) {
  fmt::print("{}: {}, {} tensors, {}\n", file["file"].get<std::string>(),
             file["format"].get<std::string>(), file["tensors"].get<std::size_t>(),
             human_bytes(file["bytes"].get<double>()));
  fmt::print("family: {}\n", file["family"].is_null() ? "none that distorch knows"
                                                      : file["family"].get<std::string>());
  if (file.contains("note")) fmt::print("note: {}\n", file["note"].get<std::string>());
  std::vector<std::vector<std::string>> rows{{"dtype", "tensors", "size"}};
  const auto dtypes = file.value("dtypes", Json::object());
  for (const auto& [name, entry] : dtypes.items())
    rows.push_back({name, std::to_string(entry["tensors"].get<std::int64_t>()),
                    human_bytes(entry["bytes"].get<double>())});
  fmt::print("\n{}", format_table(rows, {1, 2}));
  for (const auto& part : file["parts"]) {
    fmt::print("\n{}: {}, {}, {} blocks\n", part["what"].get<std::string>(),
               human_bytes(part["bytes"].get<double>()), part["dtype"].get<std::string>(),
               part["blocks"].size());
    std::vector<std::vector<std::string>> blocks;
    for (const auto& block : part["blocks"])
      blocks.push_back(
          {"  " + block["name"].get<std::string>(), human_bytes(block["bytes"].get<double>())});
    fmt::print("{}", format_table(blocks, {1}));
    if (!part["missing"].empty())
      fmt::print("  missing {} tensors, for example {}\n", part["missing"].size(),
                 part["missing"][0].get<std::string>());
  }
  if (file.contains("verify")) print_verified(file["verify"]);
  if (!file.contains("list")) return;
  std::vector<std::vector<std::string>> list{{"tensor", "dtype", "shape", "size"}};
  for (const auto& tensor : file["list"])
    list.push_back({tensor["name"], tensor["dtype"], tensor["shape"].dump(),
                    human_bytes(tensor["bytes"].get<double>())});
  fmt::print("\n{}", format_table(list, {3}));
}

}  // namespace

void add_inspect_command(CLI::App& app, Action& chosen) {
  auto options = std::make_shared<Options>();
  auto* command = app.add_subcommand(
      "inspect", "What a model file holds; reads its header only, unless asked to verify it");
  command->fallthrough();
  command->add_option("file", options->file, "A weights file of any format")->required();
  command->add_flag("--tensors", options->tensors, "List every tensor");
  command->add_flag("--verify", options->verify,
                    "Read everything: a hash of each weight, and whether its numbers are finite; "
                    "exit status 1 where some are not");
  command->add_flag("--json", options->json, "Print JSON");
  command->callback([options, &chosen] {
    chosen = [options] {
      auto file = describe(*options);
      if (options->json)
        std::cout << file.dump(2) << '\n';
      else
        print(file);
      return file.contains("verify") && !file["verify"]["faulty"].empty() ? 1 : 0;
    };
  });
}

}  // namespace distorch::cli
