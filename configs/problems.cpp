// SPDX-License-Identifier: Apache-2.0
#include "configs/problems.h"

#include <algorithm>
#include <tuple>
#include <utility>

#include "comms/error.h"

namespace rollcall {
namespace {

constexpr std::size_t kMaxListed = 100;
constexpr std::size_t kLongestName = 64;

std::string place_of(const Position& position, const std::string& file) {
  if (position.override_number > 0) return "--set " + std::to_string(position.override_number);
  return file + ":" + std::to_string(position.line) + ":" + std::to_string(position.column);
}

// Optimal string alignment: insert, delete, replace, or swap of neighbours.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      d[i][j] = std::min(
          {d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

}  // namespace

void Problems::add(Position position, std::string text) {
  if (found_.size() == kMaxListed) {
    ++unlisted_;
  } else {
    found_.push_back({position, std::move(text)});
  }
}

void Problems::throw_if_any(const std::string& file) const {
  if (found_.empty()) return;
  std::vector<Problem> sorted = found_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Problem& a, const Problem& b) {
    const auto key = [](const Position& p) {
      return std::tuple(p.override_number, p.line, p.column);
    };
    return key(a.position) < key(b.position);
  });
  std::string report;
  if (sorted.size() > 1) {
    report = file + ": " + std::to_string(sorted.size() + unlisted_) + " problems\n";
  }
  for (const Problem& problem : sorted) {
    if (&problem != &sorted.front()) report += '\n';
    report += place_of(problem.position, file) + ": " + problem.text;
  }
  if (unlisted_ > 0) report += "\n... and " + std::to_string(unlisted_) + " more";
  throw input_error(report, "docs/configuration.md lists every key with its type and default");
}

std::string cited(std::string_view text) {
  constexpr std::size_t kLongest = 60;
  std::string shown(text.substr(0, kLongest));
  for (char& c : shown) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  }
  return "'" + shown + (text.size() > kLongest ? "..." : "") + "'";
}

std::string joined(std::span<const std::string_view> names) {
  std::string out;
  for (std::string_view name : names) out.append(out.empty() ? "" : ", ").append(name);
  return out;
}

std::string_view nearest(std::string_view text, std::span<const std::string_view> names) {
  if (text.size() > kLongestName) return {};
  std::string_view best;
  std::size_t best_distance = std::max<std::size_t>(2, text.size() / 3) + 1;
  for (std::string_view name : names) {
    const std::size_t distance = edit_distance(text, name);
    if (distance < best_distance && distance < name.size()) {
      best = name;
      best_distance = distance;
    }
  }
  return best;
}

}  // namespace rollcall
