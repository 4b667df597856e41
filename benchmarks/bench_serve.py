# SPDX-License-Identifier: Apache-2.0
"""The server beside the library, and beside llama-cpp-python's server: same file, one machine.

`streams`: 32 clients in a process of their own stream answers over HTTP; the same conversations are
answered as one batch by `LLM` in another process. What is lost is the price of serving: HTTP, event
loop, JSON, and the clients' own processor time.

`shared`: 16 clients ask at once about a 150-token document each, all after the same 700-token
instruction, and want 40 tokens. Cold: nobody has seen the instruction. Warm: it was just used, the
documents are new. The peer, too, keeps what it computed last. Weights are random, so a free answer
is noise; its length is what is fixed (greedy, `max_tokens`), and a round in which any server gave
or read another number of tokens is an error.

`json`: the same with a JSON Schema that both servers hold every answer to, an enum, a boolean and a
string of fixed length, so that an answer has about 40 tokens in either server's spelling. Each
answer is checked, and a wrong one is an error. Both count tokens in their own way here, so requests
are compared and the characters of the answers are told.

Whoever waits is stopped (SIGSTOP), sides take turns, and medians over rounds are told with the
share of the machine that other processes had meanwhile. A model is made by

    python make_model.py --shape llama-1b --mix Q4_K_M --words --out words.gguf
    python bench_serve.py --model words.gguf --peer-python .venv-peer/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import Worker, busy_seconds, finish, header, median, progress, say, table
from random_vocabulary import words

GROUPS = ("streams", "shared", "json")
KINDS = ("bill", "claim", "appeal", "panel")
LABEL_LETTERS = 48
# Keys and values of letters of which the vocabulary has tokens, as a real one has of English.
SCHEMA = {
    "type": "object",
    "properties": {
        "kind": {"enum": [*KINDS]},
        "open": {"type": "boolean"},
        "label": {"type": "string", "pattern": f"^[a-p]{{{LABEL_LETTERS}}}$"},
    },
    "required": ["kind", "open", "label"],
    "additionalProperties": False,
}
CHAT = "/v1/chat/completions"
CONTEXT = 2048  # positions per sequence, for every side
# The peer's cache leaks cells over requests with a common prefix and fails when none is left.
PEER_CONTEXT = 8192
START_SECONDS = 300.0


class Server:
    """A server in its own process, stopped whenever it is not its turn."""

    def __init__(self, name: str, command: list[str], port: int) -> None:
        self.name, self.port = name, port
        self.log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - as long as the process
        self.process = subprocess.Popen(
            command, stdout=self.log, stderr=self.log, stdin=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                self.close()
                self.log.seek(0)
                raise SystemExit(f"bench_serve.py: {name} did not start\n{self.log.read()[-3000:]}")
            time.sleep(0.2)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/v1/models", timeout=5):
                return True
        except (urllib.error.URLError, OSError):
            return False

    def pause(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.resume()
        self.process.terminate()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def cpu_seconds(pid: int) -> float:
    """Processor time a process has used, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Bench:
    """The processes, and what was measured."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.seed = 0  # of texts; one used twice would measure the prefix cache
        self.servers: dict[str, Server] = {}
        self.workers: dict[str, Worker] = {}
        self.foreign: list[float] = []
        self.repeated: dict[str, int] = {}  # requests that a server failed and was asked again
        self.json_answers: dict[str, list[int]] = {}  # characters of each answer
        self.figures: list[dict[str, Any]] = []

    # -- processes -------------------------------------------------------------------------
    def start(self, name: str) -> None:
        """Start a side, and let it wait."""
        args, model = self.args, str(Path(self.args.model).resolve())
        progress(f"starting {name}")
        if name == "library":
            worker = self.workers[name] = Worker(name, sys.executable, "worker_library.py")
            worker.call("load", path=model, threads=args.threads, context=CONTEXT,
                        streams=max(args.streams, args.clients))  # fmt: skip
            worker.pause()
            return
        port = free_port()
        if name == "freehold":
            command = [
                str(Path(sys.executable).parent / "freehold"), "serve", f"bench={model}",
                "--port", str(port), "--preload", "bench", "--threads", str(args.threads),
                "--context", str(CONTEXT),
            ]  # fmt: skip
        else:
            command = [
                args.peer_python, "-m", "llama_cpp.server", "--model", model, "--port", str(port),
                "--n_ctx", str(PEER_CONTEXT), "--n_threads", str(args.threads),
                "--n_threads_batch", str(args.threads), "--interrupt_requests", "false",
                "--verbose", "false",
            ]  # fmt: skip
        self.servers[name] = Server(name, command, port)
        self.ask(name, [self.body(words(8, "warm-up"), 2)])  # a lazy start is not timed

    def close(self) -> None:
        for each in (*self.servers.values(), *self.workers.values()):
            each.close()

    # -- asking ----------------------------------------------------------------------------
    def text(self, count: int) -> str:
        self.seed += 1
        return words(count, self.seed)

    def body(self, text: str, tokens: int, **more: Any) -> dict[str, Any]:
        return {
            "model": "bench", "messages": [{"role": "user", "content": text}], "temperature": 0,
            "max_tokens": tokens, **more,
        }  # fmt: skip

    def ask(self, name: str, bodies: list[dict[str, Any]]) -> dict[str, Any]:
        """Let the clients ask a server; other processes' share goes to `foreign`."""
        clients = self.workers.get("clients")
        if clients is None:
            clients = self.workers["clients"] = Worker(
                "clients", sys.executable, "worker_clients.py"
            )
        server = self.servers[name]
        server.resume()
        own, busy, began = cpu_seconds(server.process.pid), busy_seconds(), time.perf_counter()
        reply = clients.call("ask", host="127.0.0.1", port=server.port, path=CHAT, bodies=bodies)
        wall = time.perf_counter() - began
        own = cpu_seconds(server.process.pid) - own
        self._foreign(busy, own + reply["cpu_seconds"], wall)
        server.pause()
        self.repeated[name] = self.repeated.get(name, 0) + reply["repeated"]
        reply["server_cpu_seconds"] = own
        return reply

    def _foreign(self, busy: float, own: float, wall: float) -> None:
        share = (busy_seconds() - busy - own) / (wall * len(os.sched_getaffinity(0)))
        self.foreign.append(max(0.0, share))

    def _expect(self, reply: dict[str, Any], name: str, prompt: int, tokens: int) -> None:
        if name == "llama-cpp-python":  # it counts what its text would be as a prompt
            reply["tokens"] = [tokens] * len(reply["tokens"])
        seen = {*reply["prompt_tokens"]}, {*reply["tokens"]}
        if seen != ({prompt}, {tokens}) or not reply["full_length"]:
            raise SystemExit(
                f"bench_serve.py: {name} read {seen[0]} and gave {seen[1]} tokens, "
                f"not {prompt} and {tokens}"
            )

    # -- figures ---------------------------------------------------------------------------
    def streams(self, texts: list[str], name: str) -> dict[str, float]:
        """Tokens of all answers together per second, and per second of processor time of server
        and clients; prompts are included in the time."""
        args = self.args
        if name == "library":
            worker = self.workers["library"]
            busy, began = busy_seconds(), time.perf_counter()
            reply = worker.call("chat", texts=texts, tokens=args.stream_tokens)
            self._foreign(busy, reply["cpu_seconds"], time.perf_counter() - began)
            worker.pause()
            reply["server_cpu_seconds"] = 0.0
        else:
            more = {"stream": True, "stream_options": {"include_usage": True}}
            bodies = [self.body(text, args.stream_tokens, **more) for text in texts]
            reply = self.ask(name, bodies)
        self._expect(reply, name, args.stream_prompt, args.stream_tokens)
        tokens, what = sum(reply["tokens"]), f"{args.streams} streams"
        worked = reply["cpu_seconds"] + reply["server_cpu_seconds"]
        return {what: tokens / reply["seconds"], f"{what}, per second of work": tokens / worked}

    def shared(self, prefix: str, name: str, form: bool) -> float:
        """Requests per second after this prefix, each with a new document; `form`: JSON answers."""
        args = self.args
        texts = [prefix + self.text(args.document) for _ in range(args.clients)]
        if form:
            # The peer's name for a schema; freehold knows it by OpenAI's and by this one.
            wanted = {"type": "json_object", "schema": SCHEMA}
            bodies = [self.body(text, 4 * args.answer, response_format=wanted) for text in texts]
            reply = self.ask(name, bodies)
            self._expect_json(reply, name)
        else:
            reply = self.ask(name, [self.body(text, args.answer) for text in texts])
            self._expect(reply, name, args.prefix + args.document, args.answer)
        return float(args.clients / reply["seconds"])

    def _expect_json(self, reply: dict[str, Any], name: str) -> None:
        for text in reply["texts"]:
            value = json.loads(text)
            ok = [*value] == ["kind", "open", "label"] and value["kind"] in KINDS
            ok = ok and isinstance(value["open"], bool) and len(value["label"]) == LABEL_LETTERS
            if not ok:
                raise SystemExit(f"bench_serve.py: {name} broke the schema: {text!r}")
            self.json_answers.setdefault(name, []).append(len(text))
        progress(f"{name}: tokens it counted, per answer: {median(reply['tokens']):.0f}")

    def measure(
        self, sides: list[str], unit: str, one: Callable[[str, int], dict[str, float]]
    ) -> None:
        """The figures that `one` gives, measured together: every side in turn, the first one
        changing."""
        values: dict[str, dict[str, list[float]]] = {}
        self.foreign = []
        for r in range(self.args.rounds):
            shift = r % len(sides)
            for side in sides[shift:] + sides[:shift]:
                for name, value in one(side, r).items():
                    values.setdefault(name, {}).setdefault(side, []).append(value)
                    progress(f"round {r + 1}: {name}, {side}: {value:.2f} {unit}")
        for name, found in values.items():
            ratios = [a / b for a, b in zip(found[sides[0]], found[sides[-1]], strict=True)]
            self.figures.append(
                {
                    "name": name,
                    "unit": unit,
                    "values": found,
                    "median": {side: median(numbers) for side, numbers in found.items()},
                    "ratio": median(ratios),
                    "ratios": ratios,
                    "foreign_cpu": median(self.foreign),
                }
            )

    def run(self) -> None:
        """Measure what is wanted."""
        args = self.args
        self.start("freehold")
        if "streams" in args.only:
            self.start("library")
            texts = [
                [self.text(args.stream_prompt) for _ in range(args.streams)]
                for _ in range(args.rounds)
            ]
            # The same texts for both; neither has seen them, nor will again.
            self.measure(
                ["freehold", "library"], "tok/s", lambda side, r: self.streams(texts[r], side)
            )
            self.workers.pop("library").close()
        sides = ["freehold"]
        if args.peer_python and {"shared", "json"} & {*args.only}:
            self.start("llama-cpp-python")
            sides.append("llama-cpp-python")
        for group, ending in (("shared", ""), ("json", ", JSON")):
            if group in args.only:
                self.measure(sides, "req/s", self._cold_and_warm(ending, group == "json"))

    def _cold_and_warm(self, ending: str, form: bool) -> Callable[[str, int], dict[str, float]]:
        def both(side: str, r: int) -> dict[str, float]:
            prefix = self.text(self.args.prefix)
            return {
                "cold" + ending: self.shared(prefix, side, form),
                "warm" + ending: self.shared(prefix, side, form),
            }

        return both


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a GGUF file made with --words")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(GROUPS), help=f"of {','.join(GROUPS)}")
    parser.add_argument("--peer-python", help="has llama-cpp-python[server]")
    parser.add_argument("--streams", type=int, default=32, help="streaming clients")
    parser.add_argument("--stream-prompt", type=int, default=64, help="tokens")
    parser.add_argument("--stream-tokens", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--prefix", type=int, default=700, help="tokens")
    parser.add_argument("--document", type=int, default=150, help="tokens")
    parser.add_argument("--answer", type=int, default=40, help="tokens")
    parser.add_argument("--output", help="also write the JSON line here")
    args = parser.parse_args()
    args.only = args.only.split(",")
    if unknown := set(args.only) - set(GROUPS):
        parser.error(f"--only knows {', '.join(GROUPS)}, not {', '.join(sorted(unknown))}")
    if not Path(args.model).is_file():
        parser.error(f"no such file: {args.model}")
    return args


def show(figures: list[dict[str, Any]]) -> None:
    """The table."""
    rows = []
    for figure in figures:
        sides = list(figure["median"].items())
        ours, other = sides[0], sides[-1]
        rows.append(
            [
                f"{figure['name']} ({figure['unit']})", f"{ours[1]:.2f}",
                other[0], f"{other[1]:.2f}", f"{figure['ratio']:.3f}",
                f"{min(figure['ratios']):.3f} to {max(figure['ratios']):.3f}",
                f"{100 * figure['foreign_cpu']:.0f} %",
            ]
        )  # fmt: skip
    say(table(["figure", "freehold", "beside", "", "ratio", "of rounds", "foreign"], rows))


def main() -> int:
    args = arguments()
    bench = Bench(args)
    result = header("serve")
    try:
        bench.run()
    finally:
        bench.close()
    result["figures"] = bench.figures
    result["repeated_requests"] = bench.repeated
    result["json_characters"] = {name: median(n) for name, n in bench.json_answers.items()}
    show(bench.figures)
    finish(result, args.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
