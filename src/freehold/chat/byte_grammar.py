# SPDX-License-Identifier: Apache-2.0
"""Questions to grammars that need no model: its tokens are bytes.

Knows llguidance, no tokenizer and no schema.
"""

from __future__ import annotations

import json
from functools import cache

import llguidance
import numpy as np

from freehold.chat.deep_stack import on_deep_stack
from freehold.errors import ConstraintError

_END = 256


def compiled(grammar: str) -> llguidance.LLMatcher:
    """At the beginning of llguidance's text of a grammar. Raises ConstraintError with the library's
    own words."""
    matcher = on_deep_stack(lambda: llguidance.LLMatcher(_bytes(), grammar, log_level=0))
    if matcher.is_error():
        raise ConstraintError(matcher.get_error())
    return matcher


def can_begin(lark: str) -> bool:
    """Whether anything matches a grammar of one terminal, nothing excepted."""
    matcher = compiled(json.dumps({"grammars": [{"lark_grammar": lark}]}))
    bits = np.zeros(-(-(_END + 1) // 32), np.uint32)
    matcher.unsafe_compute_mask_ptr(bits.ctypes.data, bits.nbytes)
    return bool(bits[:8].any())


class _Bytes:
    """A tokenizer whose tokens are bytes, and one for the end."""

    is_tokenizer_wrapper = True
    eos_token_id = _END
    bos_token_id: int | None = None

    def __init__(self) -> None:
        self.tokens = [*(bytes([value]) for value in range(256)), b"<end>"]
        self.special_token_ids = [_END]

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


@cache
def _bytes() -> llguidance.LLTokenizer:
    return llguidance.LLTokenizer(_Bytes(), n_vocab=_END + 1, eos_token=_END)  # type: ignore[arg-type]
