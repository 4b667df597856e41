# SPDX-License-Identifier: Apache-2.0
"""A published seedling read back: its tokenizer and its weights, for a run that goes on from it.

The inverse of `export`, as far as a rounded file has one. Knows where GGUF keeps what.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers
from torch import Tensor

from freehold.chat.pretokenizers import pre_splitter
from freehold.formats.checkpoint import open_checkpoint
from freehold.models._row_order import interleaved_rows
from freehold.models.names import canonical_name
from recipes.seedling.model import Seedling
from recipes.seedling.settings import SPECIAL_TOKENS
from recipes.seedling.tokenizer import SPLITTER


def read_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer of a GGUF file that this recipe has made."""
    with open_checkpoint(path) as checkpoint:
        tokens = checkpoint.get_strings("tokenizer.ggml.tokens")
        merges = checkpoint.get_strings("tokenizer.ggml.merges")
    assert tokens is not None
    assert merges is not None
    plain = {token: i for i, token in enumerate(tokens) if token not in SPECIAL_TOKENS}
    pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
    splitter = pre_splitter(SPLITTER)
    tokenizer = Tokenizer(models.BPE(vocab=plain, merges=pairs))
    tokenizer.normalizer = normalizers.NFC() if splitter.nfc else None
    tokenizer.pre_tokenizer = splitter.build()
    tokenizer.decoder = decoders.ByteLevel()
    specials = [AddedToken(text, special=True, normalized=False) for text in SPECIAL_TOKENS]
    tokenizer.add_special_tokens(specials)
    return tokenizer


@torch.no_grad()
def load_weights(model: Seedling, path: Path) -> None:
    """Fill `model` with the weights of a GGUF file of the same shape."""
    shape = model.shape
    with open_checkpoint(path) as checkpoint:
        for name, parameter in model.named_parameters():
            spelled = canonical_name(name)
            assert spelled is not None
            values = checkpoint.tensor(spelled).to_f32()
            for part, heads in (("attn_q", shape.heads), ("attn_k", shape.kv_heads)):
                if part in spelled.split("."):
                    # rows as `convert` has put them, back to where they were
                    rows = interleaved_rows(heads, shape.head_dim, shape.head_dim)
                    values = values[np.argsort(rows)]
            found: Tensor = torch.from_numpy(np.ascontiguousarray(values))
            parameter.copy_(found.reshape(parameter.shape))
