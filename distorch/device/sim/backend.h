#pragma once
#include <ATen/core/Tensor.h>

#include <torch/library.h>

#include "distorch/device/sim/machine.h"

// How the simulated accelerator becomes a torch backend: for device/sim only.
namespace distorch::sim {

/// Names PrivateUse1 "sim" and registers allocator, guard, hooks and operations. Only the first
/// call does anything.
void register_backend();

// Each in its own file; called once by register_backend.
void register_guard();
void register_hooks();
c10::Allocator* register_allocator();
void register_fallback(torch::Library& all);
void register_views(torch::Library& aten);
void register_copies(torch::Library& aten);
void register_kernels(torch::Library& aten);

/// The block behind a sim tensor. Error(Internal) for memory that the simulator did not make.
Allocation& allocation_of(const at::Tensor& sim_tensor);

/// A new tensor on the device; memory is counted, and taken from the host in exec mode. Throws
/// c10::OutOfMemoryError.
at::Tensor empty_strided(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype,
                         int device);

/// The same memory as a CPU tensor (exec) or a Meta tensor (dry), for a kernel to work on. Valid
/// while `sim_tensor` is.
at::Tensor host_view(const at::Tensor& sim_tensor);

/// Makes `result` of a CPU or Meta kernel a tensor of the device without copying it.
at::Tensor adopt(const at::Tensor& result, int device);

/// After a kernel has resized or replaced the view's memory, `sim_tensor` follows.
void follow(const at::Tensor& sim_tensor, const at::Tensor& view);

/// One operation on the thread's current stream of one device: collects its tensors, checks that
/// they are of that device and ordered, and puts its cost on the clock.
class Operation {
 public:
  explicit Operation(const std::string& name) : name_(name) {}

  /// View of an input (CPU tensor given through if 0-dimensional, refused otherwise).
  at::Tensor input(const at::Tensor& tensor, bool writes = false);
  std::optional<at::Tensor> input(const std::optional<at::Tensor>& tensor);
  /// The device without a tensor on it, for factories.
  void on(int device);
  /// Call after the inputs, before computing: the race check.
  void begin();
  /// Memory of the device that the operation needs beside its tensors while it runs. Throws
  /// c10::OutOfMemoryError.
  void hold(std::int64_t bytes) { beside_ = machine().reserve(device_, bytes); }
  /// A result: adopted, or the input whose memory it is.
  at::Tensor output(const at::Tensor& result);
  /// Call after the outputs: the clock. The tensors' bytes are added and the dtype is filled in
  /// here.
  void end(KernelWork work = {});

  int device() const { return device_; }
  std::int64_t input_bytes() const { return bytes_; }
  bool is_dry() const { return dry_; }
  const std::string& name() const { return name_; }
  struct Held {
    at::Tensor sim, view;
  };
  const std::vector<Held>& held() const { return held_; }

 private:
  const std::string& name_;
  const std::string* label_ = nullptr;
  int device_ = -1;
  int stream_ = -1;
  bool dry_ = false;
  std::int64_t bytes_ = 0;
  c10::ScalarType dtype_ = c10::ScalarType::Undefined;
  std::vector<Held> held_;
  std::vector<Touch> uses_;
  std::vector<Touch> results_;
  std::vector<at::Tensor> outputs_;
  std::unique_ptr<Allocation> beside_;
};

/// Kind and arithmetic of an operation by its name, from all its arguments and from the tensors
/// among them: of matrix products, and of operators of our own as they say (device/operators.h);
/// the cost of all others is their bytes.
KernelWork work_of(const std::string& operation, c10::ArrayRef<c10::IValue> arguments,
                   const std::vector<at::Tensor>& inputs);

}  // namespace distorch::sim
