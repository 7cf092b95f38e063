// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>

#include "configs/schema.h"

namespace rollcall {
namespace {

struct Profile {
  std::string_view name;
  void (*set)(AlgorithmOptions&);  // what it has other than AlgorithmOptions' own defaults
};

void use_ppo_clip(AlgorithmOptions& o, double clip_high) {
  o.loss = "ppo_clip";
  o.clip_low = 0.2;
  o.clip_high = clip_high;
}

void use_grpo(AlgorithmOptions& o) {  // 2402.03300
  use_ppo_clip(o, 0.2);
  o.advantage = "grpo_std";
  o.aggregation = "seq_mean_token_mean";
  o.kl = {.coefficient = 0.04, .form = "k3"};
}

void use_dr_grpo(AlgorithmOptions& o) {  // 2503.20783
  use_ppo_clip(o, 0.2);
  o.advantage = "drgrpo";
  o.aggregation = "seq_mean_token_sum_const";
  o.aggregation_constant = 1024;
}

void use_dapo(AlgorithmOptions& o) {  // 2503.14476
  use_ppo_clip(o, 0.28);
  o.dual_clip = 10;
  o.advantage = "grpo_std";
  o.aggregation = "token_mean";
  o.weight_decay = 0.1;
}

void use_gspo(AlgorithmOptions& o) {  // 2507.18071
  o.loss = "gspo";
  o.clip_low = 3e-4;
  o.clip_high = 4e-4;
  o.advantage = "grpo_std";
  o.aggregation = "seq_mean_token_mean";
}

void use_scalerl(AlgorithmOptions& o) {  // 2510.13786
  o.advantage = "batch_std";
}

void use_maxrl(AlgorithmOptions& o) {  // 2602.02710
  o.advantage = "maxrl";
}

void use_ppo(AlgorithmOptions& o) {  // 1707.06347; decoupled GAE and clip-higher of 2504.05118
  use_ppo_clip(o, 0.28);
  o.advantage = "gae";
  o.aggregation = "token_mean";
}

constexpr std::array<Profile, 8> kProfiles{{{"agent_sparse_v1", [](AlgorithmOptions&) {}},
                                            {"grpo", use_grpo},
                                            {"dr_grpo", use_dr_grpo},
                                            {"dapo", use_dapo},
                                            {"gspo", use_gspo},
                                            {"scalerl", use_scalerl},
                                            {"maxrl", use_maxrl},
                                            {"ppo", use_ppo}}};

// What a loss brings that the profile does not have.
void use_loss(const std::string& loss, AlgorithmOptions& o) {
  const AlgorithmOptions usual;
  o.loss = loss;
  o.clip_low = usual.clip_low;
  o.clip_high = usual.clip_high;
  o.dual_clip = 0;
  if (loss == "ppo_clip") {  // 2503.14476; dual clip 1912.09729
    use_ppo_clip(o, 0.28);
    o.dual_clip = 3;
  } else if (loss == "gspo") {
    o.clip_low = 3e-4;
    o.clip_high = 4e-4;
    o.aggregation = "seq_mean_token_mean";
  }
}

}  // namespace

std::vector<std::string_view> profile_names() {
  std::vector<std::string_view> names;
  for (const Profile& profile : kProfiles) names.push_back(profile.name);
  return names;
}

AlgorithmOptions profile_defaults(const std::string& name, const std::string& loss) {
  AlgorithmOptions defaults;
  defaults.profile = name;
  const auto profile = std::ranges::find(kProfiles, name, &Profile::name);
  if (profile != kProfiles.end()) profile->set(defaults);  // else the reader refuses the name
  if (!loss.empty() && loss != defaults.loss) use_loss(loss, defaults);
  return defaults;
}

}  // namespace rollcall
