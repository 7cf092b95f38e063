// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <algorithm>
#include <span>

#include "comms/weight_store.h"
#include "model/published_weights.h"

namespace rollcall {

// Weights as a worker finds them: published, in aligned memory.
class PublishedCopy {
 public:
  PublishedCopy(const ModelSpec& spec, at::ScalarType dtype, const TensorSource& source)
      : size_(published_bytes(spec, dtype)), memory_(-1, 0, size_, /*writable=*/true) {
    write_published(spec, dtype, source, {memory_.data(), size_});
  }

  std::span<const std::byte> bytes() const { return {memory_.data(), size_}; }
  void overwrite() { std::fill_n(memory_.data(), size_, std::byte{0}); }

 private:
  std::size_t size_;
  Mapping memory_;
};

}  // namespace rollcall
