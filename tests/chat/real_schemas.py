# SPDX-License-Identifier: Apache-2.0
"""Schemas people wrote, a random model that answers to them, and a judge of the answers.

The model draws at temperature 1.5 from whatever the form allows. Left alone it would write strings
and lists for ever, so characters that close something are made more likely: that changes how often
answers end, not what may be in them.
"""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
from jsonschema.validators import validator_for

from freehold import LLM, SamplingParams
from freehold.errors import ConstraintError
from freehold.types import Constraint

CLOSING = 2.5  # added to the logits of what closes a string, a list or an object
TOGETHER = 32  # answers written at the same time


def read_schemas(path: Path) -> list[dict[str, Any]]:
    """Records with `name`, `schema` and `tests`."""
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def judge(schema: Any) -> Any:
    """A validator of the draft the schema names, formats included."""
    kind = validator_for(schema, default=jsonschema.Draft202012Validator)
    return kind(schema, format_checker=kind.FORMAT_CHECKER)


@dataclass
class Tally:
    """What became of the schemas."""

    accepted: int = 0
    refused: dict[str, str] = field(default_factory=dict)  # name of the schema: the refusal
    finished: int = 0
    cut: int = 0  # answers that reached max_tokens
    wrong: dict[str, str] = field(default_factory=dict)  # name of the schema: what is wrong
    tokens: int = 0

    def reasons(self) -> Counter[str]:
        """Refusals, the most frequent first."""
        return Counter(self.refused.values())


def answer_schemas(
    llm: LLM, records: Sequence[dict[str, Any]], *, max_tokens: int, seed: int = 0
) -> Tally:
    """One answer to each schema, judged."""
    tally = Tally()
    closing = {i: CLOSING for i in range(llm.tokenizer.vocab_size) if _closes(llm.token_bytes(i))}
    todo: list[tuple[dict[str, Any], Constraint]] = []
    for record in records:
        constraint = Constraint("json_schema", record["schema"])
        try:
            llm.text_grammar(constraint)
        except ConstraintError as error:
            tally.refused[record["name"]] = str(error)
            continue
        tally.accepted += 1
        todo.append((record, constraint))
    for at in range(0, len(todo), TOGETHER):
        part = todo[at : at + TOGETHER]
        params = [
            SamplingParams(temperature=1.5, seed=seed + at + i, max_tokens=max_tokens,
                           logit_bias=closing)
            for i in range(len(part))
        ]  # fmt: skip
        answers = llm.generate(["{"] * len(part), params, constraint=[c for _, c in part])
        for (record, _), answer in zip(part, answers, strict=True):
            tally.tokens += len(answer.token_ids)
            if answer.finish_reason == "length":
                tally.cut += 1
                continue
            tally.finished += 1
            problem = fault(record["schema"], answer.text)
            if problem:
                tally.wrong[record["name"]] = f"{problem}: {answer.text!r:.300}"
    return tally


def _closes(piece: bytes) -> bool:
    return piece.strip() in (b'"', b"]", b"}")


def fault(schema: Any, text: str) -> str:
    """What is wrong with an answer; "" if nothing is."""
    try:
        value = json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        return f"no JSON ({error})"
    error = next(judge(schema).iter_errors(value), None)
    return "" if error is None else f"invalid by {error.validator}"


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")
