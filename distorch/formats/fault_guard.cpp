#include "distorch/formats/fault_guard.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <mutex>

namespace distorch::formats {

namespace {

/// A stretch of code that wants to hear of faults in [begin, end) by a jump back.
struct Guard {
  std::uintptr_t begin;
  std::uintptr_t end;
  sigjmp_buf back;
};

// Read inside the handler: a plain pointer without a constructor in memory that every thread has
// from its start, also where this code was loaded late, so that access is one load.
[[gnu::tls_model("initial-exec")]] thread_local Guard* current_guard = nullptr;

std::atomic<FaultWatch*> watches{nullptr};
std::mutex watches_mutex;  // for those who add and remove; the handler only reads
struct sigaction previous_action;
std::uintptr_t page_size = 4096;

/// Puts zeros from the faulting page to the end of the mapping: a file that was cut short has lost
/// all of that, a disk that fails answers slowly, and what is computed is not believed anyway.
/// mmap is a plain system call, safe here.
bool replace_by_zeros(const WatchedPlace& place, std::uintptr_t address) {
  auto page = address & ~(page_size - 1);
  // Noted before, so that nobody sees a zero unnoted, and after, so that who mends at this moment
  // does not take away the note of zeros that come after his mending.
  note_lost_pages(*place.watch, page);
  auto* at = reinterpret_cast<void*>(page);
  bool done = ::mmap(at, place.end - page, PROT_READ,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == at;
  note_lost_pages(*place.watch, page);
  return done;
}

/// Changes a row so that the handler meets it before or after, never between.
void set_row(FaultWatch& row, std::uintptr_t begin, std::uintptr_t end) {
  row.generation.fetch_add(1, std::memory_order_acq_rel);
  std::atomic_thread_fence(std::memory_order_release);
  row.begin.store(begin, std::memory_order_relaxed);
  row.end.store(end, std::memory_order_relaxed);
  row.generation.fetch_add(1, std::memory_order_release);
}

void call_previous(int signal, siginfo_t* info, void* context) {
  if ((previous_action.sa_flags & SA_SIGINFO) != 0 && previous_action.sa_sigaction != nullptr) {
    previous_action.sa_sigaction(signal, info, context);
  } else if (previous_action.sa_handler != SIG_DFL && previous_action.sa_handler != SIG_IGN) {
    previous_action.sa_handler(signal);
  } else {
    // Not ours: the instruction faults again and the default action ends the process.
    struct sigaction standard {};
    standard.sa_handler = SIG_DFL;
    ::sigaction(SIGBUS, &standard, nullptr);
  }
}

void on_bus_error(int signal, siginfo_t* info, void* context) {
  int saved_errno = errno;
  auto address = reinterpret_cast<std::uintptr_t>(info->si_addr);
  if (auto* guard = current_guard;
      guard != nullptr && address >= guard->begin && address < guard->end) {
    current_guard = nullptr;
    siglongjmp(guard->back, 1);
  }
  // <= 0: sent by kill(), no address
  auto place = info->si_code > 0 ? watched_place(address) : WatchedPlace{};
  if (place.watch == nullptr || !replace_by_zeros(place, address))
    call_previous(signal, info, context);
  errno = saved_errno;
}

void install_handler() {
  page_size = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  // NODEFER: leaving by siglongjmp must not leave SIGBUS blocked, and then no signal mask has to be
  // saved.
  action.sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGBUS, &action, &previous_action);
}

// Out of line: the jump must not meet values of the caller in registers, nor a reordered copy.
[[gnu::noinline]] bool run_guarded(Guard& guard, void* to, const void* from, std::size_t size) {
  if (sigsetjmp(guard.back, 0) != 0) return false;
  current_guard = &guard;
  std::atomic_signal_fence(std::memory_order_seq_cst);
  if (to != nullptr) {
    std::memcpy(to, from, size);
  } else {
    const volatile char* bytes = static_cast<const char*>(from);
    for (std::size_t i = 0; i < size; i += page_size) (void)bytes[i];
    (void)bytes[size - 1];
  }
  std::atomic_signal_fence(std::memory_order_seq_cst);
  current_guard = nullptr;
  return true;
}

}  // namespace

FaultWatch* watch_faults(const void* begin, std::size_t size) {
  static std::once_flag installed;
  std::call_once(installed, install_handler);
  auto first = reinterpret_cast<std::uintptr_t>(begin);
  auto end = (first + size + page_size - 1) & ~(page_size - 1);
  std::lock_guard lock(watches_mutex);
  FaultWatch* row = watches.load();
  while (row != nullptr && row->begin.load() != 0) row = row->next;
  bool fresh = row == nullptr;
  if (fresh) row = new FaultWatch;
  forget_lost_pages(*row);
  set_row(*row, first, end);
  if (fresh) {
    row->next = watches.load();
    watches.store(row, std::memory_order_release);
  }
  return row;
}

void unwatch_faults(FaultWatch* watch) {
  std::lock_guard lock(watches_mutex);
  set_row(*watch, 0, 0);
}

WatchedPlace watched_place(std::uintptr_t address) {
  for (auto* w = watches.load(std::memory_order_acquire); w != nullptr; w = w->next) {
    auto before = w->generation.load(std::memory_order_acquire);
    auto begin = w->begin.load(std::memory_order_relaxed);
    auto end = w->end.load(std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_acquire);
    bool whole = before % 2 == 0 && w->generation.load(std::memory_order_relaxed) == before;
    if (whole && begin != 0 && address >= begin && address < end) return {w, end};
  }
  return {};
}

void note_lost_pages(FaultWatch& watch, std::uintptr_t from) {
  auto known = watch.lost_from.load(std::memory_order_relaxed);
  while (from < known && !watch.lost_from.compare_exchange_weak(known, from)) {
  }
  watch.lost_pages.store(true, std::memory_order_release);
}

std::uintptr_t forget_lost_pages(FaultWatch& watch) {
  watch.lost_pages.store(false, std::memory_order_release);
  return watch.lost_from.exchange(~std::uintptr_t{0});
}

bool guarded_copy(void* to, const void* from, std::size_t size) {
  if (size == 0) return true;
  auto begin = reinterpret_cast<std::uintptr_t>(from);
  Guard guard{begin & ~(page_size - 1), begin + size, {}};
  return run_guarded(guard, to, from, size);
}

bool guarded_touch(const void* from, std::size_t size) {
  if (size == 0) return true;
  auto begin = reinterpret_cast<std::uintptr_t>(from);
  Guard guard{begin & ~(page_size - 1), begin + size, {}};
  return run_guarded(guard, nullptr, from, size);
}

}  // namespace distorch::formats
