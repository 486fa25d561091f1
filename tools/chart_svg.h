// Pictures of numbers.
#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace blt {

struct Chart {
  std::string title, subtitle;
  std::string x_name, y_name;
  std::vector<std::pair<double, double>> points;         // at least one, sorted by x
  bool bars = false;                                     // from 0, one x unit wide; else a curve
  std::optional<std::pair<double, double>> marked = {};  // with lines to both axes
};

// An SVG document.
std::string chart_svg(const Chart& chart);

}  // namespace blt
