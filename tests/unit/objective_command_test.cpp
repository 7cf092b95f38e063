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
  for (const char* result : {"loss", "grad", "metrics", "advantages", "steps"}) row.erase(result);
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

struct GoldenRun {
  int compared = 0, unsupported = 0;
};

template <typename Compare>
GoldenRun run_golden(const std::string& kind, Compare compare) {
  const json batches = json::parse(golden("batches.json"));
  const std::vector<json> rows = lines_of(golden(kind + ".jsonl"));
  std::vector<json> requests;
  for (const json& row : rows) requests.push_back(request_of(row, kind, batches));
  const std::vector<json> answers = answers_to(requests);
  GoldenRun run;
  for (std::size_t i = 0; i < rows.size(); ++i) {
    EXPECT_EQ(answers.at(i)["id"], rows[i]["id"]);
    if (answers[i].contains("error")) {
      EXPECT_EQ(answers[i]["error"]["kind"], "unsupported") << answers[i];
      ++run.unsupported;
    } else {
      compare(answers[i], rows[i]);
      ++run.compared;
    }
  }
  return run;
}

TEST(ObjectiveCommand, GivesTheGoldenAdvantages) {
  const GoldenRun run = run_golden("advantages", [](const json& got, const json& want) {
    expect_close(got["advantages"], want["advantages"], 1e-14, 1e-12, want["id"]);
  });
  EXPECT_EQ(run.compared, 35);
  EXPECT_EQ(run.unsupported, 5);  // pass@k
}

TEST(ObjectiveCommand, GivesTheGoldenLossesAndGradients) {
  const GoldenRun run = run_golden("policy", [](const json& got, const json& want) {
    expect_close(got["loss"], want["loss"], 1e-14, 1e-12, want["id"]);
    expect_close(got["grad"], want["grad"], 1e-14, 1e-12, want["id"]);
    for (const auto& [name, value] : want["metrics"].items()) {
      expect_close(got["metrics"][name], value, 1e-14, 1e-12, want["id"]);
    }
  });
  EXPECT_EQ(run.compared, 4 * 15);
  EXPECT_EQ(run.unsupported, 160 - 4 * 15);  // corrections, KL, dppo_tv, sapo
}

TEST(ObjectiveCommand, GivesTheGoldenOptimizerSteps) {
  const GoldenRun run = run_golden("adamw", [](const json& got, const json& want) {
    for (std::size_t i = 0; i < want["steps"].size(); ++i) {
      const json &a = got["steps"].at(i), &b = want["steps"][i];
      expect_close(a["params"], b["params"], 1e-7, 1e-6, want["id"]);
      expect_close(a["exp_avg"], b["exp_avg"], 1e-7, 1e-6, want["id"]);
      expect_close(a["exp_avg_sq"], b["exp_avg_sq"], 1e-30, 1e-6, want["id"]);
      expect_close(a["grad_norm"], b["grad_norm"], 1e-12, 1e-12, want["id"]);
    }
  });
  EXPECT_EQ(run.compared, 8);
}

TEST(ObjectiveCommand, AnswersABadLineAndGoesOn) {
  const std::vector<json> answers = answers_to(
      "{\"id\":\"a\",\"kind\":\n"
      "[1]\n"
      "{\"id\":\"b\",\"kind\":\"kl\"}\n"
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
