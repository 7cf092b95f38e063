// SPDX-License-Identifier: Apache-2.0
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "run_files.h"

namespace rollcall {
namespace {

using testing::EndsWith;
using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

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
        BadFile{"policy: {in_flight_updates: false}\n",
                ":5:29: policy.in_flight_updates: needs policy.max_lag"},
        BadFile{"policy: {max_lag: 1, in_flight_updates: false, placement: learners}\n",
                ":5:41: policy.in_flight_updates: needs policy.placement: workers"},
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

TEST(RunConfig, CutsAFloodOfProblemsShort) {
  std::string flood;
  for (int i = 0; i < 5000; ++i) flood += "key" + std::to_string(i) + ": 1\n";
  EXPECT_THAT(report(with(flood)), StartsWith(": 5000 problems\n"));
  EXPECT_THAT(report(with(flood)), EndsWith("... and 4900 more"));
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
