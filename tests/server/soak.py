# SPDX-License-Identifier: Apache-2.0
"""Many impatient clients against one server process, held to what it must never do.

Clients ask for answers that are known before, computed by the library alone, and check each by its
content; others leave in the middle, hang up before the answer, send half a request, or have their
connection reset. Two models share memory for one and a half, so that they are loaded and let go all
the time. In the end nothing may be in use and memory must not have grown.

    python tests/server/soak.py --minutes 10 --clients 64
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from freehold import LLM, SamplingParams
from freehold.server.models.memory import memory_need

ENGINE = {"threads": 2, "context_length": 512}
MODELS = ("one", "two")
CHAT = "/v1/chat/completions"
# How clients behave, and how often.
MANNERS = {"whole": 6, "stream": 6, "leave": 2, "reset": 2, "hang_up": 1, "half": 1}
PATIENCE = 120.0  # seconds without an answer are an answer lost


@dataclass(frozen=True)
class Question:
    """A request, and the text of the one right answer."""

    fields: dict[str, Any]
    answer: str


def questions(count: int = 48) -> list[Question]:
    """Distinct answers, greedy and drawn, long and short; prompts share beginnings."""
    rng = random.Random(7)
    asked = []
    for number in range(count):
        start = "The keeper of the house wrote down what the visitors had said. " * (number % 4)
        text = f"{start}Visitor {number} came from {rng.choice(['Lund', 'Graz', 'Bari'])}."
        fields: dict[str, Any] = {
            "messages": [{"role": "user", "content": text}],
            "max_tokens": rng.choice([1, 5, 20, 60]) if number % 3 else 30,
            "temperature": 0.0,
            "ignore_eos": bool(number % 3),
        }
        if number % 2:
            fields |= {"temperature": 1.5, "seed": number, "max_tokens": 40}
        asked.append(fields)
    with LLM("seedling", **ENGINE) as llm:
        done = llm.chat(
            [fields["messages"] for fields in asked],
            [
                SamplingParams(**{k: v for k, v in fields.items() if k != "messages"})
                for fields in asked
            ],
            parse=True,
        )
    found = [Question(f, each.text) for f, each in zip(asked, done, strict=True)]
    assert len({question.answer for question in found}) > count * 0.7, "too few distinct answers"
    return found


@dataclass
class Soak:
    """One run against a server at `port`."""

    port: int
    questions: list[Question]
    seed: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    async def run(self, clients: int, goes_on: Callable[[int], bool]) -> None:
        """`clients` at once, each asking while `goes_on(how many it asked)`."""

        async def client(number: int) -> None:
            rng, asked = random.Random(f"{self.seed}-{number}"), 0
            while goes_on(asked):
                await self.ask(rng)
                asked += 1

        await asyncio.gather(*(client(number) for number in range(clients)))

    async def ask(self, rng: random.Random) -> None:
        """One request in one manner. What is wrong goes to `wrong`."""
        question = rng.choice(self.questions)
        manner = rng.choices(list(MANNERS), list(MANNERS.values()))[0]
        streams = manner in ("stream", "leave", "reset")
        body = json.dumps({**question.fields, "model": rng.choice(MODELS), "stream": streams})
        try:
            async with asyncio.timeout(PATIENCE):
                await self._ask(rng, question, manner, body.encode())
        except TimeoutError:
            self.wrong.append(f"{manner}: no answer within {PATIENCE} s")
        except Exception as error:
            self.wrong.append(f"{manner}: {type(error).__name__}: {error}")

    async def _ask(self, rng: random.Random, question: Question, manner: str, body: bytes) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 20)
        try:
            head = (
                f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nConnection: close\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
            )
            if manner == "half":
                writer.write(head.encode() + body[: len(body) // 2])
                await writer.drain()
                self.counts["half"] += 1
                return
            writer.write(head.encode() + body)
            if manner == "hang_up":
                await asyncio.sleep(rng.random() * 0.3)
                self.counts["hang_up"] += 1
                return
            enough = rng.randrange(1, 2000) if manner in ("leave", "reset") else None
            raw = await _read(reader, enough)
            if enough is not None and manner == "reset":
                writer.get_extra_info("socket").setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
            self._judge(manner, question, raw, whole=enough is None)
        finally:
            writer.close()

    def _judge(self, manner: str, question: Question, raw: bytes, *, whole: bool) -> None:
        head, _, rest = raw.partition(b"\r\n\r\n")
        status = head.split(b" ")[1:2]
        if status in ([b"503"], [b"429"]):  # told to come back: an answer, but not a lost one
            self.counts["come back later"] += 1
            if b"retry-after" not in head.lower():
                self.wrong.append(f"{manner}: a refusal without Retry-After")
            return
        if status != [b"200"]:
            if whole or status:
                self.wrong.append(f"{manner}: {raw[:300]!r}")
            return
        if b"transfer-encoding: chunked" in head.lower():
            text = _streamed(rest)
        else:
            text = json.loads(rest)["choices"][0]["message"]["content"]
        right = text == question.answer if whole else question.answer.startswith(text)
        if not right:
            self.wrong.append(f"{manner}: {text!r} instead of {question.answer!r}")
        if whole and b"text/event-stream" in head and b"data: [DONE]" not in rest:
            self.wrong.append(f"{manner}: the stream ended before its end")
        self.counts[manner] += 1


async def _read(reader: asyncio.StreamReader, enough: int | None) -> bytes:
    data = bytearray()
    while enough is None or len(data) < enough:
        piece = await reader.read(1 << 16)
        if not piece:
            break
        data += piece
    return bytes(data)


def _streamed(rest: bytes) -> str:
    """Text of the frames that came whole."""
    body = b""
    while match := re.match(rb"([0-9a-f]+)\r\n", rest):
        size, start = int(match[1], 16), match.end()
        body += rest[start : start + size]
        if len(rest) < start + size:
            break
        rest = rest[start + size + 2 :]
    text = ""
    for frame in body.split(b"\n\n")[:-1]:
        if frame != b"data: [DONE]":
            event = json.loads(frame.removeprefix(b"data: "))
            if "error" in event:
                raise ValueError(str(event)[:300])
            text += event["choices"][0]["delta"].get("content") or ""
    return text


# -- the server's side ---------------------------------------------------------------------------


@dataclass
class Process:
    """A server process."""

    pid: int
    port: int

    def rss(self) -> int:
        """Bytes resident now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def open_files(self) -> int:
        """File descriptors it holds."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def metrics(self) -> dict[str, float]:
        """Each metric summed over its labels."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/metrics", timeout=30) as answer:
            text = answer.read().decode()
        totals: Counter[str] = Counter()
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                totals[sample.name.removeprefix("freehold_")] += sample.value
        return dict(totals)

    def wait_until_idle(self) -> dict[str, float]:
        """The metrics once nothing is in use, cache blocks of loaded models included."""
        return self._wait("running_sequences", "waiting_sequences", "model_users", "kv_blocks_used")

    def wait_until_unloaded(self) -> dict[str, float]:
        """The metrics once no model is loaded any more."""
        return self._wait("model_loaded", "model_bytes")

    def _wait(self, *names: str) -> dict[str, float]:
        deadline = time.monotonic() + 60
        while True:
            now = self.metrics()
            left = {name: now[name] for name in names if now.get(name)}
            if not left:
                return now
            assert time.monotonic() < deadline, f"still in use: {left}"
            time.sleep(0.1)


@contextmanager
def served() -> Iterator[Process]:
    """`freehold serve` with memory for one and a half of its two models."""
    need = memory_need("seedling", ENGINE)
    command = [
        sys.executable, "-c", "from freehold.cli.main import main; main()", "serve",
        *(f"{name}=seedling" for name in MODELS), "--port", "0",
        "--memory", str((need.weights + need.least_cache) * 3 // 2), "--keep-alive", "5s",
        "--threads", str(ENGINE["threads"]), "--context", str(ENGINE["context_length"]),
    ]  # fmt: skip
    with tempfile.NamedTemporaryFile("w+") as log:
        process = subprocess.Popen(command, stderr=log)
        try:
            while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", _text(log.name))):
                assert process.poll() is None, _text(log.name)
                time.sleep(0.05)
            yield Process(process.pid, int(found[1]))
            told = _text(log.name).partition("\n")[2].splitlines(keepends=True)
            # asyncio's own word for a client that is gone while several writes were on their way
            told = [line for line in told if line != "socket.send() raised exception.\n"]
            told = [line for line in told if " INFO " not in line]
            assert not told, f"the server complained: {''.join(told)[-4000:]}"
        finally:
            process.terminate()
            process.wait(timeout=60)


def _text(path: str) -> str:
    return Path(path).read_text()


def _every(seconds: float, times: int, look: Callable[[], int]) -> Iterator[int]:
    for _ in range(times):
        time.sleep(seconds)
        yield look()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    args = parser.parse_args()
    known = questions()
    rounds = max(2, round(args.minutes))
    counts: Counter[str] = Counter()
    wrong: list[str] = []
    sizes, looked_at = [], 0
    with served() as process:
        for number in range(rounds):
            soak = Soak(process.port, known, args.seed + number)
            end = time.monotonic() + 60 * args.minutes / rounds
            asyncio.run(soak.run(args.clients, lambda _, end=end: time.monotonic() < end))
            counts += soak.counts
            wrong += soak.wrong
            looked_at += process.wait_until_idle().get("model_loaded", 0.0) > 0
            now = process.wait_until_unloaded()
            # What is left without models is what would pile up; it goes back a moment later.
            sizes.append(min(_every(0.5, 6, process.rss)) / 2**20)
            print(
                f"round {number + 1} of {rounds}: {now['answers_total']:.0f} answers, "
                f"{now['model_loads_total']:.0f} loads, {sizes[-1]:.1f} MiB without models, "
                f"{process.open_files()} files, {len(wrong)} wrong",
                flush=True,
            )
    print(f"{dict(counts)}, seed {args.seed}; caches looked at in {looked_at} rounds")
    for line in wrong[:20]:
        print("WRONG", line)
    half = len(sizes) // 2
    grew = statistics.median(sizes[half:]) > statistics.median(sizes[:half]) * 1.1 + 4
    if grew:
        print("WRONG memory grew")
    return int(bool(wrong) or grew)


if __name__ == "__main__":
    raise SystemExit(main())
