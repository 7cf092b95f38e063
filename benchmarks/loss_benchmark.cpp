// SPDX-License-Identifier: Apache-2.0
// Log-probabilities of tokens and their gradients, from the hidden states on: by chunks, as updates
// do it, or with all logits at once (--whole), of a head that is trained or not (--frozen). A line
// of JSON; seconds as [median, lowest, highest].
#include <ATen/Parallel.h>
#include <ATen/ops/gather.h>
#include <ATen/ops/linear.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/randint.h>
#include <ATen/ops/randn.h>

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "benchmarks/benchmark.h"
#include "model/cpu_kernels.h"
#include "model/ops.h"

namespace rollcall {
namespace {

int run(int argc, char** argv) {
  std::int64_t tokens = 4096, hidden = 576, vocabulary = 49152;
  int threads = 2, repetitions = 3;
  bool whole = false, frozen = false;
  CLI::App app{"Measures log-probabilities of sampled tokens, forward and backward."};
  app.add_option("--tokens", tokens)->check(CLI::PositiveNumber);
  app.add_option("--hidden", hidden)->check(CLI::PositiveNumber);
  app.add_option("--vocabulary", vocabulary)->check(CLI::PositiveNumber);
  app.add_option("--threads", threads);
  app.add_option("--repetitions", repetitions)->check(CLI::PositiveNumber);
  app.add_flag("--whole", whole, "all logits at once");
  app.add_flag("--frozen", frozen, "the head is not trained, as beside an adapter");
  CLI11_PARSE(app, argc, argv);
  fix_order_of_sums();  // as rollcall does
  at::set_num_threads(threads);
  at::Tensor states = at::randn({tokens, hidden}).requires_grad_(true);
  at::Tensor weight = at::randn({vocabulary, hidden}).mul_(0.02).requires_grad_(!frozen);
  const at::Tensor targets = at::randint(vocabulary, {tokens}, at::kLong);
  LinearWeight head;
  if (!whole) {
    pack(head, weight, at::kFloat);
    if (frozen) weight.reset();  // a frozen policy has the panels alone
  }
  const auto logprobs = [&] {
    if (!whole) return token_logprobs(states, head, targets, vocabulary).logprobs;
    return at::log_softmax(at::linear(states, weight), 1).gather(1, targets.unsqueeze(1));
  };
  const auto seconds = repeated_seconds(repetitions, [&] { logprobs().sum().backward(); });
  const nlohmann::ordered_json line{{"bench", "loss"},
                                    {"whole", whole},
                                    {"frozen", frozen},
                                    {"tokens", tokens},
                                    {"vocabulary", vocabulary},
                                    {"seconds", listed(spread(seconds))},
                                    {"peak_rss_mb", peak_rss_mb()}};
  print_line(line.dump());
  return 0;
}

}  // namespace
}  // namespace rollcall

int main(int argc, char** argv) { return rollcall::main_of(rollcall::run, argc, argv); }
