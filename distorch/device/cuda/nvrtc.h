#pragma once
#include <c10/core/Stream.h>

#include <string>

namespace distorch::device::cuda {

/// A kernel of our own, compiled by NVRTC for the device that is there the first time it is asked
/// for, kept in the user's cache folder for the next time.
struct KernelSource {
  const char* name = nullptr;  // extern "C"
  const char* text = nullptr;  // CUDA C++ without includes
  const char* before = "";     // what several share, in front of the text
  bool own_features = false;   // of the architecture that it is compiled for, as in "sm_90a"
};

/// The driver's function for a device, loaded once per process and device; null where it cannot be
/// had (the log says why, once). `defines`: options for the compiler, one space between two, values of
/// several words among them: "-DELEMENT=unsigned int -DCOUNT=2".
void* kernel(int device, const KernelSource& source, const std::string& defines);

/// Whether NVRTC is there, device or not.
bool has_compiler();
/// Compiles the kernel for an architecture ("sm_90") and drops what comes out. Error(Internal) with
/// the compiler's words where it refuses it.
void try_compile(const KernelSource& source, const std::string& architecture,
                 const std::string& defines);

/// Compute capability, as 90 for 9.0; 0 where the driver does not tell.
int capability(int device);
/// How many multiprocessors the device has; 0 where the driver does not tell.
int multiprocessors(int device);
/// Lets blocks of this kernel have so much of the multiprocessor's own memory. False where the device
/// has less, or the driver refuses.
bool allow_shared(void* function, int device, std::int64_t bytes);

struct Extent {
  unsigned x = 1, y = 1, z = 1;
};

/// Starts the kernel on the stream: so many blocks of so many threads, with `shared_bytes` of the
/// multiprocessor's own memory for each block; `arguments` points to each argument. Error(Internal)
/// where the driver refuses it.
void launch(const KernelSource& source, void* function, const Extent& blocks, const Extent& threads,
            std::int64_t shared_bytes, const c10::Stream& stream, void** arguments);

}  // namespace distorch::device::cuda
