// SPDX-License-Identifier: Apache-2.0
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "comms/error.h"
#include "model/decoder.h"
#include "model/engine.h"
#include "model/tokenizer.h"
#include "model/weights.h"
#include "rollcall/commands.h"
#include "trainer/trained_policy.h"

namespace rollcall {
namespace {

using nlohmann::ordered_json;

std::vector<double> to_doubles(const at::Tensor& t) {
  const at::Tensor flat = t.detach().to(at::kDouble).contiguous();
  return {flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel()};
}

// The arg-max continuation, every step through the decoder again with all tokens before it.
std::vector<std::int64_t> greedy_continuation(const Decoder& decoder, std::vector<std::int64_t> ids,
                                              std::int64_t count) {
  const at::NoGradGuard no_grad;
  const std::size_t given = ids.size();
  for (; count > 0; --count) {
    const auto length = static_cast<std::int64_t>(ids.size());
    const at::Tensor hidden = decoder.packed_hidden(at::tensor(ids), {{0, length, -1}});
    ids.push_back(
        linear(hidden.narrow(0, length - 1, 1), decoder.head()).argmax().item<std::int64_t>());
  }
  return {ids.begin() + static_cast<std::ptrdiff_t>(given), ids.end()};
}

}  // namespace

int model_logits_command(const LogitsArguments& a) {
  const ModelSpec spec = read_model_spec(a.dir);
  for (const auto id : a.ids)
    if (id < 0 || id >= spec.vocab_size)
      throw input_error("--ids: " + std::to_string(id) + " is outside the vocabulary of " +
                        std::to_string(spec.vocab_size));
  std::optional<LoraStart> lora;
  if (!a.adapter.empty()) lora = LoraStart{{}, 0, a.adapter};
  const TrainedPolicy policy = load_policy(a.dir, spec, lora);
  NamedTensors leaves;
  for (const auto& [name, t] : policy.masters().tensors)
    leaves[name] = t.detach().set_requires_grad(true);
  Decoder decoder(spec);
  policy.bind(decoder, leaves);
  const at::Tensor ids = at::tensor(a.ids);
  const std::int64_t length = ids.numel();
  const at::Tensor hidden = decoder.packed_hidden(ids, {{0, length, -1}});

  ordered_json out{{"ids", a.ids}, {"vocab_size", spec.vocab_size}};
  auto& rows = out["logits"] = ordered_json::array();
  const at::Tensor logits = linear(hidden, decoder.head());
  for (std::int64_t t = 0; t < length; ++t) rows.push_back(to_doubles(logits[t]));

  const std::int64_t valid =
      a.mask_padding
          ? std::min<std::int64_t>(spec.vocab_size, Tokenizer(a.dir / "tokenizer.json").size())
          : spec.vocab_size;
  const at::Tensor next = ids.roll(-1);
  const TokenLogprobs scored = token_logprobs(hidden / a.temperature, decoder.head(), next, valid);
  const at::Tensor logprobs = scored.logprobs.narrow(0, 0, length - 1);
  out["logprobs"] = to_doubles(logprobs);
  out["entropy"] = to_doubles(scored.entropy);
  if (!a.gradients.empty()) {
    if (length < 2) throw input_error("--grad needs at least two ids");
    const at::Tensor nll = -logprobs.mean();
    nll.backward();
    out["nll"] = nll.item<double>();
    for (const auto& name : a.gradients) {
      const auto found = leaves.find(name);
      if (found == leaves.end())
        throw input_error("--grad: nothing that is trained here is called '" + name + "'");
      out["grads"][name] = {{"shape", found->second.sizes().vec()},
                            {"values", to_doubles(found->second.grad())}};
    }
  }
  if (a.greedy > 0) out["greedy"] = greedy_continuation(decoder, a.ids, a.greedy);
  std::printf("%s\n", out.dump().c_str());
  return 0;
}

}  // namespace rollcall
