#pragma once

/// System calls that fail when a test wants it: the linker leads the calls of a test program
/// through faults.cpp (tests/CMakeLists.txt says of which), the code under test is as it is for
/// users.
namespace distorch::test {

enum class Call {
  Read,  // pread and fstat: EIO
  Map,   // mmap of memory that no file is behind: ENOMEM
  Write  // write and pwrite: ENOSPC
};

/// The n-th call from now (1 = the next), of any thread, fails once. 0: none.
void fail_call(Call call, int nth);
/// Whether the call that is to fail is still to come.
bool call_pending(Call call);

}  // namespace distorch::test
