# SPDX-License-Identifier: Apache-2.0
"""`freehold bench`: speed of a model on this machine, beside what the machine allows.

Drives the engine that serves every other command with made-up tokens, so it needs no tokenizer.
What is a limit and how much work a token is: `freehold.planner.speed`.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freehold.cli import console, options
from freehold.errors import EngineError, InvalidParameterError
from freehold.types import SamplingParams

if TYPE_CHECKING:
    from freehold.engine.engine import Engine
    from freehold.llm import LLM
    from freehold.planner.machine import Rates
    from freehold.planner.recorder import Recorder
    from freehold.planner.sizes import ModelSizes

_BLOCK = 16
_SLOWEST_PREFILL = 256  # prompt tokens a step takes on at the least, beside decoding streams


@dataclass(frozen=True)
class Case:
    """One row of the table."""

    kind: str  # "prefill" or "decode"
    tokens: int  # prompt tokens, or new tokens per stream
    depth: int = 0  # tokens in the cache before decoding starts
    streams: int = 1

    @property
    def name(self) -> str:
        if self.kind == "prefill":
            return f"prefill {self.tokens}"
        at = f" at {self.depth}" if self.depth else ""
        return f"decode {self.tokens}{at}, {self.streams} stream" + "s" * (self.streams > 1)

    @property
    def positions(self) -> int:
        """Length one sequence reaches."""
        if self.kind == "prefill":
            return self.tokens + 1
        # Steps in which early streams decode while later ones still prefill.
        ahead = -(-self.streams * self.depth // _SLOWEST_PREFILL) + self.streams
        return max(self.depth, 1) + self.tokens + 1 + (ahead if self.streams > 1 else 0)


@options.with_options
def command(
    model: options.Model,
    prefill: Annotated[
        list[str] | None,
        typer.Option("--prefill", help="Prompt lengths, as 128,512 or repeated. Default: 128,512"),
    ] = None,
    decode: Annotated[int, typer.Option("--decode", min=0, help="New tokens; 0 skips it.")] = 64,
    depth: Annotated[
        list[str] | None,
        typer.Option("--depth", help="Tokens in the cache before decoding. Default: 0"),
    ] = None,
    streams: Annotated[
        list[str] | None,
        typer.Option("--streams", help="Sequences decoded at once. Default: 1"),
    ] = None,
    repeat: Annotated[int, typer.Option("--repeat", "-r", min=1, help="Timed runs per row.")] = 3,
    as_json: options.Json = False,
    engine: options.EngineFlags = options.EngineFlags(),  # noqa: B008 - frozen
) -> None:
    """Measure prefill and decode speed against the machine's limits."""
    cases = [Case("prefill", n) for n in options.int_list(prefill, "--prefill", [128, 512], 0) if n]
    if decode:
        for at in options.int_list(depth, "--depth", [0], 0):
            for count in options.int_list(streams, "--streams", [1], 1):
                cases.append(Case("decode", decode, at, count))
    if not cases:
        raise InvalidParameterError("nothing to measure", hint="raise --prefill or --decode")
    from freehold.planner.probe import rates_of
    from freehold.planner.recorder import Recorder
    from freehold.planner.sizes import sizes_of

    started = time.perf_counter()
    with engine.open(model, skip_tokenizer_init=True) as llm:
        loaded = time.perf_counter() - started
        _check_fits(llm, cases)
        console.note(f"loaded in {loaded:.2f} s; measuring the machine's limits")
        limits, sizes = rates_of(llm.ops), sizes_of(llm.checkpoint, llm.config)
        recorder = Recorder(
            llm.checkpoint, llm.config, backend=llm.ops.name, kv_dtype=engine.kv_type.value
        )
        recorder.load(loaded)
        rows = []
        for number, case in enumerate(cases, 1):
            console.note(f"[{number}/{len(cases)}] {case.name}, {repeat} runs")
            rows.append(_measure(llm, case, repeat, sizes, limits))
            _record(recorder, case, rows[-1]["tokens_per_second"])
        recorder.save()
        report = {
            "model": llm.path,
            "architecture": llm.config.architecture,
            "backend": llm.ops.name,
            "isa": getattr(llm.ops, "isa", None),
            "threads": getattr(llm.ops, "threads", engine.threads),
            "kv_dtype": engine.kv_type.value,
            "load_seconds": loaded,
            "weight_bytes": llm.model.weight_bytes(),
            "limits": limits and {"read_gbps": limits.read / 1e9, "int8_gops": limits.int8 / 1e9},
            "results": rows,
        }
    if as_json:
        console.data_json(report)
    else:
        console.data(_render(report))


def _check_fits(llm: LLM, cases: list[Case]) -> None:
    for case in cases:
        if case.positions > llm.context_length:
            raise InvalidParameterError(
                f"{case.name} needs {case.positions} positions and the context has "
                f"{llm.context_length}",
                hint="use smaller numbers, or raise --context",
            )


def _record(recorder: Recorder, case: Case, rate: float) -> None:
    """Remember a row for later predictions."""
    if case.kind == "prefill":
        recorder.prefill(case.tokens, case.tokens / rate)
    else:
        seconds = case.tokens * case.streams / rate
        recorder.decode(case.tokens, max(case.depth, 1), seconds, streams=case.streams)


def _measure(
    llm: LLM, case: Case, repeat: int, sizes: ModelSizes, limits: Rates | None
) -> dict[str, Any]:
    """Median rate of `repeat` runs after one that warms up, and its share of the limit."""
    from freehold.planner.speed import decode_work, prefill_work

    run: Callable[[LLM, Engine, Case], float] = _prefill if case.kind == "prefill" else _decode
    per_stream = -(-case.positions // _BLOCK) + 1
    engine = llm.make_engine(
        context_length=case.positions,
        max_num_seqs=case.streams,
        num_blocks=per_stream * case.streams + 1,
        kv_memory_bytes=None,
        prefix_caching=False,
    )
    seconds = [run(llm, engine, case) for _ in range(repeat + 1)][1:]
    if engine.stats.preemptions:
        raise EngineError("a sequence was preempted during the measurement")
    made = case.tokens * (1 if case.kind == "prefill" else case.streams)
    dtype = engine.config.kv_dtype
    if case.kind == "prefill":
        work = prefill_work(sizes, case.tokens, kv_dtype=dtype)
    else:
        seen = max(case.depth, 1) + (case.tokens + 1) / 2
        work = decode_work(sizes, seen, streams=case.streams, kv_dtype=dtype)
    rates = [made / s for s in seconds]
    rate = statistics.median(rates)
    limit = None if limits is None else 1 / work.seconds(limits)
    return {
        "case": case.name,
        **asdict(case),
        "tokens_per_second": rate,
        "min": min(rates),
        "max": max(rates),
        "runs": repeat,
        "bytes_per_token": work.bytes_per_token,
        "operations_per_token": work.operations_per_token,
        "limit_tokens_per_second": limit,
        "share_of_limit": rate / limit if limit else None,
    }


def _dummy(llm: LLM, length: int) -> Iterator[list[int]]:
    """Different made-up prompts, each different from the first token on."""
    vocab = llm.config.vocab_size
    state = 12345
    while True:
        prompt = []
        for _ in range(length):
            state = (1103515245 * state + 12345) % 2**31
            prompt.append((state >> 8) % vocab)
        yield prompt


def _params(tokens: int) -> SamplingParams:
    return SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)


def _prefill(llm: LLM, engine: Engine, case: Case) -> float:
    """Seconds from handing in a prompt to its first token."""
    prompt = next(_dummy(llm, case.tokens))
    started = time.perf_counter()
    engine.add(prompt, _params(1))
    while engine.has_unfinished():
        engine.step()
    return time.perf_counter() - started


def _decode(llm: LLM, engine: Engine, case: Case) -> float:
    """Seconds for `case.tokens` more tokens of every stream once all of them decode."""
    prompts = _dummy(llm, max(case.depth, 1))
    # Streams that are ready early go on decoding while the last ones prefill; all are given
    # room for that, and stopped when enough tokens were timed.
    ids = [engine.add(next(prompts), _params(case.positions)) for _ in range(case.streams)]
    waiting = set(ids)
    while waiting:
        waiting -= {output.request_id for output in engine.step() if output.new_token_ids}
    wanted = case.tokens * case.streams
    timed = 0
    started = time.perf_counter()
    while timed < wanted and engine.has_unfinished():
        timed += sum(len(output.new_token_ids) for output in engine.step())
    seconds = time.perf_counter() - started
    for request_id in ids:
        engine.abort(request_id)
    while engine.has_unfinished():
        engine.step()
    if timed < wanted:
        raise EngineError(f"only {timed} of {wanted} tokens could be timed")
    return seconds * wanted / timed


def _render(report: dict[str, Any]) -> str:
    head = (
        f"model: {report['model']}\n"
        f"engine: {report['backend']}"
        + (f" {report['isa']}, {report['threads']} threads" if report["isa"] else "")
        + f", weights {console.size(report['weight_bytes'])}, cache {report['kv_dtype']}"
    )
    limits = report["limits"]
    if limits:
        head += (
            f"\nmachine: {console.rate(limits['read_gbps'])} GB/s read, "
            f"{console.rate(limits['int8_gops'])} Gop/s int8, measured just now"
        )
    else:
        head += "\nmachine: this backend measures no limits, so no share is shown"
    rows = [["", "tok/s", "from", "to", "limit", "share", "bytes/token", "ops/token"]]
    for row in report["results"]:
        limit, share = row["limit_tokens_per_second"], row["share_of_limit"]
        rows.append(
            [
                row["case"],
                console.rate(row["tokens_per_second"]),
                console.rate(row["min"]),
                console.rate(row["max"]),
                console.rate(limit) if limit else "-",
                f"{share:.0%}" if share else "-",
                console.size(row["bytes_per_token"]),
                console.count(row["operations_per_token"]),
            ]
        )
    table = console.table(rows, right=(1, 2, 3, 4, 5, 6, 7))
    return console.printable(f"{head}\n\n{table}")
