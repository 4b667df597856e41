# SPDX-License-Identifier: Apache-2.0
"""`freehold chat`: a conversation at the terminal.

Keeps the history and reads commands; answers come from `freehold.llm`. A full context is said
out loud: no turn is ever dropped without being asked for.
"""

from __future__ import annotations

import json
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freehold.cli import console, options
from freehold.cli._answers import AnswerPrinter
from freehold.cli._sampling_options import SamplingFlags, resolve
from freehold.cli._timing import remember, timing_line
from freehold.errors import ContextLengthError, FreeholdError, TemplateError, UserError

if TYPE_CHECKING:
    from freehold._llm_request import EventStream
    from freehold.llm import LLM
    from freehold.types import Completion, SamplingParams

HELP = """\
/help            this list
/clear           forget the conversation, keep the system message
/system [TEXT]   set the system message; without TEXT, show it
/save FILE       write the conversation as JSON
/stats           tokens and speed so far
/exit            leave; so does Ctrl-D
Text on several lines: start and end it with \"\"\", or end a line with \\
Ctrl-C stops an answer and keeps the conversation."""

# Share of the context from which each answer says how much is left.
_NEARLY_FULL = 0.8


_REMEMBERED = 24  # answers whose times later plans learn from


@options.with_options
def command(
    model: options.Model,
    system: Annotated[
        str | None, typer.Option("--system", help="System message of the conversation.")
    ] = None,
    thinking: options.Thinking = None,
    recommended: options.Recommended = True,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print timings after each answer.")
    ] = False,
    sampling: SamplingFlags = SamplingFlags(),  # noqa: B008 - frozen
    engine: options.EngineFlags = options.EngineFlags(),  # noqa: B008 - frozen
) -> None:
    """Talk with a model."""
    sampling.params()
    started = time.perf_counter()
    with engine.open(model, max_num_seqs=1) as llm:
        for notice in llm.notices:
            console.note(f"note: {notice}")
        if not llm.has_chat_template:
            raise TemplateError(
                "this model has no chat template",
                hint='it continues text: use `freehold run MODEL "Once upon a time"`',
            )
        params = resolve(sampling, llm, recommended)
        load_seconds = time.perf_counter() - started
        session = Session(llm, params, system, verbose, options.shows_thinking(thinking))
        try:
            session.run()
        finally:
            remember(llm, engine, load_seconds, session.answers)


class Session:
    """One conversation."""

    def __init__(
        self,
        llm: LLM,
        params: SamplingParams,
        system: str | None,
        verbose: bool,
        thinking: bool = False,
    ) -> None:
        self.llm = llm
        self.params = params
        self.system = system
        self.verbose = verbose
        self.thinking = thinking
        self.turns: list[dict[str, str]] = []
        self.last: Completion | None = None
        self.answers: deque[Completion] = deque(maxlen=_REMEMBERED)
        self.made_tokens = 0

    def messages(self) -> list[dict[str, str]]:
        head = [{"role": "system", "content": self.system}] if self.system else []
        return head + self.turns

    def run(self) -> None:
        """Read and answer until the end of input."""
        if sys.stdin.isatty():
            console.note(f"{Path(self.llm.path).name}: /help lists commands, Ctrl-D leaves")
            # Line editing and history for input(); absent from some Python builds.
            with suppress(ImportError):
                import readline  # noqa: F401
        for text in _entries():
            if text.startswith("/"):
                if not self.obey(text):
                    return
            elif text.strip():
                self.answer(text)

    def obey(self, line: str) -> bool:
        """Carry out a slash command; False when the session is to end."""
        name, _, rest = line.partition(" ")
        rest = rest.strip()
        if name in ("/exit", "/quit", "/bye"):
            return False
        if name == "/help":
            console.note(HELP)
        elif name == "/clear":
            self.turns, self.last = [], None
            console.note("the conversation is empty")
        elif name == "/system":
            self.system = rest or self.system
            console.note(f"system message: {self.system or 'none'}")
        elif name == "/save":
            self.save(rest)
        elif name == "/stats":
            self.stats()
        else:
            console.note(f"there is no command {name}; /help lists them")
        return True

    def answer(self, text: str) -> None:
        """One turn; on failure the history stays as it was."""
        self.turns.append({"role": "user", "content": text})
        printer = AnswerPrinter(thinking=self.thinking)
        try:
            completion = self._generate(printer)
        except ContextLengthError as error:
            self.turns.pop()
            console.note(f"not sent: {error.message}")
            console.note("/clear forgets the conversation; --context sets a longer context")
            return
        except (UserError, FreeholdError) as error:
            self.turns.pop()
            printer.end_thought()
            console.failure(error.message, error.hint)
            return
        if completion is None and not printer.shown.strip():
            self.turns.pop()
            printer.end_thought()
            console.note("stopped before the answer began")
            return
        printer.end()
        # Without the thought: templates leave out those of past turns.
        self.turns.append({"role": "assistant", "content": printer.shown})
        if completion is None:
            console.note("stopped; the part above stays in the conversation")
            return
        self.last = completion
        self.answers.append(completion)
        self.made_tokens += len(completion.token_ids)
        self._say_room(completion)
        if self.verbose:
            console.note(timing_line(completion))

    def _generate(self, printer: AnswerPrinter) -> Completion | None:
        """Stream an answer; None when the user stopped it."""
        events: EventStream = self.llm.chat(
            self.messages(), self.params, parse=not self.llm.answer_format.plain, stream=True
        )
        with _stop_requested() as stopped:
            for event in events:
                completion = printer.show(event)
                if completion is not None:
                    return completion
                if stopped():
                    break
        events.close()  # aborts the request between two steps, never inside one
        return None

    def _say_room(self, completion: Completion) -> None:
        used = len(completion.prompt_token_ids) + len(completion.token_ids)
        limit = self.llm.context_length
        if self.llm.context_is_full(completion):
            console.note(
                f"the answer ends here: all {limit} tokens of the context are used; /clear starts "
                "afresh, --context sets a longer one"
            )
            return
        if completion.finish_reason == "length":
            console.note(f"the answer was cut at {len(completion.token_ids)} tokens (--max-tokens)")
        if used > _NEARLY_FULL * limit:
            console.note(f"{limit - used} of {limit} tokens of the context are left")

    def save(self, name: str) -> None:
        """Write the messages as JSON, as `LLM.chat` takes them."""
        if not name:
            console.note("/save needs a file name")
            return
        try:
            with Path(name).expanduser().open("x", encoding="utf-8") as file:
                json.dump(self.messages(), file, ensure_ascii=False, indent=2)
        except FileExistsError:
            console.note(f"{name} exists already; choose another name")
        except OSError as error:
            console.note(f"cannot write {name}: {error.strerror}")
        else:
            console.note(f"saved {len(self.messages())} messages to {name}")

    def stats(self) -> None:
        """Where the conversation stands."""
        used = 0
        if self.last is not None:
            used = len(self.last.prompt_token_ids) + len(self.last.token_ids)
            console.note(timing_line(self.last))
        console.note(
            f"{len(self.turns)} messages, {used} of {self.llm.context_length} tokens of context "
            f"used, {self.made_tokens} tokens made"
        )


def _entries() -> Iterator[str]:
    """What the user enters, with several lines joined."""
    shown = sys.stdin.isatty()
    while True:
        try:
            line = input(">>> " if shown else "")
            if line.lstrip().startswith('"""'):
                line = _until_quotes(line.lstrip()[3:], shown)
            while line.endswith("\\"):
                line = line[:-1] + "\n" + input("... " if shown else "")
        except EOFError:
            if shown:
                console.note("")
            return
        except KeyboardInterrupt:
            console.note("\nCtrl-D or /exit leaves")
            continue
        except UnicodeDecodeError:
            console.note("that was not UTF-8 text")
            continue
        yield line


def _until_quotes(first: str, shown: bool) -> str:
    lines = [first]
    while not lines[-1].rstrip().endswith('"""'):
        lines.append(input("... " if shown else ""))
    lines[-1] = lines[-1].rstrip()[:-3]
    return "\n".join(lines).strip("\n")


@contextmanager
def _stop_requested() -> Iterator[Any]:
    """A function that tells whether Ctrl-C was pressed; a second press interrupts at once.

    The flag is looked at between steps, so that the engine is never torn out of one."""
    pressed = False

    def handler(number: int, frame: FrameType | None) -> None:
        del number, frame
        nonlocal pressed
        if pressed:
            raise KeyboardInterrupt
        pressed = True

    previous = signal.signal(signal.SIGINT, handler)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, previous)
