#include "distorch/device/registered.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <mutex>
#include <utility>

#include "distorch/base/align.h"
#include "distorch/base/error.h"
#include "distorch/base/log.h"
#include "distorch/base/units.h"
#include "distorch/device/kind.h"

namespace distorch::device {
namespace {

std::vector<c10::DeviceType> accelerator_types(const std::vector<c10::Device>& devices) {
  std::vector<c10::DeviceType> types;
  for (auto device : devices)
    if (!device.is_cpu() && std::find(types.begin(), types.end(), device.type()) == types.end())
      types.push_back(device.type());
  return types;
}

std::int64_t whole_pages(std::int64_t bytes) {
  const auto page = static_cast<std::int64_t>(sysconf(_SC_PAGESIZE));
  return align_up(bytes, page);
}

std::atomic<std::int64_t> file_bytes{0};

}  // namespace

std::int64_t registered_file_bytes() { return file_bytes.load(); }

RegisteredRange::RegisteredRange(const void* start, std::int64_t bytes,
                                 const std::vector<c10::Device>& devices, Access access)
    : start_(start), bytes_(bytes) {
  if (bytes <= 0) return;
  for (auto type : accelerator_types(devices)) {
    auto refused =
        kind_of(type).register_host(const_cast<void*>(start), bytes, access == Access::ReadOnly);
    if (!refused) {
      types_.push_back(type);
      continue;
    }
    release();
    log::warn_once(
        fmt::format("host memory could not be registered for direct copies ({}); copies go through "
                    "ordinary memory "
                    "and are slower",
                    *refused));
    return;
  }
  if (types_.empty() || access != Access::ReadOnly) return;
  file_bytes_ = bytes;
  file_bytes += bytes;
}

RegisteredRange::~RegisteredRange() { release(); }

RegisteredRange::RegisteredRange(RegisteredRange&& other) noexcept
    : start_(other.start_),
      bytes_(other.bytes_),
      types_(std::exchange(other.types_, {})),
      file_bytes_(std::exchange(other.file_bytes_, 0)) {}

RegisteredRange& RegisteredRange::operator=(RegisteredRange&& other) noexcept {
  if (this == &other) return *this;
  release();
  start_ = other.start_;
  bytes_ = other.bytes_;
  types_ = std::exchange(other.types_, {});
  file_bytes_ = std::exchange(other.file_bytes_, 0);
  return *this;
}

void RegisteredRange::release() noexcept {
  file_bytes -= std::exchange(file_bytes_, 0);
  for (auto type : types_) kind_of(type).unregister_host(const_cast<void*>(start_));
  types_.clear();
}

std::vector<std::shared_ptr<const RegisteredRange>> register_shared(
    const void* start, std::int64_t bytes, const std::vector<c10::Device>& devices) {
  using RangePtr = std::shared_ptr<const RegisteredRange>;
  static std::mutex mutex;
  static std::vector<std::weak_ptr<const RegisteredRange>> known;
  const auto address = [](const RangePtr& piece) {
    return static_cast<const std::byte*>(piece->start());
  };
  std::lock_guard lock(mutex);
  const auto* begin = static_cast<const std::byte*>(start);
  const auto* end = begin + bytes;
  std::vector<RangePtr> shared;
  std::erase_if(known, [](const auto& weak) { return weak.expired(); });
  for (const auto& weak : known)
    if (auto piece = weak.lock();
        piece && address(piece) < end && begin < address(piece) + piece->bytes())
      shared.push_back(std::move(piece));
  std::sort(shared.begin(), shared.end(),
            [&](const RangePtr& a, const RangePtr& b) { return address(a) < address(b); });
  std::vector<RangePtr> pieces;
  const auto fill = [&](const std::byte* to) {
    if (begin >= to) return true;
    auto piece = std::make_shared<const RegisteredRange>(begin, to - begin, devices);
    if (!*piece) return false;
    known.push_back(piece);
    pieces.push_back(std::move(piece));
    return true;
  };
  for (const auto& piece : shared) {
    if (!fill(std::min(address(piece), end))) return {};
    begin = address(piece) + piece->bytes();
    pieces.push_back(piece);
  }
  return fill(end) ? pieces : std::vector<RangePtr>();
}

HostBuffer::HostBuffer(std::int64_t bytes, const std::vector<c10::Device>& devices)
    : bytes_(bytes) {
  if (bytes <= 0) return;
  mapped_ = whole_pages(bytes);
  void* memory = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    mapped_ = 0;
    throw Error(ErrorKind::OutOfMemory, "cpu",
                "no " + human_bytes(static_cast<double>(bytes)) + " of RAM for a copy buffer");
  }
  data_ = memory;
  // Fewer pages are locked faster.
  constexpr std::int64_t huge_page = std::int64_t{2} << 20;
  if (mapped_ >= huge_page) madvise(memory, mapped_, MADV_HUGEPAGE);
  registered_ = RegisteredRange(data_, mapped_, devices, RegisteredRange::Access::ReadWrite);
}

HostBuffer::~HostBuffer() { release(); }

HostBuffer::HostBuffer(HostBuffer&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      bytes_(std::exchange(other.bytes_, 0)),
      mapped_(std::exchange(other.mapped_, 0)),
      registered_(std::move(other.registered_)) {}

HostBuffer& HostBuffer::operator=(HostBuffer&& other) noexcept {
  if (this == &other) return *this;
  release();
  data_ = std::exchange(other.data_, nullptr);
  bytes_ = std::exchange(other.bytes_, 0);
  mapped_ = std::exchange(other.mapped_, 0);
  registered_ = std::move(other.registered_);
  return *this;
}

void HostBuffer::release() noexcept {
  registered_ = {};
  if (data_) munmap(data_, mapped_);
  data_ = nullptr;
}

at::Tensor HostBuffer::tensor() const {
  return at::from_blob(data_, {bytes_}, at::TensorOptions().dtype(at::kByte));
}

}  // namespace distorch::device
