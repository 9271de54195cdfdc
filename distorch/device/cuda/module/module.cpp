#include "distorch/device/cuda/module.h"

#include <ATen/cuda/CUDAGraph.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAFunctions.h>
#include <c10/cuda/CUDAStream.h>
#include <cuda_runtime_api.h>
#include <torch/headeronly/version.h>

// The module (module.h): the only file that CUDA's and torch's CUDA headers are needed for. It uses
// nothing else of distorch.
namespace distorch::device::cuda {
namespace {

class TorchGraph final : public Graph {
 public:
  void begin(Pool pool) override {
    graph_.capture_begin({pool.first, pool.second}, cudaStreamCaptureModeThreadLocal);
  }
  void end() override { graph_.capture_end(); }
  void replay() override { graph_.replay(); }
  Pool pool() override {
    const auto pool = graph_.pool();
    return {pool.first, pool.second};
  }

 private:
  at::cuda::CUDAGraph graph_;
};

class TorchModule final : public Module {
 public:
  void* stream(const c10::Stream& stream) const override {
    return c10::cuda::CUDAStream(stream).stream();
  }
  c10::Stream new_stream(bool high_priority) const override {
    cudaStream_t stream = nullptr;
    C10_CUDA_CHECK(
        cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, high_priority ? -1 : 0));
    return c10::cuda::getStreamFromExternal(stream, c10::cuda::current_device()).unwrap();
  }
  int enter_context() const override {
    std::size_t free = 0, total = 0;
    return memory(free, total);
  }
  int memory(std::size_t& free, std::size_t& total) const override {
    return cudaMemGetInfo(&free, &total);
  }
  int register_host(void* start, std::size_t bytes, bool read_only) const override {
    return cudaHostRegister(start, bytes,
                            cudaHostRegisterPortable | (read_only ? cudaHostRegisterReadOnly : 0));
  }
  int unregister_host(void* start) const override { return cudaHostUnregister(start); }
  int copy_from_host(void* to, const void* from, std::size_t bytes, void* stream) const override {
    return cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice,
                           static_cast<cudaStream_t>(stream));
  }
  std::string text_of(int error) const override {
    return "CUDA error " + std::to_string(error) + ": " +
           cudaGetErrorString(static_cast<cudaError_t>(error));
  }
  void forget_error() const override { cudaGetLastError(); }
  void limit_share(int device, double share) const override {
    c10::cuda::CUDACachingAllocator::setMemoryFraction(share,
                                                       static_cast<c10::DeviceIndex>(device));
  }
  std::unique_ptr<Graph> graph() const override { return std::make_unique<TorchGraph>(); }
};

const Module& made() {
  static const TorchModule one;
  return one;
}

}  // namespace
}  // namespace distorch::device::cuda

extern "C" __attribute__((visibility("default"))) const distorch::device::cuda::ModuleEntry*
distorch_cuda_module() {
  using namespace distorch::device::cuda;
  static const ModuleEntry entry{kModuleInterface, TORCH_VERSION, &made};
  return &entry;
}
