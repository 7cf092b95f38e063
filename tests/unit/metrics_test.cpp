// SPDX-License-Identifier: Apache-2.0
#include "trainer/metrics.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>
#include <limits>

#include "comms/error.h"
#include "tests/unit/journal_samples.h"
#include "trainer/metric_names.h"
#include "trainer/step_metrics.h"

namespace rollcall {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;
using ::testing::Pair;

std::string text_of(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::vector<std::int64_t> steps_of(const std::filesystem::path& file) {
  std::vector<std::int64_t> steps;
  for (const MetricsLine& line : read_metrics(file)) steps.push_back(line.step);
  return steps;
}

class MetricsTest : public ::testing::Test {
 protected:
  const std::filesystem::path& run() const { return folder_.path(); }
  std::filesystem::path file() const { return run() / "metrics.jsonl"; }

 private:
  TempFolder folder_;
};

TEST_F(MetricsTest, WritesOneObjectALineInOrder) {
  MetricsLog log(run(), 0);
  log.append(3, {{"reward_mean", 0.25}, {"loss", -1e-7}});
  EXPECT_THAT(text_of(file()), MatchesRegex("\\{\"step\":3,\"unix_seconds\":[0-9.]+,"
                                            "\"reward_mean\":0.25,\"loss\":-1e-07\\}\n"));
  const std::vector<MetricsLine> lines = read_metrics(file());
  ASSERT_EQ(lines.size(), 1);
  EXPECT_THAT(lines[0].values, ElementsAre(Pair("reward_mean", 0.25), Pair("loss", -1e-7)));
}

TEST_F(MetricsTest, WritesNullForWhatIsNotFinite) {
  MetricsLog log(run(), 0);
  log.append(0, {{"loss", std::numeric_limits<double>::infinity()}});
  EXPECT_THAT(text_of(file()), HasSubstr("\"loss\":null"));
  EXPECT_TRUE(std::isnan(read_metrics(file())[0].values[0].second));
}

TEST_F(MetricsTest, CutsStepsAfterTheCheckpointOnResume) {
  {
    MetricsLog log(run(), 0);
    for (std::int64_t step = 0; step < 5; ++step) log.append(step, {{"loss", 1}});
  }
  MetricsLog log(run(), 2);
  EXPECT_THAT(steps_of(file()), ElementsAre(0, 1, 2));
  log.append(3, {{"loss", 2}});
  EXPECT_THAT(steps_of(file()), ElementsAre(0, 1, 2, 3));
}

TEST_F(MetricsTest, DropsALineTornAtEveryByte) {
  { MetricsLog(run(), 0).append(1, {{"loss", 1}}); }
  const std::string line = text_of(file());
  for (std::size_t length = 0; length < line.size(); ++length) {
    std::ofstream(file(), std::ios::binary) << line << line.substr(0, length);
    EXPECT_THAT(steps_of(file()), ElementsAre(1));
    MetricsLog log(run(), 1);
    log.append(2, {});
    EXPECT_THAT(steps_of(file()), ElementsAre(1, 2)) << length;
  }
}

TEST_F(MetricsTest, NamesFileAndLineOfWhatIsNotMetrics) {
  std::ofstream(file()) << "{\"step\":0,\"unix_seconds\":1}\n{\"step\":\"x\"}\n";
  try {
    read_metrics(file());
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("metrics.jsonl:2: "));
  }
  EXPECT_THAT(read_metrics(run() / "absent.jsonl"), IsEmpty());
}

TEST_F(MetricsTest, OpensANewEventFileForEachLife) {
  { MetricsLog(run(), 0).append(0, {{"loss", 1}}); }
  { MetricsLog(run(), 1).append(1, {{"loss", 1}}); }
  EXPECT_TRUE(std::filesystem::exists(run() / "events.out.tfevents.0000000000.rollcall"));
  EXPECT_TRUE(std::filesystem::exists(run() / "events.out.tfevents.0000000001.rollcall"));
}

TEST(TensorBoard, ChecksumMatchesRfc3720) {
  EXPECT_EQ(crc32c("123456789"), 0xe3069283);
  EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8a9136aa);
  EXPECT_EQ(crc32c(std::string(32, '\xff')), 0x62a8ab43);
}

// Event {step 3, summary {value {tag "a", simple_value 0.5}}} behind its wall time, by hand from
// the protocol buffer definition; the first record's head (24 bytes) as TensorFlow writes it.
TEST_F(MetricsTest, WritesTheBytesThatTensorBoardReads) {
  { MetricsLog(run(), 0).append(3, {{"a", 0.5}}); }
  const std::string bytes = text_of(run() / "events.out.tfevents.0000000000.rollcall");
  const std::string head("\x18\x00\x00\x00\x00\x00\x00\x00\xa3\x7f\x4b\x22", 12);
  const std::string scalar(
      "\x10\x03\x2a\x0a\x0a\x08\x0a\x01"
      "a\x15\x00\x00\x00\x3f",
      14);
  EXPECT_EQ(bytes.substr(0, head.size()), head);
  EXPECT_EQ(bytes.substr(bytes.size() - 4 - scalar.size(), scalar.size()), scalar);
}

// A rollout of `tokens` sampled tokens.
Collected sampled(std::size_t tokens, bool recovered) {
  Trajectory t;
  t.tokens.assign(tokens, 1);
  t.is_action.assign(tokens, 1);
  return {0, std::make_shared<const Trajectory>(std::move(t)), recovered};
}

double value_of(const MetricList& metrics, std::string_view name) {
  for (const auto& [key, value] : metrics) {
    if (key == name) return value;
  }
  throw std::out_of_range(std::string(name));
}

TEST(StepMetrics, CountAsSpeedOnlyWhatWasSampledInTheTime) {
  StepMetrics m;
  m.seconds_rollout = 2;
  const std::vector<Collected> fresh{sampled(100, false), sampled(60, false)};
  EXPECT_EQ(value_of(step_metrics(m, {}, fresh), metric::kTokensPerSecond), 80);
  EXPECT_THAT(step_line(m, {}, fresh), HasSubstr("  80 tok/s  "));

  const std::vector<Collected> mixed{sampled(100, true), sampled(60, false)};
  EXPECT_EQ(value_of(step_metrics(m, {}, mixed), metric::kTokensPerSecond), 30);
  EXPECT_EQ(value_of(step_metrics(m, {}, mixed), metric::kTokensSampled), 160);
  EXPECT_THAT(step_line(m, {}, mixed), HasSubstr("30 tok/s (1 of 2 rollouts from the journal)"));

  m.lag = PolicyLag{.mean = 0.5, .max = 2, .mixed_share = 0.25};
  m.seconds_step = 4;
  EXPECT_EQ(value_of(step_metrics(m, {}, fresh), metric::kTokensPerSecond), 40)
      << "sampled while others were learnt from";
  EXPECT_EQ(value_of(step_metrics(m, {}, fresh), metric::kVersionLagMax), 2);
  m.lag.reset();
  EXPECT_THROW(value_of(step_metrics(m, {}, fresh), metric::kVersionLagMax), std::out_of_range);

  m.seconds_rollout = 1e-6;
  const std::vector<Collected> old{sampled(100, true), sampled(60, true)};
  EXPECT_TRUE(std::isnan(value_of(step_metrics(m, {}, old), metric::kTokensPerSecond)));
  EXPECT_THAT(step_line(m, {}, old), HasSubstr("from the journal"));
  EXPECT_THAT(step_line(m, {}, old), testing::Not(HasSubstr("tok/s")));
}

TEST(StepMetrics, CountWhatThePrefixCacheSpared) {
  // A prompt of 4, a turn of 2, a tool's 3, a turn of 1: without a cache 4 + 9 tokens.
  Trajectory first;
  first.is_action = {0, 0, 0, 0, 1, 1, 0, 0, 0, 1};
  first.prefill_tokens = 4 + (1 + 3);  // the last token sampled comes with the tool's
  Trajectory second = first;
  second.prefill_tokens = 1 + 3;  // its prompt is the first one's
  const std::vector<Collected> group{{0, std::make_shared<const Trajectory>(first)},
                                     {1, std::make_shared<const Trajectory>(second)}};
  EXPECT_DOUBLE_EQ(value_of(step_metrics({}, {}, group), metric::kPrefixCacheHitRate),
                   1 - 12.0 / 26);
  EXPECT_TRUE(std::isnan(value_of(step_metrics({}, {}, {}), metric::kPrefixCacheHitRate)));
}

TEST(StepMetrics, KnowTheEntropyOnlyOfTokensThatWereLearntFrom) {
  StepMetrics m;
  m.update.policy_learns = true;
  m.update.learner.entropy_mean = 0.5;
  EXPECT_TRUE(std::isnan(value_of(step_metrics(m, {}, {}), metric::kEntropyMean)));
  m.update.learner.action_tokens = 10;
  EXPECT_EQ(value_of(step_metrics(m, {}, {}), metric::kEntropyMean), 0.5);
}

TEST(MetricsLog, TellsAFullDiskFromABug) {
  const TempFolder folder;
  MetricsLog log(folder.path(), 0);
  std::filesystem::remove(folder / "metrics.jsonl");
  std::filesystem::create_symlink("/dev/full", folder / "metrics.jsonl");
  EXPECT_THROW(log.append(1, {{"loss", 1}}), StorageError);
}

}  // namespace
}  // namespace rollcall
