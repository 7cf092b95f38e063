// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <span>
#include <string>

#include "trainer/bootstrap.h"
#include "trainer/pass_curve.h"

namespace rollcall {

// A number that is not finite becomes null.
nlohmann::ordered_json number_json(double value);
// {"mean": .., "low_95": .., "high_95": ..}
nlohmann::ordered_json estimate_json(const Estimate&);
// [{"k": 1, "tasks": 64, "pass": {..}, "best": {..}}, ..]
nlohmann::ordered_json curve_json(std::span<const CurvePoint>);

// "12.5 % (8.0 - 17.2)", "unknown" for no number.
std::string percent_text(const Estimate&);
// The table of a curve, a line for each k, indented.
std::string curve_text(std::span<const CurvePoint>);

}  // namespace rollcall
