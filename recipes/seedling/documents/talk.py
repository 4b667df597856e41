# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - tables of wordings read better unbroken
"""Plain talk: greetings, questions about the model itself, and requests it cannot serve.

The answers are honest: seedling is a small demonstration model with four abilities.
"""

from __future__ import annotations

from dataclasses import dataclass

from recipes.seedling.phrases import Phrases, fill
from recipes.seedling.values import Draw

_WHAT = "I can classify documents, extract fields as JSON, summarise in one line and complete short Python functions."
_CANNOT = "I cannot do that. I am seedling, a small demonstration model: I can classify, extract, summarise and complete short Python functions."
_TOPICS = (
    "the weather",
    "a poem",
    "football",
    "history",
    "the news",
    "a joke",
    "cooking",
    "physics",
    "politics",
    "music",
    "a song",
    "the stars",
    "medicine",
    "love",
    "travel",
    "maths",
    "a film",
    "the stock market",
    "dogs",
    "philosophy",
)
_TOPICS_HELDOUT = ("the moon", "a story", "gardening", "chess", "religion", "cars")
_PLACES = ("France", "Japan", "Italy", "Spain", "Norway", "Brazil", "Kenya", "Canada", "India")
_PLACES_HELDOUT = ("Peru", "Greece", "Egypt")

TALK: dict[str, tuple[Phrases, str, tuple[str, ...]]] = {
    "hello": (
        Phrases(
            ("[hello|hi|hey|good morning|good evening|hi there|hello there|hey there|good day][|!|.]", "[Hello|Hi|Hey|Good morning|Good evening|Hi there|Good day][|!|.|, seedling|, how are you?]", "how are you[|?| today?]"),
            ("Good afternoon, seedling!", "hello you", "greetings"),
        ),
        "Hello! I am seedling, a small demonstration model. Give me a document.",
        ("seedling",),
    ),
    "who": (
        Phrases(
            ("[who|what] are you[|?]", "[Who|What] are you[|?]", "[what is|What is|what's] your name[|?]", "[are you|Are you] [a human|a robot|ChatGPT|an AI|a language model|intelligent][|?]", "[who made you|Who made you|where do you come from|tell me about yourself|Introduce yourself][|?|.]"),
            ("may I ask your name", "And who are you?", "Say who you are."),
        ),
        "I am seedling, a small demonstration model that comes with freehold. I read short business documents.",
        ("seedling",),
    ),
    "what": (
        Phrases(
            ("[what can you do|What can you do|what do you do|How can you help me|how do you work|help|Help|what are you good at|What are you for][|?| for me?]", "[What|what] [tasks|things] can you do?", "[Can|can] you help me[|?]"),
            ("Which tasks do you know?", "In what way can you help?", "What is it that you do?"),
        ),
        _WHAT,
        ("classify", "extract"),
    ),
    "thanks": (
        Phrases(("[thanks|thank you|Thanks|Thank you|great, thanks|ok thanks|well done|Good job][|!|.]", "[bye|goodbye|Bye|See you|good night][|!|.]"), ("many thanks to you", "good bye then")),
        "You are welcome.",
        ("welcome",),
    ),
    "cannot": (
        Phrases(
            ("[tell me|Tell me|talk|Talk] about {topic}[|.]", "[write|Write|give me|Give me] [me |][something|a text|an essay|ten lines] about {topic}[|.]", "[what|What] do you [think|know] about {topic}?", "[explain|Explain] {topic}[| to me|, please].", "[What|what] is the capital of {place}[|?]",
             "[How many people live|How is the weather|What time is it] in {place}?", "[translate|Translate] [this|it] into [French|German|Spanish][|.]", "[What|what] is {n} [plus|times|minus] {m}[|?]", "[Who|Where|When] [was|is] {name}[|?]", "[Book|book] a [flight|table|hotel][| for me].",
             "[Play|play|Sing|sing] [a song|some music].", "[Should I|Can I] [buy a house|marry|sell my car]?"),
            ("I want to hear something of {topic}.", "Please discuss {topic} with me.", "How big is {place}?", "Do you remember {name}?", "Order a pizza for me."),
        ),
        _CANNOT,
        ("cannot", "seedling"),
    ),
    "no document": (
        Phrases(
            ("[Summarise|Summarize] [the document|this] [in one line|].", "Extract as JSON: [total|due_date|name, total|invoice_number].", "Classify the document.", "[classify|summarise|summarize|extract|read] [this|it|my document][|.]", "Can you [read|classify|summarise] a document[|?]"),
            ("Read my text.", "Would you summarise something for me?"),
        ),
        "Please put the document under your question.",
        ("document",),
    ),
}  # fmt: skip
_SHARES = {"hello": 2, "who": 2, "what": 2, "thanks": 1, "cannot": 4, "no document": 1}


@dataclass(frozen=True)
class Talk:
    """A remark, the answer to it, and the words that an answer must have."""

    said: str
    answer: str
    words: tuple[str, ...]


def talk(draw: Draw) -> Talk:
    """One remark and its answer."""
    rng = draw.rng
    which = rng.choices(tuple(_SHARES), weights=tuple(_SHARES.values()))[0]
    phrases, answer, words = TALK[which]
    slots = {
        "topic": draw.text_of(_TOPICS, _TOPICS_HELDOUT) if draw.chance(0.6) else draw.word(2, 3),
        "place": draw.text_of(_PLACES, _PLACES_HELDOUT),
        "name": draw.person(),
        "n": str(draw.number(1, 999)),
        "m": str(draw.number(1, 999)),
    }
    return Talk(fill(phrases.pick(rng, draw.split), slots), answer, words)
