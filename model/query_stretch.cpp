// SPDX-License-Identifier: Apache-2.0
#include "model/query_stretch.h"

#include <algorithm>

#include "model/kernel_calls.h"

namespace rollcall {

KeyValueView behind(KeyValueView view, std::int64_t hidden) {
  view.first = std::clamp<std::int64_t>(hidden, 0, view.length);
  return view;
}

std::int64_t window_start(std::int64_t position, std::int64_t window) {
  return window == 0 ? 0 : std::max<std::int64_t>(0, position - window + 1);
}

void attend_stretches(const std::vector<QueryStretch>& stretches, const AttentionShape& shape,
                      std::int64_t window, const float* q, float* out, float* lse) {
  const std::int64_t row_floats = shape.heads * shape.head_dim;
  std::vector<AttentionRow> rows;
  std::int64_t most_blocks = 0, positions = 0;
  for (const auto& s : stretches) {
    for (std::int64_t i = 0; i < s.count; ++i) {
      const std::int64_t row = s.row + i, before = s.prefix.length;
      KeyValueView own = s.own;
      own.length = s.seen + i + 1;
      const std::int64_t start = window_start(before + own.length - 1, window);
      rows.push_back({q + row * row_floats, out + row * row_floats,
                      lse == nullptr ? nullptr : lse + row * shape.heads, behind(s.prefix, start),
                      behind(own, start - before)});
      positions += before + own.length - start;
    }
    most_blocks = std::max(most_blocks, key_blocks(s.prefix.length) + key_blocks(s.seen + s.count));
  }
  if (rows.empty()) return;
  const std::int64_t group = shape.heads / shape.kv_heads, count = std::ssize(rows);
  parallel(count, 4 * row_floats * (positions / count), [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> scratch(
        static_cast<std::size_t>(kMostTeamRows * group * most_blocks * kKeyBlock));
    cpu_kernels().attention(rows.data() + begin, end - begin, shape, 0, shape.heads,
                            scratch.data());
  });
}

}  // namespace rollcall
