#include <dlfcn.h>
#include <fmt/format.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>
#include <torch/headeronly/version.h>

#include "distorch/base/error.h"
#include "distorch/device/cuda/module.h"

namespace distorch::device::cuda {
namespace {

const Module* opened = nullptr;

std::string version_text(std::uint64_t abi) {
  return fmt::format("{}.{}.{}", abi >> 56 & 0xff, abi >> 48 & 0xff, abi >> 40 & 0xff);
}

/// The folder of this program, and of the library that this code is in where it is in one.
std::vector<std::filesystem::path> own_folders() {
  std::vector<std::filesystem::path> folders;
  const auto add = [&](const std::filesystem::path& file) {
    std::error_code failed;
    const auto real = std::filesystem::canonical(file, failed);
    if (!failed && (folders.empty() || folders.back() != real.parent_path()))
      folders.push_back(real.parent_path());
  };
  add("/proc/self/exe");
  Dl_info info{};
  if (dladdr(reinterpret_cast<void*>(&open_module), &info) && info.dli_fname) add(info.dli_fname);
  return folders;
}

}  // namespace

const Module& module() {
  if (!opened) throw Error(ErrorKind::Internal, "cuda", "is used before its devices were listed");
  return *opened;
}

std::vector<std::filesystem::path> module_files() {
  std::vector<std::filesystem::path> files;
  for (const auto& folder : own_folders())
    for (const char* below : {".", "../lib", "../../lib"})
      files.push_back((folder / below / kModuleFile).lexically_normal());
  return files;
}

std::string mismatch(const ModuleEntry& entry, std::uint64_t loaded) {
  if (entry.interface_number != kModuleInterface)
    return fmt::format("it is of another build of distorch (its interface is number {}, not {})",
                       entry.interface_number, kModuleInterface);
  if (entry.torch_version != std::string_view(TORCH_VERSION))
    return fmt::format("it was built with torch {}, this program with {}", entry.torch_version,
                       TORCH_VERSION);
  if (loaded != TORCH_ABI_VERSION)
    return fmt::format("it was built with torch {}, the libtorch that is loaded is {}",
                       TORCH_VERSION, version_text(loaded));
  return {};
}

std::string open_module(const std::vector<std::filesystem::path>& files) {
  std::string places;
  for (const auto& file : files) {
    std::error_code ignored;
    if (!std::filesystem::exists(file, ignored)) {
      places += (places.empty() ? "" : ", ") + file.parent_path().string();
      continue;
    }
    void* library = dlopen(file.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
      const char* reason = dlerror();
      return fmt::format("{} cannot be loaded ({})", file.string(), reason ? reason : "no reason");
    }
    const auto entry_of =
        reinterpret_cast<const ModuleEntry* (*)()>(dlsym(library, kModuleFunction));
    if (!entry_of) return fmt::format("{} is no module of distorch", file.string());
    const auto* entry = entry_of();
    const auto problem = mismatch(*entry, aoti_torch_abi_version());
    if (!problem.empty()) return fmt::format("{} cannot be used: {}", file.string(), problem);
    opened = &entry->module();
    return {};
  }
  return fmt::format("{} is not there (looked in {})", kModuleFile, places);
}

}  // namespace distorch::device::cuda
