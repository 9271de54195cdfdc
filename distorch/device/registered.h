#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace distorch::device {

/// Host memory that the accelerators of the given kinds copy from at full speed, for as long as
/// this object lives. Meant for file mappings made MAP_SHARED and read-only (a private mapping
/// cannot be registered). The mapping must outlive this object. Move-only.
class RegisteredRange {
 public:
  enum class Access {
    ReadOnly,
    ReadWrite
  };  // by the device; a read-only mapping registers only as the former

  RegisteredRange() = default;
  /// Registers [start, start + bytes) with the kinds of device in `devices` (CPU entries are
  /// skipped). Refused (memlock limit, unsupported mapping, no driver): the object is empty, and a
  /// warning says so once per process; copies from the memory still work, as from any pageable
  /// memory.
  RegisteredRange(const void* start, std::int64_t bytes, const std::vector<c10::Device>& devices,
                  Access access = Access::ReadOnly);
  ~RegisteredRange();
  RegisteredRange(RegisteredRange&& other) noexcept;
  RegisteredRange& operator=(RegisteredRange&& other) noexcept;

  /// True when every accelerator among the devices accepted the memory.
  explicit operator bool() const { return !types_.empty(); }
  const void* start() const { return start_; }
  std::int64_t bytes() const { return bytes_; }

 private:
  void release() noexcept;

  const void* start_ = nullptr;
  std::int64_t bytes_ = 0;
  std::vector<c10::DeviceType> types_;
  std::int64_t file_bytes_ = 0;  // counted by registered_file_bytes()
};

/// Bytes of file mappings (registered ReadOnly) that are registered now: page-locked, so that the
/// system cannot use their pages for anything else.
std::int64_t registered_file_bytes();

/// Registers [start, start + bytes), which whole pages must make up, together with others who asked
/// for parts of the same memory: what they registered is shared, not registered twice (which
/// drivers refuse). Returns the pieces in order of address; a copy must not cross from one into the
/// next. Nothing where registration was refused.
std::vector<std::shared_ptr<const RegisteredRange>> register_shared(
    const void* start, std::int64_t bytes, const std::vector<c10::Device>& devices);

/// Page-locked host memory of exactly the size asked for, rounded up to pages (torch's pool rounds
/// to powers of two). Where locking is refused it is ordinary memory: slower, never an error.
/// Move-only.
class HostBuffer {
 public:
  HostBuffer() = default;
  /// Error(OutOfMemory) when the host has not that much memory.
  HostBuffer(std::int64_t bytes, const std::vector<c10::Device>& devices);
  ~HostBuffer();
  HostBuffer(HostBuffer&& other) noexcept;
  HostBuffer& operator=(HostBuffer&& other) noexcept;

  void* data() const { return data_; }
  std::int64_t bytes() const { return bytes_; }
  bool page_locked() const { return static_cast<bool>(registered_); }
  /// The memory as a CPU tensor of bytes, uint8 [bytes]; valid while this object lives.
  at::Tensor tensor() const;

 private:
  void release() noexcept;

  void* data_ = nullptr;
  std::int64_t bytes_ = 0;
  std::int64_t mapped_ = 0;
  RegisteredRange registered_;
};

}  // namespace distorch::device
