// SPDX-License-Identifier: Apache-2.0
#include "rollcall/model_text_commands.h"

#include <gtest/gtest.h>

#include <random>
#include <sstream>

#include "comms/error.h"
#include "tests/unit/text_golden.h"

namespace rollcall {
namespace {

using nlohmann::ordered_json;
using Command = int (*)(const std::filesystem::path&, const std::filesystem::path&, std::ostream&);

class ModelTextCommands : public testing::Test {
 protected:
  ModelTextCommands()
      : dir_(std::filesystem::temp_directory_path() /
             ("rollcall-" + std::to_string(std::random_device{}()))) {
    std::filesystem::create_directories(dir_);
    std::filesystem::copy_file(golden_path("tokenizers/tiny-qwen3/tokenizer.json"),
                               dir_ / "tokenizer.json");
    std::filesystem::copy_file(golden_path("chat/templates/qwen3.jinja"),
                               dir_ / "chat_template.jinja");
  }
  ~ModelTextCommands() override { std::filesystem::remove_all(dir_); }

  std::vector<ordered_json> answers(Command command, const std::string& lines) {
    write_text(dir_ / "in.jsonl", lines);
    std::stringstream out;
    EXPECT_EQ(command(dir_, dir_ / "in.jsonl", out), 0);
    std::vector<ordered_json> rows;
    for (std::string line; std::getline(out, line);) rows.push_back(ordered_json::parse(line));
    return rows;
  }

  std::filesystem::path dir_;
};

TEST_F(ModelTextCommands, TokenizeEncodesAndDecodes) {
  const auto rows = answers(run_model_tokenize,
                            "{\"id\":\"a\",\"text\":\"!<|im_end|>\"}\n\n"
                            "{\"id\":\"b\",\"ids\":[0,354],\"skip_special_tokens\":true}\n"
                            "{\"id\":\"c\",\"text\":\"<\",\"match_added_tokens\":false}\n");
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].dump(), R"({"id":"a","ids":[0,354],"text":"!<|im_end|>"})");
  EXPECT_EQ(rows[1].dump(), R"({"id":"b","text":"!"})");
  EXPECT_EQ(rows[2]["text"], "<");
}

TEST_F(ModelTextCommands, RenderGivesTextIdsAndDeltas) {
  const auto rows = answers(
      run_model_render,
      R"({"id":"a","messages":[{"role":"user","content":"q"},{"role":"assistant","content":"a"},{"role":"user","content":"r"}]})");
  ASSERT_EQ(rows.size(), 1u);
  EXPECT_EQ(rows[0]["deltas"][0]["after_message"], 1);
  EXPECT_EQ(rows[0]["deltas"][0]["text"],
            "\n<|im_start|>user\nr<|im_end|>\n<|im_start|>assistant\n");
}

TEST_F(ModelTextCommands, ParseKeepsOneLineForPrettyJson) {
  const auto rows = answers(
      run_model_parse,
      R"({"id":1,"text":"<tool_call>{\"name\":\"f\",\n\"arguments\":{\n\"x\":1}}</tool_call><|im_end|>"})"
      "\n"
      R"({"id":2,"text":"<tool_call>","format":"hermes"})");
  ASSERT_EQ(rows.size(), 2u);
  EXPECT_EQ(rows[0]["calls"].dump(), R"([{"name":"f","arguments":{"x":1}}])");
  EXPECT_TRUE(rows[0]["error"].is_null());
  EXPECT_EQ(rows[1]["error"]["kind"], "unclosed");
}

TEST_F(ModelTextCommands, AnswerBadLinesAndGoOn) {
  for (const Command command : {run_model_tokenize, run_model_render, run_model_parse}) {
    const auto rows = answers(command,
                              "{\n[]\n{\"id\":\"x\"}\n{\"id\":\"y\",\"text\":7,\"messages\":7}\n"
                              "{\"id\":\"z\",\"ids\":[9999999999],\"text\":[],\"messages\":[1]}\n");
    ASSERT_EQ(rows.size(), 5u);
    for (const auto& row : rows) EXPECT_TRUE(row["error"].contains("kind")) << row;
    EXPECT_EQ(rows[2]["id"], "x");
  }
}

TEST_F(ModelTextCommands, ThrowForFilesThatAreNotThere) {
  std::stringstream out;
  EXPECT_THROW(run_model_tokenize(dir_, dir_ / "absent.jsonl", out), Error);
  EXPECT_THROW(run_model_render(dir_ / "absent", dir_ / "in.jsonl", out), Error);
}

}  // namespace
}  // namespace rollcall
