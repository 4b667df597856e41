# SPDX-License-Identifier: Apache-2.0
"""What litellm gets from a server: chat, streams, plain completions, vectors, an order.

Runs in litellm's own environment (`run.py`); prints one JSON object.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import litellm

BASE, MODEL = sys.argv[1], "tiny"
HELLO = [{"role": "user", "content": "Hello"}]
WHERE: dict[str, Any] = {"api_base": BASE + "/v1", "api_key": "unused"}


def main() -> None:
    litellm.telemetry = False
    chat = {"model": f"openai/{MODEL}", "messages": HELLO, "temperature": 0, "max_tokens": 12}
    whole = litellm.completion(**chat, **WHERE)
    chunks = list(litellm.completion(**chat, stream=True, **WHERE))
    text = {"model": f"text-completion-openai/{MODEL}", "temperature": 0, "max_tokens": 12}
    plain = litellm.text_completion(prompt="the Thames", logprobs=2, **text, **WHERE)
    many = litellm.text_completion(prompt=["the Thames", "the Rhine"], **text, **WHERE)
    vectors = litellm.embedding(
        model=f"openai/{MODEL}", input=["the Thames"], encoding_format="float", **WHERE
    )
    order = litellm.rerank(
        model=f"hosted_vllm/{MODEL}", query="Thames", documents=["cats", "Thames"], top_n=1,
        api_base=BASE, api_key="unused",
    )  # fmt: skip
    try:
        litellm.completion(model="openai/nobody", messages=HELLO, **WHERE)
        refusal = "none"
    except Exception as error:
        refusal = type(error).__name__
    print(json.dumps({
        "chat": whole.choices[0].message.content,
        "chat_usage": whole.usage.completion_tokens,
        "chat_stream": "".join(c.choices[0].delta.content or "" for c in chunks),
        "completion": plain.choices[0].text,
        "completion_logprobs": len(plain.choices[0].logprobs.token_logprobs),
        "completions": [c.text for c in many.choices],
        "embedding": vectors.data[0]["embedding"],
        "rerank": len(order.results),
        "refusal": refusal,
    }))  # fmt: skip


main()
