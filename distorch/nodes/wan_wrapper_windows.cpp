#include "distorch/nodes/wan_wrapper_windows.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace distorch::nodes::wan_wrapper {

using at::Tensor;

namespace {

constexpr std::int64_t kFramesOfCell = 4;

/// The number with its binary digits the other way round, as a part of 1: 1/2, 1/4, 3/4, 1/8, ...
double halving(std::uint64_t value) {
  double part = 0, digit = 0.5;
  for (; value != 0; value >>= 1, digit /= 2)
    if (value & 1) part += digit;
  return part;
}

Window counted(std::int64_t first, std::int64_t count) {
  Window window(static_cast<std::size_t>(count));
  std::iota(window.begin(), window.end(), first);
  return window;
}

/// Windows that move with the step, those of larger strides behind; they may go over the end.
std::vector<Window> moving_windows(const WindowSizes& sizes, std::int64_t step,
                                   std::int64_t frames) {
  const auto ratio = static_cast<double>(frames) / static_cast<double>(sizes.frames);
  const auto strides =
      std::min(sizes.stride, static_cast<std::int64_t>(std::ceil(std::log2(ratio))) + 1);
  const double part = halving(static_cast<std::uint64_t>(step));
  const auto moved = static_cast<std::int64_t>(std::nearbyint(static_cast<double>(frames) * part));
  std::vector<Window> windows;
  for (std::int64_t i = 0; i < strides; ++i) {
    const auto each = std::int64_t{1} << i;
    const auto advance = std::max<std::int64_t>(1, sizes.frames * each - sizes.overlap);
    const auto begin = static_cast<std::int64_t>(part * static_cast<double>(each)) + moved;
    for (auto first = begin; first < frames + moved; first += advance) {
      Window window;
      for (auto frame = first; frame < first + sizes.frames * each; frame += each)
        window.push_back(frame % frames);
      windows.push_back(std::move(window));
    }
  }
  return windows;
}

/// Where a window goes over the video's end; npos: nowhere.
std::size_t turn_of(const Window& window) {
  for (std::size_t i = 1; i < window.size(); ++i)
    if (window[i] < window[i - 1]) return i;
  return std::string::npos;
}

/// The window moved so that its last frame is the video's.
Window at_end(const Window& window, std::int64_t frames) {
  auto moved = window;
  for (auto& frame : moved) frame = (frame - window.front() + frames) % frames;
  const auto missing = frames - moved.back() - 1;
  for (auto& frame : moved) frame += missing;
  return moved;
}

/// The same without any that goes over the end, each once.
std::vector<Window> straightened(std::vector<Window> windows, const WindowSizes& sizes,
                                 std::int64_t frames) {
  for (std::size_t i = 0; i < windows.size(); ++i) {
    const auto turn = turn_of(windows[i]);
    if (turn == std::string::npos) continue;
    const auto first = windows[i][turn];
    windows[i] = at_end(windows[i], frames);
    const auto& next = windows[(i + 1) % windows.size()];
    if (std::ranges::find(next, first) == next.end())
      windows.insert(windows.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                     counted(std::min(first, frames - sizes.frames), sizes.frames));
  }
  std::vector<Window> unique;
  for (auto& window : windows)
    if (std::ranges::find(unique, window) == unique.end()) unique.push_back(std::move(window));
  return unique;
}

std::vector<Window> resting_windows(const WindowSizes& sizes, std::int64_t frames) {
  std::vector<Window> windows;
  const auto advance = std::max<std::int64_t>(1, sizes.frames - sizes.overlap);
  for (std::int64_t first = 0; first < frames; first += advance) {
    if (first + sizes.frames >= frames) {
      windows.push_back(counted(frames - sizes.frames, sizes.frames));
      break;
    }
    windows.push_back(counted(first, sizes.frames));
  }
  return windows;
}

/// 1 in the middle, less towards both ends.
Tensor pyramid(std::int64_t length) {
  const auto most = (length + 1) / 2;
  auto rising = at::arange(1, most + 1, at::kFloat);
  auto falling = rising.flip(0).narrow(0, length % 2, length / 2);
  return at::cat({rising, falling}) / static_cast<double>(most);
}

}  // namespace

WindowSizes::WindowSizes(const ContextChoice& choice)
    : frames((choice.frames - 1) / kFramesOfCell + 1),
      stride(choice.stride / kFramesOfCell),
      overlap(choice.overlap / kFramesOfCell) {}

std::vector<Window> windows_of(const ContextChoice& choice, std::int64_t step,
                               std::int64_t frames) {
  const WindowSizes sizes(choice);
  if (frames <= sizes.frames) return {counted(0, frames)};
  if (choice.schedule == "static_standard") return resting_windows(sizes, frames);
  auto windows = moving_windows(sizes, step, frames);
  if (choice.schedule == "uniform_looped") return windows;
  return straightened(std::move(windows), sizes, frames);
}

Tensor window_weights(const ContextChoice& choice, const Window& window, std::int64_t frames) {
  const bool looped = choice.schedule == "uniform_looped";
  const auto length = static_cast<std::int64_t>(window.size());
  const auto overlap = std::min(WindowSizes(choice).overlap, length);
  const auto [first, last] = std::ranges::minmax(window);
  const bool begins = first == 0, ends = last == frames - 1;
  auto weights = choice.pyramid ? pyramid(length) : at::ones({length});
  if (overlap == 0) return weights;
  auto left = weights.narrow(0, 0, overlap), right = weights.narrow(0, length - overlap, overlap);
  const auto up = at::linspace(0, 1, overlap), down = at::linspace(1, 0, overlap);
  if (choice.pyramid) {
    if (!looped && begins) left.copy_(at::maximum(left.clone(), up));
    if (!looped && ends) right.copy_(at::maximum(right.clone(), down));
    return weights;
  }
  if (!begins || (looped && ends)) left.copy_(up);
  if (!ends || (looped && begins)) right.copy_(down);
  return weights;
}

void repeat_noise(const Tensor& noise, const WindowSizes& sizes, at::Generator& generator) {
  const auto total = noise.size(1),
             advance = std::max<std::int64_t>(1, sizes.frames - sizes.overlap);
  for (std::int64_t first = 0; first + sizes.frames < total; first += advance) {
    const auto place = first + sizes.frames, count = std::min(advance, total - place);
    auto order = at::randperm(count, generator, at::TensorOptions(at::kLong)) + first;
    noise.narrow(1, place, count).copy_(noise.index_select(1, order));
    if (place - 1 + advance >= total) break;
  }
}

}  // namespace distorch::nodes::wan_wrapper
