// SPDX-License-Identifier: Apache-2.0
#include "trainer/demonstrations.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "comms/error.h"
#include "model/chat_format.h"
#include "model/tokenizer.h"

namespace rollcall {
namespace {

using testing::HasSubstr;

class Demonstrations : public testing::Test {
 protected:
  static std::string row(const std::string& rest) {
    return R"({"messages":[{"role":"user","content":"2+2?"})" + rest + "]}";
  }
  Demonstration render(const std::string& rest) const {
    return render_demonstration(row(rest), *format_);
  }
  std::string refusal(const std::string& rest) const {
    try {
      render(rest);
      return "";
    } catch (const Error& error) {
      return error.what();
    }
  }
  std::string text(const Demonstration& d, int action) const {
    std::vector<std::int32_t> ids;
    for (std::size_t i = 0; i < d.tokens.size(); ++i)
      if (d.is_action[i] == action) ids.push_back(d.tokens[i]);
    return tokenizer_.decode(ids);
  }

  std::filesystem::path model_ = std::filesystem::path(ROLLCALL_GOLDEN_DIR) / "models/qwen3-tied";
  Tokenizer tokenizer_{model_ / "tokenizer.json"};
  std::unique_ptr<ChatFormat> format_ = make_chat_format(model_, tokenizer_);
};

constexpr const char* kCall =
    R"(,{"role":"assistant","content":"","tool_calls":[{"type":"function","function":{"name":"add","arguments":{"a":2}}}]})";
constexpr const char* kResult = R"(,{"role":"tool","content":"four"})";
constexpr const char* kAnswer = R"(,{"role":"assistant","content":"It is 4."})";

TEST_F(Demonstrations, TrainOnWhatTheAssistantSaysAndOnNothingElse) {
  const Demonstration d = render(std::string(kCall) + kResult + kAnswer);
  EXPECT_THAT(text(d, 1), HasSubstr(R"({"name": "add", "arguments": {"a": 2}})"));
  EXPECT_THAT(text(d, 1), HasSubstr("It is 4.<|im_end|>"));
  EXPECT_THAT(text(d, 0), testing::AllOf(HasSubstr("2+2?"), HasSubstr("four")));
  EXPECT_THAT(text(d, 0), testing::Not(HasSubstr("add")));
}

TEST_F(Demonstrations, AreConversationsThatThePolicyCouldHave) {
  EXPECT_THAT(refusal(""), HasSubstr("followed by an assistant message"));
  EXPECT_THAT(refusal(std::string(kAnswer) + kAnswer), HasSubstr("message 2"));
  EXPECT_THAT(refusal(std::string(kAnswer) + R"(,{"role":"user","content":"and 3+3?"})"),
              HasSubstr("'user'"));
  EXPECT_THAT(refusal(",7"), testing::Not(""));
}

}  // namespace
}  // namespace rollcall
