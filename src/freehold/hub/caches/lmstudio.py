# SPDX-License-Identifier: Apache-2.0
"""LM Studio's models: plain files in `models/<publisher>/<repository>/`.

The folder can be moved in its settings; a file in the home directory says where LM Studio's own
folder is when that was moved. Nothing there has a digest, so all is read once when it is adopted.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from freehold.config import lmstudio_homes
from freehold.errors import MalformedFileError
from freehold.formats.strict_json import parse_json_object
from freehold.hub.caches import Find, FoundFile, FoundModel, Skipped, _files
from freehold.hub.disk import read_small
from freehold.hub.gguf_variants import quant_label

TOOL = "lmstudio"
TITLE = "LM Studio"

_POINTER = ".lmstudio-home-pointer"
_MAX_SETTINGS = 1 << 20


def folders() -> list[Path]:
    """Where LM Studio keeps models on this machine."""
    homes = lmstudio_homes()
    pointed = [_pointed(home.parent / _POINTER) for home in homes if home.name == ".lmstudio"]
    candidates: list[Path] = []
    for home in [*(path for path in pointed if path is not None), *homes]:
        chosen = _settings(home / "settings.json")
        candidates += [chosen] if chosen is not None else []
        candidates.append(home / "models")
    return list(dict.fromkeys(folder for folder in candidates if folder.is_dir()))


def _pointed(path: Path) -> Path | None:
    try:
        text = (read_small(path, 4096) or b"").decode("utf-8", "replace").strip()
    except OSError:
        return None
    return Path(text) if text.startswith("/") and "\0" not in text else None


def _settings(path: Path) -> Path | None:
    try:
        chosen = parse_json_object(read_small(path, _MAX_SETTINGS) or b"", str(path))
    except (OSError, MalformedFileError):
        return None
    folder = chosen.get("downloadsFolder")
    usable = isinstance(folder, str) and folder.startswith("/") and "\0" not in folder
    return Path(str(folder)) if usable else None


def scan(folder: Path) -> Iterator[Find]:
    """Every model of every publisher."""
    for publisher in _files.folders_in(folder):
        for repository in _files.folders_in(publisher):
            yield from models_in(
                repository, TOOL, "lmstudio", f"{publisher.name}/{repository.name}"
            )


def models_in(folder: Path, tool: str, source: str, identity: str) -> Iterator[Find]:
    """The models among plain files in one folder. Links may lead to weights elsewhere, which
    people do to save room, but not to anything else."""
    files: dict[str, FoundFile] = {}
    for path in _files.walk(folder):
        name = _files.relative_name(path, folder)
        size = _files.regular_size(path)
        weights = path.name.lower().endswith((".gguf", ".safetensors"))
        if name is None or size is None:
            if weights:
                why = "its name could leave the folder" if name is None else "it is no file"
                yield Skipped(tool, path, why)
        elif weights or not path.is_symlink():
            files[name] = FoundFile(name, path.resolve(), size)
    taken: set[str] = set()
    for group in _files.group(files):
        if group.fault:
            yield Skipped(tool, folder / group.entry, group.fault)
            continue
        quant = quant_label(group.entry) if group.entry else None
        name = f"{tool}:{identity}" + (f":{quant}" if quant else "")
        if name in taken or not (quant or not group.entry):
            name = f"{tool}:{identity}/{group.entry}"
        taken.add(name)
        yield FoundModel(tool, name, source, identity, None, quant, group.files, group.entry)
