# SPDX-License-Identifier: Apache-2.0
"""Tool and grader endpoint of the ledger example: POST /call, POST /grade, GET /health.

Books live in memory, one set per trace_id, made from the item that comes with the first call and
dropped after 30 minutes without one. Only the standard library is used.
"""

import argparse
import hashlib
import json
import os
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from ledger import Ledger, LedgerError, compact, grade

MAX_BODY = 1 << 20  # bytes
TTL_SECONDS = 30 * 60
SWEEP_SECONDS = 60


class Sessions:
    """The books and stored replies of every trace. Thread-safe."""

    def __init__(self, ttl=TTL_SECONDS, clock=time.monotonic):
        self._ttl = ttl
        self._clock = clock
        self._lock = threading.Lock()
        self._ledgers = {}  # trace_id -> (ledger, last use)
        self._replies = {}  # Idempotency-Key -> (digest of the request, status, reply, time)
        self._next_sweep = clock() + SWEEP_SECONDS

    def answer(self, path, body, key):
        """The status and reply to one request: the stored ones if the key was seen before."""
        request = _parse(body)
        digest = hashlib.sha256(path.encode() + b"\n" + body).digest()
        with self._lock:
            self._sweep()
            if key in self._replies:
                return self._replay(key, digest)
            status, reply = self._act(path, request)
            if key is not None:
                self._replies[key] = (digest, status, reply, self._clock())
        return status, reply

    def _replay(self, key, digest):
        stored, status, reply, _ = self._replies[key]
        if stored != digest:
            raise LedgerError(422, "idempotency_key_reused", "the key came with another body before")
        return status, reply

    def _act(self, path, request):
        try:
            trace_id = request.get("trace_id")
            if not isinstance(trace_id, str) or not trace_id:
                raise LedgerError(400, "invalid_request", "trace_id must be a string")
            reply = self._call(trace_id, request) if path == "/call" else self._grade(trace_id, request)
            return 200, reply
        except LedgerError as error:
            return error.status, error.body()

    def _call(self, trace_id, request):
        ledger = self._ledger(trace_id, request.get("item"))
        output = ledger.call(request.get("name"), _arguments(request.get("arguments")))
        return {
            "type": "function_call_output",
            "id": request.get("id"),
            "call_id": request.get("call_id"),
            "output": compact(output),
        }

    def _grade(self, trace_id, request):
        item = request.get("item")
        return grade(self._ledger(trace_id, item), item)

    def _ledger(self, trace_id, item):
        ledger, _ = self._ledgers.get(trace_id, (None, 0))
        if ledger is None:
            ledger = Ledger(item)
        self._ledgers[trace_id] = (ledger, self._clock())
        return ledger

    def _sweep(self):
        now = self._clock()
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP_SECONDS
        for table in (self._ledgers, self._replies):
            for old in [k for k, entry in table.items() if now - entry[-1] > self._ttl]:
                del table[old]


def _parse(body):
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise LedgerError(400, "invalid_json", "the body is not JSON") from None
    if not isinstance(request, dict):
        raise LedgerError(400, "invalid_request", "the body must be a JSON object")
    return request


def _arguments(arguments):
    if not isinstance(arguments, str):
        return arguments
    try:
        return json.loads(arguments)
    except (ValueError, RecursionError):
        raise LedgerError(400, "invalid_arguments", "arguments are not JSON") from None


class Faults:
    """Decides which requests fail with a 500, for tests: the same request and retry always alike.
    Half of them are carried out first, as if the reply had been lost."""

    def __init__(self, rate):
        self._rate = rate

    def __call__(self, key, retry):
        """None, "before" or "after" the work."""
        if self._rate <= 0:
            return None
        draw = int.from_bytes(hashlib.sha256(f"{key}/{retry}".encode("utf-8", "replace")).digest()[:8], "big")
        draw /= 2**64
        if draw >= self._rate:
            return None
        return "before" if draw < self._rate / 2 else "after"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 600  # seconds an idle connection is kept

    def do_GET(self):
        if self.path == "/health":
            self._reply(200, {"status": "ok"})
        else:
            self._reply_error(LedgerError(404, "not_found", "GET /health, POST /call or POST /grade"))

    def do_POST(self):
        try:
            body = self._read_body()
            if self.path not in ("/call", "/grade"):
                raise LedgerError(404, "not_found", "POST /call or POST /grade")
            self._work(body)
        except LedgerError as error:
            self._reply_error(error)

    def _work(self, body):
        if self.server.latency:
            time.sleep(self.server.latency)
        key = self.headers.get("Idempotency-Key")
        fault = self.server.faults(key, self.headers.get("X-Rft-Retry", "0"))
        if fault != "before":
            status, reply = self.server.sessions.answer(self.path, body, key)
        if fault is not None:
            raise LedgerError(500, "fault", "made to fail by --fault-rate")
        self._reply(status, reply)

    def _read_body(self):
        length = self.headers.get("Content-Length", "")
        if not length.isascii() or not length.isdigit():
            self.close_connection = True
            raise LedgerError(411, "invalid_request", "Content-Length is required")
        if len(length) > 9 or int(length) > MAX_BODY:
            self.close_connection = True
            raise LedgerError(413, "too_large", f"a body may have {MAX_BODY} bytes")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            self.close_connection = True
            raise LedgerError(400, "invalid_request", "the body is shorter than its Content-Length")
        return body

    def _reply_error(self, error):
        self._reply(error.status, error.body())

    def _reply(self, status, value):
        body = compact(value).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self._headers_buffer.append(b"\r\n" + body)
        self.flush_headers()

    def log_message(self, *_):
        pass


class LedgerServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, address, latency_ms=0.0, fault_rate=0.0):
        self.latency = latency_ms / 1000.0
        self.faults = Faults(fault_rate)
        self.sessions = Sessions()
        super().__init__(address, Handler)

    def server_bind(self):
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = self.server_address[:2]

    def handle_error(self, request, client_address):
        """A client that goes away is no event."""


def write_port_file(path, port):
    with open(path + ".part", "w") as out:
        out.write(f"{port}\n")
    os.replace(path + ".part", path)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8077, help="0 takes any free port")
    parser.add_argument("--port-file", help="file to write the port to once the server listens")
    parser.add_argument("--latency-ms", type=float, default=0.0, help="wait before each reply")
    parser.add_argument("--fault-rate", type=float, default=0.0, help="share of requests answered 500")
    options = parser.parse_args()
    with LedgerServer((options.host, options.port), options.latency_ms, options.fault_rate) as server:
        if options.port_file:
            write_port_file(options.port_file, server.server_port)
        print(f"ledger on http://{options.host}:{server.server_port}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
