#include "tools/chart_svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tools/svg.h"

namespace blt {
namespace {

// Pixels.
constexpr double kWidth = 760, kHeight = 420, kLeft = 70, kRight = 20, kTop = 64, kBottom = 52;

// A step of 1, 2 or 5 times a power of ten that cuts `range` into at most ten.
double tick_step(double range) {
  const double power = std::pow(10, std::floor(std::log10(range / 10)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (range / (factor * power) <= 10) return factor * power;
  return 10 * power;
}

class Drawing {
 public:
  explicit Drawing(const Chart& chart) : chart_(chart) {
    low_x_ = chart.points.front().first;
    high_x_ = chart.points.back().first;
    if (chart.bars) {
      low_x_ -= 0.5;
      high_x_ += 0.5;
    }
    if (high_x_ <= low_x_) high_x_ = low_x_ + 1;
    for (const auto& [x, y] : chart.points) high_y_ = std::max(high_y_, y);
    high_y_ = high_y_ > 0 ? 1.05 * high_y_ : 1;
  }

  std::string draw() {
    out_ = svg_opening(kWidth, kHeight);
    text(kLeft, 22, "start", chart_.title, " font-size=\"14\" font-weight=\"bold\"");
    text(kLeft, 42, "start", chart_.subtitle, " fill=\"#444444\"");
    draw_axes();
    if (chart_.bars)
      draw_bars();
    else
      draw_curve();
    if (chart_.marked) draw_mark(chart_.marked->first, chart_.marked->second);
    return out_ + "</svg>\n";
  }

 private:
  double x_of(double x) const {
    return kLeft + (x - low_x_) / (high_x_ - low_x_) * (kWidth - kLeft - kRight);
  }
  double y_of(double y) const { return kHeight - kBottom - y / high_y_ * (kHeight - kTop - kBottom); }

  void text(double x, double y, const char* anchor, const std::string& what, const std::string& more = "") {
    out_ += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", x, y, anchor,
                        more, escaped_xml(what));
  }
  void line(double x1, double y1, double x2, double y2, const char* style) {
    out_ += fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" {}/>\n", x1, y1, x2,
                        y2, style);
  }

  void draw_axes() {
    const double step_x = tick_step(high_x_ - low_x_), step_y = tick_step(high_y_);
    for (double y = 0; y <= high_y_; y += step_y) {
      line(kLeft, y_of(y), kWidth - kRight, y_of(y), "stroke=\"#dddddd\"");
      text(kLeft - 6, y_of(y) + 4, "end", fmt::format("{:g}", std::round(y / step_y) * step_y));
    }
    for (double x = std::ceil(low_x_ / step_x) * step_x; x <= high_x_; x += step_x) {
      line(x_of(x), y_of(0), x_of(x), y_of(0) + 4, "stroke=\"#000000\"");
      text(x_of(x), y_of(0) + 17, "middle", fmt::format("{:g}", std::round(x / step_x) * step_x));
    }
    line(kLeft, y_of(0), kWidth - kRight, y_of(0), "stroke=\"#000000\"");
    text((kLeft + kWidth - kRight) / 2, kHeight - 14, "middle", chart_.x_name);
    text(0, 0, "middle", chart_.y_name,
         fmt::format(" transform=\"translate(18 {:.1f}) rotate(-90)\"", (kTop + kHeight - kBottom) / 2));
  }
  void draw_bars() {
    for (const auto& [x, y] : chart_.points)
      out_ += fmt::format(
          "<rect x=\"{:.2f}\" y=\"{:.2f}\" width=\"{:.2f}\" height=\"{:.2f}\" fill=\"#4c78a8\"/>\n",
          x_of(x - 0.45), y_of(y), x_of(x + 0.45) - x_of(x - 0.45), y_of(0) - y_of(y));
  }
  void draw_curve() {
    out_ += "<polyline fill=\"none\" stroke=\"#4c78a8\" stroke-width=\"2\" points=\"";
    for (const auto& [x, y] : chart_.points) out_ += fmt::format("{:.1f},{:.1f} ", x_of(x), y_of(y));
    out_ += "\"/>\n";
  }
  void draw_mark(double x, double y) {
    const char* style = "stroke=\"#c03020\" stroke-dasharray=\"4 3\"";
    line(x_of(x), y_of(0), x_of(x), y_of(y), style);
    line(kLeft, y_of(y), x_of(x), y_of(y), style);
    // A curve that rises is neither to the left and above nor to the right and below: the side with more room.
    const std::string label = fmt::format("{:.4g}, {:.4g}", x, y);
    const char* red = " fill=\"#c03020\"";
    if (x > (low_x_ + high_x_) / 2)
      text(x_of(x) - 8, y_of(y) - 8, "end", label, red);
    else
      text(x_of(x) + 8, y_of(y) + 18, "start", label, red);
  }

  const Chart& chart_;
  double low_x_ = 0, high_x_ = 1, high_y_ = 0;
  std::string out_;
};

}  // namespace

std::string chart_svg(const Chart& chart) { return Drawing(chart).draw(); }

}  // namespace blt
