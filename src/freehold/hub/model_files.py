# SPDX-License-Identifier: Apache-2.0
"""Which files of a repository or folder make up a model: a list of what may come, not of what may
not.

Weights as GGUF or safetensors, the JSON and vocabulary files that models and tokenizers are read
from, templates, the model card and the texts of licences. Pickles and programs are on no list, so
they never come. Knows names only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from freehold.errors import ModelNotFoundError
from freehold.hub.gguf_variants import Chooser, choose, find_variants, split_names
from freehold.hub.remote import RemoteFile

_BESIDE_WEIGHTS = frozenset({
    "config.json", "generation_config.json", "params.json", "adapter_config.json",
    "tokenizer.json", "tokenizer_config.json", "tokenizer.model", "special_tokens_map.json",
    "added_tokens.json", "vocab.json", "merges.txt", "tekken.json", "chat_template.jinja",
    "chat_template.json", "model.safetensors.index.json", "consolidated.safetensors.index.json",
    "preprocessor_config.json", "processor_config.json",
})  # fmt: skip
_TEMPLATES = re.compile(r"additional_chat_templates/[A-Za-z0-9_.-]{1,64}\.jinja")
_LICENCE = re.compile(
    r"(?:licen[cs]e|notice|copying|use_policy|usage_policy|acceptable_use_policy)"
    r"[A-Za-z0-9_.-]{0,40}",
    re.IGNORECASE,
)
_TEXT = re.compile(r"(?:[^.]*|.*\.(?:txt|md|rst))", re.IGNORECASE)
_SAFETENSORS = re.compile(r"[^/]+\.safetensors")
MAX_TEXT = 1 << 20  # bytes of a licence
MAX_BESIDE = 256 << 20  # bytes of any file that holds no weights


CARD = "README.md"  # whose header says licence and base models


def is_licence(name: str) -> bool:
    """Whether a file of that name holds a licence or what goes with one."""
    return bool(_LICENCE.fullmatch(name) and _TEXT.fullmatch(name))


def is_grant(name: str) -> bool:
    """Whether a file of that name is the licence itself, not a notice or policy beside it."""
    return is_licence(name) and name.lower().startswith(("licen", "copying"))


def is_beside_weights(name: str) -> bool:
    """Whether a model of safetensors is read from a file of that name too."""
    return name in _BESIDE_WEIGHTS or _TEMPLATES.fullmatch(name) is not None


def select(
    files: Sequence[RemoteFile], quant: str | None, chooser: Chooser | None, where: str
) -> tuple[tuple[RemoteFile, ...], str, str | None]:
    """The files to fetch, the one to open ("" for the folder), and the quant chosen.

    GGUF where there is any, else safetensors. Raises ModelNotFoundError where there is neither.
    """
    texts = _texts(files)
    variants = find_variants(files)
    if variants:
        variant = choose(variants, quant, chooser, where)
        return (*variant.files, *texts), variant.files[0].name, variant.label
    weights = _weights(files)
    if not weights:
        raise ModelNotFoundError(
            f"{where} holds neither GGUF nor safetensors files",
            hint="other formats can run programs of their maker; freehold reads none of them",
        )
    if quant is not None:
        raise ModelNotFoundError(
            f"{where} holds safetensors, which are not sorted by quant",
            hint="leave the quant out; `freehold quantize` makes one afterwards",
        )
    beside = [f for f in files if is_beside_weights(f.name) and f.size <= MAX_BESIDE]
    return (*weights, *beside, *texts), "", None


def select_file(
    files: Sequence[RemoteFile], name: str, where: str
) -> tuple[tuple[RemoteFile, ...], str]:
    """One model file that was asked for by name, with the other splits of its set; and the name
    of the first."""
    names = split_names(name) or [name]
    by_name = {f.name: f for f in files}
    if missing := [n for n in names if n not in by_name]:
        raise ModelNotFoundError(f"{where} has no file {missing[0]}")
    texts = _texts(files)
    return (*(by_name[n] for n in names), *texts), names[0]


def _texts(files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """What says under which terms the model may be used."""
    return [f for f in files if (is_licence(f.name) or f.name == CARD) and f.size <= MAX_TEXT]


def _weights(files: Sequence[RemoteFile]) -> list[RemoteFile]:
    """The safetensors of one model: a repository may hold it twice, in its maker's own layout
    (``consolidated``) and in the usual one, which is taken then."""
    found = [f for f in files if _SAFETENSORS.fullmatch(f.name)]
    names = {f.name for f in files}
    usual = [f for f in found if not f.name.startswith("consolidated")]
    if usual and ("config.json" in names or "adapter_config.json" in names):
        return usual
    return found
