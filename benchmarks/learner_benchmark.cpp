// SPDX-License-Identifier: Apache-2.0
// One optimizer step of the learner on random sequences: learner_benchmark --help. A line of JSON;
// seconds and tokens per second as [median, lowest, highest]. Several learners have as many
// sequences each, and are started by MPI.
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "benchmarks/benchmark.h"
#include "comms/communicator.h"
#include "comms/world.h"
#include "model/cpu_kernels.h"
#include "model/sampling.h"
#include "trainer/learner.h"
#include "trainer/losses.h"
#include "trainer/trained_policy.h"

namespace rollcall {
namespace {

struct Arguments {
  std::filesystem::path model;
  std::string dtype = "float32";
  int threads = 2, repetitions = 3, learners = 1;
  std::int64_t sequences = 16, length = 512, prompt = 128, group = 1, max_tokens = 8192;
  bool recompute = false, uneven = false;
};

// Whole sequences; those of a group begin with the same `prompt` tokens. All behind it is sampled.
struct Sample {
  std::vector<std::vector<std::int32_t>> tokens;
  std::vector<std::uint8_t> is_action;  // of the longest
  std::vector<float> behavior;
  std::vector<TrainSequence> sequences;
  std::int64_t token_count = 0;
};

Sample make_sample(const Arguments& a, std::int64_t vocabulary) {
  Sample sample;
  const auto length = static_cast<std::size_t>(a.length);
  sample.is_action.assign(length, 1);
  std::fill_n(sample.is_action.begin(), a.prompt, std::uint8_t{0});
  sample.behavior.assign(length, -std::log(static_cast<float>(vocabulary)));
  std::uint64_t draw = 0;
  for (std::int64_t i = 0; i < a.sequences; ++i) {
    const double share = a.uneven ? uniform_draw(8, static_cast<std::uint64_t>(i)) : 1;
    const double fresh = std::ceil(share * static_cast<double>(a.length - a.prompt));
    auto& tokens = sample.tokens.emplace_back(
        static_cast<std::size_t>(a.prompt + static_cast<std::int64_t>(fresh)));
    for (auto& id : tokens)
      id = static_cast<std::int32_t>(uniform_draw(7, draw++) * static_cast<double>(vocabulary));
    if (i % a.group != 0)
      std::copy_n(sample.tokens[static_cast<std::size_t>(i / a.group * a.group)].begin(), a.prompt,
                  tokens.begin());
  }
  for (std::int64_t i = 0; i < a.sequences; ++i) {
    const auto& tokens = sample.tokens[static_cast<std::size_t>(i)];
    sample.sequences.push_back({tokens, std::span(sample.is_action).first(tokens.size()),
                                std::span(sample.behavior).first(tokens.size()), a.prompt,
                                i / a.group, i % 2 == 0 ? 1.0 : -1.0});
    sample.token_count += static_cast<std::int64_t>(tokens.size());
  }
  return sample;
}

// Seconds that the gradients' sum takes by itself.
std::vector<double> sum_seconds(Communicator& communicator, std::int64_t parameters,
                                int repetitions) {
  const auto members = static_cast<std::size_t>(communicator.size());
  std::vector<float> gradients((static_cast<std::size_t>(parameters) / members + 1) * members, 1);
  return repeated_seconds(repetitions, [&] {
    communicator.barrier();
    communicator.reduce_scatter_sum(gradients);
  });
}

void measure(const Arguments& a, Communicator& communicator) {
  fix_order_of_sums();  // as rollcall does
  at::set_num_threads(a.threads);
  const ModelSpec spec = read_model_spec(a.model);
  const auto dtype = policy_dtype(a.dtype);
  Learner learner(spec, load_policy(a.model, spec, dtype, {}), spec.vocab_size, communicator,
                  dtype);
  const Sample sample = make_sample(a, spec.vocab_size);
  const auto batches = pack_sequences(sample.sequences, a.max_tokens);
  const auto denominators = step_denominators(batches, communicator);
  const LossOptions ppo{.kind = LossKind::kPpoClip, .clip_low = 0.2, .clip_high = 0.2};
  const auto loss = [&](std::size_t i, const TokenLogprobs& current) {
    return policy_loss(batches[i].actions, current.logprobs, denominators[i], ppo).loss;
  };
  const UpdateOptions options{.adamw = {1e-6, 0.9, 0.95, 1e-8, 0.0},
                              .activation_checkpointing = a.recompute};
  std::vector<double> waited;
  const auto seconds = repeated_seconds(a.repetitions, [&] {
    const UpdateStats stats = learner.update(batches, loss, options, [] {});
    waited.push_back(stats.seconds_gradient_sum.value_or(0));
  });
  std::int64_t computed = 0;
  for (const auto& batch : batches) computed += batch.tokens.numel();
  std::vector<double> rates;
  for (const double s : seconds) rates.push_back(static_cast<double>(sample.token_count) / s);
  nlohmann::ordered_json line{{"bench", "learner"},
                              {"engine", "rollcall"},
                              {"model", a.model.filename()},
                              {"dtype", a.dtype},
                              {"parameters", parameter_count(spec)},
                              {"threads", a.threads},
                              {"group", a.group},
                              {"prompt", a.prompt},
                              {"tokens", sample.token_count},
                              {"computed_tokens", computed},
                              {"update_s", listed(spread(seconds))},
                              {"train_tps", listed(spread(rates))},
                              {"peak_rss_mb", peak_rss_mb()}};
  if (communicator.size() > 1) {
    waited.erase(waited.begin());  // which warmed up
    line["learners"] = communicator.size();
    line["waited_s"] = listed(spread(waited));
    line["sum_s"] = listed(spread(sum_seconds(communicator, parameter_count(spec), a.repetitions)));
  }
  if (communicator.rank() == 0) print_line(line.dump());
}

int run(int argc, char** argv) {
  Arguments a;
  CLI::App app{"Measures an update of the policy on random sequences."};
  app.add_option("model", a.model, "Hugging Face directory")->required();
  app.add_option("--dtype", a.dtype, "float32 or bfloat16");
  app.add_option("--threads", a.threads);
  app.add_option("--repetitions", a.repetitions)->check(CLI::PositiveNumber);
  app.add_option("--sequences", a.sequences)->check(CLI::PositiveNumber);
  app.add_option("--length", a.length, "tokens of a sequence")->check(CLI::PositiveNumber);
  app.add_flag("--uneven", a.uneven, "lengths from --prompt to --length, evenly spread");
  app.add_option("--prompt", a.prompt, "of which are prompt")->check(CLI::PositiveNumber);
  app.add_option("--group", a.group, "sequences that share a prompt")->check(CLI::PositiveNumber);
  app.add_option("--max-tokens", a.max_tokens, "of a micro-batch")->check(CLI::PositiveNumber);
  app.add_flag("--recompute", a.recompute, "activation checkpointing");
  app.add_option("--learners", a.learners)->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  if (a.learners == 1) {
    measure(a, *make_single_communicator());
    return 0;
  }
  if (!under_launcher()) return run_under_mpirun(a.learners, a.learners, argc, argv).code;
  World world(&argc, &argv);
  measure(a, *make_mpi_communicator(world, world.size()));
  world.finish(ExitCode::kDone);
}

}  // namespace
}  // namespace rollcall

int main(int argc, char** argv) { return rollcall::main_of(rollcall::run, argc, argv); }
