# SPDX-License-Identifier: Apache-2.0
"""How Ollama words errors, times, models and the ends of answers."""

from __future__ import annotations

import math
import time
from datetime import UTC, datetime
from typing import Any

from freehold import __version__
from freehold.server.failures import Failure
from freehold.server.models.registry import ServedModel
from freehold.server.ollama.model_facts import ModelFacts
from freehold.server.sse import dumps
from freehold.types import Completion

# The age of Ollama's API that is spoken here: clients compare it with what they need.
VERSION = f"0.33.0-freehold-{__version__}"
_NEVER = "2318-01-01T00:00:00Z"  # when a model goes that stays; Ollama has no other word for it
NDJSON = "application/x-ndjson"


def error_body(failure: Failure) -> dict[str, Any]:
    """``{"error": "..."}``; the field to blame is part of the sentence."""
    message = failure.message
    if failure.param is not None and failure.param not in message:
        message = f"{failure.param}: {message}"
    return {"error": message}


def line(value: dict[str, Any]) -> str:
    """One line of a streamed answer."""
    return dumps(value) + "\n"


def error_line(failure: Failure) -> str:
    """An error after the stream has begun."""
    return line(error_body(failure))


def moment(seconds: float | None = None) -> str:
    """A time as RFC 3339; None is now."""
    at = time.time() if seconds is None else seconds
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def nanoseconds(seconds: float) -> int:
    """A duration as Ollama counts it."""
    return max(0, round(seconds * 1e9))


def ending(completion: Completion, begun: float, loaded: float) -> dict[str, Any]:
    """What the last line of an answer says; times are `time.perf_counter`'s."""
    return {
        "done": True,
        "done_reason": "length" if completion.finish_reason == "length" else "stop",
        "total_duration": nanoseconds(time.perf_counter() - begun),
        "load_duration": nanoseconds(loaded - begun),
        "prompt_eval_count": len(completion.prompt_token_ids),
        "prompt_eval_duration": nanoseconds(completion.prefill_seconds),
        "eval_count": len(completion.token_ids),
        "eval_duration": nanoseconds(completion.decode_seconds),
    }


def tagged(name: str) -> str:
    """Every model of Ollama's has a tag."""
    return name if ":" in name else f"{name}:latest"


def details(facts: ModelFacts | None) -> dict[str, Any]:
    """What kind of model it is."""
    if facts is None:
        return {"parent_model": "", "format": "", "family": "", "families": None,
                "parameter_size": "", "quantization_level": ""}  # fmt: skip
    return {
        "parent_model": "",
        "format": facts.format,
        "family": facts.family,
        "families": [facts.family],
        "parameter_size": parameter_size(facts.parameters),
        "quantization_level": facts.quantization,
    }


def parameter_size(count: int) -> str:
    """``8.0B``, ``137.02M``, ``260K``."""
    if count >= 10**9:
        return f"{count / 1e9:.1f}B"
    return f"{count / 1e6:.2f}M" if count >= 10**6 else f"{count / 1e3:.0f}K"


def listed(model: ServedModel, facts: ModelFacts | None) -> dict[str, Any]:
    """An entry of ``/api/tags``."""
    return {
        **_named(model, facts),
        "modified_at": moment(model.created if facts is None else facts.modified),
        "size": 0 if facts is None else facts.nbytes,
    }


def running(model: ServedModel, facts: ModelFacts | None) -> dict[str, Any]:
    """An entry of ``/api/ps``."""
    ends = model.expires_at
    return {
        **_named(model, facts),
        "size": model.nbytes,
        "size_vram": 0,
        "expires_at": _NEVER if ends is None or math.isinf(ends) else moment(ends),
        "context_length": model.loaded.llm.context_length,
    }


def _named(model: ServedModel, facts: ModelFacts | None) -> dict[str, Any]:
    name = tagged(model.name)
    return {
        "name": name,
        "model": name,
        "digest": "0" * 64 if facts is None else facts.digest,
        "details": details(facts),
    }


def shown(model: ServedModel, facts: ModelFacts) -> dict[str, Any]:
    """The answer of ``/api/show``."""
    parameters = [f"{_PARAMETERS.get(k, k):<30} {v}" for k, v in facts.sampling.items()]
    able = {"tools": facts.calls_tools, "thinking": facts.thinks, "insert": facts.fills_in}
    capabilities = ["completion", *(name for name, is_so in able.items() if is_so)]
    return {
        "modelfile": f"FROM {tagged(model.name)}\n",
        "parameters": "\n".join(parameters),
        "template": facts.template,
        "license": facts.licence,
        "details": details(facts),
        "model_info": dict(facts.info),
        "capabilities": capabilities,
        "modified_at": moment(facts.modified),
    }


_PARAMETERS = {"repetition_penalty": "repeat_penalty", "penalty_last_n": "repeat_last_n"}
