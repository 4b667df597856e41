# SPDX-License-Identifier: Apache-2.0
"""One family's TOML file, checked and spelled out: every model with all it inherits.

Knows how the files under `families/` are written. Does not know who reads the result: it is
kept as one JSON file (`compiled.json`), because reading all TOML anew would take longer than
all else that `freehold models` does.

A file has tables ``[family]``, ``[defaults]`` (of every model), ``[sources.KEY]``,
``[shapes.KEY]``, ``[evidence.KEY]``, ``[assessments.KEY]`` and a list ``[[models]]``, whose
entries name keys of the others.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any

from freehold.catalogue.member import ARTEFACTS, HOWS, STATES, TASKS
from freehold.errors import MalformedFileError

FAMILIES = Path(__file__).parent / "families"
COMPILED = Path(__file__).parent / "compiled.json"

_TABLES = {"family", "defaults", "sources", "shapes", "evidence", "assessments", "models"}
_FRAMEWORKS = {"osaid", "mof", "european-index"}
# Field to its type, and whether a model must have it.
_FIELDS: dict[str, tuple[type, bool]] = {
    "name": (str, True), "title": (str, True), "vendor": (str, True), "parameters": (int, True),
    "active_parameters": (int, False), "other_parameters": (int, False), "context": (int, True),
    "repo": (str, True), "licence": (list, True), "tasks": (list, True), "released": (date, True),
    "sources": (list, True), "gguf_repos": (list, False), "aliases": (list, False),
    "variants": (dict, False), "upstream": (list, False), "documents": (list, False),
    "evidence": (str, True), "assessments": (list, False), "sampling": (dict, False),
    "shape": (str, False), "notes": (list, False),
}  # fmt: skip


def read_family(path: Path) -> list[dict[str, Any]]:
    """The models of one file as plain values that JSON can hold, in the file's order.

    Raises MalformedFileError naming the file and what is wrong in it."""
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise MalformedFileError(f"{path.name}: {error}") from None
    if unknown := sorted(set(content) - _TABLES):
        raise MalformedFileError(f"{path.name}: there is no table {unknown[0]!r}")
    reader = _Reader(path.stem, path.name, content)
    return [reader.model(entry) for entry in content.get("models", [])]


def read_families(folder: Path = FAMILIES) -> list[dict[str, Any]]:
    """The models of all files, file by file in alphabetical order.

    Raises MalformedFileError as `read_family`, and where two models go by one name."""
    found = [model for path in sorted(folder.glob("*.toml")) for model in read_family(path)]
    seen: dict[str, str] = {}
    for model in found:
        for name in (model["name"], *model.get("aliases", ()), model["repo"],
                     *model.get("variants", {}).values()):  # fmt: skip
            other = seen.setdefault(name.lower(), model["name"])
            if other != model["name"]:
                raise MalformedFileError(f"{model['name']} and {other} both go by {name!r}")
    return found


class _Reader:
    """Looks keys up in the tables of one file."""

    def __init__(self, family: str, where: str, content: Mapping[str, Any]) -> None:
        self._family = family
        self._where = where
        self._tables = content
        self._defaults = {**content.get("family", {}), **content.get("defaults", {})}
        self._defaults.pop("summary", None)

    def model(self, entry: Mapping[str, Any]) -> dict[str, Any]:
        name = entry.get("name", "?")
        values = {**self._defaults, "title": name, **entry}
        if self._defaults.get("title") == values["title"]:
            values["title"] = name
        self._check(values, name)
        sources = [self._look_up("sources", key, name) for key in values["sources"]]
        if not sources:
            raise self._bad(name, "names no source")
        result = {k: v for k, v in values.items() if v not in ([], {}, "")}
        result |= {
            "family": self._family,
            "active_parameters": values.get("active_parameters", values["parameters"]),
            "released": values["released"].isoformat(),
            "sources": [source["url"] for source in sources],
            "checked": min(source["checked"] for source in sources).isoformat(),
            "evidence": self._evidence(values["evidence"], name),
        }
        if "shape" in result:
            result["shape"] = self._look_up("shapes", values["shape"], name)
        if "assessments" in result:
            keys = values["assessments"]
            result["assessments"] = [self._assessment(key, name) for key in keys]
        return result

    def _check(self, values: Mapping[str, Any], name: str) -> None:
        if unknown := sorted(set(values) - set(_FIELDS)):
            raise self._bad(name, f"has an unknown field {unknown[0]!r}")
        for field, (kind, needed) in _FIELDS.items():
            if field not in values:
                if needed:
                    raise self._bad(name, f"has no {field}")
            elif not isinstance(values[field], kind):
                raise self._bad(name, f"has a {field} that is no {kind.__name__}")
        if unknown := sorted(set(values["tasks"]) - set(TASKS)):
            raise self._bad(name, f"has an unknown task {unknown[0]!r}")
        if values.get("active_parameters", 1) > values["parameters"]:
            raise self._bad(name, "has more active parameters than parameters")

    def _evidence(self, key: str, name: str) -> dict[str, dict[str, Any]]:
        table = self._look_up("evidence", key, name)
        if set(table) != set(ARTEFACTS):
            raise self._bad(name, f"needs evidence on each of {', '.join(ARTEFACTS)}")
        result = {}
        for artefact, said in table.items():
            if said["state"] not in STATES:
                raise self._bad(name, f"has an unknown state of {artefact}")
            if "source" in said:
                source = self._look_up("sources", said["source"], name)
            elif said["state"] == "unknown":
                source = {"url": "", "checked": said["checked"]}
            else:
                raise self._bad(name, f"calls its {artefact} {said['state']} without a source")
            rest = {k: v for k, v in said.items() if k in ("state", "licence", "note")}
            result[artefact] = {**rest, **_where(source)}
        return result

    def _assessment(self, key: str, name: str) -> dict[str, Any]:
        table = self._look_up("assessments", key, name)
        source = self._look_up("sources", table["source"], name)
        if table["framework"] not in _FRAMEWORKS:
            raise self._bad(name, f"has an unknown framework {table['framework']!r}")
        rest = {k: v for k, v in table.items() if k != "source"}
        return {**rest, **_where(source)}

    def _look_up(self, table: str, key: str, name: str) -> dict[str, Any]:
        found = self._tables.get(table, {}).get(key)
        if not isinstance(found, dict):
            raise self._bad(name, f"names {key!r}, which is not in [{table}]")
        if table == "sources" and found.get("how", "page") not in HOWS:
            raise self._bad(name, f"has a source {key!r} read in an unknown way")
        return found

    def _bad(self, name: str, what: str) -> MalformedFileError:
        return MalformedFileError(f"{self._where}: {name} {what}")


def _where(source: Mapping[str, Any]) -> dict[str, str]:
    """Where a statement was found, when, and how; that a page was read itself goes without
    saying."""
    how = {} if source.get("how", "page") == "page" else {"how": source["how"]}
    return {"url": source["url"], "checked": source["checked"].isoformat(), **how}


def compile_families(folder: Path = FAMILIES) -> str:
    """All files as the one that is read at run time: models, and apart from them what several
    share, each thing once."""
    models = read_families(folder)
    content: dict[str, Any] = {"models": models}
    for field in ("shape", "evidence"):
        keys: dict[str, int] = {}  # JSON to place
        for model in models:
            if field in model:
                text = json.dumps(model[field], sort_keys=True)
                model[field] = keys.setdefault(text, len(keys))
        content[field] = [json.loads(text) for text in keys]
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True) + "\n"
