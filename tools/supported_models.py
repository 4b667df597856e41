# SPDX-License-Identifier: Apache-2.0
"""Write docs/supported-models.md from `families.toml`, `measured.json` and what the code can do.

    python tools/supported_models.py measure    # compare every family anew (needs the test extras)
    python tools/supported_models.py page       # write the page; --check only compares

`measured.json` holds one record for each tiny random model of `tests/tiny_families.py`: what its
logits were compared with, and the largest difference over the largest logit.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
FAMILIES = ROOT / "tools" / "families.toml"
MEASURED = ROOT / "tools" / "measured.json"
PAGE = ROOT / "docs" / "supported-models.md"

_HEAD = """\
<!-- Written by tools/supported_models.py; change families.toml or the code instead. -->
# Supported models

Every family runs from GGUF and from Hugging Face safetensors, on the CPU backend and on the NumPy
reference. Images, audio and video are left out: of models that take them, the language model runs.

Each was compared with an implementation that is not ours on tiny random models, with every norm,
bias, sink and routing bias random, and prompts longer than window and chunk. The error is the
largest difference of any logit over the largest logit. Real models of these families were not
at hand; the arithmetic is the same at every size.

| Family | GGUF | Models | Context | Chat template |
|---|---|---|---|---|
"""
_ERRORS = """
## What was compared, and the error found

| Family | Tiny model | Compared with | reference | cpu | cpu, our own GGUF |
|---|---|---|--:|--:|--:|
"""
_TYPES = """
## Quantisation types

All of them are read; decoding equals the `gguf` package bit for bit, or hand-checked vectors for
the types it lacks. A type without a CPU kernel runs on the reference, and on the CPU after
`freehold quantize --allow-requantize`.

| Type | Bits per weight | CPU kernel | Encoder |
|---|--:|---|---|
"""


def load() -> list[dict[str, Any]]:
    """The records of `families.toml`."""
    records: list[dict[str, Any]] = tomllib.loads(FAMILIES.read_text(encoding="utf-8"))["family"]
    return records


def page() -> str:
    """The whole page."""
    from freehold.models.config import architecture_of, families

    known = {record["family"]: record for record in load()}
    supported = families()
    missing = sorted(set(supported) - set(known))
    if missing:
        raise SystemExit(f"families.toml says nothing of: {', '.join(missing)}")
    lines = [_HEAD]
    for family in (name for name in known if name in supported):
        record = known[family]
        for n, (models, sizes, context) in enumerate(record["models"]):
            first = n == 0
            cells = [
                family if first else "",
                f"`{architecture_of(family)}`" if first else "",
                f"{models}: {sizes}",
                context,
                record["template"] if first else "",
            ]
            lines.append("| " + " | ".join(cells) + " |\n")
    lines.append(_ERRORS)
    measured = json.loads(MEASURED.read_text(encoding="utf-8"))
    for record in measured["models"]:
        errors = [_error(record.get(key)) for key in ("reference", "cpu", "cpu_gguf")]
        cells = [record["family"], record["case"], record["oracle"], *errors]
        lines.append("| " + " | ".join(cells) + " |\n")
    lines.append(
        f"\nMeasured with {measured['versions']}, kernel level {measured['isa']}, F32 weights and "
        "cache. A dash: GGUF has\nno keys for this variation, and writing it is refused.\n"
    )
    lines.append(_TYPES)
    lines += _type_rows()
    return "".join(lines)


def _error(value: float | None) -> str:
    return "–" if value is None else f"{value:.1e}"


def _type_rows() -> Iterator[str]:
    from freehold import quants
    from freehold.backends.cpu import NATIVE_TYPES

    for name in quants.names():
        kind = quants.get(name)
        bits = 8 * kind.layout.itemsize / kind.block_size
        kernel = "yes" if name in NATIVE_TYPES else "no"
        written = "yes" if kind.encode_blocks else "no"
        yield f"| {name} | {bits:.4g} | {kernel} | {written} |\n"


def measure() -> dict[str, Any]:
    """Compare every tiny model with its oracle."""
    import platform

    sys.path.insert(0, str(ROOT / "tests"))
    import torch
    import transformers

    from freehold.backends.cpu import CpuOps
    from tiny_families import tiny_families

    records = []
    for tiny in tiny_families():
        with tempfile.TemporaryDirectory() as folder:
            record = {"case": tiny.name, **_compared(tiny, Path(folder))}
        sys.stdout.write(f"{json.dumps(record)}\n")
        records.append(record)
    return {
        "versions": f"transformers {transformers.__version__}, torch {torch.__version__}, "
        f"Python {platform.python_version()}",
        "isa": CpuOps().isa,
        "models": records,
    }


def _compared(tiny: Any, folder: Path) -> dict[str, Any]:
    from budgets import logits_error
    from freehold import LLM
    from freehold.errors import FreeholdError
    from freehold.formats.checkpoint import open_checkpoint
    from freehold.models.config import family_of
    from freehold.quantize import quantize
    from tiny_families import IDS

    oracle, expected = tiny.save(folder / "hf")

    def error(path: Path, backend: str) -> float:
        with LLM(str(path), backend=backend, kv_dtype="f32") as llm:  # as the oracle
            return float(f"{logits_error(llm.logits(IDS), expected):.1e}")

    with open_checkpoint(folder / "hf") as checkpoint:
        found: dict[str, Any] = {"family": family_of(checkpoint), "oracle": oracle}
    found["reference"] = error(folder / "hf", "reference")
    found["cpu"] = error(folder / "hf", "cpu")
    try:
        quantize(folder / "hf", folder / "own.gguf", "F32")
    except FreeholdError as failure:
        sys.stderr.write(f"{tiny.name} as GGUF: {failure}\n")
    else:
        found["cpu_gguf"] = error(folder / "own.gguf", "cpu")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=("measure", "page"))
    parser.add_argument("--check", action="store_true", help="fail where the page is out of date")
    arguments = parser.parse_args()
    if arguments.what == "measure":
        MEASURED.write_text(json.dumps(measure(), indent=1) + "\n", encoding="utf-8")
    wanted = page()
    if arguments.check:
        if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != wanted:
            raise SystemExit("docs/supported-models.md is out of date: run this without --check")
        return
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(wanted, encoding="utf-8")


if __name__ == "__main__":
    main()
