// SPDX-License-Identifier: Apache-2.0
#include "configs/run_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "comms/error.h"
#include "configs/schema.h"

namespace rollcall {
namespace {

using testing::ElementsAre;
using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

const std::filesystem::path kRepository = std::filesystem::path(ROLLCALL_GOLDEN_DIR) / "../..";

std::string text_of(const std::filesystem::path& file) {
  std::ifstream stream(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(stream), {}};
}

std::optional<std::string> variable(const std::string& name) {
  if (name == "TOOL_KEY") return "s3cret";
  if (name == "MODELS") return "/shelf";
  if (name == "BROKEN") return "a\r\nx: y";
  return std::nullopt;
}

using Overrides = std::vector<std::string>;

RunConfig parse(const std::string& text, const Overrides& overrides = {},
                Purpose purpose = Purpose::kTrain) {
  return parse_run_config(text, "/place/run.yaml", overrides, variable, purpose);
}

// A valid file with `more` behind it.
std::string with(const std::string& more) {
  return "run: {name: r}\n"
         "model: {path: m}\n"
         "data: {train: t.jsonl}\n"
         "grader: {url: \"http://g/\"}\n" +
         more;  // line 5
}

// A valid file with `more` in its grader.
std::string graded(const std::string& more) {
  return "run: {name: r}\nmodel: {path: m}\ndata: {train: t.jsonl}\n"
         "grader: {url: 'http://g/', " +
         more + "}\n";
}

// The report on a bad file, the path of the file cut off; "" if it was accepted.
std::string report(const std::string& text, const Overrides& overrides = {},
                   Purpose purpose = Purpose::kTrain) {
  try {
    parse(text, overrides, purpose);
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kBadInput);
    std::string what = error.what();
    for (std::size_t at; (at = what.find("/place/run.yaml")) != std::string::npos;) {
      what.erase(at, std::string("/place/run.yaml").size());
    }
    return what;
  }
}

TEST(RunConfig, ReadsTheExampleFile) {
  const RunConfig config = read_run_config(kRepository / "configs/example.yaml", {}, variable);
  EXPECT_EQ(config.run.name, "ledger");
  EXPECT_EQ(config.run.dir, "runs");
  EXPECT_EQ(config.run.seed, 7u);
  ASSERT_EQ(config.tools.size(), 2u);
  EXPECT_EQ(config.tools[0].headers, (HeaderList{{"authorization", "Bearer s3cret"}}));
  EXPECT_EQ(config.tools[0].secrets, (SecretList{{"TOOL_KEY", "s3cret"}}));
  EXPECT_EQ(config.tools[0].timeout, std::chrono::seconds(60));
  EXPECT_EQ(config.tools[0].max_output_bytes, 1 << 20);
  EXPECT_EQ(config.tools[1].retry, RetryPolicy::kNever);
  EXPECT_FALSE(config.tools[1].send_item);
  ASSERT_EQ(config.grader.flags.size(), 2u);
  EXPECT_EQ(config.grader.flags[1].action, "penalize");
  EXPECT_EQ(config.grader.flags[1].value, -0.25);
  EXPECT_EQ(config.cluster.workers, 7);
  EXPECT_EQ(config.checkpoint.every_steps, 20);
  EXPECT_EQ(config.eval.samples, 8);
  EXPECT_EQ(config.algorithm.loss, "cispo");
}

TEST(RunConfig, StartsPathsAtTheRunFilesFolder) {
  const RunConfig config =
      parse(with("sft: {out: ../out, demonstrations: \"${MODELS}/d.jsonl\"}\n"));
  EXPECT_EQ(config.model.path, "/place/m");
  EXPECT_EQ(config.data.train, "/place/t.jsonl");
  EXPECT_EQ(config.data.valid, "");
  EXPECT_EQ(config.sft.out, "/out");
  EXPECT_EQ(config.sft.demonstrations, "/shelf/d.jsonl");
  EXPECT_EQ(config.run.dir, "runs");
}

TEST(RunConfig, TakesTheLossesOwnClipUnlessOneIsGiven) {
  EXPECT_EQ(parse(with("")).algorithm.clip_high, 4.0);
  const AlgorithmOptions ppo =
      parse(with("algorithm: {loss: ppo_clip, clip_high: 0.2}\n")).algorithm;
  EXPECT_EQ(ppo.clip_low, 0.2);
  EXPECT_EQ(ppo.clip_high, 0.2);
  EXPECT_EQ(ppo.dual_clip, 3.0);
  const AlgorithmOptions gspo = parse(with("algorithm: {loss: gspo}\n")).algorithm;
  EXPECT_EQ(gspo.clip_high, 4e-4);
  EXPECT_EQ(gspo.aggregation, "seq_mean_token_mean");
  EXPECT_EQ(parse(with(""), {"algorithm.loss=ppo_clip"}).algorithm.clip_high, 0.28);
}

TEST(RunConfig, EveryProfileIsALineThatCanBeReadBack) {
  for (const std::string_view name : profile_names()) {
    const auto read = parse(with("algorithm: {profile: " + std::string(name) + "}\n"));
    EXPECT_EQ(read.algorithm.profile, name);
    const auto again = parse(effective_yaml(read));
    EXPECT_EQ(again.algorithm.advantage, read.algorithm.advantage) << name;
    EXPECT_EQ(again.algorithm.aggregation, read.algorithm.aggregation) << name;
    EXPECT_EQ(again.algorithm.clip_high, read.algorithm.clip_high) << name;
    EXPECT_EQ(again.algorithm.kl.coefficient, read.algorithm.kl.coefficient) << name;
  }
}

TEST(RunConfig, KeysOverrideTheirProfile) {
  const auto dapo = parse(with("algorithm: {profile: dapo}\n")).algorithm;
  EXPECT_EQ(dapo.loss, "ppo_clip");
  EXPECT_EQ(dapo.clip_high, 0.28);
  EXPECT_EQ(dapo.dual_clip, 10);
  EXPECT_EQ(dapo.aggregation, "token_mean");
  const auto other =
      parse(with("algorithm: {profile: dapo, loss: cispo, advantage: rloo}\n")).algorithm;
  EXPECT_EQ(other.loss, "cispo");
  EXPECT_EQ(other.clip_high, 4) << "a loss that is given brings its own clip";
  EXPECT_EQ(other.advantage, "rloo");
  EXPECT_EQ(other.aggregation, "token_mean");
  const auto sum = parse(with("algorithm: {profile: dr_grpo, aggregation: token_mean}\n"));
  EXPECT_EQ(sum.algorithm.aggregation, "token_mean");
}

TEST(RunConfig, ReadsCorrectionsInBothForms) {
  const auto corrections =
      parse(with("algorithm:\n"
                 "  anchor: old\n"
                 "  corrections: [token_tis, {kind: geo_mask, high: 1.02}, {kind: k3_mask}]\n"))
          .algorithm.corrections;
  ASSERT_EQ(corrections.size(), 3u);
  EXPECT_EQ(corrections[0].kind, CorrectionKind::kTokenTis);
  EXPECT_EQ(corrections[0].high, 2);
  EXPECT_EQ(corrections[1].low, 0.99);
  EXPECT_EQ(corrections[1].high, 1.02);
  EXPECT_EQ(corrections[2].high, 0.01);
  EXPECT_EQ(parse(with(""), {"algorithm.corrections=[veto]"}).algorithm.corrections.size(), 1u);
}

TEST(RunConfig, ReadsUnits) {
  const auto timeout = [](const std::string& text) {
    return parse(with("cluster: {worker_timeout: " + text + "}\n")).cluster.worker_timeout.count();
  };
  EXPECT_EQ(timeout("2500ms"), 2500);
  EXPECT_EQ(timeout("1.5m"), 90'000);
  EXPECT_EQ(timeout("2h"), 7'200'000);
  EXPECT_EQ(timeout("30 s"), 30'000);
  EXPECT_EQ(timeout("'30s'"), 30'000);
  EXPECT_EQ(parse(with("checkpoint: {every: 1 step}\n")).checkpoint.every_steps, 1);
  EXPECT_EQ(parse(with("checkpoint: {every: 20}\n")).checkpoint.every_steps, 20);
}

struct BadFile {
  const char* more;  // from line 5 on
  const char* expected;
};

class BadRunFile : public testing::TestWithParam<BadFile> {};

TEST_P(BadRunFile, IsReportedAtItsPlace) {
  EXPECT_THAT(report(with(GetParam().more)), StartsWith(GetParam().expected));
}

INSTANTIATE_TEST_SUITE_P(
    Unknown, BadRunFile,
    testing::Values(
        BadFile{"batch:\n  group_sise: 4\n",
                ":6:3: unknown key 'batch.group_sise'; did you mean 'group_size'?"},
        BadFile{"batch: {zzz: 4}\n",
                ":5:9: unknown key 'batch.zzz'; known are prompts, group_size"},
        BadFile{"bacth: {}\n", ":5:1: unknown key 'bacth'; did you mean 'batch'?"},
        BadFile{"tools: [{name: a, url: 'http://a', ulr: 1}]\n",
                ":5:36: unknown key 'tools.0.ulr'; did you mean 'url'?"},
        BadFile{"algorithm: {loss: grpo}\n",
                ":5:19: algorithm.loss: expected one of ppo_clip, cispo, reinforce, "
                "gspo, dppo_tv, sapo, found 'grpo'"},
        BadFile{"algorithm: {advantage: rlo}\n",
                ":5:24: algorithm.advantage: expected one of rloo, rloo_batch_std, "
                "drgrpo, grpo_std, batch_std, maxrl, passk, gae, found 'rlo'; did you mean rloo?"},
        BadFile{"algorithm: {aggregation: mean}\n",
                ":5:26: algorithm.aggregation: expected one of"},
        BadFile{"algorithm: {profile: agent_sparse_v2}\n",
                ":5:22: algorithm.profile: expected one of agent_sparse_v1, grpo, dr_grpo, dapo, "
                "gspo, scalerl, maxrl, ppo, found 'agent_sparse_v2'; did you mean"}));

INSTANTIATE_TEST_SUITE_P(
    WrongType, BadRunFile,
    testing::Values(
        BadFile{"batch: {prompts: many}\n",
                ":5:18: batch.prompts: expected an integer from 1 to 1000000, found 'many'"},
        BadFile{
            "batch: {prompts: '64'}\n",
            ":5:18: batch.prompts: expected an integer from 1 to 1000000, found '64' in quotes"},
        BadFile{"batch: {prompts: 6.4}\n", ":5:18: batch.prompts: expected an integer"},
        BadFile{"batch: {prompts: [64]}\n",
                ":5:18: batch.prompts: expected an integer from 1 to 1000000, found a list"},
        BadFile{"batch: {prompts: }\n",
                ":5:18: batch.prompts: expected an integer from 1 to 1000000, found nothing"},
        BadFile{"batch: 64\n", ":5:8: batch: expected a section of keys, found '64'"},
        BadFile{"tools: {name: a}\n", ":5:8: tools: expected a list"},
        BadFile{"tools: [7]\n", ":5:9: tools.0: expected a section of keys, found '7'"},
        BadFile{"eval: {samples: 99999999999999999999}\n",
                ":5:17: eval.samples: expected an integer"},
        BadFile{"algorithm: {learning_rate: nan}\n",
                ":5:28: algorithm.learning_rate: expected a number from 0 to 1, found 'nan'"},
        BadFile{"algorithm: {learning_rate: .inf}\n",
                ":5:28: algorithm.learning_rate: expected a number"},
        BadFile{"cluster: {worker_timeout: 30}\n",
                ":5:27: cluster.worker_timeout: expected a duration from 100ms to 24h with its "
                "unit, such as 500ms, 30s, 5m, 2h, found '30'"},
        BadFile{"cluster: {worker_timeout: 30 days}\n",
                ":5:27: cluster.worker_timeout: expected a duration"},
        BadFile{"checkpoint: {every: 20 epochs}\n",
                ":5:21: checkpoint.every: expected a number of steps at least 0"},
        BadFile{"sft: {from_scratch: yes}\n",
                ":5:21: sft.from_scratch: expected true or false, found 'yes'"},
        BadFile{"sft: {out: 7}\n", ":5:12: sft.out: expected text, found '7'; put it in quotes"},
        BadFile{"tools:\n  - {name: a, url: 'http://a', max_output_bytes: 1MB}\n",
                ":6:50: tools.0.max_output_bytes: expected a size in bytes, KiB, MiB or GiB from 1 "
                "to 1073741824, such as 1MiB, found '1MB'"}));

INSTANTIATE_TEST_SUITE_P(
    OutOfRange, BadRunFile,
    testing::Values(
        BadFile{"batch: {group_size: 1}\n",
                ":5:21: batch.group_size: the advantage rloo_batch_std compares a rollout with "
                "others of its group"},
        BadFile{"cluster: {learners: 0}\n",
                ":5:21: cluster.learners: expected an integer from 1 to"},
        BadFile{"checkpoint: {keep: 3000000000}\n",
                ":5:20: checkpoint.keep: expected an integer from 1 to 2147483647"},
        BadFile{"algorithm: {clip_low: 1.5}\n",
                ":5:23: algorithm.clip_low: expected a number from 0 to 1, found '1.5'"},
        BadFile{"algorithm: {clip_high: -0.1}\n",
                ":5:24: algorithm.clip_high: expected a number at least 0"},
        BadFile{"algorithm: {beta2: 1}\n",
                ":5:20: algorithm.beta2: expected a number at least 0, less than 1"},
        BadFile{"algorithm: {epsilon: 0}\n",
                ":5:22: algorithm.epsilon: expected a number more than 0, at most 1"},
        BadFile{"algorithm: {loss: ppo_clip, dual_clip: 0.5}\n",
                ":5:40: algorithm.dual_clip: expected 0 (off) or a number more than 1, found 0.5"},
        BadFile{"algorithm: {dual_clip: 3}\n",
                ":5:24: algorithm.dual_clip: the loss cispo does not read it; these do: ppo_clip"},
        BadFile{"policy: {max_lag: -1}\n",
                ":5:19: policy.max_lag: expected an integer from 0 to 64, found '-1'"},
        BadFile{"rollout: {max_new_tokens: 9000}\n",
                ":5:27: rollout.max_new_tokens: more than rollout.context (8192)"},
        BadFile{
            "cluster: {worker_timeout: 1s}\n",
            ":5:27: cluster.worker_timeout: expected at least twice cluster.heartbeat_every (1s)"},
        BadFile{"eval: {every: 5}\n",
                ":5:15: eval.every: there is nothing to evaluate on: data.valid is not set"}));

INSTANTIATE_TEST_SUITE_P(
    Algorithm, BadRunFile,
    testing::Values(
        BadFile{"algorithm: {loss: reinforce, clip_high: 2}\n",
                ":5:41: algorithm.clip_high: the loss reinforce does not read it; these do: "
                "ppo_clip, cispo, gspo"},
        BadFile{"algorithm: {tau_positive: 2}\n",
                ":5:27: algorithm.tau_positive: the loss cispo does not read it; these do: sapo"},
        BadFile{"algorithm: {loss: gspo, aggregation: prompt_mean}\n",
                ":5:38: algorithm.aggregation: gspo weighs whole sequences"},
        BadFile{"algorithm: {aggregation_constant: 9}\n",
                ":5:35: algorithm.aggregation_constant: only the aggregation "
                "seq_mean_token_sum_const reads it"},
        BadFile{"algorithm: {passk_k: 2}\n",
                ":5:22: algorithm.passk_k: only the advantage passk reads it"},
        BadFile{"batch: {group_size: 4}\nalgorithm: {advantage: passk, passk_k: 4}\n",
                ":6:40: algorithm.passk_k: expected less than batch.group_size (4)"},
        BadFile{"algorithm: {critic: {epochs: 2}}\n",
                ":5:30: algorithm.critic.epochs: only the advantage gae has a critic"},
        BadFile{"algorithm: {advantage: gae, loss: gspo}\n",
                ":5:35: algorithm.loss: gspo has one ratio a sequence"},
        BadFile{"algorithm: {advantage: gae, critic: {trunk: shared, epochs: 2}}\n",
                ":5:61: algorithm.critic.epochs: a shared trunk takes the policy's one update"},
        BadFile{"algorithm: {advantage: gae, epochs: 2, critic: {trunk: shared}}\n",
                ":5:37: algorithm.epochs: a shared trunk takes the policy's one update"},
        BadFile{"algorithm: {advantage: gae, minibatch_prompts: 2}\n",
                ":5:48: algorithm.minibatch_prompts: with a critic the policy takes the rollouts"},
        BadFile{"algorithm: {epochs: 0}\n", ":5:21: algorithm.epochs: "},
        BadFile{"batch: {group_size: 1, resample: 4}\nalgorithm: {advantage: gae}\n",
                ":5:34: batch.resample: goes by the rewards that differ within a group"},
        BadFile{"batch: {group_size: 1, adaptive: {target_signal: 4}}\n"
                "algorithm: {advantage: gae}\n",
                ":5:50: batch.adaptive.target_signal: goes by the rewards that differ"},
        BadFile{"algorithm: {advantage: gae, critic: {pretrain_steps: 200}}\n",
                ":5:54: algorithm.critic.pretrain_steps: the critic would learn alone in all"},
        BadFile{"algorithm: {advantage: maxrl, kl: {coefficient: 0.1, form: k1_reward}}\n",
                ":5:49: algorithm.kl.coefficient: maxrl divides by the mean reward"},
        BadFile{"algorithm: {advantage: passk, kl: {coefficient: 0.1, form: k1_reward}}\n",
                ":5:60: algorithm.kl.form: the advantage passk counts passes alone"},
        BadFile{"algorithm: {advantage: passk}\n"
                "rollout: {tool_budget: {penalty_per_call: 0.1, cap: 0.5}}\n",
                ":6:24: rollout.tool_budget: the advantage passk counts passes alone"},
        BadFile{"algorithm: {loss: reinforce, epochs: 2}\n",
                ":5:38: algorithm.epochs: reinforce takes no ratio"},
        BadFile{"algorithm: {kl: {form: k3}}\n", ":5:24: algorithm.kl.form: needs a coefficient"},
        BadFile{"algorithm: {denominator: all, kl: {coefficient: 0.1, form: k3}}\n",
                ":5:26: algorithm.denominator: with a critic, or a KL in the loss"},
        BadFile{"policy: {gpu_cache_gb: 9}\n",
                ":5:24: policy.gpu_cache_gb: needs policy.device: cuda"},
        BadFile{"batch: {adaptive: {max_rollouts: 9}}\n",
                ":5:34: batch.adaptive.max_rollouts: needs batch.adaptive.target_signal"},
        BadFile{"rollout: {length_budget: {limit: 9}}\n",
                ":5:34: rollout.length_budget.limit: needs rollout.length_budget.cap"},
        BadFile{"algorithm: {advantage: gae, critic: {coefficient: 0.5}}\n",
                ":5:51: algorithm.critic.coefficient: only trunk: shared reads it"},
        BadFile{"algorithm: {advantage: gae, critic: {lambda_policy: 2}}\n",
                ":5:53: algorithm.critic.lambda_policy: expected a number from 0 to 1"},
        BadFile{"algorithm: {loss: reinforce, anchor: old}\n",
                ":5:38: algorithm.anchor: reinforce takes no ratio"},
        BadFile{"algorithm: {loss: dppo_tv, anchor: old}\n",
                ":5:36: algorithm.anchor: dppo_tv measures how far"},
        BadFile{"algorithm: {kl: {coefficient: 0.01, form: k1}}\n",
                ":5:43: algorithm.kl.form: expected one of k1_reward, k2"},
        BadFile{"algorithm: {anchor: old, kl: {coefficient: 0.01, form: k3_weighted}}\n",
                ":5:56: algorithm.kl.form: k3_weighted weighs by the ratio to the policy"},
        BadFile{"rollout: {tool_budget: {free: 4, cap: 0.1}}\n",
                ":5:24: rollout.tool_budget.penalty_per_call: with a cap, expected"},
        BadFile{"rollout: {latency_budget: {penalty_per_second: 0.1}}\n",
                ":5:27: rollout.latency_budget.cap: with a price, expected"},
        BadFile{"rollout: {tool_budget: {free: 4}}\n",
                ":5:31: rollout.tool_budget.free: does nothing without a price and a cap"},
        BadFile{"rollout: {latency_budget: {free: 4s}}\n",
                ":5:34: rollout.latency_budget.free: does nothing without a price and a cap"},
        BadFile{"rollout: {length_budget: {free: 4}}\n",
                ":5:33: rollout.length_budget.free: needs rollout.length_budget.cap"},
        BadFile{"rollout: {length_budget: {free: 10, limit: 10, cap: 0.1}}\n",
                ":5:44: rollout.length_budget.limit: expected more than free"},
        BadFile{
            "rollout: {tool_budget: {penalty_per_call: 1, cap: 0.5}, length_budget: {limit: 9, "
            "cap: 0.25}}\n",
            ":5:88: rollout.length_budget.cap: the caps of all budgets, 0.75, are more than half"},
        BadFile{"algorithm: {corrections: geo_mask}\n",
                ":5:26: algorithm.corrections: expected a list"},
        BadFile{"algorithm: {corrections: [geo]}\n",
                ":5:27: algorithm.corrections.0: expected one of token_tis, seq_tis"},
        BadFile{"algorithm: {corrections: [{low: 0.9}]}\n",
                ":5:27: algorithm.corrections.0: expected a `kind`"},
        BadFile{"algorithm: {corrections: [{kind: geo_mask, cap: 2}]}\n",
                ":5:44: unknown key 'algorithm.corrections.0.cap'"},
        BadFile{"algorithm: {corrections: [{kind: geo_mask, low: 1.1}]}\n",
                ":5:49: algorithm.corrections.0.low: expected a number from 0 to 1"},
        BadFile{"algorithm: {corrections: [icepop, {kind: icepop, low: 0.9}]}\n",
                ":5:26: algorithm.corrections: icepop stands in it twice"},
        BadFile{"algorithm: {corrections: [token_tis]}\n",
                ":5:26: algorithm.corrections: with anchor: rollout the ratio of the loss holds"},
        BadFile{"algorithm: {anchor: old, corrections: [token_tis, seq_tis]}\n",
                ":5:39: algorithm.corrections: token_tis and seq_tis would weigh"},
        BadFile{"algorithm: {loss: gspo, anchor: old, corrections: [token_tis]}\n",
                ":5:51: algorithm.corrections: gspo has one ratio a sequence"}));

INSTANTIATE_TEST_SUITE_P(
    Endpoints, BadRunFile,
    testing::Values(
        BadFile{"tools: [{name: a, url: 'ftp://a'}]\n",
                ":5:24: tools.0.url: expected a URL that begins with http:// or https://"},
        BadFile{"tools: [{name: a, url: ''}]\n", ":5:24: tools.0.url: must not be empty"},
        BadFile{"tools: [{name: a, url: 'http://'}]\n",
                ":5:24: tools.0.url: the URL names no host"},
        BadFile{"tools: [{name: a, url: 'http://h:99999/'}]\n",
                ":5:24: tools.0.url: the port must be"},
        BadFile{"tools: [{name: a, url: 'http://[::1]:x/'}]\n",
                ":5:24: tools.0.url: the port must be"},
        BadFile{"tools: [{name: a, url: 'http://u:p@h/'}]\n",
                ":5:24: tools.0.url: put credentials into `headers`"},
        BadFile{"tools: [{name: a, url: 'http://h/a b'}]\n",
                ":5:24: tools.0.url: a URL holds no blanks"},
        BadFile{"tools: [{name: a, url: 'http://${TOOL_KEY}/'}]\n",
                ":5:24: tools.0.url: ${NAME} is replaced only in header values and paths"},
        BadFile{"tools: [{name: a b, url: 'http://a'}]\n",
                ":5:16: tools.0.name: expected 1 to 64 letters, digits or _-, found 'a b'"},
        BadFile{"tools: [{url: 'http://a'}]\n", ":5:9: tools.0.name: this key must be there"},
        BadFile{"tools: [{name: a, url: 'http://a'}, {name: a, url: 'http://b'}]\n",
                ":5:44: tools.1.name: a tool of the name 'a' stands above"},
        BadFile{"tools: [{name: a, url: 'http://a', headers: {k: '${NOT_SET}'}}]\n",
                ":5:49: tools.0.headers.k: the environment variable NOT_SET is not set"},
        BadFile{"tools: [{name: a, url: 'http://a', headers: {k: '${OPEN'}}]\n",
                ":5:49: tools.0.headers.k: expected ${NAME}"},
        BadFile{"tools: [{name: a, url: 'http://a', headers: {k: '${BROKEN}'}}]\n",
                ":5:49: tools.0.headers.k: the text holds a line break"},
        BadFile{"tools: [{name: a, url: 'http://a', headers: {'k k': v}}]\n",
                ":5:46: tools.0.headers: 'k k' is no header name"},
        BadFile{"tools: [{name: a, url: 'http://a', headers: {K: v, k: v}}]\n",
                ":5:52: tools.0.headers: the header 'k' stands here twice"},
        BadFile{"sft: {out: '${NOT_SET}/x'}\n",
                ":5:12: sft.out: the environment variable NOT_SET is not set"}));

INSTANTIATE_TEST_SUITE_P(
    Yaml, BadRunFile,
    testing::Values(
        BadFile{"batch: {prompts: 1, prompts: 2}\n", ":5:21: the key 'prompts' stands here twice"},
        BadFile{"run: {}\n", ":5:1: the key 'run' stands here twice"},
        BadFile{"batch: &a {prompts: 1}\n", ":5:8: anchors and aliases are not used in run files"},
        BadFile{"batch: {prompts: !!int 1}\n",
                ":5:18: tags ('tag:yaml.org,2002:int') are not used in run files"},
        BadFile{"? [a]\n: 1\n", ":5:3: a key must be text"},
        BadFile{"---\nrun: {}\n", ":5:1: a run file holds one YAML document"},
        BadFile{"batch: {prompts: 1\n", ":6:1: not valid YAML: "},
        BadFile{"batch:\n\tprompts: 1\n", ":6:"},
        BadFile{"batch: {prompts: \x01}\n", ":5:18: a control character"},
        BadFile{"batch: {prompts: \xff}\n", ":5:18: not UTF-8 text"}));

// What is said about a model section with these keys behind `path`, all in line 2.
std::string model_report(const std::string& keys) {
  return report("run: {name: r}\nmodel: {path: m, " + keys +
                "}\ndata: {train: t}\ngrader: {url: \"http://g/\"}\n");
}

TEST(RunConfig, ReadsLora) {
  const std::string text =
      "run: {name: r}\nmodel: {path: m, train: lora, lora: {rank: 8, targets: [v_proj, q_proj]}}\n"
      "data: {train: t}\ngrader: {url: \"http://g/\"}\n";
  const RunConfig config = parse(text, {"model.lora.alpha=1.5"});
  EXPECT_EQ(config.model.lora, (LoraOptions{8, 1.5, {"v_proj", "q_proj"}, false}));
  const std::string yaml = effective_yaml(config);
  EXPECT_THAT(yaml,
              HasSubstr("lora: {rank: 8, alpha: 1.5, targets: [v_proj, q_proj], rslora: false}"));
  EXPECT_EQ(parse(yaml).model.lora, config.model.lora);
  EXPECT_EQ(parse(with("")).model.lora.targets.size(), 7u);

  const std::string from_adapter =
      effective_yaml(parse(with(""), {"model.train=lora", "model.adapter=/a"}));
  EXPECT_EQ(effective_yaml(parse(from_adapter)), from_adapter);
}

TEST(RunConfig, ReadsASecondGrader) {
  const RunConfig none = parse(with(""));
  EXPECT_EQ(none.grader.confirm, "rare");
  EXPECT_EQ(none.grader.second.url, "");
  EXPECT_THAT(effective_yaml(none), HasSubstr("second: {}"));
  const std::string text = graded(
      "confirm: always, second: {url: 'http://h/', headers: {k: '${TOOL_KEY}', l: lit3ral}, "
      "timeout: 5s}");
  const RunConfig config = parse(text);
  EXPECT_EQ(config.grader.second.secrets, (SecretList{{"TOOL_KEY", "s3cret"}}));
  EXPECT_EQ(config.grader.second.timeout, std::chrono::seconds(5));
  const std::string yaml = effective_yaml(config);
  EXPECT_THAT(yaml, HasSubstr(R"(headers: {"k": "${TOOL_KEY}", "l": "redacted"})"));
  EXPECT_THAT(yaml, Not(HasSubstr("s3cret")));
  EXPECT_EQ(effective_yaml(parse(yaml)), yaml);
  EXPECT_THAT(report(graded("second: {timeout: 5s}")), HasSubstr("needs grader.second.url"));
  EXPECT_THAT(report(graded("confirm: never, second: {url: 'http://h/'}")),
              HasSubstr("confirm: never asks nobody"));
}

TEST(RunConfig, WantsWhatOlderPoliciesSampledCorrected) {
  const auto lagging = [](const std::string& algorithm) {
    return report(with("algorithm: {" + algorithm + "}\npolicy: {max_lag: 4}\n"));
  };
  EXPECT_THAT(lagging("loss: reinforce"), HasSubstr("algorithm.corrections: with policy.max_lag"));
  EXPECT_THAT(lagging("anchor: old"), HasSubstr("neither cispo with anchor: old nor a weight"));
  EXPECT_EQ(lagging("anchor: old, corrections: [token_tis]"), "");
  EXPECT_EQ(lagging("loss: reinforce, corrections: [seq_tis]"), "");
  EXPECT_EQ(lagging("loss: cispo"), "");
}

TEST(RunConfig, LetsNothingEarnMoreThanASuccess) {
  EXPECT_THAT(report(graded("gate_value: 1")),
              HasSubstr("expected less than what a success earns"));
  EXPECT_EQ(report(graded("gate_value: 0.5")), "");
  EXPECT_THAT(report(graded("flags: {hacking: {action: penalize, value: 5}}")),
              HasSubstr("grader.flags.hacking: penalize adds its value"));
  EXPECT_THAT(report(graded("pass_threshold: -0.5, gate_value: -1")),
              HasSubstr("grader.pass_threshold: expected more than 0"));
  EXPECT_THAT(report(graded("flags: {rude: {action: penalize, value: -1}}") +
                     "algorithm: {advantage: passk}\n"),
              HasSubstr("grader.flags.rude: the advantage passk counts passes alone"));
}

TEST(RunConfig, ReadsACritic) {
  EXPECT_THAT(effective_yaml(parse(with(""))), HasSubstr("critic: {}\n"));
  const RunConfig config =
      parse(with("batch: {group_size: 1}\n"
                 "algorithm: {advantage: gae, critic: {trunk: shared, lambda_policy: 0.95}}\n"));
  EXPECT_EQ(config.batch.group_size, 1);
  EXPECT_EQ(config.algorithm.critic.lambda_policy, 0.95);
  const std::string yaml = effective_yaml(config);
  EXPECT_THAT(yaml, HasSubstr("trunk: \"shared\""));
  EXPECT_EQ(effective_yaml(parse(yaml)), yaml);
  const std::string own = effective_yaml(parse(with("algorithm: {advantage: gae}\n")));
  EXPECT_THAT(own, HasSubstr("lambda_policy: auto"));
  EXPECT_EQ(effective_yaml(parse(own)), own);
}

TEST(RunConfig, RefusesWhatDoesNotGoWithLora) {
  EXPECT_EQ(model_report("train: lora"), "");
  EXPECT_EQ(model_report("train: lora, adapter: a"), "");
  EXPECT_THAT(model_report("lora: {rank: 8}"),
              StartsWith(":2:31: model.lora.rank: needs model.train: lora"));
  EXPECT_THAT(model_report("adapter: a"), StartsWith(":2:27: model.adapter: needs model.train"));
  EXPECT_THAT(model_report("train: lora, adapter: a, lora: {rslora: true}"),
              StartsWith(":2:58: model.lora.rslora: the adapter in model.adapter brings its own"));
  EXPECT_THAT(model_report("train: lora, lora: {targets: [lm_head]}"),
              StartsWith(":2:48: model.lora.targets: expected one of q_proj, k_proj"));
  EXPECT_THAT(model_report("train: lora, lora: {targets: []}"),
              StartsWith(":2:47: model.lora.targets: expected a list of some of q_proj"));
  EXPECT_THAT(model_report("train: lora, lora: {targets: [q_proj, q_proj]}"),
              StartsWith(":2:56: model.lora.targets: 'q_proj' stands here twice"));
  EXPECT_THAT(model_report("train: lora, lora: {rank: 0}"),
              StartsWith(":2:44: model.lora.rank: expected an integer from 1"));
  EXPECT_THAT(model_report("train: lora, lora: {rnk: 8}"),
              StartsWith(":2:38: unknown key 'model.lora.rnk'; did you mean 'rank'?"));
  EXPECT_THAT(report(with("sft: {adapter_out: a}\n")),
              StartsWith(":5:20: sft.adapter_out: needs model.train: lora"));
  EXPECT_THAT(report(with("sft: {from_scratch: true}\n"), {"model.train=lora"}),
              HasSubstr("sft.from_scratch: an adapter of random weights"));
}

TEST(RunConfig, NamesEveryProblemInOneReport) {
  EXPECT_EQ(report("run: {steps: -1}\nmodel: {path: 'm', dtyp: float32}\ndata: {train: 1}\n",
                   {"batch.prompts=0"}),
            ": 6 problems\n"
            ":1:1: run.name: this key must be there\n"
            ":1:1: grader.url: rollcall train needs this key\n"
            ":1:14: run.steps: expected an integer at least 0, found '-1'\n"
            ":2:20: unknown key 'model.dtyp'; did you mean 'dtype'?\n"
            ":3:15: data.train: expected text, found '1'; put it in quotes\n"
            "--set 1: batch.prompts: expected an integer from 1 to 1000000, found '0'");
}

TEST(RunConfig, NeedsOnlyWhatTheCommandUses) {
  const std::string sft = "run: {name: r}\nmodel: {path: m}\nsft: {demonstrations: d, out: o}\n";
  EXPECT_EQ(report(sft, {}, Purpose::kSft), "");
  EXPECT_THAT(report(sft), HasSubstr("data.train: rollcall train needs this key"));
  EXPECT_THAT(report(with(""), {}, Purpose::kSft), HasSubstr("sft.out: rollcall sft needs"));
  EXPECT_THAT(report(""), HasSubstr(":1:1: model.path: this key must be there"));
  EXPECT_THAT(report("7"), HasSubstr(":1:1: the run file: expected a section of keys"));
}

TEST(RunConfig, CutsAFloodOfProblemsShort) {
  std::string flood;
  for (int i = 0; i < 5000; ++i) flood += "key" + std::to_string(i) + ": 1\n";
  EXPECT_THAT(report(with(flood)), StartsWith(": 5000 problems\n"));
  EXPECT_THAT(report(with(flood)), EndsWith("... and 4900 more"));
}

TEST(Overrides, ReplaceAndAddValues) {
  const std::string text =
      with("tools: [{name: get, url: 'http://a'}, {name: put, url: 'http://b'}]\n");
  const RunConfig config =
      parse(text, {"batch.group_size=32", "tools.0.timeout=5s", "tools.put.url=http://c:1/x",
                   "tools.put.headers.x-key=Bearer ${TOOL_KEY}", "run.name=7",
                   "rollout={max_turns: 3}", "data.valid="});
  EXPECT_EQ(config.batch.group_size, 32);
  EXPECT_EQ(config.tools[0].timeout, std::chrono::seconds(5));
  EXPECT_EQ(config.tools[1].url, "http://c:1/x");
  EXPECT_EQ(config.tools[1].headers, (HeaderList{{"x-key", "Bearer s3cret"}}));
  EXPECT_EQ(config.run.name, "7");
  EXPECT_EQ(config.rollout.max_turns, 3);
}

TEST(Overrides, AreNamedByTheirNumber) {
  const auto second = [](const std::string& text) {
    return report(with("tools: [{name: a, url: 'http://a'}]\n"), {"run.seed=1", text});
  };
  EXPECT_EQ(second("batch.group_size=x"),
            "--set 2: batch.group_size: expected an integer from 1 to 100000, found 'x'");
  EXPECT_EQ(second("batch.group_sise=4"),
            "--set 2: unknown key 'batch.group_sise'; did you mean 'group_size'?");
  EXPECT_EQ(second("batch"), "--set 2: expected key=value, such as batch.group_size=32");
  EXPECT_EQ(second("tools.1.url=http://b"),
            "--set 2: no entry '1' in the list of 1 in 'tools.1.url'");
  EXPECT_EQ(second("run.name.x=1"),
            "--set 2: 'run.name.x': what stands before 'x' is a value, not a section");
  EXPECT_EQ(second("run..x=1"), "--set 2: an empty name in the path 'run..x'");
  EXPECT_THAT(second("batch={prompts: [}"), StartsWith("--set 2: not valid YAML: "));
  EXPECT_THAT(second("run" + std::string(100'000, '.') + "=1"), StartsWith("--set 2: a path of"));
  EXPECT_EQ(second("grader.headers.k=${NOT_SET}"),
            "--set 2: grader.headers.k: the environment variable NOT_SET is not set");
}

TEST(EffectiveYaml, GivesTheSameConfigAgainFromAnyFolder) {
  const RunConfig config = parse(
      with("tools:\n"
           "  - {name: a, url: 'http://a', headers: {k: 'Bearer ${TOOL_KEY}'}, timeout: 1500ms}\n"
           "  - {name: b, url: 'http://b', retry: keyed, max_output_bytes: 3000}\n"
           "algorithm: {loss: ppo_clip, learning_rate: 0.1, anchor: old,\n"
           "            corrections: [veto, {kind: seq_tis, cap: 3}]}\n"
           "sft: {out: 'x$${y \"q\" \\ z', demonstrations: '${MODELS}/d'}\n"),
      {"data.valid=rel/${TOOL_KEY}.jsonl"});
  const std::string yaml = effective_yaml(config);
  const RunConfig again = parse_run_config(yaml, "/elsewhere/config.yaml", {}, variable);
  EXPECT_EQ(effective_yaml(again), yaml);
  EXPECT_EQ(again.data.valid, "/place/rel/s3cret.jsonl");
  EXPECT_EQ(again.data.train, "/place/t.jsonl");
  EXPECT_EQ(again.sft.out, "/place/x${y \"q\" \\ z");
  EXPECT_EQ(again.sft.demonstrations, "/shelf/d");
  EXPECT_EQ(again.tools[0].headers, config.tools[0].headers);
  EXPECT_EQ(again.tools[1].retry, RetryPolicy::kKeyed);
  EXPECT_EQ(again.tools[1].max_output_bytes, 3000);
  EXPECT_EQ(again.algorithm.clip_low, 0.2);
  EXPECT_EQ(again.algorithm.learning_rate, 0.1);
  ASSERT_EQ(again.algorithm.corrections.size(), 2u);
  EXPECT_EQ(again.algorithm.corrections[0].low, 1e-4);
  EXPECT_EQ(again.algorithm.corrections[1].high, 3);
  EXPECT_EQ(again.grader.flags.size(), 1u);
}

TEST(EffectiveYaml, ReadsBackWhereOptionalPartsAreMissing) {
  const std::string text = "run: {name: r}\nmodel: {path: m}\nsft: {demonstrations: d, out: o}\n";
  const std::string yaml = effective_yaml(parse(text, {}, Purpose::kSft));
  EXPECT_EQ(effective_yaml(parse(yaml, {}, Purpose::kSft)), yaml);
}

TEST(RunFile, KeepsApartWhatInAHeaderIsSecret) {
  const RunConfig config =
      parse(with("tools: [{name: a, url: 'http://a', headers: {x-env: open, cookie: "
                 "'session=${TOOL_KEY}; lang=en; dir=${MODELS}', k: '$${TOOL_KEY}'}}]\n"));
  EXPECT_EQ(config.tools[0].secrets, (SecretList{{"TOOL_KEY", "s3cret"}, {"MODELS", "/shelf"}}));
  EXPECT_TRUE(config.grader.secrets.empty());
}

TEST(EffectiveYaml, ShowsNoSecret) {
  const std::string yaml =
      effective_yaml(parse(with("tools: [{name: a, url: 'http://a', headers: {k: 'Bearer "
                                "${TOOL_KEY}', l: lit3ral, m: 'x$${lit3ral'}}]\n")));
  EXPECT_THAT(
      yaml, HasSubstr(R"(headers: {"k": "Bearer ${TOOL_KEY}", "l": "redacted", "m": "redacted"})"));
  EXPECT_THAT(yaml, Not(HasSubstr("s3cret")));
  EXPECT_THAT(yaml, Not(HasSubstr("lit3ral")));
}

TEST(RunFileErrors, ShowNoSecret) {
  const std::string text =
      report(with("tools: [{name: a, url: 'x', headers: {k: 'Bearer ${TOOL_KEY} ${NOT_SET}', l: "
                  "{lit3ral: 1}}}]\n"),
             {"grader.headers.h=lit3ral: x", "grader.headers.i=\"lit3ral\\n\""});
  EXPECT_THAT(text, HasSubstr("NOT_SET"));
  EXPECT_THAT(text, Not(HasSubstr("s3cret")));
  EXPECT_THAT(text, Not(HasSubstr("lit3ral")));
}

TEST(ConfigurationReference, IsUpToDate) {
  const std::string fresh = configuration_reference();
  const std::filesystem::path copy = std::filesystem::path(testing::TempDir()) / "configuration.md";
  const bool same = text_of(kRepository / "docs/configuration.md") == fresh;
  if (!same) std::ofstream(copy) << fresh;
  EXPECT_TRUE(same) << "the schema has changed: cp " << copy << " docs/configuration.md";
}

// Accepts the text or throws an input Error; anything else fails the test.
void read_or_refuse(const std::string& text) {
  try {
    parse(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.exit_code(), ExitCode::kBadInput);
  }
}

TEST(RunFile, MayBeCutShortAtEveryByte) {
  const std::string whole = text_of(kRepository / "configs/example.yaml");
  for (std::size_t n = 0; n < whole.size(); ++n) read_or_refuse(whole.substr(0, n));
}

TEST(RunFile, MayBeDamagedAnywhere) {
  const std::string whole = text_of(kRepository / "configs/example.yaml");
  std::mt19937 source(20240607);
  const std::string marks = "{}[]:,-?&*!|>'\"%@`#~ \n\t\\$=<0a\xc3\xff";
  for (int round = 0; round < 1500; ++round) {
    std::string text = whole;
    for (int edit = 0; edit < 1 + round % 4; ++edit) {
      const std::size_t at = source() % text.size();
      const char mark = marks[source() % marks.size()];
      switch (source() % 4) {
        case 0:
          text[at] = mark;
          break;
        case 1:
          text.insert(at, 1 + source() % 3, mark);
          break;
        case 2:
          text.erase(at, 1 + source() % 20);
          break;
        default:
          text.insert(at, text.substr(source() % text.size(), source() % 40));
          break;
      }
    }
    read_or_refuse(text);
  }
}

TEST(RunFile, OfAnAttackerIsRefused) {
  EXPECT_THAT(report("a: " + std::string(40, '[') + std::string(40, ']')),
              HasSubstr("nested more than 32 levels deep"));
  for (const char* mark : {"[", "{", "[\n", "{a: ", "'", "a: ", "? ", "&a ", "*a ", "|\n"}) {
    std::string text = "a: ";
    while (text.size() < 100'000) text += mark;
    EXPECT_NE(report(text), "") << mark;
  }
  std::string dashes;
  for (int i = 0; i < 50'000; ++i) dashes += "- ";
  EXPECT_THAT(report(dashes), HasSubstr("nested more than 32 levels deep"));
  EXPECT_THAT(report("a: &a [x,x]\nb: &b [*a,*a]\nc: &c [*b,*b]\n"), HasSubstr("anchors"));
  EXPECT_THAT(report("a: *missing\n"), Not(testing::IsEmpty()));
  EXPECT_THAT(report("run: {name: " + std::string(1 << 20, 'x') + "}\n"),
              HasSubstr("larger than 1 MiB"));
}

TEST(RunFile, ThatCannotBeReadIsNamed) {
  EXPECT_THROW(read_run_config("no/such/run.yaml", {}, variable), Error);
  EXPECT_THROW(read_run_config("/", {}, variable), Error);
}

}  // namespace
}  // namespace rollcall
