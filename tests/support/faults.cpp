#include "tests/support/faults.h"

#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>

#include <atomic>
#include <cerrno>

namespace {

std::atomic<int> left[3];  // by Call: calls until one fails; 0: none

bool fails(distorch::test::Call call) {
  auto& count = left[static_cast<int>(call)];
  int now = count.load();
  while (now > 0)
    if (count.compare_exchange_weak(now, now - 1)) return now == 1;
  return false;
}

}  // namespace

namespace distorch::test {

void fail_call(Call call, int nth) { left[static_cast<int>(call)] = nth; }
bool call_pending(Call call) { return left[static_cast<int>(call)] > 0; }

}  // namespace distorch::test

// What `--wrap=name` makes of a call of `name`, and of the real one.
extern "C" {

ssize_t __real_pread(int, void*, size_t, off_t);
int __real_fstat(int, struct stat*);
void* __real_mmap(void*, size_t, int, int, int, off_t);
ssize_t __real_write(int, const void*, size_t);
ssize_t __real_pwrite(int, const void*, size_t, off_t);

ssize_t __wrap_pread(int descriptor, void* to, size_t bytes, off_t offset) {
  if (!fails(distorch::test::Call::Read)) return __real_pread(descriptor, to, bytes, offset);
  errno = EIO;
  return -1;
}

int __wrap_fstat(int descriptor, struct stat* status) {
  if (!fails(distorch::test::Call::Read)) return __real_fstat(descriptor, status);
  errno = EIO;
  return -1;
}

void* __wrap_mmap(void* start, size_t bytes, int protection, int flags, int descriptor,
                  off_t offset) {
  if (!(flags & MAP_ANONYMOUS) || !fails(distorch::test::Call::Map))
    return __real_mmap(start, bytes, protection, flags, descriptor, offset);
  errno = ENOMEM;
  return MAP_FAILED;
}

ssize_t __wrap_write(int descriptor, const void* from, size_t bytes) {
  if (!fails(distorch::test::Call::Write)) return __real_write(descriptor, from, bytes);
  errno = ENOSPC;
  return -1;
}

ssize_t __wrap_pwrite(int descriptor, const void* from, size_t bytes, off_t offset) {
  if (!fails(distorch::test::Call::Write)) return __real_pwrite(descriptor, from, bytes, offset);
  errno = ENOSPC;
  return -1;
}

}  // extern "C"
