# SPDX-License-Identifier: Apache-2.0
"""`python -m recipes.seedling STAGE`: each stage of the recipe, or all of them from nothing.

Knows the order of the stages and where each keeps its files under `--out`.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tokenizers import Tokenizer

from recipes.seedling import corpus
from recipes.seedling.evaluate import TARGETS, differences, score_model, table, write_result
from recipes.seedling.example import Example
from recipes.seedling.settings import BUDGETS, DEV_SEED, EVALUATION_SEED, Budget

STAGES = ("all", "tokenizer", "train", "export", "evaluate", "card")
HERE = Path(__file__).parent
STORED_EVALUATION = HERE / "evaluation.json"


def training_examples(seed: int, count: int) -> Iterator[Example]:
    """The training split, as the stream of batches asks for it."""
    return corpus.examples("train", seed, count)


def development_examples(count: int) -> list[Example]:
    """Held-out examples of each task that a run watches; not those of the card."""
    return [
        example
        for task in TARGETS
        if task in corpus.MIXTURE
        for example in corpus.examples("heldout", DEV_SEED, count, tasks=[task])  # type: ignore[list-item]
    ]


def make_tokenizer(out: Path, budget: Budget) -> Tokenizer:
    """Train and store the tokenizer."""
    from recipes.seedling.tokenizer import save_tokenizer, text_of, train_tokenizer

    seed = budget.seed * 1_000_000 + 999_999
    texts = [
        text
        for example in training_examples(seed, budget.tokenizer_examples)
        for text in text_of(example)
    ]
    tokenizer = train_tokenizer(texts, budget.shape.vocab)
    save_tokenizer(tokenizer, out / "tokenizer.json")
    return tokenizer


def train(out: Path, budget: Budget, args: argparse.Namespace) -> None:
    """Train into `out/run`, from the beginning or from its checkpoint."""
    import torch

    from recipes.seedling.tokenizer import load_tokenizer
    from recipes.seedling.train import LAST, Trainer, resume_point

    if args.threads:
        torch.set_num_threads(args.threads)
    if args.start_from is not None:
        # It has learnt to look back and to read short examples.
        budget = replace(budget, drill_share=0.0, short_share=0.0)
    tokenizer = load_tokenizer(out / "tokenizer.json")
    trainer = Trainer(
        budget, tokenizer, training_examples, out / "run",
        dev=development_examples(budget.dev_examples), device=args.device, dtype=args.dtype,
        compiled=args.compile,
    )  # fmt: skip
    if args.start_from is not None and not (out / "run" / LAST).exists():
        from recipes.seedling.shipped import load_weights

        load_weights(trainer.model, args.start_from)
    if args.resume:
        point = resume_point(out / "run", budget)
        if point is not None:
            trainer.load(point)
    elif (out / "run" / LAST).exists():
        raise SystemExit(f"{out / 'run'} holds a run: go on with --resume, or name another --out")
    trainer.run()


def export(out: Path, average_with: Path | None, share: float) -> None:
    """Write `out/hf` and `out/seedling.gguf` from the last checkpoint, or from its mean with a
    published file."""
    from recipes.seedling.export import export_directory, export_gguf
    from recipes.seedling.tokenizer import load_tokenizer
    from recipes.seedling.train import LAST

    tokenizer = load_tokenizer(out / "tokenizer.json")
    budget = export_directory(out / "run" / LAST, tokenizer, out / "hf", average_with, share)
    export_gguf(out / "hf", budget, {"Q8_0": out / "seedling.gguf"})


def evaluate(args: argparse.Namespace) -> int:
    """Print the table; with --check, 1 if it differs from what is stored."""
    stored = None
    if args.check:
        stored = json.loads(Path(args.check).read_text(encoding="utf-8"))
    count = args.examples or (stored["examples_per_task"] if stored else 500)
    model = args.model or args.out / "seedling.gguf"
    result = score_model(
        model, count=count, seed=stored["seed"] if stored else EVALUATION_SEED,
        threads=args.threads, isa=args.isa, worst=args.worst,
    )  # fmt: skip
    _say(table(result))
    for task, values in result["tasks"].items():
        for failure in values.get("failures", ()):
            _say(f"\n--- {task}\n" + "\n".join(f"[{k}] {v}" for k, v in failure.items()))
    if stored is None:
        write_result(result, args.out / "evaluation.json")
        return 0
    found = differences(result, stored, args.tolerance)
    for line in found:
        sys.stderr.write(f"differs: {line}\n")
    return 1 if found else 0


def write_card(out: Path) -> None:
    """Render `out/MODEL_CARD.md`."""
    from recipes.seedling.card import render

    text = render(out / "run" / "log.jsonl", out / "evaluation.json", out / "seedling.gguf")
    (out / "MODEL_CARD.md").write_text(text, encoding="utf-8")


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m recipes.seedling", description=__doc__)
    add = parser.add_argument
    add("stage", choices=STAGES)
    add("--out", type=Path, default=Path("build/seedling"), help="folder of the run")
    add("--budget", choices=sorted(BUDGETS), default="seedling")
    add("--minutes", type=float, help="how long to train, instead of the budget's own time")
    add("--steps", type=int, help="how many steps to train, instead of a time")
    add("--resume", action="store_true", help="go on from the checkpoint; more --minutes prolong")
    add("--start-from", type=Path, help="a published seedling.gguf to go on from, not from nothing")
    add("--average-with", type=Path, help="export: the mean of the run and of this published file")
    add("--share", type=float, default=0.5, help="export: the run's part in that mean")
    add("--device", default="cpu", help="cpu or cuda")
    add("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    add("--compile", action="store_true", help="compile the network; needs a C++ compiler")
    add("--rate", type=float, default=1.0, help="factor on the learning rates; less to go on")
    add("--threads", type=int)
    add("--model", help="evaluate: a model name or file instead of the run's own")
    add("--examples", type=int, help="evaluate: examples of each task")
    add("--isa", help="evaluate: instruction set of the CPU backend")
    add("--worst", type=int, default=0, help="evaluate: print so many failures of each task")
    add("--check", nargs="?", const=str(STORED_EVALUATION), help="evaluate: compare with stored")
    add("--tolerance", type=float, default=0.0, help="allowed difference, as a part of all units")
    return parser.parse_args(argv)


def budget_from(args: argparse.Namespace) -> Budget:
    """The named budget with the time that was asked for."""
    budget = BUDGETS[args.budget]
    budget = replace(budget, muon_lr=args.rate * budget.muon_lr, adam_lr=args.rate * budget.adam_lr)
    if args.steps is not None:
        return replace(budget, steps=args.steps)
    if args.minutes is not None:
        return replace(budget, minutes=args.minutes, steps=0)
    return budget


def main(argv: Sequence[str] | None = None) -> int:
    """Run a stage; returns the exit status."""
    args = _arguments(argv)
    budget = budget_from(args)
    everything = args.stage == "all"
    has_tokenizer = (args.out / "tokenizer.json").is_file()
    if args.start_from is not None and args.stage in ("all", "tokenizer"):
        from recipes.seedling.shipped import read_tokenizer
        from recipes.seedling.tokenizer import save_tokenizer

        save_tokenizer(read_tokenizer(args.start_from), args.out / "tokenizer.json")
    elif args.stage == "tokenizer" or (everything and not (args.resume and has_tokenizer)):
        make_tokenizer(args.out, budget)
    if everything or args.stage == "train":
        train(args.out, budget, args)
    if everything or args.stage == "export":
        export(args.out, args.average_with, args.share)
    if everything or args.stage == "evaluate":
        status = evaluate(args)
        if not everything:
            return status
    if everything or args.stage == "card":
        write_card(args.out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
