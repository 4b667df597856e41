# SPDX-License-Identifier: Apache-2.0
"""What `freehold serve` was told. Plain values; the command line fills them in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """Settings of one server process."""

    models: tuple[str, ...] = ()  # names or paths, each served under its short name
    adapters: tuple[str, ...] = ()  # NAME=PATH, or MODEL:NAME=PATH where there are several models
    # the store of models
    store: bool = False  # serve what it holds too
    allow_pull: bool = False  # whoever may ask, or has a key for it, may fetch, copy and delete
    pull_hosts: tuple[str, ...] = ()  # HOST or HOST:PORT that may be fetched from beside the usual
    max_pulls: int = 2  # models fetched at a time
    host: str = "127.0.0.1"
    port: int = 8484
    engine: Mapping[str, Any] = field(default_factory=dict)  # keyword arguments of `LLM`
    max_waiting: int = 256  # requests waiting per model before "come back later"
    recommended_sampling: bool = True  # the vendor's settings where a request names none
    memory_bytes: int | None = None  # for all loaded models together; None: a share of free memory
    keep_alive: float | None = 600.0  # seconds a model stays loaded unused; None: for good
    pinned: tuple[str, ...] = ()  # names of models that nothing but the end of the server unloads
    preload: tuple[str, ...] = ()  # names of models to load before the first request
    memory_wait: float = 20.0  # seconds a request waits for memory that other models use
    max_upload_bytes: int = 256 << 20  # of files
    data_dir: Path | None = None  # of files and batches; None: they are not kept
    data_bytes: int = 8 << 30  # that all of them may take
    batch_lines: int = 8  # requests of batches under way while nobody else asks
    # What is kept of `/v1/responses` for each key: JSON bytes, responses, seconds.
    responses_bytes: int = 64 << 20
    responses_count: int = 1000
    responses_age: float = 86400.0
    # who may ask
    key_file: Path | None = None  # API keys; None: nobody needs one
    allow_hosts: tuple[str, ...] = ()  # names beside loopback by which clients may call this server
    allow_origins: tuple[str, ...] = ()  # websites whose pages may ask, as browsers write them
    # how much of it
    max_connections: int = 512
    max_body_bytes: int = 32 << 20
    header_timeout: float = 10.0  # seconds for a request's head
    body_timeout: float = 30.0  # seconds for its body, and more where it is large
    write_timeout: float = 60.0  # seconds a client may not read what is sent to it
    request_timeout: float | None = 3600.0  # seconds from a whole request to its whole answer
    grace: float = 30.0  # seconds that running answers get when the server is asked to stop
    # what is written down
    log_format: Literal["text", "json"] = "text"
    log_prompts: bool = False  # requests and answers too
