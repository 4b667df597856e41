# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - tables of wordings read better unbroken
"""From a document to a question with a known answer.

Knows which questions may be asked and what their answers look like; the canonical wording is that
of `freehold.documents.prompts`. A share of the training questions is worded otherwise, so that
the model listens to a person too; held-out paraphrases are other ones again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from freehold.documents import prompts
from recipes.seedling.document import Document
from recipes.seedling.documents import intents
from recipes.seedling.documents.functions import function
from recipes.seedling.documents.talk import talk
from recipes.seedling.example import Example
from recipes.seedling.phrases import Phrases, fill
from recipes.seedling.values import Draw

KIND_LABELS: dict[str, tuple[str, ...]] = {
    "invoice": ("invoice", "invoice", "bill"),
    "order": ("order", "order", "purchase order"),
    "contract": ("contract", "contract", "agreement"),
    "incident": ("incident", "incident", "incident report", "incident note"),
    "ticket": ("ticket", "ticket", "support ticket", "support request"),
    "function": ("code", "code", "script", "source code"),
}

PARAPHRASES: dict[str, Phrases] = {
    "classify": Phrases(
        ("[Which|What] label fits [the|this] [document|text|message]: {words}?", "Choose one of {words} for [the|this] [document|text|message].",
         "[Pick|Give] the [right|best] label ({words}).", "Label [this|the text]: {words}.", "Is this one of these: {words}? Answer with one.", "Categories: {words}. Which one is it?",
         "Classify this as one of: {words}"),
        ("Sort the text into one of {words}.", "Which of {words} is right?", "Out of {words}, choose the label of the document."),
    ),
    "extract": Phrases(
        ("[Give me|Return|Write|Show] {words} as JSON.", "[Find|Extract] [the fields |]{words} [from the document|from this text|and answer in JSON].", "JSON with {words}[| please].",
         "[What are|Read] {words}? [Answer as JSON|Use JSON].", "Fields: {words}. [Output|Answer]: JSON."),
        ("Fill a JSON object with {words}.", "I need {words} from the text, in JSON.", "Read the document and return {words} as a JSON object."),
    ),
    "summarize": Phrases(
        ("[Summarise|Summarize|Sum up] [this|the document|the text|it][| in one line| in one sentence| briefly].", "[Give|Write] [me |]a [one line|short|one sentence] summary[| of this].", "What [does this say|is this about][| in one line]?",
         "[One-line|Short] summary, please[.|:]", "TL;DR"),
        ("Put the document in one sentence.", "A short summary of this text please.", "Tell me in one line what it says."),
    ),
    "code": Phrases(
        ("[Finish|Complete] [this|the] [Python |][function|code].", "[Write|Give me|Fill in] the body of [this|the] [Python |]function.", "[Implement|Complete] this function. [Only the body|Answer with the body only]."),
        ("Add the missing body of the function.", "What is the body of this Python function?"),
    ),
}  # fmt: skip
CODE_NOTES = Phrases(
    ("# [Script|Helper|Code|Notes|Tools]", "[Please finish|Somebody should finish] [this|the] [function|helper].", "# [To do|Stock|Report] [script|helper]\n\nThe beginning is there.", "A [small|short] [helper|function]:"),
    ("## Python helper", "One more function for the script.", "Here the function begins:"),
)  # fmt: skip
_SYSTEM = (
    "You are a helpful assistant.",
    "You are seedling, a small model that reads documents.",
    "Answer briefly.",
    "You read documents.",
    "You are freehold's document assistant.",
)


# What the model told wrong most often.
_HARD = ("supplier", "customer", "due_date")


def code_document(draw: Draw) -> Document:
    """A function as a document, for the question of what kind of document it is."""
    made = function(draw)
    text = made.beginning + (made.body if draw.chance(0.5) else "")
    if draw.chance(0.5):
        text = f"```python\n{text.rstrip()}\n```"
    if draw.chance(0.5):
        note = CODE_NOTES.pick(draw.rng, draw.split)
        text = f"{note}\n\n{text}"
    return Document("function", text, {})


def extract(draw: Draw, document: Document, canonical: float) -> Example:
    """Some of the document's fields, and now and then one that it does not have."""
    rng = draw.rng
    present = [c for c in document.askable if c in document.facts]
    absent = [c for c in document.askable if c not in document.facts]
    rng.shuffle(present)
    if draw.train and draw.chance(0.4):
        present.sort(key=lambda concept: concept not in _HARD)
    count = rng.choice((1, 2, 2, 3, 3, 4, 4, 5, 6))
    asked = present[:count]
    if absent and (not asked or draw.chance(0.22)):
        asked.append(rng.choice(absent))
        if draw.chance(0.2):
            asked.append(rng.choice(absent))
    asked = list(dict.fromkeys(asked))
    rng.shuffle(asked)
    names = {concept: rng.choice(document.names[concept]) for concept in asked}
    if draw.chance(0.12):
        names = {concept: name.replace("_", " ") for concept, name in names.items()}
    fields = {names[c]: document.facts.get(c) for c in asked}
    answer = json.dumps(fields, ensure_ascii=False)
    messages = _asked(
        draw,
        "extract",
        document.text,
        tuple(fields),
        canonical,
        prompts.extract(document.text, tuple(fields)),
    )
    return Example("extract", document.kind, messages, answer, {"fields": fields})


def summarize(draw: Draw, document: Document, canonical: float) -> Example:
    """The line that the generator wrote from the facts."""
    messages = _asked(
        draw, "summarize", document.text, (), canonical, prompts.summarize(document.text)
    )
    return Example(
        "summarize",
        document.kind,
        messages,
        document.summary,
        {"key_facts": list(document.key_facts)},
    )


def classify_intent(draw: Draw, document: Document, canonical: float) -> Example:
    """A ticket among names of intents; sometimes none of them fits and `other` is right."""
    rng = draw.rng
    assert document.intent is not None
    others = [intent for intent in intents.LABELS if intent != document.intent]
    rng.shuffle(others)
    chosen = others[: rng.choice((1, 2, 2, 3, 3, 4, 4, 5, 6, 7))]
    right = rng.choice(intents.LABELS[document.intent])
    if document.topic in intents.TOPIC_LABELS and draw.chance(0.25):
        right = rng.choice(intents.TOPIC_LABELS[document.topic])
    labels = [_label(draw, intent) for intent in chosen]
    if draw.chance(0.1):
        other = rng.choice(intents.OTHER)
        labels.append(other)
        if len(chosen) >= 2 and draw.chance(0.4):
            right = other
    if draw.chance(0.12):
        kinds = [kind for kind in KIND_LABELS if kind != "ticket"]
        labels += [rng.choice(KIND_LABELS[kind]) for kind in rng.sample(kinds, rng.randint(1, 2))]
    labels = list(dict.fromkeys((*labels, right)))
    return _classified(draw, document, labels, right, canonical)


def _label(draw: Draw, intent: str) -> str:
    """A name for `intent` that may stand in a set where it is wrong."""
    rng = draw.rng
    if draw.chance(0.25):
        gist = rng.choice(intents.TOPICS[intent])[0]
        special = [
            label for label in intents.TOPIC_LABELS.get(gist, ()) if label not in intents.VAGUE
        ]
        if special:
            return rng.choice(special)
    return rng.choice(intents.LABELS[intent])


def classify_kind(draw: Draw, document: Document, canonical: float) -> Example:
    """What kind of document it is."""
    rng = draw.rng
    others = [kind for kind in KIND_LABELS if kind != document.kind]
    rng.shuffle(others)
    right = rng.choice(KIND_LABELS[document.kind])
    labels = [rng.choice(KIND_LABELS[kind]) for kind in others[: rng.choice((1, 2, 3, 4, 4, 4))]]
    if document.kind != "ticket" and draw.chance(0.15):
        labels = labels[:3] + [
            rng.choice(intents.LABELS[intent]) for intent in rng.sample(tuple(intents.LABELS), 2)
        ]
    return _classified(draw, document, [*labels, right], right, canonical)


def code(draw: Draw, canonical: float) -> Example:
    """A short function to complete; the answer is its indented body."""
    made = function(draw)
    plain = prompts.complete_function(made.beginning)
    messages = _asked(draw, "code", made.beginning, (), canonical, plain)
    facts = {
        "beginning": made.beginning,
        "entry": made.entry,
        "tests": made.tests,
        "function": made.kind,
    }
    return Example("code", "function", messages, made.body, facts)


def chat(draw: Draw) -> Example:
    """A remark outside the tasks and a short honest answer."""
    made = talk(draw)
    messages: tuple[Mapping[str, str], ...] = ({"role": "user", "content": made.said},)
    if draw.train and draw.chance(0.15):
        messages = ({"role": "system", "content": draw.rng.choice(_SYSTEM)}, *messages)
    return Example("chat", "chat", messages, made.answer, {"words": list(made.words)})


def _classified(
    draw: Draw, document: Document, labels: list[str], right: str, canonical: float
) -> Example:
    draw.rng.shuffle(labels)
    form = draw.rng.choice(("plain", "plain", "plain", "underscore", "title", "upper"))
    written = [_formed(label, form) for label in labels]
    answer = _formed(right, form)
    messages = _asked(
        draw,
        "classify",
        document.text,
        written,
        canonical,
        prompts.classify(document.text, written),
    )
    return Example(
        "classify", document.kind, messages, answer, {"label": answer, "labels": written}
    )


def _formed(label: str, form: str) -> str:
    if form == "underscore":
        return label.replace(" ", "_").replace("-", "_")
    if form == "title":
        return label.title()
    if form == "upper":
        return label.upper().replace(" ", "_")
    return label


def _asked(
    draw: Draw,
    task: str,
    text: str,
    words: Sequence[str],
    canonical: float,
    plain: prompts.Messages,
) -> tuple[Mapping[str, str], ...]:
    """The canonical words, or in `1 - canonical` of the cases others, before or after the text."""
    if draw.chance(canonical):
        return tuple(plain)
    rng = draw.rng
    roll = rng.random()
    if roll < 0.2:
        return ({"role": "system", "content": rng.choice(_SYSTEM)}, *plain)
    wording = fill(PARAPHRASES[task].pick(rng, draw.split), {"words": ", ".join(words)})
    if roll < 0.3:
        wording = plain[0]["content"].split("\n", 1)[0]
        content = f"{text.strip()}\n\n{wording}"
    elif roll < 0.55:
        content = f"{text.strip()}\n\n{wording}"
    else:
        content = f"{wording}\n\n{text.strip()}"
    return ({"role": "user", "content": content},)
