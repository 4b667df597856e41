# SPDX-License-Identifier: Apache-2.0
"""The `freehold` command: finds the subcommand's file, runs it, and turns errors into sentences.

A subcommand is a file of this folder that defines a function named ``command``: the file name
is the command's name, the function's signature its options, the first line of its docstring
its summary. The file is imported only when its command is used; the list in `freehold --help`
is read from the source text, so no command can make help slow.
"""

from __future__ import annotations

import ast
import errno
import importlib
import json
import os
import pkgutil
import sys
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from typer.core import TyperCommand, TyperGroup

import freehold.cli
from freehold import __version__
from freehold.cli import console
from freehold.cli._typed import typed
from freehold.errors import FreeholdError, PolicyError, UserError

EXIT_FAILURE = 1
EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130  # what a shell reports for SIGINT
EXIT_BROKEN_PIPE = 141  # and for SIGPIPE

# OSError numbers that say nothing about what the user typed.
_MACHINE_ERRORS = {errno.ENOSPC, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM}


@cache
def summaries() -> dict[str, str]:
    """Command names and their one-line summaries, without importing a command."""
    found: dict[str, str] = {}
    for module in pkgutil.iter_modules(freehold.cli.__path__):
        source = Path(freehold.cli.__path__[0], module.name + ".py").read_text("utf-8")
        for node in ast.parse(source).body:
            if isinstance(node, ast.FunctionDef) and node.name == "command":
                doc = ast.get_docstring(node) or ""
                found[module.name.replace("_", "-")] = doc.partition("\n")[0]
    return found


def load_command(name: str) -> Any:
    """Import the file of one command and build its Typer command."""
    module = importlib.import_module("freehold.cli." + name.replace("-", "_"))
    app = typer.Typer(add_completion=False)
    app.command(name)(module.command)
    return typer.main.get_command(app)


class LazyGroup(TyperGroup):
    """Lists commands from their source and imports the one that is invoked."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(summaries())

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A stand-in with the summary: enough for help and completion of names."""
        summary = summaries().get(cmd_name)
        return None if summary is None else TyperCommand(cmd_name, help=summary)

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name = args[0]
        if name not in summaries():
            close = get_close_matches(name, summaries(), n=1)
            raise UserError(
                f"there is no command {name!r}",
                hint=f"did you mean `freehold {close[0]}`?" if close else "see `freehold --help`",
            )
        return name, load_command(name), args[1:]


def _print_version(wanted: bool) -> None:
    if wanted:
        console.data(f"freehold {__version__}")
        raise typer.Exit


# Without Rich: importing it would take as long as all the rest of `freehold --help`.
app = typer.Typer(
    cls=LazyGroup, add_completion=False, invoke_without_command=True, rich_markup_mode=None
)


@app.callback()
def root(
    ctx: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print the version.", is_eager=True, callback=_print_version
        ),
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show Python's traceback when freehold fails.")
    ] = False,
) -> None:
    """Run open-weight language models on your own hardware."""
    if ctx.invoked_subcommand is None:
        console.data(ctx.get_help())


def _os_error(error: OSError) -> int:
    what = error.strerror or str(error) or type(error).__name__
    where = f"{error.filename}: " if error.filename is not None else ""
    console.failure(f"{where}{what}")
    return EXIT_FAILURE if error.errno in _MACHINE_ERRORS else EXIT_USER_ERROR


def _usage_error(error: typer.TyperException) -> int:
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx is not None else "freehold"
    message = error.format_message().rstrip(".")
    console.failure(message[:1].lower() + message[1:], f"see `{path} --help`")
    return EXIT_USER_ERROR


def run(args: Sequence[str]) -> int:
    """Run one command line and give its exit code; the errors of every command end here."""
    group = typer.main.get_command(app)
    token = typed.set(tuple(args))
    try:
        with group.make_context("freehold", list(args)) as ctx:
            group.invoke(ctx)
    except typer.Exit as done:
        return done.exit_code
    except typer.TyperException as error:
        return _usage_error(error)
    except FreeholdError as error:
        console.failure(error.message, error.hint)
        if isinstance(error, PolicyError):  # for programs that call this one
            console.note(f"reason: {json.dumps(error.reason)}")
        return EXIT_USER_ERROR if isinstance(error, UserError) else EXIT_FAILURE
    except (BrokenPipeError, SystemExit):
        # Rich, which prints the help, exits when its reader goes away; nothing else exits here.
        return _reader_gone()
    except OSError as error:
        return _os_error(error)
    except MemoryError:
        console.failure("memory ran out", "use a smaller model or a smaller --context")
        return EXIT_FAILURE
    except (KeyboardInterrupt, typer.Abort):
        if sys.stderr.isatty():
            console.note("")  # the shell's prompt starts on a line of its own
        return EXIT_INTERRUPTED
    finally:
        typed.reset(token)
    return 0


def _reader_gone() -> int:
    # What is still buffered goes nowhere, or the interpreter would complain again on exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return EXIT_BROKEN_PIPE


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """Warnings as sentences: where in our source one arose tells the user nothing."""
    del category, filename, lineno, file, line
    console.note(f"warning: {message}")


def main() -> int:
    """Entry point of the `freehold` script."""
    args = sys.argv[1:]
    warnings.showwarning = _show_warning
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows a mark; the answer does not stop there.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
    try:
        return run(args)
    except Exception as error:
        if "--traceback" in args:
            raise
        # Not one of ours: a bug. The user still gets a sentence instead of a page.
        detail = console.one_line(f"{type(error).__name__}: {error}")
        console.failure(
            f"freehold failed unexpectedly ({detail})",
            "this is a bug; `freehold --traceback COMMAND …` shows where it happened",
        )
        return EXIT_FAILURE


if __name__ == "__main__":
    sys.exit(main())
