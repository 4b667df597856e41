# SPDX-License-Identifier: Apache-2.0
"""Settings, one small frozen dataclass per concern; the only module that reads the environment."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from freehold.errors import InvalidParameterError
from freehold.ops import KVDtype

DEFAULT_BLOCK_SIZE = 16  # tokens per cache block; the CPU attention kernel needs multiples of 16


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Limits of the scheduler and the cache."""

    context_length: int  # positions one sequence may use
    max_num_seqs: int = 64  # sequences in one step
    max_num_batched_tokens: int = 512  # tokens in one step: the prefill chunk
    block_size: int = DEFAULT_BLOCK_SIZE
    num_blocks: int | None = None  # None = from kv_memory_bytes
    kv_memory_bytes: int | None = None  # None = decided from free memory and context_length
    kv_dtype: KVDtype = "f16"
    prefix_caching: bool = True
    speculative_tokens: int = 0  # prompt-lookup drafts per step; 0 = off
    forced_tokens: bool = True  # take what a constraint forces without asking the model


def env_isa() -> str | None:
    """Forced kernel level (`FREEHOLD_ISA`), or None to take the best the processor has."""
    return os.environ.get("FREEHOLD_ISA") or None


def env_threads() -> int | None:
    """Worker threads (`FREEHOLD_THREADS`), or None for one per physical core."""
    text = os.environ.get("FREEHOLD_THREADS")
    if not text:
        return None
    # Nine digits at most: int() itself refuses thousands of them, and no machine has that many.
    if not re.fullmatch(r"[0-9]{1,9}", text) or int(text) < 1:
        raise InvalidParameterError(
            f"FREEHOLD_THREADS must be a positive whole number, not {text!r:.40}"
        )
    return int(text)


def data_dir() -> Path | None:
    """Where this user's data lie: `$XDG_DATA_HOME/freehold`, else `~/.local/share/freehold`; None
    where there is no home directory."""
    # The specification of these variables wants relative paths ignored.
    given = Path(os.environ.get("XDG_DATA_HOME", ""))
    try:
        root = given if given.is_absolute() else Path.home() / ".local" / "share"
    except RuntimeError:
        return None
    return root / "freehold"


def calibration_dir() -> Path | None:
    """Where this machine's speed is remembered: `FREEHOLD_CALIBRATION`, else `planner` among the
    user's data; None where that says ``off``, or there is no home directory."""
    given = os.environ.get("FREEHOLD_CALIBRATION", "")
    if given == "off":
        return None
    if given:
        return Path(given)
    home = data_dir()
    return None if home is None else home / "planner"


def config_dir() -> Path:
    """Where this user's settings lie: `$XDG_CONFIG_HOME/freehold`, else `~/.config/freehold`.

    Raises InvalidParameterError where there is no home directory.
    """
    # The specification of these variables wants relative paths ignored.
    given = Path(os.environ.get("XDG_CONFIG_HOME", ""))
    try:
        root = given if given.is_absolute() else Path.home() / ".config"
    except RuntimeError:
        raise InvalidParameterError(
            "this user has no home directory", hint="set XDG_CONFIG_HOME to a directory"
        ) from None
    return root / "freehold"


def models_dir() -> Path:
    """Where the store of models lies: `$FREEHOLD_MODELS`, else `models` in `data_dir`.

    Raises InvalidParameterError where neither is known.
    """
    if given := os.environ.get("FREEHOLD_MODELS"):
        return _expanded(given)
    root = data_dir()
    if root is None:
        raise InvalidParameterError(
            "this user has no home directory", hint="set FREEHOLD_MODELS to a directory"
        )
    return root / "models"


# -- where other programs keep models -----------------------------------------------------------


def huggingface_caches() -> list[Path]:
    """Where huggingface_hub keeps repositories, by its own variables, in its own order."""
    if given := os.environ.get("HF_HUB_CACHE") or os.environ.get("HUGGINGFACE_HUB_CACHE"):
        return [_expanded(given)]
    if given := os.environ.get("HF_HOME"):
        return [_expanded(given) / "hub"]
    return [folder / "huggingface" / "hub" for folder in _cache_dirs()]


def ollama_folders() -> list[Path]:
    """Where Ollama keeps models: `$OLLAMA_MODELS`, else the user's folder and the services'."""
    if given := os.environ.get("OLLAMA_MODELS"):
        return [_expanded(given)]
    services = [Path("/usr/share/ollama/.ollama/models"), Path("/var/lib/ollama/models")]
    return [*(home / ".ollama" / "models" for home in _homes()), *services]


def lmstudio_homes() -> list[Path]:
    """Where LM Studio keeps itself: today's folder of the user's home, then the older one."""
    return [home / part for home in _homes() for part in (".lmstudio", ".cache/lm-studio")]


def llama_cpp_caches() -> list[Path]:
    """Where llama.cpp keeps what it fetched: `$LLAMA_CACHE`, else its folder among the caches."""
    if given := os.environ.get("LLAMA_CACHE"):
        return [_expanded(given)]
    return [folder / "llama.cpp" for folder in _cache_dirs()]


def _cache_dirs() -> list[Path]:
    if given := os.environ.get("XDG_CACHE_HOME"):
        return [_expanded(given)]
    return [home / ".cache" for home in _homes()]


def _homes() -> list[Path]:
    try:
        return [Path.home()]
    except RuntimeError:
        return []


def _expanded(text: str) -> Path:
    """A path from the environment; a tilde without a home directory stays what it is."""
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError:
        return Path(text).absolute()


def policy_file() -> tuple[Path | None, bool]:
    """Where the policy on models lies, and whether it was named (`$FREEHOLD_POLICY`) and so must be
    there. Else `policy.toml` in `config_dir`; None where there is no home directory."""
    if given := os.environ.get("FREEHOLD_POLICY"):
        return _expanded(given), True
    try:
        return config_dir() / "policy.toml", False
    except InvalidParameterError:
        return None, False


def hf_endpoint() -> str:
    """Where Hugging Face's protocol is spoken: `$HF_ENDPOINT`, a mirror, else huggingface.co."""
    return (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")


def endpoint_key() -> str | None:
    """The key that endpoints are asked with (`FREEHOLD_ENDPOINT_KEY`), or None."""
    return os.environ.get("FREEHOLD_ENDPOINT_KEY") or None


def turn_off_ray_reports() -> None:
    """Keep Ray, where this process starts it, from telling its makers how it is used."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
