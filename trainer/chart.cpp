// SPDX-License-Identifier: Apache-2.0
#include "trainer/chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

namespace rollcall {
namespace {

constexpr double kWidth = 560, kHeight = 250;
constexpr double kLeft = 56, kRight = 14, kTop = 10, kBottom = 40;

// 1, 2, 2.5 or 5 times a power of ten, about `span / wanted`.
double nice_step(double span, double wanted) {
  const double raw = span / wanted;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 2.5, 5.0}) {
    if (raw <= factor * power) return factor * power;
  }
  return 10 * power;
}

struct Axis {
  double low = 0, high = 1, step = 1;

  double share(double value) const { return (value - low) / (high - low); }
};

// An axis from `low` to `high` rounded out to whole ticks.
Axis rounded_axis(double low, double high, double wanted_ticks) {
  if (!(high > low)) high = low + 1;
  const double step = nice_step(high - low, wanted_ticks);
  return {std::floor(low / step + 1e-9) * step, std::ceil(high / step - 1e-9) * step, step};
}

struct Frame {
  Axis x, y;

  double at_x(double value) const { return kLeft + x.share(value) * (kWidth - kLeft - kRight); }
  double at_y(double value) const {
    return kHeight - kBottom - y.share(value) * (kHeight - kTop - kBottom);
  }
};

bool finite(const ChartPoint& p) { return std::isfinite(p.x) && std::isfinite(p.y); }

Chart with_finite_points(Chart chart) {
  for (ChartSeries& series : chart.series) {
    std::erase_if(series.points, [](const ChartPoint& p) { return !finite(p); });
  }
  std::erase_if(chart.series, [](const ChartSeries& s) { return s.points.empty(); });
  return chart;
}

Frame frame_of(const Chart& chart) {
  const double infinity = std::numeric_limits<double>::infinity();
  double left = infinity, right = -infinity, low = 0, high = -infinity;
  for (const ChartSeries& series : chart.series) {
    for (const ChartPoint& p : series.points) {
      left = std::min(left, p.x);
      right = std::max(right, p.x);
      low = std::min({low, p.y, p.low});
      high = std::max({high, p.y, p.high});
    }
  }
  if (high <= low) high = low + (chart.unit == ChartUnit::kPercent ? 0.1 : 1);
  Frame frame;
  frame.y = rounded_axis(low, high, 4);
  if (chart.unit == ChartUnit::kPercent) frame.y.high = std::min(frame.y.high, std::max(1.0, high));
  frame.x = {left, right > left ? right : left + 1,
             std::max(1.0, nice_step(right - left + 1e-9, 7))};
  return frame;
}

std::string y_ticks(const Frame& frame, ChartUnit unit, const char* css) {
  std::string svg;
  for (double y = frame.y.low; y <= frame.y.high + frame.y.step * 1e-6; y += frame.y.step) {
    const double value = std::abs(y) < frame.y.step * 1e-6 ? 0 : y;
    svg += fmt::format(R"(<line class="{}" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>)", css, kLeft,
                       kWidth - kRight, frame.at_y(y), frame.at_y(y));
    svg += fmt::format(R"(<text class="tick" x="{}" y="{:.1f}" text-anchor="end">{}</text>)",
                       kLeft - 8, frame.at_y(y) + 3.5, format_value(value, unit));
  }
  return svg;
}

std::string x_ticks(const Frame& frame, const std::string& label) {
  std::string svg;
  const double base = kHeight - kBottom;
  for (double x = std::ceil(frame.x.low / frame.x.step) * frame.x.step + 0.0;
       x <= frame.x.high + 1e-9; x += frame.x.step) {
    svg += fmt::format(R"(<line class="axis" x1="{0:.1f}" x2="{0:.1f}" y1="{1}" y2="{2}"/>)",
                       frame.at_x(x), base, base + 4);
    svg += fmt::format(R"(<text class="tick" x="{:.1f}" y="{}" text-anchor="middle">{:.0f}</text>)",
                       frame.at_x(x), base + 17, x);
  }
  svg += fmt::format(R"(<line class="axis" x1="{}" x2="{}" y1="{}" y2="{}"/>)", kLeft,
                     kWidth - kRight, base, base);
  svg += fmt::format(R"(<text class="label" x="{:.1f}" y="{}" text-anchor="middle">{}</text>)",
                     (kLeft + kWidth - kRight) / 2, kHeight - 6, escape_html(label));
  return svg;
}

std::string polyline(const Frame& frame, const std::vector<ChartPoint>& points,
                     const std::string& css) {
  std::string path;
  for (const ChartPoint& p : points) {
    path += fmt::format("{:.1f},{:.1f} ", frame.at_x(p.x), frame.at_y(p.y));
  }
  return fmt::format(R"(<polyline class="line {}" points="{}"/>)", css, path);
}

// Centred moving average over about a twentieth of the points.
std::vector<ChartPoint> smoothed(const std::vector<ChartPoint>& points) {
  const auto n = static_cast<std::ptrdiff_t>(points.size());
  const std::ptrdiff_t reach = n / 40;
  std::vector<ChartPoint> out;
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    const std::ptrdiff_t near = std::min({reach, i, n - 1 - i});
    double sum = 0;
    for (std::ptrdiff_t j = i - near; j <= i + near; ++j) sum += points[j].y;
    out.push_back({points[i].x, sum / static_cast<double>(2 * near + 1)});
  }
  return out;
}

std::string tooltip(const Chart& chart, const ChartSeries& series, const ChartPoint& p) {
  std::string text = fmt::format("{}, {} {:.0f}: {}", series.name, chart.x_label, p.x,
                                 format_value(p.y, chart.unit));
  if (p.high > p.low) {
    text += fmt::format(" ({} to {})", format_value(p.low, chart.unit),
                        format_value(p.high, chart.unit));
  }
  return "<title>" + escape_html(text) + "</title>";
}

std::string marker(const Frame& frame, const Chart& chart, const ChartSeries& series,
                   const ChartPoint& p) {
  std::string svg;
  if (p.high > p.low) {
    svg += fmt::format(
        R"(<line class="bar {0}" x1="{1:.1f}" x2="{1:.1f}" y1="{2:.1f}" y2="{3:.1f}"/>)",
        series.color, frame.at_x(p.x), frame.at_y(p.low), frame.at_y(p.high));
  }
  return svg + fmt::format(R"(<circle class="dot {}" cx="{:.1f}" cy="{:.1f}" r="4">{}</circle>)",
                           series.color, frame.at_x(p.x), frame.at_y(p.y),
                           tooltip(chart, series, p));
}

std::string draw_series(const Frame& frame, const Chart& chart, const ChartSeries& series) {
  constexpr std::size_t kNoisy = 40;
  if (!series.markers && series.points.size() > kNoisy) {
    return polyline(frame, series.points, series.color + " faint") +
           polyline(frame, smoothed(series.points), series.color);
  }
  std::string svg = polyline(frame, series.points, series.color);
  if (series.markers || series.points.size() == 1) {
    for (const ChartPoint& p : series.points) svg += marker(frame, chart, series, p);
  }
  return svg;
}

std::string legend(const Chart& chart) {
  std::string html;
  for (const ChartSeries& series : chart.series) {
    html += fmt::format(R"(<span class="key"><i class="{}"></i>{}</span>)", series.color,
                        escape_html(series.name));
  }
  return html;
}

std::string figure(const Chart& chart, const std::string& drawing) {
  return fmt::format(
      "<figure><figcaption><b>{0}</b><span class=\"keys\">{1}</span></figcaption>"
      "<svg viewBox=\"0 0 {2} {3}\" role=\"img\" aria-label=\"{0}\">{4}</svg></figure>\n",
      escape_html(chart.title), legend(chart), kWidth, kHeight, drawing);
}

std::string column(const Frame& frame, const std::string& color, double x, double low,
                   double high) {
  return fmt::format(R"(<rect class="{}" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}"/>)",
                     color, frame.at_x(x - 0.5), frame.at_y(high),
                     frame.at_x(x + 0.5) - frame.at_x(x - 0.5) + 0.15,
                     frame.at_y(low) - frame.at_y(high));
}

}  // namespace

std::string format_value(double value, ChartUnit unit) {
  if (!std::isfinite(value)) return "–";
  const double size = std::abs(value);
  if (unit == ChartUnit::kPercent)
    return fmt::format("{:.{}f} %", 100 * value, size > 0 && size < 0.1 ? 1 : 0);
  if (unit == ChartUnit::kSeconds) {
    if (size > 0 && size < 1) return fmt::format("{:.0f} ms", 1000 * value);
    return fmt::format("{:.3g} s", value);
  }
  if (size >= 1e9) return fmt::format("{:.3g}G", value / 1e9);
  if (size >= 1e6) return fmt::format("{:.3g}M", value / 1e6);
  if (size >= 1e4) return fmt::format("{:.3g}k", value / 1e3);
  return size >= 1000 ? fmt::format("{:.0f}", value) : fmt::format("{:.3g}", value);
}

std::string line_chart(const Chart& wanted) {
  const Chart chart = with_finite_points(wanted);
  if (chart.series.empty()) return "";
  const Frame frame = frame_of(chart);
  std::string svg = y_ticks(frame, chart.unit, "grid") + x_ticks(frame, chart.x_label);
  for (const ChartSeries& series : chart.series) svg += draw_series(frame, chart, series);
  return figure(chart, svg);
}

std::string stacked_chart(const Chart& chart) {
  if (chart.series.empty() || chart.series[0].points.empty()) return "";
  const std::vector<ChartPoint>& first = chart.series[0].points;
  Frame frame = frame_of(chart);
  frame.x.low = first.front().x - 0.5;
  frame.x.high = first.back().x + 0.5;
  frame.y = {0, 1, 0.25};
  std::string columns;
  for (std::size_t i = 0; i < first.size(); ++i) {
    double below = 0;
    for (const ChartSeries& series : chart.series) {
      const double share = series.points.at(i).y;
      columns += column(frame, series.color, series.points[i].x, below, below + share);
      below += share;
    }
  }
  return figure(
      chart, columns + y_ticks(frame, ChartUnit::kPercent, "over") + x_ticks(frame, chart.x_label));
}

std::string escape_html(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '\n':
      case '\t':
        out += c;
        break;
      default:
        if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
          out += "\xef\xbf\xbd";
        else
          out += c;
    }
  }
  return out;
}

}  // namespace rollcall
