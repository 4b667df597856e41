# SPDX-License-Identifier: Apache-2.0
"""What instructor makes of a server's answers: objects of a class, by schema and by tool.

Runs in instructor's own environment (`run.py`); prints one JSON object.
"""

from __future__ import annotations

import json
import sys
from typing import Literal

import instructor
import openai
from pydantic import BaseModel, ConfigDict

BASE = sys.argv[1]  # of a server of "caller", a model that calls tools


class Ticket(BaseModel):
    """A complaint, sorted. It has no other fields: a model of noise would never end inventing."""

    model_config = ConfigDict(extra="forbid")

    urgent: bool
    team: Literal["billing", "shipping", "support"]
    language: Literal["de", "en"]


def main() -> None:
    client = openai.OpenAI(base_url=BASE + "/v1", api_key="unused")
    found = {}
    # Mode.JSON asks for any object, and a model of noise finds no end to one.
    for mode in (instructor.Mode.JSON_SCHEMA, instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT):
        patched = instructor.from_openai(client, mode=mode)
        ticket = patched.chat.completions.create(
            model="caller", response_model=Ticket, max_retries=0, temperature=0,
            messages=[{"role": "user", "content": "The parcel never came."}],
            extra_body={"chat_template_kwargs": {"enable_thinking": False}},
        )  # fmt: skip
        found[mode.name] = ticket.model_dump()
    print(json.dumps(found))


main()
