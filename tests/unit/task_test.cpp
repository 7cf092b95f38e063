// SPDX-License-Identifier: Apache-2.0
#include "comms/task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <fstream>
#include <string>

#include "comms/error.h"

namespace rollcall {
namespace {

using testing::HasSubstr;
using testing::Not;

constexpr char kRow[] = R"({"messages":[{"role":"user","content":"hi"}]})";

class ReadTasks : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = (std::filesystem::temp_directory_path() / "tasks-XXXXXX").string();
    folder_ = ::mkdtemp(pattern.data());
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::vector<Task> read(const std::string& text) {
    const auto file = folder_ / "data.jsonl";
    std::ofstream(file, std::ios::binary) << text;
    return read_tasks(file);
  }
  std::string complaint(const std::string& text) {
    try {
      read(text);
    } catch (const Error& error) {
      EXPECT_EQ(error.exit_code(), ExitCode::kBadInput);
      return error.what();
    }
    return "accepted";
  }
  std::string messages_complaint(const std::string& messages) {
    return complaint("{\"messages\":" + messages + "}");
  }

  std::filesystem::path folder_;
};

TEST_F(ReadTasks, KeepsTheRowVerbatimAndTheOrderOfKeys) {
  const std::string row =
      R"({"z": 1.50, "messages": [ {"role":"developer","content":"b"}, {"role":"user","content":"c","a":0}],)"
      R"( "tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"z":1,"a":2}}}]})";
  const auto tasks = read(row + "\n");
  ASSERT_EQ(tasks.size(), 1U);
  EXPECT_EQ(tasks[0].row, 0);
  EXPECT_EQ(tasks[0].item, row);
  EXPECT_EQ(tasks[0].messages,
            R"([{"role":"developer","content":"b"},{"role":"user","content":"c","a":0}])");
  EXPECT_EQ(
      tasks[0].tools,
      R"([{"type":"function","function":{"name":"f","description":"d","parameters":{"z":1,"a":2}}}])");
}

TEST_F(ReadTasks, CountsRowsOverNonEmptyLines) {
  const auto tasks =
      read(std::string("\xEF\xBB\xBF") + kRow + "\r\n\r\n  \n\t" + kRow + " \r\n" + kRow);
  ASSERT_EQ(tasks.size(), 3U);
  for (std::int64_t row = 0; row < 3; ++row) {
    EXPECT_EQ(tasks[row].row, row);
    EXPECT_EQ(tasks[row].item, kRow);
    EXPECT_EQ(tasks[row].tools, "[]");
  }
  EXPECT_EQ(tasks[0].line, 1);
  EXPECT_EQ(tasks[1].line, 4);
}

TEST_F(ReadTasks, SummarizesADatasetWithoutReadingItsRows) {
  const auto file = folder_ / "data.jsonl";
  const auto summary = [&](const std::string& text) {
    std::ofstream(file, std::ios::binary) << text;
    return summarize_dataset(file);
  };
  const std::string other = R"({"messages":[{"role":"user","content":"ho"}]})";
  const DatasetSummary two = summary(std::string(kRow) + "\n" + other + "\n");
  EXPECT_EQ(two.rows, 2);
  const DatasetSummary spaced = summary("\n " + std::string(kRow) + "\r\n\n" + other);
  EXPECT_EQ(spaced.rows, 2);
  EXPECT_EQ(spaced.xxh3, two.xxh3) << "blanks are no contents";
  EXPECT_NE(summary(other + "\n" + kRow).xxh3, two.xxh3) << "the order is";
  EXPECT_EQ(summary("").rows, 0);
  EXPECT_THROW(summarize_dataset(folder_ / "absent"), Error);
}

TEST_F(ReadTasks, ReadsHugeLines) {
  const std::string text(8 << 20, 'x');
  const auto tasks =
      read(R"({"messages":[{"role":"user","content":")" + text + "\"}]}\n" + kRow + "\n");
  ASSERT_EQ(tasks.size(), 2U);
  EXPECT_GT(tasks[0].messages.size(), text.size());
}

TEST_F(ReadTasks, NamesFileLineAndReason) {
  EXPECT_THAT(complaint(std::string(kRow) + "\n\nnonsense\n"), HasSubstr("data.jsonl:3: not JSON"));
  EXPECT_THAT(complaint("[1]"), HasSubstr(":1: not a JSON object"));
  EXPECT_THAT(complaint(std::string(kRow) + kRow), HasSubstr("not JSON"));
  EXPECT_THAT(complaint("{\"messages\":[{\"role\":\"user\",\"content\":\"\xFF\"}]}"),
              HasSubstr("not JSON"));
  EXPECT_THAT(complaint(R"({"x":1e999})"), HasSubstr("a number is out of range"));
}

TEST_F(ReadTasks, RefusesARowCutShortAtEveryByte) {
  const std::string row(kRow);
  for (std::size_t size = 1; size < row.size(); ++size) {
    EXPECT_THAT(complaint(row.substr(0, size)), HasSubstr(":1: not JSON")) << size;
  }
}

TEST_F(ReadTasks, RefusesOrReadsARowChangedAtEveryByte) {
  const std::string row(kRow);
  for (std::size_t at = 0; at < row.size(); ++at) {
    for (const char flip : {'\x01', '\x10', '\x20', '\x80'}) {
      std::string changed = row;
      changed[at] ^= flip;
      EXPECT_NE(complaint(changed), "") << at;  // an Error of the input, or none
    }
  }
}

TEST_F(ReadTasks, RefusesBadMessages) {
  EXPECT_THAT(complaint("{}"), HasSubstr("no 'messages'"));
  EXPECT_THAT(messages_complaint("[]"), HasSubstr("at least one message"));
  EXPECT_THAT(messages_complaint("{}"), HasSubstr("at least one message"));
  EXPECT_THAT(messages_complaint("[1]"), HasSubstr("messages[0] is not an object"));
  EXPECT_THAT(messages_complaint(R"([{"content":"x"}])"), HasSubstr("messages[0] has no 'role'"));
  EXPECT_THAT(messages_complaint(R"([{"role":"","content":"x"}])"), HasSubstr("no 'role'"));
  EXPECT_THAT(messages_complaint(R"([{"role":"user"}])"), HasSubstr("no 'content'"));
  EXPECT_THAT(messages_complaint(R"([{"role":"user","content":null}])"), HasSubstr("no 'content'"));
  EXPECT_THAT(messages_complaint(R"([{"role":"system","content":"x"}])"),
              HasSubstr("not from 'user'"));
}

TEST_F(ReadTasks, AcceptsAToolCallWithoutContent) {
  EXPECT_EQ(messages_complaint(R"([{"role":"assistant","content":null,"tool_calls":[{"id":"1"}]},)"
                               R"({"role":"tool","content":"y"},{"role":"user","content":[]}])"),
            "accepted");
}

TEST_F(ReadTasks, RefusesToolsThatAreNotNamedFunctions) {
  const auto with_tools = [&](const std::string& tools) {
    return complaint(std::string(R"({"messages":[{"role":"user","content":"hi"}],"tools":)") +
                     tools + "}");
  };
  EXPECT_EQ(with_tools("null"), "accepted");
  EXPECT_EQ(with_tools("[]"), "accepted");
  EXPECT_THAT(with_tools("{}"), HasSubstr("'tools' is not a list"));
  for (const char* tools :
       {"[1]", R"([{"type":"function"}])", R"([{"type":"function","function":{"name":""}}])",
        R"([{"type":"web","function":{"name":"f"}}])", R"([{"type":"function","function":[]}])"}) {
    EXPECT_THAT(with_tools(tools), HasSubstr("tools[0] is not")) << tools;
  }
}

TEST_F(ReadTasks, RefusesDeepNestingInsteadOfOverflowingTheStack) {
  const std::string deep(1 << 20, '[');
  EXPECT_THAT(complaint("{\"messages\":" + deep), HasSubstr("nested deeper"));
}

TEST_F(ReadTasks, ReportsAtMostTenRows) {
  std::string text;
  for (int i = 0; i < 13; ++i) text += "x\n";
  const std::string what = complaint(text);
  EXPECT_THAT(what, HasSubstr(":10: not JSON"));
  EXPECT_THAT(what, Not(HasSubstr(":11:")));
  EXPECT_THAT(what, HasSubstr("and 3 more"));
}

TEST_F(ReadTasks, RefusesMissingAndEmptyFiles) {
  EXPECT_THROW(read_tasks(folder_ / "absent"), Error);
  EXPECT_THROW(read_tasks(folder_), Error);
  EXPECT_THAT(complaint("\n\n"), HasSubstr("has no rows"));
}

}  // namespace
}  // namespace rollcall
