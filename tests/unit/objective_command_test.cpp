// SPDX-License-Identifier: Apache-2.0
#include "rollcall/objective_command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "comms/error.h"

namespace rollcall {
namespace {

using nlohmann::json;

std::string golden(const std::string& name) {
  std::ifstream file(std::string(ROLLCALL_GOLDEN_DIR) + "/losses/" + name);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<json> lines_of(const std::string& text) {
  std::vector<json> out;
  std::istringstream stream(text);
  for (std::string line; std::getline(stream, line);) out.push_back(json::parse(line));
  return out;
}

std::vector<json> answers_to(const std::string& text) {
  const auto file = std::filesystem::path(testing::TempDir()) / "objective_command_test.jsonl";
  std::ofstream(file) << text;
  std::ostringstream out;
  EXPECT_EQ(run_objective(file, out), 0);
  std::filesystem::remove(file);
  return lines_of(out.str());
}

std::vector<json> answers_to(const std::vector<json>& requests) {
  std::string text;
  for (const json& request : requests) text += request.dump() + "\n";
  return answers_to(text);
}

// A golden row as a request: the inputs without the results.
json request_of(json row, const std::string& kind, const json& batches) {
  if (row.contains("batch")) row["batch"] = batches.at(row["batch"].get<std::string>());
  if (kind == "adamw") {
    for (const json& step : row["steps"]) row["grads"].push_back(step["grads"]);
  }
  if (kind == "metrics") row["metric"] = row["kind"];
  for (const char* result : {"loss", "grad", "metrics", "advantages", "steps", "value"})
    row.erase(result);
  row["kind"] = kind;
  return row;
}

void flatten(const json& value, std::vector<double>& out) {
  if (value.is_number()) out.push_back(value.get<double>());
  if (value.is_structured()) {
    for (const json& element : value) flatten(element, out);
  }
}

void expect_close(const json& got, const json& want, double absolute, double relative,
                  const std::string& where) {
  std::vector<double> a, b;
  flatten(got, a);
  flatten(want, b);
  ASSERT_EQ(a.size(), b.size()) << where;
  for (std::size_t i = 0; i < a.size(); ++i) {
    EXPECT_NEAR(a[i], b[i], absolute + relative * std::abs(b[i])) << where << " value " << i;
  }
}

// Asks for every golden row of a kind; returns their number.
template <typename Compare>
std::size_t run_golden(const std::string& kind, Compare compare) {
  const json batches = json::parse(golden("batches.json"));
  const std::vector<json> rows = lines_of(golden(kind + ".jsonl"));
  std::vector<json> requests;
  for (const json& row : rows) requests.push_back(request_of(row, kind, batches));
  const std::vector<json> answers = answers_to(requests);
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(answers.at(i)["id"], rows[i]["id"]);
    EXPECT_FALSE(answers[i].contains("error")) << answers[i];
    compare(answers[i], rows[i]);
  }
  return rows.size();
}

// The named results of every golden row of a kind, to double precision.
std::size_t compare_golden(const std::string& kind, std::vector<const char*> results) {
  return run_golden(kind, [&](const json& got, const json& want) {
    for (const char* result : results) {
      if (!want.contains(result)) continue;
      ASSERT_TRUE(got.contains(result)) << got;
      expect_close(got[result], want[result], 1e-14, 1e-12, want["id"]);
    }
  });
}

TEST(ObjectiveCommand, GivesTheGoldenAdvantages) {
  const std::size_t rows = run_golden("advantages", [](const json& got, const json& want) {
    // The generator rounds passk, and it alone, to single precision.
    const double relative = want["estimator"] == "passk" ? 1e-7 : 1e-12;
    expect_close(got["advantages"], want["advantages"], 1e-14, relative, want["id"]);
  });
  EXPECT_EQ(rows, 40u);
}

TEST(ObjectiveCommand, GivesTheGoldenLossesAndGradients) {
  EXPECT_EQ(compare_golden("policy", {"loss", "grad"}), 160u);
  run_golden("policy", [](const json& got, const json& want) {
    for (const auto& [name, value] : want["metrics"].items())
      expect_close(got["metrics"][name], value, 1e-14, 1e-12, want["id"]);
  });
}

TEST(ObjectiveCommand, GivesTheGoldenKl) {
  EXPECT_EQ(compare_golden("kl", {"per_token", "token_mean"}), 12u);
}

TEST(ObjectiveCommand, GivesTheGoldenMismatch) {
  EXPECT_EQ(compare_golden("mismatch",
                           {"token_tis_weights_cap_2", "sequence_ratio", "geometric_mean_ratio",
                            "k3_mean", "chi2_token", "mean_abs_log_ratio", "max_abs_log_ratio",
                            "ess_fraction_of_capped_weights"}),
            4u);
}

TEST(ObjectiveCommand, GivesTheGoldenCritic) {
  EXPECT_EQ(compare_golden("critic", {"advantages", "returns", "value_loss", "value_grad"}), 8u);
}

TEST(ObjectiveCommand, GivesTheGoldenCounts) {
  EXPECT_EQ(compare_golden("metrics", {"value", "signal_mass", "informative_groups",
                                       "minority_count", "g2", "s", "b_simple"}),
            36u);
}

TEST(ObjectiveCommand, GivesTheGoldenOptimizerSteps) {
  const std::size_t rows = run_golden("adamw", [](const json& got, const json& want) {
    for (std::size_t i = 0; i < want["steps"].size(); ++i) {
      const json &a = got["steps"].at(i), &b = want["steps"][i];
      expect_close(a["params"], b["params"], 1e-7, 1e-6, want["id"]);
      expect_close(a["exp_avg"], b["exp_avg"], 1e-7, 1e-6, want["id"]);
      expect_close(a["exp_avg_sq"], b["exp_avg_sq"], 1e-30, 1e-6, want["id"]);
      expect_close(a["grad_norm"], b["grad_norm"], 1e-12, 1e-12, want["id"]);
    }
  });
  EXPECT_EQ(rows, 8u);
}

TEST(ObjectiveCommand, AnswersABadLineAndGoesOn) {
  const std::vector<json> answers = answers_to(
      "{\"id\":\"a\",\"kind\":\n"
      "[1]\n"
      "{\"id\":\"b\",\"kind\":\"entropy\"}\n"
      "{\"id\":\"c\",\"kind\":\"advantages\",\"estimator\":\"rloo\",\"rewards\":7}\n"
      "\n"
      "{\"id\":\"d\",\"kind\":\"advantages\",\"estimator\":\"rloo\",\"rewards\":[[1,0]]}\n");
  std::vector<std::string> kinds;
  for (const json& answer : answers) {
    kinds.push_back(answer.contains("error") ? answer["error"]["kind"] : "ok");
  }
  EXPECT_THAT(kinds,
              testing::ElementsAre("invalid_json", "bad_input", "unsupported", "bad_input", "ok"));
  EXPECT_EQ(answers[3]["id"], "c");
}

TEST(ObjectiveCommand, SurvivesEveryPrefixOfALineAndMissingKeys) {
  const json batches = json::parse(golden("batches.json"));
  const json whole = request_of(lines_of(golden("policy.jsonl")).front(), "policy", batches);
  std::vector<json> requests;
  for (const json& holder : {whole, whole["batch"], whole["config"]}) {
    for (const auto& [key, value] : holder.items()) {
      json cut = whole;
      (holder == whole ? cut : cut[holder == whole["batch"] ? "batch" : "config"]).erase(key);
      requests.push_back(cut);
      if (holder == whole["batch"]) {
        cut["batch"][key] = json::array({json::array({1.0})});
        requests.push_back(cut);
      }
    }
  }
  EXPECT_EQ(answers_to(requests).size(), requests.size());

  const std::string line = json{
      {"id", "x"},
      {"kind", "advantages"},
      {"estimator", "rloo"},
      {"rewards", {{1, 0}}}}.dump();
  std::string prefixes;
  for (std::size_t n = 1; n <= line.size(); ++n) prefixes += line.substr(0, n) + "\n";
  EXPECT_EQ(answers_to(prefixes).size(), line.size());
}

TEST(ObjectiveCommand, NamesAFileThatCannotBeRead) {
  std::ostringstream out;
  EXPECT_THROW(run_objective("no/such/file.jsonl", out), Error);
}

}  // namespace
}  // namespace rollcall
