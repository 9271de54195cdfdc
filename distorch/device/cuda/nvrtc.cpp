#include "distorch/device/cuda/nvrtc.h"

#include <ATen/Context.h>
#include <c10/core/DeviceGuard.h>
#include <fmt/format.h>

#include <filesystem>
#include <map>
#include <mutex>
#include <sstream>
#include <tuple>
#include <vector>

#include "distorch/base/atomic_file.h"
#include "distorch/base/cache_folder.h"
#include "distorch/base/error.h"
#include "distorch/base/hash.h"
#include "distorch/base/log.h"
#include "distorch/device/cuda/libraries.h"
#include "distorch/device/device.h"

namespace distorch::device::cuda {
namespace {

struct Nvrtc {
  using Program = void*;
  int (*version)(int*, int*) = nullptr;
  int (*create)(Program*, const char*, const char*, int, const char* const*,
                const char* const*) = nullptr;
  int (*compile)(Program, int, const char* const*) = nullptr;
  int (*binary_size)(Program, std::size_t*) = nullptr;
  int (*binary)(Program, char*) = nullptr;
  int (*log_size)(Program, std::size_t*) = nullptr;
  int (*log_text)(Program, char*) = nullptr;
  int (*destroy)(Program*) = nullptr;

  Nvrtc() {
    // torch's own shim is linked to the NVRTC that came with torch, wherever that lies.
    void* library = dlopen((torch_folder() + "/libcaffe2_nvrtc.so").c_str(), RTLD_NOW);
    for (const char* name : {"libnvrtc.so.13", "libnvrtc.so.12"})
      if (!library) library = dlopen(name, RTLD_NOW);
    version = find<decltype(version)>(library, "nvrtcVersion");
    create = find<decltype(create)>(library, "nvrtcCreateProgram");
    compile = find<decltype(compile)>(library, "nvrtcCompileProgram");
    binary_size = find<decltype(binary_size)>(library, "nvrtcGetCUBINSize");
    binary = find<decltype(binary)>(library, "nvrtcGetCUBIN");
    log_size = find<decltype(log_size)>(library, "nvrtcGetProgramLogSize");
    log_text = find<decltype(log_text)>(library, "nvrtcGetProgramLog");
    destroy = find<decltype(destroy)>(library, "nvrtcDestroyProgram");
  }
  bool complete() const {
    return version && create && compile && binary_size && binary && log_size && log_text && destroy;
  }
};

const Nvrtc& nvrtc() {
  static const Nvrtc one;
  return one;
}

/// 0 where the driver does not tell.
int attribute(int device, int which) {
  int handle = 0, value = 0;
  if (!driver().attribute || driver().get(&handle, device) != 0 ||
      driver().attribute(&value, which, handle) != 0)
    return 0;
  return value;
}

/// "sm_90", with the architecture's own features "sm_90a"; empty where the driver does not tell.
std::string architecture(int device, bool own_features) {
  const int number = capability(device);
  return number ? fmt::format("sm_{}{}", number, own_features ? "a" : "") : std::string();
}

std::vector<std::string> options_for(const std::string& target, const std::string& defines) {
  std::vector<std::string> options{"--gpu-architecture=" + target};
  std::istringstream words(defines);
  for (std::string word; words >> word;) {
    if (word.front() == '-')
      options.push_back(word);
    else
      options.back() += " " + word;
  }
  return options;
}

/// The compiler's word is the error's. Error(Internal).
std::string compiled(const KernelSource& source, const std::vector<std::string>& options) {
  Nvrtc::Program program = nullptr;
  const auto whole = std::string(source.before) + source.text;
  if (nvrtc().create(&program, whole.c_str(), source.name, 0, nullptr, nullptr) != 0)
    throw Error(ErrorKind::Internal, source.name, "NVRTC could not be started");
  std::vector<const char*> words;
  for (const auto& option : options) words.push_back(option.c_str());
  const int failed = nvrtc().compile(program, static_cast<int>(words.size()), words.data());
  std::string text;
  std::size_t size = 0;
  if (failed) {
    nvrtc().log_size(program, &size);
    text.resize(size);
    nvrtc().log_text(program, text.data());
  } else {
    nvrtc().binary_size(program, &size);
    text.resize(size);
    nvrtc().binary(program, text.data());
  }
  nvrtc().destroy(&program);
  if (failed) throw Error(ErrorKind::Internal, source.name, "was not compiled: " + text);
  return text;
}

/// A kept kernel ends with the hash of what comes before: the driver would read beyond one that was
/// cut short.
std::string sealed(const std::string& binary) { return binary + hex(digest(binary)); }
/// Empty where the seal does not fit.
std::string unsealed(const std::string& kept) {
  constexpr std::size_t seal = 32;
  if (kept.size() <= seal) return {};
  auto binary = kept.substr(0, kept.size() - seal);
  return sealed(binary) == kept ? binary : std::string();
}

/// Empty where there is none that can be read whole.
std::string kept_in(const std::filesystem::path& path) {
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) return {};
  try {
    return unsealed(read_file(path, std::size_t{1} << 26));
  } catch (const Error&) {
    return {};  // it is made anew
  }
}

void* loaded(const std::string& binary, const char* name) {
  void *library = nullptr, *function = nullptr;
  if (binary.empty() || driver().load_module(&library, binary.data()) != 0 ||
      driver().function(&function, library, name) != 0)
    return nullptr;
  return function;
}

/// From the cache where it is there and whole, else compiled and put there.
void* made(int device, const KernelSource& source, const std::string& defines) {
  if (!driver().load_module || !driver().function || !driver().launch) return nullptr;
  const auto target = architecture(device, source.own_features);
  if (target.empty()) return nullptr;
  if (!nvrtc().complete()) {
    log::warn_once(
        "NVRTC was not found beside torch: kernels of distorch's own are replaced by slower "
        "operations of torch");
    return nullptr;
  }
  int major = 0, minor = 0;
  nvrtc().version(&major, &minor);
  const auto key =
      fmt::format("{}{} {} {}.{} {}", source.before, source.text, target, major, minor, defines);
  const auto path =
      cache_folder() / "kernels" / fmt::format("{}-{}.cubin", source.name, hex(digest(key)));
  if (auto* function = loaded(kept_in(path), source.name)) return function;
  const auto binary = compiled(source, options_for(target, defines));
  try {
    std::error_code ignored;
    std::filesystem::create_directories(path.parent_path(), ignored);
    write_file(path, sealed(binary));
  } catch (const Error& error) {
    log::debug("a compiled kernel was not kept: {}", error.what());
  }
  return loaded(binary, source.name);
}

}  // namespace

int capability(int device) {
  constexpr int kMajor = 75, kMinor = 76;
  return 10 * attribute(device, kMajor) + attribute(device, kMinor);
}

int multiprocessors(int device) {
  constexpr int kMultiprocessors = 16;
  return attribute(device, kMultiprocessors);
}

bool allow_shared(void* function, int device, std::int64_t bytes) {
  constexpr int kMostSharedBytes = 8;  // the attribute of a function
  constexpr int kSharedOptIn = 97, usual = 48 << 10;
  if (bytes <= usual) return true;
  return bytes <= attribute(device, kSharedOptIn) && driver().set_function &&
         driver().set_function(function, kMostSharedBytes, static_cast<int>(bytes)) == 0;
}

bool has_compiler() { return nvrtc().complete(); }

void try_compile(const KernelSource& source, const std::string& architecture,
                 const std::string& defines) {
  compiled(source, options_for(architecture, defines));
}

void* kernel(int device, const KernelSource& source, const std::string& defines) {
  static std::mutex mutex;
  static std::map<std::tuple<int, const char*, std::string>, void*> known;
  std::lock_guard lock(mutex);
  const auto [at, is_new] = known.try_emplace({device, source.name, defines}, nullptr);
  if (!is_new) return at->second;
  at::globalContext().lazyInitDevice(c10::DeviceType::CUDA);
  c10::DeviceGuard guard({c10::DeviceType::CUDA, static_cast<c10::DeviceIndex>(device)});
  module().enter_context();
  try {
    at->second = made(device, source, defines);
  } catch (const Error& error) {
    log::warn_once(fmt::format("{}; operations of torch take its place", error.what()));
  }
  return at->second;
}

void launch(const KernelSource& source, void* function, const Extent& blocks, const Extent& threads,
            std::int64_t shared_bytes, const c10::Stream& stream, void** arguments) {
  c10::DeviceGuard guard(stream.device());
  const int error = in_context([&] {
    return driver().launch(function, blocks.x, blocks.y, blocks.z, threads.x, threads.y, threads.z,
                           static_cast<unsigned>(shared_bytes), module().stream(stream), arguments,
                           nullptr);
  });
  constexpr int kNoMemory = 2;  // for the stacks of its threads, say
  if (error != 0)
    throw Error(error == kNoMemory ? ErrorKind::OutOfMemory : ErrorKind::Internal,
                name_of(stream.device()),
                fmt::format("{} could not be started: CUDA error {}", source.name, error));
}

}  // namespace distorch::device::cuda
