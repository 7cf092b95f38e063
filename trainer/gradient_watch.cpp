// SPDX-License-Identifier: Apache-2.0
#include "trainer/gradient_watch.h"

#include <cmath>

namespace rollcall {
namespace {

constexpr double kFade = 0.9;
constexpr std::int64_t kFewestUpdates = 10;  // before the usual norm is known
constexpr std::int64_t kMostLeftOut = 3;

}  // namespace

bool GradientWatch::add(double norm, bool left_out) {
  if (!std::isfinite(norm) || norm == 0) return false;
  if (left_out) {
    left_out_ = (left_out_ + 1) % kMostLeftOut;
    return left_out_ == 0;
  }
  left_out_ = 0;
  usual_ = updates_ == 0 ? norm : kFade * usual_ + (1 - kFade) * norm;
  ++updates_;
  return false;
}

double GradientWatch::limit() const { return updates_ < kFewestUpdates ? 0 : factor_ * usual_; }

}  // namespace rollcall
