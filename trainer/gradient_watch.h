// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace rollcall {

// The usual norm of the gradient, before clipping, so that an update far above it can be left out
// instead of undoing what was learnt. Knows nothing but what was added, so that a resumed run goes
// on from metrics.jsonl. Single thread.
class GradientWatch {
 public:
  // `factor`: how far above the usual norm; 0: never.
  explicit GradientWatch(double factor) : factor_(factor) {}
  void watch(double factor) { factor_ = factor; }

  // The norm of a step's gradient, in order; NaN or 0 where the policy did not learn. True where
  // the policy should go back to its last checkpoint: after three updates in a row that were left
  // out.
  bool add(double norm, bool left_out);

  // A larger norm is left out; 0: none is, as long as little is known, or where it is off.
  double limit() const;

 private:
  double factor_;
  double usual_ = 0;                         // fading mean of the norms of updates that were made
  std::int64_t updates_ = 0, left_out_ = 0;  // in all, in a row
};

}  // namespace rollcall
