#pragma once
#include <c10/core/Stream.h>
#include <dlfcn.h>

#include <cstdint>
#include <string>

// NVIDIA's libraries, found at run time: nothing of CUDA is needed to build. Functions are looked
// up by name and their signatures stand here. For device/cuda only.
namespace distorch::device::cuda {

/// Null where the library is null or lacks it.
template <class Function>
Function find(void* library, const char* name) {
  return library ? reinterpret_cast<Function>(dlsym(library, name)) : nullptr;
}

/// CUmemcpyAttributes of CUDA 13: when a batch's copies read, and hints that are left out.
struct CopyAttributes {
  int source_order = 1;  // in the stream's order
  int hints[4] = {};
  unsigned flags = 0;
};

/// What of the driver (libcuda) is used. Available before torch's CUDA half is loaded, creates no
/// context. A function that the driver lacks is null.
struct Driver {
  int (*init)(unsigned) = nullptr;
  int (*count)(int*) = nullptr;
  int (*get)(int*, int) = nullptr;
  int (*name)(char*, int, int) = nullptr;
  int (*total)(std::size_t*, int) = nullptr;
  int (*bus_id)(char*, int, int) = nullptr;
  int (*attribute)(int*, int, int) = nullptr;
  int (*load_module)(void**, const void*) = nullptr;
  int (*function)(void**, void*, const char*) = nullptr;
  int (*set_function)(void*, int, int) = nullptr;
  int (*launch)(void*, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void*,
                void**, void**) = nullptr;
  int (*copy_batch)(const std::uint64_t* to, const std::uint64_t* from, const std::size_t* bytes,
                    std::size_t count, const CopyAttributes*, const std::size_t* first_of,
                    std::size_t attributes, void* stream) = nullptr;
  int (*write_value)(void* stream, std::uint64_t to, std::uint32_t value, unsigned flags) = nullptr;
  int (*wait_value)(void* stream, std::uint64_t of, std::uint32_t value, unsigned flags) = nullptr;
  int (*capture_info)(void*, int*, std::uint64_t*, void**, const void**, std::size_t*) = nullptr;

  Driver();
  int devices() const;
};
const Driver& driver();

/// The runtime that torch itself is linked to.
struct Runtime {
  int (*host_register)(void*, std::size_t, unsigned) = nullptr;
  int (*host_unregister)(void*) = nullptr;
  int (*mem_info)(std::size_t*, std::size_t*) = nullptr;
  int (*copy_async)(void*, const void*, std::size_t, int, void*) = nullptr;
  int (*last_error)() = nullptr;
  const char* (*error_text)(int) = nullptr;

  Runtime();
  /// Or torch finds an error that was dealt with at its next launch.
  void forget_error() const {
    if (last_error) last_error();
  }
  std::string text_of(int error) const;
  /// Makes the current device's context the thread's, in which the driver works: a thread that has
  /// not called the runtime yet has none. False where that fails.
  bool enter_context() const;
};
const Runtime& runtime();

/// The error code of a call to the driver, which is made once more where the thread had no context.
template <class Call>
int in_context(const Call& call) {
  constexpr int kNoContext = 201;
  const int error = call();
  return error == kNoContext && runtime().enter_context() ? call() : error;
}

/// The folder of torch's libraries; empty where that cannot be told.
std::string torch_folder();

/// The runtime's stream behind a stream of torch; `known` false where torch does not tell.
struct NativeStream {
  void* stream = nullptr;
  bool known = false;
};
NativeStream native(const c10::Stream& stream);

}  // namespace distorch::device::cuda
