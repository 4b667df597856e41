# SPDX-License-Identifier: Apache-2.0
"""freehold beside llama.cpp: same file, same threads, one run, alternating rounds.

Each engine lives in a worker process that stays loaded; every round asks freehold, llama.cpp
with weight repacking and llama.cpp without it for the same figure, so that a slow moment of the
machine hits all of them. The ratio is against the better of the two llama.cpp settings, chosen
per figure. Each figure is printed as soon as its rounds are done. See README.md in this folder
for the traps.

    python bench_engine.py --model model.gguf --peer-python /path/to/venv/bin/python
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from common import (
    Shape,
    Worker,
    WorkerError,
    busy_seconds,
    finish,
    header,
    median,
    progress,
    say,
)
from report import one_line, show

GROUPS = ("prefill", "decode", "streams", "load", "memory")
ENGINES: dict[str, tuple[str, dict[str, Any]]] = {
    "freehold": ("worker_freehold.py", {}),
    "llama.cpp repack": ("worker_llama_cpp.py", {"repack": True}),
    "llama.cpp plain": ("worker_llama_cpp.py", {"repack": False}),
}
CONTEXT = 4096  # positions of the cache in every engine; part of the peak memory of each
STREAM_CONTEXT = 256  # the same per stream, where several run
STREAM_PROMPT = 128
# Share of the machine's processor time that other processes may take during one measurement
# before it is repeated. /proc/stat counts in 10 ms steps, so short measurements read high.
FOREIGN_SHARE = 0.03
MAX_TRIES = 3
# Before a fresh process is timed: memory that the one before it freed is handed out again without
# work for a second or two, until a virtual machine gives it back to its host.
SETTLE_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table: what is asked of every engine, and how it is named."""

    group: str
    name: str
    unit: str
    size: int = 0  # tokens, depth or streams

    @property
    def higher_is_better(self) -> bool:
        return self.unit == "tok/s"


def all_figures(args: argparse.Namespace) -> Iterator[Figure]:
    """Every figure, in the order of measuring: prefill leaves the cache that decoding needs."""
    for n in sorted(args.prefill):
        yield Figure("prefill", f"prefill {n}", "tok/s", n)
    for depth in sorted(args.depth, reverse=True):
        yield Figure("decode", f"decode at {depth}", "tok/s", depth)
    for n in sorted(args.streams):
        yield Figure("streams", f"{n} stream{'s' if n > 1 else ''}", "tok/s", n)
    yield Figure("load", "load + 1 token", "s")
    yield Figure("load", "process start to 1 token", "s")
    yield Figure("memory", "peak memory", "MB")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(GROUPS), help=f"of {','.join(GROUPS)}")
    parser.add_argument("--figures", help="names or patterns, as 'prefill 512,* streams'")
    parser.add_argument("--engines", default="freehold,peer", help="freehold, peer or both")
    parser.add_argument("--peer-python", default=sys.executable, help="has llama_cpp installed")
    parser.add_argument("--backend", default="cpu", help="freehold backend")
    parser.add_argument("--prefill", type=int, nargs="+", default=[128, 512, 2048])
    parser.add_argument("--depth", type=int, nargs="+", default=[0, 2048])
    parser.add_argument("--decode", type=int, default=24, help="tokens timed per round")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument("--stream-steps", type=int, default=16, help="steps timed per round")
    parser.add_argument(
        "--patience",
        type=float,
        default=60.0,
        help="seconds, in all, for repeating what other processes disturbed",
    )
    parser.add_argument("--output", help="also write the JSON line here")
    args = parser.parse_args()
    unknown = set(args.only.split(",")) - set(GROUPS)
    if unknown:
        parser.error(f"--only knows {', '.join(GROUPS)}, not {', '.join(sorted(unknown))}")
    if not Path(args.model).is_file():
        parser.error(f"no such file: {args.model}")
    if min(args.rounds, args.threads, args.decode, args.stream_steps, *args.streams) < 1:
        parser.error("rounds, threads, decode, streams and stream steps must be at least 1")
    if STREAM_PROMPT + args.stream_steps + 2 * max(args.streams) >= STREAM_CONTEXT:
        parser.error(f"streams and their steps do not fit {STREAM_CONTEXT} positions")
    if max(*args.prefill, *(d + 2 * args.decode for d in args.depth)) >= CONTEXT:
        parser.error(f"prompts and depths do not fit {CONTEXT} positions")
    args.wanted = list(all_figures(args))
    if args.figures:
        patterns = [pattern.strip() for pattern in args.figures.split(",")]
        names = [figure.name for figure in args.wanted]
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                parser.error(f"no figure is named {pattern!r}; there are: {', '.join(names)}")
        args.wanted = [
            f for f in args.wanted if any(fnmatchcase(f.name, pattern) for pattern in patterns)
        ]
    args.wanted = [figure for figure in args.wanted if figure.group in args.only.split(",")]
    if not args.wanted:
        parser.error("--only and --figures together leave nothing to measure")
    return args


class Bench:
    """The workers, the measurements so far, and the limits measured between rounds."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        wanted = args.engines.split(",")
        self.engines = [
            name
            for name in ENGINES
            if ("freehold" in wanted if name == "freehold" else "peer" in wanted)
        ]
        if not self.engines:
            raise SystemExit("bench_engine.py: --engines names neither freehold nor peer")
        self.workers: dict[str, Worker] = {}
        self.versions: dict[str, str] = {}
        self.shape: Shape | None = None
        self.patience = args.patience  # seconds left for repeats
        self.figures: list[dict[str, Any]] = []
        self.cores = len(os.sched_getaffinity(0))
        self.seed = 0  # of the last prompt; a prompt used twice would measure the prefix cache
        self.foreign: list[float] = []  # share of the machine other processes had, per call

    # -- processes -------------------------------------------------------------------------
    def _python(self, engine: str) -> str:
        return sys.executable if engine == "freehold" else self.args.peer_python

    def _spawn(self, engine: str) -> Worker:
        return Worker(engine, self._python(engine), ENGINES[engine][0])

    def _load(self, worker: Worker) -> dict[str, Any]:
        options = dict(ENGINES[worker.name][1])
        if worker.name == "freehold":
            options["backend"] = self.args.backend
        return worker.call(
            "load",
            path=str(Path(self.args.model).resolve()),
            threads=self.args.threads,
            context=CONTEXT,
            stream_context=STREAM_CONTEXT,
            streams=max(self.args.streams),
            **options,
        )

    def start(self) -> None:
        """Load every engine once; they stay loaded, stopped while others work."""
        for engine in self.engines:
            progress(f"loading {engine}")
            worker = self.workers[engine] = self._spawn(engine)
            reply = self._load(worker)
            self.versions[engine] = reply["version"]
            if "shape" in reply:
                self.shape = Shape(**reply["shape"])
            worker.pause()

    def close(self) -> None:
        for worker in self.workers.values():
            worker.close()

    # -- measuring -------------------------------------------------------------------------
    def _limits(self) -> dict[str, float]:
        """What the machine gives at this moment; nothing where the backend cannot measure it."""
        if "freehold" not in self.workers:
            return {}
        limits: dict[str, float] = self.workers["freehold"].call("limits")["limits"]
        self.workers["freehold"].pause()
        return limits

    def measure(self, figure: Figure, one: Callable[[str, int], float]) -> None:
        """Ask every engine in turn, `rounds` times, the first engine changing each round."""
        values: dict[str, list[float]] = {engine: [] for engine in self.engines}
        limits: list[dict[str, float]] = []
        self.foreign = []
        for r in range(self.args.rounds):
            if figure.unit == "tok/s":
                limits.append(self._limits())  # anew: bandwidth on a shared host drifts
            elif figure.name == "load + 1 token":
                limits.append({"fresh_memory_seconds": self._fresh_memory()})
            shift = r % len(self.engines)
            for engine in self.engines[shift:] + self.engines[:shift]:
                values[engine].append(one(engine, r))
        medians = {engine: median(numbers) for engine, numbers in values.items()}
        result: dict[str, Any] = {
            "name": figure.name,
            "unit": figure.unit,
            "higher_is_better": figure.higher_is_better,
            "values": values,
            "median": medians,
        }
        if self.foreign:
            result["foreign_cpu"] = median(self.foreign)
        peers = [engine for engine in self.engines if engine != "freehold"]
        if peers:
            better = max if figure.higher_is_better else min
            best = result["best_peer"] = better(peers, key=medians.__getitem__)
            if "freehold" in medians:
                ours, theirs = medians["freehold"], medians[best]
                result["ratio"] = ours / theirs if figure.higher_is_better else theirs / ours
        if limits and all(limits):
            result["limits"] = {key: median([each[key] for each in limits]) for key in limits[0]}
            result["limit"] = limit = self._limit(figure, result["limits"])
            result["share"] = {
                engine: value / limit if figure.higher_is_better else limit / value
                for engine, value in medians.items()
            }
        self.figures.append(result)
        say(one_line(result))

    def _limit(self, figure: Figure, limits: dict[str, float]) -> float:
        """Tokens per second, or seconds, of a program that wastes nothing."""
        if figure.group == "load":
            return limits["fresh_memory_seconds"]
        assert self.shape is not None
        if figure.group == "prefill":
            return self.shape.prefill_limit(
                figure.size, limits["int8_ops"], limits["attention_flops"]
            )
        depth, streams = figure.size, 1
        if figure.group == "streams":
            depth, streams = STREAM_PROMPT + self.args.stream_steps // 2, figure.size
        return self.shape.decode_limit(depth, streams, limits["read_bytes"], limits["int8_ops"])

    def _timed(self, engine: str, op: str, **options: Any) -> float:
        """Tokens per second of the least disturbed try; repeats while patience lasts."""
        worker = self.workers[engine]
        best, least = 0.0, float("inf")
        for _ in range(MAX_TRIES):
            if op == "prefill":
                self.seed += 1
                options["seed"] = self.seed
            busy, began = busy_seconds(), time.perf_counter()
            reply = worker.call(op, **options)
            wall = time.perf_counter() - began
            foreign = (busy_seconds() - busy - reply["cpu_seconds"]) / (wall * self.cores)
            if foreign < least:
                best, least = float(reply["tokens"] / reply["seconds"]), foreign
            if foreign <= FOREIGN_SHARE or self.patience < wall:
                break
            self.patience -= wall
        worker.pause()
        self.foreign.append(max(least, 0.0))
        return best

    def run(self) -> None:
        """Measure what is wanted, in order."""
        # Fresh processes serve several figures: seconds of load and one token, peak of memory.
        fresh: dict[tuple[str, int], dict[str, float]] = {}
        if any(figure.unit == "tok/s" for figure in self.args.wanted):
            self.start()
        for figure in self.args.wanted:
            n = figure.size
            options: dict[str, Any] = {
                "prefill": {"n": n},
                "decode": {"depth": n, "n": self.args.decode},
                "streams": {"streams": n, "prompt": STREAM_PROMPT, "n": self.args.stream_steps},
            }.get(figure.group, {})
            if not options:
                self.measure(
                    figure, lambda engine, r, f=figure: self._fresh(fresh, engine, r)[f.name]
                )
                continue
            if figure.group != "prefill":
                for engine in self.engines:  # fills the cache and warms up; the figure is dropped
                    self.workers[engine].call(figure.group, **{**options, "n": 2})
                    self.workers[engine].pause()
            self.measure(
                figure, lambda engine, r, f=figure, o=options: self._timed(engine, f.group, **o)
            )

    def _fresh_memory(self) -> float:
        """Seconds in which this machine hands out as many bytes as the model has."""
        time.sleep(SETTLE_SECONDS)
        size = Path(self.args.model).stat().st_size
        script = Path(__file__).parent / "fresh_memory.py"
        command = [sys.executable, str(script), str(size), str(self.args.threads)]
        return float(subprocess.run(command, check=True, capture_output=True).stdout)

    def _fresh(
        self, seen: dict[tuple[str, int], dict[str, float]], engine: str, r: int
    ) -> dict[str, float]:
        """The figures of a process of its own, run once per engine and round."""
        if (engine, r) not in seen:
            with Path(self.args.model).open("rb") as file:  # into the page cache
                while file.read(1 << 24):
                    pass
            time.sleep(SETTLE_SECONDS)
            worker = self._spawn(engine)
            try:
                load = self._load(worker)["seconds"]
                first = worker.call("prefill", n=1, seed=2 * r)["seconds"]
                wall = time.perf_counter() - worker.started
                worker.call("prefill", n=512, seed=2 * r + 1)
                peak = worker.call("stats")["peak_rss"]
            finally:
                worker.close()
            seen[engine, r] = {
                "load + 1 token": load + first,
                "process start to 1 token": wall,
                "peak memory": peak / 1e6,
            }
        return seen[engine, r]


def interrupt(number: int, frame: object) -> None:
    """`timeout` and Ctrl-C alike: the figures that are complete are still told.

    `timeout` sends its signal twice; the second must not stop the telling."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    args = arguments()
    if "peer" in args.engines.split(","):
        probe = subprocess.run(
            [args.peer_python, "-c", "import llama_cpp"], capture_output=True, check=False
        )
        if probe.returncode != 0:
            progress(
                f"{args.peer_python} has no llama_cpp: install the bench extra there, "
                "or pass --engines freehold"
            )
            return 2
    signal.signal(signal.SIGTERM, interrupt)
    signal.signal(signal.SIGINT, interrupt)
    result = header("engine")
    bench = Bench(args)
    began = time.perf_counter()
    interrupted = False
    try:
        bench.run()
    except WorkerError as error:
        progress(f"bench_engine.py: {error}")
        return 1
    except KeyboardInterrupt:
        interrupted = True
        progress("interrupted: only the figures completed so far follow")
    finally:
        bench.close()
    path = Path(args.model)
    result.update(
        model={"file": path.name, "bytes": path.stat().st_size},
        threads=args.threads,
        rounds=args.rounds,
        engines=bench.versions,
        figures=bench.figures,
        wall_seconds=time.perf_counter() - began,
        interrupted=interrupted,
    )
    show(bench.figures, bench.engines, FOREIGN_SHARE)
    finish(result, args.output)
    return 1 if interrupted else 0


if __name__ == "__main__":
    raise SystemExit(main())
