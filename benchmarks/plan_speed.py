# SPDX-License-Identifier: Apache-2.0
"""Predicted speed beside real speed, before calibration and after it.

    python plan_speed.py --models DIR [--rounds 3] [--out FILE]

Every model is run several times, in turns, so that a change of the machine meets all of them. Three
predictions are held against the last round: blind ones; calibrated by earlier rounds of the same
models, as on a machine in use; and calibrated by earlier rounds of all *other* models, as for a
model that is new to the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from common import busy_seconds, progress
from freehold.formats.checkpoint import open_checkpoint
from freehold.planner.calibration import Calibration, Phase, Record
from freehold.planner.machine import this_machine
from freehold.planner.probe import measure
from freehold.planner.sizes import ModelSizes, sizes_of
from freehold.planner.speed import decode_seconds, kind_of, load_seconds, prefill_seconds
from plan_models import write_model

WITHIN = 0.25
MODELS = (
    ("llama-1b", "Q4_K_M"), ("smollm-135m", "Q8_0"), ("smollm-135m", "BF16"),
    ("qwen2-0.5b", "Q4_K_M"), ("qwen3-0.6b", "Q4_0"), ("gemma3-270m", "Q4_K_M"),
    ("gemma3-1b", "Q4_K_M"), ("mixtral-small", "Q4_K_M"), ("qwen3moe-small", "Q4_K_M"),
    ("deepseek-small", "Q4_K_M"),
)  # fmt: skip
PROMPT, TOKENS, REPEAT = 128, 32, 4
FOREIGN, TRIES = 0.05, 2  # share of the processors that others may take before a run is repeated
PHASES: tuple[Phase, ...] = ("load", "prefill", "decode")


def run(path: Path) -> dict[str, float]:
    """Seconds of each phase of one run: the one with the least foreign load, of several where there
    was some."""
    wanted = {
        "model": str(path), "context": PROMPT + TOKENS, "prompt": PROMPT, "tokens": TOKENS,
        "parallel": 1, "kv_dtype": "f16", "repeat": REPEAT,
    }  # fmt: skip
    worker = Path(__file__).parent / "plan_worker.py"
    best: dict[str, float] = {}
    for _ in range(TRIES):
        busy, own, began = busy_seconds(), _children(), time.perf_counter()
        done = subprocess.run(
            [sys.executable, str(worker), json.dumps(wanted)], capture_output=True, text=True
        )
        if done.returncode:
            raise SystemExit(f"{path}: {done.stderr[-2000:]}")
        found = json.loads(done.stdout)
        wall = (time.perf_counter() - began) * len(os.sched_getaffinity(0))
        foreign = max(0.0, (busy_seconds() - busy - (_children() - own)) / wall)
        if not best or foreign < best["foreign"]:
            best = {phase: found[f"{phase}_seconds"] for phase in PHASES} | {"foreign": foreign}
        if foreign <= FOREIGN:
            break
    return best


def _children() -> float:
    """Seconds of processor time that processes started here have taken."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def predicted(sizes: ModelSizes, rates: Any) -> dict[str, float]:
    """Blind predictions of the same."""
    return {
        "load": load_seconds(sizes, rates),
        "prefill": prefill_seconds(sizes, rates, PROMPT),
        "decode": (TOKENS - 1) * decode_seconds(sizes, rates, PROMPT + TOKENS / 2),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", type=Path, required=True, help="where files are and are made")
    parser.add_argument("--rounds", type=int, default=3, help="the last is predicted")
    parser.add_argument("--out", type=Path, help="write the JSON here, too")
    args = parser.parse_args()
    paths = [write_model(args.models, *model) for model in MODELS]
    rates = measure(this_machine(gpus=False), None)
    sizes = []
    for path in paths:
        with open_checkpoint(path) as checkpoint:
            sizes.append(sizes_of(checkpoint))
    rounds = []
    for number in range(args.rounds):
        progress(f"round {number + 1} of {args.rounds}")
        rounds.append([run(path) for path in paths])
    blind = [predicted(each, rates) for each in sizes]
    rows = []
    for phase in PHASES:
        records = [
            (index, Record(phase, kind_of(sizes[index]), blind[index][phase], found[phase]))
            for earlier in rounds[:-1]
            for index, found in enumerate(earlier)
            if found["foreign"] <= FOREIGN  # as the recorder leaves out a machine that others use
        ]
        for index, path in enumerate(paths):
            kind, real = kind_of(sizes[index]), rounds[-1][index][phase]
            same = Calibration(r for _, r in records).factor(phase, kind)
            new = Calibration(r for i, r in records if i != index).factor(phase, kind)
            told = blind[index][phase]
            # Of rates, as people read them: above 0 is faster than it was.
            rows.append(
                {
                    "model": path.stem, "phase": phase, "kind": kind, "real": real, "blind": told,
                    "foreign": rounds[-1][index]["foreign"],
                    "off_blind": real / told - 1,
                    "off": real / (told * same.middle) - 1,
                    "off_new": real / (told * new.middle) - 1,
                    "in_range": told * same.low <= real <= told * same.high,
                }
            )  # fmt: skip
    _print(rows)
    decode = [row for row in rows if row["phase"] == "decode"]
    learnt = sum(found["foreign"] <= FOREIGN for earlier in rounds[:-1] for found in earlier)
    if not learnt:
        raise SystemExit(
            "plan_speed.py: other work disturbed every run that could have been learnt from, so "
            "nothing was calibrated; run it again on a quiet machine"
        )
    summary = {
        "learnt_from": learnt,
        "read_gbps": rates.read / 1e9, "int8_gops": rates.int8 / 1e9,
        "fill_gbps": rates.fill / 1e9, "limit": WITHIN, "of": len(decode),
        **{
            f"{phase}_{name}": sum(
                abs(row[key]) <= WITHIN for row in rows if row["phase"] == phase
            )
            for phase in PHASES
            for name, key in (("blind", "off_blind"), ("within", "off"), ("new", "off_new"))
        },
        "foreign": statistics.median(row["foreign"] for row in decode),
        "median_decode_off": statistics.median(abs(row["off"]) for row in decode),
    }  # fmt: skip
    if args.out:
        args.out.write_text(json.dumps({**summary, "rows": rows}, indent=1) + "\n", "utf-8")
    print(json.dumps(summary))
    return 0 if summary["decode_within"] >= 0.9 * len(decode) else 1


def _print(rows: list[dict[str, Any]]) -> None:
    print(f"{'':<24} {'phase':<8} {'real s':>8} {'blind':>8} {'known':>8} {'new':>8}  in range")
    for row in rows:
        cells = " ".join(f"{row[key]:>+8.0%}" for key in ("off_blind", "off", "off_new"))
        print(
            f"{row['model']:<24} {row['phase']:<8} {row['real']:>8.2f} {cells}  "
            f"{'yes' if row['in_range'] else 'no'}"
        )


if __name__ == "__main__":
    raise SystemExit(main())
