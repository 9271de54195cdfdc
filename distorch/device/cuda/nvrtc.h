#pragma once
#include <string>

namespace distorch::device::cuda {

/// A kernel of our own, compiled by NVRTC for the device that is there the first time it is asked
/// for, kept in the user's cache folder for the next time.
struct KernelSource {
  const char* name = nullptr;  // extern "C"
  const char* text = nullptr;  // CUDA C++ without includes
  const char* before = "";     // what several share, in front of the text
};

/// The driver's function for a device, loaded once per process and device; null where it cannot be
/// had (the log says why, once). `defines`: options for the compiler, "-DELEMENT=short".
void* kernel(int device, const KernelSource& source, const std::string& defines);

}  // namespace distorch::device::cuda
