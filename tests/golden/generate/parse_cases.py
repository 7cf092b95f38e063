# SPDX-License-Identifier: Apache-2.0
"""Model outputs and the tool calls that must be read from them. See the README for the rules.

Each row: (key, format, text, outcome...). Several outcomes mean that any of them is acceptable.
"""


def ok(calls, content=""):
    return {"calls": [{"name": n, "arguments": g} for n, g in calls], "error": None, "content": content}


def bad(kind, content=""):
    return {"calls": [], "error": kind, "content": content}


def call(body):
    return f"<tool_call>\n{body}\n</tool_call>"


W = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'
OSLO = ("get_weather", {"city": "Oslo"})
H = "hermes"
L = "llama3_json"

CASES = [
    ("plain", H, "It is 4 degrees.", ok([], "It is 4 degrees.")),
    ("empty", H, "", ok([])),
    ("one", H, call(W), ok([OSLO])),
    ("one-with-stop", H, call(W) + "<|im_end|>", ok([OSLO])),
    ("no-newlines", H, f"<tool_call>{W}</tool_call>", ok([OSLO])),
    ("wide-space", H, f"<tool_call>\n\n   {W}  \n\n</tool_call>", ok([OSLO])),
    ("text-before", H, "Let me look.\n" + call(W), ok([OSLO], "Let me look.\n")),
    ("text-after", H, call(W) + "\nDone.", ok([OSLO])),
    ("two", H, call(W) + "\n" + call('{"name": "now", "arguments": {}}'), ok([OSLO, ("now", {})])),
    ("same-twice", H, call(W) + call(W), ok([OSLO, OSLO])),
    ("key-order", H, call('{"arguments": {"city": "Oslo"}, "name": "get_weather"}'), ok([OSLO])),
    ("extra-key", H, call('{"id": "x1", "name": "now", "arguments": {}}'), ok([("now", {})])),
    ("nested", H, call('{"name": "f", "arguments": {"a": {"b": [1, 2.5, null, true, {"c": "}"}]}, "s": "{\\"x\\": 1}"}}'), ok([("f", {"a": {"b": [1, 2.5, None, True, {"c": "}"}]}, "s": '{"x": 1}'})])),
    ("pretty", H, call('{\n  "name": "f",\n  "arguments": {\n    "x": 1\n  }\n}'), ok([("f", {"x": 1})])),
    ("unicode", H, call('{"name": "say", "arguments": {"t": "\\u00fcber \\ud83d\\ude00 日本"}}'), ok([("say", {"t": "über 😀 日本"})])),
    ("think-then-call", H, "<think>\nI need the weather.\n</think>\n\n" + call(W), ok([OSLO], "\n\n")),
    ("call-inside-think", H, "<think>\nmaybe " + call('{"name": "rm", "arguments": {}}') + "\n</think>\n\nNo call needed.", ok([], "\n\nNo call needed.")),
    ("think-mentions-tag", H, "<think>use <tool_call>?</think>" + call(W), ok([OSLO])),
    ("prefilled-think", H, "thought without an opening tag\n</think>\n\n" + call(W), ok([OSLO], "\n\n")),
    ("two-think-ends", H, "<think>a</think>b</think>" + call(W), ok([OSLO])),
    ("unclosed-think", H, "<think>\nI will call " + call(W), ok([]), bad("unclosed_think")),
    ("unclosed-complete", H, "<tool_call>\n" + W, ok([OSLO]), bad("unclosed")),
    ("unclosed-cut", H, '<tool_call>\n{"name": "get_weather", "argum', bad("unclosed"), bad("invalid_json")),
    ("second-cut", H, call(W) + '\n<tool_call>\n{"name": "now', bad("unclosed"), bad("invalid_json")),
    ("raw-newline", H, call('{"name": "say", "arguments": {"t": "line one\nline two"}}'), bad("invalid_json")),
    ("raw-tab", H, call('{"name": "say", "arguments": {"t": "a\tb"}}'), bad("invalid_json")),
    ("missing-brace", H, call('{"name": "get_weather", "arguments": {"city": "Oslo"}'), bad("invalid_json")),
    ("extra-brace", H, call(W + "}"), bad("invalid_json")),
    ("trailing-text", H, call(W + "\nThis gets the weather."), bad("invalid_json")),
    ("leading-text", H, call("call: " + W), bad("invalid_json")),
    ("two-objects-in-one", H, call(W + "\n" + W), bad("invalid_json")),
    ("unescaped-quotes", H, call('{"name": "say", "arguments": {"t": "he said "hi""}}'), bad("invalid_json")),
    ("single-quotes", H, call("{'name': 'now', 'arguments': {}}"), bad("invalid_json")),
    ("trailing-comma", H, call('{"name": "now", "arguments": {},}'), bad("invalid_json")),
    ("fenced", H, call("```json\n" + W + "\n```"), bad("invalid_json")),
    ("python-literals", H, call('{"name": "f", "arguments": {"x": True}}'), bad("invalid_json")),
    ("bad-escape", H, call('{"name": "f", "arguments": {"p": "C:\\dir"}}'), bad("invalid_json")),
    ("array", H, call("[" + W + "]"), bad("not_object")),
    ("string", H, call('"get_weather"'), bad("not_object")),
    ("missing-name", H, call('{"arguments": {"city": "Oslo"}}'), bad("missing_name")),
    ("name-not-string", H, call('{"name": 7, "arguments": {}}'), bad("missing_name"), bad("bad_name")),
    ("missing-arguments", H, call('{"name": "now"}'), bad("missing_arguments")),
    ("parameters-instead", H, call('{"name": "get_weather", "parameters": {"city": "Oslo"}}'), bad("missing_arguments")),
    ("arguments-array", H, call('{"name": "f", "arguments": [1, 2]}'), bad("bad_arguments")),
    ("arguments-null", H, call('{"name": "f", "arguments": null}'), bad("bad_arguments")),
    ("arguments-string", H, call('{"name": "get_weather", "arguments": "{\\"city\\": \\"Oslo\\"}"}'), bad("bad_arguments"), ok([OSLO])),
    ("empty-block", H, call(""), bad("invalid_json")),
    ("one-good-one-bad", H, call(W) + "\n" + call('{"name": "now", arguments: {}}'), bad("invalid_json")),
    ("bad-then-good", H, "x " + call("{}") + call(W), bad("missing_name", "x ")),
    ("tag-in-argument", H, call('{"name": "say", "arguments": {"t": "write <tool_call> and </tool_call>"}}'), bad("invalid_json"), ok([("say", {"t": "write <tool_call> and </tool_call>"})])),
    ("closing-only", H, W + "\n</tool_call>", ok([], W + "\n</tool_call>")),
    ("bare-json", H, W, ok([], W)),
    ("case-matters", H, "<TOOL_CALL>" + W + "</TOOL_CALL>", ok([], "<TOOL_CALL>" + W + "</TOOL_CALL>")),
    ("split-tag", H, "< tool_call>" + W + "</tool_call>", ok([], "< tool_call>" + W + "</tool_call>")),
    ("llama-plain", L, "It is 4 degrees.", ok([], "It is 4 degrees.")),
    ("llama-one", L, '{"name": "get_weather", "parameters": {"city": "Oslo"}}', ok([OSLO])),
    ("llama-one-stop", L, '{"name": "get_weather", "parameters": {"city": "Oslo"}}<|eot_id|>', ok([OSLO])),
    ("llama-arguments-key", L, '{"name": "get_weather", "arguments": {"city": "Oslo"}}', ok([OSLO])),
    ("llama-python-tag", L, '<|python_tag|>{"name": "get_weather", "parameters": {"city": "Oslo"}}', ok([OSLO])),
    ("llama-space", L, '\n\n {"name": "now", "parameters": {}} \n', ok([("now", {})])),
    ("llama-deep", L, '{"name": "f", "parameters": {"a": {"b": {"c": {"d": [1]}}}}}', ok([("f", {"a": {"b": {"c": {"d": [1]}}}})])),
    ("llama-cut", L, '{"name": "get_weather", "parameters": {"city"', bad("invalid_json"), bad("unclosed"), ok([], '{"name": "get_weather", "parameters": {"city"')),
    ("llama-missing-name", L, '{"parameters": {"city": "Oslo"}}', bad("missing_name"), ok([], '{"parameters": {"city": "Oslo"}}')),
    ("llama-text-before", L, 'Sure: {"name": "now", "parameters": {}}', ok([], 'Sure: {"name": "now", "parameters": {}}'), ok([("now", {})], "Sure: ")),
]
