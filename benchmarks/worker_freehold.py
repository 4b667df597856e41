# SPDX-License-Identifier: Apache-2.0
"""freehold behind the worker protocol, through the engine that serves every command.

Its figures include what a user pays: scheduling, block tables, the sampler (greedy here) and
stop checks. Prefix caching is on, as by default. Timed prompts differ, so it finds nothing in them;
the untimed contexts of `decode` and `streams` stay the same, which saves computing them again.
"""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

import freehold
from common import Shape, limits_of
from freehold import LLM, SamplingParams
from freehold.planner.sizes import sizes_of
from freehold.planner.speed import weights_used
from worker_protocol import random_ids, serve


def greedy(tokens: int) -> SamplingParams:
    return SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)


def shape_of(llm: Any) -> Shape:
    """Sizes of the matrices a token is multiplied by, as they lie in memory."""
    used = weights_used(sizes_of(llm.checkpoint, llm.config))
    c = llm.config
    return Shape(
        round(used.layer_elements),
        round(used.head_elements),
        round(used.layer_bytes + used.head_bytes),
        c.num_layers,
        c.num_heads,
        c.num_kv_heads,
        c.head_dim,
    )


class Ours:
    """One model with a single-sequence engine and, once asked for, a many-sequence one."""

    def __init__(self) -> None:
        self.llm: Any = None
        self.single: Any = None
        self.many: Any = None
        self.max_streams = 1
        self.stream_context = 0
        self.prompt: list[int] = []  # the last one computed by the single-sequence engine

    def load(
        self,
        path: str,
        threads: int,
        context: int,
        stream_context: int,
        streams: int,
        backend: str = "cpu",
    ) -> dict[str, Any]:
        """Load the file and be ready for the first token."""
        began = time.perf_counter()
        self.llm = LLM(
            path,
            backend=backend,
            threads=threads,
            context_length=context,
            max_num_seqs=1,  # sizes the cache of its engine to one context, like the peer's
            skip_tokenizer_init=True,
        )
        self.single = self.llm.engine
        seconds = time.perf_counter() - began
        self.max_streams, self.stream_context = streams, stream_context
        return {
            "seconds": seconds,
            "version": freehold.__version__,
            "system": str(getattr(self.llm.ops, "isa", None) or self.llm.ops.name),
            "model_bytes": self.llm.model.weight_bytes(),
            "shape": asdict(shape_of(self.llm)),
        }

    def _ids(self, count: int, seed: int) -> list[int]:
        return random_ids(count, self.llm.config.vocab_size, seed)

    def prefill(self, n: int, seed: int) -> dict[str, Any]:
        """Seconds from n token ids to the first new token."""
        prompt = self.prompt = self._ids(n, seed)
        cached = self.single.stats.cached_tokens
        began = time.perf_counter()
        self.single.add(prompt, greedy(1))
        while self.single.has_unfinished():
            self.single.step()
        seconds = time.perf_counter() - began
        if self.single.stats.cached_tokens != cached:
            raise RuntimeError("the prompt was found in the prefix cache: nothing was measured")
        return {"seconds": seconds, "tokens": n}

    def _timed(self, engine: Any, prompts: list[list[int]], n: int) -> dict[str, Any]:
        """Prompts first, untimed; then n steps in which every sequence makes a token.

        Sequences whose prompt is done early already decode while the others catch up, so each
        is given room for more than n tokens and stopped after the timed ones.
        """
        ids = [engine.add(prompt, greedy(n + 2 * len(prompts) + 1)) for prompt in prompts]
        waiting = set(ids)
        while waiting:
            waiting -= {output.request_id for output in engine.step() if output.new_token_ids}
        tokens = 0
        began = time.perf_counter()
        for _ in range(n):
            tokens += sum(len(output.new_token_ids) for output in engine.step())
        seconds = time.perf_counter() - began
        for request_id in ids:
            engine.abort(request_id)
        while engine.has_unfinished():
            engine.step()
        if tokens < n * len(prompts):
            raise RuntimeError(f"only {tokens} of {n * len(prompts)} tokens were made")
        return {"seconds": seconds, "tokens": tokens}

    def decode(self, depth: int, n: int) -> dict[str, Any]:
        """Seconds for n tokens one by one, after `depth` cached ones (at least one): those of the
        last prefill where it was as long."""
        if len(self.prompt) != max(depth, 1):
            self.prompt = self._ids(max(depth, 1), 0)
        return self._timed(self.single, [self.prompt], n)

    def streams(self, streams: int, prompt: int, n: int) -> dict[str, Any]:
        """Seconds for n steps of `streams` sequences together; prompts are not timed."""
        if self.many is None:
            self.many = self.llm.make_engine(
                context_length=self.stream_context, max_num_seqs=self.max_streams
            )
        prompts = [self._ids(prompt, s) for s in range(streams)]
        return self._timed(self.many, prompts, n)

    def limits(self) -> dict[str, Any]:
        """What this machine gives at this moment."""
        return {"limits": limits_of(self.llm.ops)}


if __name__ == "__main__":
    ours = Ours()
    serve(
        {
            "load": ours.load,
            "prefill": ours.prefill,
            "decode": ours.decode,
            "streams": ours.streams,
            "limits": ours.limits,
        }
    )
