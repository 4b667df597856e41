# SPDX-License-Identifier: Apache-2.0
"""DeepSeek MoE 16B in small. Its code is in no library, so its judge is written here: Llama's
layers by transformers, with a mixture of experts in plain torch.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

import tiny_models


def deepseek_moe(directory: Path, vocab: int = tiny_models.VOCAB) -> np.ndarray:
    """Write a random model as its vendor stores it; its logits for `tiny_models.prompt()`."""
    import torch
    from safetensors.torch import save_file

    case = tiny_models.Case("Llama", {"num_key_value_heads": 4, "vocab_size": vocab})
    llama = tiny_models.build(case)
    experts, chosen, width, shared = 6, 3, 32, 64
    generator = torch.Generator().manual_seed(3)

    def matrix(*shape):
        return torch.randn(shape, generator=generator) * shape[-1] ** -0.5

    def gated(x, gate, up, down):
        return (torch.nn.functional.silu(x @ gate.T) * (x @ up.T)) @ down.T

    class Mixture(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.router = matrix(experts, 64)
            self.parts = [(matrix(width, 64), matrix(width, 64), matrix(64, width))
                          for _ in range(experts)]  # fmt: skip
            self.always = (matrix(shared, 64), matrix(shared, 64), matrix(64, shared))

        def forward(self, x):
            out = gated(x, *self.always)
            weights, order = (x @ self.router.T).softmax(-1).topk(chosen, -1)
            for token in range(x.shape[1]):
                for weight, index in zip(weights[0, token], order[0, token], strict=True):
                    out[0, token] += weight * gated(x[0, token], *self.parts[index])
            return out

    state = dict(llama.state_dict())
    for index in (1, 2):
        mixture = Mixture()
        llama.model.layers[index].mlp = mixture
        mlp = f"model.layers.{index}.mlp."
        state = {name: value for name, value in state.items() if not name.startswith(mlp)}
        names = ("gate_proj", "up_proj", "down_proj")
        state[mlp + "gate.weight"] = mixture.router
        for i, parts in enumerate(mixture.parts):
            state |= {f"{mlp}experts.{i}.{n}.weight": p for n, p in zip(names, parts, strict=True)}
        state |= {f"{mlp}shared_experts.{n}.weight": p
                  for n, p in zip(names, mixture.always, strict=True)}  # fmt: skip
    directory.mkdir()
    save_file({n: v.contiguous() for n, v in state.items()}, directory / "model.safetensors")
    config = {key: value for key, value in llama.config.to_dict().items()
              if key in (*tiny_models._COMMON, "rms_norm_eps", "rope_theta")}  # fmt: skip
    config |= {"model_type": "deepseek", "architectures": ["DeepseekForCausalLM"],
               "n_routed_experts": experts, "n_shared_experts": 2, "num_experts_per_tok": chosen,
               "moe_intermediate_size": width, "first_k_dense_replace": 1, "moe_layer_freq": 1,
               "norm_topk_prob": False, "scoring_func": "softmax"}  # fmt: skip
    (directory / "config.json").write_text(json.dumps(config))
    return tiny_models.reference_logits(llama, tiny_models.prompt())
