// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace rollcall {

enum class ChartUnit { kNumber, kPercent, kSeconds };

// A value as a reader wants it: "31.2 %", "1.25 s", "420 ms", "12.4k".
std::string format_value(double value, ChartUnit unit);

struct ChartPoint {
  double x = 0, y = 0;
  double low = 0, high = 0;  // drawn as an error bar where they differ
};

struct ChartSeries {
  std::string name;
  std::string color;  // a CSS class: "c1" .. "c5", "good", "bad", "muted"
  std::vector<ChartPoint> points;
  bool markers = false;  // points with error bars instead of a smoothed line
};

struct Chart {
  std::string title;
  std::string x_label = "step";
  ChartUnit unit = ChartUnit::kNumber;
  std::vector<ChartSeries> series;
};

// Figures as self-contained inline SVG with title, legend, axes and ticks; nothing for no points.
// Points that are not finite are left out.
std::string line_chart(const Chart&);
// Shares of a whole, one column of stacked series for each x. All series have the same x values.
std::string stacked_chart(const Chart&);

// Text made safe for HTML content and attributes; control characters other than tab and newline
// become a replacement character.
std::string escape_html(std::string_view text);

}  // namespace rollcall
