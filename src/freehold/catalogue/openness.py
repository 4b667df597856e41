# SPDX-License-Identifier: Apache-2.0
"""How open a catalogued model is, and what its licences answer: its evidence put before
`freehold.licences`.

Knows which of the catalogue's words are which there. Judges nothing itself.
"""

from __future__ import annotations

from freehold.catalogue.member import Artefact, Member
from freehold.licences.openness import MOF_CLASSES, Evidence, Fact, Openness, openness_of
from freehold.licences.reader import licence
from freehold.licences.schema import Value

# Of several artefacts that make up one there, the least open counts, and of equally open ones that
# whose terms nobody knows.
_FROM_OPEN = ("open", "partial", "unknown", "closed")


def evidence_of(member: Member) -> Evidence:
    """The catalogue's evidence in the words of `licences.openness`."""
    verdicts = {each.framework: each.verdict for each in member.assessments}
    osaid, mof = verdicts.get("osaid"), verdicts.get("mof")
    return Evidence(
        weights=_fact(member, "weights"),
        data=_fact(member, "pretraining_data", "posttraining_data"),
        code=_fact(member, "training_code"),
        osaid="yes" if osaid == "yes" else "no" if osaid == "no" else "not assessed",
        mof=next((each for each in MOF_CLASSES if each == mof), None),
        index_words=verdicts.get("european-index", ""),
    )


def _fact(member: Member, *artefacts: Artefact) -> Fact:
    said = [member.evidence[artefact] for artefact in artefacts]
    worst = max(said, key=lambda each: (_FROM_OPEN.index(each.state), each.licence is None))
    return Fact(worst.state, worst.licence, worst.url, worst.checked, worst.note)


def openness(member: Member) -> Openness:
    """The four levels, each with its reason."""
    return openness_of(evidence_of(member), member.licence)


def answer(member: Member, question: str, wanted: Value) -> Value:
    """Whether every licence that binds `member` answers `question` as `wanted`: yes, no, or
    unknown where one of them is not known or does not say."""
    values = [licence(each)[question].value for each in member.licence]
    if any(value not in (wanted, "unknown") for value in values):
        return "no"
    return "unknown" if "unknown" in values or not values else "yes"
