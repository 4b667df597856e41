# SPDX-License-Identifier: Apache-2.0
"""`LLM`: a model as a Python object. Text or token ids in, completions out.

The one place where file, backend, model, engine, tokenizer and chat template meet. It decides
nothing about numbers and owns no generation loop: every method hands requests to the engine,
and `_llm_request` turns what comes back into text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, TypeVar, overload

from freehold import backends
from freehold._llm_adapters import AdapterNames, LoadedAdapters
from freehold._llm_advice import recommended_pooling, recommended_sampling
from freehold._llm_grammar import GrammarCompiler
from freehold._llm_inputs import (
    Constraints,
    Params,
    backend_options,
    check_context,
    check_free_memory,
    common_prefix,
    context_that_fits,
    file_marks,
    has_tokenizer,
    is_single,
    per_constraint,
    per_prompt,
    stacked,
)
from freehold._llm_labels import LabelTask, Normalization, checked_labels, label_measurements
from freehold._llm_request import EventStream, Request
from freehold.chat.answer_format import AnswerFormat, load_answer_format, prompt_tail
from freehold.chat.answer_grammar import answer_grammar
from freehold.chat.fill_in import FillIn, load_fill_in
from freehold.chat.output_parser import OutputParser
from freehold.chat.template import (
    TOOL_TEMPLATE,
    ChatTemplate,
    chat_template_sources,
    encode_chat,
    load_chat_template,
)
from freehold.chat.thought_limit import ThoughtLimit
from freehold.chat.tokenizer import Tokenizer, load_tokenizer
from freehold.config import DEFAULT_BLOCK_SIZE, EngineConfig
from freehold.engine.engine import Engine
from freehold.engine.kv_cache import check_config, sequence_bytes
from freehold.engine.kv_snapshot import DEFAULT_SNAPSHOT_BYTES, SnapshotStore, fingerprint_of
from freehold.engine.measuring import Measurement, Pooling
from freehold.engine.structured import Grammar
from freehold.errors import InvalidParameterError, TemplateError, TokenizerError
from freehold.formats.checkpoint import open_checkpoint
from freehold.licensing import enforce_on
from freehold.model_names import resolve_model
from freehold.models.adapters import Adapter
from freehold.models.base import CausalLM
from freehold.models.loader import load_model, read_config
from freehold.ops import FloatArray, KVDtype
from freehold.types import Completion, Constraint, Message, Prompt, SamplingParams, ToolChoice

_Part = TypeVar("_Part")


class LLM:
    """A loaded model. Close it, or use it as a context manager.

    Not thread-safe: one thread at a time may call its methods. Several streams may be open at
    once and share every step.
    """

    def __init__(
        self,
        model: str | Path,
        *,
        backend: str = "cpu",
        threads: int | None = None,
        isa: str | None = None,
        context_length: int | None = None,
        kv_dtype: KVDtype = "f16",
        max_num_seqs: int = 64,
        max_num_batched_tokens: int = 512,
        prefix_caching: bool = True,
        speculative_tokens: int = 0,
        forced_tokens: bool = True,
        kv_memory_bytes: int | None = None,
        skip_tokenizer_init: bool = False,
        pre: str | None = None,
        progress: Callable[[int, int], None] | None = None,
        snapshot_dir: str | Path | None = None,
        snapshot_bytes: int = DEFAULT_SNAPSHOT_BYTES,
        adapters: Mapping[str, str | Path] | None = None,
        policy_override: str | None = None,
        ignore_memory: bool = False,
    ) -> None:
        """Load `model`: a GGUF file, a safetensors file, a model directory or a model's name.

        ``LLM("seedling")`` is the model that comes with freehold; `model_names` knows the names.

        `context_length` is the number of positions one sequence may use. None takes the model's
        own, or what free memory holds if that is less; `notices` then says so.
        `forced_tokens` takes tokens that a constraint leaves no choice about without asking the
        model, in the tokenizer's own spelling; off, they are the same and take a step each.
        `skip_tokenizer_init` loads no vocabulary: token ids in, token ids out. `pre` names the
        text splitter of a vocabulary that names none, or one that is not known. `progress` is
        called with the bytes of weights loaded so far and the bytes in all. `snapshot_dir` keeps
        computed prefixes on disk, up to `snapshot_bytes` for all models that share it: prompts can
        be made out from them. `adapters` are low-rank adapters (LoRA) to load, name to path: PEFT
        directories or GGUF files; see `load_adapter`. `policy_override` is why the model is
        loaded although the policy of this machine forbids it; it is written down. `ignore_memory`
        loads weights for which there is not enough free memory all the same; the system may then
        swap, or end the process.

        Raises a UserError that names what is wrong with the file or a parameter (PolicyError where
        the policy forbids the model), and CapacityError when the memory is not there.
        """
        path = resolve_model(model)
        self.path = str(path)
        self.notices: list[str] = []
        self._requests: dict[str, Request] = {}
        self._snapshots: SnapshotStore | None = None
        self._settings: dict[str, Any] = {
            "max_num_seqs": max_num_seqs,
            "max_num_batched_tokens": max_num_batched_tokens,
            "kv_dtype": kv_dtype,
            "prefix_caching": prefix_caching,
            "speculative_tokens": speculative_tokens,
            "forced_tokens": forced_tokens,
            "kv_memory_bytes": kv_memory_bytes,
        }
        self.checkpoint = open_checkpoint(path)
        self._adapters = LoadedAdapters(self.checkpoint)
        try:
            enforce_on("load", path, name=str(model), override=policy_override)
            # Everything that may be refused is looked at before the weights are loaded.
            config = read_config(self.checkpoint)
            self._adapters.check(adapters or {}, config)
            own = config.context_length
            check_context(context_length, own)
            check_config(EngineConfig(context_length or own, **self._settings))
            if backend == "cpu" and not ignore_memory:
                check_free_memory(self.checkpoint, config)
            self._tokenizer: Tokenizer | None = None
            if not skip_tokenizer_init and has_tokenizer(self.checkpoint):
                self._tokenizer = load_tokenizer(self.checkpoint, pre=pre)
            self.ops = backends.create(backend, **backend_options(threads, isa))
            self._model: CausalLM | None = load_model(self.checkpoint, self.ops, progress)
            for name, file in (adapters or {}).items():
                self.load_adapter(name, file)
            self.config = self.model.config
            self.context_length = context_length or own
            if context_length is None:
                self.context_length = context_that_fits(own, self._kv_bytes, kv_memory_bytes)
            if self.context_length < own and context_length is None:
                self.notices.append(
                    f"the context is {self.context_length:,} tokens: free memory does not hold the "
                    f"cache for all {own:,} of the model; context_length (--context) sets it"
                )
            if snapshot_dir is not None:
                fingerprint = fingerprint_of(
                    file_marks(self.checkpoint), backend, getattr(self.ops, "isa", ""), kv_dtype,
                    DEFAULT_BLOCK_SIZE, tuple(self._model.kv_layers()), version("freehold"),
                )  # fmt: skip
                self._snapshots = SnapshotStore(snapshot_dir, fingerprint, snapshot_bytes)
            self._engine: Engine | None = self.make_engine()
        except BaseException:
            self.checkpoint.close()
            if self._snapshots is not None:
                self._snapshots.close()
            raise

    # -- what it is --------------------------------------------------------------------------

    @property
    def model(self) -> CausalLM:
        """The loaded model. Raises InvalidParameterError once closed."""
        return _open(self._model)

    @property
    def engine(self) -> Engine:
        """The engine that every method of this object shares."""
        return _open(self._engine)

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to ids and back. Raises TokenizerError when the model came without one."""
        if self._tokenizer is None:
            raise TokenizerError(
                f"{self.path}: the model has no tokenizer",
                hint="pass token ids instead of text, or use a file with a vocabulary",
            )
        return self._tokenizer

    @cached_property
    def chat_template(self) -> ChatTemplate | None:
        """The model's chat template, or None."""
        return load_chat_template(self.checkpoint, self.tokenizer)

    @cached_property
    def _tool_template(self) -> ChatTemplate | None:
        """The template for conversations with tools: its own one where the model has one."""
        if TOOL_TEMPLATE not in chat_template_sources(self.checkpoint):
            return self.chat_template
        return load_chat_template(self.checkpoint, self.tokenizer, name=TOOL_TEMPLATE)

    @cached_property
    def answer_format(self) -> AnswerFormat:
        """How the model writes reasoning and tool calls, as far as its files tell."""
        return load_answer_format(self.checkpoint, self._tokenizer)

    @cached_property
    def fill_in(self) -> FillIn | None:
        """The marks for what stands between two texts; None where the model has none."""
        return load_fill_in(self.checkpoint.metadata, self.tokenizer)

    @cached_property
    def _visible_ids(self) -> frozenset[int]:
        return self.answer_format.visible_ids(self.tokenizer)

    @cached_property
    def _grammars(self) -> GrammarCompiler:
        return GrammarCompiler(self.tokenizer, self.config.vocab_size)

    @property
    def has_chat_template(self) -> bool:
        """Whether `chat` can work."""
        return self._tokenizer is not None and self.chat_template is not None

    @cached_property
    def recommended_sampling(self) -> dict[str, float | int]:
        """The vendor's sampling settings by `SamplingParams` field; never applied by itself."""
        return recommended_sampling(self.checkpoint)

    @cached_property
    def pooling(self) -> Pooling:
        """How the model's files want hidden states made one vector; the mean where they say
        nothing."""
        return recommended_pooling(self.checkpoint)

    def _kv_bytes(self, tokens: int) -> int:
        """Bytes of cache one sequence of `tokens` tokens needs."""
        chunk, dtype = self._settings["max_num_batched_tokens"], self._settings["kv_dtype"]
        return sequence_bytes(self.model.kv_layers(), tokens, chunk, DEFAULT_BLOCK_SIZE, dtype)

    def token_text(self, token_id: int) -> str:
        """What a token looks like in print: its text, or ``<id>`` without a tokenizer."""
        if self._tokenizer is None or token_id >= self._tokenizer.vocab_size:
            return f"<{token_id}>"
        return self._tokenizer.piece(token_id, skip_special=False).decode("utf-8", "replace")

    def context_is_full(self, completion: Completion) -> bool:
        """Whether an answer ended because its sequence reached `context_length`."""
        used = len(completion.prompt_token_ids) + len(completion.token_ids)
        return completion.finish_reason == "length" and used >= self.context_length

    @property
    def nbytes(self) -> int:
        """Bytes that the weights, the adapters and the cache take."""
        return self.model.weight_bytes() + self._adapters.nbytes + self.engine.kv_bytes

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the loaded adapters."""
        return self._adapters.names

    def load_adapter(self, name: str, path: str | Path) -> None:
        """Load a low-rank adapter (LoRA): a PEFT directory or a GGUF file, for requests that ask
        for it by `name`. Requests under different adapters share every step.

        Raises InvalidParameterError for a name that is taken, and a UserError that names what is
        wrong with the file or what of it freehold does not do."""
        self._adapters.load(name, path, self.model, self.ops)

    def unload_adapter(self, name: str) -> None:
        """Take an adapter away; requests that run under it end as they began."""
        self._adapters.unload(name)

    def adapter(self, name: str | None) -> Adapter | None:
        """The loaded adapter of a name, as the engine takes it; None for None. Raises
        InvalidParameterError."""
        return self._adapters.find(name)

    # -- text and tokens ---------------------------------------------------------------------

    @overload  # a str is a sequence of str too; the first match wins
    def generate(  # type: ignore[overload-overlap]
        self, prompts: str, params: SamplingParams | None = ..., *, stream: Literal[False] = ...,
        constraint: Constraint | None = ..., adapter: str | None = ...,
    ) -> Completion: ...  # fmt: skip
    @overload
    def generate(
        self, prompts: Prompt, params: SamplingParams | None = ..., *, stream: Literal[True],
        constraint: Constraint | None = ..., adapter: str | None = ...,
    ) -> EventStream: ...  # fmt: skip
    @overload
    def generate(
        self, prompts: Sequence[int], params: SamplingParams | None = ..., *,
        stream: Literal[False] = ..., constraint: Constraint | None = ...,
        adapter: str | None = ...,
    ) -> Completion: ...  # fmt: skip
    @overload
    def generate(
        self, prompts: Sequence[Prompt], params: Params = ..., *, stream: Literal[False] = ...,
        constraint: Constraints = ..., adapter: AdapterNames = ...,
    ) -> list[Completion]: ...  # fmt: skip

    def generate(
        self,
        prompts: Any,
        params: Params = None,
        *,
        stream: bool = False,
        constraint: Constraints = None,
        adapter: AdapterNames = None,
    ) -> Any:
        """Continue one prompt, or many as one batch.

        A prompt is text, to which the tokenizer adds its begin token, or token ids, which are
        taken as they are. `params` is one for all, or one per prompt. With `stream`, a single
        prompt gives events whose texts join to the whole; the last carries the completion.
        Completions come back in the order of the prompts. `constraint` is the form of the answers,
        one for all or one per prompt; ConstraintError where it cannot be kept. `adapter` names the
        loaded adapter to answer under, again one for all or one per prompt.
        """
        single = is_single(prompts)
        ids = [self.ids(prompts)] if single else [self.ids(prompt) for prompt in prompts]
        forms = per_constraint(constraint, len(ids))
        grammars = [self.text_grammar(form) for form in forms]
        return self._answer(
            ids, params, stream, single=single, continues=True, grammars=grammars,
            adapters=self._adapters.per_prompt(adapter, len(ids)),
        )  # fmt: skip

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        params: Params = None,
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        tool_choice: ToolChoice | None = None,
        parse: bool | None = None,
        stream: bool = False,
        constraint: Constraints = None,
        adapter: AdapterNames = None,
        **template_variables: Any,
    ) -> Any:
        """Answer a conversation (`Completion`, or events with `stream`), or a list of them.

        The model's own template turns messages into a prompt; with `tools`, its template for
        tools where it has one. `parse` takes answers apart into text, reasoning and tool calls;
        None does so when there are tools or constraints. `constraint` is the form of the visible
        answer, after any reasoning. `tool_choice` says whether tools may, must or must not be
        called. `adapter` names the loaded adapter to answer under, one for all or one for each.

        Raises TemplateError when the model has no template, ConstraintError for a form that cannot
        be kept.
        """
        if not messages:
            raise InvalidParameterError("chat needs at least one message")
        single = isinstance(messages[0], Mapping)
        conversations: Any = [messages] if single else messages
        choice = tool_choice or ToolChoice()
        offered = None if choice.mode == "none" else tools
        prompts = [self.chat_ids(c, tools=offered, **template_variables) for c in conversations]
        forms = per_constraint(constraint, len(prompts))
        grammars = [
            self.chat_grammar(ids, form, tools=offered or (), choice=choice)
            for ids, form in zip(prompts, forms, strict=True)
        ]
        parsers = []
        for ids, form in zip(prompts, forms, strict=True):
            wanted = parse or (parse is None and (tools is not None or form is not None))
            parsers.append(self.chat_parser(ids, form, offered) if wanted else None)
        return self._answer(
            prompts, params, stream, single=single, continues=False, parsers=parsers,
            grammars=grammars, adapters=self._adapters.per_prompt(adapter, len(prompts)),
        )  # fmt: skip

    def text_grammar(self, constraint: Constraint | None) -> Grammar | None:
        """The compiled form of an answer that continues a text."""
        if constraint is None:
            return None
        text = answer_grammar(
            AnswerFormat(None, None), self.tokenizer, prompt=None, constraint=constraint
        )
        return None if text is None else self._grammars.compile(text)

    def chat_grammar(
        self,
        prompt: Sequence[int],
        constraint: Constraint | None,
        *,
        tools: Sequence[Mapping[str, Any]] = (),
        choice: ToolChoice | None = None,
    ) -> Grammar | None:
        """The compiled form of an answer to a rendered conversation: a thought where the model has
        thoughts, then what `constraint` says, or calls of `tools`. None: any text will do.

        May be called on any thread. Raises ConstraintError and InvalidParameterError, see
        `chat.answer_grammar`.
        """
        choice = choice or ToolChoice()
        if constraint is None and not tools and choice.mode in ("auto", "none"):
            return None
        text = answer_grammar(
            self.answer_format, self.tokenizer, prompt=prompt_tail(self.tokenizer, prompt),
            constraint=constraint, tools=tools, choice=choice,
        )  # fmt: skip
        return None if text is None else self._grammars.compile(text)

    def chat_parser(
        self,
        prompt: Sequence[int],
        constraint: Constraint | None,
        tools: Sequence[Mapping[str, Any]] | None,
        *,
        calls: bool = True,
    ) -> OutputParser | None:
        """What takes the answer apart. Where it has a form and no calls, or `calls` are not wanted,
        nothing but a thought at its beginning is looked for: whatever else it holds is the
        answer."""
        answers = self.answer_format
        if not calls or (constraint is not None and not tools):
            answers = answers.thought_only()
        if answers.plain:
            return None
        return answers.parser(prompt_tail(self.tokenizer, prompt), tools=tools)

    def answer_parser(self, prompt: Sequence[int], **options: Any) -> OutputParser:
        """What takes an answer to these ids apart; options as of `OutputParser`."""
        return self.answer_format.parser(prompt_tail(self.tokenizer, prompt), **options)

    def thought_limit(self, prompt: Sequence[int], budget: int) -> ThoughtLimit:
        """A logits processor that ends the thought of an answer to these ids after `budget`
        tokens. Raises InvalidParameterError for a model that marks no thoughts."""
        tail = prompt_tail(self.tokenizer, prompt)
        return ThoughtLimit(self.answer_format, self.tokenizer, tail, budget)

    def chat_ids(
        self,
        messages: Sequence[Message],
        *,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **template_variables: Any,
    ) -> list[int]:
        """The token ids the model sees for a conversation, the opening of its answer included."""
        template = self.chat_template if tools is None else self._tool_template
        if template is None:
            raise TemplateError(
                f"{self.path}: the model has no chat template",
                hint="use generate (freehold run) to continue a text",
            )
        rendered = template.render(messages, tools=tools, **template_variables)
        return encode_chat(self.tokenizer, rendered)

    def _answer(
        self, prompts: list[list[int]], params: Params, stream: bool, *, single: bool,
        continues: bool, parsers: Sequence[OutputParser | None] | None = None,
        grammars: Sequence[Grammar | None], adapters: Sequence[Adapter | None],
    ) -> Any:  # fmt: skip
        """Run the prompts as one batch. `continues`: the text goes on from the prompt."""
        if stream and not single:
            raise InvalidParameterError("only a single prompt can be streamed")
        each = per_prompt(params, len(prompts))
        given = parsers or [None] * len(prompts)
        requests = [
            self.make_request(
                ids, settings, continues=continues or grammar is not None, parser=parser
            )
            for ids, settings, parser, grammar in zip(prompts, each, given, grammars, strict=True)
        ]
        self._start(requests, grammars, adapters)
        if stream:
            return EventStream(requests[0], self._step, self._drop)
        completions = [self._wait(request, requests) for request in requests]
        return completions[0] if single else completions

    def make_request(
        self,
        ids: Sequence[int],
        params: SamplingParams,
        *,
        continues: bool,
        parser: OutputParser | None = None,
    ) -> Request:
        """What turns the engine's answer to these ids into text; it is not queued.

        `continues`: the text goes on from the prompt. Raises TokenizerError for stop strings where
        there is no tokenizer.
        """
        if params.stop and self._tokenizer is None:
            raise TokenizerError(
                "stop strings need a tokenizer, and the model has none", hint="use stop_token_ids"
            )
        visible = frozenset[int]()
        if parser is not None:
            visible = self._visible_ids
        return Request(
            ids, params, self._tokenizer, continues=continues, parser=parser, visible=visible
        )

    def _start(
        self,
        requests: list[Request],
        grammars: Sequence[Grammar | None],
        adapters: Sequence[Adapter | None],
    ) -> None:
        """Hand all requests to the engine, or none when one of them is refused."""
        started: list[str] = []
        try:
            for request, grammar, adapter in zip(requests, grammars, adapters, strict=True):
                constraint = None if grammar is None else grammar.start()
                request_id = self.engine.add(
                    request.prompt, request.params, constraint=constraint, adapter=adapter
                )
                request.request_id = request_id
                self._requests[request_id] = request
                started.append(request_id)
        except BaseException:
            for request_id in started:
                self._drop(request_id)
            raise

    def _step(self) -> None:
        """One engine step; its outputs go to the requests they belong to, whoever asked."""
        for output in self.engine.step():
            request = self._requests.get(output.request_id)
            if request is None:
                continue
            request.take(output)
            if request.done:
                del self._requests[output.request_id]
            if request.stopped_by_text:
                self.engine.finish(output.request_id)

    def _wait(self, request: Request, batch: list[Request]) -> Completion:
        """Step until the request is over; a failure takes the rest of its batch with it."""
        try:
            while not request.done:
                self._step()
            return request.result()
        except BaseException:
            for other in batch:
                self._drop(other.request_id)
            raise

    def _drop(self, request_id: str) -> None:
        if self._requests.pop(request_id, None) is not None:
            self.engine.abort(request_id)

    # -- numbers -----------------------------------------------------------------------------

    def score(
        self, prompt: Prompt, continuation: Prompt | None = None, *, adapter: str | None = None
    ) -> FloatArray:
        """Natural log-likelihoods of tokens under the untouched distribution, float32.

        With a continuation, of its tokens, given the prompt and those before; without, of every
        prompt token after the first. Two texts are joined before they are split into tokens:
        where a token spans the border, it counts to the continuation.
        """
        ids = self.ids(prompt)
        first = 1
        if continuation is not None:
            if isinstance(prompt, str) and isinstance(continuation, str):
                joined = self.ids(prompt + continuation)
                first = common_prefix(ids, joined)
                ids = joined
            else:
                first = len(ids)
                ids = ids + self._continuation_ids(continuation)
        if first < 1 or first >= len(ids):
            raise InvalidParameterError("there is no token to score after the first")
        return self.engine.score(ids, first, adapter=self.adapter(adapter))

    def label_logprobs(
        self,
        prompt: Prompt,
        labels: Sequence[str],
        *,
        ends: bool = False,
        adapter: str | None = None,
    ) -> list[FloatArray]:
        """Log-likelihoods of each label's tokens as continuation of the prompt: float32 [tokens].

        All labels share the prompt's computation. With `ends`, one more number: the log-probability
        of the answer ending there. How labels are split into tokens: `_llm_labels`.
        """
        labels = checked_labels(labels)
        endings = self.endings() if ends else ()
        wanted = label_measurements(self.tokenizer, prompt, labels, endings)
        return self.engine.measure(wanted, adapter=self.adapter(adapter))

    def classify(
        self,
        prompts: Prompt | Sequence[Prompt],
        labels: Sequence[str],
        *,
        ends: bool = False,
        content_free: Sequence[Prompt] = (),
        normalization: Normalization = "none",
        temperature: float = 1.0,
        adapter: str | None = None,
    ) -> Any:
        """Probabilities of labels as continuations of a prompt (`Classification`), or of many
        prompts (a list). Nothing is decoded.

        `ends` asks for answers that are a label and then over: without it a label that begins
        another ("good", "good enough") has the better chances. `content_free` are the same prompts
        around no content, whose answers are taken out; `normalization` "tokens" divides by the
        number of tokens. What is computed: `_llm_labels`.
        """
        single = is_single(prompts)
        task = self.label_task(
            [prompts] if single else prompts, labels, ends=ends,  # type: ignore[list-item, arg-type]
            content_free=content_free, normalization=normalization, temperature=temperature,
        )  # fmt: skip
        numbers = self.engine.measure(task.measurements, adapter=self.adapter(adapter))
        found = task.results(numbers)
        return found[0] if single else found

    def label_task(
        self, prompts: Sequence[Prompt], labels: Sequence[str], *, ends: bool = False,
        content_free: Sequence[Prompt] = (), normalization: Normalization = "none",
        temperature: float = 1.0,
    ) -> LabelTask:  # fmt: skip
        """What `classify` asks of the engine, and how it reads the numbers."""
        labels = checked_labels(labels)
        endings = self.endings() if ends else ()
        wanted = [
            measurement
            for prompt in (*prompts, *content_free)
            for measurement in label_measurements(self.tokenizer, prompt, labels, endings)
        ]
        return LabelTask(labels, tuple(wanted), len(content_free), normalization, temperature)

    def endings(self) -> tuple[int, ...]:
        """Tokens that end an answer. Raises InvalidParameterError where the files name none."""
        size = self.config.vocab_size
        found = tuple(sorted(t for t in self.tokenizer.eos_ids if 0 <= t < size))
        if not found:
            raise InvalidParameterError("the model's files name no token that ends an answer")
        return found

    def answer_start(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation up to where the visible answer begins: where the template opens a
        thought, it is closed again at once. Raises TemplateError as `chat` does."""
        ids = self.chat_ids(messages, enable_thinking=False)
        style = self.answer_format.reasoning
        if style is not None and style.opened_by(prompt_tail(self.tokenizer, ids)):
            closing = f"{style.end}\n\n"
            ids += self.tokenizer.encode(closing, add_special=False, parse_special=True)
        return ids

    def embed(
        self, texts: Prompt | Sequence[Prompt], pooling: Pooling | None = None,
        *, normalize: bool = True, adapter: str | None = None,
    ) -> FloatArray:  # fmt: skip
        """Final hidden states of each text as one vector: float32 [n, hidden].

        Pooled as the mean over its tokens, or the last one's; None is what the model's files say
        (`pooling`). Of length 1 unless `normalize` is off. The vectors of a model that was not
        trained for it compare texts only roughly.
        """
        pooling = self.pooling if pooling is None else pooling
        if pooling not in ("mean", "last"):
            raise InvalidParameterError(f"pooling must be mean or last, not {pooling!r}")
        prompts: list[Any] = [texts] if is_single(texts) else list(texts)
        wanted = [Measurement(self.ids(prompt), pooling) for prompt in prompts]
        vectors = self.engine.measure(wanted, adapter=self.adapter(adapter))
        return stacked(vectors, self.config.hidden_size, normalize)

    def logits(self, ids: Sequence[int], *, adapter: str | None = None) -> FloatArray:
        """Logits after every token: float32 [tokens, vocab]. Needs no tokenizer."""
        return self.engine.logits(self.ids(ids), adapter=self.adapter(adapter))

    # -- life ----------------------------------------------------------------------------------

    def make_engine(self, **overrides: Any) -> Engine:
        """Another engine over the same weights, with a cache of its own.

        `overrides` replace fields of `EngineConfig`.
        """
        settings = {"context_length": self.context_length, **self._settings, **overrides}
        tokenizer = self._tokenizer
        return Engine(
            self.model,
            self.ops,
            EngineConfig(**settings),
            eos_token_ids=() if tokenizer is None else tokenizer.eos_ids,
            token_bytes=None if tokenizer is None else self.token_bytes,
            snapshots=self._snapshots,
        )

    def close(self) -> None:
        """Abort what runs, give the memory back and let go of the file. May be called twice."""
        for request_id in list(self._requests):
            self._drop(request_id)
        self._engine = self._model = None
        self._adapters.clear()
        if self._snapshots is not None:
            self._snapshots.close()
        self.checkpoint.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def ids(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt; text gets the begin token the tokenizer asks for.

        Raises InvalidParameterError for ids outside the vocabulary.
        """
        if isinstance(prompt, str):
            return self.tokenizer.encode(prompt)
        ids = [int(token) for token in prompt]
        if any(not 0 <= token < self.config.vocab_size for token in ids):
            bad = next(token for token in ids if not 0 <= token < self.config.vocab_size)
            raise InvalidParameterError(
                f"token id {bad} lies outside the vocabulary of {self.config.vocab_size}"
            )
        return ids

    def _continuation_ids(self, text: Prompt) -> list[int]:
        if isinstance(text, str):
            return self.tokenizer.encode(text, add_special=False)
        return self.ids(text)

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes of a token; rows of the embedding beyond the vocabulary stand for none."""
        tokenizer = self.tokenizer
        return tokenizer.token_bytes(token_id) if token_id < tokenizer.vocab_size else b""


def _open(part: _Part | None) -> _Part:
    if part is None:
        raise InvalidParameterError("the model was closed", hint="load it again with LLM(path)")
    return part
