# SPDX-License-Identifier: Apache-2.0
"""What LangChain's OpenAI classes get from a server.

Runs in LangChain's own environment (`run.py`); prints one JSON object.
"""

from __future__ import annotations

import json
import sys
from typing import Any, Literal

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI, OpenAIEmbeddings
from pydantic import BaseModel, ConfigDict

BASE, CALLER = sys.argv[1:3]  # servers of "tiny", and of "caller", which calls tools
WHERE: dict[str, Any] = {"base_url": BASE + "/v1", "api_key": "unused", "model": "tiny"}


class Ticket(BaseModel):
    """A complaint, sorted. It has no other fields: a model of noise would never end inventing."""

    model_config = ConfigDict(extra="forbid")

    urgent: bool
    team: Literal["billing", "shipping", "support"]


def main() -> None:
    chat = ChatOpenAI(temperature=0, max_tokens=12, **WHERE)
    talk = [SystemMessage("Be brief."), HumanMessage("Hello")]
    answer = chat.invoke(talk)
    plainly = {"chat_template_kwargs": {"enable_thinking": False}}
    sorter = ChatOpenAI(
        temperature=0,
        extra_body=plainly,
        **{**WHERE, "base_url": CALLER + "/v1", "model": "caller"},
    )
    by_schema = sorter.with_structured_output(Ticket, method="json_schema").invoke("No parcel.")
    by_tool = sorter.with_structured_output(Ticket, method="function_calling").invoke("No parcel.")
    plain = OpenAI(temperature=0, max_tokens=12, **WHERE)
    # Otherwise the texts are split with OpenAI's tokenizer, which is no other model's.
    vectors = OpenAIEmbeddings(check_embedding_ctx_length=False, **WHERE)
    print(json.dumps({
        "chat": answer.content,
        "chat_usage": answer.usage_metadata["output_tokens"],
        "chat_stream": "".join(piece.content for piece in chat.stream(talk)),
        "by_schema": by_schema.model_dump(),
        "by_tool": by_tool.model_dump(),
        "completion": plain.invoke("the Thames"),
        "completions": plain.batch(["the Thames", "the Rhine"]),
        "completion_stream": "".join(plain.stream("the Thames")),
        "embedding": vectors.embed_query("the Thames"),
        "embeddings": len(vectors.embed_documents(["a", "b", "c"])),
    }))  # fmt: skip


main()
