#pragma once
#include <CLI/CLI.hpp>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "distorch/nodes/app.h"
#include "distorch/nodes/published_model.h"

namespace distorch::cli {

/// The options that `run` and `plan` share: folders, devices, memory, placement, precision.
struct MachineOptions {
  std::vector<std::string> models;       // --models, in the order given
  std::vector<std::string> extra_paths;  // --extra-model-paths
  std::string output = "output", input = "input", temp = "temp";
  std::vector<std::string> device_map, memory, sets, compute_devices;
  std::string device, placement = "auto", rig, tokenizers, preview_method = "none";
  std::string download_mirror = "https://huggingface.co", download_token;
  bool allow_downloads = false;
  bool strict_devices = false, disable_metadata = false;
  bool force_fp32 = false, force_fp16 = false, cpu_vae = false;
  bool unet_fp32 = false, unet_bf16 = false, unet_fp16 = false;
  bool vae_fp32 = false, vae_bf16 = false, vae_fp16 = false;
  bool text_fp32 = false, text_bf16 = false, text_fp16 = false;
};

void declare(CLI::App& command, MachineOptions& options);

/// What published models are downloaded from, for the commands that may.
void declare_downloads(CLI::App& command, MachineOptions& options);

/// What these options allow; null for nothing. Error(Usage) where the mirror is no address.
std::unique_ptr<nodes::Downloads> allowed_downloads(const MachineOptions& options);

/// Installs the simulated accelerators of --rig, if one is given, and returns it. Error(Usage),
/// Error(MissingFile).
std::optional<Rig> install_rig(const MachineOptions& options);

/// Has the device that these options compute on get ready meanwhile (device::wake()).
void wake_device(const MachineOptions& options);

/// The application these options describe; with `plan_only` for the rig, which need not be
/// installed. Error(Usage) naming the option that makes no sense.
std::unique_ptr<nodes::App> make_app(const MachineOptions& options, std::optional<Rig> rig,
                                     bool plan_only);

/// Reads a workflow: a JSON file, or a picture or video that carries one. Error(Format) where it
/// carries none.
std::string workflow_text(const std::string& path);

}  // namespace distorch::cli
