# SPDX-License-Identifier: Apache-2.0
"""Whether a JSON value is valid under a schema, told by the grammar that answers are kept to.

What this calls valid is valid under the schema; a value whose properties stand in another order
than the schema's may be valid and is not found to be. Schemas that no answer can be kept to are
refused.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from llguidance import LLMatcher

from freehold.chat.byte_grammar import compiled
from freehold.chat.json_schema import schema_grammar, schema_reason
from freehold.errors import ConstraintError


class JsonCheck:
    """Checks values under one schema. Raises ConstraintError for one that cannot be kept."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        grammar = json.dumps({"grammars": [schema_grammar(schema)]})
        self._matcher = _compiled(grammar)

    def accepts(self, value: Any) -> bool:
        """Whether `value`, written as JSON, is valid."""
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        except (ValueError, TypeError, RecursionError):
            return False
        matcher = self._matcher.deep_copy()
        taken = matcher.try_consume_tokens(list(text))
        return bool(taken == len(text) and matcher.is_accepting() and not matcher.is_error())


@lru_cache(maxsize=64)
def _compiled(grammar: str) -> LLMatcher:
    try:
        return compiled(grammar)
    except ConstraintError as error:
        raise ConstraintError(schema_reason(error.message)) from None
