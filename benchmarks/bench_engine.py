# SPDX-License-Identifier: Apache-2.0
"""freehold beside llama.cpp: same file, same threads, one run, alternating rounds.

Each engine lives in a worker process that stays loaded; every round asks freehold, llama.cpp
with weight repacking and llama.cpp without it for the same figure, so that a slow moment of the
machine hits all of them. The ratio is against the better of the two llama.cpp settings, chosen
per figure. See README.md in this folder for the traps.

    python bench_engine.py --model model.gguf --peer-python /path/to/venv/bin/python
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
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
    table,
)

GROUPS = ("prefill", "decode", "streams", "load", "memory")
ENGINES: dict[str, tuple[str, dict[str, Any]]] = {
    "freehold": ("worker_freehold.py", {}),
    "llama.cpp repack": ("worker_llama_cpp.py", {"repack": True}),
    "llama.cpp plain": ("worker_llama_cpp.py", {"repack": False}),
}
CONTEXT = 4096  # positions of the cache in every engine; part of the peak memory of each
STREAM_PROMPT = 128
STREAM_TOKENS = 32
# Share of the machine's processor time that other processes may take during one measurement
# before it is repeated. /proc/stat counts in 10 ms steps, so short measurements read high.
FOREIGN_SHARE = 0.03


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a GGUF file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(GROUPS), help=f"of {','.join(GROUPS)}")
    parser.add_argument("--engines", default="freehold,peer", help="freehold, peer or both")
    parser.add_argument("--peer-python", default=sys.executable, help="has llama_cpp installed")
    parser.add_argument("--backend", default="cpu", help="freehold backend")
    parser.add_argument("--prefill", type=int, nargs="+", default=[128, 512, 2048])
    parser.add_argument("--depth", type=int, nargs="+", default=[0, 2048])
    parser.add_argument("--decode", type=int, default=32, help="tokens timed per round")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 4, 8, 16])
    parser.add_argument(
        "--patience", type=int, default=2, help="repeats of a figure disturbed by other processes"
    )
    parser.add_argument("--output", help="also write the JSON line here")
    args = parser.parse_args()
    unknown = set(args.only.split(",")) - set(GROUPS)
    if unknown:
        parser.error(f"--only knows {', '.join(GROUPS)}, not {', '.join(sorted(unknown))}")
    if not Path(args.model).is_file():
        parser.error(f"no such file: {args.model}")
    if args.rounds < 1 or args.threads < 1:
        parser.error("--rounds and --threads must be at least 1")
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
        self.limits: list[dict[str, float]] = []
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
    def _measure_limits(self) -> None:
        if "freehold" in self.workers:
            reply = self.workers["freehold"].call("limits")
            self.limits.append(reply["limits"])
            self.workers["freehold"].pause()

    def limit(self, key: str) -> float | None:
        """Median of a limit over the run, or None where the backend cannot measure it."""
        values = [limits[key] for limits in self.limits if limits.get(key)]
        return median(values) if values else None

    def rounds(
        self, name: str, unit: str, one: Callable[[str, int], float], *, higher: bool = True
    ) -> dict[str, Any]:
        """Ask every engine in turn, `rounds` times, the first engine changing each round."""
        values: dict[str, list[float]] = {engine: [] for engine in self.engines}
        self.foreign = []
        for r in range(self.args.rounds):
            shift = r % len(self.engines)
            for engine in self.engines[shift:] + self.engines[:shift]:
                values[engine].append(one(engine, r))
        medians = {engine: median(numbers) for engine, numbers in values.items()}
        peers = [engine for engine in self.engines if engine != "freehold"]
        figure: dict[str, Any] = {
            "name": name,
            "unit": unit,
            "higher_is_better": higher,
            "values": values,
            "median": medians,
        }
        if self.foreign:
            figure["foreign_cpu"] = median(self.foreign)
        if peers:
            figure["best_peer"] = (max if higher else min)(peers, key=medians.__getitem__)
        if peers and "freehold" in medians:
            ours, theirs = medians["freehold"], medians[figure["best_peer"]]
            figure["ratio"] = ours / theirs if higher else theirs / ours
        self.figures.append(figure)
        progress(f"{name}: " + ", ".join(f"{e} {m:.4g}" for e, m in medians.items()) + f" {unit}")
        return figure

    def _timed(self, engine: str, op: str, **options: Any) -> float:
        """Tokens per second of the least disturbed of up to 1 + patience tries."""
        worker = self.workers[engine]
        best, least = 0.0, float("inf")
        for _ in range(1 + self.args.patience):
            if op in ("prefill", "streams"):
                self.seed += 1
                options["seed"] = self.seed
            busy, began = busy_seconds(), time.perf_counter()
            reply = worker.call(op, **options)
            foreign = busy_seconds() - busy - reply["cpu_seconds"]
            foreign /= (time.perf_counter() - began) * self.cores
            if foreign < least:
                best, least = float(reply["tokens"] / reply["seconds"]), foreign
            if foreign <= FOREIGN_SHARE:
                break
        worker.pause()
        self.foreign.append(max(least, 0.0))
        return best

    def prefill(self) -> None:
        for n in self.args.prefill:
            self._measure_limits()
            self.rounds(
                f"prefill {n}",
                "tok/s",
                lambda engine, r, n=n: self._timed(engine, "prefill", n=n),
            )

    def decode(self) -> None:
        for depth in self.args.depth:
            for engine in self.engines:  # fill the cache before the clock matters
                self._timed(engine, "decode", depth=depth, n=4)

            def one(engine: str, r: int, depth: int = depth) -> float:
                if engine == self.engines[0]:
                    self._measure_limits()
                return self._timed(engine, "decode", depth=depth, n=self.args.decode)

            self.rounds(f"decode at {depth}", "tok/s", one)

    def streams(self) -> None:
        for streams in self.args.streams:
            self._measure_limits()
            self.rounds(
                f"{streams} stream{'s' if streams > 1 else ''}",
                "tok/s",
                lambda engine, r, streams=streams: self._timed(
                    engine,
                    "streams",
                    streams=streams,
                    prompt=STREAM_PROMPT,
                    n=STREAM_TOKENS,
                ),
            )

    def load_and_memory(self, groups: set[str]) -> None:
        """Fresh processes: seconds of load and one token, and the peak of resident memory."""
        seen: dict[tuple[str, int], dict[str, float]] = {}

        def fresh(engine: str, r: int) -> dict[str, float]:
            if (engine, r) not in seen:
                with Path(self.args.model).open("rb") as file:  # into the page cache
                    while file.read(1 << 24):
                        pass
                worker = self._spawn(engine)
                try:
                    load = self._load(worker)["seconds"]
                    first = worker.call("prefill", n=1, seed=r)["seconds"]
                    wall = time.perf_counter() - worker.started
                    worker.call("prefill", n=512, seed=r)
                    peak = worker.call("stats")["peak_rss"]
                finally:
                    worker.close()
                seen[engine, r] = {"load": load + first, "wall": wall, "peak": peak / 1e6}
            return seen[engine, r]

        if "load" in groups:
            self.rounds("load + 1 token", "s", lambda e, r: fresh(e, r)["load"], higher=False)
            self.rounds("process start to 1 token", "s", lambda e, r: fresh(e, r)["wall"],
                        higher=False)  # fmt: skip
        if "memory" in groups:
            self.rounds("peak memory", "MB", lambda e, r: fresh(e, r)["peak"], higher=False)

    # -- limits ----------------------------------------------------------------------------
    def add_shares(self) -> None:
        """Put the limit and freehold's share of it beside the figures that have one."""
        int8, read = self.limit("int8_ops"), self.limit("read_bytes")
        attention = self.limit("attention_flops")
        if self.shape is None or not int8 or not read or not attention:
            return
        for figure in self.figures:
            words = figure["name"].split()
            if words[0] == "prefill":
                limit = self.shape.prefill_limit(int(words[1]), int8, attention)
            elif words[0] == "decode":
                limit = self.shape.decode_limit(int(words[2]), 1, read, int8)
            elif words[-1].startswith("stream"):
                depth = STREAM_PROMPT + STREAM_TOKENS // 2
                limit = self.shape.decode_limit(depth, int(words[0]), read, int8)
            else:
                continue
            figure["limit"] = limit
            figure["share"] = {e: value / limit for e, value in figure["median"].items()}


def show(bench: Bench) -> None:
    """The table for people."""
    rows = []
    for figure in bench.figures:
        cells = [figure["name"], figure["unit"]]
        for engine in bench.engines:
            low, high = min(figure["values"][engine]), max(figure["values"][engine])
            cells.append(f"{figure['median'][engine]:.4g} [{low:.4g}..{high:.4g}]")
        cells.append(f"{figure['ratio']:.2f}x" if "ratio" in figure else "-")
        cells.append(f"{figure['limit']:.4g}" if "limit" in figure else "-")
        share = figure.get("share", {}).get("freehold")
        cells.append(f"{100 * share:.0f} %" if share is not None else "-")
        foreign = figure.get("foreign_cpu")
        cells.append(f"{100 * foreign:.0f} %" if foreign is not None else "-")
        rows.append(cells)
    say(table(["figure", "unit", *bench.engines, "ratio", "limit", "share", "foreign"], rows))
    say("ratio: freehold against the better llama.cpp setting, above 1 is better for freehold")
    say("share: freehold's part of the limit; foreign: processor time other processes took")
    disturbed = [f["name"] for f in bench.figures if f.get("foreign_cpu", 0) > FOREIGN_SHARE]
    if disturbed:
        say(f"DISTURBED, no evidence: {', '.join(disturbed)} (repeat on a quiet machine)")


def interrupt(number: int, frame: object) -> None:
    """`timeout` and Ctrl-C alike: the figures that are complete are still told.

    `timeout` sends its signal twice; the second must not stop the telling."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def main() -> int:
    args = arguments()
    groups = set(args.only.split(","))
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
        if groups & {"prefill", "decode", "streams"}:
            bench.start()
        for group in ("prefill", "decode", "streams"):
            if group in groups:
                getattr(bench, group)()
        if groups & {"load", "memory"}:
            bench.load_and_memory(groups)
    except WorkerError as error:
        progress(f"bench_engine.py: {error}")
        return 1
    except KeyboardInterrupt:
        interrupted = True
        progress("interrupted: only the figures completed so far follow")
    finally:
        bench.close()
    bench.add_shares()
    path = Path(args.model)
    result.update(
        model={"file": path.name, "bytes": path.stat().st_size},
        threads=args.threads,
        rounds=args.rounds,
        engines=bench.versions,
        limits={key: bench.limit(key) for key in ("int8_ops", "attention_flops", "read_bytes")},
        figures=bench.figures,
        wall_seconds=time.perf_counter() - began,
        interrupted=interrupted,
    )
    show(bench)
    finish(result, args.output)
    return 1 if interrupted else 0


if __name__ == "__main__":
    raise SystemExit(main())
