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
  EXPECT_THAT(novelties({task(1, "{}", one)}, {task(1, "{}", same)}), IsEmpty());
  EXPECT_THAT(novelties({task(1, "{}", one)}, {task(7, "{}", other), task(8, "{}", other)}),
              ElementsAre("data.valid, line 7: no training row offers pay so"));
}

TEST(EvaluationRules, TellOfAnotherSystemMessageOrSetOfFunctions) {
  const std::string pay = R"({"type":"function","function":{"name":"pay"}})";
  const std::string look = R"({"type":"function","function":{"name":"look"}})";
  const auto row = [&](std::int64_t line, const std::string& system, const std::string& tools) {
    Task t = task(line, "{}", "[" + tools + "]");
    t.messages =
        R"([{"role":"system","content":")" + system + R"("},{"role":"user","content":"u"}])";
    return t;
  };
  const std::string both = pay + "," + look, turned = look + "," + pay;
  const std::vector<Task> train{row(1, "Pay.", both), row(2, "Pay.", turned)};
  EXPECT_THAT(novelties(train, {row(1, "Pay.", turned)}), IsEmpty());
  EXPECT_THAT(novelties(train, {row(3, "Pay!", both), row(4, "Pay!", look)}),
              ElementsAre("data.valid, line 3: no training row has this system message",
                          "data.valid, line 4: no training row offers these 1 functions and no "
                          "others"));
  const std::vector<Task> each_its_own{row(1, "Of Ann.", both), row(2, "Of Bob.", pay)};
  EXPECT_THAT(novelties(each_its_own, {row(1, "Of Cid.", look)}), IsEmpty());
}

TEST(EvaluationRules, FindTrainingRowsUnderAnotherName) {
  const std::vector<Task> train{task(1, R"({"id":1,"target":4})")};
  const auto rows = [&](const std::string& item) {
    return overlap_of("t", train, "v", {task(1, item)}).rows;
  };
  EXPECT_EQ(rows(R"({"id":7,"target":4,"source":"x"})"), 1);
  EXPECT_EQ(rows(R"({"id":1,"target":5})"), 0) << "another task with the same prompt";
}

TEST(EvaluationRules, FindTrainingRowsWhateverTheOrderOfTheirKeys) {
  const Overlap overlap = overlap_of("t", {task(1, R"({"a":1,"b":[2,3]})"), task(2, R"({"a":2})")},
                                     "v", {task(1, R"({"a":3})"), task(2, R"({"b":[2,3],"a":1})")});
  EXPECT_EQ(overlap.rows, 1);
  EXPECT_THAT(overlap.places, ElementsAre("v:2 is t:1"));
}

}  // namespace
}  // namespace rollcall
