# SPDX-License-Identifier: Apache-2.0
"""Named values of a text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self

from freehold.documents import prompts
from freehold.documents.asking import JSON, Answer, Asker, Progress, answered
from freehold.documents.document import Document
from freehold.errors import InvalidParameterError
from freehold.types import Constraint

if TYPE_CHECKING:
    from freehold.llm import LLM

_TOKENS_PER_FIELD = 48
_SPARE_TOKENS = 32


@dataclass(frozen=True, slots=True)
class Extract:
    """The values that `schema`, a JSON Schema of an object, asks for."""

    name: ClassVar[str] = "extract"
    VERSION: ClassVar[int] = 1

    schema: Mapping[str, Any]

    @classmethod
    def of_fields(cls, fields: Sequence[str]) -> Self:
        """Texts by these names, or null."""
        if not fields or len(set(fields)) != len(fields) or not all(fields):
            raise InvalidParameterError("fields must be one or more different names")
        value = {"type": ["string", "null"]}
        return cls(
            {
                "type": "object",
                "properties": dict.fromkeys(fields, value),
                "required": list(fields),
                "additionalProperties": False,
            }
        )

    def spec(self) -> dict[str, JSON]:
        """Everything that changes an answer."""
        return {"schema": json.loads(json.dumps(self.schema)), "prompts": prompts.VERSION}

    @classmethod
    def from_spec(cls, spec: dict[str, Any]) -> Self:
        """The task of a spec."""
        prompts.check_version(spec)
        return cls(spec["schema"])

    def answer(self, asker: Asker, documents: Sequence[Document]) -> list[Answer[Any]]:
        """Values by name."""
        fields = list(self.schema["properties"])
        conversations = [prompts.extract(document.text, fields) for document in documents]
        room = _TOKENS_PER_FIELD * len(fields) + _SPARE_TOKENS
        replies = asker.chat(
            conversations, max_tokens=room, constraint=Constraint("json_schema", self.schema)
        )
        return [answered(reply, _value) for reply in replies]


def _value(text: str) -> dict[str, Any]:
    return {"values": json.loads(text), "evidence": {}, "unsupported": [], "conflicts": {}}


TASK = Extract


def extract(
    llm: LLM | Asker, documents: Iterable[Document | str], fields: Sequence[str],
    progress: Progress | None = None,
) -> list[Answer[Any]]:  # fmt: skip
    """The values of `fields` in every document."""
    from freehold.documents import tasks

    return tasks.run(Extract.of_fields(fields), llm, documents, progress)
