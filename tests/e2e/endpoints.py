# SPDX-License-Identifier: Apache-2.0
"""Tool server and grader of the end-to-end tests: the ledger example's, with grades that a test chooses.

The usual grade is a coin whose side follows from what the agent wrote, so every group has a training signal whatever the
model can do, and the same conversation always gets the same grade. A test may hold grading back at the n-th request, which
freezes a run in the middle of a step for as long as the test wants.
"""

import contextlib
import hashlib
import json
import socket
import sys
import threading
import time

from places import LEDGER

sys.path.insert(0, str(LEDGER))
from server import Handler, LedgerServer  # noqa: E402


def coin(request):
    """0 or 1, by the conversation alone."""
    written = json.dumps([request["sample"]["trajectory"], request["item"]["ledger_seed"]])
    return {"score": hashlib.sha256(written.encode()).digest()[0] % 2}


class TestHandler(Handler):
    def setup(self):
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self):
        self.server.connections.discard(self.connection)
        super().finish()

    def do_POST(self):
        body = self._read_body()
        self.server.count(self.path)
        if self.path == "/grade" and self.server.room is not None:
            return self._grade_if_there_is_room(body)
        self._answer(body)

    def _grade_if_there_is_room(self, body):
        if self.server.room.acquire(blocking=False):
            time.sleep(0.05)
            self.server.room.release()
            return self._answer(body)
        self.server.refused += 1
        self._send(429, b"{}", {"Retry-After": "1"})

    def _answer(self, body):
        if self.path == "/grade":
            self.server.wait_if_held()
            time.sleep(self.server.grade_waits(self.headers))
        if self.server.raw_reply is not None:
            self._send(*self.server.raw_reply)
        elif self.path == "/grade":
            self._reply(200, self.server.grade(json.loads(body)))
        elif self.server.tool_fails(self.headers):
            self._reply(500, {"error": "made to fail"})
        else:
            time.sleep(self.server.tool_waits(self.headers))
            self._reply(*self.server.sessions.answer(self.path, body, self.headers["Idempotency-Key"]))

    def _send(self, status, body, headers={}):
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


class Endpoints(LedgerServer):
    """Serves in threads of the test. `raw_reply`, a status and a body, answers everything instead. `tool_fails` tells by the
    headers of a tool call whether it gets a 500, `tool_waits` how many seconds it takes, `grade_waits` a grade request. `grade` makes the reply
    to one. Of those, `room`, a semaphore, lets so many in at once, for 50 ms each, and the others are `refused` with a 429."""

    def __init__(self, raw_reply=None, host="127.0.0.1"):
        self.raw_reply = raw_reply
        self.tool_fails = lambda headers: False
        self.tool_waits = lambda headers: 0
        self.grade_waits = lambda headers: 0
        self.grade = coin
        self.requests = {"/call": 0, "/grade": 0}
        self.connections = set()
        self.room = None
        self.refused = 0
        self._lock = threading.Lock()
        self._hold_from = None
        self._held = threading.Event()
        self._released = threading.Event()
        super().__init__((host, 0))
        self.RequestHandlerClass = TestHandler
        self._serve()

    def _serve(self):
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        self._thread.start()

    def go_down(self):
        """Refuses connections and cuts those there are; what it remembers it keeps, as a server with a database does."""
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def come_up(self):
        """On the same port."""
        self.socket = socket.socket(self.address_family, self.socket_type)
        self.server_bind()
        self.server_activate()
        self._serve()

    def wait_for_grades(self, number, seconds=60):
        """Until the run has asked for so many grades in all."""
        deadline = time.monotonic() + seconds
        while self.requests["/grade"] < number:
            if time.monotonic() > deadline:
                raise AssertionError(f"after {seconds} s the run has asked for {self.requests['/grade']} grades")
            time.sleep(0.005)

    def count(self, path):
        with self._lock:
            self.requests[path] += 1

    def hold_from(self, grade):
        """From the given grade request on, counted from now, from 1, nothing is graded until release()."""
        with self._lock:
            self._hold_from = self.requests["/grade"] + grade
            self._held.clear()
            self._released.clear()

    def wait_until_held(self, seconds=60):
        if not self._held.wait(seconds):
            raise AssertionError(f"after {seconds} s the run has asked for {self.requests['/grade']} grades")

    def release(self):
        with self._lock:
            self._hold_from = None
        self._released.set()

    def wait_if_held(self):
        with self._lock:
            held = self._hold_from is not None and self.requests["/grade"] >= self._hold_from
        if held:
            self._held.set()
            self._released.wait(120)

    def url(self, path):
        return f"http://{self.server_address[0]}:{self.server_port}{path}"

    def stop(self):
        self.release()
        self.shutdown()
        self.server_close()
