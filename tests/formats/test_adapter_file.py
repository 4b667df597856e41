# SPDX-License-Identifier: Apache-2.0
"""Adapters on disk, right and wrong: everything that is not a plain LoRA is refused by name."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf_bytes import gguf, info, kv, string
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from freehold.errors import (
    FreeholdError,
    MalformedFileError,
    ModelNotFoundError,
    UnsupportedModelError,
)
from freehold.formats.adapter_file import open_adapter
from freehold.formats.checkpoint import open_checkpoint
from freehold.formats.peft_config import MAX_RANK, peft_config
from freehold.formats.safetensors_writer import write_safetensors
from freehold.formats.tensor_view import LazyTensor

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "bias": "none", "target_modules": ["q"]}
NAME = "base_model.model.model.layers.0.self_attn.q_proj"
SHAPES = {f"{NAME}.lora_A.weight": (2, 5), f"{NAME}.lora_B.weight": (3, 2)}


def tensor(name: str, shape: tuple[int, ...], qtype: str = "F32") -> LazyTensor:
    size = int(np.prod(shape, dtype=int)) * {"F32": 4, "I32": 4, "F64": 8}[qtype]
    return LazyTensor(name, shape, qtype, lambda: np.zeros(size, np.uint8))


def peft(path: Path, shapes: Any = None, qtype: str = "F32", **config: Any) -> Path:
    path.mkdir(exist_ok=True)
    (path / "adapter_config.json").write_text(json.dumps({**CONFIG, **config}), encoding="utf-8")
    tensors = [tensor(n, s, qtype) for n, s in (SHAPES if shapes is None else shapes).items()]
    write_safetensors(path / "adapter_model.safetensors", tensors)
    return path


def text(key: str, value: str) -> bytes:
    return kv(key, 8, string(value))


KEYS = (
    text("general.type", "adapter"),
    text("general.architecture", "llama"),
    text("adapter.type", "lora"),
    kv("adapter.lora.alpha", 6, struct.pack("<f", 6.0)),
)
INFOS = (
    info("blk.0.attn_q.weight.lora_a", [5, 2]),
    info("blk.0.attn_q.weight.lora_b", [2, 3], offset=64),
)


def write(path: Path, keys: Any = KEYS, infos: Any = INFOS) -> Path:
    path.write_bytes(gguf(keys, infos, bytes(96)))
    return path


# -- what is right ----------------------------------------------------------------------------


def test_peft(tmp_path) -> None:
    path = peft(tmp_path / "a")
    for given_path in (path, path / "adapter_config.json", path / "adapter_model.safetensors"):
        with open_adapter(given_path) as file:
            ((name, pair),) = file.pairs.items()
            assert (file.format, file.architecture, file.nbytes) == ("peft", "", 64)
            assert name == "model.layers.0.self_attn.q_proj"
            assert (pair.down.shape, pair.up.shape, pair.scale) == ((2, 5), (3, 2), 3.0)


def test_gguf(tmp_path) -> None:
    with open_adapter(write(tmp_path / "a.gguf")) as file:
        ((name, pair),) = file.pairs.items()
        assert (file.format, file.architecture, name) == ("gguf", "llama", "blk.0.attn_q")
        assert (pair.down.shape, pair.up.shape, pair.scale) == ((2, 5), (3, 2), 3.0)
    without = (*KEYS[:3], kv("adapter.lora.alpha", 6, struct.pack("<f", 0.0)))
    with open_adapter(write(tmp_path / "b.gguf", without)) as file:
        assert file.pairs["blk.0.attn_q"].scale == 1.0


def test_scales() -> None:
    config = peft_config(
        {**CONFIG, "r": 4, "use_rslora": True, "rank_pattern": {"mlp.up_proj": 16, "up_proj": 9},
         "alpha_pattern": {"layers.1.mlp.up_proj": 2.5}}, "x",
    )  # fmt: skip
    assert config.scale_of("model.layers.0.self_attn.q_proj") == 6 / 2
    assert config.scale_of("model.layers.0.mlp.up_proj") == 6 / 4
    assert config.scale_of("model.layers.1.mlp.up_proj") == 2.5 / 4
    assert config.scale_of("model.layers.1.other.up_proj") == 6 / 3
    assert config.scale_of("model.layers.11.mlp.not_up_proj") == 6 / 2
    assert peft_config({**CONFIG, "lora_alpha": -1.5}, "x").scale_of("q") == -0.75


def test_the_digest_stands_for_what_is_computed(tmp_path) -> None:
    def digest(path: Path) -> bytes:
        with open_adapter(path) as file:
            return file.digest()

    same = digest(peft(tmp_path / "a"))
    assert digest(peft(tmp_path / "b", lora_dropout=0.5)) == same
    others = [
        digest(peft(tmp_path / "c", lora_alpha=7)),
        digest(peft(tmp_path / "d", {n.replace(".0.", ".1."): s for n, s in SHAPES.items()})),
        digest(write(tmp_path / "e.gguf")),
    ]
    path = peft(tmp_path / "f")
    raw = bytearray((path / "adapter_model.safetensors").read_bytes())
    raw[-3] ^= 1
    (path / "adapter_model.safetensors").write_bytes(raw)
    assert len({same, *others, digest(path)}) == 5


# -- what is wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"peft_type": "IA3"}, "peft_type"),
        ({"bias": "lora_only"}, "bias"),
        ({"use_dora": True}, "use_dora"),
        ({"lora_bias": True}, "lora_bias"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"fan_in_fan_out": True}, "fan_in_fan_out"),
        ({"layer_replication": [[0, 4], [2, 5]]}, "layer_replication"),
        ({"trainable_token_indices": [1]}, "trainable_token_indices"),
        ({"target_parameters": ["mlp.experts.gate_up_proj"]}, "target_parameters"),
        ({"alora_invocation_tokens": [5]}, "alora_invocation_tokens"),
        ({"init_lora_weights": "pissa_niter_4"}, "init_lora_weights"),
        ({"loftq_config": {"loftq_bits": 4}}, "loftq_config"),
        ({"invented_next_year": 3}, "invented_next_year"),
        ({"r": 0}, ": r must"),
        ({"r": MAX_RANK + 1}, ": r must"),
        ({"r": True}, ": r must"),
        ({"r": "2"}, ": r must"),
        ({"r": 3}, "rank 2"),
        ({"lora_alpha": None}, "lora_alpha"),
        ({"lora_alpha": 1e300}, "lora_alpha"),
        ({"lora_alpha": float("nan")}, "lora_alpha"),
        ({"use_rslora": 1}, "use_rslora"),
        ({"rank_pattern": {"q_proj": 5}}, "rank 2"),
        ({"rank_pattern": {"q_proj": -5}}, "rank_pattern"),
        ({"rank_pattern": {"(a+)+$": 5}}, "rank_pattern"),
        ({"alpha_pattern": {".*q_proj": 5}}, "alpha_pattern"),
        ({"alpha_pattern": {"q_proj": []}}, "alpha_pattern"),
        ({"alpha_pattern": [1]}, "alpha_pattern"),
    ],
)  # fmt: skip
def test_configs_that_are_refused(changes, words, tmp_path) -> None:
    with pytest.raises((MalformedFileError, UnsupportedModelError)) as info:
        open_adapter(peft(tmp_path / "a", **changes))
    assert words in info.value.message


@pytest.mark.parametrize(
    ("shapes", "qtype", "words"),
    [
        ({}, "F32", "no tensors"),
        ({**SHAPES, f"{NAME}.lora_magnitude_vector": (3,)}, "F32", "lora_magnitude_vector"),
        ({**SHAPES, "base_model.model.lm_head.weight": (3, 2)}, "F32", "lm_head"),
        ({**SHAPES, f"{NAME}.bias": (3,)}, "F32", "bias"),
        ({f"{NAME}.lora_embedding_A": (2, 5)}, "F32", "lora_embedding_A"),
        ({**SHAPES, f"{NAME}.lora_A.default.weight": (2, 5)}, "F32", "are the same"),
        ({f"{NAME}.lora_A.weight": (2, 5)}, "F32", "other half"),
        ({f"{NAME}.lora_B.weight": (3, 2)}, "F32", "other half"),
        ({**SHAPES, f"{NAME}.lora_B.weight": (3, 4)}, "F32", "do not multiply"),
        ({**SHAPES, f"{NAME}.lora_A.weight": (2, 5, 1)}, "F32", "two sizes"),
        ({**SHAPES, f"{NAME}.lora_A.weight": (2, 0)}, "F32", "two sizes"),
        (SHAPES, "I32", "I32"),
        (SHAPES, "F64", "F64"),
        ({f"{NAME}.lora_A.weight": (MAX_RANK + 1, 1), f"{NAME}.lora_B.weight": (1, MAX_RANK + 1)},
         "F32", "at most"),
    ],
)  # fmt: skip
def test_tensors_that_are_refused(shapes, qtype, words, tmp_path) -> None:
    with pytest.raises((MalformedFileError, UnsupportedModelError)) as info:
        open_adapter(peft(tmp_path / "a", shapes, qtype))
    assert words in info.value.message


@pytest.mark.parametrize(
    ("keys", "infos", "words"),
    [
        ((text("general.type", "model"), *KEYS[1:]), INFOS, "general.type"),
        (KEYS[1:], INFOS, "general.type"),
        ((KEYS[0], *KEYS[2:]), INFOS, "general.architecture"),
        ((*KEYS[:2], text("adapter.type", "control_vector"), KEYS[3]), INFOS, "adapter.type"),
        (KEYS[:3], INFOS, "adapter.lora.alpha"),
        ((*KEYS[:3], text("adapter.lora.alpha", "6")), INFOS, "adapter.lora.alpha"),
        ((*KEYS[:3], kv("adapter.lora.alpha", 6, struct.pack("<f", np.inf))), INFOS, "alpha"),
        ((*KEYS, text("adapter.alora.invocation_tokens", "x")), INFOS, "invocation_tokens"),
        (KEYS, INFOS[:1], "other half"),
        (KEYS, (*INFOS, info("blk.0.attn_q.weight", [5], offset=32)), "attn_q.weight"),
    ],
)
def test_ggufs_that_are_refused(keys, infos, words, tmp_path) -> None:
    with pytest.raises((MalformedFileError, UnsupportedModelError)) as raised:
        open_adapter(write(tmp_path / "a.gguf", keys, infos))
    assert words in raised.value.message


def test_an_adapter_is_no_model(tmp_path) -> None:
    with pytest.raises(UnsupportedModelError, match="is an adapter and no model"):
        open_checkpoint(peft(tmp_path / "a"))


def test_what_is_no_adapter(tmp_path) -> None:
    with pytest.raises(ModelNotFoundError):
        open_adapter(tmp_path)
    with pytest.raises(ModelNotFoundError):
        open_adapter(tmp_path / "nowhere")
    path = peft(tmp_path / "a")
    (path / "adapter_model.safetensors").rename(path / "adapter_model.bin")
    with pytest.raises(UnsupportedModelError, match="pickle"):
        open_adapter(path)
    (path / "adapter_model.bin").unlink()
    with pytest.raises(ModelNotFoundError):
        open_adapter(path)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.dictionaries(st.sampled_from([*CONFIG, "rank_pattern", "alpha_pattern", "use_rslora",
                                     "init_lora_weights", "modules_to_save", "else"]), _JSON)
)  # fmt: skip
def test_any_config_is_read_or_refused(changes) -> None:
    try:
        config = peft_config({**CONFIG, **changes}, "x")
    except (MalformedFileError, UnsupportedModelError):
        return
    assert isinstance(config.scale_of("model.layers.0.self_attn.q_proj"), float)


def test_cut_and_flipped_files_are_refused_or_read(tmp_path) -> None:
    """Any byte of the headers may be anything."""
    rng = np.random.default_rng(0)
    path = write(tmp_path / "a.gguf")
    whole = path.read_bytes()
    for _ in range(300):
        raw = bytearray(whole)
        for at in rng.integers(0, len(raw) - 96, 3):
            raw[at] = rng.integers(256)
        path.write_bytes(raw[: rng.integers(1, len(raw) + 1)] if rng.random() < 0.3 else raw)
        with suppress(FreeholdError):
            open_adapter(path).close()
