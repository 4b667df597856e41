# SPDX-License-Identifier: Apache-2.0
"""From a text, a name or an address to the licence it is.

A text is known by the hash of its words: case, punctuation, line breaks, markdown and the copyright
line do not count, every word does. A text with one paragraph more is another text, and stays
unknown however much it looks like the one it was made from. Names and links are somebody's claims;
this module says what they claim and believes none of them.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Mapping
from functools import cache

from freehold.licences.reader import licences

MAX_TEXT = 400_000  # characters; the longest licence of a model known is under 40,000

# A line that only says whose work it is. Few words, or it might say something else besides.
_COPYRIGHT = re.compile(r"\W*(copyright|\(c\)|©)\b.*", re.IGNORECASE)
_COPYRIGHT_WORDS = 12
_BINDING = frozenset(
    ("not", "may", "must", "only", "shall", "unless", "except", "use", "commercial", "licence",
     "license")
)  # fmt: skip
_MIT_TITLE = "the mit license mit", "the mit license", "mit license"
_WORD = re.compile(r"[^\W_]+")
# What a title page of a licence says: name of the licence, and the line before its first clause.
_TITLE_CHARACTERS = 400


def normalise(text: str) -> str:
    """The words of a licence, in one line of lower-case letters and digits."""
    lines = []
    for line in unicodedata.normalize("NFKC", text[:MAX_TEXT]).splitlines():
        words = _WORD.findall(line.lower())
        if _COPYRIGHT.fullmatch(line.strip()) and len(words) <= _COPYRIGHT_WORDS:
            if not _BINDING & set(words):
                continue
            if words[-3:] == ["all", "rights", "reserved"] and not _BINDING & set(words[:-3]):
                continue
        if words != ["all", "rights", "reserved"]:
            lines += words
    joined = " ".join(lines)
    for title in _MIT_TITLE:
        if joined.startswith(title + " permission is hereby granted"):
            return joined.removeprefix(title + " ")
    return joined


def text_hash(text: str) -> str:
    """SHA-256 of the normalised text, in hexadecimal digits."""
    return hashlib.sha256(normalise(text).encode()).hexdigest()


@cache
def _by_hash() -> Mapping[str, str]:
    return {digest: each.id for each in licences().values() for digest in each.text_sha256}


def by_text(text: str) -> str | None:
    """The licence whose text this is, word for word; None for any other text."""
    return None if len(text) > MAX_TEXT else _by_hash().get(text_hash(text))


def by_title(text: str) -> str | None:
    """The licence a text calls itself at its beginning; no proof that it says the same."""
    head = " " + " ".join(_WORD.findall(text[:_TITLE_CHARACTERS].lower())) + " "
    found = [
        (head.find(f" {title} "), -len(title), licence_id)
        for title, licence_id in _titles().items()
        if f" {title} " in head
    ]
    return min(found)[2] if found else None


def is_use_policy(text: str) -> bool:
    """Whether a text calls itself a policy on use, which goes with a licence and is none."""
    words = _WORD.findall(text[:_TITLE_CHARACTERS].lower())
    begins = " ".join(words[:12])
    return re.search(r"\b(use|usage) policy\b", begins) is not None and by_title(text) is None


@cache
def _titles() -> Mapping[str, str]:
    return {" ".join(_WORD.findall(each.name.lower())): each.id for each in licences().values()} | {
        "llama 2 community license agreement": "llama2",
        "apache license version 2 0": "apache-2.0",
        "mistral ai non production license": "mnpl-0.1",
        "mistral ai research license": "mrl-0.1",
        "qwen license agreement": "qwen",
        "qwen research license agreement": "qwen-research",
        "tongyi qianwen license agreement": "tongyi-qianwen",
    }


@cache
def _by_name() -> Mapping[str, str]:
    names = {}
    for each in licences().values():
        for name in (each.id, each.name, each.spdx, *each.aliases):
            if name:
                names[_flat(name)] = each.id
    return names


def _flat(name: str) -> str:
    return "-".join(re.findall(r"[a-z0-9.]+", name.lower().removeprefix("licenseref-")))


def by_name(name: str) -> str | None:
    """The licence that metadata mean by a word: an id of the Hub, an SPDX id, a usual spelling."""
    return _by_name().get(_flat(name)) if len(name) <= 200 else None


@cache
def _links() -> tuple[tuple[str, str], ...]:
    pairs = [(link.lower(), each.id) for each in licences().values() for link in each.links]
    return tuple(sorted(pairs, key=lambda pair: -len(pair[0])))


def by_link(link: str) -> str | None:
    """The licence an address leads to."""
    low = link[:2000].lower().replace("/raw/", "/blob/").replace("/resolve/", "/blob/")
    return next((licence_id for part, licence_id in _links() if part in low), None)
