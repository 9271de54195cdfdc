#include <c10/core/CPUAllocator.h>

#include "distorch/base/error.h"
#include "distorch/device/sim/backend.h"

namespace distorch::sim {
namespace {

void delete_allocation(void* context) { delete static_cast<Allocation*>(context); }

at::Allocator* host_allocator(bool dry) {
  return dry ? c10::GetAllocator(c10::DeviceType::Meta) : c10::GetCPUAllocator();
}

// Dry memory has an address, so that it does not look empty, but nothing is there.
void* address_of(const Allocation& block) {
  return block.is_dry ? reinterpret_cast<void*>(std::uintptr_t{64}) : block.host.mutable_data();
}

c10::DataPtr into_data_ptr(std::unique_ptr<Allocation> block) {
  auto* pointer = block->counted_bytes > 0 ? address_of(*block) : nullptr;
  const c10::Device device(kSim, static_cast<c10::DeviceIndex>(block->device));
  return {pointer, block.release(), &delete_allocation, device};
}

c10::DataPtr allocate_on(int device, std::size_t bytes) {
  auto block = machine().reserve(device, static_cast<std::int64_t>(bytes));
  auto* allocator = host_allocator(block->is_dry);
  block->host = c10::Storage(c10::Storage::use_byte_size_t(), bytes, allocator->allocate(bytes),
                             allocator, true);
  return into_data_ptr(std::move(block));
}

class Allocator final : public c10::Allocator {
 public:
  c10::DataPtr allocate(std::size_t bytes) override {
    return allocate_on(thread_state().device, bytes);
  }
  void copy_data(void* to, const void* from, std::size_t bytes) const override {
    if (!machine().is_dry()) default_copy_data(to, from, bytes);
  }
};

Allocator& allocator() {
  static auto* one = new Allocator;  // torch keeps the pointer until the process ends
  return *one;
}

at::Tensor with_storage(c10::Storage storage, c10::DispatchKey key, const at::Tensor& like) {
  auto tensor = at::detail::make_tensor<c10::TensorImpl>(std::move(storage),
                                                         c10::DispatchKeySet(key), like.dtype());
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(like.sizes(), like.strides(),
                                                      like.storage_offset());
  return tensor;
}

c10::Storage sim_storage(std::unique_ptr<Allocation> block, std::size_t bytes) {
  return {c10::Storage::use_byte_size_t(), bytes, into_data_ptr(std::move(block)), &allocator(),
          true};
}

}  // namespace

c10::Allocator* register_allocator() {
  c10::SetAllocator(kSim, &allocator());
  return &allocator();
}

Allocation& allocation_of(const at::Tensor& tensor) {
  const auto& pointer = tensor.storage().data_ptr();
  auto* block = pointer.cast_context<Allocation>(&delete_allocation);
  if (!block)
    throw Error(ErrorKind::Internal, "sim", "a tensor whose memory the simulator did not make");
  return *block;
}

at::Tensor empty_strided(at::IntArrayRef sizes, at::IntArrayRef strides, at::ScalarType dtype,
                         int device) {
  const auto bytes = at::detail::computeStorageNbytes(sizes, strides, c10::elementSize(dtype));
  c10::Storage storage(c10::Storage::use_byte_size_t(), bytes, allocate_on(device, bytes),
                       &allocator(), true);
  auto tensor = at::detail::make_tensor<c10::TensorImpl>(
      std::move(storage), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
      c10::scalarTypeToTypeMeta(dtype));
  tensor.unsafeGetTensorImpl()->set_sizes_and_strides(sizes, strides);
  return tensor;
}

at::Tensor host_view(const at::Tensor& tensor) {
  auto& block = allocation_of(tensor);
  if (!machine().is_dry()) {
    if (block.is_dry)
      throw Error(ErrorKind::Internal, "sim", "a tensor of a dry run is used in a real one");
    if (block.machine.get() != &machine())
      throw Error(ErrorKind::Internal, "sim",
                  "a tensor of a simulated machine that was replaced is used");
    return with_storage(block.host, c10::DispatchKey::CPU, tensor);
  }
  if (block.is_dry) return with_storage(block.host, c10::DispatchKey::Meta, tensor);
  // A real tensor in a dry run counts as its shape.
  auto* meta = host_allocator(true);
  const auto bytes = tensor.storage().nbytes();
  c10::Storage shape(c10::Storage::use_byte_size_t(), bytes, meta->allocate(bytes), meta, true);
  return with_storage(std::move(shape), c10::DispatchKey::Meta, tensor);
}

at::Tensor adopt(const at::Tensor& result, int device) {
  const auto bytes = result.storage().nbytes();
  auto block = machine().reserve(device, static_cast<std::int64_t>(bytes));
  block->host = result.storage();
  return with_storage(sim_storage(std::move(block), bytes), c10::DispatchKey::PrivateUse1, result);
}

void follow(const at::Tensor& sim, const at::Tensor& view) {
  auto& block = allocation_of(sim);
  const bool moved = view.storage().unsafeGetStorageImpl() != block.host.unsafeGetStorageImpl();
  auto* impl = sim.unsafeGetTensorImpl();
  if (moved && block.machine.get() == &machine()) {
    impl->set_storage_keep_dtype(adopt(view, block.device).storage());
  } else if (!moved && block.host.nbytes() != sim.storage().nbytes()) {
    // Resized in place: the storage gets a block of the new size around the same memory.
    machine().recount(block, static_cast<std::int64_t>(block.host.nbytes()));
    auto* storage = sim.storage().unsafeGetStorageImpl();
    auto replacement = std::make_unique<Allocation>();
    replacement->machine = std::move(block.machine);
    replacement->device = block.device;
    replacement->stream = block.stream;
    replacement->counted_bytes = std::exchange(block.counted_bytes, 0);
    replacement->is_dry = block.is_dry;
    replacement->host = block.host;
    replacement->log = std::move(block.log);
    replacement->also_used_on = std::move(block.also_used_on);
    storage->set_data_ptr_noswap(into_data_ptr(std::move(replacement)));
    storage->set_nbytes(view.storage().nbytes());
  }
  if (sim.sizes() != view.sizes() || sim.strides() != view.strides() ||
      sim.storage_offset() != view.storage_offset())
    impl->set_sizes_and_strides(view.sizes(), view.strides(), view.storage_offset());
}

}  // namespace distorch::sim
