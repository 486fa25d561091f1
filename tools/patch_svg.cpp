#include "tools/patch_svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "tools/svg.h"

namespace blt {
namespace {

// Pixels.
constexpr double kCell = 11, kLeft = 46, kRight = 14, kTop = 58;
constexpr double kCurve = 78, kText = 22, kGap = 16;
constexpr int64_t kRowBytes = 96;

struct Byte {
  float entropy = 0;
  bool is_even = false;  // of its patch
  bool starts_patch = false;
  std::string shown;  // empty inside a character of several bytes
};

// What stands in a byte's cell: blanks are made visible, and an escape is too wide for it.
std::string shown(const Glyph& glyph) {
  if (glyph.text == " ") return "\u2423";
  if (!glyph.escaped) return glyph.text;
  if (glyph.text == "\\n") return "\u21b5";
  if (glyph.text == "\\t") return "\u21e5";
  return "\u00d7";
}

std::vector<Byte> bytes_of(const std::vector<TextPatch>& patches) {
  std::vector<Byte> result;
  for (size_t p = 0; p < patches.size(); ++p) {
    const size_t first = result.size();
    for (const Glyph& glyph : glyphs(patches[p].bytes)) {
      result.push_back({.shown = shown(glyph)});
      result.resize(result.size() + glyph.bytes - 1);
    }
    for (size_t i = first; i < result.size(); ++i) {
      result[i].is_even = p % 2 == 0;
      result[i].starts_patch = i == first;
      if (!patches[p].entropies.empty()) result[i].entropy = patches[p].entropies[i - first];
    }
  }
  return result;
}

class Drawing {
 public:
  Drawing(const std::vector<TextPatch>& patches, const PatchRuleInfo& rule)
      : bytes_(bytes_of(patches)), rule_(rule), has_curve_(!patches.front().entropies.empty()) {
    for (const Byte& byte : bytes_)
      highest_ = std::max(highest_, std::ceil(static_cast<double>(byte.entropy)));
    if (rule.threshold) highest_ = std::max(highest_, std::ceil(*rule.threshold));
    rows_ = (static_cast<int64_t>(bytes_.size()) + kRowBytes - 1) / kRowBytes;
    columns_ = std::min<int64_t>(kRowBytes, static_cast<int64_t>(bytes_.size()));
  }

  std::string draw(size_t patches) {
    const double width = std::max(kLeft + static_cast<double>(columns_) * kCell + kRight, 760.0);
    const double height = kTop + static_cast<double>(rows_) * row_height();
    out_ += svg_opening(width, height);
    out_ +=
        fmt::format("<text x=\"{}\" y=\"20\" font-size=\"14\" font-weight=\"bold\">Patches of {}</text>\n",
                    kLeft, escaped_xml(rule_.name));
    std::string legend = fmt::format("{} byte{} in {} patch{} of {:.2f} bytes on average", bytes_.size(),
                                     bytes_.size() == 1 ? "" : "s", patches, patches == 1 ? "" : "es",
                                     static_cast<double>(bytes_.size()) / static_cast<double>(patches));
    if (has_curve_)
      legend +=
          "; the curve is the entropy of each byte before it is seen, in nats; on the left, the row's first "
          "byte";
    out_ += fmt::format("<text x=\"{}\" y=\"40\" fill=\"#444444\">{}</text>\n", kLeft, escaped_xml(legend));
    for (int64_t row = 0; row < rows_; ++row) draw_row(row);
    return out_ + "</svg>\n";
  }

 private:
  double curve_height() const { return has_curve_ ? kCurve : 0; }
  double row_height() const { return curve_height() + kText + kGap; }
  static double x_of(int64_t column) { return kLeft + static_cast<double>(column) * kCell; }

  void draw_row(int64_t row) {
    const int64_t first = row * kRowBytes;
    const int64_t last = std::min<int64_t>(first + kRowBytes, static_cast<int64_t>(bytes_.size()));
    const double top = kTop + static_cast<double>(row) * row_height();
    const double bottom = top + curve_height();
    draw_bands(first, last, top);
    if (has_curve_) {
      draw_scale(last - first, top, bottom);
      draw_curve(first, last, bottom);
    }
    out_ += fmt::format(
        "<text x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\" fill=\"#999999\" font-size=\"9\">{}</text>\n",
        kLeft - 4, bottom + 14, first);
    out_ += "<text font-family=\"DejaVu Sans Mono, monospace\" font-size=\"12\" text-anchor=\"middle\">";
    for (int64_t i = first; i < last; ++i)
      if (!bytes_[i].shown.empty())
        out_ += fmt::format("<tspan x=\"{:.1f}\" y=\"{:.1f}\">{}</tspan>", x_of(i - first) + kCell / 2,
                            bottom + 15, escaped_xml(bytes_[i].shown));
    out_ += "</text>\n";
  }

  void draw_bands(int64_t first, int64_t last, double top) {
    for (int64_t i = first; i < last;) {
      int64_t end = i + 1;
      while (end < last && !bytes_[end].starts_patch) ++end;
      out_ +=
          fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" fill=\"{}\"/>\n",
                      x_of(i - first), top, static_cast<double>(end - i) * kCell, curve_height() + kText,
                      bytes_[i].is_even ? "#dbe9f6" : "#fdeccb");
      i = end;
    }
  }

  double y_of(double entropy, double bottom) const { return bottom - entropy / highest_ * (kCurve - 4); }

  void draw_scale(int64_t columns, double top, double bottom) {
    const double right = x_of(columns);
    for (const double value : {0.0, highest_ / 2, highest_})
      out_ += fmt::format(
          "<line x1=\"{0}\" y1=\"{1:.1f}\" x2=\"{2:.1f}\" y2=\"{1:.1f}\" stroke=\"#b0b0b0\" "
          "stroke-width=\"0.5\"/><text x=\"{3}\" y=\"{4:.1f}\" text-anchor=\"end\" fill=\"#666666\" "
          "font-size=\"9\">{5:g}</text>\n",
          kLeft, y_of(value, bottom), right, kLeft - 4, y_of(value, bottom) + 3, value);
    if (top == kTop)
      out_ += fmt::format(
          "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#666666\" font-size=\"9\">nats</text>\n",
          kLeft - 4, kTop - 6);
    if (!rule_.threshold) return;
    const double y = y_of(*rule_.threshold, bottom);
    if (y < top || y > bottom) return;  // a threshold below 0: every byte starts a patch
    out_ += fmt::format(
        "<line x1=\"{0}\" y1=\"{1:.1f}\" x2=\"{2:.1f}\" y2=\"{1:.1f}\" stroke=\"#c0392b\" stroke-width=\"1\" "
        "stroke-dasharray=\"5 3\"><title>threshold {3:.4f} nats</title></line>\n",
        kLeft, y, right, *rule_.threshold);
    if (top == kTop)
      out_ += fmt::format(
          "<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"end\" fill=\"#c0392b\" font-size=\"10\">"
          "threshold {:.3f}</text>\n",
          std::max(right, kLeft + 90), kTop - 4, *rule_.threshold);
  }

  void draw_curve(int64_t first, int64_t last, double bottom) {
    std::string points, dots;
    for (int64_t i = first; i < last; ++i) {
      const double x = x_of(i - first) + kCell / 2, y = y_of(bytes_[i].entropy, bottom);
      points += fmt::format("{:.1f},{:.1f} ", x, y);
      dots += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{}\"><title>{:.4f} nats</title></circle>",
                          x, y, bytes_[i].starts_patch ? 2.6 : 1.4, bytes_[i].entropy);
    }
    out_ += fmt::format(
        "<polyline points=\"{}\" fill=\"none\" stroke=\"#1f4e79\" stroke-width=\"1.2\"/>\n"
        "<g fill=\"#1f4e79\">{}</g>\n",
        points, dots);
  }

  std::vector<Byte> bytes_;
  const PatchRuleInfo& rule_;
  bool has_curve_;
  double highest_ = 1;
  int64_t rows_ = 0, columns_ = 0;
  std::string out_;
};

}  // namespace

std::string patch_svg(const std::vector<TextPatch>& patches, const PatchRuleInfo& rule) {
  return Drawing(patches, rule).draw(patches.size());
}

}  // namespace blt
