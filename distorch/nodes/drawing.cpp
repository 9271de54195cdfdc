#include "distorch/nodes/drawing.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>

namespace distorch::nodes {

using at::Tensor;

namespace {

struct Point {
  std::int64_t x = 0, y = 0;
};

constexpr double kFarthest = 1e6;

std::int64_t whole(double value) {
  return static_cast<std::int64_t>(std::clamp(value, -kFarthest, kFarthest));
}

std::vector<Point> corners_of(const std::vector<double>& points) {
  std::vector<Point> corners;
  for (std::size_t i = 0; i + 1 < points.size(); i += 2)
    corners.push_back({whole(points[i]), whole(points[i + 1])});
  return corners;
}

/// A mask's pixels, where they are.
class Pixels {
 public:
  explicit Pixels(Tensor& mask)
      : data_(mask.mutable_data_ptr<float>()), width_(mask.size(1)), height_(mask.size(0)) {}

  std::int64_t width() const { return width_; }
  std::int64_t height() const { return height_; }
  void set(std::int64_t x, std::int64_t y) {
    if (x >= 0 && x < width_ && y >= 0 && y < height_) data_[y * width_ + x] = 1;
  }
  /// Both ends too.
  void row(std::int64_t from, std::int64_t to, std::int64_t y) {
    for (auto x = std::max<std::int64_t>(from, 0); x <= std::min(to, width_ - 1); ++x) set(x, y);
  }

 private:
  float* data_;
  std::int64_t width_, height_;
};

/// Bresenham's line, `width` pixels thick.
void line(Pixels& pixels, Point from, const Point& to, int width) {
  const auto dx = std::abs(to.x - from.x), dy = -std::abs(to.y - from.y);
  const std::int64_t step_x = from.x < to.x ? 1 : -1, step_y = from.y < to.y ? 1 : -1;
  const std::int64_t before = (width - 1) / 2;
  auto error = dx + dy;
  for (;;) {
    for (std::int64_t i = 0; i < width; ++i)
      pixels.row(from.x - before, from.x - before + width - 1, from.y - before + i);
    if (from.x == to.x && from.y == to.y) return;
    const auto twice = 2 * error;
    if (twice >= dy) error += dy, from.x += step_x;
    if (twice <= dx) error += dx, from.y += step_y;
  }
}

void closed_line(Pixels& pixels, const std::vector<Point>& corners, int width) {
  for (std::size_t i = 0; i < corners.size(); ++i)
    line(pixels, corners[i], corners[(i + 1) % corners.size()], width);
}

/// Where the outline crosses the middle of a row, from left to right.
std::vector<double> crossings(const std::vector<Point>& corners, std::int64_t y) {
  std::vector<double> places;
  for (std::size_t i = 0; i < corners.size(); ++i) {
    auto a = corners[i], b = corners[(i + 1) % corners.size()];
    if (a.y > b.y) std::swap(a, b);
    // The lower end belongs to the next edge.
    if (y < a.y || y >= b.y) continue;
    const auto slope = static_cast<double>(b.x - a.x) / static_cast<double>(b.y - a.y);
    places.push_back(static_cast<double>(a.x) + static_cast<double>(y - a.y) * slope);
  }
  std::sort(places.begin(), places.end());
  return places;
}

// Letters of three by five pixels, from the blank on: a digit a row, whose bits are pixels.
constexpr const char* kLetters[] = {
    "00000", "22202", "55000", "57575", "36363", "51245", "25257", "22000", "12221", "42224",
    "05250", "02720", "00024", "00700", "00002", "11244", "75557", "26227", "71747", "71717",
    "55711", "74717", "74757", "71122", "75757", "75717", "02020", "02024", "12421", "07070",
    "42124", "71202", "75747", "25755", "65656", "34443", "65556", "74647", "74644", "34553",
    "55755", "72227", "11152", "55655", "44447", "57755", "57775", "25552", "65644", "25563",
    "65655", "34216", "72222", "55557", "55552", "55775", "55255", "55222", "71247", "64446",
    "44211", "31113", "25000", "00007"};
constexpr std::int64_t kScale = 2, kAdvance = 4 * kScale, kLetterHeight = 5 * kScale;

const char* letter(char c) {
  if (c >= 'a' && c <= 'z') c = static_cast<char>(c - 'a' + 'A');
  return c >= ' ' && c <= '_' ? kLetters[c - ' '] : kLetters['?' - ' '];
}

void write(Pixels& pixels, const std::string& text, const Point& at) {
  auto left = at.x;
  for (char c : text) {
    const char* rows = letter(c);
    for (std::int64_t y = 0; y < kLetterHeight; ++y)
      for (std::int64_t x = 0; x < 3 * kScale; ++x)
        if ((rows[y / kScale] - '0') & (4 >> (x / kScale))) pixels.set(left + x, at.y + y);
    left += kAdvance;
  }
}

}  // namespace

void fill_rectangle(Tensor& mask, const std::vector<double>& corners) {
  Pixels pixels(mask);
  auto ends = corners_of(corners);
  if (ends.size() < 2) return;
  const auto [left, right] = std::minmax(ends[0].x, ends[1].x);
  const auto [top, bottom] = std::minmax(ends[0].y, ends[1].y);
  for (auto y = std::max<std::int64_t>(top, 0); y <= std::min(bottom, pixels.height() - 1); ++y)
    pixels.row(left, right, y);
}

void fill_polygon(Tensor& mask, const std::vector<double>& points) {
  Pixels pixels(mask);
  const auto corners = corners_of(points);
  if (corners.size() < 3) return;
  for (std::int64_t y = 0; y < pixels.height(); ++y) {
    const auto places = crossings(corners, y);
    for (std::size_t i = 0; i + 1 < places.size(); i += 2)
      pixels.row(static_cast<std::int64_t>(std::floor(places[i] + 0.5)),
                 static_cast<std::int64_t>(std::ceil(places[i + 1] - 0.5)), y);
  }
  closed_line(pixels, corners, 1);
}

void Drawing::blend(const Tensor& mask, const Color& color, double opacity) {
  auto share = (mask * opacity).unsqueeze(-1);
  auto paint = at::tensor({color.red, color.green, color.blue});
  picture_ = picture_ * (1.0 - share) + paint * share;
}

void Drawing::outline(const std::vector<double>& points, const Color& color, int width) {
  const auto corners = corners_of(points);
  if (corners.empty()) return;
  auto mask = at::zeros({picture_.size(0), picture_.size(1)});
  Pixels pixels(mask);
  closed_line(pixels, corners, width);
  blend(mask, color, 1.0);
}

std::int64_t Drawing::label_width(const std::string& text) {
  return kAdvance * static_cast<std::int64_t>(text.size());
}

void Drawing::label(const std::string& text, double x, double y, const Color& ground) {
  const Point at{whole(x), whole(y)};
  auto behind = at::zeros({picture_.size(0), picture_.size(1)}), letters = at::zeros_like(behind);
  fill_rectangle(behind, {static_cast<double>(at.x) - kScale, static_cast<double>(at.y) - kScale,
                          static_cast<double>(at.x + label_width(text)),
                          static_cast<double>(at.y + kLetterHeight + kScale - 1)});
  Pixels pixels(letters);
  write(pixels, text, at);
  blend(behind, ground, 0.5);
  blend(letters, {1, 1, 1}, 1.0);
}

}  // namespace distorch::nodes
