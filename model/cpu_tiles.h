// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <span>

#include "model/cpu_kernels.h"
#include "model/cpu_team.h"
#include "model/kernel_calls.h"
#include "model/ops.h"

namespace rollcall {

// How a product is cut into the items of a stage (cpu_team.h).

// Of so many columns those in `panels`.
inline Part columns_of(std::int64_t columns, const Part& panels) {
  return {panels.first * kPanelWidth, std::min(columns, panels.last * kPanelWidth)};
}

// All of a layer's product, from panels: x as linear_inputs() makes it, y [rows, out].
template <class Element>
LinearCall<Element> product_of(const Element* x, std::int64_t rows, const LinearWeight& w,
                               float* y) {
  return {.x = x,
          .ldx = panel_steps<Element>(w.in),
          .rows = rows,
          .packed = static_cast<const Element*>(w.packed.const_data_ptr()),
          .in = w.in,
          .out = w.out,
          .bias = w.bias.defined() ? w.bias.const_data_ptr<float>() : nullptr,
          .y = y,
          .ldy = w.out};
}

// Some rows and panels of a product by themselves.
template <class Element>
LinearCall<Element> tile_of(const LinearCall<Element>& all, const Part& rows, const Part& panels) {
  const Part columns = columns_of(all.out, panels);
  LinearCall<Element> tile = all;
  tile.x += rows.first * all.ldx;
  tile.rows = rows.count();
  tile.packed += columns.first * panel_steps<Element>(all.in);
  tile.out = columns.count();
  if (tile.bias != nullptr) tile.bias += columns.first;
  if (tile.y != nullptr) tile.y += rows.first * all.ldy + columns.first;
  return tile;
}

// The items of a product: parts of its rows times some of its panels.
class Tiles {
 public:
  static constexpr std::int64_t kMostPanels = 4;

  template <class Element>
  Tiles(const LinearCall<Element>& product, std::int64_t threads)
      : rows_(product.rows),
        panels_(panel_count(product.out)),
        part_rows_(
            parts(parts(rows_, std::max<std::int64_t>(1, parts(rows_, kProductRows))), kBlockRows) *
            kBlockRows),
        row_parts_(rows_ == 0 ? 0 : parts(rows_, part_rows_)),
        part_panels_(part_size(panels_ * row_parts_, threads, kMostPanels)) {}

  std::int64_t count() const { return row_parts_ * panel_parts(); }
  Part rows_of(std::int64_t i) const { return nth_part(i / panel_parts(), part_rows_, rows_); }
  Part panels_of(std::int64_t i) const {
    return nth_part(i % panel_parts(), part_panels_, panels_);
  }

 private:
  static constexpr std::int64_t kBlockRows = 12;  // the most that kernels compute at once

  std::int64_t panel_parts() const { return parts(panels_, part_panels_); }

  std::int64_t rows_, panels_, part_rows_, row_parts_, part_panels_;
};

template <class Element>
void compute(const LinearCall<Element>& product) {
  (cpu_kernels().*Kernels<Element>::kLinear)(product);
}

// A stage: the products, tile by tile.
template <class Element>
void share_products(CpuTeam::Member& member, std::span<const LinearCall<Element>> products) {
  std::int64_t items = 0;
  for (const auto& product : products) items += Tiles(product, member.threads()).count();
  member.share(items, [&](std::int64_t i) {
    for (const auto& product : products) {
      const Tiles tiles(product, member.threads());
      if (i < tiles.count()) return compute(tile_of(product, tiles.rows_of(i), tiles.panels_of(i)));
      i -= tiles.count();
    }
  });
}

}  // namespace rollcall
