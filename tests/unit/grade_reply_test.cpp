// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/grade_reply.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace rollcall {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

Grade graded(const std::string& body, const GraderOptions& options = {}) {
  GradeReply reply = read_grade_reply(body);
  EXPECT_EQ(reply.error, "") << body;
  EXPECT_FALSE(apply_grade_rules(options, reply.grade));
  return reply.grade;
}

TEST(GradeReply, ReadsScore) {
  const Grade grade = graded(R"({"score":0.62})");
  EXPECT_DOUBLE_EQ(grade.score, 0.62);
  EXPECT_DOUBLE_EQ(grade.reward, 0.62);
}

TEST(GradeReply, AcceptsAliasesButPrefersScore) {
  EXPECT_DOUBLE_EQ(graded(R"({"reward":-2})").score, -2);
  EXPECT_DOUBLE_EQ(graded(R"({"aggregate_reward_score":3.5})").score, 3.5);
  EXPECT_DOUBLE_EQ(graded(R"({"reward":1,"score":2})").score, 2);
}

TEST(GradeReply, ReadsEverythingElse) {
  const Grade grade =
      graded(R"({"score":1,"sub_rewards":{"tests":1,"bad":"x"},"reward_components":{"style":0.5},
      "metrics_list":[{"name":"m","value":2,"type":"Metric"}],"metrics":{"speedup":1.7},
      "gates":{"compiles":true},"flags":["odd"],"explanation":"fine"})");
  EXPECT_THAT(grade.sub_rewards, ElementsAre(Pair("tests", 1), Pair("style", 0.5), Pair("m", 2),
                                             Pair("metrics.speedup", 1.7)));
  EXPECT_THAT(grade.gates, ElementsAre(Pair("compiles", true)));
  EXPECT_THAT(grade.flags, ElementsAre("odd"));
  EXPECT_EQ(grade.explanation, "fine");
}

TEST(GradeReply, TakesNoGuessForAScore) {
  for (const char* bad : {"",
                          "null",
                          "[1]",
                          "1",
                          "{}",
                          R"({"score":null})",
                          R"({"score":"1"})",
                          R"({"score":true})",
                          R"({"score":[1]})",
                          R"({"score":{}})",
                          R"({"score":NaN})",
                          R"({"score":Infinity})",
                          R"({"score":1e400})",
                          R"({"score":-1e400})",
                          R"({"score":1e39})",
                          R"({"score":1,"score":1})",
                          R"({"score":0,"x":{},"score":1})",
                          R"({"reward":1,"reward":0})",
                          R"({"score":null,"reward":1})",
                          R"({"nested":{"score":1}})",
                          R"({"score":1)",
                          R"({"score":1,"gates":{"g":1}})",
                          R"({"score":1,"gates":[]})",
                          R"({"score":1,"flags":"hacking"})",
                          R"({"score":1,"flags":[1]})",
                          R"({"score":1,"mask_sample":"no"})",
                          "{\"score\":1,\"explanation\":\"\xFF\"}"}) {
    const GradeReply reply = read_grade_reply(bad);
    EXPECT_NE(reply.error, "") << bad;
    EXPECT_TRUE(reply.retryable) << bad;
  }
}

TEST(GradeReply, CountsTopLevelScoresOnly) {
  EXPECT_DOUBLE_EQ(
      graded(R"({"detail":{"score":0,"reward":0},"score":1,"list":[{"score":3}]})").score, 1);
}

TEST(GradeReply, ErrorObjectWinsOverScore) {
  const GradeReply reply = read_grade_reply(
      R"({"score":0,"error":{"code":"no_db","message":"gone","retryable":false}})");
  EXPECT_THAT(reply.error, HasSubstr("no_db: gone"));
  EXPECT_FALSE(reply.retryable);
  EXPECT_TRUE(read_grade_reply(R"({"error":{"message":"x"}})").retryable);
  EXPECT_THAT(read_grade_reply(R"({"error":"text"})").error, HasSubstr("text"));
  EXPECT_DOUBLE_EQ(graded(R"({"score":1,"error":null})").score, 1);
}

TEST(GradeReply, RefusesDeepNestingInsteadOfOverflowingTheStack) {
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  for (const std::string& body : {"{\"error\":" + deep + "}", "{\"score\":1,\"x\":" + deep + "}"}) {
    const GradeReply reply = read_grade_reply(body);
    EXPECT_THAT(reply.error, HasSubstr("nests too deep"));
    EXPECT_TRUE(reply.retryable);
  }
}

TEST(GradeReply, TakesNoGuessFromAReplyCutShortOrChangedAtAnyByte) {
  const std::string whole =
      R"({"score":0.5,"sub_rewards":{"a":1},"gates":{"g":true},"flags":["f"],"mask_sample":false})";
  for (std::size_t at = 0; at < whole.size(); ++at) {
    EXPECT_NE(read_grade_reply(whole.substr(0, at)).error, "") << at;
    std::string changed = whole;
    changed[at] ^= 0x10;
    const GradeReply reply = read_grade_reply(changed);
    EXPECT_TRUE(!reply.error.empty() || reply.masked || std::isfinite(reply.grade.score)) << at;
  }
}

TEST(GradeReply, MaskNeedsNoScore) {
  const GradeReply reply = read_grade_reply(R"({"mask_sample":true})");
  EXPECT_TRUE(reply.masked);
  EXPECT_EQ(reply.error, "");
}

TEST(GradeRules, FalseGateGivesGateValueAndKeepsScore) {
  GraderOptions options;
  options.gate_value = -1;
  const Grade grade =
      graded(R"({"score":5,"gates":{"a":true,"b":false},"flags":["hacking"]})", options);
  EXPECT_DOUBLE_EQ(grade.reward, -1);
  EXPECT_DOUBLE_EQ(grade.score, 5);
  options.gate_value = 0;
  EXPECT_DOUBLE_EQ(graded(R"({"score":-2,"gates":{"a":false}})", options).reward, -2)
      << "a shut gate pays for nothing";
}

TEST(GradeRules, FlagsZeroPenalizeMaskOrOnlyLog) {
  GraderOptions options;
  options.flags = {{"hacking", "zero", 0},
                   {"rude", "penalize", -0.5},
                   {"broken", "mask", 0},
                   {"long", "log", 0}};
  EXPECT_DOUBLE_EQ(graded(R"({"score":5,"flags":["hacking","rude"]})", options).reward, 0);
  EXPECT_DOUBLE_EQ(graded(R"({"score":-2,"flags":["hacking"]})", options).reward, -2)
      << "a failure is not worth more for being flagged";
  EXPECT_DOUBLE_EQ(graded(R"({"score":5,"flags":["rude"]})", options).reward, 4.5);
  EXPECT_DOUBLE_EQ(graded(R"({"score":5,"flags":["long","unheard"]})", options).reward, 5);
  GradeReply masked = read_grade_reply(R"({"score":5,"flags":["broken"]})");
  EXPECT_TRUE(apply_grade_rules(options, masked.grade));
}

TEST(GradeRules, PassesByScoreUnlessAGateOrAZeroFlagSpeaksAgainstIt) {
  GraderOptions options;
  options.pass_threshold = 0.5;
  options.flags = {{"hacking", "zero", 0}, {"rude", "penalize", -0.5}, {"long", "log", 0}};
  EXPECT_TRUE(graded(R"({"score":0.5,"gates":{"a":true}})", options).passed);
  EXPECT_FALSE(graded(R"({"score":0.49})", options).passed);
  EXPECT_FALSE(graded(R"({"score":1,"flags":["hacking"]})", options).passed);
  EXPECT_TRUE(graded(R"({"score":1,"flags":["rude","long"]})", options).passed);
  options.gate_value = 1;
  EXPECT_FALSE(graded(R"({"score":1,"gates":{"a":true,"b":false}})", options).passed);
}

TEST(GradeRules, WeighsPartsBehindGates) {
  GraderOptions options;
  options.gates = {{"tests", 1}};
  options.parts = {{"quality", 0.75}, {"style", 0.25}};
  options.pass_threshold = 0.5;
  const auto reply = [](double tests, double quality) {
    return R"({"score":9,"sub_rewards":{"style":1,"tests":)" + std::to_string(tests) +
           ",\"quality\":" + std::to_string(quality) + "}}";
  };
  const Grade good = graded(reply(1, 0.5), options);
  EXPECT_DOUBLE_EQ(good.reward, 0.625);
  EXPECT_TRUE(good.passed);
  EXPECT_DOUBLE_EQ(good.score, 9);  // the raw one stays for an audit
  EXPECT_FALSE(graded(reply(1, 0.25), options).passed);
  const Grade shut = graded(reply(0.5, 1), options);
  EXPECT_DOUBLE_EQ(shut.reward, 0);
  EXPECT_FALSE(shut.passed);
  EXPECT_THAT(shut.gates, testing::Contains(testing::Pair("tests", false)));
}

TEST(GradeRules, MissesThePartsThatAReplyLacks) {
  GraderOptions options;
  const GradeReply reply = read_grade_reply(R"({"score":1,"sub_rewards":{"a":1}})");
  EXPECT_EQ(missing_part(options, reply.grade), "");
  options.parts = {{"a", 1}, {"b", 1}};
  EXPECT_EQ(missing_part(options, reply.grade), "b");
  options.gates = {{"c", 1}};
  EXPECT_EQ(missing_part(options, reply.grade), "c");
}

TEST(GradeRules, BinaryRewardIsWhatPasses) {
  GraderOptions options;
  options.reward = "passed";
  options.pass_threshold = 0.5;
  EXPECT_DOUBLE_EQ(graded(R"({"score":0.75})", options).reward, 1);
  EXPECT_DOUBLE_EQ(graded(R"({"score":0.25})", options).reward, 0);
  EXPECT_DOUBLE_EQ(graded(R"({"score":0.75,"flags":["hacking"]})", options).reward, 0);
}

TEST(GradeRules, HackingIsZeroByDefault) {
  EXPECT_DOUBLE_EQ(graded(R"({"score":1,"flags":["hacking"]})").reward, 0);
}

}  // namespace
}  // namespace rollcall
