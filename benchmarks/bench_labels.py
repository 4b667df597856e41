# SPDX-License-Identifier: Apache-2.0
"""How right labels without decoding are, and how rightly sure: `python bench_labels.py`.

Held-out documents of the built-in model's recipe, each with its own labels, asked in the words of
the document tasks. Beside decoding, the likelihoods of `LLM.classify` as they are, by token, and
with content-free calibration, each also with a temperature fitted on the other half. Accuracy, mean
negative log-probability of the right label, and expected calibration error over ten bins.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from freehold import LLM
from freehold.documents import classify, prompts
from freehold.server.scoring.classification import CONTENT_FREE
from recipes.seedling.evaluate import held_out
from recipes.seedling.settings import EVALUATION_SEED

TEMPERATURES = np.geomspace(0.25, 64, 65)
WAYS = {
    "likelihood": {},
    "by token": {"normalization": "tokens"},
    "content-free": {"calibration": True},
    "content-free, by token": {"calibration": True, "normalization": "tokens"},
}


def log_chances(llm: LLM, text: str, labels: Sequence[str], way: dict[str, Any]) -> np.ndarray:
    """Natural logarithms of the labels' probabilities."""

    def prompt(document: str) -> list[int]:
        return llm.answer_start(prompts.classify(document, labels))

    free = [prompt(text) for text in CONTENT_FREE] if way.get("calibration") else []
    found = llm.classify(
        prompt(text), labels, ends=True, content_free=free,
        normalization=way.get("normalization", "none"),
    )  # fmt: skip
    return np.log(np.maximum([score.probability for score in found.scores], 1e-300))


def softened(logs: np.ndarray, temperature: float) -> np.ndarray:
    powers = np.exp((logs - logs.max()) / temperature)
    return powers / powers.sum()


def loss(rows: Sequence[tuple[np.ndarray, int]], temperature: float) -> float:
    """Mean negative log-probability of the right label."""
    return float(np.mean([-np.log(max(softened(r, temperature)[i], 1e-300)) for r, i in rows]))


def calibration_error(rows: Sequence[tuple[float, bool]]) -> float:
    """Mean distance between how sure and how right, over ten bins of sureness."""
    bins: dict[int, list[tuple[float, bool]]] = {}
    for sure, right in rows:
        bins.setdefault(min(9, int(sure * 10)), []).append((sure, right))
    return sum(
        abs(sum(s for s, _ in each) - sum(r for _, r in each)) for each in bins.values()
    ) / len(rows)


def measured(rows: list[tuple[np.ndarray, int]]) -> dict[str, float]:
    """As it is, and with a temperature that the other half of the documents chose."""
    halves = rows[::2], rows[1::2]
    fitted = [min(TEMPERATURES, key=lambda t, half=half: loss(half, t)) for half in halves]
    plain = [(softened(logs, 1.0), i) for logs, i in rows]
    mended = [
        (softened(logs, temperature), i)
        for half, temperature in zip(halves, reversed(fitted), strict=True)
        for logs, i in half
    ]

    def error(chances: list[tuple[np.ndarray, int]]) -> float:
        return calibration_error([(float(c.max()), int(c.argmax()) == i) for c, i in chances])

    return {
        "accuracy": float(np.mean([int(c.argmax()) == i for c, i in plain])),
        "loss": loss(rows, 1.0),
        "error": error(plain),
        "temperature": float(np.mean(fitted)),
        "mended_loss": float(np.mean([-np.log(max(c[i], 1e-300)) for c, i in mended])),
        "mended_error": error(mended),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Labels without decoding, on held-out documents.")
    parser.add_argument("--model", default="seedling")
    parser.add_argument("--count", type=int, default=400, help="documents")
    parser.add_argument("--threads", type=int)
    given = parser.parse_args()
    documents = [
        (text, example.facts["labels"], example.facts["labels"].index(example.answer))
        for example in held_out("classify", 4 * given.count, EVALUATION_SEED)
        if (text := example.messages[-1]["content"].partition("\n\n")[2])
        and example.messages[-1]["content"].startswith("Classify the document.")
    ][: given.count]
    result: dict[str, Any] = {"model": given.model, "documents": len(documents), "ways": {}}
    with LLM(given.model, threads=given.threads) as llm:
        began = time.perf_counter()
        answers = [classify(llm, [text], labels)[0].value for text, labels, _ in documents]
        seconds = time.perf_counter() - began
        right = [a == labels[i] for a, (_, labels, i) in zip(answers, documents, strict=True)]
        result["decoded"] = {"accuracy": float(np.mean(right)), "seconds": round(seconds, 1)}
        print("| way | right | −log p | error | fitted temperature | −log p | error |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        print(f"| decoding | {np.mean(right):.1%} | | | | | |")
        for name, way in WAYS.items():
            began = time.perf_counter()
            rows = [(log_chances(llm, text, labels, way), i) for text, labels, i in documents]
            found = measured(rows)
            result["ways"][name] = found | {"seconds": round(time.perf_counter() - began, 1)}
            first = f"{found['loss']:.3f} | {found['error']:.3f} | {found['temperature']:.2f}"
            then = f"{found['mended_loss']:.3f} | {found['mended_error']:.3f}"
            print(f"| {name} | {found['accuracy']:.1%} | {first} | {then} |")
    print(json.dumps(result))


if __name__ == "__main__":
    main()
