# SPDX-License-Identifier: Apache-2.0
"""How long answers took: in one line, and for the next plan.

Knows the times a `Completion` carries and what divides into what; measures nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from freehold.cli import console

if TYPE_CHECKING:
    from freehold.cli.options import EngineFlags
    from freehold.llm import LLM
    from freehold.types import Completion


def timing_line(completion: Completion, load_seconds: float | None = None) -> str:
    """Prefill and decode of one answer in one line."""
    prompt = len(completion.prompt_token_ids) - completion.cached_tokens
    # The first token comes out of the prefill; decoding made the others.
    made = len(completion.token_ids) - 1
    parts = [] if load_seconds is None else [f"load {load_seconds:.2f} s"]
    parts.append(
        f"prompt {prompt} tokens in {completion.prefill_seconds:.2f} s"
        f"{_per_second(prompt, completion.prefill_seconds)}"
    )
    if completion.cached_tokens:
        parts.append(f"{completion.cached_tokens} more from the prefix cache")
    parts.append(
        f"answer {len(completion.token_ids)} tokens in {completion.decode_seconds:.2f} s"
        f"{_per_second(made, completion.decode_seconds)}"
    )
    return ", ".join(parts)


def _per_second(tokens: int, seconds: float) -> str:
    return f" ({console.rate(tokens / seconds)} tok/s)" if tokens > 0 and seconds > 0 else ""


def remember(
    llm: LLM, engine: EngineFlags, load_seconds: float, completions: Iterable[Completion]
) -> None:
    """Let `freehold plan` know how long it took, where answers came as plans suppose: one by one,
    token by token."""
    from freehold.planner.recorder import Recorder

    if engine.speculative_tokens:
        return
    recorder = Recorder(
        llm.checkpoint, llm.config, backend=engine.backend, kv_dtype=engine.kv_type.value
    )
    recorder.load(load_seconds)
    for completion in completions:
        recorder.answer(completion)
    recorder.save()
