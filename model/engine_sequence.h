// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "comms/turn.h"
#include "model/engine_backend.h"

namespace rollcall {

// A cache of the backend, closed with its owner.
class HeldCache {
 public:
  explicit HeldCache(EngineBackend& backend) : backend_(&backend), id_(backend.open_cache()) {}
  HeldCache(HeldCache&& other) noexcept
      : backend_(std::exchange(other.backend_, nullptr)), id_(other.id_), length_(other.length_) {}
  HeldCache& operator=(HeldCache&& other) noexcept {
    std::swap(backend_, other.backend_);
    std::swap(id_, other.id_);
    std::swap(length_, other.length_);
    return *this;
  }
  ~HeldCache() {
    if (backend_ != nullptr) backend_->close_cache(id_);
  }

  EngineBackend::Cache id() const { return id_; }
  std::int64_t length() const { return length_; }  // positions
  void extend(std::int64_t count) { length_ += count; }
  void clear() { *this = HeldCache(*backend_); }

  std::int64_t pages() const { return pages_for(length_); }
  std::int64_t pages_to_grow(std::int64_t count) const {
    return pages_for(length_ + count) - pages_for(length_);
  }

 private:
  std::int64_t pages_for(std::int64_t positions) const {
    const std::int64_t page = backend_->page_positions();
    return (positions + page - 1) / page;
  }

  EngineBackend* backend_;
  EngineBackend::Cache id_;
  std::int64_t length_ = 0;
};

// A prompt that some open sequences share; computed once.
struct EnginePrompt {
  std::vector<std::int32_t> tokens;
  HeldCache cache;

  std::int64_t length() const { return static_cast<std::int64_t>(tokens.size()); }
  std::int64_t missing() const { return length() - cache.length(); }
  bool ready() const { return missing() == 0; }
};

struct EngineSequence {
  std::shared_ptr<EnginePrompt> prompt;
  HeldCache cache;                   // what came behind the prompt
  std::vector<std::int32_t> tokens;  // behind the prompt, in the cache or about to be
  std::uint64_t seed = 0;
  std::uint64_t draws = 0;
  bool running = false;  // a turn is wanted
  SamplingOptions options;
  Completion completion;

  std::int64_t pending() const { return static_cast<std::int64_t>(tokens.size()) - cache.length(); }
  std::int64_t length() const {
    return prompt->length() + static_cast<std::int64_t>(tokens.size());
  }
};

}  // namespace rollcall
