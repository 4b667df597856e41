# SPDX-License-Identifier: Apache-2.0
"""The GGUF files of a repository as variants: one per quantisation, its splits together.

Reads file names only, by the convention ``Name-QUANT[-00001-of-00005].gguf``, where the quant may
also be the folder's name. Files that stand beside models (projectors, drafters, importance
matrices, vocabularies) are none. What suits a machine is not known here; there is an order for
when nobody says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from freehold.errors import DownloadError, ModelNotFoundError
from freehold.hub.remote import RemoteFile

_SPLIT = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf", re.IGNORECASE)
_LABEL = re.compile(
    r"(?<![A-Za-z0-9])((?:UD[-_])?(?:I?Q[1-9]_(?:K(?:_(?:XXL|XXS|XL|XS|[SMLP]))?|XXS|XS|NL|[SML]|[01])"
    r"|TQ[12]_0|MXFP4(?:_MOE)?|NVFP4|BF16|FP?16|FP?32|FP8|Q8))(?![A-Za-z0-9_])",
    re.IGNORECASE,
)
_BESIDE = re.compile(
    r"(?:^|/)(?:mmproj|mtp|imatrix|ggml-vocab|dflash)[-_.]|[-_.](?:mmproj|imatrix|vocab|lora)[-_.]",
    re.IGNORECASE,
)
_SPELLED = {"FP16": "F16", "FP32": "F32", "Q8": "Q8_0"}
# First what most people run, then the nearest in size, the larger before the smaller.
DEFAULT_ORDER = (
    "Q4_K_M", "UD-Q4_K_XL", "Q4_K_L", "Q4_K_S", "Q4_0", "IQ4_NL", "IQ4_XS", "Q4_1", "MXFP4",
    "MXFP4_MOE", "Q5_K_M", "UD-Q5_K_XL", "Q5_K_S", "Q5_0", "Q5_1", "Q6_K", "Q3_K_L", "Q3_K_M",
    "Q8_0", "Q3_K_S", "IQ3_M", "IQ3_S", "IQ3_XS", "IQ3_XXS", "BF16", "F16", "Q2_K", "F32",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Variant:
    """One quantisation of a model, with all its files, first split first."""

    label: str | None  # None where the names say none
    files: tuple[RemoteFile, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)


# Picks one of several variants, or says None to leave it to the default order.
Chooser = Callable[[Sequence[Variant]], Variant | None]


def quant_label(name: str) -> str | None:
    """The quant that a file's name, or else its folder's, says; in capitals."""
    folder, _, base = name.rpartition("/")
    split = _SPLIT.fullmatch(base)
    base = split.group(1) if split else base.removesuffix(".gguf")
    for text in (base, folder.rpartition("/")[2]):
        if found := _LABEL.findall(text):
            label = str(found[-1]).upper().replace("UD_", "UD-")
            return _SPELLED.get(label, label)
    return None


def split_names(name: str) -> list[str] | None:
    """The names of all splits of which `name` is one, in order; None where it is whole."""
    match = _SPLIT.fullmatch(name)
    if match is None:
        return None
    stem, number, count = match.group(1), int(match.group(2)), int(match.group(3))
    if not 1 <= number <= count:
        raise DownloadError(f"{name}: there is no split {number} of {count}")
    return [f"{stem}-{i:05d}-of-{count:05d}.gguf" for i in range(1, count + 1)]


def is_beside(name: str) -> bool:
    """Whether a GGUF file of that name stands beside models and is none."""
    return _BESIDE.search(name) is not None


def find_variants(files: Sequence[RemoteFile]) -> list[Variant]:
    """All variants among `files`. Raises DownloadError where splits are missing."""
    by_name = {f.name: f for f in files if f.name.lower().endswith(".gguf")}
    models = {name: f for name, f in by_name.items() if not is_beside(name)}
    found: list[Variant] = []
    seen: set[str] = set()
    for name, file in sorted(models.items()):
        if name in seen:
            continue
        names = split_names(name)
        if names is None:
            found.append(Variant(quant_label(name), (file,)))
            continue
        if missing := [n for n in names[:10_000] if n not in models]:
            raise DownloadError(f"{name}: its other split {missing[0]} is not there")
        seen.update(names)
        found.append(Variant(quant_label(name), tuple(models[n] for n in names)))
    return found


def choose(
    variants: Sequence[Variant], wanted: str | None, chooser: Chooser | None, where: str
) -> Variant:
    """The variant `wanted`; else the chooser's; else the first of the default order.

    Raises ModelNotFoundError, which lists what there is.
    """
    if wanted is not None:
        matches = [v for v in variants if (v.label or "").lower() == wanted.lower()]
        if not matches:
            raise ModelNotFoundError(f"{where} has no {wanted}", hint=_listed(variants))
        return _only(matches, where)
    if len(variants) == 1:
        return variants[0]
    chosen = chooser(variants) if chooser is not None else None
    if chosen is not None:
        return chosen
    for label in DEFAULT_ORDER:
        if matches := [v for v in variants if v.label == label]:
            return _only(matches, where)
    raise ModelNotFoundError(f"{where} has several models; which?", hint=_listed(variants))


def _only(matches: Sequence[Variant], where: str) -> Variant:
    if len(matches) > 1:
        names = ", ".join(v.files[0].name for v in matches[:6])
        raise ModelNotFoundError(
            f"{where} has {len(matches)} models of quant {matches[0].label}: {names}",
            hint=f"name the file: {where}/{matches[0].files[0].name}",
        )
    return matches[0]


def _listed(variants: Sequence[Variant]) -> str:
    labels = sorted({v.label or v.files[0].name for v in variants})
    more = f" and {len(labels) - 30} more" if len(labels) > 30 else ""
    return f"it has {', '.join(labels[:30])}{more}"
