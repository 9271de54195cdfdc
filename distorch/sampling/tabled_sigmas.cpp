#include "distorch/sampling/tabled_sigmas.h"

#include <fmt/format.h>

#include <cmath>

#include "distorch/base/error.h"
#include "distorch/sampling/sigmas.h"

namespace distorch::sampling {
namespace {

struct Row {
  Tabled table;
  std::string_view family;
  std::vector<double> levels;
};

// Sabour et al. 2024 (SD1, SDXL, SVD) and Pei et al. 2025 (FLUX, Wan, Chroma).
const std::vector<Row>& rows() {
  static const std::vector<Row> all = {
      {Tabled::AlignYourSteps,
       "SD1",
       {14.6146412293, 6.4745760956, 3.8636745985, 2.6946151520, 1.8841921177, 1.3943805092,
        0.9642583904, 0.6523686016, 0.3977456272, 0.1515232662, 0.0291671582}},
      {Tabled::AlignYourSteps,
       "SDXL",
       {14.6146412293, 6.3184485287, 3.7681790315, 2.1811480769, 1.3405244945, 0.8620721141,
        0.5550693289, 0.3798540708, 0.2332364134, 0.1114188177, 0.0291671582}},
      {Tabled::AlignYourSteps,
       "SVD",
       {700.00, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034, 0.002}},
      {Tabled::OptimalSteps,
       "FLUX",
       {0.9968, 0.9886, 0.9819, 0.975, 0.966, 0.9471, 0.9158, 0.8287, 0.5512, 0.2808, 0.001}},
      {Tabled::OptimalSteps, "Wan", {1.0,   0.997, 0.995, 0.993, 0.991, 0.989, 0.987,
                                     0.985, 0.98,  0.975, 0.973, 0.968, 0.96,  0.946,
                                     0.927, 0.902, 0.864, 0.776, 0.539, 0.208, 0.001}},
      {Tabled::OptimalSteps,
       "Chroma",
       {0.992, 0.99,  0.988, 0.985, 0.982, 0.978, 0.973, 0.968, 0.961, 0.953, 0.943,
        0.931, 0.917, 0.9,   0.881, 0.858, 0.832, 0.802, 0.769, 0.731, 0.69,  0.646,
        0.599, 0.55,  0.501, 0.451, 0.402, 0.355, 0.311, 0.27,  0.232, 0.199, 0.169,
        0.143, 0.12,  0.101, 0.084, 0.07,  0.058, 0.048, 0.001}},
  };
  return all;
}

// The levels at `count` evenly spaced places, straight lines in log sigma between those given.
std::vector<double> interpolated(const std::vector<double>& levels, std::size_t count) {
  std::vector<double> out;
  const double last = static_cast<double>(levels.size() - 1);
  for (std::size_t k = 0; k < count; ++k) {
    const double place = last * static_cast<double>(k) / static_cast<double>(count - 1);
    const auto before = std::min(static_cast<std::size_t>(place), levels.size() - 2);
    const double part = place - static_cast<double>(before);
    const double from = std::log(levels[before]);
    out.push_back(std::exp(from + part * (std::log(levels[before + 1]) - from)));
  }
  return out;
}

}  // namespace

Sigmas last_of_table(std::vector<double> levels, int steps, double denoise) {
  if (denoise <= 0) {
    return {};
  }
  const auto count = static_cast<std::size_t>(steps) + 1;
  if (count != levels.size()) {
    levels = interpolated(levels, count);
  }
  if (denoise < 1) {
    const auto kept = static_cast<std::size_t>(std::nearbyint(steps * denoise)) + 1;
    levels.erase(levels.begin(), levels.end() - static_cast<std::ptrdiff_t>(kept));
  }
  levels.back() = 0;
  return Sigmas(levels.begin(), levels.end());
}

Sigmas tabled_sigmas(Tabled table, std::string_view family, int steps, double denoise) {
  for (const Row& row : rows()) {
    if (row.table == table && row.family == family) {
      return last_of_table(row.levels, steps, denoise);
    }
  }
  throw Error(ErrorKind::Usage, "model_type", fmt::format("there is no table for '{}'", family));
}

}  // namespace distorch::sampling
