# SPDX-License-Identifier: Apache-2.0
"""The task of the comparison with other trainers: guess a hidden digit through an HTTP tool; a grader over HTTP says whether it was found.

    task_server.py [--port 0] [--delay-ms 0] [--sigma 0] [--grade-delay-ms 0] [--flat]     prints its URL

Both speak the contract of docs/endpoints.md. A call is answered after the delay: always the same, or lognormal with the median `delay-ms`.
With --flat all are graded 0, so that nothing is learnt and no update follows.
GET /stats has counters.
"""

import argparse
import asyncio
import json
import random

SYSTEM = "You find a hidden digit."
USER = "Find the hidden digit from 0 to 9. Use the guess tool."
SCHEMA = {"type": "function", "function": {
    "name": "guess", "description": "Guess the hidden digit.",
    "parameters": {"type": "object", "properties": {"x": {"type": "integer", "description": "The digit."}}, "required": ["x"]},
    "return": {"type": "string", "description": "higher, lower or correct."}}}


def messages():
    return [{"role": "system", "content": SYSTEM}, {"role": "user", "content": USER}]


def answer(x, target):
    return "correct" if x == target else "higher" if x < target else "lower"


class Server:
    def __init__(self, options):
        self.options = options
        self.solved = set()
        self.stats = {"tool": 0, "grade": 0, "correct": 0, "in_flight": 0, "most_in_flight": 0}
        self.dice = random.Random(1)

    async def wait(self, milliseconds, sigma=0.0):
        if milliseconds > 0:
            await asyncio.sleep(milliseconds / 1e3 * (self.dice.lognormvariate(0, sigma) if sigma > 0 else 1))

    async def tool(self, body):
        self.stats["tool"] += 1
        await self.wait(self.options.delay_ms, self.options.sigma)
        try:
            output = answer(int(json.loads(body["arguments"])["x"]), body["item"]["target"])
        except (KeyError, TypeError, ValueError) as error:  # the agent's mistake: it is told
            output = f"error: {type(error).__name__}"
        if output == "correct":
            self.solved.add(body["trace_id"])
        return {"type": "function_call_output", "id": body.get("id"), "call_id": body.get("call_id"), "output": output}

    async def grade(self, body):
        self.stats["grade"] += 1
        await self.wait(self.options.grade_delay_ms)
        correct = body["trace_id"] in self.solved and not self.options.flat
        self.stats["correct"] += correct
        return {"score": float(correct)}

    async def reply(self, path, body):
        if path == "/stats":
            return self.stats
        handler = {"/tool": self.tool, "/grade": self.grade}.get(path)
        if handler is None:
            return None
        self.stats["in_flight"] += 1
        self.stats["most_in_flight"] = max(self.stats["most_in_flight"], self.stats["in_flight"])
        try:
            return await handler(body)
        finally:
            self.stats["in_flight"] -= 1

    async def serve(self, reader, writer):
        try:
            while line := await reader.readline():
                path = line.decode().split(" ")[1]
                length = 0
                while (header := await reader.readline()) not in (b"\r\n", b""):
                    name, value = header.decode().split(":", 1)
                    if name.lower() == "content-length":
                        length = int(value)
                body = json.loads(await reader.readexactly(length)) if length else {}
                reply = await self.reply(path, body)
                status = b"200 OK" if reply is not None else b"404 Not Found"
                out = json.dumps(reply or {"error": "not found"}).encode()
                writer.write(b"HTTP/1.1 %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
                             % (status, len(out), out))
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--delay-ms", type=float, default=0)
    parser.add_argument("--sigma", type=float, default=0)
    parser.add_argument("--grade-delay-ms", type=float, default=0)
    parser.add_argument("--flat", action="store_true")
    server = await asyncio.start_server(Server(options := parser.parse_args()).serve, "127.0.0.1", options.port, backlog=4096)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        pass
