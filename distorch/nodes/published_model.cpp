#include "distorch/nodes/published_model.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "distorch/base/error.h"
#include "distorch/nodes/model_cache.h"
#include "distorch/nodes/model_directories.h"
#include "distorch/streaming/engine.h"

namespace distorch::nodes {

namespace fs = std::filesystem;

namespace {

bool ends_with_any(const std::string& name, std::initializer_list<const char*> ends) {
  return std::any_of(ends.begin(), ends.end(),
                     [&](const char* end) { return name.ends_with(end); });
}

}  // namespace

fs::path published_folder(graph::Call& call, const PublishedModel& model) {
  const auto& folders = call.context<ModelFolders>();
  const auto name =
      model.folder.empty() ? model.name.substr(model.name.rfind('/') + 1) : model.folder;
  if (auto found = find_directory(folders, model.type, name)) return *found;
  const bool published = model.name.find('/') != std::string::npos;
  const auto places = folders.folders(model.type);
  // A plan needs the sizes of what is there, and nothing is brought for one.
  if (call.has_context<Downloads>() && published && !places.empty() &&
      !call.context<streaming::Engine>().plan_only()) {
    const auto folder = places.front() / name;
    try {
      call.context<Downloads>().fetch(
          model.name, model.wanted ? model.wanted : transformers_files, folder,
          [&call](double done, double all) { call.progress(done, all); });
    } catch (const Error& problem) {
      if (problem.kind() == ErrorKind::Interrupted) throw;
      // The folder that they may be put into by hand is nothing that a download knows the use of.
      throw Error(problem.kind(), problem.where(),
                  fmt::format("{} ({} of {} belong into {})", problem.sentence(), model.files,
                              model.name, folder.string()));
    }
    return folder;
  }
  throw Error(ErrorKind::MissingFile, fmt::format("models/{}/{}", model.type, name),
              fmt::format("is not there: put {} of {} into a folder of that name ({}){}",
                          model.files, model.name, folders.searched(model.type),
                          published ? ", or have them downloaded: distorch run or serve with "
                                      "--allow-downloads"
                                    : ""));
}

fs::path file_in(const fs::path& folder, const char* name) {
  if (fs::is_regular_file(folder / name)) return folder / name;
  throw Error(ErrorKind::MissingFile, (folder / name).string(),
              "is not there: put it beside the weights, from where they came");
}

fs::path weights_in(const fs::path& folder, const std::string& what) {
  for (const char* name :
       {"model.safetensors", "model.safetensors.index.json", "pytorch_model.bin"})
    if (fs::is_regular_file(folder / name)) return folder / name;
  throw Error(ErrorKind::MissingFile, folder.string(),
              fmt::format("holds neither model.safetensors nor pytorch_model.bin: put the weights "
                          "of {} into this folder",
                          what));
}

std::string folder_identity(const fs::path& folder) {
  std::set<std::string> files;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error))
    if (std::error_code ignored; entry->is_regular_file(ignored))
      files.insert(ModelCache::identity(entry->path()));
  return fmt::format("{}", fmt::join(files, "|"));
}

at::ScalarType chosen_dtype(const std::string& precision, const Settings& settings,
                            const device::DeviceInfo& device) {
  auto asked = settings;
  asked.text_dtype = settings.force_fp32   ? at::kFloat
                     : precision == "fp16" ? at::kHalf
                     : precision == "bf16" ? at::kBFloat16
                                           : at::kFloat;
  return text_dtype(asked, device);
}

std::vector<std::string> transformers_files(const std::vector<std::string>& all) {
  std::vector<std::string> small, tensors, pickled;
  for (const auto& name : all) {
    if (name.find('/') != std::string::npos) continue;
    if (name.ends_with(".safetensors"))
      tensors.push_back(name);
    else if (name.starts_with("pytorch_model") && name.ends_with(".bin"))
      pickled.push_back(name);
    else if (ends_with_any(name, {".json", ".txt", ".model", ".jinja"}))
      small.push_back(name);
  }
  const auto& weights = tensors.empty() ? pickled : tensors;
  // Without weights there is nothing that the rest belongs to.
  if (weights.empty()) return {};
  small.insert(small.end(), weights.begin(), weights.end());
  return small;
}

}  // namespace distorch::nodes
