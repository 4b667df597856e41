# SPDX-License-Identifier: Apache-2.0
"""One model in a process of its own: what it takes and how fast it is, as one line of JSON.

    python plan_worker.py '{"model": "x.gguf", "context": 4096, "parallel": 1, ...}'

Fills the contexts of all sequences, so that every page that a plan counts has been written to. Of
several rounds (`repeat`) the best counts: others can only make a machine look slower.
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path
from typing import Any


def _peak() -> dict[str, int]:
    """Peak of resident memory of this process, and what it has now in proportion to sharers."""
    peak = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM")
    )
    shared = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/self/smaps_rollup").read_text().splitlines()
        if line.startswith("Pss:")
    )
    return {"peak_rss": peak, "pss": shared}


def run(case: dict[str, Any]) -> dict[str, Any]:
    """Load, fill `parallel` sequences of `context` tokens, and decode `tokens` of each."""
    from freehold.llm import LLM
    from freehold.types import SamplingParams

    began = time.perf_counter()
    tokens = case.get("tokens", 2)
    with LLM(
        case["model"], context_length=case["context"], kv_dtype=case["kv_dtype"],
        max_num_seqs=case["parallel"], kv_memory_bytes=case.get("kv_memory_bytes"),
    ) as llm:  # fmt: skip
        loaded = time.perf_counter() - began
        after_load = _peak()
        rng = random.Random(1)
        length = case.get("prompt", case["context"] - tokens)
        params = SamplingParams(max_tokens=tokens, temperature=0.0, ignore_eos=True)
        times = []
        for _ in range(case.get("repeat", 1)):
            prompts = [
                [rng.randrange(llm.config.vocab_size) for _ in range(length)]
                for _ in range(case["parallel"])
            ]
            answers = llm.generate(prompts, params)
            times.append((answers[0].prefill_seconds, answers[0].decode_seconds))
        return {
            "load_seconds": loaded,
            "after_load": after_load,
            "cache_bytes": llm.engine.kv_bytes,
            "weight_bytes": llm.model.weight_bytes(),
            "preemptions": llm.engine.stats.preemptions,
            "prefill_seconds": min(prefill for prefill, _ in times),
            "decode_seconds": min(decode for _, decode in times),
            **_peak(),
        }


if __name__ == "__main__":
    print(json.dumps(run(json.loads(sys.argv[1]))))
