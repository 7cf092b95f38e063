// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "model/cpu_kernels.h"

namespace rollcall {

// Consecutive queries of one sequence in a batch: query `i` of them is row `row + i` and sees
// `prefix` and the first `seen + i + 1` positions of `own`, so far as the window reaches.
struct QueryStretch {
  std::int64_t row = 0;
  std::int64_t count = 0;
  std::int64_t seen = 0;
  KeyValueView prefix, own;
};

// The part of `view` that a query sees whose window leaves out the first `hidden` positions.
KeyValueView behind(KeyValueView view, std::int64_t hidden);

// Where the window of the query at `position` begins: it sees keys from there on. window 0: at 0.
std::int64_t window_start(std::int64_t position, std::int64_t window);

// Attention of all stretches, spread over threads: q and out [rows, heads, head_dim], lse [rows,
// heads] or null.
void attend_stretches(const std::vector<QueryStretch>&, const AttentionShape&, std::int64_t window,
                      const float* q, float* out, float* lse);

}  // namespace rollcall
