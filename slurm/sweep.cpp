// SPDX-License-Identifier: Apache-2.0
#include "slurm/sweep.h"

#include <algorithm>
#include <set>
#include <utility>

#include "comms/error.h"
#include "comms/split.h"

namespace rollcall {
namespace {

struct Sweep {
  std::string key;
  std::vector<std::string> values;
};

Sweep parse_sweep(const std::string& text) {
  const std::string what = "--sweep " + text;
  const std::size_t equals = text.find('=');
  if (equals == 0 || equals == std::string::npos)
    throw input_error(what + ": expected KEY=VALUE,VALUE",
                      "for example: --sweep algorithm.learning_rate=1e-4,1e-3");
  require_plain(text, "--sweep");
  const auto values = split(std::string_view(text).substr(equals + 1), ',');
  Sweep sweep{text.substr(0, equals), {values.begin(), values.end()}};
  const std::set<std::string> different(sweep.values.begin(), sweep.values.end());
  if (different.contains("") || different.size() < sweep.values.size())
    throw input_error(what + ": a value is empty or stands there twice",
                      "give every value once, with commas between them");
  return sweep;
}

}  // namespace

void require_plain(std::string_view text, const std::string& what) {
  const auto is_plain = [](char c) {
    return c > 0x20 && c < 0x7f && std::string_view("'\"`$\\#").find(c) == std::string_view::npos;
  };
  const auto bad = std::ranges::find_if_not(text, is_plain);
  if (bad == text.end()) return;
  const auto at = static_cast<std::size_t>(bad - text.begin());
  throw input_error(what + ": character " + std::to_string(at + 1) +
                        " is a blank, a quote, $, #, a backslash, or none of ASCII's visible ones",
                    "a batch job cannot be told such a text safely: a setting like this belongs in "
                    "the run file, and a path like this needs another name");
}

std::vector<SweepPoint> sweep_points(std::span<const std::string> sweeps) {
  std::set<std::string> keys;
  std::vector<SweepPoint> points;
  if (!sweeps.empty()) points.emplace_back();
  for (const std::string& text : sweeps) {
    const Sweep sweep = parse_sweep(text);
    if (!keys.insert(sweep.key).second)
      throw input_error("--sweep " + text + ": " + sweep.key + " is swept twice",
                        "put all its values into one --sweep");
    std::vector<SweepPoint> longer;
    for (const SweepPoint& point : points)
      for (const std::string& value : sweep.values) {
        longer.push_back({static_cast<int>(longer.size()), point.overrides});
        longer.back().overrides.push_back(sweep.key + "=" + value);
      }
    points = std::move(longer);
    if (points.size() > kMostSweepPoints)
      throw input_error(
          "the sweeps have more than " + std::to_string(kMostSweepPoints) + " combinations",
          "sweep fewer values at once");
  }
  return points;
}

}  // namespace rollcall
