// SPDX-License-Identifier: Apache-2.0
#include "trainer/lead_sampler.h"

#include <string>

#include "comms/error.h"

namespace rollcall {

LeadSampler::LeadSampler(const ModelSpec& spec, const EngineOptions& options, RolloutServer& server)
    : server_(server), engine_(spec, options) {
  server_.sample_with(this);
}

LeadSampler::~LeadSampler() { server_.sample_with(nullptr); }

void LeadSampler::request(int worker, const TurnRequest& turn) {
  const Session session{worker, turn.session};
  auto found = sequences_.find(session);
  const bool open = found != sequences_.end();
  if (open != turn.prompt.empty())
    throw Error("a turn of session " + std::to_string(turn.session) +
                (open ? ", which is open already" : ", which is not open"));
  if (!open) {
    const SequenceId id = engine_.open(turn.prompt, turn.seed);
    found = sequences_.emplace(session, id).first;
    sessions_.emplace(id, session);
  }
  engine_.request_turn(found->second, turn.delta, turn.options);
}

void LeadSampler::close(int worker, std::int64_t session) {
  const auto closed = sequences_.extract({worker, session});
  if (closed.empty()) return;
  sessions_.erase(closed.mapped());
  engine_.close(closed.mapped());
}

void LeadSampler::close_all(int worker) {
  const auto first = sequences_.lower_bound({worker, INT64_MIN});
  const auto last = sequences_.lower_bound({worker + 1, INT64_MIN});
  for (auto at = first; at != last; ++at) {
    sessions_.erase(at->second);
    engine_.close(at->second);
  }
  sequences_.erase(first, last);
}

std::vector<TurnSampler::Sampled> LeadSampler::step() {
  std::vector<Sampled> sampled;
  for (auto& [sequence, completion] : engine_.step()) {
    const auto [worker, session] = sessions_.at(sequence);
    sampled.push_back({worker, {session, std::move(completion)}});
  }
  return sampled;
}

}  // namespace rollcall
