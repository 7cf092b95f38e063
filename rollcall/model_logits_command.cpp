// SPDX-License-Identifier: Apache-2.0
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "comms/error.h"
#include "model/decoder.h"
#include "model/lora.h"
#include "model/stored_weights.h"
#include "model/tokenizer.h"
#include "rollcall/commands.h"

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

NamedTensors adapter_leaves(const LoraAdapter& adapter, const std::vector<std::string>& names) {
  NamedTensors leaves;
  for (const auto& [key, t] : adapter.parameters.tensors)
    leaves[key] = t.detach().set_requires_grad(true);
  for (const auto& name : names)
    if (!leaves.contains(name))
      throw input_error("--grad: the adapter has no parameter '" + name + "'",
                        "with --adapter its parameters alone have gradients, by their PEFT keys");
  return leaves;
}

// The parameters whose gradients are asked for: the only ones that are not held as panels alone.
NamedTensors make_leaves(StoredWeights& stored, const std::vector<std::string>& names) {
  NamedTensors leaves;
  for (const auto& name : names) {
    const at::Tensor values = stored.read(name);
    if (!values.defined()) throw input_error("--grad: the model has no parameter '" + name + "'");
    leaves[name] = values.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true);
    leaves[name].set_requires_grad(true);
  }
  return leaves;
}

}  // namespace

int model_logits_command(const LogitsArguments& a) {
  const ModelSpec spec = read_model_spec(a.dir);
  for (const auto id : a.ids)
    if (id < 0 || id >= spec.vocab_size)
      throw input_error("--ids: " + std::to_string(id) + " is outside the vocabulary of " +
                        std::to_string(spec.vocab_size));
  if (!(a.temperature > 0) || !std::isfinite(a.temperature))
    throw input_error("--temperature must be a finite number over 0");
  const at::AutoGradMode gradients(!a.gradients.empty());
  const auto dtype = policy_dtype(a.dtype);
  StoredWeights stored(a.dir, spec, dtype);
  NamedTensors leaves;
  Decoder decoder(spec, dtype);
  if (a.adapter.empty()) {
    leaves = make_leaves(stored, a.gradients);
    decoder.bind([&](const std::string& name) {
      return leaves.contains(name) ? leaves.at(name) : stored.read(name);
    });
  } else {
    const LoraAdapter adapter = read_lora_adapter(a.adapter, spec);
    leaves = adapter_leaves(adapter, a.gradients);
    decoder.bind(with_lora(adapter, stored.source()), lora_leaves(adapter, leaves));
  }
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
    for (const auto& name : a.gradients)
      out["grads"][name] = {{"shape", leaves.at(name).sizes().vec()},
                            {"values", to_doubles(leaves.at(name).grad())}};
  }
  if (a.greedy > 0) out["greedy"] = greedy_continuation(decoder, a.ids, a.greedy);
  std::printf("%s\n", out.dump().c_str());
  return 0;
}

}  // namespace rollcall
