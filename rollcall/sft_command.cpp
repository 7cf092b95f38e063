// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cstdio>

#include "comms/communicator.h"
#include "model/chat_format.h"
#include "model/tokenizer.h"
#include "rollcall/commands.h"
#include "rollcall/run_setup.h"
#include "trainer/export.h"
#include "trainer/sft.h"

namespace rollcall {
namespace {

TrainedPolicy initial_policy(const RunConfig& config, const ModelSpec& spec) {
  if (!config.sft.from_scratch)
    return load_policy(config.model.path, spec, policy_dtype(config.model.dtype),
                       lora_start(config.model, config.sft.seed));
  FlatWeights weights = make_flat_weights(spec);
  init_weights(spec, config.sft.seed, weights);
  return weights;
}

}  // namespace

int sft_command(const RunArguments& arguments) {
  const RunConfig config = load_run_config(arguments, Purpose::kSft);
  const std::filesystem::path dir = config.model.path;
  const ModelSpec spec = read_model_spec(dir);
  const Tokenizer tokenizer(dir / "tokenizer.json");
  const auto format = make_chat_format(dir, tokenizer, config.model.chat);
  const auto demonstrations = read_demonstrations(config.sft.demonstrations, *format);
  const TrainedPolicy policy = initial_policy(config, spec);
  std::fprintf(stderr, "%zu demonstrations, %lld trained parameters, %lld steps of %lld\n",
               demonstrations.size(), static_cast<long long>(policy.masters().flat.numel()),
               static_cast<long long>(config.sft.steps), static_cast<long long>(config.sft.batch));
  const auto alone = make_single_communicator();
  supervised_fine_tuning(
      config.sft, config.algorithm, spec, policy, demonstrations, tokenizer.size(),
      policy_dtype(config.model.dtype), *alone, [&](const SftProgress& p) {
        if (p.step % 10 == 0 || p.step == config.sft.steps)
          std::fprintf(stderr, "step %lld/%lld  loss %.4f nats/token  %.0f tok/s\n",
                       static_cast<long long>(p.step), static_cast<long long>(config.sft.steps),
                       p.loss, p.tokens_per_second);
      });
  if (!config.sft.adapter_out.empty()) {
    export_adapter(*policy.adapter(), dir, config.sft.adapter_out);
    std::fprintf(stderr, "wrote %s\n", config.sft.adapter_out.c_str());
  }
  export_model(dir, policy.source(), config.model.dtype, config.sft.out);
  std::fprintf(stderr, "wrote %s\n", config.sft.out.c_str());
  return 0;
}

}  // namespace rollcall
