# SPDX-License-Identifier: Apache-2.0
"""Tool and grader endpoint of the calculator example: POST /call, POST /grade, GET /health. Standard library only.

What the calculator gave is kept in memory under its trace_id and dropped when the trace is graded or is among the oldest.
"""

import argparse
import collections
import json
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from problems import MAX_CALLS, TOOL, CalculatorError, calculate, grade

MAX_BODY = 1 << 20  # bytes
MAX_TRACES = 100_000


class BadRequest(Exception):
    """A request that Rollcall would not send."""


class Traces:
    """trace_id -> {call_id: output}. Thread-safe."""

    def __init__(self):
        self._lock = threading.Lock()
        self._outputs = collections.OrderedDict()

    def call(self, trace_id, call_id, arguments):
        """The calculator's output; a call that comes again gets the same."""
        with self._lock:
            outputs = self._outputs.setdefault(trace_id, {})
            while len(self._outputs) > MAX_TRACES:
                self._outputs.popitem(last=False)
            if call_id not in outputs:
                outputs[call_id] = "error: no calls left" if len(outputs) >= MAX_CALLS else output_of(arguments)
            return outputs[call_id]

    def outputs(self, trace_id):
        with self._lock:
            return list(self._outputs.get(trace_id, {}).values())


def output_of(arguments):
    """What the model is shown: a value, or what is wrong with its call."""
    try:
        given = json.loads(arguments)
        if not isinstance(given, dict) or set(given) != {"expression"}:
            raise CalculatorError("the calculator takes one argument, expression")
        return calculate(given["expression"])
    except (ValueError, RecursionError):
        return "error: arguments are not JSON"
    except CalculatorError as error:
        return f"error: {error}"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 600  # seconds an idle connection is kept

    def do_GET(self):
        self._reply(*((200, {"status": "ok"}) if self.path == "/health" else (404, {"error": "not found"})))

    def do_POST(self):
        try:
            request = self._read()
            if self.path == "/call":
                self._reply(200, self._call(request))
            elif self.path == "/grade":
                self._reply(200, self._grade(request))
            else:
                self._reply(404, {"error": "POST /call or POST /grade"})
        except (BadRequest, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            self._reply(400, {"error": f"bad request: {error}"})

    def _call(self, request):
        if request["name"] != TOOL:
            raise BadRequest(f"the only tool is {TOOL}")
        output = self.server.traces.call(str(request["trace_id"]), str(request["call_id"]), request["arguments"])
        return {"type": "function_call_output", "id": request.get("id"), "call_id": request["call_id"], "output": output}

    def _grade(self, request):
        values = self.server.traces.outputs(str(request["trace_id"]))
        return grade(request["sample"]["output_text"] or "", values, request["item"])

    def _read(self):
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or len(length) > 9 or int(length) > MAX_BODY:
            self.close_connection = True
            raise BadRequest(f"Content-Length must be a number up to {MAX_BODY}")
        return json.loads(self.rfile.read(int(length)))

    def _reply(self, status, value):
        body = json.dumps(value).encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self._headers_buffer.append(b"\r\n" + body)
        self.flush_headers()

    def log_message(self, *_):
        pass


class CalculatorServer(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, address):
        self.traces = Traces()
        super().__init__(address, Handler)

    def handle_error(self, request, client_address):
        """A client that goes away is no event."""


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8078, help="0 takes any free port")
    parser.add_argument("--port-file", help="file to write the port to once the server listens")
    options = parser.parse_args()
    with CalculatorServer((options.host, options.port)) as server:
        if options.port_file:
            with open(options.port_file + ".part", "w") as out:
                out.write(f"{server.server_port}\n")
            os.replace(options.port_file + ".part", options.port_file)
        print(f"calculator on http://{options.host}:{server.server_port}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
