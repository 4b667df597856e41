# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501, SIM905 - tables of wordings read better unbroken
"""Short Python functions: a signature and a docstring to complete, and tests of the result."""

from __future__ import annotations

import builtins
import keyword
import re
from dataclasses import dataclass
from typing import Any

from recipes.seedling.documents.function_kinds import KINDS, FunctionKind
from recipes.seedling.phrases import Phrases, expand, fill
from recipes.seedling.pools import NOUN_TRAIN
from recipes.seedling.values import Draw

ARGUMENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "list": (
        tuple("values numbers items data nums elements entries sizes prices points marks costs counts weights ages lengths rates samples sales integers series rows grades xs".split()),
        tuple("readings scores amounts temperatures results_list measures figures distances".split()),
    ),
    "other": (tuple("others second right other_values more ys factors".split()), tuple("second_list partner coefficients".split())),
    "nested": (tuple("lists nested matrix groups rows table parts batches".split()), tuple("chunks list_of_lists blocks".split())),
    "words": (tuple("words names strings texts titles tokens labels cities lines".split()), tuple("phrases countries tags terms".split())),
    "text": (tuple("text string word s sentence line phrase name message content".split()), tuple("input_text title quote passage".split())),
    "number": (tuple("n number value num amount integer figure v".split()), tuple("quantity input_value digit".split())),
    "count": (tuple("n number num limit m index count k".split()), tuple("steps position upto".split())),
    "degrees": (tuple("degrees temperature temp t celsius_value heat value".split()), tuple("reading warmth".split())),
    "price": (tuple("price amount cost value net fee sum_".split()), tuple("base_price charge subtotal".split())),
    "part": (tuple("a part first left p one x1".split()), tuple("piece subset lhs".split())),
    "whole": (tuple("b whole second total_value right q two x2".split()), tuple("everything full rhs".split())),
    "low": (tuple("low lower minimum lo least start".split()), tuple("floor bottom".split())),
    "high": (tuple("high upper maximum hi most end".split()), tuple("ceiling top".split())),
    "width": (tuple("width w a length side".split()), tuple("breadth side_a".split())),
    "height": (tuple("height h b depth other_side".split()), tuple("tallness side_b".split())),
    "target": (tuple("target wanted element needle key value".split()), tuple("query searched".split())),
    "mapping": (tuple("mapping d table prices lookup pairs".split()), tuple("directory registry dictionary".split())),
}  # fmt: skip
# Docstrings often do not name the argument.
GENERIC: dict[str, Phrases] = {
    "list": Phrases(("the list", "a list", "the numbers", "a list of numbers", "the values"), ("the given list", "some numbers")),
    "nested": Phrases(("a list of lists", "the lists", "nested lists"), ("the given lists",)),
    "words": Phrases(("the words", "a list of words", "the strings", "the list"), ("the given words", "some strings")),
    "text": Phrases(("the text", "a string", "a text", "the string"), ("the given text", "some string")),
    "number": Phrases(("the number", "a number", "the value"), ("the given number",)),
    "count": Phrases(("n", "the number", "a number"), ("the given number",)),
    "degrees": Phrases(("a temperature", "the temperature"), ("the given temperature",)),
    "price": Phrases(("the price", "a price", "the amount"), ("the given price",)),
    "mapping": Phrases(("a dictionary", "the dict", "the mapping"), ("the given dictionary",)),
}  # fmt: skip
# Other beginnings of a docstring, in training: what is asked counts, not the verb that asks.
_ASKING = (
    "[Get|Compute|Calculate|Find|Output|Produce|Determine|Work out|Deliver|Provide|Yield|Fetch] {rest}",
    "[Returns|Computes|Yields|Finds|Produces] {rest}", "[Here we need|We want|Should return|The result is|This is|Answer with] {rest}", "{Rest}", "{Rest}",
)  # fmt: skip
_TESTING = (
    "[Check|Test|Decide|Find out|See|Determine|Verify|Ask] [if|whether] {rest}", "[Returns True if|True if|Whether] {rest}", "[Is it so that|Does it hold that] {rest}",
)  # fmt: skip
_SAME = (
    ("element", "entry"), ("elements", "members"), ("elements", "entries"), ("value", "item"), ("values", "entries"),
    ("numbers", "values"), (" in ", " within "), (" of ", " from "), ("sum", "total"), ("largest", "biggest"), ("smallest", "least"), ("positive", "above zero"),
)  # fmt: skip
_HELD_NAMES = frozenset(name for _, heldout in ARGUMENTS.values() for name in heldout)
# Names that bodies use themselves.
_TAKEN = frozenset(("x", "y", "c", "i", "row", "result", "k", "v", "_")) | set(dir(builtins))
_HINTS = {
    "list": "list[int]", "other": "list[int]", "nested": "list[list[int]]", "words": "list[str]",
    "text": "str", "degrees": "float", "price": "float", "mapping": "dict[str, int]",
}  # fmt: skip


@dataclass(frozen=True)
class Function:
    """`beginning` ends with the docstring's line, `body` is indented, `tests` are assert lines."""

    kind: str
    entry: str
    beginning: str
    body: str
    tests: str


def function(draw: Draw) -> Function:
    """A function of one of the taught kinds."""
    rng = draw.rng
    kind = rng.choice(KINDS)
    entry = kind.names.pick(rng, draw.split)
    if draw.train and draw.chance(0.2):  # a name that tells nothing: the docstring has to
        entry = "_".join(rng.sample(NOUN_TRAIN, rng.randint(1, 2)))
        if entry in _TAKEN:
            entry += "_1"
    arguments = _arguments(draw, kind, entry)
    constants = [draw.number(low, high) for low, high in kind.constants]
    values = dict(zip("abc", arguments, strict=False)) | {
        name: str(value) for name, value in zip("km", constants, strict=False)
    }
    said = dict(values)
    if len(arguments) == 1 and draw.chance(0.3) and kind.roles[0] in GENERIC:
        said["a"] = GENERIC[kind.roles[0]].pick(rng, draw.split)
    wording = kind.docs.pick(rng, draw.split)
    doc = fill(_reworded(draw, wording) if draw.train else wording, said)
    doc = doc[0].upper() + doc[1:] if doc.split()[0] not in arguments else doc
    if draw.chance(0.15):
        doc = doc.rstrip(".")
    signature = ", ".join(arguments)
    arrow = ""
    if draw.chance(0.25):
        signature = ", ".join(
            f"{name}: {_HINTS.get(role, 'int')}"
            for name, role in zip(arguments, kind.roles, strict=True)
        )
        arrow = f" -> {kind.returns}"
    beginning = f'def {entry}({signature}){arrow}:\n    """{doc}"""\n'
    body = kind.body.format(**values)
    body = "\n".join(f"    {line}" for line in body.split("\n"))
    return Function(kind.name, entry, beginning, body, _tests(draw, kind, entry, constants))


def _arguments(draw: Draw, kind: FunctionKind, entry: str) -> list[str]:
    names: list[str] = []
    while len(names) < len(kind.roles):
        train, heldout = ARGUMENTS[kind.roles[len(names)]]
        name = draw.rng.choice(train if draw.train else heldout)
        if draw.train and draw.chance(0.7):
            # An argument is copied from the signature, whatever it is called.
            name = draw.word(1, 3).lower() if draw.chance(0.35) else _noun_name(draw)
        if (
            name not in names
            and name != entry
            and name not in _TAKEN
            and (not draw.train or name not in _HELD_NAMES)
            and name.isascii()
            and not keyword.iskeyword(name)
        ):
            names.append(name)
    return names


def _tests(draw: Draw, kind: FunctionKind, entry: str, constants: list[int]) -> str:
    lines = []
    for _ in range(4):
        given = kind.inputs(draw.rng)
        expected: Any = kind.right(*given, *constants)
        call = f"{entry}({', '.join(map(repr, given))})"
        if isinstance(expected, float):
            lines.append(f"assert abs({call} - {expected!r}) < 1e-6")
        else:
            lines.append(f"assert {call} == {expected!r}")
    return "\n".join(lines)


def _noun_name(draw: Draw) -> str:
    """An argument called by an everyday noun, one of them or more, or two."""
    rng = draw.rng
    name: str = rng.choice(NOUN_TRAIN)
    roll = rng.random()
    if roll < 0.4:
        return name + "s"
    if roll < 0.65:
        return f"{name}_{rng.choice(NOUN_TRAIN)}"
    return name


def _reworded(draw: Draw, wording: str) -> str:
    """A training docstring with another verb, and now and then another noun."""
    rng = draw.rng
    if draw.chance(0.25):
        before, after = rng.choice(_SAME)
        wording = re.sub(rf"\b{before}\b" if before.isalpha() else before, after, wording)
    if draw.chance(0.5):
        return wording
    for opening, patterns in (("Return True if ", _TESTING), ("Return ", _ASKING)):
        if wording.startswith(opening):
            rest = wording.removeprefix(opening)
            pattern = expand(rng, rng.choice(patterns))
            return pattern.replace("{rest}", rest).replace("{Rest}", rest[0].upper() + rest[1:])
    return wording
