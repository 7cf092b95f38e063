// SPDX-License-Identifier: Apache-2.0
#include "trainer/trunk.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "comms/communicator.h"
#include "comms/log.h"
#include "comms/machine_memory.h"

namespace rollcall {

Trunk::Trunk(const ModelSpec& spec, TrainedPolicy weights, Communicator& communicator,
             at::ScalarType dtype)
    : communicator_(communicator),
      decoder_(spec, dtype),
      weights_(std::move(weights)),
      masters_(weights_.masters(), communicator) {}

Activations Trunk::activations(std::optional<bool> recompute,
                               std::span<const PackedBatch> batches) const {
  if (recompute) return *recompute ? Activations::kRecomputed : Activations::kKept;
  // The most that any trunk of this process has kept: our allocator holds on to it, and the system
  // does not count it as available.
  static std::int64_t held = 0;
  std::int64_t bytes = 0;
  for (const PackedBatch& batch : batches)
    bytes = std::max(bytes, decoder_.kept_bytes(batch.tokens.numel()));
  const std::int64_t available = available_memory();
  const std::int64_t most = (available / communicator_.size_here() + held) / 2;
  if (available < 0 || bytes <= most) {
    held = std::max(held, bytes);
    return Activations::kKept;
  }
  static bool told = false;
  if (!std::exchange(told, true))
    log_info(
        fmt::format("activations of a micro-batch would take {:.1f} GB, and {:.1f} GB is half "
                    "of what this learner may take: layers are computed again in the backward "
                    "pass, as with algorithm.activation_checkpointing: true",
                    1e-9 * static_cast<double>(bytes), 1e-9 * static_cast<double>(most)));
  return Activations::kRecomputed;
}

at::Tensor Trunk::hidden(const PackedBatch& batch, Activations activations) const {
  return decoder_.packed_hidden(batch.tokens, batch.segments, activations, batch.rows);
}

}  // namespace rollcall
