#pragma once
#include <c10/core/ScalarType.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "distorch/device/device.h"
#include "distorch/formats/dtype.h"

namespace distorch::nodes {

/// How pictures of the latent are made while sampling: --preview-method.
enum class PreviewMethod {
  None,
  Latent2Rgb,  // linear factors of the latent's channels; also what "auto" means
  Taesd,       // a small autoencoder, where its file is there
};
/// "none", "auto", "latent2rgb" or "taesd". Error(Usage) for another name.
PreviewMethod preview_method(const std::string& name);

/// What the user asked for on the command line, as nodes need it. Unset dtypes: distorch chooses
/// (below).
struct Settings {
  // Precision, named after ComfyUI's options; the option of a part wins over the ones for all.
  bool force_fp32 = false;                   // --force-fp32
  bool force_fp16 = false;                   // --force-fp16
  std::optional<at::ScalarType> unet_dtype;  // --fp32-unet, --bf16-unet, --fp16-unet
  std::optional<at::ScalarType> vae_dtype;   // --fp32-vae, --bf16-vae, --fp16-vae
  std::optional<at::ScalarType> text_dtype;  // --fp32-text-enc, --bf16-text-enc, --fp16-text-enc
  bool cpu_vae = false;                      // --cpu-vae

  /// --compute-devices: where conditionings may be computed at the same time; empty: on one device.
  std::vector<std::string> compute_devices = {};

  std::filesystem::path input_folder = "input";
  std::filesystem::path output_folder = "output";
  std::filesystem::path temp_folder = "temp";
  bool disable_metadata = false;  // --disable-metadata: no prompt and workflow inside files
  PreviewMethod previews = PreviewMethod::Latent2Rgb;
  /// Holds bpe_simple_vocab_16e6.txt.gz.
  std::filesystem::path tokenizer_folder = "assets/tokenizers";
  /// Hold the other vocabularies in folders "t5" and "qwen", beside those next to tokenizer_folder.
  std::vector<std::filesystem::path> more_tokenizers;
};

/// The dtype a part computes in on a device, for a file whose weights are mostly `stored`. Warns
/// once where what was asked for cannot be had (float16 on a CPU).
///
/// - UNet: on accelerators the file's where it is fp16 or bf16, else bf16; on CPUs bf16 where they
///   are fast at it, else float32.
/// - VAE: bf16 on accelerators and on CPUs that are fast at it, else float32; float16 only where
///   the VAE's own option says so (--force-fp16 does not), for SDXL's overflows in it.
/// - Text encoders: float32.
///
/// A simulated device is as its host, but computes a float32 UNet in float32.
at::ScalarType unet_dtype(const Settings& settings, const device::DeviceInfo& device,
                          formats::DType stored);
at::ScalarType vae_dtype(const Settings& settings, const device::DeviceInfo& device);
at::ScalarType text_dtype(const Settings& settings, const device::DeviceInfo& device);

}  // namespace distorch::nodes
