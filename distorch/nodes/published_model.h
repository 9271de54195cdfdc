#pragma once
#include <c10/core/ScalarType.h>

#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "distorch/graph/call.h"

namespace distorch::device {
struct DeviceInfo;
}

/// Models that are published as folders of files under a name such as "microsoft/Florence-2-base".
namespace distorch::nodes {

struct Settings;

/// What brings files of such models here. It is in a run's context where the user allows it; the
/// command line implements it: nodes know no network.
class Downloads {
 public:
  virtual ~Downloads() = default;
  /// Of all files of a model those that are wanted.
  using Wanted = std::function<std::vector<std::string>(const std::vector<std::string>&)>;
  /// Bytes that are there, and bytes in all.
  using Progress = std::function<void(double, double)>;
  /// Makes `folder` of the wanted files; it is not there before, and after an error neither.
  virtual void fetch(const std::string& model, const Wanted& wanted,
                     const std::filesystem::path& folder, const Progress& progress) = 0;
};

/// A published model as a node asks for it.
struct PublishedModel {
  std::string name;          // "microsoft/Florence-2-base"
  std::string files;         // what of it is needed, in words: "config.json and model.safetensors"
  std::string type = "LLM";  // of the model folder that it belongs below
  std::string folder;        // its name there; "": the last part of the model's name
  Downloads::Wanted wanted;  // empty: transformers_files()
};

/// The folder of a published model: where it lies below one of the places of its type; else it is
/// brought into the first of them where that is allowed. Error(MissingFile) that says what belongs
/// where, and how to have it downloaded; the errors of Downloads::fetch.
std::filesystem::path published_folder(graph::Call& call, const PublishedModel& model);

/// A file of such a folder. Error(MissingFile) naming it where it is not there.
std::filesystem::path file_in(const std::filesystem::path& folder, const char* name);
/// Its weights: model.safetensors, the index of several of those, or pytorch_model.bin.
/// Error(MissingFile) naming the folder and `what` it should hold ("a Florence-2 model").
std::filesystem::path weights_in(const std::filesystem::path& folder, const std::string& what);
/// Changes when a file that lies directly in the folder is replaced, added or taken away.
std::string folder_identity(const std::filesystem::path& folder);

/// What weights compute in: what a loader's choice asks for ("fp32", "fp16", "bf16"), as far as the
/// device can.
at::ScalarType chosen_dtype(const std::string& precision, const Settings& settings,
                            const device::DeviceInfo& device);

/// Of the files of a model as the library transformers keeps it: weights as safetensors, or where
/// there are none as pytorch_model*.bin, and every small file of settings, templates and tokenizers.
/// Folders below it are left out.
std::vector<std::string> transformers_files(const std::vector<std::string>& all);

}  // namespace distorch::nodes
