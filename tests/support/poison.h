#pragma once
#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>
#include <doctest/doctest.h>

#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "distorch/base/error.h"
#include "distorch/device/memory.h"
#include "distorch/device/sim/sim.h"
#include "tests/support/faults.h"

/// Lets everything fail that can, one thing at a time.
namespace distorch::test {

/// Something that is to work again after any failure. A new one stands on a machine of its own.
class Scene {
 public:
  virtual ~Scene() = default;
  virtual at::Tensor prompt() = 0;
  /// What must hold in the end.
  virtual void check() {}
};

/// What may fail, and how it has to be told.
struct Poison {
  std::string name;
  std::function<void(int nth)> arm;  // 0: nothing fails any more
  std::function<bool()> pending;
  std::function<bool(const std::exception&)> told;
};

inline bool told_as(const std::exception& error, ErrorKind kind, const std::string& where) {
  const auto* ours = dynamic_cast<const Error*>(&error);
  return ours && ours->kind() == kind && ours->where().find(where) != std::string::npos;
}

inline std::vector<Poison> poisons() {
  std::vector<Poison> list;
  for (int device = 0; device < sim::device_count(); ++device) {
    auto name = "sim:" + std::to_string(device);
    auto pending = [device] { return sim::fault_pending(device); };
    list.push_back({"allocation on " + name,
                    [device](int nth) { sim::fail_allocation(device, nth); }, pending,
                    [name](const std::exception& error) {
                      return device::is_out_of_memory(error) &&
                             std::string(error.what()).find(name) != std::string::npos;
                    }});
    list.push_back({"copy to or from " + name, [device](int nth) { sim::fail_copy(device, nth); },
                    pending,
                    [name](const std::exception& error) {
                      return std::string(error.what()).find(name + ": a copy") == 0;
                    }});
  }
  list.push_back({"read", [](int nth) { fail_call(Call::Read, nth); },
                  [] { return call_pending(Call::Read); },
                  [](const std::exception& error) {
                    // A file that is opened, and one that is read.
                    return told_as(error, ErrorKind::MissingFile, ".safetensors") ||
                           told_as(error, ErrorKind::Format, ".safetensors");
                  }});
  list.push_back(
      {"memory of the host", [](int nth) { fail_call(Call::Map, nth); },
       [] { return call_pending(Call::Map); },
       [](const std::exception& error) { return told_as(error, ErrorKind::OutOfMemory, ""); }});
  return list;
}

/// Threads of this process.
inline int thread_count() {
  int count = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator("/proc/self/task"))
    ++count;
  return count;
}

/// Whether the threads are `wanted` again before long: one that has been joined may still be seen.
inline bool threads_back_to(int wanted) {
  for (int wait = 0; wait < 200 && thread_count() > wanted; ++wait)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  return thread_count() <= wanted;
}

/// How much of what may fail is left out where the environment wants it quick: every n-th is tried.
inline int poison_stride() {
  const char* wanted = std::getenv("DISTORCH_POISON_STRIDE");
  return wanted && *wanted ? std::max(1, std::atoi(wanted)) : 1;
}

/// Fails the n-th of each kind of thing in a prompt of a new scene, for every n (or every
/// `stride`-th) until none fails, and then runs the prompt twice more. Returns how many failures
/// there were.
inline int poison(const std::function<std::unique_ptr<Scene>()>& make, int stride = 1) {
  stride *= poison_stride();
  at::set_num_threads(1);              // sharing work of this size takes longer than doing it
  at::Tensor want = make()->prompt();  // threads that stay are there from now on
  REQUIRE(want.isfinite().all().item<bool>());
  const int threads = thread_count();
  int struck = 0;
  for (std::size_t kind = 0; kind < poisons().size(); ++kind)
    for (int nth = 1;; nth += stride) {
      REQUIRE(nth < 20000);
      bool last = false;
      {
        auto scene = make();
        const auto poison = poisons()[kind];
        CAPTURE(poison.name);
        CAPTURE(nth);
        poison.arm(nth);
        try {
          auto got = scene->prompt();
          last = poison.pending();
          CHECK(at::equal(got, want));
        } catch (const std::exception& error) {
          const std::string said = error.what();
          CAPTURE(said);
          CHECK(poison.told(error));
          CHECK_FALSE(poison.pending());
        }
        poison.arm(0);
        for (int again = 0; again < (last ? 0 : 2); ++again) {
          try {
            CHECK(at::equal(scene->prompt(), want));
          } catch (const std::exception& error) {
            CAPTURE(again);
            FAIL_CHECK(error.what());
          }
        }
        scene->check();
      }
      CAPTURE(nth);
      for (int device = 0; device < sim::device_count(); ++device)
        CHECK(sim::memory(device).in_use == 0);
      CHECK(sim::registered_bytes() == 0);
      CHECK(threads_back_to(threads));
      if (last) break;
      ++struck;
    }
  return struck;
}

}  // namespace distorch::test
