# SPDX-License-Identifier: Apache-2.0
"""HTML to text, in time proportional to its length.

Knows tags, comments, entities and which elements begin a line; builds no tree and runs nothing.
`html.parser` is not used: 24 kB of ``<a `` take it five seconds, and twice as much four times as
long.
"""

from __future__ import annotations

import html
import re

_TAG = re.compile(r"<(/?)([A-Za-z][A-Za-z0-9:-]*)")
_STOP = re.compile("[>\"']")
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});?")
_BLANKS = re.compile(r"[ \t\r\n\f\xa0]+")
_NO_WIDTH = re.compile("[\u00ad\u200b\u200c\u200d\u2060\ufeff]")  # padding of mail previews
_MANY_LINES = re.compile(r"\n{3,}")

_NOT_TEXT = frozenset({"script", "style", "template"})
_PARAGRAPHS = frozenset({
    "p", "h1", "h2", "h3", "h4", "h5", "h6", "table", "ul", "ol", "dl", "blockquote", "pre",
    "section", "article", "header", "footer", "main",
})  # fmt: skip
_LINES = frozenset({
    "div", "tr", "li", "dt", "dd", "hr", "title", "body", "form", "option", "address",
    "figure", "caption",
})  # fmt: skip


def html_to_text(source: str) -> str:
    """The visible text, blocks on lines of their own, table cells between bars."""
    return _Scan(source).run()


class _Scan:
    """One pass from left to right. Where a search fails once, it is not tried again."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.out: list[str] = []
        self.preformatted = 0
        self.quotes_close = True  # until a tag without an end shows that they do not

    def run(self) -> str:
        source, at = self.source, 0
        while True:
            start = source.find("<", at)
            if start < 0:
                self._text(source[at:])
                break
            self._text(source[at:start])
            at = self._markup(start)
        text = "\n".join(line.rstrip() for line in "".join(self.out).split("\n"))
        return _MANY_LINES.sub("\n\n", text).strip()

    def _markup(self, start: int) -> int:
        """Take in what begins with ``<`` at `start`; gives where it ends."""
        source = self.source
        if source.startswith("<!--", start):
            end = source.find("-->", start + 4)
            return len(source) if end < 0 else end + 3  # as browsers do
        if source.startswith(("<!", "<?"), start):
            end = source.find(">", start)
            return len(source) if end < 0 else end + 1
        tag = _TAG.match(source, start)
        if tag is None:
            self._text("<")
            return start + 1
        end = self._tag_end(tag.end())
        name = tag[2].lower()
        if tag[1]:
            self._close(name)
        else:
            self._open(name)
            if name in _NOT_TEXT:
                closing = re.compile(f"</{name}", re.IGNORECASE).search(source, end)
                return len(source) if closing is None else closing.start()
        return end

    def _tag_end(self, at: int) -> int:
        """After the ``>`` that ends a tag; quoted ones do not. An unended tag takes the rest."""
        source = self.source
        begin = at
        while self.quotes_close:
            stop = _STOP.search(source, at)
            if stop is None:
                break
            if stop.group() == ">":
                return stop.end()
            closing = source.find(stop.group(), stop.end())
            if closing < 0:
                break
            at = closing + 1
        self.quotes_close = False
        end = source.find(">", begin)
        return len(source) if end < 0 else end + 1

    def _open(self, name: str) -> None:
        if name in ("td", "th"):
            self._cell()
        elif name in _PARAGRAPHS:
            self.out.append("\n\n")
        elif name == "br":
            self.out.append("\n")
        elif name in _LINES:
            self._line()
        if name == "li":
            self.out.append("- ")
        self.preformatted += name == "pre"

    def _close(self, name: str) -> None:
        if name in _PARAGRAPHS:
            self.out.append("\n\n")
        elif name in _LINES:
            self._line()
        self.preformatted -= name == "pre" and self.preformatted > 0

    def _line(self) -> None:
        """Go to the beginning of a line."""
        if self.out and not self.out[-1].endswith("\n"):
            self.out.append("\n")

    def _cell(self) -> None:
        """A bar before every cell but a row's first."""
        before = next((piece for piece in reversed(self.out) if piece != " "), "\n")
        if not before.endswith("\n"):
            self.out.append("| " if self.out[-1].endswith(" ") else " | ")

    def _text(self, text: str) -> None:
        if not text:
            return
        text = _ENTITY.sub(lambda match: html.unescape(match.group()), text)
        text = _NO_WIDTH.sub("", text)
        if not self.preformatted:
            text = _BLANKS.sub(" ", text)
            if not self.out or self.out[-1].endswith(("\n", " ")):
                text = text.lstrip(" ")
        if text:
            self.out.append(text)
