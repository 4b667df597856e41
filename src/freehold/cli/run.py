# SPDX-License-Identifier: Apache-2.0
"""`freehold run`: one prompt in, one answer out, streamed.

Puts the prompt together and reports the answer; generation itself is `freehold.llm`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from freehold.cli import _form, _text, console, options
from freehold.cli._answers import AnswerPrinter
from freehold.cli._sampling_options import SamplingFlags, resolve
from freehold.cli._timing import remember, timing_line
from freehold.errors import InvalidParameterError

if TYPE_CHECKING:
    from freehold.llm import LLM
    from freehold.types import Completion, SamplingParams, TokenLogprob


@options.with_options
def command(
    model: options.Model,
    prompt: Annotated[
        str | None,
        typer.Argument(help="The prompt; piped stdin is added below it.", show_default=False),
    ] = None,
    file: Annotated[
        list[str] | None,
        typer.Option("--file", "-f", help="Add a text file below the prompt; repeatable."),
    ] = None,
    system: Annotated[
        str | None, typer.Option("--system", help="System message for the chat template.")
    ] = None,
    raw: Annotated[
        bool, typer.Option("--raw", help="Continue the prompt as it is, without chat template.")
    ] = False,
    schema: _form.Schema = None,
    json_object: _form.JsonObject = False,
    regex: _form.Regex = None,
    choice: _form.Choice = None,
    grammar: _form.GrammarFile = None,
    adapter: Annotated[
        str | None,
        typer.Option("--adapter", help="Answer under this LoRA adapter (PEFT directory or GGUF)."),
    ] = None,
    thinking: options.Thinking = None,
    recommended: options.Recommended = True,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Print timings on stderr.")
    ] = False,
    as_json: options.Json = False,
    sampling: SamplingFlags = SamplingFlags(),  # noqa: B008 - frozen
    engine: options.EngineFlags = options.EngineFlags(),  # noqa: B008 - frozen
) -> None:
    """Answer one prompt, or continue one text."""
    sampling.params()  # refuse impossible numbers before a large file is read
    form = _form.constraint(schema, json_object, regex, choice, grammar)
    text = _compose(prompt, file or [])
    started = time.perf_counter()
    adapters = {} if adapter is None else {"adapter": adapter}
    with engine.open(model, max_num_seqs=1, adapters=adapters) as llm:
        chosen = next(iter(llm.adapters), None)
        load_seconds = time.perf_counter() - started
        for notice in llm.notices:
            console.note(f"note: {notice}")
        if system is not None and (raw or not llm.has_chat_template):
            raise InvalidParameterError(
                "--system needs a chat template, and "
                + ("--raw turns it off" if raw else "this model has none"),
                hint="put the instruction into the prompt",
            )
        params = resolve(sampling, llm, recommended)
        if raw or not llm.has_chat_template:
            events = llm.generate(text, params, stream=True, constraint=form, adapter=chosen)
        else:
            messages = [{"role": "system", "content": system}] if system is not None else []
            messages.append({"role": "user", "content": text})
            parse = not llm.answer_format.plain
            events = llm.chat(
                messages, params, parse=parse, stream=True, constraint=form, adapter=chosen
            )
        printer = AnswerPrinter(
            thinking=options.shows_thinking(thinking) and not as_json, text=not as_json
        )
        completion = None
        for event in events:
            completion = printer.show(event) or completion
        assert completion is not None
        if form is None and chosen is None:
            remember(llm, engine, load_seconds, [completion])
        if as_json:
            console.data_json(_as_json(llm, completion, params, load_seconds))
            return
        printer.end()
        if form is not None and completion.finish_reason == "length":
            console.note("note: the answer was cut before its form was complete")
        _report(llm, completion, load_seconds, verbose)


def _compose(prompt: str | None, files: list[str]) -> str:
    """Prompt, then files, then stdin, with an empty line between them.

    One newline at the end of a file or of stdin is dropped: editors and `echo` add it, and no
    model has seen a prompt end in it.
    """
    parts = [] if prompt is None else [prompt]
    parts += [_text.read_file(path).removesuffix("\n") for path in files]
    if _text.stdin_has_text():
        piped = _text.read_stdin().removesuffix("\n")
        parts += [piped] if piped else []
    if not parts:
        raise InvalidParameterError(
            "there is no prompt",
            hint="write it after the model, pipe it in, or name a file with --file",
        )
    return "\n\n".join(parts)


def _report(llm: LLM, completion: Completion, load_seconds: float, verbose: bool) -> None:
    """What the person should know beside the text, on stderr."""
    for name, entries in (("prompt", completion.prompt_logprobs), ("text", completion.logprobs)):
        if entries is not None:
            console.note(_logprob_table(llm, name, entries))
    if llm.context_is_full(completion):
        console.note(
            f"note: the answer ends here because the context of {llm.context_length} tokens is "
            "full; --context sets a longer one"
        )
    if verbose:
        console.note(timing_line(completion, load_seconds))


def _logprob_table(llm: LLM, name: str, entries: tuple[TokenLogprob | None, ...]) -> str:
    rows = [[name, "logprob", "rank", "alternatives"]]
    for entry in entries:
        if entry is not None:
            others = ", ".join(f"{llm.token_text(i)!r} {p:.3f}" for i, p in entry.top)
            rows.append(
                [
                    repr(llm.token_text(entry.token_id)),
                    f"{entry.logprob:.4f}",
                    f"{entry.rank}",
                    others,
                ]
            )
    return console.table(rows, right=(1, 2))


def _as_json(
    llm: LLM, completion: Completion, params: SamplingParams, load_seconds: float
) -> dict[str, Any]:
    from dataclasses import asdict

    result = asdict(completion)
    timings = {
        "load_seconds": load_seconds,
        "prefill_seconds": result.pop("prefill_seconds"),
        "decode_seconds": result.pop("decode_seconds"),
    }
    sampling = asdict(params)
    return {
        "model": llm.path,
        **result,
        "context_length": llm.context_length,
        "context_full": llm.context_is_full(completion),
        "sampling": sampling,
        "timings": timings,
    }
