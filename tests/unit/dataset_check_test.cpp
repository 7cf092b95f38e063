// SPDX-License-Identifier: Apache-2.0
#include "rollcall/dataset_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <vector>

#include "comms/error.h"
#include "model/chat_format.h"
#include "model/tokenizer.h"

namespace rollcall {
namespace {

using nlohmann::ordered_json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

const std::filesystem::path kModel =
    std::filesystem::path(ROLLCALL_GOLDEN_DIR) / "models" / "qwen3-tied";

Task task(std::int64_t line, const std::string& messages, std::vector<std::string> tools = {}) {
  ordered_json functions = ordered_json::array();
  for (const auto& name : tools)
    functions.push_back({{"type", "function"}, {"function", {{"name", name}}}});
  return {line - 1, "{}", messages, functions.dump(), line};
}

std::string question(const std::string& text) {
  return ordered_json{{{"role", "user"}, {"content", text}}}.dump();
}

class CheckRows : public testing::Test {
 protected:
  std::string warning(const std::vector<Task>& tasks, std::int64_t context = 1000) {
    return check_rows("data.train: d.jsonl", tasks, *format_, context, {"find", "pay"});
  }
  std::string complaint(const std::vector<Task>& tasks, std::int64_t context = 1000) {
    try {
      warning(tasks, context);
      return "";
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), ExitCode::kBadInput);
      EXPECT_NE(error.what_to_do(), "");
      return error.what();
    }
  }

  Tokenizer tokenizer_{kModel / "tokenizer.json"};
  std::unique_ptr<ChatFormat> format_ = make_chat_format(kModel, tokenizer_);
};

TEST_F(CheckRows, FindsTheBadOnesAmongManyAndNamesLineAndMessage) {
  std::vector<Task> tasks;
  for (int line = 1; line <= 500; ++line) tasks.push_back(task(line, question("hi")));
  tasks[299].messages = R"([{"role":"user","content":[{"type":"image_url"}]}])";
  tasks[399].messages = R"([{"role":"critic","content":"x"},{"role":"user","content":"hi"}])";
  EXPECT_THAT(complaint(tasks),
              AllOf(HasSubstr("data.train: d.jsonl:300: messages[0].content[0] is of type"),
                    HasSubstr("d.jsonl:400: messages[0] has a role"), Not(HasSubstr("d.jsonl:1:"))));
}

TEST_F(CheckRows, NamesAtMostTenRows) {
  const std::vector<Task> tasks(13, task(7, R"([{"role":"user","content":[{}]}])"));
  EXPECT_THAT(complaint(tasks), HasSubstr("and 3 more"));
}

TEST_F(CheckRows, RefusesAPromptThatLeavesNothingToSample) {
  const auto tokens = static_cast<std::int64_t>(
      format_->render_prompt(ordered_json::parse(question("hi")), {}).size());
  EXPECT_EQ(complaint({task(1, question("hi"))}, tokens + 1), "");
  EXPECT_THAT(complaint({task(1, question("hi"))}, tokens),
              AllOf(HasSubstr("d.jsonl:1: its prompt has " + std::to_string(tokens) + " tokens"),
                    HasSubstr("rollout.context")));
}

TEST_F(CheckRows, WarnsOfToolsThatNothingServes) {
  EXPECT_EQ(warning({task(1, question("hi"), {"find", "pay"}), task(2, question("hi"))}), "");
  EXPECT_THAT(warning({task(1, question("hi"), {"find", "pey"}), task(3, question("hi"), {"pey"}),
                       task(4, question("hi"), {"pay"})}),
              AllOf(HasSubstr("2 of 3 rows"), HasSubstr("(pey)"), HasSubstr("1 of them no other"),
                    HasSubstr("lines 1, 3.")));
}

}  // namespace
}  // namespace rollcall
