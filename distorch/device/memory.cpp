#include "distorch/device/memory.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "distorch/base/error.h"
#include "distorch/device/kind.h"
#include "distorch/device/workspace.h"

namespace distorch::device {
namespace {

/// What libraries of a device and its driver say where they find no memory beside torch's allocator.
constexpr std::array<std::string_view, 4> kNoMemory{
    "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"};

int index_of(c10::Device device) { return device.has_index() ? device.index() : 0; }
}  // namespace

std::int64_t workspace_bytes(c10::Device device) {
  return kind_of(device.type()).workspace_bytes(index_of(device));
}

MemoryUse memory_use(c10::Device device) { return kind_of(device.type()).memory(index_of(device)); }

void reset_peak(c10::Device device) { kind_of(device.type()).reset_peak(index_of(device)); }

void empty_cache(c10::Device device) { kind_of(device.type()).empty_cache(); }

void limit_memory(c10::Device device, std::int64_t bytes) {
  if (device.is_cpu()) return;
  const auto total = memory_use(device).total;
  if (bytes < 0 || bytes > total)
    throw Error(ErrorKind::Usage, name_of(device),
                "cannot be limited to " + std::to_string(bytes) + " bytes; it has " +
                    std::to_string(total));
  kind_of(device.type()).limit_memory(index_of(device), bytes);
}

bool is_out_of_memory(const std::exception& error) {
  if (dynamic_cast<const c10::OutOfMemoryError*>(&error) ||
      dynamic_cast<const std::bad_alloc*>(&error))
    return true;
  if (const auto* torch = dynamic_cast<const c10::Error*>(&error)) {
    const std::string_view text = torch->what_without_backtrace();
    return std::any_of(kNoMemory.begin(), kNoMemory.end(),
                       [&](auto words) { return text.find(words) != text.npos; });
  }
  const auto* ours = dynamic_cast<const Error*>(&error);
  return ours && ours->kind() == ErrorKind::OutOfMemory;
}

std::string sentence_of(const std::exception& error) {
  const auto* torch = dynamic_cast<const c10::Error*>(&error);
  if (!torch) return error.what();
  const std::string text = torch->what_without_backtrace();
  return text.substr(0, text.find('\n'));  // advice for those who look for errors in torch follows
}

}  // namespace distorch::device
