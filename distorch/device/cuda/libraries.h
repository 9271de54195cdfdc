#pragma once
#include <dlfcn.h>

#include <cstdint>
#include <string>

#include "distorch/device/cuda/module.h"

// NVIDIA's driver, found at run time: its functions are looked up by name and their signatures
// stand here. What goes through torch's own CUDA code is in module.h. For device/cuda only.
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

/// What of the driver (libcuda) is used. Available before torch's CUDA half is loaded; only
/// retain_context() creates a context. A function that the driver lacks is null.
struct Driver {
  int (*init)(unsigned) = nullptr;
  int (*count)(int*) = nullptr;
  int (*get)(int*, int) = nullptr;
  int (*name)(char*, int, int) = nullptr;
  int (*total)(std::size_t*, int) = nullptr;
  int (*bus_id)(char*, int, int) = nullptr;
  int (*attribute)(int*, int, int) = nullptr;
  int (*retain_context)(void**, int) = nullptr;  // the one that torch uses too
  int (*set_limit)(int, std::size_t) = nullptr;  // of the thread's context
  int (*load_module)(void**, const void*) = nullptr;
  int (*function)(void**, void*, const char*) = nullptr;
  int (*set_function)(void*, int, int) = nullptr;
  /// A tensor map of 128 bytes: its element type, dimensions, start, sizes, strides in bytes, box,
  /// steps in elements, and four kinds of order and filling.
  int (*encode_tiled)(void*, int, unsigned, void*, const std::uint64_t*, const std::uint64_t*,
                      const unsigned*, const unsigned*, int, int, int, int) = nullptr;
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

/// The error code of a call to the driver, which is made once more where the thread had no context.
template <class Call>
int in_context(const Call& call) {
  constexpr int kNoContext = 201;
  const int error = call();
  return error == kNoContext && module().enter_context() == 0 ? call() : error;
}

/// The folder of torch's libraries; empty where that cannot be told.
std::string torch_folder();

}  // namespace distorch::device::cuda
