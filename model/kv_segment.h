// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <vector>

#include "model/cpu_kernels.h"

namespace rollcall {

// Keys and values of consecutive positions in all layers, growing at the end: a group's prompt, or
// what one rollout added to it.
class KvSegment {
 public:
  KvSegment(const AttentionShape& shape, std::int64_t layers)
      : shape_(shape), keys_(static_cast<std::size_t>(layers)), values_(keys_.size()) {}

  std::int64_t length() const { return length_; }

  // Makes room for positions [length(), length() + count) and counts them in; their keys and values
  // must then be stored in every layer before they are read.
  void extend(std::int64_t count) {
    length_ += count;
    const auto blocks = static_cast<std::size_t>(key_blocks(length_));
    for (std::size_t i = 0; i < keys_.size(); ++i) {
      keys_[i].resize(blocks * static_cast<std::size_t>(shape_.key_block_floats()));
      values_[i].resize(blocks * static_cast<std::size_t>(kKeyBlock * shape_.value_row_floats()));
    }
  }

  void store(std::int64_t layer, std::int64_t position, const float* key, const float* value) {
    const auto i = static_cast<std::size_t>(layer);
    store_key_value(shape_, position, key, value, keys_[i].data(), values_[i].data());
  }

  // The first `length` positions of a layer.
  KeyValueView view(std::int64_t layer, std::int64_t length) const {
    const auto i = static_cast<std::size_t>(layer);
    return {keys_[i].data(), values_[i].data(), length};
  }

 private:
  AttentionShape shape_;
  std::vector<std::vector<float>> keys_, values_;  // per layer
  std::int64_t length_ = 0;
};

}  // namespace rollcall
