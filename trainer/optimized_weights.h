// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>
#include <vector>

namespace rollcall {

// Floats to read, without a copy of them: of a vector of its own, or another's, kept by `owner` or
// by whoever gave them for as long as they say. Copies share.
class SharedFloats {
 public:
  SharedFloats() = default;
  SharedFloats(std::vector<float> own) {  // implicit
    const auto kept = std::make_shared<const std::vector<float>>(std::move(own));
    values_ = *kept;
    owner_ = kept;
  }
  explicit SharedFloats(std::span<const float> values, std::shared_ptr<const void> owner = nullptr)
      : values_(values), owner_(std::move(owner)) {}

  std::size_t size() const { return values_.size(); }
  const float* data() const { return values_.data(); }
  const float* begin() const { return data(); }
  const float* end() const { return data() + size(); }
  float operator[](std::size_t i) const { return values_[i]; }

 private:
  std::span<const float> values_;
  std::shared_ptr<const void> owner_;
};

// Weights and AdamW's state of them; all of one length.
struct OptimizedWeights {
  std::int64_t steps = 0;  // of AdamW: skipped updates do not count
  SharedFloats masters, first_moment, second_moment;
};

}  // namespace rollcall
