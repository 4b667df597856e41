# SPDX-License-Identifier: Apache-2.0
"""Models under low-rank adapters against the same models with every product merged, and what
requests under different adapters may not do to each other."""

from __future__ import annotations

import functools
from pathlib import Path

import numpy as np
import pytest

import tiny_adapters
import tiny_models
from budgets import limit, logits_error
from devices import best_params, open_device
from freehold.config import EngineConfig
from freehold.engine.engine import Engine
from freehold.errors import FreeholdError, MalformedFileError, UnsupportedModelError
from freehold.formats.adapter_file import open_adapter
from freehold.formats.checkpoint import open_checkpoint
from freehold.models.adapters import Adapter, load_adapter
from freehold.models.loader import load_model
from freehold.types import SamplingParams

IDS = tiny_models.prompt()
CASES = ["llama-gqa", "qwen2", "qwen3", "gemma", "gemma3"]


@functools.cache
def base(case: str):
    return tiny_models.build(tiny_models.CASES[case])


@functools.cache
def adapter_of(case: str, seed: int = 0, rank: int = 4) -> tiny_adapters.TinyAdapter:
    return tiny_adapters.make(base(case), seed=seed, rank=rank)


@functools.cache
def merged_logits(case: str, seed: int = 0, rank: int = 4) -> np.ndarray:
    merged = tiny_adapters.merged(base(case), adapter_of(case, seed, rank))
    return tiny_models.reference_logits(merged, IDS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("adapters")


@pytest.fixture(scope="module")
def model_path(folder):
    @functools.cache
    def path(case: str, form: str) -> Path:
        if form == "hf":
            base(case).save_pretrained(folder / case)
            return folder / case
        return tiny_models.write_gguf(base(case), folder / f"{case}.{form}.gguf", form)

    return path


@pytest.fixture(scope="module")
def adapter_path(folder):
    @functools.cache
    def path(case: str, form: str, seed: int = 0, rank: int = 4, qtype: str = "F32") -> Path:
        where = folder / f"{case}-{form}-{seed}-{rank}-{qtype}"
        adapter = adapter_of(case, seed, rank)
        if form == "peft":
            return tiny_adapters.write_peft(adapter, where, qtype)
        return tiny_adapters.write_gguf(adapter, base(case), where.with_suffix(".gguf"))

    return path


def loaded(model_path: Path, adapters: list[Path], ops) -> tuple[Engine, list[Adapter]]:
    """An engine, and adapters for it."""
    with open_checkpoint(model_path) as checkpoint:
        model = load_model(checkpoint, ops)
        found = []
        for number, path in enumerate(adapters):
            with open_adapter(path) as file:
                found.append(load_adapter(file, f"a{number}", checkpoint, model, ops))
    return engine(model, ops), found


def engine(model, ops, **changes) -> Engine:
    settings = {"context_length": 96, "num_blocks": 60, "kv_dtype": "f32", **changes}
    return Engine(model, ops, EngineConfig(**settings))


@pytest.mark.parametrize("device", best_params())
@pytest.mark.parametrize("adapter_form", ["peft", "gguf"])
@pytest.mark.parametrize("form", ["hf", "F32"])
@pytest.mark.parametrize("case", CASES)
def test_logits_equal_the_merged_model(
    case, form, adapter_form, device, model_path, adapter_path
) -> None:
    ops = open_device(device)
    engine, (adapter,) = loaded(model_path(case, form), [adapter_path(case, adapter_form)], ops)
    plain = engine.logits(IDS)
    got = engine.logits(IDS, adapter=adapter)
    kind = "" if ops.name == "reference" else "F32"
    assert logits_error(got, merged_logits(case)) < limit(ops.name, "logits", kind)
    assert logits_error(plain, merged_logits(case)) > 0.1  # it matters
    np.testing.assert_array_equal(engine.logits(IDS), plain)


@pytest.mark.parametrize("device", best_params())
@pytest.mark.parametrize(("rank", "qtype"), [(1, "F32"), (7, "F32"), (24, "F16"), (8, "BF16")])
def test_ranks_and_types(rank, qtype, device, model_path, adapter_path) -> None:
    ops = open_device(device)
    path = adapter_path("llama-gqa", "peft", 0, rank, qtype)
    engine, (adapter,) = loaded(model_path("llama-gqa", "F32"), [path], ops)
    got = engine.logits(IDS, adapter=adapter)
    error = logits_error(got, merged_logits("llama-gqa", 0, rank))
    if qtype == "F32":
        assert error < limit(ops.name, "logits", "" if ops.name == "reference" else "F32")
    else:  # what the stored type itself has lost: 2⁻¹¹ or 2⁻⁸ of each value
        assert 1e-6 < error < {"F16": 5e-3, "BF16": 4e-2}[qtype]
        with open_adapter(path) as file:
            exact = tiny_adapters.TinyAdapter(
                {name: (p.down.to_f32(), p.up.to_f32()) for name, p in file.pairs.items()},
                adapter_of("llama-gqa", 0, rank).alpha,
            )
        merged = tiny_adapters.merged(base("llama-gqa"), exact)
        error = logits_error(got, tiny_models.reference_logits(merged, IDS))
        assert error < limit(ops.name, "logits", "" if ops.name == "reference" else "F16")


def test_over_a_quantised_base(model_path, adapter_path) -> None:
    """The device's own error on the same stored weights, and no more."""

    def logits(device) -> np.ndarray:
        paths = model_path("llama-gqa", "Q8_0"), [adapter_path("llama-gqa", "peft")]
        engine, (adapter,) = loaded(*paths, open_device(device))
        return engine.logits(IDS, adapter=adapter)

    error = logits_error(logits(("cpu", {"threads": 2})), logits(("reference", {})))
    assert error < limit("cpu", "logits", "Q8_0")


# -- scale -----------------------------------------------------------------------------------------


def test_scales_by_pattern_and_root(folder, model_path) -> None:
    """rslora, and ranks and alphas of some modules; a name counts by its last parts."""
    ops = open_device(("reference", {}))
    model = base("qwen3")
    adapter = tiny_adapters.make(model, rank=4, targets=("q_proj", "up_proj"))
    other = tiny_adapters.make(model, rank=2, seed=1, targets=("v_proj",))
    pairs = adapter.pairs | other.pairs
    adapter.config = {
        "use_rslora": True,
        "rank_pattern": {"self_attn.v_proj": 2},
        "alpha_pattern": {"model.layers.1.mlp.up_proj": 3, "up_proj": 5},
    }
    whole = tiny_adapters.TinyAdapter(pairs, 8.0, adapter.config)
    path = tiny_adapters.write_peft(whole, folder / "patterns")

    def scale(module: str) -> float:
        alpha = 8.0
        if module.endswith("up_proj"):
            alpha = 3.0 if ".1." in module else 5.0
        return alpha / len(pairs[module][0]) ** 0.5

    whole.scale = scale  # type: ignore[method-assign]
    engine, (loaded_adapter,) = loaded(model_path("qwen3", "hf"), [path], ops)
    want = tiny_models.reference_logits(tiny_adapters.merged(model, whole), IDS)
    got = engine.logits(IDS, adapter=loaded_adapter)
    assert logits_error(got, want) < limit("reference", "logits")


# -- one batch ---------------------------------------------------------------------------------


@pytest.mark.parametrize("device", best_params()[1:])
@pytest.mark.parametrize("case", ["llama-gqa", "gemma3-irregular"])
def test_company_changes_no_bit(case, device, model_path, adapter_path) -> None:
    """Requests under two adapters and none, which share beginnings, pieces of prompts and too few
    blocks: each answers as alone, and those under none as if there were no adapters."""
    ops = open_device(device)
    paths = [adapter_path(case, "peft", 0), adapter_path(case, "gguf", 1)]
    roomy, (first, second) = loaded(model_path(case, "F32"), paths, ops)
    model = roomy._runner.model
    shared = tiny_models.prompt(seed=1, length=40)
    longer, other = [*shared[:36], 7, 8, 9], tiny_models.prompt(seed=2, length=50)
    asked = [
        (shared, None), (shared, first), (shared, second), (shared[:33], first),
        (longer, second), (other, None), (other, first),
    ]  # fmt: skip
    params = SamplingParams(temperature=0.0, max_tokens=20, logprobs=1)

    def answers(engine: Engine, some: list) -> list[list[tuple[int, float]]]:
        ids = [engine.add(prompt, params, adapter=adapter) for prompt, adapter in some]
        found: dict[str, list[tuple[int, float]]] = {request: [] for request in ids}
        while engine.has_unfinished():
            for output in engine.step():
                assert output.error is None
                found[output.request_id] += [(lp.token_id, lp.logprob) for lp in output.logprobs]
        return [found[request] for request in ids]

    alone = [answers(engine(model, ops, prefix_caching=False), [one])[0] for one in asked]
    assert len({tuple(answer) for answer in alone[:3]}) == 3  # each adapter says something else
    assert answers(roomy, asked) == alone
    before = roomy.stats.cached_tokens
    assert answers(roomy, asked) == alone  # every prefix is known now
    assert roomy.stats.cached_tokens >= before + sum((len(p) - 1) // 16 * 16 for p, _ in asked)
    guessing = engine(model, ops, speculative_tokens=4)
    assert answers(guessing, asked) == alone
    tight = engine(model, ops, num_blocks=8, max_num_batched_tokens=24)
    assert answers(tight, asked) == alone
    assert tight.stats.preemptions > 0


def test_prefixes_belong_to_one_adapter(model_path, adapter_path) -> None:
    ops = open_device(("reference", {}))
    paths = [adapter_path("llama-gqa", "peft", seed) for seed in (0, 1, 0)]
    engine, (first, second, again) = loaded(model_path("llama-gqa", "F32"), paths, ops)

    def cached(adapter: Adapter | None) -> int:
        before = engine.stats.cached_tokens
        engine.score(IDS, len(IDS) - 1, adapter=adapter)
        return engine.stats.cached_tokens - before

    assert [cached(a) for a in (first, second, None)] == [0, 0, 0]
    assert [cached(a) > 0 for a in (first, second, None)] == [True] * 3
    assert cached(again) > 0  # the same file: what one computed serves the other


# -- refusals --------------------------------------------------------------------------------------


def refused(model: Path, adapter: Path) -> FreeholdError:
    ops = open_device(("reference", {}))
    with pytest.raises((UnsupportedModelError, MalformedFileError)) as info:
        loaded(model, [adapter], ops)
    return info.value


def test_an_adapter_for_another_model(folder, model_path, adapter_path) -> None:
    error = refused(model_path("llama-gqa", "hf"), adapter_path("qwen3", "peft"))
    assert "q_proj makes [128, 64]" in error.message
    error = refused(model_path("llama-gqa", "F32"), adapter_path("qwen3", "gguf"))
    assert "'qwen3'" in error.message


@pytest.mark.parametrize("module", ["lm_head", "model.embed_tokens", "model.layers.7.mlp.up_proj",
                                    "model.layers.0.mlp.experts.3.up_proj"])  # fmt: skip
def test_modules_that_cannot_be_adapted(module, folder, model_path) -> None:
    pair = (np.ones((2, 64), np.float32), np.ones((160, 2), np.float32))
    adapter = tiny_adapters.TinyAdapter({module: pair}, 4.0)
    error = refused(
        model_path("llama-gqa", "hf"), tiny_adapters.write_peft(adapter, folder / module)
    )
    assert module in error.message
    assert "attn_q, attn_k, attn_v, attn_output, ffn_gate" in (error.hint or "")


def test_values_that_are_no_numbers(folder, model_path) -> None:
    adapter = tiny_adapters.make(base("llama-gqa"), targets=("v_proj",))
    adapter.pairs["model.layers.1.self_attn.v_proj"][1][3, 1] = np.nan
    path = tiny_adapters.write_peft(adapter, folder / "nan")
    error = refused(model_path("llama-gqa", "hf"), path)
    assert "model.layers.1.self_attn.v_proj.lora_B" in error.message
