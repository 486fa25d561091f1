// What every SVG document of the tools begins with, and how text stands in it.
#pragma once

#include <string>

namespace blt {

// The opening tag and a white ground. width, height: pixels.
std::string svg_opening(double width, double height);

// With the characters that mean something in XML escaped.
std::string escaped_xml(const std::string& text);

}  // namespace blt
