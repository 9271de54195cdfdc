// The kernels for products of 8-bit whole numbers, run thread by thread on the host: which number of
// a tile lies where, and who waits for whom.
#include <doctest/doctest.h>

#include <cstdlib>
#include <random>

#include "tests/quant/warp_emulation.h"

// What CUDA's compiler knows and this one does not.
#define __device__
#define __shared__
#define __forceinline__ inline
#define __grid_constant__
#define __align__(bytes)
#define __launch_bounds__(...)
#define __cluster_dims__(...)
#define KERNEL static
#define UNROLL

namespace emulated_rows {
alignas(16) float room[1 << 14];
constexpr int PASSES = 2, ROTATED = 1;
#include "distorch/quant/int8_rows.inc"
}  // namespace emulated_rows

namespace emulated_mma {
unsigned char room[1];
constexpr int COLUMNS = 128, STAGES = 3;
#include "distorch/quant/int8_finish.inc"
#include "distorch/quant/int8_mma.inc"
}  // namespace emulated_mma

namespace emulated_wgmma {
unsigned char room[1];
constexpr int GROUPS = 3, COLUMNS = 192, STAGES = 3, CLUSTER = 1, LAG = 1;
#include "distorch/quant/int8_finish.inc"
#include "distorch/quant/int8_wgmma.inc"
}  // namespace emulated_wgmma

namespace emulated_cluster {
unsigned char room[1];
constexpr int GROUPS = 2, COLUMNS = 128, STAGES = 2, CLUSTER = 2, LAG = 0;
#include "distorch/quant/int8_finish.inc"
#include "distorch/quant/int8_wgmma.inc"
}  // namespace emulated_cluster

namespace {

/// Whole numbers where copies of 16 bytes may begin.
class Bytes {
 public:
  Bytes(int rows, int width, std::mt19937& random)
      : data_(static_cast<std::int8_t*>(std::aligned_alloc(64, (rows * width + 63) / 64 * 64)),
              &std::free) {
    for (int i = 0; i < rows * width; ++i)
      data_.get()[i] = static_cast<std::int8_t>(static_cast<int>(random() % 256) - 128);
  }
  const std::int8_t* data() const { return data_.get(); }

 private:
  std::unique_ptr<std::int8_t, void (*)(void*)> data_;
};

/// y [m, n] in rows 8 further apart, all of it a number that no product has where nothing is written.
struct Case {
  static constexpr int kGroup = 2;  // tiles of rows side by side
  int m, n, k, stride;
  std::mt19937 random{7};
  Bytes a, b;
  std::vector<float> rows, scales;
  std::vector<Number> bias, y, wanted;

  Case(int m, int n, int k) : m(m), n(n), k(k), stride(n + 8), a(m, k, random), b(n, k, random) {
    std::uniform_real_distribution<float> some(0.001F, 0.01F);
    for (int i = 0; i < m; ++i) rows.push_back(some(random));
    for (int j = 0; j < n; ++j) scales.push_back(some(random));
    for (int j = 0; j < n; ++j) bias.push_back(down(30 * some(random)));
    wanted = y = std::vector<Number>(static_cast<std::size_t>(m) * stride, down(-7777));
    for (int i = 0; i < m; ++i)
      for (int j = 0; j < n; ++j) {
        int sum = 0;
        for (int p = 0; p < k; ++p) sum += a.data()[i * k + p] * b.data()[j * k + p];
        wanted[i * stride + j] =
            down(static_cast<float>(sum) * (rows[i] * scales[j]) + up(bias[j]));
      }
  }
};

TEST_CASE("emulated: the kernel of every generation multiplies tiles with rests") {
  Case c(150, 260, 208);
  launch_emulated(2 * 3, 1, 256, [&] {
    emulated_mma::int8_product(c.a.data(), c.b.data(), c.y.data(), c.rows.data(), c.scales.data(),
                               c.bias.data(), c.m, c.n, c.k, c.stride, 0, Case::kGroup);
  });
  CHECK(c.y == c.wanted);
}

TEST_CASE("emulated: warpgroups multiply what another brings, one behind the other") {
  Case c(200, 388, 656);
  const TensorMap a{c.a.data(), c.k, c.m, 192}, b{c.b.data(), c.k, c.n, 192};
  launch_emulated(2, 1, 512, [&] {
    emulated_wgmma::int8_hopper(a, b, c.y.data(), c.rows.data(), c.scales.data(), c.bias.data(),
                                c.m, c.n, c.k, c.stride, 0, Case::kGroup, nullptr, nullptr, 1);
  });
  CHECK(c.y == c.wanted);
}

TEST_CASE(
    "emulated: two blocks share what they multiply with, and clusters the tiles that are left") {
  Case c(300, 388, 656);
  const TensorMap a{c.a.data(), c.k, c.m, 128}, b{c.b.data(), c.k, c.n, 64};
  // Two tiles of rows by four of columns for three clusters: two are left.
  for (const auto& [clusters, parts] : {std::pair{3, 1}, std::pair{3, 2}, std::pair{16, 2}}) {
    const int left = clusters == 3 ? 2 : 8;
    std::vector<int4> sums(static_cast<std::size_t>(left) * 2 * 2 * parts * 16 * 128);
    std::vector<int> arrived(left * 2 * 2);
    std::fill(c.y.begin(), c.y.end(), down(-7777));
    launch_emulated(2 * clusters, 2, 384, [&, parts = parts] {
      emulated_cluster::int8_hopper(a, b, c.y.data(), c.rows.data(), c.scales.data(), c.bias.data(),
                                    c.m, c.n, c.k, c.stride, 0, Case::kGroup, sums.data(),
                                    arrived.data(), parts);
    });
    CHECK(c.y == c.wanted);
  }
}

/// Groups of 256 by the sums that kernel "rotated" makes, a pair of bits of the place after another.
void rotate(std::vector<float>& row) {
  for (int step = 1; step < 256; step *= 4) {
    const auto before = row;
    for (int i = 0; i < static_cast<int>(row.size()); ++i) {
      const int pair = i & (3 * step), first = i - pair;
      const float sum = (before[first] + before[first + step]) +
                        (before[first + 2 * step] + before[first + 3 * step]);
      row[i] = 0.5F * sum - before[first + 3 * step - pair];
    }
  }
}

TEST_CASE("emulated: rows are rotated and rounded as by several operations") {
  constexpr int rows = 3, width = 1280, most = 127, threads = 64;
  constexpr float floor = 1e-30F;
  alignas(16) static Number x[rows * width];
  alignas(16) static std::int8_t y[(rows + 1) * width];
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (int i = 0; i < width; ++i) {
    x[i] = down(normal(random));
    x[width + i] = down(0);
    x[2 * width + i] = down(i == 700 ? INFINITY : 1);
    y[rows * width + i] = 9;
  }
  float scales[rows];
  launch_emulated(rows + 1, 1, threads,
                  [&] { emulated_rows::int8_rows(x, y, scales, rows, width, most, floor); });
  for (int r = 0; r < rows; ++r) {
    std::vector<float> row(x + r * width, x + (r + 1) * width);
    for (int i = 0; i < width; ++i) row[i] = up(x[r * width + i]);
    rotate(row);
    float largest = 0;
    for (float v : row) largest = std::max(largest, std::abs(v));
    const float scale = std::max(largest / most, floor);
    const bool strange = r == 2;
    CHECK((strange ? std::isnan(scales[r]) : scales[r] == scale));
    int wrong = 0;
    for (int i = 0; i < width; ++i)
      wrong += y[r * width + i] != (strange ? 0 : static_cast<int>(std::nearbyint(row[i] / scale)));
    CHECK(wrong == 0);
  }
  for (int i = 0; i < width; ++i) CHECK(y[rows * width + i] == 0);
}

}  // namespace
