// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <unordered_map>
#include <utility>
#include <vector>

#include "comms/rollout_link.h"
#include "model/engine.h"

namespace rollcall {

// The lead learner's engine, which samples for all workers of `server` as long as this lives
// (policy.placement: learners). What a turn becomes depends on its session's tokens, its seed and
// the weights alone: it is the turn that the worker's own engine would have sampled. Single thread.
class LeadSampler final : public TurnSampler {
 public:
  LeadSampler(const ModelSpec&, const EngineOptions&, RolloutServer& server);
  ~LeadSampler() override;
  LeadSampler(const LeadSampler&) = delete;
  LeadSampler& operator=(const LeadSampler&) = delete;

  // As Engine::load().
  void load(std::int64_t version, const TensorSource& weights) { engine_.load(version, weights); }

  void request(int worker, const TurnRequest&) override;
  void close(int worker, std::int64_t session) override;
  void close_all(int worker) override;
  bool has_work() const override { return engine_.has_work(); }
  std::vector<Sampled> step() override;

 private:
  using Session = std::pair<int, std::int64_t>;  // worker, its number

  RolloutServer& server_;
  Engine engine_;
  std::map<Session, SequenceId> sequences_;
  std::unordered_map<SequenceId, Session> sessions_;
};

}  // namespace rollcall
