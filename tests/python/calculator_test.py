# SPDX-License-Identifier: Apache-2.0
"""The calculator example: its problems, the calculator, the grade and the server. Standard library only."""

import http.client
import json
import os
import random
import sys
import threading
import unittest

EXAMPLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples", "smollm2_calculator")
sys.path.insert(0, EXAMPLE)

import make_data  # noqa: E402
import problems  # noqa: E402
import server  # noqa: E402

TRAIN = [make_data.make_row("train", i, 7) for i in range(500)]
VALID = [make_data.make_row("valid", i, 7) for i in range(200)]


def question(row):
    return row["messages"][-1]["content"]


class Data(unittest.TestCase):
    def test_held_out_problems_share_no_wording_and_no_number_with_training(self):
        for formula, stories in problems.TRAIN_STORIES.items():
            self.assertFalse(set(stories) & set(problems.VALID_STORIES[formula]))
        for name, (low, _) in problems.VALID_RANGES.items():
            self.assertGreater(low, problems.TRAIN_RANGES[name][1])

    def test_every_wording_names_the_numbers_it_needs_and_no_other(self):
        for stories in (problems.TRAIN_STORIES, problems.VALID_STORIES):
            for formula, texts in stories.items():
                for text in texts:
                    self.assertEqual({c for c in "abc" if f"{{{c}}}" in text}, {c for c in "abc" if f"{{{c}}}" in formula})

    def test_the_answer_is_that_of_the_expression_and_stands_in_no_prompt(self):
        for row in TRAIN + VALID:
            self.assertEqual(problems.calculate(row["expression"]), str(row["answer"]))
            self.assertNotIn(str(row["answer"]), question(row))

    def test_the_same_seed_gives_the_same_rows(self):
        self.assertEqual(make_data.make_row("valid", 3, 7), VALID[3])
        self.assertNotEqual(make_data.make_row("valid", 3, 8), VALID[3])

    def test_no_example_is_held_out_and_each_shows_an_operation(self):
        shown = [expression for _, expression in make_data.EXAMPLES]
        self.assertEqual({c for e in shown for c in e if not c.isdigit()}, set("+-*"))
        self.assertFalse(set(shown) & {row["expression"] for row in VALID})


class Calculator(unittest.TestCase):
    def test_values(self):
        for text, value in (("2+3*4", "14"), ("(2+3)*4", "20"), ("-7 - -2", "-5"), ("10/4", "2.5"), ("10/5", "2"), ("0.1+0.2", "0.3"),
                            ("1/3", "0.333333")):
            self.assertEqual(problems.calculate(text), value, text)

    def test_what_is_no_arithmetic_is_refused(self):
        texts = ("", "2+", "2**99", "__import__('os')", "a+1", "1,2", "'a'*9", "True+1", "1e999", "9" * 99 + "9", "1" * 101, "9" * 14 + "*99",
                 "1/0", "(" * 60 + "1" + ")" * 40, "1\0", "1j", "[1]", "1 if 1 else 2", None, 7)
        for text in texts:
            with self.assertRaises(problems.CalculatorError, msg=text):
                problems.calculate(text)

    def test_anything_gives_a_value_or_an_error_for_the_model(self):
        dice = random.Random(1)
        for _ in range(3000):
            text = "".join(dice.choices("0123456789+-*/(). ,ejxX_'\"\\\n", k=dice.randrange(12)))
            self.assertTrue(server.output_of(json.dumps({"expression": text})))

    def test_bad_arguments_are_values(self):
        for arguments in ("", "[]", "{}", '{"x": "1"}', '{"expression": 1}', '{"expression": "1", "y": 2}', "[" * 100_000):
            self.assertTrue(server.output_of(arguments).startswith("error: "), arguments[:50])


class Grade(unittest.TestCase):
    def score(self, text):
        return problems.grade(text, [], {"answer": 1234})["score"]

    def test_the_last_number_counts(self):
        for text in ("1234", "The answer is 1,234.", "12*3 = 1234 euros", "1234.0"):
            self.assertEqual(self.score(text), 1.0, text)
        for text in ("", "no", "1235", "1234 or 1235", "-1234", "12345", "1234.5"):
            self.assertEqual(self.score(text), 0.0, text)

    def test_an_answer_without_the_calculator_says_so(self):
        self.assertEqual(problems.grade("5", [], {"answer": 5})["sub_rewards"], {"calculated": 0.0, "found": 0.0, "answered": 1.0})
        self.assertEqual(problems.grade("5", ["5"], {"answer": 5})["sub_rewards"], {"calculated": 1.0, "found": 1.0, "answered": 1.0})


class Server(unittest.TestCase):
    def setUp(self):
        self.server = server.CalculatorServer(("127.0.0.1", 0))
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        self.connection = http.client.HTTPConnection("127.0.0.1", self.server.server_port, timeout=10)
        self.addCleanup(self.connection.close)

    def post(self, path, body):
        self.connection.request("POST", path, body if isinstance(body, str) else json.dumps(body))
        reply = self.connection.getresponse()
        return reply.status, json.loads(reply.read())

    def call(self, trace, number, expression):
        arguments = json.dumps({"expression": expression})
        return self.post("/call", {"name": "calculator", "id": f"fc_{number}", "call_id": f"call_{number}", "trace_id": trace, "arguments": arguments})

    def grade(self, trace, text):
        return self.post("/grade", {"sample": {"output_text": text}, "item": {"answer": 6}, "trace_id": trace})[1]

    def test_a_rollout(self):
        self.assertEqual(self.call("t", 1, "2*3"), (200, {"type": "function_call_output", "id": "fc_1", "call_id": "call_1", "output": "6"}))
        self.assertEqual(self.grade("t", "6")["sub_rewards"]["found"], 1.0)
        self.assertEqual(self.grade("other", "6")["sub_rewards"]["found"], 0.0)

    def test_a_retry_is_no_new_call_and_calls_are_limited(self):
        for _ in range(9):
            self.assertEqual(self.call("t", 1, "1+1")[1]["output"], "2")
        outputs = [self.call("t", n, "1+1")[1]["output"] for n in range(2, 7)]
        self.assertEqual(outputs, ["2", "2", "2", "error: no calls left", "error: no calls left"])

    def test_what_is_no_request_is_refused(self):
        for path, body in (("/call", "{"), ("/call", "[]"), ("/call", {"name": "other"}), ("/grade", {}), ("/grade", {"sample": 1, "trace_id": "t"})):
            self.assertEqual(self.post(path, body)[0], 400, body)
        self.assertEqual(self.post("/none", {})[0], 404)


if __name__ == "__main__":
    unittest.main()
