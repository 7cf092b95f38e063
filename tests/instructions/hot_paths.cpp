// SPDX-License-Identifier: Apache-2.0
// Work whose instructions instructions_test.py counts: run under callgrind, it leaves a dump for
// each name. hot_paths GOLDEN_DIR.
#include <valgrind/callgrind.h>

#include <filesystem>
#include <fstream>
#include <sstream>

#include "comms/communicator.h"
#include "model/engine.h"
#include "model/tokenizer.h"
#include "tests/unit/journal_samples.h"
#include "tests/unit/temp_folder.h"
#include "tests/unit/tiny_model.h"
#include "trainer/journal.h"
#include "trainer/learner.h"

namespace rollcall {
namespace {

// The first time is not counted: it allocates, and chooses kernels.
template <class Work>
void count(const char* name, const Work& work) {
  work();
  CALLGRIND_START_INSTRUMENTATION;
  CALLGRIND_ZERO_STATS;
  work();
  CALLGRIND_DUMP_STATS_AT(name);
  CALLGRIND_STOP_INSTRUMENTATION;
}

ModelSpec small_spec() {
  ModelSpec spec = tiny_spec();
  spec.hidden_size = 192;
  spec.intermediate_size = 512;
  spec.head_dim = 32;
  spec.vocab_size = 1000;
  return spec;
}

std::vector<std::int32_t> some_tokens(std::int64_t count, std::int64_t seed) {
  std::vector<std::int32_t> tokens;
  for (std::int64_t i = 0; i < count; ++i)
    tokens.push_back(static_cast<std::int32_t>((seed * 37 + i * 101) % 1000));
  return tokens;
}

void sample(Engine& engine, std::int64_t sequences, std::int64_t prompt, std::int32_t fresh) {
  SamplingOptions options;
  options.max_new_tokens = fresh;
  std::vector<SequenceId> open;
  for (std::int64_t i = 0; i < sequences; ++i) {
    open.push_back(engine.open(some_tokens(prompt, i), 1));
    engine.request_turn(open.back(), {}, options);
  }
  while (engine.has_work()) engine.step();
  for (const SequenceId id : open) engine.close(id);
}

void count_update(const TinyModel& model) {
  const auto alone = make_single_communicator();
  Learner learner(model.spec, model.weights, model.spec.vocab_size, *alone);
  constexpr std::size_t kLength = 32;
  const std::vector<std::uint8_t> is_action(kLength, 1);
  const std::vector<float> behavior(kLength, -7);
  const auto first = some_tokens(kLength, 1), second = some_tokens(kLength, 2);
  const std::vector<TrainSequence> sequences{{first, is_action, behavior, 8, 0, 1.0, 0.0},
                                             {second, is_action, behavior, 8, 1, 1.0, 0.0}};
  const auto batches = pack_sequences(sequences, 4096);
  const auto loss = [](std::size_t, const TokenLogprobs& current) {
    return -current.logprobs.mean();
  };
  count("update", [&] { learner.update(batches, loss, {}, [] {}); });
}

void journal(const std::filesystem::path& folder) {
  std::filesystem::remove(folder / "j.h5");
  Journal journal(folder / "j.h5", "{}");
  for (std::int64_t row = 0; row < 16; ++row) journal.append(sample_trajectory(row));
  journal.commit();
}

int run(const std::filesystem::path& golden) {
  const TinyModel model(5, small_spec());
  Engine engine(model.spec, {});
  engine.load(0, source_of(model.weights.tensors));
  count("prefill", [&] { sample(engine, 1, 96, 1); });
  count("decode", [&] { sample(engine, 16, 1, 6); });
  count_update(model);
  const Tokenizer tokenizer(golden / "tokenizers" / "tiny-qwen3" / "tokenizer.json");
  std::stringstream text;
  text << std::ifstream(golden / "tokenizers" / "texts.jsonl").rdbuf();
  count("tokenize", [&] { tokenizer.encode(text.str(), false); });
  const TempFolder folder;
  count("journal", [&] { journal(folder.path()); });
  return 0;
}

}  // namespace
}  // namespace rollcall

int main(int, char** argv) { return rollcall::run(argv[1]); }
