# SPDX-License-Identifier: Apache-2.0
"""What a house allows: the policy file, and whether a model is within it.

    version = 1
    allow = ["osi", "llama3.2"]     # ids of licences, or classes: see CLASSES; absent: all
    deny = ["llama2"]               # wins over `allow`
    openness = "weights"            # the least: weights, data, code or full
    families = ["qwen*", "olmo*"]   # patterns; absent: all
    deny_families = ["deepseek*"]
    unknown = "block"               # a licence nobody has read: block (default) or allow
    claims = "allow"                # an uploader's word alone: allow (default) or block
    actions = ["pull", "load", "serve"]
    overrides = "allow"             # may somebody go past it, with a reason that is written down?

Knows the file's format and the rules; not where the file lies, nor who asks.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, get_args

from freehold.errors import InvalidParameterError
from freehold.licences.openness import LEVELS, Level, Openness
from freehold.licences.reader import UNKNOWN, licence, licences
from freehold.licences.schema import Licence

Action = Literal["pull", "load", "serve"]
ACTIONS: tuple[Action, ...] = get_args(Action)
_FIELDS = frozenset(
    ("version", "allow", "deny", "openness", "families", "deny_families", "unknown", "claims",
     "actions", "overrides")
)  # fmt: skip


def _yes(question: str) -> Callable[[Licence], bool]:
    return lambda each: each[question].value == "yes"


def _no(question: str) -> Callable[[Licence], bool]:
    return lambda each: each[question].value == "no"


# A licence is in a class when its text is known to fulfil it; unknown is never enough.
CLASSES: Mapping[str, Callable[[Licence], bool]] = {
    "osi": _yes("osi_approved"),
    "permissive": lambda each: each.category == "permissive",
    "commercial": _yes("commercial_use"),
    "no-user-limit": _no("user_limit"),
    "no-revenue-limit": _no("revenue_limit"),
    "no-use-restrictions": _no("use_restrictions"),
    "no-territory-limit": _no("territory_excluded"),
    "no-remote-restriction": _no("remote_restriction"),
    "outputs-free": lambda each: (
        each["train_on_outputs"].value == "yes" and each["train_on_outputs"].rule is None
    ),
}


def in_class(name: str, each: Licence) -> bool:
    """Whether a licence is of a class, or is the one that is named."""
    return CLASSES[name](each) if name in CLASSES else each.id == name


@dataclass(frozen=True, slots=True)
class Policy:
    """A house's rules. What is None is not asked about."""

    allow: tuple[str, ...] | None = None
    deny: tuple[str, ...] = ()
    openness: Level | None = None
    families: tuple[str, ...] | None = None
    deny_families: tuple[str, ...] = ()
    unknown: Literal["block", "allow"] = "block"
    claims: Literal["block", "allow"] = "allow"
    actions: tuple[Action, ...] = ACTIONS
    overrides: Literal["allow", "forbid"] = "allow"


@dataclass(frozen=True, slots=True)
class Breach:
    """One rule a model breaks."""

    code: str  # for machines: "licence-not-allowed", "licence-unknown", …
    sentence: str
    rule: str  # the field of the policy file
    licence: str | None = None


def read_policy(text: str, where: str) -> Policy:
    """The policy a file holds. Raises InvalidParameterError, naming the field: a policy that cannot
    be read allows nothing."""
    try:
        raw = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InvalidParameterError(f"{where}: not a TOML file: {error}") from None
    if extra := raw.keys() - _FIELDS:
        raise InvalidParameterError(
            f"{where}: {', '.join(sorted(extra))!s:.200} is no rule of a policy",
            hint=f"there are: {', '.join(sorted(_FIELDS))}",
        )
    if raw.get("version", 1) != 1:
        raise InvalidParameterError(f"{where}: version must be 1")
    known = {*CLASSES, *licences(), UNKNOWN}
    return Policy(
        allow=_names(raw, "allow", where, known),
        deny=_names(raw, "deny", where, known) or (),
        openness=_choice(raw, "openness", where, LEVELS, None),
        families=_names(raw, "families", where, None),
        deny_families=_names(raw, "deny_families", where, None) or (),
        unknown=_choice(raw, "unknown", where, ("block", "allow"), "block"),
        claims=_choice(raw, "claims", where, ("block", "allow"), "allow"),
        actions=_names(raw, "actions", where, set(ACTIONS)) or ACTIONS,  # type: ignore[arg-type]
        overrides=_choice(raw, "overrides", where, ("allow", "forbid"), "allow"),
    )


def _names(
    raw: Mapping[str, Any], field: str, where: str, known: set[str] | None
) -> tuple[str, ...] | None:
    value = raw.get(field)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise InvalidParameterError(f"{where}: {field} must be a list of words")
    for each in value:
        if known is not None and each not in known:
            raise InvalidParameterError(
                f"{where}: {field} names {each!r:.80}, which is neither a class nor a licence",
                hint=f"classes: {', '.join(CLASSES)}; `freehold licence --list` shows licences",
            )
    return tuple(value)


def _choice(
    raw: Mapping[str, Any], field: str, where: str, known: Sequence[Any], default: Any
) -> Any:
    value = raw.get(field, default)
    if value is not None and value not in known:
        raise InvalidParameterError(
            f"{where}: {field} cannot be {value!r:.80}", hint=f"one of: {', '.join(known)}"
        )
    return value


def breaches(
    policy: Policy, *, licence_ids: Sequence[str], claim_only: bool, family: str | None,
    openness: Openness,
) -> list[Breach]:  # fmt: skip
    """Every rule of `policy` that a model breaks; none where it is within all of them."""
    found: list[Breach] = []
    for licence_id in licence_ids or (UNKNOWN,):
        found += _of_licence(policy, licence(licence_id))
    if claim_only and policy.claims == "block":
        found.append(
            Breach("claim-only", "its licence is the uploader's claim and nothing more", "claims")
        )
    found += _of_family(policy, family)
    if policy.openness is not None and not openness.reaches(policy.openness):
        found.append(
            Breach(
                "openness-too-low",
                f"its openness is {openness.level or 'unknown'}, and {policy.openness} is asked",
                "openness",
            )
        )
    return found


def _of_licence(policy: Policy, each: Licence) -> list[Breach]:
    if each.id == UNKNOWN:
        allowed = policy.unknown == "allow" or UNKNOWN in (policy.allow or ())
        sentence = "a licence that binds it is not known"
        return [] if allowed else [Breach("licence-unknown", sentence, "unknown", each.id)]
    if any(in_class(name, each) for name in policy.deny):
        return [Breach("licence-denied", f"{each.name} is denied", "deny", each.id)]
    if policy.allow is None or any(in_class(name, each) for name in policy.allow):
        return []
    return [
        Breach(
            "licence-not-allowed",
            f"{each.name} is not among what is allowed ({', '.join(policy.allow) or 'nothing'})",
            "allow",
            each.id,
        )
    ]


def _of_family(policy: Policy, family: str | None) -> list[Breach]:
    name = (family or "").lower()
    if any(fnmatchcase(name, each.lower()) for each in policy.deny_families) and name:
        return [Breach("family-denied", f"the family {family} is denied", "deny_families")]
    if policy.families is None:
        return []
    if any(fnmatchcase(name, each.lower()) for each in policy.families) and name:
        return []
    what = f"the family {family} is" if family else "its family is not known and so"
    return [Breach("family-not-allowed", f"{what} not among those allowed", "families")]
