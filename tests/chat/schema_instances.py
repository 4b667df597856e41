# SPDX-License-Identifier: Apache-2.0
"""Whether our grammar of a schema takes an instance, in whichever way its JSON may be written."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import Any

from freehold.chat.json_schema import LAYOUT, schema_grammar, schema_reason
from freehold.engine.structured import Grammar, TokenVocabulary
from freehold.errors import ConstraintError

# A token for each byte, and the end.
BYTES = TokenVocabulary([*(bytes([i]) for i in range(256)), b"<end>"], [256], [256], list)
_SEPARATORS = (LAYOUT["item_separator"], LAYOUT["key_separator"])
_ORDERS = 24


def compiled(schema: Any) -> Grammar | str:
    """The grammar, or why there is none."""
    try:
        return BYTES.compile(json.dumps({"grammars": [schema_grammar(schema)]}))
    except ConstraintError as error:
        return schema_reason(error.message)


def takes(grammar: Grammar, instance: Any) -> bool:
    """Whether the grammar holds some way to write the instance."""
    return any(grammar.accepts(text.encode()) for text in writings(instance))


def writings(instance: Any) -> Iterator[str]:
    """JSON texts of an instance: members of its outermost object in every order (of some), numbers
    and letters in every spelling a grammar may prefer."""
    seen: set[str] = set()
    for value in itertools.islice(_orders(instance), _ORDERS):
        for number in (lambda x: x, _as_float, _as_int):
            for ascii_only in (False, True):
                text = json.dumps(
                    _numbers(value, number), ensure_ascii=ascii_only, separators=_SEPARATORS
                )
                if text not in seen and not _lone_surrogate(text):
                    seen.add(text)
                    yield text


def _orders(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for keys in itertools.permutations(value):
            yield {key: value[key] for key in keys}
    else:
        yield value


def _numbers(value: Any, change: Any) -> Any:
    if isinstance(value, dict):
        return {key: _numbers(item, change) for key, item in value.items()}
    if isinstance(value, list):
        return [_numbers(item, change) for item in value]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return change(value)
    return value


def _as_float(value: float) -> float:
    return float(value) if abs(value) < 2**53 else value


def _as_int(value: float) -> float:
    return int(value) if value == int(value) else value


def _lone_surrogate(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)
