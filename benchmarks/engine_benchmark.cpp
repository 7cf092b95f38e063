// SPDX-License-Identifier: Apache-2.0
// The engine alone, on random prompts: engine_benchmark --help. A line of JSON for each number;
// rates in tokens per second and costs in seconds, as [median, lowest, highest].
#include <ATen/Parallel.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>

#include "benchmarks/benchmark.h"
#include "model/engine.h"
#include "model/sampling.h"
#include "model/stored_weights.h"

namespace rollcall {
namespace {

using nlohmann::ordered_json;
using Tokens = std::vector<std::int32_t>;
using Values = std::vector<double>;

struct Arguments {
  std::filesystem::path model;
  std::string dtype = "float32", what = "decode";
  int threads = 2, repetitions = 3;
  std::int64_t prompt = 128, fresh = 128;
  std::vector<std::int64_t> batches{1, 4, 16, 64};
};

class Bench {
 public:
  explicit Bench(const Arguments& a)
      : a_(a),
        spec_(read_model_spec(a.model)),
        dtype_(policy_dtype(a.dtype)),
        engine_(spec_, {.max_context = 1 << 20, .max_batch = 1024, .dtype = dtype_}) {
    StoredWeights stored(a.model, spec_, dtype_);
    engine_.load(0, stored.source());
  }

  void run() {
    if (a_.what == "decode") {
      for (const std::int64_t batch : a_.batches) decode(batch);
    } else if (a_.what == "prefix") {
      for (const std::int64_t group : a_.batches) prefix(group);
    } else {
      for (const std::int64_t count : a_.batches) turns(count);
    }
  }

 private:
  Tokens random_tokens(std::int64_t count) {
    Tokens tokens(static_cast<std::size_t>(count));
    for (auto& id : tokens)
      id = static_cast<std::int32_t>(uniform_draw(1, draws_++) *
                                     static_cast<double>(spec_.vocab_size));
    return tokens;
  }

  std::vector<Tokens> random_prompts(std::int64_t count) {
    std::vector<Tokens> prompts;
    for (std::int64_t i = 0; i < count; ++i) prompts.push_back(random_tokens(a_.prompt));
    return prompts;
  }

  std::vector<SequenceId> open(const std::vector<Tokens>& prompts) {
    std::vector<SequenceId> ids;
    for (const Tokens& prompt : prompts) ids.push_back(engine_.open(prompt, draws_++));
    return ids;
  }

  // Seconds until each has `count` more tokens. No token ends a turn.
  double sample(const std::vector<SequenceId>& ids, std::int64_t count, const Tokens& delta = {}) {
    SamplingOptions options;
    options.max_new_tokens = static_cast<std::int32_t>(count);
    return seconds_of([&] {
      for (const auto id : ids) engine_.request_turn(id, delta, options);
      while (engine_.has_work()) engine_.step();
    });
  }

  void close(const std::vector<SequenceId>& ids) {
    for (const auto id : ids) engine_.close(id);
  }

  // A first run warms up: what it returns is left out.
  std::vector<Spread> repeat(const std::function<Values()>& once) const {
    once();
    std::vector<Values> of;
    for (int i = 0; i < a_.repetitions; ++i) {
      const Values values = once();
      of.resize(values.size());
      for (std::size_t k = 0; k < values.size(); ++k) of[k].push_back(values[k]);
    }
    std::vector<Spread> spreads;
    for (auto& values : of) spreads.push_back(spread(values));
    return spreads;
  }

  void print(std::int64_t batch, const ordered_json& numbers) const {
    ordered_json line{{"bench", a_.what},
                      {"engine", "rollcall"},
                      {"model", a_.model.filename()},
                      {"dtype", a_.dtype},
                      {"threads", a_.threads},
                      {"batch", batch},
                      {"parameters", parameter_count(spec_)}};
    line.update(numbers);
    line["peak_rss_mb"] = peak_rss_mb();
    print_line(line.dump());
    std::fflush(stdout);
  }

  // Prompts of their own: prefill up to the first token, then decoding alone.
  void decode(std::int64_t batch) {
    const auto spreads = repeat([&] {
      const auto ids = open(random_prompts(batch));
      const double first = sample(ids, 1), rest = sample(ids, a_.fresh - 1);
      close(ids);
      return Values{static_cast<double>(batch * (a_.fresh - 1)) / rest,
                    static_cast<double>(batch * a_.prompt) / first};
    });
    print(batch, {{"decode_tps", listed(spreads[0])}, {"prefill_tps", listed(spreads[1])}});
  }

  double first_tokens(const std::vector<Tokens>& prompts) {
    const auto ids = open(prompts);
    const double seconds = sample(ids, 1);
    close(ids);
    return seconds;
  }

  // The first token of a group: one prompt for all of it, against a prompt for each.
  void prefix(std::int64_t group) {
    const auto spreads = repeat([&] {
      const double apart = first_tokens(random_prompts(group));
      const double together =
          first_tokens({static_cast<std::size_t>(group), random_tokens(a_.prompt)});
      return Values{apart, together, together / apart};
    });
    print(group, {{"prompt", a_.prompt},
                  {"separate_s", listed(spreads[0])},
                  {"shared_s", listed(spreads[1])},
                  {"ratio", listed(spreads[2])}});
  }

  // A dialogue of `count` turns, each a tool's answer of `fresh` tokens and 16 sampled ones: with
  // the cache kept, and with every turn beginning from nothing.
  void turns(std::int64_t count) {
    constexpr std::int64_t kSampled = 16;
    const auto spreads = repeat([&] {
      Tokens history = random_tokens(a_.prompt);
      const auto kept_open = open({history});
      double kept = 0, again = 0;
      for (std::int64_t i = 0; i < count; ++i) {
        const Tokens answer = random_tokens(a_.fresh), said = random_tokens(kSampled);
        kept += sample(kept_open, kSampled, answer);
        history.insert(history.end(), answer.begin(), answer.end());
        const auto fresh = open({history});
        again += sample(fresh, kSampled);
        close(fresh);
        history.insert(history.end(), said.begin(), said.end());
      }
      close(kept_open);
      return Values{kept, again, kept / again};
    });
    print(count, {{"prompt", a_.prompt},
                  {"answer", a_.fresh},
                  {"kept_s", listed(spreads[0])},
                  {"prefilled_again_s", listed(spreads[1])},
                  {"ratio", listed(spreads[2])}});
  }

  Arguments a_;
  ModelSpec spec_;
  at::ScalarType dtype_;
  Engine engine_;
  std::uint64_t draws_ = 0;
};

int run(int argc, char** argv) {
  Arguments a;
  CLI::App app{"Measures the engine on random prompts."};
  app.add_option("model", a.model, "Hugging Face directory")->required();
  app.add_option("batch", a.batches,
                 "sequences at once; of 'prefix' the group, of 'turns' the turns");
  app.add_option("--what", a.what, "decode, prefix (shared or not) or turns (cache kept or not)")
      ->check(CLI::IsMember({"decode", "prefix", "turns"}));
  app.add_option("--dtype", a.dtype, "float32 or bfloat16");
  app.add_option("--threads", a.threads);
  app.add_option("--repetitions", a.repetitions)->check(CLI::PositiveNumber);
  app.add_option("--prompt", a.prompt, "tokens of a prompt")->check(CLI::PositiveNumber);
  app.add_option("--new", a.fresh, "tokens sampled; of 'turns', of a tool's answer")
      ->check(CLI::PositiveNumber);
  CLI11_PARSE(app, argc, argv);
  at::set_num_threads(a.threads);
  Bench(a).run();
  return 0;
}

}  // namespace
}  // namespace rollcall

int main(int argc, char** argv) { return rollcall::main_of(rollcall::run, argc, argv); }
