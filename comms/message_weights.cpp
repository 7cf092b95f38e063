// SPDX-License-Identifier: Apache-2.0
#include "comms/message_weights.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "comms/log.h"

namespace rollcall {

void MessageWeights::begin(const WeightsBegin& begin) {
  begin_ = begin;
  received_ = 0;
  incoming_ = std::make_shared<Mapping>(-1, 0, std::max<std::size_t>(1, size_), true);
  finish_if_complete();
}

// Parts that do not add up belong to a link that the learner has given up meanwhile.
void MessageWeights::chunk(const std::string& bytes) {
  if (incoming_ == nullptr || received_ + bytes.size() > size_) return;
  std::memcpy(incoming_->data() + received_, bytes.data(), bytes.size());
  received_ += bytes.size();
  finish_if_complete();
}

void MessageWeights::finish_if_complete() {
  if (received_ != size_) return;
  complete_ = std::exchange(incoming_, nullptr);
  version_ = begin_.version;
  if (weights_checksum(bytes_of(*complete_)) == begin_.checksum) return;
  log_warning("dropped weights of version " + std::to_string(begin_.version) +
              ": their checksum does not match");
  complete_ = nullptr;
  version_ = -1;
}

std::int64_t MessageWeights::load(const UseWeights& use) {
  const bool in_place = use(version_, bytes_of(*complete_)) == WeightsUse::kInPlace;
  in_use_ = in_place ? complete_ : nullptr;
  return version_;
}

}  // namespace rollcall
