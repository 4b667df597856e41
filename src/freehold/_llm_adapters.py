# SPDX-License-Identifier: Apache-2.0
"""The adapters of one `LLM` by name: opened, checked, loaded, taken away.

Knows names and files; what an adapter computes is `models.adapted_ops`'s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from freehold.errors import InvalidParameterError
from freehold.formats.adapter_file import open_adapter
from freehold.formats.checkpoint import Checkpoint
from freehold.models.adapters import (
    Adapter,
    check_adapter_name,
    checked_pairs,
    load_adapter,
)
from freehold.models.base import CausalLM, ModelConfig
from freehold.ops import Ops

# One adapter's name for all prompts of a batch, or one per prompt; None: the model as it is.
AdapterNames: TypeAlias = str | Sequence[str | None] | None


class LoadedAdapters:
    """Names and the adapters behind them. Loading and taking away belong to the model's thread;
    `find` may be called on any."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._adapters: dict[str, Adapter] = {}

    @property
    def names(self) -> tuple[str, ...]:
        """In the order in which they were loaded."""
        return tuple(self._adapters)

    @property
    def nbytes(self) -> int:
        """Bytes on the device."""
        return sum(adapter.nbytes for adapter in self._adapters.values())

    def check(self, files: Mapping[str, str | Path], config: ModelConfig) -> None:
        """Raise what `load` would raise for what headers tell, before any weight is loaded."""
        for name, path in files.items():
            check_adapter_name(name)
            with open_adapter(path) as file:
                checked_pairs(file, self._checkpoint, config)

    def load(self, name: str, path: str | Path, model: CausalLM, ops: Ops) -> None:
        """Load the adapter at `path` under `name`. Raises InvalidParameterError for a name that is
        taken or cannot be one, and what opening and checking the file raise."""
        check_adapter_name(name)
        if name in self._adapters:
            raise InvalidParameterError(
                f"an adapter named {name!r} is loaded", hint="unload it first, or choose another"
            )
        with open_adapter(path) as file:
            self._adapters[name] = load_adapter(file, name, self._checkpoint, model, ops)

    def unload(self, name: str) -> None:
        """Take the name away. Requests that run under it end as they began."""
        self.find(name)
        del self._adapters[name]

    def find(self, name: str | None) -> Adapter | None:
        """The adapter of a name; None for None. Raises InvalidParameterError."""
        if name is None:
            return None
        adapter = self._adapters.get(name)
        if adapter is None:
            raise InvalidParameterError(
                f"no adapter is loaded as {name!r:.80}",
                hint=f"there are: {', '.join(self._adapters) or 'none'}",
            )
        return adapter

    def per_prompt(self, names: AdapterNames, count: int) -> list[Adapter | None]:
        """The adapter of each of `count` prompts."""
        if names is None or isinstance(names, str):
            return [self.find(names)] * count
        if len(names) != count:
            raise InvalidParameterError(f"{len(names)} adapters for {count} prompts")
        return [self.find(name) for name in names]

    def clear(self) -> None:
        """Let go of all of them."""
        self._adapters.clear()
