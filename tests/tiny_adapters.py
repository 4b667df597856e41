# SPDX-License-Identifier: Apache-2.0
"""Random low-rank adapters for the tiny models, as PEFT and as llama.cpp's converter write them,
and the model that each makes: the base with every product added to its matrix.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import gguf
import numpy as np

import tiny_models
from freehold.formats.checkpoint import open_checkpoint
from freehold.formats.safetensors_writer import write_safetensors
from freehold.formats.tensor_view import LazyTensor

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass
class TinyAdapter:
    """Matrices by module, "model.layers.0.self_attn.q_proj": A [rank, in] and B [out, rank]."""

    pairs: dict[str, tuple[np.ndarray, np.ndarray]]
    alpha: float
    config: dict[str, Any] = field(default_factory=dict)  # more of adapter_config.json

    def scale(self, module: str) -> float:
        return self.alpha / len(self.pairs[module][0])


def make(model: Any, *, rank: int = 4, seed: int = 0, targets: tuple[str, ...] = TARGETS,
         strength: float = 0.6) -> TinyAdapter:  # fmt: skip
    """An adapter whose products are `strength` times as large as the matrices they change."""
    rng = np.random.default_rng(seed)
    pairs, alpha = {}, 2.0 * rank
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in targets:
            rows, columns = module.weight.shape
            down = rng.standard_normal((rank, columns)) * columns**-0.5
            up = rng.standard_normal((rows, rank)) * (strength / 2.0) * rank**-0.5
            pairs[name] = (down.astype(np.float32), up.astype(np.float32))
    return TinyAdapter(pairs, alpha)


def merged(model: Any, adapter: TinyAdapter) -> Any:
    """What the adapter makes of the model, as matrices of full rank."""
    import torch

    result = copy.deepcopy(model)
    with torch.no_grad():
        for name, module in result.named_modules():
            if name in adapter.pairs:
                down, up = (torch.from_numpy(half).double() for half in adapter.pairs[name])
                changed = module.weight.double() + adapter.scale(name) * (up @ down)
                module.weight.copy_(changed.float())
    return result


def _stored(name: str, array: np.ndarray, qtype: str) -> LazyTensor:
    if qtype == "BF16":
        data = gguf.quants.quantize(array, gguf.GGMLQuantizationType.BF16)
    else:
        data = array.astype({"F32": "<f4", "F16": "<f2"}[qtype])
    raw = np.ascontiguousarray(data).reshape(-1).view(np.uint8)
    return LazyTensor(name, array.shape, qtype, lambda: raw)


def write_peft(adapter: TinyAdapter, directory: Path, qtype: str = "F32") -> Path:
    """A directory as `PeftModel.save_pretrained` makes it."""
    directory.mkdir(parents=True, exist_ok=True)
    rank = len(next(iter(adapter.pairs.values()))[0])
    config = {
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": rank, "lora_alpha": adapter.alpha,
        "target_modules": list(TARGETS), "lora_dropout": 0.05, "bias": "none",
        "inference_mode": True, "fan_in_fan_out": False, "use_dora": False, "use_rslora": False,
        "modules_to_save": None, "rank_pattern": {}, "alpha_pattern": {}, "megatron_config": None,
        "megatron_core": "megatron.core", "init_lora_weights": True, "loftq_config": {},
        "layers_to_transform": None, "peft_version": "0.18.0", **adapter.config,
    }  # fmt: skip
    (directory / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    tensors = [
        _stored(f"base_model.model.{module}.lora_{half}.weight", array, qtype)
        for module, pair in adapter.pairs.items()
        for half, array in zip("AB", pair, strict=True)
    ]
    write_safetensors(directory / "adapter_model.safetensors", tensors)
    return directory


def write_gguf(adapter: TinyAdapter, model: Any, path: Path) -> Path:
    """A file as llama.cpp's converter makes it: GGUF names, B's rows in the model file's order."""
    architecture = tiny_models.gguf_architecture(model)
    heads = {
        "q_proj": model.config.num_attention_heads, "k_proj": model.config.num_key_value_heads
    }  # fmt: skip
    pairs = {}
    for module, (down, up) in adapter.pairs.items():
        _, _, layer, part = module.split(".", 3)
        projection = part.rpartition(".")[2]
        if architecture == "llama" and projection in heads:
            up = up.reshape(heads[projection], 2, -1, up.shape[1]).swapaxes(1, 2).reshape(up.shape)
        pairs[f"blk.{layer}.{tiny_models._NAMES[part]}"] = (down, up)
    return write_gguf_pairs(pairs, architecture, adapter.alpha, path)


def write_gguf_pairs(
    pairs: dict[str, tuple[np.ndarray, np.ndarray]], architecture: str, alpha: float, path: Path
) -> Path:
    """A GGUF adapter out of pairs by GGUF's name of the matrix, "blk.0.attn_q"."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for name, (down, up) in pairs.items():
        writer.add_tensor(f"{name}.weight.lora_a", down)
        writer.add_tensor(f"{name}.weight.lora_b", np.ascontiguousarray(up))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_for(
    model: Path, path: Path, *, seed: int = 0, rank: int = 4, strength: float = 0.6
) -> Path:
    """A random adapter for all matrices in the layers of a GGUF model without experts."""
    rng = np.random.default_rng(seed)
    pairs = {}
    with open_checkpoint(model) as checkpoint:
        for name, tensor in checkpoint.tensors.items():
            if name.startswith("blk.") and len(tensor.shape) == 2:
                rows, columns = tensor.shape
                down = rng.standard_normal((rank, columns)) * columns**-0.5
                up = rng.standard_normal((rows, rank)) * strength * rank**-0.5
                pairs[name.removesuffix(".weight")] = (
                    down.astype(np.float32), up.astype(np.float32)
                )  # fmt: skip
        return write_gguf_pairs(pairs, checkpoint.architecture, float(rank), path)
