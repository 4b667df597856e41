# SPDX-License-Identifier: Apache-2.0
"""The parts of one `LLM`: opened in order, the cheap refusals first, and closed together.

Knows which part needs which others. Knows no request and no text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from freehold import backends
from freehold._llm_adapters import LoadedAdapters
from freehold._llm_inputs import (
    backend_options,
    check_context,
    check_free_memory,
    context_that_fits,
    file_marks,
    has_tokenizer,
)
from freehold._llm_tokens import Tokens
from freehold.chat.tokenizer import Tokenizer, load_tokenizer
from freehold.config import DEFAULT_BLOCK_SIZE, EngineConfig
from freehold.engine.engine import Engine
from freehold.engine.kv_cache import check_config, sequence_bytes
from freehold.engine.kv_snapshot import SnapshotStore, fingerprint_of
from freehold.errors import InvalidParameterError
from freehold.formats.checkpoint import open_checkpoint
from freehold.licensing import enforce_on
from freehold.model_names import resolve_model
from freehold.models.base import CausalLM
from freehold.models.loader import load_model, read_config
from freehold.ops import KVDtype

_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What `LLM` was told, as its docstring explains it."""

    model: str | Path
    backend: str
    threads: int | None
    isa: str | None
    context_length: int | None
    kv_dtype: KVDtype
    max_num_seqs: int
    max_num_batched_tokens: int
    prefix_caching: bool
    speculative_tokens: int
    forced_tokens: bool
    kv_memory_bytes: int | None
    skip_tokenizer_init: bool
    pre: str | None
    progress: Callable[[int, int], None] | None
    snapshot_dir: str | Path | None
    snapshot_bytes: int
    adapters: Mapping[str, str | Path]
    policy_override: str | None
    ignore_memory: bool

    @property
    def engine_settings(self) -> dict[str, Any]:
        """Fields of `EngineConfig`, all but the context."""
        return {
            "kv_dtype": self.kv_dtype,
            "max_num_seqs": self.max_num_seqs,
            "max_num_batched_tokens": self.max_num_batched_tokens,
            "prefix_caching": self.prefix_caching,
            "speculative_tokens": self.speculative_tokens,
            "forced_tokens": self.forced_tokens,
            "kv_memory_bytes": self.kv_memory_bytes,
        }


class Parts:
    """File, backend, weights, tokens and the first engine; open until `close`."""

    def __init__(self, wanted: Wanted) -> None:
        path = resolve_model(wanted.model)
        self.path = str(path)
        self.notices: list[str] = []
        self._settings = wanted.engine_settings
        self._model: CausalLM | None = None
        self._engine: Engine | None = None
        self._snapshots: SnapshotStore | None = None
        self.checkpoint = open_checkpoint(path)
        self.adapters = LoadedAdapters(self.checkpoint)
        try:
            enforce_on("load", path, name=str(wanted.model), override=wanted.policy_override)
            self._load(wanted, self._looked_at(wanted))
        except BaseException:
            self.close()
            raise

    def _looked_at(self, wanted: Wanted) -> Tokenizer | None:
        """Everything that may be refused, before the weights are loaded."""
        config = read_config(self.checkpoint)
        self.adapters.check(wanted.adapters, config)
        own = config.context_length
        check_context(wanted.context_length, own)
        check_config(EngineConfig(context_length=wanted.context_length or own, **self._settings))
        if wanted.backend == "cpu" and not wanted.ignore_memory:
            check_free_memory(self.checkpoint, config)
        if wanted.skip_tokenizer_init or not has_tokenizer(self.checkpoint):
            return None
        return load_tokenizer(self.checkpoint, pre=wanted.pre)

    def _load(self, wanted: Wanted, tokenizer: Tokenizer | None) -> None:
        self.ops = backends.create(wanted.backend, **backend_options(wanted.threads, wanted.isa))
        model = self._model = load_model(self.checkpoint, self.ops, wanted.progress)
        for name, file in wanted.adapters.items():
            self.adapters.load(name, file, model, self.ops)
        self.config = model.config
        self.tokens = Tokens(self.path, tokenizer, model.config.vocab_size)
        self.context_length = self._context(wanted.context_length)
        if wanted.snapshot_dir is not None:
            fingerprint = fingerprint_of(
                file_marks(self.checkpoint), wanted.backend, getattr(self.ops, "isa", ""),
                wanted.kv_dtype, DEFAULT_BLOCK_SIZE, tuple(model.kv_layers()),
                version("freehold"),
            )  # fmt: skip
            self._snapshots = SnapshotStore(wanted.snapshot_dir, fingerprint, wanted.snapshot_bytes)
        self._engine = self.make_engine()

    def _context(self, wanted: int | None) -> int:
        """Positions of a sequence: those wanted, or as many of the model's own as fit."""
        if wanted is not None:
            return wanted
        own = self.config.context_length
        found = context_that_fits(own, self._kv_bytes, self._settings["kv_memory_bytes"])
        if found < own:
            self.notices.append(
                f"the context is {found:,} tokens: free memory does not hold the "
                f"cache for all {own:,} of the model; context_length (--context) sets it"
            )
        return found

    def _kv_bytes(self, tokens: int) -> int:
        """Bytes of cache one sequence of `tokens` tokens needs."""
        chunk, dtype = self._settings["max_num_batched_tokens"], self._settings["kv_dtype"]
        return sequence_bytes(self.model.kv_layers(), tokens, chunk, DEFAULT_BLOCK_SIZE, dtype)

    @property
    def model(self) -> CausalLM:
        """Raises InvalidParameterError once closed."""
        return _open(self._model)

    @property
    def engine(self) -> Engine:
        """Raises InvalidParameterError once closed."""
        return _open(self._engine)

    @property
    def nbytes(self) -> int:
        """Bytes that the weights, the adapters and the cache take."""
        return self.model.weight_bytes() + self.adapters.nbytes + self.engine.kv_bytes

    def make_engine(self, **overrides: Any) -> Engine:
        """An engine over the weights; `overrides` replace fields of `EngineConfig`."""
        settings = {"context_length": self.context_length, **self._settings, **overrides}
        tokenizer = self.tokens.known
        return Engine(
            self.model,
            self.ops,
            EngineConfig(**settings),
            eos_token_ids=() if tokenizer is None else tokenizer.eos_ids,
            token_bytes=None if tokenizer is None else self.tokens.bytes_of,
            snapshots=self._snapshots,
        )

    def close(self) -> None:
        """Give the memory back and let go of the files. May be called twice."""
        self._engine = self._model = None
        self.adapters.clear()
        if self._snapshots is not None:
            self._snapshots.close()
        self.checkpoint.close()


def _open(part: _Part | None) -> _Part:
    if part is None:
        raise InvalidParameterError("the model was closed", hint="load it again with LLM(path)")
    return part
