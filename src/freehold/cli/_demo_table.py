# SPDX-License-Identifier: Apache-2.0
"""`freehold demo` for a person: the table of answers, and the sentences below it.

Knows layout and wording. Text from documents and models goes in as plain text, never as markup.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from freehold.cli import console
from freehold.cli._demo_work import Work
from freehold.documents.asking import Answer
from freehold.documents.list_prices import AS_OF, LIST_PRICES, SOURCE

if TYPE_CHECKING:
    from freehold.cli.demo import Report

_PIPE_WIDTH = 110  # where no terminal says how wide it is
_WIDE = 100  # from here on summaries have a column of their own
_PROJECTED = 100_000  # documents


def show(report: Report) -> None:
    """Print everything to stdout."""
    width = None if sys.stdout.isatty() else _PIPE_WIDTH
    out = Console(file=sys.stdout, width=width, highlight=False)
    out.print(_table(report.works, out.width >= _WIDE))
    for sentence in report.sentences():
        out.print(Text(console.printable(sentence)), soft_wrap=out.width < 60)
    out.print()
    out.print(_speed(report))
    out.print()
    out.print(_prices(report))
    out.print()
    out.print(_what_next(report))


def _table(works: list[Work], wide: bool) -> Table:
    table = Table(box=box.ROUNDED, show_lines=True, expand=False, header_style="bold")
    table.add_column("document", ratio=None, overflow="fold", max_width=24)
    table.add_column("kind", overflow="fold", max_width=11)
    if wide:
        table.add_column("found in it", overflow="fold")
        table.add_column("summary", overflow="fold")
    else:
        table.add_column("found in it, summary", overflow="fold")
    for work in works:
        found, summary = _found(work), _summary(work)
        cells = [found, summary] if wide else [_stacked(found, summary)]
        table.add_row(_plain(work.document.name), _kind(work), *cells)
    return table


def _plain(text: str, style: str = "") -> Text:
    # As a span: a style of the whole would colour what is appended later.
    return Text().append(console.printable(text), style)


def _stacked(*cells: Text) -> Group:
    return Group(*(cell for cell in cells if cell.plain))


def _kind(work: Work) -> Text:
    """One word each; why there is none is told where there is room (`_found`)."""
    if work.function is not None:
        return _plain("function", "cyan")
    text = _word(work.kind, "cyan")
    if work.label is not None:
        text.append("\n")
        text.append_text(_word(work.label, "bold"))
    return text


def _word(answer: Answer[str] | None, style: str) -> Text:
    known = answer is not None and answer.value is not None
    return _value(answer, style) if known else _plain("unclear", "yellow")


def _found(work: Work) -> Text:
    if work.function is not None:
        return _function(work.function, (work.beginning or "").rstrip())
    lines: list[Text] = []
    for name, answer in (("kind", work.kind), ("label", work.label)):
        if answer is not None and answer.value is None:
            lines.append(_plain(f"{name}: ", "dim").append_text(_failed(answer)))
    if work.fields is not None and work.fields.value is None:
        lines.append(_failed(work.fields))
    elif work.fields is not None and work.fields.value is not None:
        for name, value in work.fields.value.items():
            shown = _plain("none", "dim") if value is None else _plain(value)
            lines.append(_plain(f"{name}: ", "dim").append_text(shown))
    return Text("\n").join(lines)


def _function(answer: Answer[str], beginning: str) -> Text:
    """The given beginning in grey, what the model wrote below it."""
    if answer.value is None:
        return _failed(answer)
    text = _plain(beginning, "dim")
    text.append_text(_plain(answer.value.removeprefix(beginning).rstrip()))
    return text


def _summary(work: Work) -> Text:
    return Text() if work.summary is None else _value(work.summary, "italic")


def _value(answer: Answer[str] | None, style: str = "") -> Text:
    if answer is None:
        return Text()
    return _failed(answer) if answer.value is None else _plain(answer.value.rstrip(), style)


def _failed(answer: Answer[Any]) -> Text:
    """Why there is no value, and what the model wrote instead."""
    reason = "no answer" if answer.error is None else answer.error.message
    text = _plain(reason, "yellow")
    wrote = console.one_line(answer.text, 80)
    if wrote and wrote not in reason:
        text.append("\n")
        text.append_text(_plain(wrote, "dim"))
    return text


def _speed(report: Report) -> Text:
    known = ""
    if report.cached_tokens:
        known = f" ({report.cached_tokens:,} of them in beginnings computed once)"
    text = Text()
    text.append(f"{console.rate(report.tokens_per_second)} tokens per second", "bold")
    text.append(
        f" on this machine: {len(report.works)} documents, {report.read_tokens:,} tokens read"
        f"{known} and {report.written_tokens:,} written in {report.seconds:.1f} s, after "
        f"{report.load_seconds:.1f} s of loading. Nothing left this machine."
    )
    return text


def _prices(report: Report) -> Group:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("model")
    table.add_column("per million tokens\nread / written", justify="right")
    table.add_column("these\ndocuments", justify="right")
    table.add_column(f"{_PROJECTED:,}\nsuch documents", justify="right")
    for price in LIST_PRICES:
        cost = price.cost(report.read_tokens, report.written_tokens)
        table.add_row(
            f"{price.vendor} {price.model}",
            f"${price.read:.2f} / ${price.written:.2f}",
            f"${cost:.4f}",
            f"${cost * _PROJECTED / max(len(report.works), 1):,.2f}",
        )
    sentence = _plain(
        f"The same tokens at an API, at the list prices of {AS_OF} ({SOURCE}), without discounts "
        "for batches or caches; counted with this model's tokenizer, others cut text otherwise:"
    )
    return Group(sentence, Text(), table)


def _what_next(report: Report) -> Text:
    if not report.is_seedling:
        return _plain(
            f"The answers above are those of {report.model_name}, shown as they came.", "dim"
        )
    text = Text()
    text.append("seedling is a small demonstration model", "bold")
    text.append(
        f" of {console.count(report.parameters)} parameters, made to show that everything works. "
        "It knows little beyond documents like these; its answers are shown as they came, right or "
        "wrong. For real work use a real model, any GGUF file of a family that freehold runs:\n\n"
        "  freehold demo my-documents/ --model path/to/model.gguf\n"
        '  freehold run path/to/model.gguf "Summarise this letter:" --file letter.txt\n'
        "  freehold chat path/to/model.gguf"
    )
    return text
