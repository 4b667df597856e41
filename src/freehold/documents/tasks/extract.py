# SPDX-License-Identifier: Apache-2.0
"""Named fields of a text as values."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from freehold.documents import prompts
from freehold.documents.asking import Answer, Progress, ask, unfenced
from freehold.errors import AnswerError, InvalidParameterError

if TYPE_CHECKING:
    from freehold.llm import LLM

Fields: TypeAlias = dict[str, str | None]

_TOKENS_PER_FIELD = 48
_SPARE_TOKENS = 32


def extract(
    llm: LLM, texts: Sequence[str], fields: Sequence[str], progress: Progress | None = None
) -> list[Answer[Fields]]:
    """The values of `fields` in every text, None where the model says that there is none.

    An answer that is no JSON object with exactly these names is an AnswerError.
    """
    if not fields or len(set(fields)) != len(fields) or not all(fields):
        raise InvalidParameterError("fields must be one or more different names")
    conversations = [prompts.extract(text, fields) for text in texts]
    room = _TOKENS_PER_FIELD * len(fields) + _SPARE_TOKENS
    return ask(llm, conversations, lambda _, text: parse_fields(text, fields), room, progress)


def parse_fields(text: str, fields: Sequence[str]) -> Fields:
    """The object in an answer, its names in the order of `fields`. Raises AnswerError."""
    try:
        value = json.loads(
            unfenced(text), object_pairs_hook=_object, parse_float=str, parse_int=str,
            parse_constant=_no_constant,
        )  # fmt: skip
    except AnswerError:
        raise
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise AnswerError(f"the answer is not JSON: {reason:.100}") from None
    if not isinstance(value, dict):
        raise AnswerError("the answer is JSON but no object")
    missing = [name for name in fields if name not in value]
    extra = [name for name in value if name not in fields]
    if missing or extra:
        parts = [f"lacks {', '.join(missing)}"] if missing else []
        parts += [f"has {', '.join(extra)[:100]}, which nobody asked for"] if extra else []
        raise AnswerError(f"the answer {' and '.join(parts)}")
    return {name: _text_of(name, value[name]) for name in fields}


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise AnswerError("the answer names a field twice")
    return dict(pairs)


def _no_constant(name: str) -> NoReturn:
    raise AnswerError(f"the answer is not JSON: {name} is no value")


def _text_of(name: str, value: Any) -> str | None:
    """Numbers arrive as they are spelled; true and false are words too."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None or (isinstance(value, str) and _is_text(value)):
        return value
    raise AnswerError(f"the answer has no plain value for {name:.60}")


def _is_text(value: str) -> bool:
    """False for half a surrogate pair, which JSON can escape and nothing can write down."""
    return not any("\ud800" <= character <= "\udfff" for character in value)
