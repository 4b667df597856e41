# SPDX-License-Identifier: Apache-2.0
"""`LLMAsker`: tasks ask a model that is loaded in this process.

Knows how a batch is shared by conversations that may fail one by one, and what tells one model from
another. What is asked is `tasks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from freehold._llm_label_rule import EXACT, Precision
from freehold._llm_label_trie import LabelTrie
from freehold._llm_search import search
from freehold.documents.asking import Forms, LabelScores, Reply, Usage, spread
from freehold.documents.model_digest import loaded_digest
from freehold.documents.prompts import Messages
from freehold.errors import ContextLengthError, FreeholdError, TemplateError, UserError
from freehold.types import Completion, Constraint, FinishReason, SamplingParams

if TYPE_CHECKING:
    from freehold.engine.structured import Grammar
    from freehold.llm import LLM


class LLMAsker:
    """Asks `llm`, under the loaded `adapter` of that name where there is one.

    Raises TemplateError for a model that cannot chat.
    """

    def __init__(self, llm: LLM, adapter: str | None = None) -> None:
        if not llm.has_chat_template:
            raise TemplateError(
                f"{llm.path}: the model has no chat template",
                hint="use a model tuned to follow orders",
            )
        self.llm = llm
        self.adapter = adapter

    @property
    def context_length(self) -> int:
        """Tokens of a conversation and its answer together."""
        return self.llm.context_length

    @cached_property
    def model_digest(self) -> str:
        """Tells the model, with its adapter, from every other; see `model_digest.py`."""
        return loaded_digest(self.llm, self.adapter)

    def count(self, messages: Messages) -> int:
        """Tokens of a rendered conversation, the opening of its answer included."""
        return len(self.llm.chat_ids(messages))

    def count_text(self, text: str) -> int:
        """Tokens of a text by itself."""
        return len(self.llm.tokenizer.encode(text, add_special=False))

    def chat(
        self,
        conversations: Sequence[Messages],
        *,
        max_tokens: int | Sequence[int],
        constraint: Forms = None,
    ) -> list[Reply]:
        """A greedy answer to each. One that does not fit the context fails before it is asked."""
        count = len(conversations)
        limits, forms = spread(count, max_tokens, constraint)
        replies: dict[int, Reply] = {}
        for i, messages in enumerate(conversations):
            error = self._refusal(messages)
            if error is not None:
                replies[i] = Reply(error=error)
        fitting = [i for i in range(count) if i not in replies]
        if fitting:
            replies.update(self._ask(fitting, conversations, limits, forms))
        return [replies[i] for i in range(count)]

    def search(
        self, conversations: Sequence[Messages], *, max_tokens: int,
        constraint: Sequence[Constraint], width: int,
    ) -> list[Reply]:  # fmt: skip
        """The likeliest answer of a form to each, as far as the `width` likeliest beginnings tell.
        Takes some `width` times as long as the greedy one."""
        replies: dict[int, Reply] = {}
        ready: dict[int, tuple[list[int], Grammar]] = {}
        for i, (messages, form) in enumerate(zip(conversations, constraint, strict=True)):
            try:
                ids = self.llm.answer_start(messages)
                grammar = self.llm.chat_grammar(ids, form)
            except UserError as error:
                replies[i] = Reply(error=error)
                continue
            if len(ids) + max_tokens > self.llm.engine.max_length or grammar is None:
                replies[i] = Reply(error=_too_long(len(ids) + max_tokens, self.context_length))
            else:
                ready[i] = ids, grammar
        found = search(
            self.llm.engine, [ids for ids, _ in ready.values()], [g for _, g in ready.values()],
            [max_tokens] * len(ready), self.llm.endings(), width, self.llm.adapter(self.adapter),
        )  # fmt: skip
        for (i, (ids, _)), result in zip(ready.items(), found, strict=True):
            usage = Usage(len(ids), result.cached_tokens, len(result.tokens), result.forced_tokens)
            text = b"".join(map(self.llm.token_bytes, result.tokens)).decode("utf-8", "replace")
            reason: FinishReason = "stop" if result.whole else "length"
            replies[i] = Reply(text, reason, usage, result.error)
        return [replies[i] for i in range(len(conversations))]

    def label_logprobs(
        self, conversations: Sequence[Messages], labels: Sequence[str],
        precision: Precision = EXACT,
    ) -> list[LabelScores]:  # fmt: skip
        """How likely each is answered with each of the labels; no token is decoded."""
        trie = LabelTrie.of(self.llm, labels)
        scores: dict[int, LabelScores] = {}
        prompts: dict[int, list[int]] = {}
        for i, messages in enumerate(conversations):
            try:
                ids = self.llm.answer_start(messages)
            except UserError as error:
                scores[i] = LabelScores(error=error)
                continue
            if len(ids) + trie.depth > self.llm.engine.max_length:
                scores[i] = LabelScores(error=_too_long(len(ids), self.context_length))
            else:
                prompts[i] = ids
        scores.update(self._scored(trie, prompts, precision))
        return [scores[i] for i in range(len(conversations))]

    def _scored(
        self, trie: LabelTrie, prompts: dict[int, list[int]], precision: Precision
    ) -> dict[int, LabelScores]:
        """Scores of all prompts together, or of each by itself where that fails."""
        try:
            found = trie.score(
                self.llm.engine, list(prompts.values()), self.llm.adapter(self.adapter),
                precision=precision,
            )  # fmt: skip
        except FreeholdError as error:
            if len(prompts) == 1:
                return dict.fromkeys(prompts, LabelScores(error=error))
            scores: dict[int, LabelScores] = {}
            for i, ids in prompts.items():
                scores.update(self._scored(trie, {i: ids}, precision))
            return scores
        return {
            i: LabelScores(result.logprobs, Usage(len(ids), result.cached_tokens))
            for (i, ids), result in zip(prompts.items(), found, strict=True)
        }

    def _refusal(self, messages: Messages) -> UserError | None:
        """Why a conversation cannot be sent, found before a batch is made with it."""
        try:
            needed = self.count(messages)
        except UserError as error:
            return error
        return _too_long(needed, self.context_length) if needed >= self.context_length else None

    def _ask(
        self, chosen: Sequence[int], conversations: Sequence[Messages], limits: Sequence[int],
        forms: Sequence[Constraint | None],
    ) -> dict[int, Reply]:  # fmt: skip
        """Replies of the chosen ones as one batch. Where the batch fails each is asked by itself,
        so that the one to blame is known by its error."""
        params = [SamplingParams(temperature=0.0, max_tokens=limits[i]) for i in chosen]
        try:
            done = self._complete(
                [conversations[i] for i in chosen], params, [forms[i] for i in chosen]
            )
        except FreeholdError as error:
            if len(chosen) == 1:
                return {chosen[0]: Reply(error=error)}
            replies: dict[int, Reply] = {}
            for i in chosen:
                replies.update(self._ask([i], conversations, limits, forms))
            return replies
        return {i: _reply(completion) for i, completion in zip(chosen, done, strict=True)}

    def _complete(
        self, conversations: Sequence[Messages], params: list[SamplingParams],
        forms: list[Constraint | None],
    ) -> list[Completion]:  # fmt: skip
        """Answers of the model as one batch."""
        done: list[Completion] = self.llm.chat(
            conversations, params, constraint=forms, adapter=self.adapter
        )
        return done


def _reply(completion: Completion) -> Reply:
    usage = Usage(
        len(completion.prompt_token_ids),
        completion.cached_tokens,
        len(completion.token_ids),
        completion.forced_tokens,
    )
    return Reply(completion.text, completion.finish_reason, usage)


def _too_long(needed: int, context: int) -> ContextLengthError:
    return ContextLengthError(
        f"{needed:,} tokens with the instruction, and the context holds {context:,}",
        hint="use a model with a longer context, or shorter documents",
    )
