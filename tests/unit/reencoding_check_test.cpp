// SPDX-License-Identifier: Apache-2.0
#include "rollout_workers/reencoding_check.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <nlohmann/json.hpp>

namespace rollcall {
namespace {

using testing::HasSubstr;
using testing::Pair;
using Shares = std::vector<std::pair<std::string, double>>;

const std::filesystem::path kModel =
    std::filesystem::path(ROLLCALL_GOLDEN_DIR) / "models/qwen3-tied";

// A conversation whose tokens are appended as a rollout appends them.
class ReencodingCheckTest : public testing::Test {
 protected:
  ReencodingCheckTest() {
    task_.messages = R"([{"role":"user","content":"What is in 7?"}])";
    task_.tools = R"([{"type":"function","function":{"name":"get"}}])";
    tokens_ = format_->render_prompt(nlohmann::ordered_json::parse(task_.messages),
                                     nlohmann::ordered_json::parse(task_.tools));
    check_.emplace(task_, *format_, tokenizer_);
  }

  // What compare() says after the policy wrote `text` and a tool answered.
  std::string turn(const std::string& text, bool canonical = true) {
    append(canonical ? tokenizer_.encode(text, true) : spelled(text));
    append({format_->stop_ids().front()});
    check_->add_turn(text, format_->parse(text));
    const std::vector<std::string> outputs{"seven"};
    append(format_->render_tool_results(outputs, false));
    check_->add_results(outputs);
    return check_->compare(tokens_);
  }

  std::vector<std::int32_t> spelled(const std::string& text) const {
    std::vector<std::int32_t> ids;
    for (const char c : text)
      for (const auto id : tokenizer_.encode(std::string(1, c), false)) ids.push_back(id);
    return ids;
  }

  void append(const std::vector<std::int32_t>& ids) {
    tokens_.insert(tokens_.end(), ids.begin(), ids.end());
  }

  Tokenizer tokenizer_{kModel / "tokenizer.json"};
  std::unique_ptr<ChatFormat> format_ = make_chat_format(kModel, tokenizer_);
  Task task_;
  std::vector<std::int32_t> tokens_;
  std::optional<ReencodingCheck> check_;
};

const std::string kThought = "<think>\nI must look.\n</think>\n\n";
const std::string kCall =
    "<tool_call>\n{\"name\": \"get\", \"arguments\": {\"id\": 7}}\n</tool_call>";

TEST_F(ReencodingCheckTest, IsSilentWhereTheTemplateWouldWriteTheSame) {
  EXPECT_EQ(turn(kThought + kCall), "");
  EXPECT_EQ(turn(kThought + "Once more.\n" + kCall), "");
  EXPECT_THAT(check_->shares(), testing::ElementsAre(Pair("reencoding.other_text", 0.0),
                                                     Pair("reencoding.other_tokens", 0.0)));
}

TEST_F(ReencodingCheckTest, ShowsTheFirstPlaceThatReadsOtherwise) {
  const std::string said = turn("<think>I must look.</think>" + kCall);
  EXPECT_THAT(said, HasSubstr(R"(<think>I must look.</think><tool_call>)"));
  EXPECT_THAT(said, HasSubstr(R"(<think>\nI must look.\n</think>)"));
  EXPECT_DOUBLE_EQ(check_->shares().front().second, 1.0);
}

TEST_F(ReencodingCheckTest, TellsTokensFromText) {
  EXPECT_EQ(turn(kThought + kCall), "");
  EXPECT_THAT(turn("<think>\nAgain.\n</think>\n\n" + kCall, false),
              HasSubstr("its tokens differ from token"));
  EXPECT_EQ(check_->shares(),
            (Shares{{"reencoding.other_text", 0.0}, {"reencoding.other_tokens", 0.5}}));
}

TEST_F(ReencodingCheckTest, TakesAnythingForATurn) {
  const auto call = [](const std::string& arguments) {
    return "<tool_call>{\"name\": \"get\", \"arguments\": " + arguments + "}</tool_call>";
  };
  for (const std::string& text :
       {std::string(), std::string("<tool_call>"), std::string("\xff\xfe"), kCall + kCall,
        call("{\"x\": 1e400}"), call("{\"x\": \"\\ud800\"}")}) {
    check_->add_turn(text, format_->parse(text));
    EXPECT_NE(check_->compare(tokens_), "") << text;
  }
  EXPECT_EQ(check_->shares().size(), 2U);
}

}  // namespace
}  // namespace rollcall
