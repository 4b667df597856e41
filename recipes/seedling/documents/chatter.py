# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501, SIM905 - tables of wordings read better unbroken
"""Sentences about nothing in particular, for training alone.

They bring in everyday words that no other sentence has, so that an unknown word in a document is
nothing unusual. None of them says anything that a question could ask for.
"""

from __future__ import annotations

from recipes.seedling.phrases import expand, fill
from recipes.seedling.values import Draw

_VERBS = """
blame settle reach refer serve prepare choose gather carry watch paint build clean borrow enjoy
mention forget discuss follow admire repeat prefer notice imagine consider explain describe improve
protect measure collect divide compare promise deserve handle avoid replace support receive arrange
observe finish decide share visit learn teach mix cut draw hold lift push pull turn open close read
""".split()
_NOUNS = """
weather garden morning evening river window kitchen corner picture mountain letter story season
summer winter colleague neighbour friend family brother sister teacher village bridge market forest
animal horse bird flower tree coffee bread dinner music film newspaper holiday train station road
traffic language question reason result moment minute century future history science culture habit
mistake chance matter detail example difference beginning ending middle surface shadow silence voice
""".split()
_ADJECTIVES = """
quiet early late warm cold bright dark empty full cheap rich poor kind gentle honest serious strange
common rare simple difficult perfect terrible pleasant busy calm tired hungry curious careful lazy
famous modern ancient local foreign public private narrow wide deep shallow smooth rough sweet bitter
""".split()
_ADVERBS = "often seldom always never again together slowly quickly carefully almost rather hardly mostly finally still somehow already everywhere outside inside upstairs tonight lately".split()
_FRAMES = (
    "[We|They|I|You] {verb} the {noun} {adverb}.", "[The|Our|My|Every] {noun} was {adverb} {adjective}.", "[It is|This was|That seems] a {adjective} {noun}[| for us| these days].", "[Nobody|Everybody|Somebody] [could|would|should|may|must] {verb} [a|the|our] {adjective} {noun}.",
    "[As|Because|Although|While|When] the {noun} is {adjective}, we {verb} {adverb}.", "[In|Behind|Under|Without|During|After|Over] the {adjective} {noun} [they|we|all of us] {verb}.", "[Both|Many|Several|Such|Few] {noun}s [are|were|have been] {adjective}.", "[Why|How] [would|should] [one|anyone] {verb} {adjective} {noun}s?",
    "[Which|What] {noun} [did|will|can] [they|you] {verb} {adverb}?", "[He|She|It] has {adverb} {verb}ed [another|each|any|its|his|her] {noun}.",
)  # fmt: skip


def chatter(draw: Draw) -> str:
    """One sentence."""
    rng = draw.rng
    words = {
        "verb": rng.choice(_VERBS),
        "noun": rng.choice(_NOUNS),
        "adjective": rng.choice(_ADJECTIVES),
        "adverb": rng.choice(_ADVERBS),
    }
    return fill(expand(rng, rng.choice(_FRAMES)), words)
