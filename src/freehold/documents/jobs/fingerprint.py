# SPDX-License-Identifier: Apache-2.0
"""What makes two jobs the same job: everything that changes an answer, and nothing else.

Knows no item: what those hold is in their content hash, the version of a reader by what it read.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from freehold.documents.jobs.items import Work

VERSION = 1  # of the form that is hashed


@dataclass(frozen=True, slots=True)
class Identity:
    """All that answers depend on beside the documents. Values are JSON."""

    model: str  # digest of the weights, the tokenizer and the template
    task: str
    task_version: int
    spec: Mapping[str, Any]
    adapter: str | None = None
    sampling: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, task: Work, model_digest: str, *, adapter: str | None = None,
        sampling: Mapping[str, Any] | None = None,
    ) -> Identity:  # fmt: skip
        """Of a task under a model. Whoever cuts documents says how in the task's spec."""
        return cls(model_digest, task.name, task.VERSION, task.spec(), adapter, sampling or {})

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "version": VERSION, "model": self.model, "adapter": self.adapter, "task": self.task,
            "task_version": self.task_version, "spec": self.spec, "sampling": self.sampling,
        }  # fmt: skip

    @property
    def fingerprint(self) -> str:
        """SHA-256 over canonical JSON: keys sorted, no spaces."""
        text = json.dumps(self.as_json(), sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Names of what differs between two identities, as a sentence lists them."""
    words = {"task_version": "version of the task", "spec": "what is asked", "version": "format"}
    names = [name for name in {**ours, **theirs} if ours.get(name) != theirs.get(name)]
    spec, other = ours.get("spec"), theirs.get("spec")
    if "spec" in names and isinstance(spec, Mapping) and isinstance(other, Mapping):
        inside = [key for key in {**spec, **other} if spec.get(key) != other.get(key)]
        if 0 < len(inside) <= 4:
            names[names.index("spec") : names.index("spec") + 1] = inside
    return [words.get(name, name) for name in names]
