# SPDX-License-Identifier: Apache-2.0
"""What it costs to hold answers to a form, with one stream and with many.

Three kinds of answers of the same model take turns: free ones; ones where a mask says at every
token what may come, and the model still chooses each (`masked`); and JSON by a schema, most of
whose text is forced (`json`). Tokens per second of the kinds are compared within a round, so that a
slow moment of the machine is everybody's.

    python bench_forms.py --model llama-1b-words.gguf --streams 1,16
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import random_vocabulary
from common import finish, header, progress, say, table
from freehold import LLM, SamplingParams
from freehold.types import Constraint

LETTERS = random_vocabulary.LETTERS
# Words of two letters: what this vocabulary writes, so that hardly anything is forced.
MASKED = Constraint("regex", f"( [{LETTERS[0]}-{LETTERS[-1]}]{{2}})+")
WORD = {"type": "string", "pattern": f"^[{LETTERS[0]}-{LETTERS[-1]}]{{8}}$"}
JSON = Constraint(
    "json_schema",
    {
        "type": "object",
        "properties": {
            "customer_name": WORD,
            "order_number": {"type": "integer", "minimum": 1000, "maximum": 9999},
            "category": {"enum": ["billing", "shipping", "warranty", "other"]},
            "is_urgent": {"type": "boolean"},
            "summary": {**WORD, "pattern": f"^[{LETTERS[0]}-{LETTERS[-1]}]{{16}}$"},
        },
        "required": ["customer_name", "order_number", "category", "is_urgent", "summary"],
        "additionalProperties": False,
    },
)
KINDS: dict[str, Constraint | None] = {"free": None, "masked": MASKED, "json": JSON}


def measure(llm: LLM, kind: str, streams: int, args: argparse.Namespace, seed: int) -> Any:
    """Tokens per second, prompts included, and what else the engine counted."""
    form = KINDS[kind]
    prompts = [random_vocabulary.words(args.prompt, f"{seed} {i}") for i in range(streams)]
    tokens = None if kind == "json" else args.tokens
    params = [
        SamplingParams(temperature=1.0, seed=seed + i, max_tokens=tokens, ignore_eos=kind != "json")
        for i in range(streams)
    ]
    before, cpu = llm.engine.stats.snapshot(), time.process_time()
    started = time.perf_counter()
    answers = llm.generate(prompts, params, constraint=form)
    seconds = time.perf_counter() - started
    after = llm.engine.stats
    made = sum(len(answer.token_ids) for answer in answers)
    progress(f"{streams} streams, {kind}: {made / seconds:.1f} tokens/s")
    return {
        "tokens": made,
        "seconds": seconds,
        "rate": made / seconds,
        "cpu": (time.process_time() - cpu) / made,
        "forced": (after.forced_tokens - before.forced_tokens) / made,
        "outside": (after.outside_seconds - before.outside_seconds) / (after.steps - before.steps),
        "steps": after.steps - before.steps,
    }


def compare(llm: LLM, streams: int, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Rounds of all kinds in turn; a figure for each kind."""
    runs: dict[str, list[Any]] = {kind: [] for kind in KINDS}
    for form in KINDS.values():  # compiles the grammars
        llm.generate("a", SamplingParams(max_tokens=2), constraint=form)
    for round_number in range(args.rounds):
        for kind in KINDS:
            runs[kind].append(measure(llm, kind, streams, args, 1000 * round_number))
    figures = []
    for kind, each in runs.items():
        free = runs["free"]
        ratios = [run["rate"] / base["rate"] for run, base in zip(each, free, strict=True)]
        cpu = [run["cpu"] / base["cpu"] for run, base in zip(each, free, strict=True)]
        figures.append({
            "kind": kind,
            "streams": streams,
            "tokens_per_second": statistics.median(run["rate"] for run in each),
            "to_free": statistics.median(ratios),
            "to_free_of_rounds": ratios,
            "cpu_to_free": statistics.median(cpu),
            "forced_share": statistics.median(run["forced"] for run in each),
            "outside_ms_per_step": 1000 * statistics.median(run["outside"] for run in each),
            "tokens_per_step": statistics.median(run["tokens"] / run["steps"] for run in each),
        })  # fmt: skip
    return figures


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", required=True, help="a GGUF file made with --words")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--streams", default="1,16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompt", type=int, default=16, help="tokens")
    parser.add_argument("--tokens", type=int, default=64, help="of answers without an end")
    parser.add_argument("--output", help="also write the JSON line here")
    args = parser.parse_args()
    args.streams = [int(part) for part in args.streams.split(",")]
    if not Path(args.model).is_file():
        parser.error(f"no such file: {args.model}")
    return args


def main() -> int:
    args = arguments()
    result = header("forms")
    figures: list[dict[str, Any]] = []
    with LLM(args.model, threads=args.threads, context_length=1024,
             max_num_seqs=max(args.streams), prefix_caching=False) as llm:  # fmt: skip
        for streams in args.streams:
            figures += compare(llm, streams, args)
    rows = [
        ["streams", "answers", "tokens/s", "to free", "CPU to free", "forced", "outside the model"]
    ]
    for f in figures:
        rows.append(
            [str(f["streams"]), f["kind"], f"{f['tokens_per_second']:.1f}", f"{f['to_free']:.3f}",
             f"{f['cpu_to_free']:.3f}", f"{100 * f['forced_share']:.0f} %",
             f"{f['outside_ms_per_step']:.2f} ms/step"]
        )  # fmt: skip
    say(table(rows[0], rows[1:]))
    result["figures"] = figures
    finish(result, args.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
