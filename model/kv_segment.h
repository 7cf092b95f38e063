// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "model/cpu_kernels.h"

namespace rollcall {

// Keys and values of consecutive positions in all layers, growing at the end: a group's prompt, or
// what one rollout added to it. Of a policy of bfloat16 they are BFloat16Pairs, else floats.
class KvSegment {
 public:
  KvSegment(const AttentionShape& shape, std::int64_t layers, at::ScalarType dtype)
      : shape_(shape),
        pairs_(dtype == at::kBFloat16),
        keys_(static_cast<std::size_t>(layers)),
        values_(keys_.size()) {}

  std::int64_t length() const { return length_; }

  // Makes room for positions [length(), length() + count) and counts them in; their keys and values
  // must then be stored in every layer before they are read.
  void extend(std::int64_t count) {
    length_ += count;
    pairs_ ? resize<BFloat16Pair>() : resize<float>();
  }

  template <class Element>
  void store(std::int64_t layer, std::int64_t position, const float* key, const float* value) {
    const auto i = static_cast<std::size_t>(layer);
    store_key_value(shape_, position, key, value, reinterpret_cast<Element*>(keys_[i].data()),
                    reinterpret_cast<Element*>(values_[i].data()));
  }

  // The first `length` positions of a layer.
  template <class Element>
  KeyValueView<Element> view(std::int64_t layer, std::int64_t length) const {
    const auto i = static_cast<std::size_t>(layer);
    return {reinterpret_cast<const Element*>(keys_[i].data()),
            reinterpret_cast<const Element*>(values_[i].data()), length};
  }

 private:
  template <class Element>
  void resize() {
    const std::int64_t blocks = key_blocks(length_);
    for (auto& of_layer : keys_) resize<Element>(of_layer, blocks * shape_.key_block<Element>());
    for (auto& of_layer : values_)
      resize<Element>(of_layer, blocks * kKeyBlock * shape_.value_row<Element>());
  }
  // By an eighth where it must move: caches are most of an engine's memory, and doubled ones would
  // be a third empty.
  template <class Element>
  static void resize(std::vector<std::byte>& memory, std::int64_t elements) {
    const std::size_t size = static_cast<std::size_t>(elements) * sizeof(Element);
    if (size > memory.capacity()) memory.reserve(size + (memory.empty() ? 0 : size / 8));
    memory.resize(size);
  }

  AttentionShape shape_;
  bool pairs_;
  std::vector<std::vector<std::byte>> keys_, values_;  // of each layer
  std::int64_t length_ = 0;
};

}  // namespace rollcall
