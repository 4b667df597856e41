# SPDX-License-Identifier: Apache-2.0
"""What a model says of itself, from its headers: quant, licence claim, base models, template.

Knows where GGUF metadata and a repository's side files keep these. Judges none of it: a licence
here is what somebody wrote, and a base model too.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from freehold.formats.card_header import CardHeader, read_card_header, texts
from freehold.formats.checkpoint import Checkpoint, open_checkpoint
from freehold.formats.strict_json import parse_json_object
from freehold.hub.disk import read_small
from freehold.quants import mixes

CARD = "README.md"
_MAX_SIDE_FILE = 16_000_000  # the largest tokenizer_config.json in the wild is under 2 MB
_MAX_BASES = 64
_MAX_CLAIM = 300
# File types that files have and freehold does not write (general.file_type of GGUF).
_OTHER_FILE_TYPES = {
    19: "IQ2_XXS", 20: "IQ2_XS", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 26: "IQ3_S", 27: "IQ3_M",
    28: "IQ2_S", 29: "IQ2_M", 31: "IQ1_M", 36: "TQ1_0", 37: "TQ2_0", 39: "NVFP4",
}  # fmt: skip
_REPOSITORY = re.compile(r"https?://(?:www\.)?(?:huggingface\.co|hf\.co)/([\w.-]+/[\w.-]+)/?")


@dataclass(frozen=True, slots=True)
class Inspection:
    """One model. What it does not say is None or empty."""

    kind: str  # "model", or what a GGUF file says that it is instead: "adapter", "mmproj"
    architecture: str
    quant: str | None
    licence_claim: str | None
    base_models: tuple[str, ...]  # repositories, "org/name"
    template_sha256: str | None


def inspect(path: Path, card: Path | None = None) -> Inspection:
    """The model at `path` as `open_checkpoint` takes it; `card` is its model card, if that does
    not lie beside it.

    Raises what opening raises: ModelNotFoundError, MalformedFileError, UnsupportedModelError."""
    with open_checkpoint(path) as checkpoint:
        header = _card(card or checkpoint.directory / CARD)
        template = chat_template(checkpoint)
        kind = checkpoint.metadata.get("general.type", "model")
        return Inspection(
            kind=kind if isinstance(kind, str) and kind else "model",
            architecture=checkpoint.architecture,
            quant=_quant(checkpoint),
            licence_claim=licence_claim(checkpoint, header),
            base_models=_bases(checkpoint, header),
            template_sha256=None if template is None else template_digest(template),
        )


def template_digest(source: str) -> str:
    """SHA-256 of a chat template."""
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()


def licence_claim(checkpoint: Checkpoint, header: CardHeader | None = None) -> str | None:
    """The licence fields of GGUF metadata, else of the model card, in one line."""
    if checkpoint.format == "gguf":
        keys = ("general.license", "general.license.name", "general.license.link")
        stored = [checkpoint.metadata.get(key) for key in keys]
        values = [value for value in stored if isinstance(value, str) and value]
        if values:
            return ", ".join(values)[:_MAX_CLAIM]
    if header is None and checkpoint.format != "gguf":
        header = _card(checkpoint.directory / CARD)
    return card_claim(header or {})


def card_claim(header: CardHeader) -> str | None:
    """The licence fields of a model card, in one line."""
    fields = ("license", "license_name", "license_link")
    values = [text for field in fields for text in texts(header.get(field)) if text]
    return ", ".join(values)[:_MAX_CLAIM] or None


def chat_template(checkpoint: Checkpoint) -> str | None:
    """Source of the default chat template."""
    if checkpoint.format == "gguf":
        source = checkpoint.metadata.get("tokenizer.chat_template")
        return source if isinstance(source, str) else None
    raw = _side_file(checkpoint.directory / "chat_template.jinja")
    if raw is not None:
        return raw.decode("utf-8", "replace")
    path = checkpoint.directory / "tokenizer_config.json"
    listed = parse_json_object(_side_file(path) or b"{}", str(path)).get("chat_template")
    if isinstance(listed, list):
        named = {entry.get("name"): entry.get("template") for entry in listed if _named(entry)}
        listed = named.get("default")
    return listed if isinstance(listed, str) else None


def _named(entry: object) -> bool:
    return isinstance(entry, Mapping) and isinstance(entry.get("name"), str)


def _quant(checkpoint: Checkpoint) -> str | None:
    """The mix a GGUF file says it is, else the type that most of the bytes have."""
    number: Any = checkpoint.metadata.get("general.file_type")
    if checkpoint.format == "gguf" and isinstance(number, int):
        written = (mixes.get(name) for name in mixes.names())
        names = _OTHER_FILE_TYPES | {mix.file_type: mix.name for mix in written}
        if number in names:
            return names[number]
    stored = Counter[str]()
    for tensor in checkpoint.tensors.values():
        stored[tensor.qtype] += tensor.nbytes
    return stored.most_common(1)[0][0] if stored else None


def _bases(checkpoint: Checkpoint, header: CardHeader) -> tuple[str, ...]:
    get = checkpoint.metadata.get
    found: list[str] = []
    count = get("general.base_model.count")
    if checkpoint.format == "gguf" and isinstance(count, int):
        for number in range(min(count, _MAX_BASES)):
            prefix = f"general.base_model.{number}."
            url, organisation = get(prefix + "repo_url"), get(prefix + "organization")
            name = get(prefix + "name")
            match = _REPOSITORY.fullmatch(url) if isinstance(url, str) else None
            if match is not None:
                found.append(match[1])
            elif isinstance(name, str) and isinstance(organisation, str):
                found.append(f"{organisation}/{name}".replace(" ", "-"))
    found += texts(header.get("base_model"))[:_MAX_BASES]
    return tuple(dict.fromkeys(base[:200] for base in found))


def _side_file(path: Path) -> bytes | None:
    try:
        return read_small(path, _MAX_SIDE_FILE)
    except OSError:
        return None


def _card(path: Path) -> CardHeader:
    try:
        return read_card_header(path)
    except OSError:
        return {}
