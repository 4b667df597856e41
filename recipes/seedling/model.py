# SPDX-License-Identifier: Apache-2.0
"""The network in PyTorch: a Llama decoder (grouped-query attention, SwiGLU, rotary positions).

Parameters carry the names of the published Llama layout, so the state dict is the checkpoint.
Knows no text and no optimiser. Kept to what training needs: there is no cache and no sampling
beyond the greedy one that watches progress.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EMBEDDING_STD = 0.06


@dataclass(frozen=True)
class ModelShape:
    """Sizes of the network; `vocab` comes from the tokenizer's budget."""

    vocab: int
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    ffn: int
    context: int = 2048
    rope_theta: float = 10000.0
    norm_eps: float = 1e-5

    @property
    def head_dim(self) -> int:
        """Width of one head."""
        return self.hidden // self.heads

    def hf_config(self) -> dict[str, Any]:
        """The architecture as `config.json` spells it; token ids are the exporter's."""
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "vocab_size": self.vocab,
            "hidden_size": self.hidden,
            "intermediate_size": self.ffn,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "hidden_act": "silu",
            "max_position_embeddings": self.context,
            "rms_norm_eps": self.norm_eps,
            "rope_theta": self.rope_theta,
            "rope_scaling": None,
            "tie_word_embeddings": True,
            "attention_bias": False,
            "mlp_bias": False,
            "attention_dropout": 0.0,
        }


class RMSNorm(nn.Module):
    """x / rms(x) · weight, in float32."""

    def __init__(self, size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x32 = x.float()
        scale = torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.eps)
        return (x32 * scale * self.weight).to(x.dtype)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary positions, halves paired. x: [batch, heads, time, head_dim]; cos: [time, half]."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor, hidden: Tensor | None = None) -> Tensor:
    """Attention over [batch, heads, time, head_dim]; causal, or as `hidden` [..., time, time] says:
    -inf where a row does not look, 0 elsewhere.

    On a CPU, rows of a few hundred tokens cost the fused kernel two to three times what plain
    matrix products cost, backward included.
    """
    if q.device.type != "cpu":
        return F.scaled_dot_product_attention(q, k, v, hidden, is_causal=hidden is None)
    time = q.shape[2]
    if hidden is None:
        hidden = torch.full((time, time), -math.inf, dtype=q.dtype).triu(1)
    scores = torch.matmul(q * q.shape[-1] ** -0.5, k.transpose(-1, -2)) + hidden
    return torch.matmul(scores.softmax(-1), v)


class Attention(nn.Module):
    """Causal grouped-query attention."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = shape.heads, shape.kv_heads, shape.head_dim
        kv = shape.kv_heads * shape.head_dim
        self.q_proj = nn.Linear(shape.hidden, shape.hidden, bias=False)
        self.k_proj = nn.Linear(shape.hidden, kv, bias=False)
        self.v_proj = nn.Linear(shape.hidden, kv, bias=False)
        self.o_proj = nn.Linear(shape.hidden, shape.hidden, bias=False)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, hidden_keys: Tensor | None = None
    ) -> Tensor:
        batch, time, hidden = x.shape
        kv = self.kv_heads * self.head_dim
        joined = torch.cat((self.q_proj.weight, self.k_proj.weight, self.v_proj.weight))
        parts = torch.split(F.linear(x, joined), [hidden, kv, kv], dim=-1)
        q, k, v = (y.view(batch, time, -1, self.head_dim).transpose(1, 2) for y in parts)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        groups = self.heads // self.kv_heads
        k, v = k.repeat_interleave(groups, dim=1), v.repeat_interleave(groups, dim=1)
        y = attend(q, k, v, hidden_keys)
        return F.linear(y.transpose(1, 2).reshape(batch, time, hidden), self.o_proj.weight)


class MLP(nn.Module):
    """SwiGLU."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(shape.hidden, shape.ffn, bias=False)
        self.up_proj = nn.Linear(shape.hidden, shape.ffn, bias=False)
        self.down_proj = nn.Linear(shape.ffn, shape.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        joined = F.linear(x, torch.cat((self.gate_proj.weight, self.up_proj.weight)))
        gate, up = joined.chunk(2, dim=-1)
        return F.linear(F.silu(gate) * up, self.down_proj.weight)


class Block(nn.Module):
    """Attention and MLP, each behind a norm and added to the stream."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(shape.hidden, shape.norm_eps)
        self.self_attn = Attention(shape)
        self.post_attention_layernorm = RMSNorm(shape.hidden, shape.norm_eps)
        self.mlp = MLP(shape)

    def forward(
        self, x: Tensor, cos: Tensor, sin: Tensor, hidden_keys: Tensor | None = None
    ) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), cos, sin, hidden_keys)
        y: Tensor = self.mlp(self.post_attention_layernorm(x))
        return x + y


class Stack(nn.Module):
    """Embedding, blocks and the last norm."""

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(shape.vocab, shape.hidden)
        self.layers = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = RMSNorm(shape.hidden, shape.norm_eps)


class Seedling(nn.Module):
    """The whole network; the embedding is also the output matrix."""

    cos: Tensor
    sin: Tensor

    def __init__(self, shape: ModelShape) -> None:
        super().__init__()
        self.shape = shape
        self.model = Stack(shape)
        half = shape.head_dim // 2
        steps = shape.rope_theta ** -(torch.arange(half, dtype=torch.float64) / half)
        angles = torch.arange(shape.context, dtype=torch.float64)[:, None] * steps
        self.register_buffer("cos", angles.cos().float(), persistent=False)  # [context, half]
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def initialise(self, generator: torch.Generator) -> None:
        """Draw the weights.

        What writes into the stream starts at zero and the embedding wide: so each layer sees
        which token stands where from the first step on, and copying is found early.
        """
        for name, parameter in self.named_parameters():
            if parameter.ndim < 2:
                continue
            std = EMBEDDING_STD if "embed" in name else parameter.shape[1] ** -0.5
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                std = 0.0
            with torch.no_grad():
                parameter.normal_(0.0, std, generator=generator)

    def compile_blocks(self) -> None:
        """Have blocks compiled when they are first run; needs a C++ compiler. On one thread of a
        processor with bfloat16 matrices a step took two thirds of the time."""
        for block in self.model.layers:
            block.compile(dynamic=True)

    def hidden(
        self, ids: Tensor, positions: Tensor | None = None, hidden_keys: Tensor | None = None
    ) -> Tensor:
        """Last hidden states [batch, time, hidden] of ids [batch, time].

        Tokens stand one behind the other and see those before them, unless `positions` [batch, 1,
        time] and `hidden_keys` (see `attend`) say otherwise.
        """
        place = slice(0, ids.shape[1]) if positions is None else positions
        x = self.model.embed_tokens(ids)
        if torch.is_autocast_enabled(ids.device.type):
            x = x.to(torch.get_autocast_dtype(ids.device.type))
        cos, sin = self.cos[place].to(x.dtype), self.sin[place].to(x.dtype)
        for block in self.model.layers:
            x = block(x, cos, sin, hidden_keys)
        y: Tensor = self.model.norm(x)
        return y

    def logits(self, hidden: Tensor) -> Tensor:
        """[…, vocab] of hidden states […, hidden], in float32."""
        return F.linear(hidden, self.model.embed_tokens.weight).float()

    def forward(self, ids: Tensor) -> Tensor:
        return self.logits(self.hidden(ids))
