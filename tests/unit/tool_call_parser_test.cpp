// SPDX-License-Identifier: Apache-2.0
#include "model/tool_call_parser.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "model/python_json.h"
#include "tests/unit/text_golden.h"

namespace rollcall {
namespace {

using nlohmann::ordered_json;

std::string stripped(std::string text) {
  const auto first = text.find_first_not_of(" \n");
  return first == std::string::npos ? ""
                                    : text.substr(first, text.find_last_not_of(" \n") - first + 1);
}

bool agrees(const ParsedTurn& turn, const ordered_json& expected) {
  if (!expected["error"].is_null()) {
    return turn.calls.empty() && turn.error && turn.error->kind == expected["error"];
  }
  ordered_json calls = ordered_json::array();
  for (const ToolCall& call : turn.calls) {
    calls.push_back({{"name", call.name}, {"arguments", ordered_json::parse(call.arguments)}});
  }
  return !turn.error && calls == expected["calls"] &&
         stripped(turn.content) == stripped(expected["content"]);
}

std::string without_stop(std::string text) {
  for (const std::string stop : {"<|im_end|>", "<|eot_id|>"}) {
    if (text.ends_with(stop)) text.resize(text.size() - stop.size());
  }
  return text;
}

TEST(ToolCallParser, ReadsTurnsAsTheReference) {
  for (const auto& row : read_jsonl(golden_path("chat/parse.jsonl"))) {
    const auto syntax =
        row["format"] == "hermes" ? ToolCallSyntax::kHermes : ToolCallSyntax::kLlama3Json;
    const ParsedTurn turn = parse_tool_calls(syntax, without_stop(row["text"]));
    EXPECT_TRUE(std::ranges::any_of(row["expect_any"], [&](const auto& expected) {
      return agrees(turn, expected);
    })) << row["id"];
  }
}

TEST(ToolCallParser, KeepsArgumentsAsTheyWereWritten) {
  const auto turn = parse_tool_calls(
      ToolCallSyntax::kHermes,
      R"(<tool_call>{"n\u0061me": "f\n", "arguments": {"x":1.50, "y" : "}]"}, "z": [1]}</tool_call>)");
  ASSERT_EQ(turn.calls.size(), 1u);
  EXPECT_EQ(turn.calls[0].name, "f\n");
  EXPECT_EQ(turn.calls[0].arguments, R"({"x":1.50, "y" : "}]"})");
}

TEST(ToolCallParser, SaysWhereTheBadBlockBegins) {
  const auto turn =
      parse_tool_calls(ToolCallSyntax::kHermes,
                       "<tool_call>{\"name\":\"f\",\"arguments\":{}}</tool_call>\n<tool_call>");
  ASSERT_TRUE(turn.error);
  EXPECT_EQ(turn.error->kind, "unclosed");
  EXPECT_EQ(turn.error->offset, 51u);
}

TEST(ToolCallParser, TakesNoCallFromATurnWithAnOpenThought) {
  const std::string call =
      "<tool_call>{\"name\":\"f\",\"arguments\":{\"x\":\"<think>\"}}</tool_call>";
  EXPECT_EQ(parse_tool_calls(ToolCallSyntax::kHermes, call).calls.size(), 1u);
  for (const std::string& turn : {call + "<think>", "<think>" + call, call + "<think>" + call}) {
    const ParsedTurn parsed = parse_tool_calls(ToolCallSyntax::kHermes, turn);
    ASSERT_TRUE(parsed.error) << turn;
    EXPECT_EQ(parsed.error->kind, "unclosed_think");
    EXPECT_TRUE(parsed.calls.empty());
  }
}

TEST(ToolCallParser, RefusesWhatOnlyTolerantReadersTake) {
  for (const std::string& body : {std::string("{}\0", 3), std::string("\xEF\xBB\xBF{}"),
                                  std::string("{\"name\":\"f\",\"arguments\":{\"x\":NaN}}")}) {
    const auto turn =
        parse_tool_calls(ToolCallSyntax::kHermes, "<tool_call>" + body + "</tool_call>");
    ASSERT_TRUE(turn.error);
    EXPECT_EQ(turn.error->kind, "invalid_json");
  }
}

TEST(ToolCallParser, ReadsDeepNestingWithoutRecursion) {
  const std::string deep = std::string(1'000'000, '[') + std::string(1'000'000, ']');
  const auto turn = parse_tool_calls(ToolCallSyntax::kLlama3Json,
                                     R"({"name": "f", "parameters": {"x": )" + deep + "}}");
  ASSERT_EQ(turn.calls.size(), 1u);
  EXPECT_EQ(turn.calls[0].arguments.size(), 2'000'000u + 7);
}

TEST(ToolCallParser, NeverThrowsForATurnCutShortOrDamaged) {
  const std::string whole =
      "<think>\nhm\n</think>\n\nText<tool_call>\n{\"name\": \"f\", \"arguments\": {\"a\": [1, "
      "\"\\u00fc\\\\\", true]}}\n</tool_call>\n<tool_call>{\"name\": \"g\", \"arguments\": {}}";
  for (const auto syntax : {ToolCallSyntax::kHermes, ToolCallSyntax::kLlama3Json}) {
    for (std::size_t size = 0; size <= whole.size(); ++size) {
      parse_tool_calls(syntax, std::string_view(whole).substr(0, size));
      parse_tool_calls(syntax, std::string_view(whole).substr(size));
    }
  }
  std::mt19937 random(3);
  for (int round = 0; round < 5000; ++round) {
    std::string damaged = whole.substr(random() % 30);
    for (int i = 0; i < 2; ++i)
      damaged[random() % damaged.size()] = "{}[]\",:\\<>n\0\xC3"[random() % 14];
    parse_tool_calls(round % 2 ? ToolCallSyntax::kHermes : ToolCallSyntax::kLlama3Json, damaged);
  }
}

TEST(PythonJson, WritesFloatsAsRepr) {
  const ordered_json values{
      1.0,    0.1,     1e-05, 0.0001, 1e15, 1e16, 1e+22, -0.0, 123456789012345680.0,
      5e-324, 1.5e300, -2.5,  1234.5};
  EXPECT_EQ(python_json(values),
            "[1.0, 0.1, 1e-05, 0.0001, 1000000000000000.0, 1e+16, 1e+22, -0.0, "
            "1.2345678901234568e+17, 5e-324, 1.5e+300, -2.5, 1234.5]");
}

TEST(PythonJson, KeepsOrderAndEscapesOnlyWhatItMust) {
  const auto value =
      ordered_json::parse(R"({"b": "\u00fc\u2028/\"\\\u0001\u007f\t", "a": [], "c": {}})");
  EXPECT_EQ(python_json(value),
            "{\"b\": \"\u00fc\u2028/\\\"\\\\\\u0001\x7f\\t\", \"a\": [], \"c\": {}}");
  EXPECT_EQ(python_json(ordered_json::parse(R"({"a": [1, null], "b": {}})"), 4),
            "{\n    \"a\": [\n        1,\n        null\n    ],\n    \"b\": {}\n}");
}

}  // namespace
}  // namespace rollcall
