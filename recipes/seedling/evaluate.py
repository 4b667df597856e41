# SPDX-License-Identifier: Apache-2.0
"""Held-out scores of a model file, decoded greedily by freehold itself.

Examples follow from a seed alone and an answer from the file alone, so anyone gets the same counts.
Knows nothing of training; any model that freehold runs can be scored.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from freehold import LLM, SamplingParams
from freehold.model_names import resolve_model
from recipes.seedling.corpus import data_hash, examples
from recipes.seedling.example import Example, Task
from recipes.seedling.scoring import score
from recipes.seedling.settings import EVALUATION_SEED, RECIPE_VERSION

TARGETS: Mapping[str, float] = {
    "classify": 0.95, "extract": 0.90, "summarize": 0.90, "code": 0.80,
}  # fmt: skip
_UNITS = {
    "classify": "documents", "extract": "fields", "summarize": "key facts", "code": "functions",
}  # fmt: skip
_AT_ONCE = 64  # conversations in one batch; fixed, as it is part of what is reproduced
_MAX_TOKENS = 256  # an answer that has not ended by then does not stop by itself


def held_out(task: Task, count: int, seed: int) -> list[Example]:
    """The first `count` held-out examples of a task."""
    return list(examples("heldout", seed, count, tasks=[task]))


def score_model(
    model: str | Path, *, count: int, seed: int = EVALUATION_SEED, threads: int | None = None,
    isa: str | None = None, worst: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Scores by task over `count` examples each.

    `worst`: how many failed answers of each task are kept in full.
    """
    path = resolve_model(str(model))
    with LLM(path, threads=threads, isa=isa) as llm:
        tasks = {task: _score_task(llm, task, count, seed, worst) for task in get_args(Task)}
    return {
        "recipe_version": RECIPE_VERSION,
        "model_sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
        "seed": seed,
        "examples_per_task": count,
        "data_sha256": data_hash(seed, count, "heldout"),
        "decoding": "greedy",
        "tasks": {task: values for task, values in tasks.items() if values["examples"]},
    }


def _score_task(llm: LLM, task: Task, count: int, seed: int, worst: int) -> dict[str, Any]:
    asked = held_out(task, count, seed)
    params = SamplingParams(temperature=0.0, max_tokens=_MAX_TOKENS)
    correct = total = whole = stopped = tokens = 0
    failures: list[dict[str, str]] = []
    started = time.perf_counter()
    for example, completion in _answers(llm, asked, params):
        result = score(example, completion.text)
        correct, total = correct + result.correct, total + result.total
        whole += result.whole
        stopped += completion.finish_reason == "stop"
        tokens += len(completion.token_ids)
        if not result.whole and len(failures) < worst:
            failures.append(
                {"asked": example.messages[-1]["content"], "known": example.answer,
                 "answered": completion.text}
            )  # fmt: skip
    values: dict[str, Any] = {
        "examples": len(asked), "correct": correct, "total": total, "whole": whole,
        "stopped": stopped, "answer_tokens": tokens,
        "seconds": round(time.perf_counter() - started, 1),
    }  # fmt: skip
    return values | ({"failures": failures} if worst else {})


def _answers(
    llm: LLM, asked: list[Example], params: SamplingParams
) -> Iterator[tuple[Example, Any]]:
    for start in range(0, len(asked), _AT_ONCE):
        group = asked[start : start + _AT_ONCE]
        yield from zip(group, llm.chat([e.messages for e in group], params), strict=True)


def rate(values: Mapping[str, Any]) -> float:
    """Part of the units that are right."""
    return float(values["correct"]) / max(1, int(values["total"]))


def table(result: Mapping[str, Any]) -> str:
    """The scores as a Markdown table, targets beside figures."""
    lines = [
        "| task | target | reached | units right | answers entirely right | stopped by itself |",
        "|---|---:|---:|---:|---:|---:|",
    ]
    for task, values in result["tasks"].items():
        target = f"≥ {TARGETS[task]:.0%}" if task in TARGETS else "–"
        unit = _UNITS.get(task, "units")
        lines.append(
            f"| {task} | {target} | {rate(values):.1%} | {values['correct']} of {values['total']} "
            f"{unit} | {values['whole'] / values['examples']:.1%} | "
            f"{values['stopped'] / values['examples']:.1%} |"
        )
    return "\n".join(lines)


def differences(
    result: Mapping[str, Any], stored: Mapping[str, Any], tolerance: float
) -> list[str]:
    """What is not as stored: other data, other model, or a score further off than `tolerance`."""
    found = [
        f"{key}: {result.get(key)} is not the stored {stored.get(key)}"
        for key in ("model_sha256", "seed", "examples_per_task", "data_sha256")
        if result.get(key) != stored.get(key)
    ]
    for task in sorted({*result["tasks"], *stored["tasks"]}):
        new, old = result["tasks"].get(task), stored["tasks"].get(task)
        if new is None or old is None:
            found.append(f"{task}: measured on one side only")
            continue
        for name in ("correct", "whole", "stopped"):
            unit = "total" if name == "correct" else "examples"
            if new[unit] != old[unit] or abs(new[name] - old[name]) > tolerance * old[unit]:
                found.append(f"{task}: {name} {new[name]} of {new[unit]}, "
                             f"stored {old[name]} of {old[unit]}")  # fmt: skip
    return found


def write_result(result: Mapping[str, Any], path: Path) -> None:
    """Write scores as JSON, without what changes from machine to machine."""
    kept = dict(result) | {
        "tasks": {
            task: {k: v for k, v in values.items() if k not in ("seconds", "failures")}
            for task, values in result["tasks"].items()
        }
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")
