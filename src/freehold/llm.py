# SPDX-License-Identifier: Apache-2.0
"""`LLM`: a model as a Python object. Text or token ids in, completions out.

The face of what the `_llm_*` modules do: `_llm_parts` opens file, backend, model, engine and
tokenizer, `_llm_chat` knows conversations and `_llm_running` the requests under way. It decides
nothing about numbers and owns no generation loop.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, overload

from freehold._llm_adapters import AdapterNames
from freehold._llm_advice import recommended_pooling, recommended_sampling
from freehold._llm_chat import Conversations
from freehold._llm_inputs import Constraints, Params, is_single, stacked
from freehold._llm_labels import LabelTask, Normalization, label_task, labels_after
from freehold._llm_parts import Parts, Wanted
from freehold._llm_request import EventStream, Request
from freehold._llm_running import Running
from freehold.chat.answer_format import AnswerFormat
from freehold.chat.fill_in import FillIn, load_fill_in
from freehold.chat.output_parser import OutputParser
from freehold.chat.template import ChatTemplate
from freehold.chat.thought_limit import ThoughtLimit
from freehold.chat.tokenizer import Tokenizer
from freehold.engine.engine import Engine
from freehold.engine.kv_snapshot import DEFAULT_SNAPSHOT_BYTES
from freehold.engine.measuring import Pooling
from freehold.engine.structured import Grammar
from freehold.models.adapters import Adapter
from freehold.models.base import CausalLM
from freehold.ops import FloatArray, KVDtype
from freehold.types import Completion, Constraint, Message, Prompt, SamplingParams, ToolChoice


class LLM:
    """A loaded model. Close it, or use it as a context manager.

    Not thread-safe: one thread at a time may call its methods. Several streams may be open at
    once and share every step.
    """

    def __init__(
        self, model: str | Path, *, backend: str = "cpu", threads: int | None = None,
        isa: str | None = None, context_length: int | None = None, kv_dtype: KVDtype = "f16",
        max_num_seqs: int = 64, max_num_batched_tokens: int = 512, prefix_caching: bool = True,
        speculative_tokens: int = 0, forced_tokens: bool = True,
        kv_memory_bytes: int | None = None, skip_tokenizer_init: bool = False,
        pre: str | None = None, progress: Callable[[int, int], None] | None = None,
        snapshot_dir: str | Path | None = None, snapshot_bytes: int = DEFAULT_SNAPSHOT_BYTES,
        adapters: Mapping[str, str | Path] | None = None, policy_override: str | None = None,
        ignore_memory: bool = False,
    ) -> None:  # fmt: skip
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
        self._parts = parts = Parts(
            Wanted(
                model=model, backend=backend, threads=threads, isa=isa,
                context_length=context_length, kv_dtype=kv_dtype, max_num_seqs=max_num_seqs,
                max_num_batched_tokens=max_num_batched_tokens, prefix_caching=prefix_caching,
                speculative_tokens=speculative_tokens, forced_tokens=forced_tokens,
                kv_memory_bytes=kv_memory_bytes, skip_tokenizer_init=skip_tokenizer_init, pre=pre,
                progress=progress, snapshot_dir=snapshot_dir, snapshot_bytes=snapshot_bytes,
                adapters=adapters or {}, policy_override=policy_override,
                ignore_memory=ignore_memory,
            )
        )  # fmt: skip
        self.path, self.notices, self.checkpoint = parts.path, parts.notices, parts.checkpoint
        self.ops, self.config, self.context_length = parts.ops, parts.config, parts.context_length
        self._tokens = parts.tokens
        self._conversations = Conversations(parts)
        self._running = Running(parts, self._conversations)

    # -- what it is --------------------------------------------------------------------------

    @property
    def model(self) -> CausalLM:
        """The loaded model. Raises InvalidParameterError once closed."""
        return self._parts.model

    @property
    def engine(self) -> Engine:
        """The engine that every method of this object shares."""
        return self._parts.engine

    @property
    def tokenizer(self) -> Tokenizer:
        """Text to ids and back. Raises TokenizerError when the model came without one."""
        return self._tokens.tokenizer

    @property
    def chat_template(self) -> ChatTemplate | None:
        """The model's chat template, or None."""
        return self._conversations.template

    @property
    def answer_format(self) -> AnswerFormat:
        """How the model writes reasoning and tool calls, as far as its files tell."""
        return self._conversations.answer_format

    @cached_property
    def fill_in(self) -> FillIn | None:
        """The marks for what stands between two texts; None where the model has none."""
        return load_fill_in(self.checkpoint.metadata, self.tokenizer)

    @property
    def has_chat_template(self) -> bool:
        """Whether `chat` can work."""
        return self._tokens.known is not None and self.chat_template is not None

    @cached_property
    def recommended_sampling(self) -> dict[str, float | int]:
        """The vendor's sampling settings by `SamplingParams` field; never applied by itself."""
        return recommended_sampling(self.checkpoint)

    @cached_property
    def pooling(self) -> Pooling:
        """How the model's files want hidden states made one vector; the mean by default."""
        return recommended_pooling(self.checkpoint)

    def token_text(self, token_id: int) -> str:
        """What a token looks like in print: its text, or ``<id>`` without a tokenizer."""
        return self._tokens.text(token_id)

    def context_is_full(self, completion: Completion) -> bool:
        """Whether an answer ended because its sequence reached `context_length`."""
        used = len(completion.prompt_token_ids) + len(completion.token_ids)
        return completion.finish_reason == "length" and used >= self.context_length

    @property
    def nbytes(self) -> int:
        """Bytes that the weights, the adapters and the cache take."""
        return self._parts.nbytes

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the loaded adapters."""
        return self._parts.adapters.names

    def load_adapter(self, name: str, path: str | Path) -> None:
        """Load a low-rank adapter (LoRA): a PEFT directory or a GGUF file, for requests that ask
        for it by `name`. Requests under different adapters share every step.

        Raises InvalidParameterError for a name that is taken, and a UserError that names what is
        wrong with the file or what of it freehold does not do."""
        self._parts.adapters.load(name, path, self.model, self.ops)

    def unload_adapter(self, name: str) -> None:
        """Take an adapter away; requests that run under it end as they began."""
        self._parts.adapters.unload(name)

    def adapter(self, name: str | None) -> Adapter | None:
        """The loaded adapter of a name, as the engine takes it; None for None. Raises
        InvalidParameterError."""
        return self._parts.adapters.find(name)

    # -- text and tokens ---------------------------------------------------------------------

    @overload  # a str is a sequence of str too; the first match wins
    def generate(  # type: ignore[overload-overlap]
        self, prompts: Prompt, params: SamplingParams | None = ..., *, stream: Literal[False] = ...,
        constraint: Constraint | None = ..., adapter: str | None = ...,
    ) -> Completion: ...  # fmt: skip
    @overload
    def generate(
        self, prompts: Prompt, params: SamplingParams | None = ..., *, stream: Literal[True],
        constraint: Constraint | None = ..., adapter: str | None = ...,
    ) -> EventStream: ...  # fmt: skip
    @overload
    def generate(
        self, prompts: Sequence[Prompt], params: Params = ..., *, stream: Literal[False] = ...,
        constraint: Constraints = ..., adapter: AdapterNames = ...,
    ) -> list[Completion]: ...  # fmt: skip

    def generate(
        self, prompts: Any, params: Params = None, *, stream: bool = False,
        constraint: Constraints = None, adapter: AdapterNames = None,
    ) -> Any:  # fmt: skip
        """Continue one prompt, or many as one batch.

        A prompt is text, to which the tokenizer adds its begin token, or token ids, which are
        taken as they are. `params` is one for all, or one per prompt. With `stream`, a single
        prompt gives events whose texts join to the whole; the last carries the completion.
        Completions come back in the order of the prompts. `constraint` is the form of the answers,
        one for all or one per prompt; ConstraintError where it cannot be kept. `adapter` names the
        loaded adapter to answer under, again one for all or one per prompt.
        """
        batch = self._conversations.texts(prompts, constraint)
        return self._running.answer(batch, params, adapter, stream=stream)

    def chat(
        self, messages: Sequence[Message] | Sequence[Sequence[Message]], params: Params = None, *,
        tools: Sequence[Mapping[str, Any]] | None = None, tool_choice: ToolChoice | None = None,
        parse: bool | None = None, stream: bool = False, constraint: Constraints = None,
        adapter: AdapterNames = None, **template_variables: Any,
    ) -> Any:  # fmt: skip
        """Answer a conversation (`Completion`, or events with `stream`), or a list of them.

        The model's own template turns messages into a prompt; with `tools`, its template for
        tools where it has one. `parse` takes answers apart into text, reasoning and tool calls;
        None does so when there are tools or constraints. `constraint` is the form of the visible
        answer, after any reasoning. `tool_choice` says whether tools may, must or must not be
        called. `adapter` names the loaded adapter to answer under, one for all or one for each.

        Raises TemplateError when the model has no template, ConstraintError for a form that cannot
        be kept.
        """
        batch = self._conversations.asked(
            messages, tools=tools, choice=tool_choice or ToolChoice(), parse=parse,
            constraint=constraint, variables=template_variables,
        )  # fmt: skip
        return self._running.answer(batch, params, adapter, stream=stream)

    def text_grammar(self, constraint: Constraint | None) -> Grammar | None:
        """The compiled form of an answer that continues a text."""
        return self._conversations.text_grammar(constraint)

    def chat_grammar(
        self, prompt: Sequence[int], constraint: Constraint | None, *,
        tools: Sequence[Mapping[str, Any]] = (), choice: ToolChoice | None = None,
    ) -> Grammar | None:  # fmt: skip
        """The compiled form of an answer to a rendered conversation: a thought where the model has
        thoughts, then what `constraint` says, or calls of `tools`. None: any text will do.

        May be called on any thread. Raises ConstraintError and InvalidParameterError, see
        `chat.answer_grammar`.
        """
        return self._conversations.grammar(prompt, constraint, tools, choice or ToolChoice())

    def chat_parser(
        self, prompt: Sequence[int], constraint: Constraint | None,
        tools: Sequence[Mapping[str, Any]] | None, *, calls: bool = True,
    ) -> OutputParser | None:  # fmt: skip
        """What takes the answer apart. Where it has a form and no calls, or `calls` are not wanted,
        nothing but a thought at its beginning is looked for: whatever else it holds is the
        answer."""
        return self._conversations.parser(prompt, constraint, tools, calls=calls)

    def answer_parser(self, prompt: Sequence[int], **options: Any) -> OutputParser:
        """What takes an answer to these ids apart; options as of `OutputParser`."""
        return self._conversations.parser_of(prompt, **options)

    def thought_limit(self, prompt: Sequence[int], budget: int) -> ThoughtLimit:
        """A logits processor that ends the thought of an answer to these ids after `budget`
        tokens. Raises InvalidParameterError for a model that marks no thoughts."""
        return self._conversations.thought_limit(prompt, budget)

    def chat_ids(
        self, messages: Sequence[Message], *, tools: Sequence[Mapping[str, Any]] | None = None,
        **template_variables: Any,
    ) -> list[int]:  # fmt: skip
        """The token ids the model sees for a conversation, the opening of its answer included."""
        return self._conversations.ids(messages, tools, template_variables)

    def make_request(
        self, ids: Sequence[int], params: SamplingParams, *, continues: bool,
        parser: OutputParser | None = None,
    ) -> Request:  # fmt: skip
        """What turns the engine's answer to these ids into text; it is not queued. `continues`: the
        text goes on from the prompt. Raises TokenizerError for stop strings where there is no
        tokenizer."""
        return self._running.make_request(ids, params, continues, parser)

    # -- numbers -----------------------------------------------------------------------------

    def score(
        self, prompt: Prompt, continuation: Prompt | None = None, *, adapter: str | None = None
    ) -> FloatArray:
        """Natural log-likelihoods of tokens under the untouched distribution, float32.

        With a continuation, of its tokens, given the prompt and those before; without, of every
        prompt token after the first. Two texts are joined before they are split into tokens:
        where a token spans the border, it counts to the continuation.
        """
        ids, first = self._tokens.to_score(prompt, continuation)
        return self.engine.score(ids, first, adapter=self.adapter(adapter))

    def label_logprobs(
        self, prompt: Prompt, labels: Sequence[str], *, ends: bool = False,
        adapter: str | None = None,
    ) -> list[FloatArray]:  # fmt: skip
        """Log-likelihoods of each label's tokens as continuation of the prompt: float32 [tokens].

        All labels share the prompt's computation. With `ends`, one more number: the log-probability
        of the answer ending there. How labels are split into tokens: `_llm_labels`.
        """
        wanted = labels_after(self._tokens, prompt, labels, ends=ends)
        return self.engine.measure(wanted, adapter=self.adapter(adapter))

    def classify(
        self, prompts: Prompt | Sequence[Prompt], labels: Sequence[str], *, ends: bool = False,
        content_free: Sequence[Prompt] = (), normalization: Normalization = "none",
        temperature: float = 1.0, adapter: str | None = None,
    ) -> Any:  # fmt: skip
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
        found = task.results(self.engine.measure(task.measurements, adapter=self.adapter(adapter)))
        return found[0] if single else found

    def label_task(
        self, prompts: Sequence[Prompt], labels: Sequence[str], *, ends: bool = False,
        content_free: Sequence[Prompt] = (), normalization: Normalization = "none",
        temperature: float = 1.0,
    ) -> LabelTask:  # fmt: skip
        """What `classify` asks of the engine, and how it reads the numbers."""
        return label_task(
            self._tokens, prompts, labels, ends=ends, content_free=content_free,
            normalization=normalization, temperature=temperature,
        )  # fmt: skip

    def endings(self) -> tuple[int, ...]:
        """Tokens that end an answer. Raises InvalidParameterError where the files name none."""
        return self._tokens.endings()

    def answer_start(self, messages: Sequence[Message]) -> list[int]:
        """Ids of a conversation up to where the visible answer begins: where the template opens a
        thought, it is closed again at once. Raises TemplateError as `chat` does."""
        return self._conversations.answer_start(messages)

    def embed(
        self, texts: Prompt | Sequence[Prompt], pooling: Pooling | None = None,
        *, normalize: bool = True, adapter: str | None = None,
    ) -> FloatArray:  # fmt: skip
        """Final hidden states of each text as one vector: float32 [n, hidden].

        Pooled as the mean over its tokens, or the last one's; None is what the model's files say
        (`pooling`). Of length 1 unless `normalize` is off. The vectors of a model that was not
        trained for it compare texts only roughly.
        """
        wanted = self._tokens.to_pool(texts, self.pooling if pooling is None else pooling)
        vectors = self.engine.measure(wanted, adapter=self.adapter(adapter))
        return stacked(vectors, self.config.hidden_size, normalize)

    def logits(self, ids: Sequence[int], *, adapter: str | None = None) -> FloatArray:
        """Logits after every token: float32 [tokens, vocab]. Needs no tokenizer."""
        return self.engine.logits(self.ids(ids), adapter=self.adapter(adapter))

    # -- life ----------------------------------------------------------------------------------

    def make_engine(self, **overrides: Any) -> Engine:
        """Another engine over the same weights, with a cache of its own. `overrides` replace
        fields of `EngineConfig`."""
        return self._parts.make_engine(**overrides)

    def close(self) -> None:
        """Abort what runs, give the memory back and let go of the file. May be called twice."""
        self._running.drop_all()
        self._parts.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def ids(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt; text gets the begin token the tokenizer asks for. Raises
        InvalidParameterError for ids outside the vocabulary."""
        return self._tokens.ids(prompt)

    def token_bytes(self, token_id: int) -> bytes:
        """Bytes of a token; rows of the embedding beyond the vocabulary stand for none."""
        return self._tokens.bytes_of(token_id)
