#include <ATen/EmptyTensor.h>

#include "distorch/device/sim/backend.h"

// New tensors and views: no kernel, no time.
namespace distorch::sim {
namespace {

using Ints = c10::SymIntArrayRef;

std::vector<int64_t> plain(Ints ints) {
  std::vector<int64_t> out;
  for (const auto& value : ints) out.push_back(value.guard_int(__FILE__, __LINE__));
  return out;
}

int index_of(std::optional<c10::Device> device) {
  return device && device->has_index() ? device->index() : thread_state().device;
}

at::Tensor empty(Ints sizes, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<c10::Device> device, std::optional<bool>,
                 std::optional<at::MemoryFormat> format) {
  const auto shape = plain(sizes);
  at::detail::check_size_nonnegative(shape);
  auto strides = c10::contiguous_strides(shape);
  if (format == at::MemoryFormat::ChannelsLast) strides = c10::get_channels_last_strides_2d(shape);
  if (format == at::MemoryFormat::ChannelsLast3d)
    strides = c10::get_channels_last_strides_3d(shape);
  return empty_strided(shape, strides, dtype.value_or(c10::get_default_dtype_as_scalartype()),
                       index_of(device));
}

at::Tensor empty_with_strides(Ints sizes, Ints strides, std::optional<at::ScalarType> dtype,
                              std::optional<at::Layout>, std::optional<c10::Device> device,
                              std::optional<bool>) {
  return empty_strided(plain(sizes), plain(strides),
                       dtype.value_or(c10::get_default_dtype_as_scalartype()), index_of(device));
}

at::Tensor as_strided(const at::Tensor& self, Ints sizes, Ints strides,
                      std::optional<c10::SymInt> offset) {
  return at::native::as_strided_tensorimpl(
      self, plain(sizes), plain(strides),
      offset ? std::optional<int64_t>(offset->guard_int(__FILE__, __LINE__)) : std::nullopt);
}

at::Tensor view(const at::Tensor& self, Ints sizes) { return at::native::view(self, plain(sizes)); }

at::Tensor reshape_alias(const at::Tensor& self, Ints sizes, Ints strides) {
  return at::native::_reshape_alias(self, plain(sizes), plain(strides));
}

const at::Tensor& resize(const at::Tensor& self, Ints sizes,
                         std::optional<at::MemoryFormat> format) {
  const auto shape = plain(sizes);
  auto* impl = self.unsafeGetTensorImpl();
  const auto bytes =
      at::detail::computeStorageNbytesContiguous(shape, self.element_size(), self.storage_offset());
  if (bytes > self.storage().nbytes()) {
    auto larger =
        empty_strided({static_cast<int64_t>(bytes)}, {1}, at::kByte, self.device().index());
    if (self.numel() > 0 && !machine().is_dry())
      std::memcpy(host_view(larger).mutable_data_ptr(), allocation_of(self).host.data(),
                  self.storage().nbytes());
    impl->set_storage_keep_dtype(larger.storage());
  }
  impl->set_sizes_contiguous(shape);
  if (format) impl->empty_tensor_restride(*format);
  return self;
}

at::Tensor& set_storage(at::Tensor& self, c10::Storage storage, c10::SymInt offset, Ints sizes,
                        Ints strides) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(storage));
  const auto shape = plain(sizes);
  const auto steps = strides.empty() && !shape.empty() ? c10::contiguous_strides(shape)
                                                       : at::DimVector(plain(strides));
  impl->set_sizes_and_strides(shape, steps, offset.guard_int(__FILE__, __LINE__));
  return self;
}

at::Tensor& set_tensor(at::Tensor& self, const at::Tensor& source) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(source.storage());
  impl->set_sizes_and_strides(source.sizes(), source.strides(), source.storage_offset());
  return self;
}

}  // namespace

void register_views(torch::Library& aten) {
  aten.impl("empty.memory_format", empty);
  aten.impl("empty_strided", empty_with_strides);
  aten.impl("as_strided", as_strided);
  aten.impl("view", view);
  aten.impl("_reshape_alias", reshape_alias);
  aten.impl("unfold", at::native::unfold);
  aten.impl("view_as_real", at::native::view_as_real);
  aten.impl("view_as_complex", at::native::view_as_complex);
  aten.impl("resize_", resize);
  aten.impl("set_.source_Storage_storage_offset", set_storage);
  aten.impl("set_.source_Tensor", set_tensor);
}

}  // namespace distorch::sim
