# SPDX-License-Identifier: Apache-2.0
"""freehold's `LLM` behind the worker protocol: conversations answered as one batch."""

from __future__ import annotations

import hashlib
import time
from typing import Any

from freehold import LLM, SamplingParams
from worker_protocol import serve

PROBABILITIES = 20  # of the likeliest tokens, in float64: equal only where the logits are


class Library:
    """One loaded model."""

    def __init__(self) -> None:
        self.llm: Any = None

    def load(
        self, path: str, threads: int, context: int, streams: int, snapshots: str | None = None
    ) -> dict[str, Any]:
        """Load the file; computed prefixes go to and come from the directory `snapshots`."""
        self.llm = LLM(
            path, threads=threads, context_length=context, max_num_seqs=max(64, streams),
            snapshot_dir=snapshots,
        )  # fmt: skip
        self.chat([" ab cd"], 2)
        return {}

    def chat(self, texts: list[str], tokens: int) -> dict[str, Any]:
        """Answer all texts together."""
        began = time.perf_counter()
        done = self.llm.chat(
            [[{"role": "user", "content": text}] for text in texts],
            SamplingParams(temperature=0.0, max_tokens=tokens),
        )
        return {
            "seconds": time.perf_counter() - began,
            "prompt_tokens": [len(each.prompt_token_ids) for each in done],
            "tokens": [len(each.token_ids) for each in done],
            "full_length": all(each.finish_reason == "length" for each in done),
        }

    def prefill(self, ids: list[int]) -> dict[str, Any]:
        """From a prompt to its first token, and a digest of the numbers it was chosen by."""
        params = SamplingParams(temperature=0.0, max_tokens=1, logprobs=PROBABILITIES)
        began = time.perf_counter()
        done = self.llm.generate(ids, params)
        seconds = time.perf_counter() - began
        digest = hashlib.sha256(repr((done.token_ids, done.logprobs)).encode()).hexdigest()
        return {"seconds": seconds, "cached": done.cached_tokens, "digest": digest}

    def unload(self) -> dict[str, Any]:
        """Close the model."""
        self.llm.close()
        return {}


if __name__ == "__main__":
    library = Library()
    serve(
        {
            "load": library.load,
            "chat": library.chat,
            "prefill": library.prefill,
            "unload": library.unload,
        }
    )
