#pragma once
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

namespace distorch::nn {

/// Which of several ways of computing the same is the fastest for a shape on a device: measured where
/// that is not known yet, and remembered in a file, so that the next process computes in the same
/// way from the start. In a process a choice never changes but by settle_on(). For any thread; one
/// measures at a time.
class MeasuredChoice {
 public:
  struct Way {
    std::string name;               // in the file
    std::function<void()> compute;  // issues it; `wait` waits for it
  };

  /// `file`: where choices are kept, JSON {device: {shape: name}}. One that is missing, damaged or
  /// cannot be written costs nothing but the memory of it.
  explicit MeasuredChoice(std::filesystem::path file) : file_(std::move(file)) {}

  /// What is remembered; empty: nothing.
  std::string known(const std::string& device, const std::string& shape);
  /// Times the ways, and remembers the fastest and gives its name: the first, unless another takes
  /// less than 0.95 of its time, so that nearly equal ones do not change places from run to run. Each
  /// is computed once before it is timed, and then until 20 ms or six of them have gone by. One that
  /// throws is not chosen; where that was for lack of memory, this process alone remembers the choice.
  /// The first's error is thrown on, and nothing remembered. `wait` waits for the device, `now_s` is
  /// the clock.
  std::string measure(const std::string& device, const std::string& shape,
                      const std::vector<Way>& ways, const std::function<void()>& wait,
                      const std::function<double()>& now_s);
  /// In this process `name` is the choice from now on, whatever the file says.
  void settle_on(const std::string& name, const std::string& device, const std::string& shape);

 private:
  using Choices = std::map<std::string, std::map<std::string, std::string>>;
  Choices read() const;
  void write(const std::string& device, const std::string& shape, const std::string& name);

  std::filesystem::path file_;
  std::mutex measuring_, mutex_;
  bool was_read_ = false;
  Choices choices_;
};

}  // namespace distorch::nn
