# SPDX-License-Identifier: Apache-2.0
"""Ollama's ``options``: each is a field of the sampling, a hint for the machine, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from freehold.server.failures import RequestError

# As Ollama spells them, and the field each one is here.
_SAMPLING = {
    "temperature": "temperature",
    "top_k": "top_k",
    "top_p": "top_p",
    "min_p": "min_p",
    "typical_p": "typical_p",
    "repeat_penalty": "repetition_penalty",
    "repeat_last_n": "penalty_last_n",
    "presence_penalty": "presence_penalty",
    "frequency_penalty": "frequency_penalty",
    "seed": "seed",
    "stop": "stop",
}
_WHOLE = ("top_k", "repeat_last_n", "seed", "num_predict", "num_ctx")
# How a machine is used is this server's own business, and no answer hangs on it. What num_keep
# keeps is never dropped here.
_HINTS = (
    "num_batch", "num_gpu", "main_gpu", "numa", "low_vram", "f16_kv", "use_mmap", "use_mlock",
    "num_thread", "num_keep",
)  # fmt: skip
# Options that are understood only where they ask for what happens anyway.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "mirostat": (0,),
    "tfs_z": (1, 0),
    "penalize_newline": (True,),
    "logits_all": (False,),
    "vocab_only": (False,),
    "embedding_only": (False,),
}
_OF_MIROSTAT = ("mirostat_tau", "mirostat_eta")


def sampling_of(options: Mapping[str, Any] | None) -> dict[str, Any]:
    """The fields of `SamplingParams` that options name. Raises RequestError by the option."""
    result: dict[str, Any] = {}
    for name, value in (options or {}).items():
        where = f"options.{name:.60}"
        if name in _WHOLE and isinstance(value, float) and value.is_integer():
            value = int(value)
        if value is None or name in _HINTS or name in _OF_MIROSTAT or name == "num_ctx":
            continue  # `context_of` looks at the last
        if name == "stop" and not isinstance(value, (str, list)):
            raise RequestError(f"{where} must be a list of texts", param=where)
        if name in _SAMPLING:
            result[_SAMPLING[name]] = value
        elif name == "num_predict":
            if value in (-1, -2):  # without end; to the end of the context, which is that end
                continue
            if type(value) is not int or value < 1:
                raise RequestError(f"{where} must be a number of tokens, or -1", param=where)
            result["max_tokens"] = value
        elif name not in _NEUTRAL:
            raise RequestError(f"{where} is not known", param=where)
        elif value not in _NEUTRAL[name]:
            raise RequestError(f"{where}: there is no such sampler or mode here", param=where)
    seed = result.get("seed")
    if type(seed) is int and seed < 0:
        if seed == -1:  # any
            del result["seed"]
        else:
            result["seed"] = seed % 2**64
    return result


def check_context(options: Mapping[str, Any] | None, served: int) -> None:
    """Refuse a window that is wider than the one that is served; a narrower one is in it."""
    wanted = (options or {}).get("num_ctx")
    if wanted is None:
        return
    if isinstance(wanted, bool) or not isinstance(wanted, (int, float)) or wanted < 1:
        raise RequestError("options.num_ctx must be a number of tokens", param="options.num_ctx")
    if wanted > served:
        raise RequestError(
            f"options.num_ctx: the model is served with a context of {served:,} tokens",
            param="options.num_ctx", hint="start the server with a longer --context",
        )  # fmt: skip
