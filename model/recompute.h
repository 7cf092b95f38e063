// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace rollcall {

// Activation checkpointing (Chen et al. 2016): `body(x)` with gradients, of which only `x` is kept
// until the backward pass; there the body runs again. Leaves that the body uses get the same
// gradients, bit for bit, as from a plain call. The body must give the same bits each time and is
// kept alive with the graph; what it refers to must live as long.
at::Tensor recomputed(std::function<at::Tensor(const at::Tensor&)> body, const at::Tensor& x);

}  // namespace rollcall
