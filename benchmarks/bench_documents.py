# SPDX-License-Identifier: Apache-2.0
"""Documents at volume beside the same documents one by one through a chat endpoint.

`shared`: every request is one instruction of `--prefix` tokens, the same for all, a document of
`--document` tokens, and a JSON Schema that the answer is held to. freehold does them as a job
(`freehold jobs run`, its load and its journal included); llama-cpp-python's server is asked for one
after another, as a loop over a chat endpoint does, and keeps the instruction it computed last. Both
answer with the same schema, each answer is checked, and documents per hour are compared. Of the
prompt tokens that a known instruction can save, the share that the job did not compute is told.

`labels`: the same texts and the same labels, by scoring (`freehold.documents.classify`, nothing is
decoded; with probabilities, and only until the likeliest label is certain) and by asking a chat
endpoint for the label one after another and reading it: freehold's own, and llama-cpp-python's.
`tune_labels.py` makes a model that knows the labels.

    python bench_documents.py --model words.gguf --peer-python .venv-peer/bin/python --only shared
    python bench_documents.py --model seedling --texts texts.txt --labels labels.txt --only labels
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bench_serve import CHAT, SCHEMA, Server, free_port
from common import finish, header, median, progress, say, table
from random_vocabulary import words
from worker_clients import ask

FREEHOLD = str(Path(sys.executable).parent / "freehold")
GROUPS = ("shared", "labels")
PEER_CONTEXT = 8192
# Tolerances: with probabilities as by default, and the likeliest label alone, as sure as with them,
# which is what a chat endpoint tells.
WAYS = {"probabilities": 0.01, "label alone": 0.99}


def request(prefix: str, text: str) -> dict[str, Any]:
    """One document as a chat request."""
    return {
        "messages": [{"role": "user", "content": f"{prefix}{text}"}], "temperature": 0,
        "max_tokens": 160, "response_format": {"type": "json_object", "schema": SCHEMA},
    }  # fmt: skip


def checked(text: str) -> None:
    """Raises SystemExit for an answer that the schema does not allow."""
    value = json.loads(text)
    if [*value] != [*SCHEMA["properties"]] or value["kind"] not in SCHEMA["properties"]["kind"][
        "enum"
    ]:
        raise SystemExit(f"bench_documents.py: an answer broke the schema: {text!r}")


class Job:
    """Documents as a job of freehold's."""

    def __init__(self, args: argparse.Namespace, prefix: str) -> None:
        self.args, self.prefix = args, prefix

    def run(self, texts: Iterable[str]) -> dict[str, Any]:
        """Seconds of the whole command, and what its answers say of their tokens."""
        with tempfile.TemporaryDirectory() as folder:
            file, out = Path(folder, "requests.jsonl"), Path(folder, "answers.jsonl")
            with file.open("w") as lines:
                for number, text in enumerate(texts):
                    line = {"custom_id": str(number), "method": "POST", "url": CHAT,
                            "body": request(self.prefix, text)}  # fmt: skip
                    lines.write(json.dumps(line) + "\n")
            command = [FREEHOLD, "jobs", "run", str(file), "--model", self.args.model, "--out",
                       str(out), "--format", "batch", "--threads", str(self.args.threads),
                       "--context", "2048"]  # fmt: skip
            began = time.perf_counter()
            done = subprocess.run(
                command, capture_output=True, text=True,
                env={**os.environ, "XDG_DATA_HOME": folder},
            )  # fmt: skip
            seconds = time.perf_counter() - began
            if done.returncode:
                raise SystemExit(f"bench_documents.py: the job failed\n{done.stderr[-2000:]}")
            bodies = [json.loads(line)["response"]["body"] for line in out.read_text().splitlines()]
        for body in bodies:
            checked(body["choices"][0]["message"]["content"])
        usage = [body["usage"] for body in bodies]
        return {
            "seconds": seconds,
            "documents": len(bodies),
            "prompt_tokens": sum(each["prompt_tokens"] for each in usage),
            "cached_tokens": sum(each["prompt_tokens_details"]["cached_tokens"] for each in usage),
        }


def answer(server: Server, body: dict[str, Any]) -> str:
    """What a chat endpoint says."""
    reply = ask("127.0.0.1", server.port, CHAT, [{"model": "bench", **body}])
    return str(reply["texts"][0])


def one_by_one(server: Server, bodies: list[dict[str, Any]]) -> float:
    """Seconds for all of them, one after another."""
    began = time.perf_counter()
    for body in bodies:
        text = answer(server, body)
        if "response_format" in body:
            checked(text)
    return time.perf_counter() - began


def peer(args: argparse.Namespace) -> Server:
    """llama-cpp-python's server of the same file."""
    port = free_port()
    command = [
        args.peer_python, "-m", "llama_cpp.server", "--model", args.model, "--port", str(port),
        "--n_ctx", str(PEER_CONTEXT), "--n_threads", str(args.threads),
        "--n_threads_batch", str(args.threads), "--interrupt_requests", "false",
        "--verbose", "false",
    ]  # fmt: skip
    return Server("llama-cpp-python", command, port)


def shared(args: argparse.Namespace) -> dict[str, Any]:
    """The job in full; the peer over fewer documents, `--peer-documents` a round, before and after
    the job, so that a change of the machine meanwhile shows."""
    prefix = words(args.prefix, "instruction")
    texts = [words(args.document, f"document {i}") for i in range(args.documents)]
    rates: list[float] = []
    server = peer(args) if args.peer_python else None

    def ask_peer(number: int) -> None:
        if server is None:
            return
        server.resume()
        some = [words(args.document, f"peer {number} {i}") for i in range(args.peer_documents)]
        one_by_one(server, [request(prefix, words(args.document, f"first {number}"))])
        seconds = one_by_one(server, [request(prefix, text) for text in some])
        server.pause()
        rates.append(args.peer_documents / seconds)
        progress(f"llama-cpp-python: {3600 * rates[-1]:,.0f} documents per hour")

    try:
        ask_peer(1)
        found = Job(args, prefix).run(texts)
        rate = found["documents"] / found["seconds"]
        progress(f"freehold: {3600 * rate:,.0f} documents per hour")
        ask_peer(2)
    finally:
        if server is not None:
            server.close()
    # Every document but the first finds the whole instruction known.
    possible = (args.documents - 1) * args.prefix
    result = {**found, "per_hour": 3600 * rate, "saved": found["cached_tokens"] / possible}
    row = [f"{args.documents}", f"{3600 * rate:,.0f}", f"{100 * result['saved']:.1f} %"]
    if rates:
        result |= {"peer_per_hour": [3600 * each for each in rates], "ratio": rate / median(rates)}
        row += [f"{3600 * median(rates):,.0f}", f"{result['ratio']:.2f}"]
    heads = ["documents", "per hour", "saved of what can be", "one by one, peer", "ratio"]
    say(table(heads[: len(row)], [row]))
    return result


class Asked:
    """A server that is asked for the label of a few texts at a time."""

    def __init__(self, server: Server, bodies: list[dict[str, Any]], share: int) -> None:
        self.server, self.share = server, share
        self._bodies = iter(bodies)
        self.rates: list[float] = []
        self.answers: list[str] = []

    def round(self) -> None:
        """Ask for the next ones. The first of a round, which finds the instruction where another
        server's turn may have left it, is not measured."""
        self.server.resume()
        bodies = list(itertools.islice(self._bodies, 1 + self.share))
        one_by_one(self.server, bodies[:1])
        began = time.perf_counter()
        self.answers += [answer(self.server, body) for body in bodies[1:]]
        self.rates.append(self.share / (time.perf_counter() - began))
        self.server.pause()
        progress(f"{self.server.name}: {self.rates[-1]:.1f} labels per second")


def labels(args: argparse.Namespace) -> dict[str, Any]:
    """Labels scored without decoding, in rounds beside servers that are asked for them."""
    from freehold import LLM
    from freehold.documents import classify, prompts

    names = Path(args.labels).read_text("utf-8").split("\n")
    names = [name for name in names if name.strip()]
    texts = [line for line in Path(args.texts).read_text("utf-8").split("\n") if line.strip()]
    asked = args.rounds * (1 + args.peer_documents)
    if len(texts) < max(args.documents, asked):
        raise SystemExit(f"bench_documents.py: {args.texts} has {len(texts)} texts, too few")
    port = free_port()
    command = [FREEHOLD, "serve", f"bench={args.model}", "--port", str(port), "--preload", "bench",
               "--threads", str(args.threads)]  # fmt: skip
    servers = [Server("freehold", command, port)]
    try:
        if args.peer_python:
            servers[0].pause()
            servers.append(peer(args))
        with LLM(args.model, threads=args.threads) as llm:
            longest = max(len(llm.tokenizer.encode(name, add_special=False)) for name in names)
            bodies = [
                {"messages": prompts.classify(text, names), "temperature": 0,
                 "max_tokens": longest + 4}
                for text in texts
            ]  # fmt: skip
            others = [Asked(server, bodies, args.peer_documents) for server in servers]
            for server in servers:
                server.pause()
            classify(llm, texts[:1], names)  # nobody's first time is measured
            ways = {name: Scored(llm, names, tolerance) for name, tolerance in WAYS.items()}
            chunk = (args.documents - 1) // args.rounds
            for number in range(args.rounds):
                for other in others:
                    other.round()
                some = texts[1 + number * chunk : 1 + (number + 1) * chunk]
                found = {name: way.round(some) for name, way in ways.items()}
                for name, rate in ((name, way.rates[-1]) for name, way in ways.items()):
                    progress(f"scored, {name}: {rate:.1f} labels per second")
                if len(set(map(tuple, found.values()))) > 1:
                    raise SystemExit("bench_documents.py: the likeliest label depends on the way")
    finally:
        for server in servers:
            server.close()
    result: dict[str, Any] = {"labels": len(names), "asked": {}}
    rows = []
    for other in others:
        named = sum(text.strip() in names for text in other.answers) / len(other.answers)
        result["asked"][other.server.name] = {"rates": other.rates, "named": named}
        rows.append([f"asked, {other.server.name}", f"{median(other.rates):.1f}", "", "", ""])
    for name, way in ways.items():
        result[name] = way.told()
        ratios = {other.server.name: median(way.rates) / median(other.rates) for other in others}
        result[name]["ratios"] = ratios
        rows.append([f"scored, {name}", f"{median(way.rates):.1f}", f"{way.computed:.1f}",
                     f"{1000 * way.token_seconds:.3f}",
                     ", ".join(f"{ratio:.1f}" for ratio in ratios.values())])  # fmt: skip
    heads = [f"{len(names)} labels", "per second", "tokens computed", "ms of passes for each",
             "times " + ", ".join(other.server.name for other in others)]  # fmt: skip
    say(table(heads, rows))
    way = ways[next(iter(WAYS))]
    say(f"{way.decoded} tokens decoded; some label is {100 * way.coverage:.0f} % likely")
    for name, asked in result["asked"].items():
        say(f"{100 * asked['named']:.0f} % of the answers of {name} are labels")
    return result


class Scored:
    """Labels scored in this process."""

    def __init__(self, llm: Any, names: list[str], tolerance: float) -> None:
        self.llm, self.names, self.tolerance = llm, names, tolerance
        self.rates: list[float] = []
        self.coverages: list[float] = []
        self._documents, self._computed, self.decoded, self._passes = 0, 0, 0, 0.0

    def round(self, texts: list[str]) -> list[str]:
        """The labels of some texts."""
        from freehold.documents import classify

        stats = self.llm.engine.stats
        before = stats.prefill_tokens, stats.decode_tokens, stats.model_seconds
        began = time.perf_counter()
        found = classify(self.llm, texts, self.names, tolerance=self.tolerance)
        self.rates.append(len(texts) / (time.perf_counter() - began))
        self._documents += len(texts)
        self._computed += stats.prefill_tokens - before[0]
        self.decoded += stats.decode_tokens - before[1]
        self._passes += stats.model_seconds - before[2]
        self.coverages += [answer.value["coverage"] for answer in found]
        return [answer.value["label"] for answer in found]

    @property
    def computed(self) -> float:
        """Tokens of a text, those of labels included."""
        return self._computed / self._documents

    @property
    def token_seconds(self) -> float:
        """What passes take for a token."""
        return self._passes / self._computed

    @property
    def coverage(self) -> float:
        """How likely the model says any of the labels."""
        return median(self.coverages)

    def told(self) -> dict[str, Any]:
        """For the JSON line."""
        return {
            "tolerance": self.tolerance, "rates": self.rates, "decoded": self.decoded,
            "computed": self.computed, "coverage": self.coverage,
            "token_seconds": self.token_seconds,
        }  # fmt: skip


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="for `shared` a file made with --words")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default=",".join(GROUPS), help=f"of {','.join(GROUPS)}")
    parser.add_argument("--peer-python", help="has llama-cpp-python[server]")
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--peer-documents", type=int, default=20, help="asked one by one")
    parser.add_argument("--rounds", type=int, default=3, help="labels: of which medians are told")
    parser.add_argument("--prefix", type=int, default=700, help="tokens of the instruction")
    parser.add_argument("--document", type=int, default=150, help="tokens")
    parser.add_argument("--texts", help="labels: a file with a text per line")
    parser.add_argument("--labels", help="labels: a file with a label per line")
    parser.add_argument("--output", help="also write the JSON line here")
    args = parser.parse_args()
    args.only = args.only.split(",")
    if unknown := set(args.only) - set(GROUPS):
        parser.error(f"--only knows {', '.join(GROUPS)}, not {', '.join(sorted(unknown))}")
    if "labels" in args.only and not (args.texts and args.labels):
        parser.error("labels needs --texts and --labels")
    if Path(args.model).is_file():
        args.model = str(Path(args.model).resolve())
    return args


def main() -> int:
    args = arguments()
    result = header("documents")
    for group in args.only:
        result[group] = {"shared": shared, "labels": labels}[group](args)
    finish(result, args.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
