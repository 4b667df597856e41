# SPDX-License-Identifier: Apache-2.0
"""What no family may break: neither the cutting of a prompt, nor company, nor a known beginning,
nor a lack of blocks changes an answer.

For the families' own tests; `tests/engine/test_real_model_bits.py` asks more of a few models.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import tiny_models
from batching import PagedRunner, full_logits
from budgets import limit, logits_error
from freehold.config import EngineConfig
from freehold.engine.engine import Engine
from freehold.models.base import CausalLM
from freehold.ops import Ops
from freehold.types import SamplingParams


def assert_chunks_and_company_change_nothing(model: CausalLM, ops: Ops, **cache: Any) -> None:
    """One prompt in pieces, beside others that come and go, against the prompt alone at once.
    `cache` goes to the runner, as `block_size`."""
    ids, other = tiny_models.prompt(), tiny_models.prompt(seed=1)
    whole = full_logits(model, ops, ids, **cache)
    runner = PagedRunner(model, ops, **cache)
    pieces = [runner.step({"b": other[:3], "a": ids[:17]})["a"]]
    pieces.append(runner.step({"a": ids[17:22], "b": other[3:36]})["a"])
    pieces.append(runner.step({"a": ids[22:33]})["a"])
    pieces += [runner.step({"a": [t], "c": [other[0]], "b": [5]})["a"] for t in ids[33:]]
    assert logits_error(np.concatenate(pieces), whole) <= limit(ops.name, "chunking")


def assert_prefixes_and_preemption_change_nothing(model: CausalLM, ops: Ops) -> None:
    """Answers of requests that share beginnings and too few blocks are those of each alone, to
    the last bit: for backends whose rows do not depend on their company."""
    shared = tiny_models.prompt(seed=1, length=40)
    prompts = [shared, shared[:33], [*shared[:36], 7, 8, 9], tiny_models.prompt(seed=2, length=50)]
    params = SamplingParams(temperature=0.0, max_tokens=20, logprobs=1)

    def answers(engine: Engine, some: list[list[int]]) -> list[list[float]]:
        ids = [engine.add(prompt, params) for prompt in some]
        found: dict[str, list[float]] = {request: [] for request in ids}
        while engine.has_unfinished():
            for output in engine.step():
                assert output.error is None
                found[output.request_id] += [lp.logprob for lp in output.logprobs]
                found[output.request_id] += output.new_token_ids
        return [found[request] for request in ids]

    def engine(**changes: Any) -> Engine:
        settings = {"context_length": 96, "num_blocks": 60, "kv_dtype": "f32", **changes}
        return Engine(model, ops, EngineConfig(**settings))

    alone = [answers(engine(prefix_caching=False), [p])[0] for p in prompts]
    roomy = engine()
    assert answers(roomy, prompts) == alone
    assert answers(roomy, prompts) == alone  # every prefix is known now
    assert roomy.stats.cached_tokens > 0
    tight = engine(num_blocks=8, max_num_batched_tokens=24)
    assert answers(tight, prompts) == alone
    assert tight.stats.preemptions > 0
