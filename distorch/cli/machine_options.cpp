#include "distorch/cli/machine_options.h"

#include <fmt/format.h>
#include <unistd.h>

#include "distorch/base/atomic_file.h"
#include "distorch/base/error.h"
#include "distorch/base/rig.h"
#include "distorch/base/units.h"
#include "distorch/cli/hub_downloads.h"
#include "distorch/device/device.h"
#include "distorch/device/sim/sim.h"
#include "distorch/device/wake.h"
#include "distorch/media/workflow_texts.h"
#include "distorch/placement/allocation_string.h"
#include "distorch/streaming/kernel_loader.h"

namespace distorch::cli {

namespace {

void declare_precision(CLI::App& command, MachineOptions& o) {
  const char* group = "Precision (as in ComfyUI)";
  command.add_flag("--force-fp32", o.force_fp32, "Compute everything in float32")->group(group);
  command.add_flag("--force-fp16", o.force_fp16, "Compute in float16 where the device can")
      ->group(group);
  auto one_of = [&](const std::string& part, const std::string& what, bool& fp32, bool& bf16,
                    bool& fp16) {
    auto* a = command.add_flag("--fp32-" + part, fp32, what + " in float32")->group(group);
    auto* b = command.add_flag("--bf16-" + part, bf16, what + " in bfloat16")->group(group);
    auto* c = command.add_flag("--fp16-" + part, fp16, what + " in float16")->group(group);
    a->excludes(b)->excludes(c);
    b->excludes(c);
  };
  one_of("unet", "Diffusion model", o.unet_fp32, o.unet_bf16, o.unet_fp16);
  one_of("vae", "VAE", o.vae_fp32, o.vae_bf16, o.vae_fp16);
  one_of("text-enc", "Text encoder", o.text_fp32, o.text_bf16, o.text_fp16);
  command.add_flag("--cpu-vae", o.cpu_vae, "Run the VAE on the CPU")->group(group);
}

std::optional<at::ScalarType> chosen(bool fp32, bool bf16, bool fp16) {
  if (fp32) return at::kFloat;
  if (bf16) return at::kBFloat16;
  if (fp16) return at::kHalf;
  return {};
}

/// The folder with the vocabulary: --tokenizers, $DISTORCH_TOKENIZERS, below the models, the
/// checkout's set-up, beside the program.
std::filesystem::path find_tokenizers(const MachineOptions& options) {
  constexpr const char* file = "bpe_simple_vocab_16e6.txt.gz";
  std::vector<std::filesystem::path> places;
  if (!options.tokenizers.empty()) places.push_back(options.tokenizers);
  if (const char* variable = std::getenv("DISTORCH_TOKENIZERS")) places.push_back(variable);
  for (const auto& models : options.models)
    places.push_back(std::filesystem::path(models) / "tokenizers" / "clip");
  std::error_code code;
  auto program = std::filesystem::read_symlink("/proc/self/exe", code).parent_path();
  for (auto folder = program; folder.has_relative_path(); folder = folder.parent_path())
    places.push_back(folder / ".deps" / "tokenizers" / "clip");
  places.push_back(std::filesystem::path(".deps") / "tokenizers" / "clip");
  for (const auto& place : places)
    if (std::filesystem::exists(place / file, code)) return place;
  return places.front();
}

/// Where the vocabularies of T5 and Qwen may lie, beside those next to CLIP's.
std::vector<std::filesystem::path> more_tokenizers(const MachineOptions& options) {
  std::vector<std::filesystem::path> places;
  for (const auto& models : options.models)
    places.push_back(std::filesystem::path(models) / "tokenizers");
  if (options.models.empty()) places.push_back(std::filesystem::path("models") / "tokenizers");
  return places;
}

std::map<std::string, std::int64_t> budgets(const MachineOptions& options) {
  std::map<std::string, std::int64_t> result;
  for (const auto& entry : options.memory) {
    auto equals = entry.find('=');
    if (equals == std::string::npos)
      throw Error(ErrorKind::Usage, "--memory " + entry,
                  "wants DEVICE=SIZE, for example cuda:0=10GiB");
    std::string name;
    try {
      name = placement::normal_device(entry.substr(0, equals));
    } catch (const Error& error) {
      throw Error(error.kind(), "--memory " + entry,
                  fmt::format("'{}' {}", entry.substr(0, equals), error.sentence()));
    }
    auto bytes = parse_bytes(entry.substr(equals + 1));
    if (bytes == 0)
      throw Error(ErrorKind::Usage, "--memory " + entry, "leaves nothing to work with");
    if (!result.emplace(name, bytes).second)
      throw Error(ErrorKind::Usage, "--memory " + entry, "gives a second budget for " + name);
  }
  return result;
}

}  // namespace

void declare(CLI::App& command, MachineOptions& o) {
  const char* files = "Folders";
  command
      .add_option("--models", o.models,
                  "Folder with checkpoints/, loras/, vae/, ... (may be given several times; "
                  "default: models)")
      ->check(CLI::ExistingDirectory)
      ->group(files);
  command.add_option("--extra-model-paths", o.extra_paths, "ComfyUI's extra_model_paths.yaml")
      ->check(CLI::ExistingFile)
      ->group(files);
  command.add_option("--output", o.output, "Where pictures go")
      ->capture_default_str()
      ->group(files);
  command.add_option("--input", o.input, "Where LoadImage looks")
      ->capture_default_str()
      ->group(files);
  command.add_option("--temp", o.temp, "Where previews go")->capture_default_str()->group(files);
  command
      .add_option(
          "--tokenizers", o.tokenizers,
          "Folder with the CLIP vocabulary, beside those called t5 and qwen (default: where the "
          "set-up put it)")
      ->group(files);
  const char* devices = "Devices and memory";
  command.add_option("--device", o.device, "Device to compute on where the workflow names none")
      ->group(devices);
  command
      .add_option(
          "--compute-devices", o.compute_devices,
          "Devices that positive and negative may be computed on at the same time, where that "
          "is faster: cuda:0,cuda:1")
      ->delimiter(',')
      ->group(devices);
  command.add_option("--device-map", o.device_map, "Use one device for another: cuda:1=cuda:0")
      ->group(devices);
  command
      .add_flag("--strict-devices", o.strict_devices,
                "Fail where the workflow names a device that is not here")
      ->group(devices);
  command.add_option("--memory", o.memory, "Budget of a device: cuda:0=10GiB")->group(devices);
  command
      .add_option("--placement", o.placement,
                  "auto | spread | tail (DisTorch2's order) | an allocation for every model: "
                  "\"cuda:0,2gb;cpu,*\"")
      ->capture_default_str()
      ->group(devices);
  command
      .add_option("--rig", o.rig,
                  "Simulate the accelerators of this machine description (rigs/*.yaml)")
      ->group(devices);
  declare_precision(command, o);
}

void declare_downloads(CLI::App& command, MachineOptions& o) {
  const char* group = "Downloads";
  command
      .add_flag("--allow-downloads", o.allow_downloads,
                "Nodes that download a published model may: into the models folder, where it is "
                "not there yet")
      ->group(group);
  command
      .add_option("--download-mirror", o.download_mirror,
                  "Where from: the address of the hub or of a mirror of it")
      ->envname("DISTORCH_DOWNLOAD_MIRROR")
      ->capture_default_str()
      ->group(group);
  command
      .add_option("--download-token", o.download_token,
                  "What the mirror is shown, for models whose terms have to be accepted")
      ->envname("DISTORCH_DOWNLOAD_TOKEN")
      ->group(group);
}

std::unique_ptr<nodes::Downloads> allowed_downloads(const MachineOptions& o) {
  if (!o.allow_downloads) return nullptr;
  return std::make_unique<HubDownloads>(server::Hub(o.download_mirror, o.download_token));
}

std::optional<Rig> install_rig(const MachineOptions& options) {
  if (options.rig.empty()) return {};
  auto rig = read_rig(options.rig);
  sim::install(rig, sim::Mode::Exec);
  return rig;
}

void wake_device(const MachineOptions& options) {
  if (!options.rig.empty()) return;
  const auto name = options.device.empty() ? "cuda:0" : placement::normal_device(options.device);
  if (name.starts_with("cuda:")) device::wake(name);  // of others make_app() says what is wrong
}

std::unique_ptr<nodes::App> make_app(const MachineOptions& o, std::optional<Rig> rig,
                                     bool plan_only) {
  nodes::Settings settings;
  settings.force_fp32 = o.force_fp32;
  settings.force_fp16 = o.force_fp16;
  settings.cpu_vae = o.cpu_vae;
  settings.unet_dtype = chosen(o.unet_fp32, o.unet_bf16, o.unet_fp16);
  settings.vae_dtype = chosen(o.vae_fp32, o.vae_bf16, o.vae_fp16);
  settings.text_dtype = chosen(o.text_fp32, o.text_bf16, o.text_fp16);
  settings.input_folder = o.input;
  settings.output_folder = o.output;
  settings.temp_folder = o.temp;
  settings.disable_metadata = o.disable_metadata;
  settings.previews = nodes::preview_method(o.preview_method);
  settings.tokenizer_folder = find_tokenizers(o);
  settings.more_tokenizers = more_tokenizers(o);

  nodes::ModelFolders folders;
  if (o.models.empty()) folders.add_root("models");
  for (const auto& root : o.models) folders.add_root(root);
  for (const auto& yaml : o.extra_paths) folders.read_extra_paths(yaml);
  folders.add_output_folder(o.output);

  streaming::EngineOptions engine;
  engine.budgets = budgets(o);
  engine.device_map = device::parse_device_map(o.device_map);
  engine.strict_devices = o.strict_devices;
  engine.rig = std::move(rig);
  engine.plan_only = plan_only;
  if (!o.device.empty()) {
    auto name = placement::normal_device(o.device);
    engine.default_device = plan_only && engine.rig ? name : device::find_device(name).name;
  }
  for (const auto& entry : o.compute_devices) {
    auto name = placement::normal_device(entry);
    settings.compute_devices.push_back(plan_only && engine.rig ? name
                                                               : device::find_device(name).name);
  }
  if (o.placement == "tail")
    engine.mode = streaming::PlacementMode::Tail;
  else if (o.placement == "spread")
    engine.mode = streaming::PlacementMode::Spread;
  else if (o.placement != "auto") {
    placement::parse_full_allocation(o.placement);  // complains now, not in the middle of a run
    engine.override_allocation = o.placement;
  }
  auto app =
      std::make_unique<nodes::App>(std::move(settings), std::move(folders), std::move(engine));
  if (!plan_only)
    streaming::kernel_loader().start(device::to_torch(app->engine.machine().device_for("")),
                                     streaming::first_kernels());
  return app;
}

}  // namespace distorch::cli
