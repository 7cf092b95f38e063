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

int sft_command(const RunArguments& arguments) {
  const RunConfig config = load_run_config(arguments, Purpose::kSft);
  const std::filesystem::path dir = config.model.path;
  const ModelSpec spec = read_model_spec(dir);
  const Tokenizer tokenizer(dir / "tokenizer.json");
  const auto format = make_chat_format(dir, tokenizer);
  const auto demonstrations = read_demonstrations(config.sft.demonstrations, *format);
  FlatWeights weights = make_flat_weights(spec);
  if (config.sft.from_scratch) {
    init_weights(spec, config.sft.seed, weights);
  } else {
    load_weights(dir, spec, weights);
  }
  std::fprintf(stderr, "%zu demonstrations, %lld parameters, %lld steps of %lld\n",
               demonstrations.size(), static_cast<long long>(parameter_count(spec)),
               static_cast<long long>(config.sft.steps), static_cast<long long>(config.sft.batch));
  const auto alone = make_single_communicator();
  supervised_fine_tuning(
      config.sft, config.algorithm, spec, weights, demonstrations, tokenizer.size(),
      policy_dtype(config.model.dtype), *alone, [&](const SftProgress& p) {
        if (p.step % 10 == 0 || p.step == config.sft.steps)
          std::fprintf(stderr, "step %lld/%lld  loss %.4f nats/token  %.0f tok/s\n",
                       static_cast<long long>(p.step), static_cast<long long>(config.sft.steps),
                       p.loss, p.tokens_per_second);
      });
  export_model(dir, weights.tensors, config.model.dtype, config.sft.out);
  std::fprintf(stderr, "wrote %s\n", config.sft.out.c_str());
  return 0;
}

}  // namespace rollcall
