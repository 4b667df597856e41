# SPDX-License-Identifier: Apache-2.0
"""`freehold tokenize`: the ids a model sees for a text.

Needs the vocabulary only: works on a vocabulary-only GGUF and on a model freehold cannot run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from freehold.cli import _text, console, options
from freehold.errors import InvalidParameterError

if TYPE_CHECKING:
    from freehold.chat.tokenizer import Tokenizer


def command(
    model: options.Model,
    text: Annotated[
        str | None, typer.Argument(help="Text; default: stdin, every byte of it.")
    ] = None,
    special: Annotated[
        bool,
        typer.Option(
            "--special/--no-special",
            help="Put the begin and end tokens around the text where the model wants them.",
        ),
    ] = True,
    parse_special: Annotated[
        bool,
        typer.Option("--parse-special", help="Read names of control tokens as those tokens."),
    ] = False,
    pre: Annotated[
        str | None,
        typer.Option("--pre", help="Text splitter of the vocabulary, in place of the file's."),
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Show the token ids of a text."""
    from freehold.chat.tokenizer import load_tokenizer
    from freehold.formats.checkpoint import open_checkpoint
    from freehold.model_names import resolve_model

    if text is None:
        if not _text.stdin_is_given():
            raise InvalidParameterError(
                "there is no text", hint="write it after the model, or pipe it in"
            )
        text = _text.read_stdin()
    with open_checkpoint(resolve_model(model)) as checkpoint:
        tokenizer = load_tokenizer(checkpoint, pre=pre)
    ids = tokenizer.encode(text, add_special=special, parse_special=parse_special)
    if as_json:
        console.data_json({"ids": ids, "tokens": [_shown(tokenizer, i) for i in ids]}, indent=None)
    else:
        console.data(
            "\n".join(f"{i}\t{_shown(tokenizer, i)}" for i in ids), end="\n" if ids else ""
        )


def _shown(tokenizer: Tokenizer, token_id: int) -> str:
    """A token's text on one line: control characters, backslashes and stray bytes escaped."""
    if token_id in tokenizer.special_ids():
        return tokenizer.token_text(token_id)
    piece = tokenizer.token_bytes(token_id)
    text = piece.decode("utf-8", "backslashreplace")
    if text.encode() != piece:
        return text  # part of a character: its bytes as \xNN
    escaped = text.replace("\\", "\\\\").replace("\n", "\\n").replace("\t", "\\t")
    return console.printable(escaped.replace("\r", "\\r"))
