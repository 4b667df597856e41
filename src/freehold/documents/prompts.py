# SPDX-License-Identifier: Apache-2.0
"""The words of each document task: one instruction, a blank line, the document.

Knows wording and nothing else; readers, models and answers are other modules' business. The
instruction comes first so that many documents under one instruction share a prefix in the cache.
The built-in model was taught with exactly these words (`recipes/seedling`): changing one means
training it again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from freehold.errors import InvalidParameterError

VERSION = 1  # part of every task's spec: other words, other answers
Messages = list[dict[str, str]]


def check_version(spec: Mapping[str, Any]) -> None:
    """Raise InvalidParameterError for a spec made with other words than these."""
    if spec["prompts"] != VERSION:
        raise InvalidParameterError(
            f"the task was made with version {spec['prompts']!r:.20} of the prompts, and this is "
            f"version {VERSION}",
            hint="start a new job",
        )


def classify(document: str, labels: Sequence[str]) -> Messages:
    """Ask for one label out of `labels`; the answer is the label and nothing else."""
    return _ask(f"Classify the document. Answer with one of: {', '.join(labels)}.", document)


def has_label(document: str, label: str) -> Messages:
    """Ask whether a label fits; the answer is yes or no and nothing else.

    The document comes before the label, so that all labels share what is computed of it. The
    built-in model was not taught this one.
    """
    question = f"Does the label {label!r} fit the document? Answer yes or no."
    instruction = "Read the document, then answer the question about it."
    return _ask(f"{instruction}\n\nDocument:\n{document.strip()}", f"Question: {question}")


def extract(document: str, fields: Sequence[str]) -> Messages:
    """Ask for a JSON object with `fields` as keys, in order; values are strings or null."""
    return _ask(f"Extract as JSON: {', '.join(fields)}.", document)


def extract_form(document: str, form: str) -> Messages:
    """Ask for JSON of a form, shown as JSON with words where values go. The built-in model was not
    taught this one."""
    return _ask(
        "Extract from the document as JSON in the form below. Copy texts, numbers, dates and "
        "quotes word for word from the document. Where the document does not say, answer null.\n"
        f"Form: {form}",
        document,
    )


def summarize(document: str) -> Messages:
    """Ask for one line that holds the key facts."""
    return _ask("Summarise the document in one line.", document)


def summarize_in_words(document: str, words: int, *, part: bool = False) -> Messages:
    """Ask for a summary of about so many words. The built-in model was not taught this one."""
    what = "this part of a longer document" if part else "the document"
    return _ask(
        f"Summarise {what} in at most {words} words. Keep names, numbers and dates. "
        "Answer with the summary alone.",
        document,
    )


def complete_function(beginning: str) -> Messages:
    """Ask for the body of the Python function that `beginning` opens (signature and docstring).

    The answer is the indented body alone.
    """
    return _ask("Complete the Python function. Answer with its body.", beginning)


def write_code(specification: str, files: Mapping[str, str], path: str) -> Messages:
    """Ask for files that do what a specification says. The built-in model was not taught this."""
    given = "".join(f"\n\n```{name}\n{text.rstrip()}\n```" for name, text in files.items())
    known = f"\n\nThese files are there:{given}" if files else ""
    return _ask(
        "Write the code that the specification asks for. Answer with whole files, each in a fenced "
        f"block with its path behind the fence, such as ```{path}.",
        f"Specification:\n{specification.strip()}{known}",
    )


def try_again(conversation: Messages, answer: str, failure: str) -> Messages:
    """The same conversation, what was answered, and what is wrong with it."""
    return [
        *conversation,
        {"role": "assistant", "content": answer},
        {"role": "user", "content": f"It is not right: {failure}\nAnswer again, in the same form."},
    ]


def relevant(document: str, query: str) -> Messages:
    """Ask whether a document helps with a query; the answer is yes or no and nothing else.

    The built-in model was not taught this one.
    """
    return _ask(f"Does the document answer the query? Answer yes or no.\nQuery: {query}", document)


def _ask(instruction: str, document: str) -> Messages:
    return [{"role": "user", "content": f"{instruction}\n\n{document.strip()}"}]
