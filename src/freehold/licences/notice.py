# SPDX-License-Identifier: Apache-2.0
"""The NOTICE file of a deployment: what its licences want to be said, in their own words.

Knows which sentences and files licences ask for. A text that is not at hand is named with its
address, never written from memory.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from freehold.licences import detection
from freehold.licences.bill import Deployed
from freehold.licences.reader import UNKNOWN, licence
from freehold.licences.reasoning import WARNING

_RULE = "-" * 72


def notice_text(models: Sequence[Deployed]) -> str:
    """The file's text."""
    parts = ["This product contains the following models, under the licences named with each."]
    for model in models:
        parts.append(f"{_RULE}\n\n" + "\n".join(_of_model(model)))
    parts.append(f"{_RULE}\n\n{WARNING}")
    return "\n\n".join(parts) + "\n"


def _of_model(model: Deployed) -> Iterator[str]:
    where = f" (https://huggingface.co/{model.repository})" if model.repository else ""
    yield f"{_line(model.name)}{where}"
    if model.upstream:
        yield f"made from {', '.join(_line(each) for each in model.upstream)}"
    for licence_id in model.licences:
        yield ""
        if licence_id == UNKNOWN:
            yield "A licence that binds this model is not known. It must be found out first."
            continue
        each = licence(licence_id)
        yield f"{each.name}{': ' + each.text_url if each.text_url else ''}"
        if each["notice"].value == "yes" and each["notice"].words:
            yield each["notice"].words
        if each["display_rule"].value == "yes" and each["display_rule"].words:
            yield each["display_rule"].words
        for page in each.documents:
            yield f"{page.name}: {page.url}"
    yield from _copyrights(model)


def _copyrights(model: Deployed) -> Iterator[str]:
    """Copyright lines of the texts that came with the model."""
    lines = {
        _line(line)
        for _, text in model.texts
        for line in text[: detection.MAX_TEXT].splitlines()
        if re.match(r"\s*copyright\s+(\(c\)|©|\d{4})", line, re.IGNORECASE) and len(line) < 200
    }
    if lines:
        yield ""
        yield from sorted(lines)


def _line(text: str) -> str:
    return " ".join(text.split())


def licence_files(models: Sequence[Deployed]) -> dict[str, str]:
    """Files to ship beside NOTICE, name to text: every licence text that came with a model."""
    files: dict[str, str] = {}
    for model in models:
        stem = re.sub(r"[^\w.-]+", "-", model.name.rpartition("/")[2])[:80].strip("-.")
        for number, (_, text) in enumerate(model.texts):
            known = detection.by_text(text)
            files[f"LICENSE.{stem or 'model'}.{known or number}.txt"] = text
    return files


def missing_texts(models: Sequence[Deployed]) -> list[tuple[str, str]]:
    """Names and addresses of licences whose copy must be shipped and is not at hand."""
    wanted: dict[str, str] = {}
    for model in models:
        present = {detection.by_text(text) or detection.by_title(text) for _, text in model.texts}
        for licence_id in model.licences:
            each = licence(licence_id)
            if each["licence_copy"].value == "yes" and licence_id not in present:
                wanted[each.name] = each.text_url or ""
    return list(wanted.items())
