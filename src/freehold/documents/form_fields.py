# SPDX-License-Identifier: Apache-2.0
"""The form of an answer in the fields of a request over OpenAI's API, for servers and batch files.

Knows forms and fields; who is asked is not known here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from freehold.chat.grounded_json import IN_TEXT
from freehold.types import Constraint


def form_fields(form: Constraint | None, *, grounding: bool = False) -> dict[str, Any]:
    """The form of an answer in the fields of a request: OpenAI's for JSON, vLLM's for others.

    Only freehold's servers can hold words to a text (`grounding`); others are asked for the schema,
    and whoever reads the answer finds the words in the text or says that they are not there.
    """
    if form is None:
        return {}
    if form.kind == "json":
        return {"response_format": {"type": "json_object"}}
    if form.kind == "grounded" and not grounding:
        form = Constraint("json_schema", _without_marks(form.value["schema"]))
    if form.kind == "json_schema":
        wanted = {"name": "answer", "schema": form.value, "strict": True}
        return {"response_format": {"type": "json_schema", "json_schema": wanted}}
    names = {"regex": "regex", "choice": "choice", "lark": "grammar", "grounded": "grounded"}
    value = list(form.value) if form.kind == "choice" else form.value
    return {"structured_outputs": {names[form.kind]: value}}


def _without_marks(schema: Any) -> Any:
    """A schema whose strings need not be words of a text."""
    if isinstance(schema, Mapping):
        return {k: _without_marks(v) for k, v in schema.items() if k != IN_TEXT}
    if isinstance(schema, list):
        return [_without_marks(each) for each in schema]
    return schema
