// SPDX-License-Identifier: Apache-2.0
#include "configs/run_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "comms/error.h"
#include "configs/schema.h"
#include "run_files.h"

namespace rollcall {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

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

TEST(RunConfig, NeedsOnlyWhatTheCommandUses) {
  const std::string sft = "run: {name: r}\nmodel: {path: m}\nsft: {demonstrations: d, out: o}\n";
  EXPECT_EQ(report(sft, {}, Purpose::kSft), "");
  EXPECT_THAT(report(sft), HasSubstr("data.train: rollcall train needs this key"));
  EXPECT_THAT(report(with(""), {}, Purpose::kSft), HasSubstr("sft.out: rollcall sft needs"));
  EXPECT_THAT(report(""), HasSubstr(":1:1: model.path: this key must be there"));
  EXPECT_THAT(report("7"), HasSubstr(":1:1: the run file: expected a section of keys"));
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

TEST(ConfigurationReference, IsUpToDate) {
  const std::string fresh = configuration_reference();
  const std::filesystem::path copy = std::filesystem::path(testing::TempDir()) / "configuration.md";
  const bool same = text_of(kRepository / "docs/configuration.md") == fresh;
  if (!same) std::ofstream(copy) << fresh;
  EXPECT_TRUE(same) << "the schema has changed: cp " << copy << " docs/configuration.md";
}

}  // namespace
}  // namespace rollcall
