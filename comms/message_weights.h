// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "comms/link_messages.h"
#include "comms/weight_store.h"

namespace rollcall {

// Weights that come by messages, checked against their checksum: one version complete, one perhaps
// under way, and the one in use, which may be older than both. Single thread.
class MessageWeights {
 public:
  explicit MessageWeights(std::size_t size) : size_(size) {}

  void begin(const WeightsBegin&);
  void chunk(const std::string& bytes);

  std::int64_t version() const { return version_; }  // the newest complete one; -1: none
  // Gives it to `use`, as WeightReader::load().
  std::int64_t load(const UseWeights& use);

 private:
  void finish_if_complete();
  std::span<const std::byte> bytes_of(const Mapping& memory) const {
    return {memory.data(), size_};
  }

  std::size_t size_;
  WeightsBegin begin_;
  std::size_t received_ = 0;
  std::shared_ptr<const Mapping> incoming_, complete_, in_use_;  // null: none
  std::int64_t version_ = -1;
};

}  // namespace rollcall
