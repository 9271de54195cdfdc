#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
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
#include "distorch/weights/shards.h"

namespace distorch::cli {

namespace {

struct Options {
  std::string file;
  bool tensors = false;
  bool json = false;
  bool verify = false;
};

using Json = nlohmann::ordered_json;

/// Bytes of a weight and of what explains it.
std::int64_t bytes_of(const weights::Stored& stored) {
  std::int64_t bytes = 0;
  for (const auto& tensor : weights::tensors_of(stored)) bytes += tensor.size_bytes;
  return bytes;
}

/// "Q4_K", "int8_tensorwise", "BF16": how a weight is kept.
std::string form_of(const weights::Stored& stored) {
  return stored.encoding ? std::string(stored.encoding->name()) : formats::name_of(stored.dtype);
}

/// {"Q4_K": {"weights": 24, "bytes": 3538944}, ...} of all weights, what explains them counted with
/// them.
Json forms_of(const weights::Checkpoint& file) {
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> forms;
  for (const auto& [name, stored] : file.tensors()) {
    auto& [count, bytes] = forms[form_of(stored)];
    ++count;
    bytes += bytes_of(stored);
  }
  Json result = Json::object();
  for (const auto& [name, total] : forms)
    result[name] = {{"weights", total.first}, {"bytes", total.second}};
  return result;
}

/// The form that most bytes are in.
std::string main_form(const Json& forms) {
  std::string best;
  std::int64_t most = -1;
  for (const auto& [name, entry] : forms.items())
    if (const auto bytes = entry["bytes"].get<std::int64_t>(); bytes > most) {
      most = bytes;
      best = name;
    }
  return best;
}

/// One model inside a file: what it is, its size, its blocks with their bytes.
Json part_json(const std::string& what, const weights::Checkpoint& part,
               weights::Manifest& manifest) {
  std::vector<std::int64_t> bytes(manifest.blocks().size(), 0);
  Json missing = Json::array();
  for (const auto& weight : manifest.weights()) {
    if (const auto* stored = part.find(weight.name))
      bytes[weight.block] += bytes_of(*stored);
    else if (!weight.optional)
      missing.push_back(weight.name);
  }
  std::int64_t all = 0;
  for (const auto& [name, stored] : part.tensors()) all += bytes_of(stored);
  Json blocks = Json::array();
  for (std::size_t i = 0; i < bytes.size(); ++i)
    blocks.push_back({{"name", manifest.blocks()[i]}, {"bytes", bytes[i]}});
  return {{"what", what},
          {"bytes", all},
          {"dtype", main_form(forms_of(part))},
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

using Files = std::vector<std::shared_ptr<const formats::TensorFile>>;

/// The files of a model, all of them where one is named or their index; where some are not there the
/// one that is named, and what is to be said about that.
Files open_all(const std::string& path, std::string& note) {
  auto parts = weights::shards_of(path);
  try {
    parts = weights::complete_shards_of(path);
  } catch (const Error& error) {
    if (error.kind() != ErrorKind::MissingFile || !std::filesystem::exists(path) ||
        path.ends_with(".json"))
      throw;
    parts = {path};
    note = error.sentence();
  }
  Files files;
  for (const auto& part : parts)
    files.push_back(std::make_shared<formats::TensorFile>(formats::open_tensor_file(part)));
  return files;
}

/// "file", "files" (of a model in several), "format", "bytes", "tensors", "dtypes", "forms" (where
/// any weight is packed).
Json summary(const Options& options, const Files& files, const weights::Checkpoint& all) {
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> dtypes;
  std::size_t bytes = 0, tensors = 0;
  Json names = Json::array();
  for (const auto& file : files) {
    names.push_back(file->path().filename().string());
    bytes += file->mapping()->size();
    tensors += file->tensors().size();
    for (const auto& info : file->tensors()) {
      auto& [count, size] = dtypes[info.packing.empty() ? name_of(info.dtype) : info.packing];
      ++count;
      size += static_cast<std::int64_t>(info.size_bytes);
    }
  }
  Json result{{"file", options.file}};
  if (files.size() > 1) result["files"] = names;
  result.update({{"format", files.front()->format()}, {"bytes", bytes}, {"tensors", tensors}});
  for (const auto& [name, total] : dtypes)
    result["dtypes"][name] = {{"tensors", total.first}, {"bytes", total.second}};
  const auto packed = [](const auto& weight) { return weight.second.encoding != nullptr; };
  if (std::ranges::any_of(all.tensors(), packed)) result["forms"] = forms_of(all);
  return result;
}

Json describe(const Options& options) {
  std::string note;
  const auto files = open_all(options.file, note);
  const auto file = weights::joined_shards(files);
  auto result = summary(options, files, file);
  std::string family;
  try {
    result["parts"] = parts_of(file, family);
  } catch (const Error& error) {
    result["parts"] = Json::array();
    if (note.empty()) note = error.sentence();
  }
  if (!note.empty()) result["note"] = note;
  result["family"] = family.empty() ? Json(nullptr) : Json(family);
  result["metadata"] = files.front()->metadata();
  if (options.tensors)
    for (const auto& one : files)
      for (const auto& info : one->tensors())
        result["list"].push_back(
            {{"name", info.name},
             {"dtype", info.packing.empty() ? name_of(info.dtype) : info.packing},
             {"shape", info.shape},
             {"bytes", info.size_bytes}});
  if (options.verify) result["verify"] = verified(file);
  return result;
}

/// The first names of a list, and how many more there are.
std::string some_of(const Json& names) {
  constexpr std::size_t shown = 5;
  std::vector<std::string> some;
  for (std::size_t i = 0; i < std::min(shown, names.size()); ++i) some.push_back(names[i]);
  const auto more = names.size() > shown ? fmt::format(" and {} more", names.size() - shown) : "";
  return fmt::format("{}{}", fmt::join(some, ", "), more);
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
    fmt::print("faulty: {} {} numbers that are not finite: {}\n", faulty.size(),
               faulty.size() == 1 ? "weight has" : "weights have", some_of(faulty));
}

/// A table of {"name": {counted: n, "bytes": b}}.
void print_sizes(const Json& sizes, const char* what, const char* counted) {
  std::vector<std::vector<std::string>> rows{{what, counted, "size"}};
  for (const auto& [name, entry] : sizes.items())
    rows.push_back({name, std::to_string(entry[counted].get<std::int64_t>()),
                    human_bytes(entry["bytes"].get<double>())});
  fmt::print("\n{}", format_table(rows, {1, 2}));
}

void print(const Json& file) {
  const auto several =
      file.contains("files") ? fmt::format(" in {} files", file["files"].size()) : std::string();
  fmt::print("{}: {}{}, {} tensors, {}\n", file["file"].get<std::string>(),
             file["format"].get<std::string>(), several, file["tensors"].get<std::size_t>(),
             human_bytes(file["bytes"].get<double>()));
  fmt::print("family: {}\n", file["family"].is_null() ? "none that distorch knows"
                                                      : file["family"].get<std::string>());
  if (file.contains("note")) fmt::print("note: {}\n", file["note"].get<std::string>());
  // How the weights are kept says more than the types of the tensors that they are made of.
  if (file.contains("forms"))
    print_sizes(file["forms"], "form", "weights");
  else
    print_sizes(file.value("dtypes", Json::object()), "dtype", "tensors");
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
  command
      ->add_option(
          "file", options->file,
          "A weights file of any format; of a model in several files any one, or their index")
      ->required();
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
