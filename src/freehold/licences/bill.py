# SPDX-License-Identifier: Apache-2.0
"""The bill of materials of a deployment: models, files, licences and ancestors as CycloneDX 1.6.

Knows the format's words for machine-learning models. What an uploader claims is *declared*, what
freehold found out is *concluded*. The same deployment gives the same serial number.

Format: ECMA-424, https://cyclonedx.org/docs/1.6/json/.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from freehold.licences import detection
from freehold.licences.reader import UNKNOWN, licence

_NAMESPACE = uuid.UUID("5f0c2b52-6f2c-4b1b-9d9e-0e6f6e5a7c11")


@dataclass(frozen=True, slots=True)
class DeployedFile:
    """One file of weights."""

    name: str
    size: int
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Deployed:
    """One model as it is deployed."""

    name: str
    licences: tuple[str, ...]
    licence_source: str
    files: tuple[DeployedFile, ...]
    family: str | None = None
    version: str | None = None  # revision of the repository
    repository: str | None = None
    architecture: str | None = None
    quantisation: str | None = None
    parameters: int | None = None
    claims: tuple[str, ...] = ()
    upstream: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    documents: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()  # names and licence texts that came with it
    openness: str | None = None
    osaid: str = "not assessed"


def bill_of_materials(
    models: Sequence[Deployed], *, tool_version: str, timestamp: str
) -> dict[str, Any]:
    """The document, as plain values. `timestamp` is ISO 8601."""
    components = [_component(model) for model in models]
    serial = uuid.uuid5(_NAMESPACE, json.dumps([tool_version, components], sort_keys=True))
    tool = _freehold(tool_version)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {
            "timestamp": timestamp,
            "tools": {"components": [{**tool, "bom-ref": "tool"}]},
            "component": {**tool, "bom-ref": "deployment"},
        },
        "components": components,
        "dependencies": [
            {"ref": "deployment", "dependsOn": [each["bom-ref"] for each in components]},
            *({"ref": each["bom-ref"], "dependsOn": []} for each in components),
        ],
    }


def _freehold(version: str) -> dict[str, Any]:
    return {
        "type": "application",
        "name": "freehold",
        "version": version,
        "licenses": [{"license": {"id": "Apache-2.0"}}],
    }


def _component(model: Deployed) -> dict[str, Any]:
    component: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": f"model:{model.name}",
        "name": model.name,
        "licenses": _licences(model),
        "properties": _properties(model),
        "modelCard": {"modelParameters": _parameters(model)},
    }
    if model.version:
        component["version"] = model.version
    if model.repository:
        component["externalReferences"] = [
            {"type": "distribution", "url": f"https://huggingface.co/{model.repository}"}
        ]
    if len(model.files) == 1 and model.files[0].sha256:
        component["hashes"] = _hashes(model.files[0])
    elif model.files:
        component["components"] = [_file(model, file) for file in model.files]
    if model.upstream:
        component["pedigree"] = {"ancestors": [_ancestor(model, each) for each in model.upstream]}
    return component


def _licences(model: Deployed) -> list[dict[str, Any]]:
    found = [_licence(each, "concluded") for each in model.licences]
    for claim in model.claims:
        meant = detection.by_name(claim)
        if meant not in model.licences and "://" not in claim:
            found.append({"license": {"name": claim, "acknowledgement": "declared"}})
    return found


def _licence(licence_id: str, acknowledgement: str) -> dict[str, Any]:
    each = licence(licence_id)
    named = {"id": each.spdx} if each.spdx else {"name": each.name}
    url = {"url": each.text_url} if each.text_url else {}
    return {"license": {**named, **url, "acknowledgement": acknowledgement}}


def _properties(model: Deployed) -> list[dict[str, str]]:
    values: Mapping[str, str | None] = {
        "licences": " ".join(model.licences),
        "licence-source": model.licence_source,
        "licence-unknown": "true" if UNKNOWN in model.licences else None,
        "openness": model.openness,
        "osaid": model.osaid,
        "quantisation": model.quantisation,
        "parameters": str(model.parameters) if model.parameters else None,
        "documents": " ".join(model.documents) or None,
        "file-name": model.files[0].name if len(model.files) == 1 else None,
        "file-bytes": str(model.files[0].size) if len(model.files) == 1 else None,
    }
    shown = [{"name": f"freehold:{key}", "value": value} for key, value in values.items() if value]
    return shown + [{"name": "freehold:note", "value": note} for note in model.notes]


def _parameters(model: Deployed) -> dict[str, Any]:
    parameters: dict[str, Any] = {"task": "text-generation"}
    if model.family:
        parameters["architectureFamily"] = model.family
    if model.architecture:
        parameters["modelArchitecture"] = model.architecture
    if model.datasets:
        parameters["datasets"] = [{"type": "dataset", "name": name} for name in model.datasets]
    return parameters


def _file(model: Deployed, file: DeployedFile) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "type": "file",
        "bom-ref": f"model:{model.name}#{file.name}",
        "name": file.name,
        "properties": [{"name": "freehold:file-bytes", "value": str(file.size)}],
    }
    return {**entry, "hashes": _hashes(file)} if file.sha256 else entry


def _hashes(file: DeployedFile) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": file.sha256}] if file.sha256 else []


def _ancestor(model: Deployed, repository: str) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{model.name}<{repository}",
        "name": repository,
        "externalReferences": [
            {"type": "distribution", "url": f"https://huggingface.co/{repository}"}
        ],
    }
