# SPDX-License-Identifier: Apache-2.0
"""The bundled example: its data, its books and its server. Standard library only."""

import concurrent.futures
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest

EXAMPLE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "examples", "ledger")
sys.path.insert(0, EXAMPLE)

import ledger  # noqa: E402
import make_data  # noqa: E402
import server  # noqa: E402
from drills import drill  # noqa: E402

VALID = [make_data.make_task("valid", i, 7) for i in range(200)]
TRAIN = [make_data.make_task("train", i, 7) for i in range(1000)]
NO_CARE = {"invoice": 0.0, "amount": 0.0, "next": 0.0, "receipt": 0.0}


def write_data(folder, *options):
    argv, sys.argv = sys.argv, ["make_data.py", "--out", folder, *options]
    try:
        make_data.main()
    finally:
        sys.argv = argv


def read(folder, name):
    with open(os.path.join(folder, name), "rb") as file:
        return file.read()


def mean_score(policy, tasks):
    """The mean score of a policy: a function of a task and fresh books."""
    total = 0.0
    for task in tasks:
        books = ledger.Ledger(task)
        policy(task, books)
        total += ledger.grade(books, task)["score"]
    return total / len(tasks)


class DataTest(unittest.TestCase):
    def test_held_out_tasks_share_no_name_and_no_seed_with_the_others(self):
        demos = [make_data.make_task("demos", i, 7) for i in range(1000)]
        for key in ("name", "ledger_seed"):
            held_out = {task[key] for task in VALID}
            self.assertFalse(held_out & {task[key] for task in TRAIN + demos}, key)

    def test_drills_hold_no_held_out_name(self):
        names = " ".join(json.dumps(drill(i, 7, lambda p: not make_data.held_out(p))) for i in range(2000))
        self.assertFalse([task["name"] for task in VALID if task["name"] in names])

    def test_every_syllable_of_a_held_out_name_is_known(self):
        seen = " ".join(task["name"] for task in TRAIN)
        for syllable in (syllable for part in ledger.SYLLABLES for syllable in part):
            self.assertIn(syllable, seen)

    def test_same_seed_gives_the_same_bytes(self):
        sizes = ("--train", "20", "--valid", "10", "--demos", "20", "--drills", "20")
        with tempfile.TemporaryDirectory() as one, tempfile.TemporaryDirectory() as two:
            write_data(one, *sizes)
            write_data(two, *sizes)
            for name in ("train.jsonl", "valid.jsonl", "demos.jsonl", "drills.jsonl"):
                self.assertEqual(read(one, name), read(two, name))

    def test_a_row_ends_with_the_user_and_names_its_tools(self):
        row = make_data.make_row(VALID[0])
        self.assertEqual(row["messages"][-1]["role"], "user")
        self.assertEqual([tool["function"]["name"] for tool in row["tools"]], list(ledger.TOOL_ARGUMENTS))

    def test_demonstrations_make_no_tool_error(self):
        for i in range(200):
            row = make_data.demonstration(i, 7)
            self.assertNotIn("error", json.dumps(row["messages"]))
            self.assertEqual(row["messages"][-1], {"role": "assistant", "content": "Done."})

    def test_no_task_asks_for_care(self):
        rows = [make_data.make_row(task) for task in TRAIN + VALID]
        self.assertNotIn("arefully", json.dumps(rows))

    def test_demonstrations_are_sloppy_as_announced(self):
        dice = random.Random(1)
        tasks = [make_data.make_task("demos", i, 7) for i in range(2000)]
        scores = [
            ledger.grade(make_data.demonstrate(task, make_data.CARE, dice)[1], task)["score"] for task in tasks
        ]
        self.assertTrue(0.02 < sum(scores) / len(scores) < 0.10, sum(scores) / len(scores))


class RecipeTest(unittest.TestCase):
    def run_script(self, *words):
        return subprocess.run(words, capture_output=True, text=True, timeout=60, cwd=tempfile.gettempdir())

    def test_help_needs_no_package(self):
        without_packages = (sys.executable, "-S", "-I", os.path.join(EXAMPLE, "make_model.py"), "--help")
        for words in (without_packages, ("bash", os.path.join(EXAMPLE, "recipe.sh"), "--help")):
            done = self.run_script(*words)
            self.assertEqual((done.returncode, done.stderr), (0, ""), words)
            self.assertIn("tokenizers", done.stdout)

    def test_missing_arguments_are_told(self):
        done = self.run_script("bash", os.path.join(EXAMPLE, "recipe.sh"))
        self.assertEqual(done.returncode, 2)
        self.assertIn("recipe.sh ROLLCALL PYTHON", done.stderr)
        done = self.run_script("bash", os.path.join(EXAMPLE, "recipe.sh"), "/absent/rollcall", sys.executable)
        self.assertEqual(done.returncode, 2)
        self.assertIn("/absent/rollcall", done.stderr)


class PolicyTest(unittest.TestCase):
    def test_a_faultless_clerk_always_wins(self):
        for task in TRAIN + VALID:
            books = make_data.demonstrate(task, {}, random.Random(1))[1]
            self.assertEqual(ledger.grade(books, task)["score"], 1.0)

    def test_each_single_mistake_loses(self):
        for mistake in NO_CARE:
            tasks = [task for task in VALID if mistake != "receipt" or task["receipt"]]
            for task in tasks:
                books = make_data.demonstrate(task, {mistake: 0.0}, random.Random(1))[1]
                self.assertEqual(ledger.grade(books, task)["score"], 0.0, (mistake, task))

    def test_doing_nothing_loses(self):
        self.assertEqual(mean_score(lambda task, books: None, VALID), 0.0)

    def test_no_fixed_row_and_no_fixed_receipt_rule_wins_often(self):
        def fixed(index, receipt):
            def policy(task, books):
                row = books.invoices[index % len(books.invoices)]
                books.pay_invoice(row["id"], row["amount"])
                if receipt:
                    books.send_receipt(books.customer, row["id"])

            return policy

        for index in range(4):
            for receipt in (False, True):
                self.assertLess(mean_score(fixed(index, receipt), VALID), 0.35)

    def test_one_status_for_all_tasks_wins_under_half(self):
        def always(status):
            def policy(task, books):
                for row in [row for row in books.invoices if row["status"] == status]:
                    books.pay_invoice(row["id"], row["amount"])
                    if task["receipt"]:
                        books.send_receipt(books.customer, row["id"])

            return policy

        for status in ledger.STATUSES:
            self.assertLess(mean_score(always(status), VALID), 0.5)

    def test_one_answer_for_all_tasks_never_wins(self):
        def fixed(task, books):
            for row in ledger.Ledger(VALID[0]).invoices:
                try:
                    books.pay_invoice(row["id"], row["amount"])
                except ledger.LedgerError:
                    pass

        self.assertEqual(mean_score(fixed, VALID[1:]), 0.0)

    def test_paying_everything_loses(self):
        def pay_all(task, books):
            for row in books.invoices:
                books.pay_invoice(row["id"], row["amount"])

        self.assertEqual(mean_score(pay_all, VALID), 0.0)

    def test_paying_twice_loses(self):
        def twice(task, books):
            wanted = ledger.wanted_invoice(task)
            for _ in range(2):
                books.pay_invoice(wanted["id"], wanted["amount"])

        self.assertEqual(mean_score(twice, VALID), 0.0)

    def test_a_paid_invoice_shows_as_paid(self):
        books = ledger.Ledger(VALID[0])
        row = ledger.wanted_invoice(VALID[0])
        books.pay_invoice(row["id"], row["amount"])
        shown = {invoice: status for status, invoice, _ in books.list_invoices(books.customer)}
        self.assertEqual(shown[row["id"]], "paid")


class Client:
    """One keep-alive connection to the server under test."""

    def __init__(self, port):
        self.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)

    def raw(self, method, path, body=None, headers=None):
        self.connection.request(method, path, body, headers or {})
        reply = self.connection.getresponse()
        return reply.status, reply.read()

    def post(self, path, value, headers=None):
        status, body = self.raw("POST", path, json.dumps(value), headers)
        return status, json.loads(body)

    def call(self, trace, item, tool, headers=None, **arguments):
        request = {
            "type": "function_call",
            "id": "fc_1",
            "call_id": "call_1",
            "name": tool,
            "arguments": json.dumps(arguments),
            "trace_id": trace,
            "item": item,
        }
        return self.post("/call", request, headers)

    def output(self, *request, **arguments):
        return json.loads(self.call(*request, **arguments)[1]["output"])

    def grade(self, trace, item, headers=None):
        return self.post("/grade", {"sample": {}, "item": item, "trace_id": trace}, headers)[1]

    def solve(self, trace, item):
        """Plays the task through without a mistake and returns the score."""
        customer = self.output(trace, item, "find_customer", name=item["name"])["customer"]
        rows = self.output(trace, item, "list_invoices", customer=customer)
        invoice, amount = next(row[1:] for row in rows if row[0] == item["status"])
        self.output(trace, item, "pay_invoice", invoice=invoice, amount=amount)
        if item["receipt"]:
            self.output(trace, item, "send_receipt", customer=customer, invoice=invoice)
        return self.grade(trace, item)["score"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.connection.close()


class ServerTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.server = cls.start()
        cls.port = cls.server.server_port

    @classmethod
    def start(cls, **options):
        started = server.LedgerServer(("127.0.0.1", 0), **options)
        threading.Thread(target=started.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        cls.addClassCleanup(started.server_close)
        cls.addClassCleanup(started.shutdown)
        return started

    def setUp(self):
        self.client = Client(self.port)
        self.addCleanup(self.client.connection.close)
        self.item = VALID[0]
        self.trace = f"trace_{self.id()}"

    def test_health(self):
        self.assertEqual(self.client.raw("GET", "/health"), (200, b'{"status":"ok"}'))

    def test_a_faultless_rollout_scores_one(self):
        for number, task in enumerate(VALID[:20]):
            row = make_data.make_row(task)
            self.assertEqual(self.client.solve(f"{self.trace}/{number}", row), 1.0)

    def test_a_reply_has_the_shape_of_the_protocol(self):
        status, reply = self.client.call(self.trace, self.item, "find_customer", name=self.item["name"])
        self.assertEqual(status, 200)
        self.assertEqual(set(reply), {"type", "id", "call_id", "output"})
        self.assertEqual((reply["type"], reply["id"], reply["call_id"]), ("function_call_output", "fc_1", "call_1"))

    def test_grading_without_acting_scores_zero_and_says_why(self):
        reply = self.client.grade(self.trace, self.item)
        self.assertEqual(reply["score"], 0.0)
        self.assertIn("invoice", reply["explanation"])

    def test_traces_do_not_see_each_other(self):
        row = ledger.wanted_invoice(self.item)
        paid = {"invoice": row["id"], "amount": row["amount"]}
        item = dict(self.item, receipt=False)
        self.client.call(self.trace + "a", item, "pay_invoice", **paid)
        self.assertEqual(self.client.grade(self.trace + "a", item)["score"], 1.0)
        self.assertEqual(self.client.grade(self.trace + "b", item)["score"], 0.0)

    def test_a_repeated_key_replays_the_reply_and_acts_once(self):
        row = ledger.wanted_invoice(self.item)
        key = {"Idempotency-Key": f"{self.trace}:call_1"}
        item = dict(self.item, receipt=False)
        arguments = {"invoice": row["id"], "amount": row["amount"]}
        replies = [self.client.call(self.trace, item, "pay_invoice", key, **arguments) for _ in range(3)]
        self.assertEqual(replies[0], replies[1])
        self.assertEqual(replies[0], replies[2])
        self.assertEqual(self.client.grade(self.trace, item)["score"], 1.0)

    def test_a_repeated_key_replays_a_refusal_too(self):
        key = {"Idempotency-Key": f"{self.trace}:call_1"}
        replies = [self.client.call(self.trace, self.item, "pay_invoice", key, invoice="X") for _ in range(2)]
        self.assertEqual(replies[0][0], 400)
        self.assertEqual(replies[0], replies[1])

    def test_a_key_with_another_body_is_refused(self):
        key = {"Idempotency-Key": f"{self.trace}:call_1"}
        self.client.call(self.trace, self.item, "find_customer", key, name="A")
        status, reply = self.client.call(self.trace, self.item, "find_customer", key, name="B")
        self.assertEqual(status, 422)
        self.assertEqual(reply["error"]["type"], "idempotency_key_reused")

    def test_a_mistaken_call_gets_a_readable_refusal_and_changes_nothing(self):
        bad_calls = [
            ("find_customer", {"name": "Nobody"}, 404),
            ("find_customer", {"name": 7}, 400),
            ("list_invoices", {"customer": "C00"}, 404),
            ("list_invoices", {}, 400),
            ("pay_invoice", {"invoice": "B00", "amount": 5}, 404),
            ("send_receipt", {"customer": "C00", "invoice": "B00"}, 404),
            ("delete_all", {}, 404),
            ("__init__", {}, 404),
            ("list_all", {}, 404),
        ]
        row = ledger.wanted_invoice(self.item)
        bad_calls += [
            ("pay_invoice", {"invoice": row["id"], "amount": amount}, 400)
            for amount in (0, -1, 1.5, True, "12", None, 10**12, float("nan"))
        ]
        for tool, arguments, expected in bad_calls:
            status, reply = self.client.call(self.trace, self.item, tool, **arguments)
            self.assertEqual(status, expected, (tool, arguments))
            self.assertTrue(reply["error"]["message"])
        self.assertEqual(self.client.grade(self.trace, self.item)["sub_rewards"]["invoice"], 0.0)

    def test_garbage_never_crashes_it(self):
        bodies = [b"", b"{", b"null", b"[]", b'"x"', b"\xff\xfe", b"[" * 100000, b'{"trace_id":1}', b"{}"]
        bodies += [b'{"trace_id":"t","item":%s}' % item for item in (b"null", b"[]", b"{}", b'{"name":1}')]
        bodies += [
            json.dumps({"trace_id": "t9", "item": self.item, "name": name, "arguments": arguments}).encode()
            for name in ([], None, "find_customer")
            for arguments in (None, 3, "[", "[]", "[" * 100000, '{"name":"\\ud800"}')
        ]
        bodies += [json.dumps({"trace_id": "tA", "item": dict(self.item, name="\ud800")}).encode()]
        for path in ("/call", "/grade"):
            for body in bodies:
                status, reply = self.client.raw("POST", path, body)
                self.assertTrue(400 <= status < 500 or path == "/grade", (path, body[:60], status))
                self.assertIsInstance(json.loads(reply), dict)
        self.assertEqual(self.client.raw("GET", "/health")[0], 200)

    def test_a_request_cut_short_at_any_byte_harms_nobody(self):
        body = json.dumps({"trace_id": "t", "item": self.item, "name": "find_customer", "arguments": "{}"})
        request = f"POST /call HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode()
        for length in range(0, len(request), 7):
            with socket.create_connection(("127.0.0.1", self.port)) as connection:
                connection.sendall(request[:length])
        self.assertEqual(self.client.raw("GET", "/health")[0], 200)

    def test_a_body_over_one_megabyte_is_refused(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        self.addCleanup(connection.close)
        connection.putrequest("POST", "/call")
        connection.putheader("Content-Length", str(server.MAX_BODY + 1))
        connection.endheaders()
        self.assertEqual(connection.getresponse().status, 413)

    def test_a_body_without_a_sane_length_is_refused(self):
        for length in ("-1", "x", "1e3", "²", "9" * 5000):
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
            self.addCleanup(connection.close)
            connection.putrequest("POST", "/call")
            connection.putheader("Content-Length", length.encode("latin-1"))
            connection.endheaders()
            self.assertIn(connection.getresponse().status, (411, 413))

    def test_unknown_paths_and_methods_are_refused(self):
        self.assertEqual(self.client.raw("GET", "/call")[0], 404)
        self.assertEqual(self.client.raw("POST", "/other", b"{}")[0], 404)
        self.assertEqual(self.client.raw("PUT", "/call")[0], 501)

    def test_the_split_makes_no_difference(self):
        def replies(split):
            headers = {"X-Rft-Split": split}
            trace = self.trace + split
            found = self.client.call(trace, self.item, "find_customer", headers, name=self.item["name"])
            customer = json.loads(found[1]["output"])["customer"]
            listed = self.client.call(trace, self.item, "list_invoices", headers, customer=customer)
            return found, listed, self.client.grade(trace, self.item, headers)

        self.assertEqual(replies("train"), replies("valid"))

    def test_the_source_knows_no_split_and_no_data_set(self):
        for name in ("server.py", "ledger.py"):
            source = read(EXAMPLE, name).decode().lower()
            for word in ("x-rft-split", "valid.jsonl", "train.jsonl", "held_out", "make_data", "first_seed"):
                self.assertNotIn(word, source, name)

    def test_two_hundred_traces_at_once(self):
        def play(number):
            with Client(self.port) as client:
                return client.solve(f"{self.trace}/{number}", TRAIN[number])

        with concurrent.futures.ThreadPoolExecutor(200) as pool:
            self.assertEqual(set(pool.map(play, range(200))), {1.0})

    def test_faults_hit_their_share_and_a_retry_acts_once(self):
        faulty = Client(self.start(fault_rate=0.3).server_port)
        self.addCleanup(faulty.connection.close)
        item = dict(self.item, receipt=False)
        row = ledger.wanted_invoice(item)
        faults = 0

        def until_answered(key, send):
            nonlocal faults
            for retry in range(50):
                status, reply = send({"Idempotency-Key": key, "X-Rft-Retry": str(retry)})
                if status == 200:
                    return reply
                self.assertEqual(status, 500)
                faults += 1

        for number in range(100):
            trace = f"{self.trace}/{number}"
            pay = {"invoice": row["id"], "amount": row["amount"]}
            grading = {"item": item, "trace_id": trace}
            until_answered(f"{trace}:1", lambda headers: faulty.call(trace, item, "pay_invoice", headers, **pay))
            graded = until_answered(f"{trace}:grade", lambda headers: faulty.post("/grade", grading, headers))
            self.assertEqual(graded["score"], 1.0)
        self.assertTrue(45 < faults < 150, faults)

    def test_latency_is_waited(self):
        slow = Client(self.start(latency_ms=30).server_port)
        self.addCleanup(slow.connection.close)
        begin = time.monotonic()
        slow.grade(self.trace, self.item)
        self.assertGreaterEqual(time.monotonic() - begin, 0.03)


class SessionsTest(unittest.TestCase):
    def test_books_and_replies_are_dropped_after_their_time(self):
        now = [0.0]
        sessions = server.Sessions(ttl=100, clock=lambda: now[0])
        item = dict(VALID[0], receipt=False)
        row = ledger.wanted_invoice(item)
        arguments = json.dumps({"invoice": row["id"], "amount": row["amount"]})
        request = {"trace_id": "t", "item": item, "name": "pay_invoice", "arguments": arguments}
        grading = json.dumps({"trace_id": "t", "item": item}).encode()
        sessions.answer("/call", json.dumps(request).encode(), "t:call_1")
        now[0] = 99.0
        self.assertEqual(sessions.answer("/grade", grading, None)[1]["score"], 1.0)
        now[0] = 300.0
        self.assertEqual(sessions.answer("/grade", grading, None)[1]["score"], 0.0)


if __name__ == "__main__":
    unittest.main()
