# SPDX-License-Identifier: Apache-2.0
"""From a model's answer to values with their evidence, and from the answers of several pieces of a
document to one.

Knows plans (`answer_plan`), passages and JSON. What pieces say differently stays visible: the value
most of them have is taken, the first of equals, and all are told as a conflict.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from freehold.documents import written
from freehold.documents.answer_plan import Leaf, ListPlan, ObjectPlan, Plan
from freehold.documents.evidence import Passage, Span
from freehold.errors import AnswerError


@dataclass(frozen=True, slots=True)
class Found:
    """A value that an answer holds, and where it was read; None where nothing backs it."""

    value: Any
    span: Span | None = None
    problem: str | None = None  # why the words that were found are no value


Tree = Found | dict[str, "Tree"] | list["Tree"] | None


def read(node: Plan, answer: Any, passage: Passage, whole: str) -> Tree:
    """The answer of one piece as a tree of values; None for what is not there. `whole` is the text
    of the document, whose habits tell what figures mean. Raises AnswerError for what the answer's
    form does not allow, should anybody not have kept to it."""
    if answer is None:
        return None
    if isinstance(node, ObjectPlan):
        if not isinstance(answer, dict) or answer.keys() - node.properties.keys():
            raise AnswerError("the answer has other names than were asked for")
        return {
            name: read(child, answer.get(name), passage, whole)
            for name, child in node.properties.items()
        }
    if isinstance(node, ListPlan):
        if not isinstance(answer, list):
            raise AnswerError("the answer has no list where one was asked for")
        return [read(node.item, item, passage, whole) for item in answer]
    return _leaf(node, answer, passage, whole)


def is_full(node: Plan, tree: Tree, most: int) -> bool:
    """Whether a list has come to its bound with something new in every place, so that there may be
    more of it. One that repeats itself has nothing more to say."""
    if isinstance(node, ObjectPlan) and isinstance(tree, dict):
        return any(is_full(child, tree.get(name), most) for name, child in node.properties.items())
    if not isinstance(node, ListPlan) or not isinstance(tree, list):
        return False
    bound = node.schema.get("maxItems", most + 1)
    if most <= len(tree) < bound and len(_distinct(tree)) == len(tree):
        return True
    return any(is_full(node.item, item, most) for item in tree)


def _leaf(leaf: Leaf, answer: Any, passage: Passage, whole: str) -> Found:
    if leaf.kind == "free":
        return Found(answer)
    if leaf.kind == "quoted":
        if not isinstance(answer, dict) or answer.keys() != {"quote", "value"}:
            raise AnswerError("the answer has no quote beside a value")
        quote = answer["quote"]
        span = passage.find(_flat(quote)) if isinstance(quote, str) else None
        return Found(answer["value"], span)
    if not isinstance(answer, str):
        raise AnswerError("the answer has no text where words were to be copied")
    words = _flat(answer)
    span = passage.find(words)
    if span is None:
        return Found(None, None, f"{words[:60]!r} does not stand in the text")
    if leaf.kind == "copied":
        return Found(words, span)
    value = written.number(words, whole) if leaf.kind == "number" else written.day(words, whole)
    if leaf.kind == "number" and leaf.schema.get("type") == "integer" and isinstance(value, float):
        value = int(value) if value.is_integer() else None
    if value is None:
        what = "day" if leaf.kind == "date" else "number"
        return Found(None, span, f"{words[:60]!r} is not certain to be one {what}")
    return Found(value, span)


def _flat(text: str) -> str:
    return " ".join(text.split())


# -- several pieces -------------------------------------------------------------------------------


@dataclass(slots=True)
class Result:
    """What a document comes to. Paths are JSON Pointers into `values`."""

    values: Any = None
    evidence: dict[str, Span] = field(default_factory=dict)
    unsupported: list[str] = field(default_factory=list)
    conflicts: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    problems: dict[str, str] = field(default_factory=dict)


def combine(root: ObjectPlan, trees: Sequence[Tree]) -> Result:
    """One result of the trees of all pieces, in order. Raises AnswerError where a value that must
    be there is in none of them."""
    result = Result()
    result.values = _combined(root, [tree for tree in trees if tree is not None], "", result)
    return result


def _combined(node: Plan, trees: Sequence[Tree], path: str, result: Result) -> Any:
    if isinstance(node, ObjectPlan):
        objects = [tree for tree in trees if isinstance(tree, dict)]
        if not objects and path and node.nullable:
            return None  # else it is there, and what is in it may be missing
        values: dict[str, Any] = {}
        for name, child in node.properties.items():
            inner = [tree[name] for tree in objects if tree.get(name) is not None]
            where = f"{path}/{_pointer(name)}"
            nothing = all(isinstance(tree, Found) and tree.value is None for tree in inner)
            if nothing and name not in node.required and not child.nullable:
                _note_problems(inner, where, result)
                continue  # may be left out, and may not be null
            values[name] = _combined(child, inner, where, result)
        return values
    if isinstance(node, ListPlan):
        lists = [tree for tree in trees if isinstance(tree, list)]
        if not lists and node.nullable:
            return None
        items = _distinct([item for tree in lists for item in tree])
        allowed = node.schema.get("maxItems", len(items))
        if len(items) > allowed:
            result.problems[path] = (
                f"{len(items):,} were found and the schema allows {allowed:,}; the first are given"
            )
        items = items[:allowed]
        return [
            _combined(node.item, [item], f"{path}/{number}", result)
            for number, item in enumerate(items)
        ]
    return _chosen(node, [tree for tree in trees if isinstance(tree, Found)], path, result)


def _chosen(leaf: Leaf, found: Sequence[Found], path: str, result: Result) -> Any:
    _note_problems(found, path, result)
    known = [each for each in found if each.value is not None]
    if not known:
        return _missing(leaf.nullable, path, result.problems.get(path))
    by_value: dict[str, list[Found]] = {}
    for each in known:
        by_value.setdefault(json.dumps(each.value, sort_keys=True), []).append(each)
    best = max(by_value.values(), key=len)[0]  # the first of equals
    if len(by_value) > 1:
        result.conflicts[path] = [
            {"value": each.value, **_place(each.span)} for each in _once(known)
        ]
    if best.span is not None:
        result.evidence[path] = best.span
    else:
        result.unsupported.append(path)
    return best.value


def _note_problems(found: Sequence[Tree], path: str, result: Result) -> None:
    for each in found:
        if isinstance(each, Found) and each.problem is not None:
            result.problems[path] = each.problem


def _missing(nullable: bool, path: str, why: str | None = None) -> None:
    if not nullable:
        reason = f": {why}" if why else ""
        raise AnswerError(f"nothing was found for {path[1:].replace('/', '.')}{reason}")


def _once(found: Sequence[Found]) -> list[Found]:
    """Without those that say the same of the same place."""
    return list({(json.dumps(each.value), each.span): each for each in found}.values())


def _distinct(items: Sequence[Tree]) -> list[Tree]:
    """Without null, and without what two pieces have read at the same place."""
    seen: set[str] = set()
    kept: list[Tree] = []
    for item in items:
        if item is None:
            continue
        mark = json.dumps(_plain(item), sort_keys=True)
        if mark not in seen or not _placed(item):
            kept.append(item)
        seen.add(mark)
    return kept


def _plain(tree: Tree) -> Any:
    if isinstance(tree, Found):
        return [tree.value, _place(tree.span)]
    if isinstance(tree, Mapping):
        return {name: _plain(child) for name, child in tree.items()}
    return [_plain(child) for child in tree] if isinstance(tree, list) else None


def _placed(tree: Tree) -> bool:
    """Whether anything of it shows where it was read."""
    if isinstance(tree, Found):
        return tree.span is not None
    children = tree.values() if isinstance(tree, Mapping) else tree or ()
    return any(_placed(child) for child in children)


def _place(span: Span | None) -> dict[str, int | None]:
    return {
        "start": None if span is None else span.start,
        "end": None if span is None else span.end,
    }


def _pointer(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
