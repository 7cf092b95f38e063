// SPDX-License-Identifier: Apache-2.0
#include "rollcall/evaluation_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace rollcall {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

ToolOptions tool(const std::string& name) {
  ToolOptions options;
  options.name = name;
  options.url = "http://a/call";
  return options;
}

RunConfig config() {
  RunConfig c;
  c.tools = {tool("pay")};
  return c;
}

Task task(std::int64_t line, const std::string& item, const std::string& tools = "[]") {
  return {.row = line - 1, .item = item, .messages = "[]", .tools = tools, .line = line};
}

TEST(EvaluationRules, FindNoDifferenceInWhatThePolicyDoesNotSee) {
  RunConfig trained = config(), evaluated = config();
  evaluated.tools[0].url = "http://b/call";
  evaluated.tools[0].max_retries = 9;
  evaluated.batch.prompts = 1;
  EXPECT_THAT(differences_of(trained, evaluated), IsEmpty());
}

TEST(EvaluationRules, NameEachDifference) {
  RunConfig trained = config(), evaluated = config();
  evaluated.rollout.max_turns = 3;
  evaluated.model.chat.enable_thinking = false;
  evaluated.tools.push_back(tool("peek"));
  EXPECT_THAT(
      differences_of(trained, evaluated),
      ElementsAre("model.chat.enable_thinking is false, it was true",
                  "rollout.max_turns is 3, it was 12", HasSubstr("tools: peek is offered")));
  EXPECT_THAT(differences_of(evaluated, trained)[2], HasSubstr("tools: peek is not offered"));
}

TEST(EvaluationRules, KnowAFunctionByItsSchema) {
  const std::string one = R"([{"type":"function","function":{"name":"pay","parameters":{"a":1}}}])";
  const std::string same =
      R"([{"function":{"parameters":{"a":1},"name":"pay"},"type":"function"}])";
  const std::string other =
      R"([{"type":"function","function":{"name":"pay","parameters":{"b":1}}}])";
  EXPECT_THAT(unknown_functions({task(1, "{}", one)}, {task(1, "{}", same)}), IsEmpty());
  EXPECT_THAT(unknown_functions({task(1, "{}", one)}, {task(7, "{}", other), task(8, "{}", other)}),
              ElementsAre("data.valid, line 7: no training row offers pay so"));
}

TEST(EvaluationRules, FindTrainingRowsWhateverTheOrderOfTheirKeys) {
  const Overlap overlap = overlap_of("t", {task(1, R"({"a":1,"b":[2,3]})"), task(2, R"({"a":2})")},
                                     "v", {task(1, R"({"a":3})"), task(2, R"({"b":[2,3],"a":1})")});
  EXPECT_EQ(overlap.rows, 1);
  EXPECT_THAT(overlap.places, ElementsAre("v:2 is t:1"));
}

}  // namespace
}  // namespace rollcall
