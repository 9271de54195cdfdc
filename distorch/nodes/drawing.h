#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

/// Shapes drawn into pictures, pixel by pixel and without smooth edges. Points are x and y in turn, in
/// pixels; fractions are cut off. What lies outside of the picture is not drawn.
namespace distorch::nodes {

struct Color {
  float red = 0, green = 0, blue = 0;  // 0..1
};

/// 1 within a rectangle from corner to corner, both of them in it, in any order: added to `mask`
/// [H, W] float32.
void fill_rectangle(at::Tensor& mask, const std::vector<double>& corners);
/// 1 within a polygon and on its outline: added to `mask`. Nothing for less than three points.
void fill_polygon(at::Tensor& mask, const std::vector<double>& points);

/// Draws into a copy of a picture [H, W, 3] float32.
class Drawing {
 public:
  explicit Drawing(const at::Tensor& picture) : picture_(picture.clone().contiguous()) {}

  /// Colours what `mask` [H, W] has, so far opaque.
  void blend(const at::Tensor& mask, const Color& color, double opacity);
  /// The outline of a closed polygon, so many pixels wide.
  void outline(const std::vector<double>& points, const Color& color, int width);
  /// White letters on a half transparent ground, the upper left corner at x and y: capital letters,
  /// digits and the signs of ASCII. 10 pixels high.
  void label(const std::string& text, double x, double y, const Color& ground);
  /// Pixels that the letters of a label take in a row.
  static std::int64_t label_width(const std::string& text);

  const at::Tensor& picture() const { return picture_; }

 private:
  at::Tensor picture_;
};

}  // namespace distorch::nodes
