# SPDX-License-Identifier: Apache-2.0
"""Makes a model that knows a set of labels: the built-in one, trained on on a table of texts.

What scoring labels costs depends on how many of them a model finds possible. The built-in model
was not taught them and finds all of them possible; a model that was taught finds few.

    python tune_labels.py --train train.csv --labels labels.txt --out build/bench/labels.gguf

The table has the columns `text` and `category`. Rows hold the instruction with the labels once and
some forty texts with their answers behind it, none of which sees another: four epochs of ten
thousand texts took 20 minutes (`--compile --threads 1`, beside other work). Needs PyTorch.
"""

from __future__ import annotations

import argparse
import csv
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import progress
from freehold.documents import prompts
from recipes.seedling.example import Example
from recipes.seedling.export import export_directory, export_gguf
from recipes.seedling.model import Seedling
from recipes.seedling.settings import BUDGETS
from recipes.seedling.shipped import load_weights, read_tokenizer
from recipes.seedling.tokenizer import encode_examples

BUILT_IN = Path(__file__).resolve().parents[1] / "src/freehold/builtin/seedling.gguf"
ROWS, ROW_TOKENS = 2, 2048
RATES = 0.012, 0.003  # of Muon and AdamW
Segment = tuple[list[int], int]  # ids of a text with its answer, and how many of them are asked


def segments(
    table: Path, labels: Sequence[str], tokenizer: object
) -> tuple[list[int], list[Segment]]:
    """The ids that all conversations begin with, and what is left of each."""
    with table.open(encoding="utf-8", newline="") as file:
        made = [
            Example(
                "classify", "text", tuple(prompts.classify(row["text"], labels)), row["category"]
            )
            for row in csv.DictReader(file)
        ]
    encoded = encode_examples(tokenizer, made)  # type: ignore[arg-type]
    first = encoded[0][0]
    shared = min(
        next((i for i, (a, b) in enumerate(zip(first, ids, strict=False)) if a != b), len(first))
        for ids, _ in encoded[1:]
    )
    return first[:shared], [(ids[shared:], asked - shared) for ids, asked in encoded]


def rows(prefix: list[int], parts: Sequence[Segment]) -> Iterator[list[Segment]]:
    """Texts that go behind one instruction."""
    row: list[Segment] = []
    room = ROW_TOKENS - len(prefix)
    for part in parts:
        if len(part[0]) > room:
            yield row
            row, room = [], ROW_TOKENS - len(prefix)
        row.append(part)
        room -= len(part[0])
    yield row


def batch(
    prefix: list[int], group: Sequence[list[Segment]]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ids and positions [rows, time], -inf where a token does not look, and where answers are."""
    ids = np.zeros((len(group), ROW_TOKENS), np.int64)
    places, owner = np.zeros_like(ids), np.full_like(ids, -1)
    answers = np.zeros(ids.shape, bool)
    for r, row in enumerate(group):
        ids[r, : len(prefix)], places[r, : len(prefix)] = prefix, np.arange(len(prefix))
        owner[r, : len(prefix)] = 0
        at = len(prefix)
        for n, (part, asked) in enumerate(row, 1):
            end = at + len(part)
            ids[r, at:end], places[r, at:end] = part, len(prefix) + np.arange(len(part))
            owner[r, at:end] = n
            answers[r, at + asked : end] = True
            at = end
    mine = (owner[:, None] == owner[..., None]) | (owner[:, None] == 0)
    sees = mine & np.tri(ROW_TOKENS, dtype=bool)
    hidden = torch.zeros(sees.shape).masked_fill_(torch.from_numpy(~sees), -torch.inf)
    return torch.from_numpy(ids), torch.from_numpy(places), hidden, torch.from_numpy(answers)


def tune(
    model: Seedling, prefix: list[int], parts: list[Segment], epochs: int, *, compiled: bool
) -> None:
    """Train on all texts, in another order each time; rates fall to zero."""
    if compiled:
        model.compile_blocks()
    named = list(model.named_parameters())
    matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in named if p.ndim < 2 or "embed" in name]
    optimisers = [
        torch.optim.Muon(matrices, lr=RATES[0]), torch.optim.AdamW(others, lr=RATES[1]),
    ]  # fmt: skip
    random = np.random.default_rng(7)
    order = [[parts[i] for i in random.permutation(len(parts))] for _ in range(epochs)]
    packed = [row for epoch in order for row in rows(prefix, epoch)]
    groups = [packed[at : at + ROWS] for at in range(0, len(packed), ROWS)]
    for step, group in enumerate(groups):
        ids, places, hidden, answers = batch(prefix, group)
        with torch.autocast("cpu", torch.bfloat16):
            states = model.hidden(ids, places[:, None], hidden[:, None].bfloat16())
            r, c = torch.nonzero(answers, as_tuple=True)
            logits = model.logits(states[r, c - 1])
        loss = F.cross_entropy(logits, ids[r, c])
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser, rate in zip(optimisers, RATES, strict=True):
            for each in optimiser.param_groups:
                each["lr"] = rate * min(1.0, (step + 1) / 10) * (1 - step / len(groups))
            optimiser.step()
            optimiser.zero_grad()
        if step % 20 == 0:
            progress(f"{step} of {len(groups)} steps, loss {float(loss.detach()):.3f}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--train", type=Path, required=True, help="CSV with text and category")
    parser.add_argument("--labels", type=Path, required=True, help="a file with a label per line")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--compile", action="store_true", help="faster; needs a C++ compiler")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    budget = BUDGETS["seedling"]
    tokenizer = read_tokenizer(BUILT_IN)
    model = Seedling(budget.shape)
    load_weights(model, BUILT_IN)
    labels = [line for line in args.labels.read_text("utf-8").split("\n") if line.strip()]
    prefix, parts = segments(args.train, labels, tokenizer)
    progress(f"{len(parts)} texts behind {len(prefix)} tokens of instruction")
    tune(model, prefix, parts, args.epochs, compiled=args.compile)
    with tempfile.TemporaryDirectory() as folder:
        state = {name: value.detach() for name, value in model.state_dict().items()}
        torch.save({"budget": budget.to_json(), "model": state}, Path(folder, "last.pt"))
        export_directory(Path(folder, "last.pt"), tokenizer, Path(folder, "hf"))
        export_gguf(Path(folder, "hf"), budget, {"Q8_0": args.out})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
