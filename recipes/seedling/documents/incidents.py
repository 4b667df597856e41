# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501, SIM905 - tables of wordings read better unbroken
"""Incident notes: which service, since when, how long and why, as a note in prose or a form."""

from __future__ import annotations

from collections.abc import Callable

from recipes.seedling import layout
from recipes.seedling.document import Document
from recipes.seedling.documents import common
from recipes.seedling.phrases import Phrases, fill
from recipes.seedling.values import Draw

NAMES: dict[str, tuple[str, ...]] = {
    "service": ("service", "service", "system", "affected_service"),
    "start_time": ("start_time", "start_time", "start", "began", "started"),
    "end_time": ("end_time", "end", "resolved_at"),
    "duration": ("duration", "duration", "downtime", "length"),
    "cause": ("cause", "cause", "root_cause", "reason"),
    "severity": ("severity", "priority", "level"),
    "owner": ("owner", "reported_by", "engineer", "on_call"),
    "incident_number": ("incident_number", "incident_id", "incident", "number"),
    "date": ("date", "day", "incident_date"),
}  # fmt: skip
LABELS: dict[str, Phrases] = {
    "service": Phrases(("service", "system", "affected[| service| system]", "component", "what"), ("service name", "system affected", "service hit")),
    "start_time": Phrases(("start[| time]", "started[| at]", "began[| at]", "from", "begin", "since"), ("time of start", "start of incident", "beginning")),
    "end_time": Phrases(("end[| time]", "ended[| at]", "resolved[| at]", "until", "fixed at"), ("time of end", "end of incident", "resolved time")),
    "duration": Phrases(("duration", "downtime", "length", "lasted", "outage", "total downtime"), ("time down", "length of outage", "duration of incident")),
    "cause": Phrases(("cause", "root cause", "reason", "why", "caused by"), ("cause of incident", "reason found", "root of it")),
    "severity": Phrases(("severity", "priority", "level", "sev"), ("severity level", "priority level")),
    "owner": Phrases(("owner", "reported by", "engineer", "on call", "handled by", "author"), ("owned by", "engineer on call", "written by")),
    "incident_number": Phrases(("incident [number|no.|id]", "incident", "id", "number", "ref"), ("number of incident", "incident ref.", "incident code")),
    "date": Phrases(("date", "day", "incident date", "on"), ("date of incident", "happened on")),
}  # fmt: skip
PROSE: dict[tuple[str, ...], Phrases] = {
    ("service", "start_time", "duration"): Phrases(
        ("[The |]{service} [was down|was unavailable|did not respond|failed|was not reachable|was slow] [from|since] {start_time} [for|, for] {duration}.", "[At|From] {start_time} [the |]{service} [went down|failed|stopped|became slow] [and stayed so for|for] {duration}.",
         "[For|During] {duration}[, from {start_time},| from {start_time}] [the |]{service} was [down|unavailable|not reachable|offline].", "[Outage|Downtime] of [the |]{service}: {duration}, [starting at|from|beginning at] {start_time}."),
        ("Beginning with {start_time}, users could not reach {service} during {duration}.", "{duration} of downtime hit {service}, it began {start_time}.", "The service {service} failed at {start_time} and came back after {duration}."),
    ),
    ("service", "start_time"): Phrases(
        ("[The |]{service} [was down|was unavailable|failed|went down|stopped|became slow] [at|from|since] {start_time}.", "[At|From] {start_time} [on, |][the |]{service} [went down|failed|stopped|did not respond|was slow].", "{start_time}: {service} [down|not reachable|failed]."),
        ("Users could not reach {service} after {start_time}.", "The first failure of {service} was seen at {start_time}."),
    ),
    ("service", "start_time", "end_time"): Phrases(
        ("[The |]{service} [was down|was unavailable|failed|was slow] from {start_time} [to|until|till] {end_time}.", "[From|Between] {start_time} [to|and|until] {end_time} [the |]{service} [was down|was unavailable|did not respond].", "[Outage|Downtime] of {service}, {start_time} [to|-] {end_time}."),
        ("Users could not reach {service} between {start_time} and {end_time}.", "{start_time} to {end_time}: no {service}."),
    ),
    ("service",): Phrases(("[The |]{service} [was down|was unavailable|failed|had an outage].", "[Outage|Incident|Problem] [of|in|with] [the |]{service}."), ("Users could not reach {service}.",)),
    ("start_time",): Phrases(("It [started|began] at {start_time}.", "[Start|Begin]: {start_time}."), ("The beginning was at {start_time}.",)),
    ("end_time",): Phrases(("[It was|All was|The problem was] [fixed|resolved|over] at {end_time}.", "[At|By] {end_time} [it was|all was] [fixed|back to normal|resolved]."), ("The end came at {end_time}.", "It was back again by {end_time}.")),
    ("duration",): Phrases(("[It|The outage|The incident] [lasted|took|went on for] {duration}.", "[Downtime|Duration]: {duration}."), ("The length of the outage was {duration}.",)),
    ("cause",): Phrases(
        ("[The cause|The root cause|The reason|Cause] was {cause}.", "[It|The outage|The incident] was caused by {cause}.", "[We found|The team found|We saw] {cause}[| as the cause].", "{cause} [was the cause|was the reason|caused it|led to it].", "[After some time we saw|It turned out to be|The trouble came with] {cause}.", "[Because of|Due to] {cause} [users had to wait|it failed].", "[Root cause|Cause|Reason]: {cause}.", "This happened because of {cause}."),
        ("As its cause we found {cause}.", "The outage came from {cause}.", "To blame was {cause}."),
    ),
    ("severity",): Phrases(("[Severity|Priority]: {severity}.", "[The severity|The priority|The level] [is|was] {severity}.", "It was rated {severity}."), ("We gave it the severity {severity}.",)),
    ("owner",): Phrases(("{owner} [was on call|handled it|fixed it|took care of it|wrote this note].", "[The owner is|Handled by|Reported by|On call was] {owner}."), ("The engineer for it was {owner}.",)),
    ("incident_number",): Phrases(("[This is|See|It is|Filed as] [incident |]{incident_number}.", "Incident [number |no. |]{incident_number}."), ("It has the incident number {incident_number}.",)),
    ("date",): Phrases(("[It happened|This was|The outage was] on {date}.", "[Date|Day]: {date}."), ("The day of the incident was {date}.",)),
}  # fmt: skip
SPANS = Phrases(
    ("time", "when", "period", "from - to", "times", "down"), ("time span", "time of outage")
)
TITLES = Phrases(
    ("INCIDENT", "Incident [report|note]", "# Incident", "Outage [report|note]", "Post mortem", "*** INCIDENT ***", "Incident {incident_number}", "Service outage", "Status [report|update]"),
    ("Report of an incident", "--- Incident ---", "Notes on the outage", "### Incident"),
)  # fmt: skip
NOISE = Phrases(
    ("[No data was lost|Nothing was lost].", "[Customers|Users] [saw errors|were informed|had to wait].", "[We|The team] [restarted|rolled back|added a check] [and it helped|and watched it].", "[An alarm|A test] [will be|was] added.", "[More|A longer report] follows.", "[The team|Everybody] did a good job.",
     "[Other services|The rest] [worked|were not affected]."),
    ("Users complained in the chat.", "A better alarm is planned.", "All other parts kept working."),
)  # fmt: skip
CAUSES = Phrases(
    ("a full disk[| on {host}]", "an expired [certificate|licence|token]", "a [wrong|bad|faulty] [configuration|setting|firewall rule|DNS entry][| on {host}]", "a [power|network|hardware] failure[| in {place}]", "a bug in [the last release|version {version}|the new update|{host}]",
     "[too many|a flood of] [requests|users|log files|open connections]", "a [broken|dead|faulty] [switch|router|cable|memory module|fan][| in {place}]", "a [failed|slow|missing] [database|backup|index|update|migration]", "[high load|a memory leak|a deadlock] on {host}", "{host} [running out of memory|without a backup]",
     "a mistake during [maintenance|the move to {place}|the update to {version}]"),
    ("an expired domain", "a faulty power supply[| in {place}]", "a crashed [database|cache][| on {host}]", "a wrong time zone", "a broken air conditioning[| in {place}]", "a full mail queue", "a bug in the update to {version}", "slow disks on {host}"),
)  # fmt: skip
THINGS_TRAIN = tuple(
    "API,gateway,database,web shop,portal,mail server,queue,cache,login service,search,checkout,app,website,file server,backup,billing system,VPN,printer server,storage,dashboard".split(
        ","
    )
)
THINGS_HELDOUT = tuple(
    "router cluster,chat server,data warehouse,scheduler,wiki,phone system,proxy,license server".split(
        ","
    )
)
_AREAS_TRAIN = tuple(
    "payments,orders,customer,mobile,internal,public,shipping,reporting,north,south,main,test".split(
        ","
    )
)
_AREAS_HELDOUT = tuple("partner,backup,regional,analytics,warehouse,European".split(","))
_SEVERITIES = (
    "SEV-1",
    "SEV-2",
    "SEV-3",
    "P1",
    "P2",
    "P3",
    "high",
    "medium",
    "low",
    "critical",
    "major",
    "minor",
    "S1",
    "S2",
    "1",
    "2",
    "3",
)


def incident(draw: Draw) -> Document:
    """An incident; the summary names service, start, duration and cause as far as they are there."""
    facts = _values(draw)
    text = _form(draw, facts) if draw.chance(0.45) else _note(draw, facts)
    key = [facts["service"]]
    summary = f"Incident: {facts['service']}"
    for concept, form in (
        ("start_time", " from {}"),
        ("duration", " for {}"),
        ("cause", ", cause: {}"),
    ):
        if concept in facts:
            summary += form.format(facts[concept])
            key.append(facts[concept])
    return Document(
        "incident", text, facts, tuple(NAMES), summary.rstrip(".") + ".", tuple(key), names=NAMES
    )


def _values(draw: Draw) -> dict[str, str]:
    rng = draw.rng
    thing = draw.text_of(THINGS_TRAIN, THINGS_HELDOUT)
    lead = draw.word(1, 3) if draw.chance(0.55) else draw.text_of(_AREAS_TRAIN, _AREAS_HELDOUT)
    host = f"{draw.word(1, 2).lower()}-{rng.randint(1, 40):02d}"
    slots = {
        "host": host,
        "place": draw.city(),
        "version": f"{rng.randint(1, 9)}.{rng.randint(0, 30)}",
    }
    day = draw.date()
    start, end = draw.time(), draw.time()
    if rng.random() < 0.2:
        start, end = f"{start} UTC", f"{end} UTC"
    with_day = rng.random() < 0.25
    facts = {"service": f"{lead} {thing}", "start_time": f"{day} {start}" if with_day else start}
    optional: tuple[tuple[str, float, Callable[[], str]], ...] = (
        ("duration", 0.85, lambda: _length(draw)),
        ("cause", 0.88, lambda: fill(CAUSES.pick(rng, draw.split), slots)),
        ("end_time", 0.3, lambda: end),
        ("severity", 0.4, lambda: rng.choice(_SEVERITIES)),
        ("owner", 0.4, draw.person),
        ("incident_number", 0.45, lambda: draw.identifier(("INC", "INC", "OPS", "I"))),
    )
    facts.update({concept: make() for concept, share, make in optional if draw.chance(share)})
    if not with_day and draw.chance(0.5):
        facts["date"] = day
    return facts


def _length(draw: Draw) -> str:
    rng = draw.rng
    minutes = rng.randint(2, 59)
    hours = rng.randint(2, 30)
    return rng.choice(
        (
            f"{minutes} minutes",
            f"{minutes} min",
            f"{hours} hours",
            f"{hours} h {minutes} min",
            f"{hours}h {minutes}m",
            f"{hours} hours and {minutes} minutes",
            f"about {minutes} minutes",
        )
    )


def _title(draw: Draw, facts: dict[str, str], share: float) -> list[str]:
    if not draw.chance(share):
        return []
    while True:
        title = TITLES.pick(draw.rng, draw.split)
        if "{" not in title or "incident_number" in facts:
            return [fill(title, facts)]


def _note(draw: Draw, facts: dict[str, str]) -> str:
    rng = draw.rng
    groups: list[tuple[str, ...]] = [*rng.choice((
        [("service", "start_time", "duration"), ("cause",)],
        [("service", "start_time"), ("cause",), ("duration",)],
        [("service", "start_time"), ("duration",), ("cause",)],
        [("service", "start_time", "end_time"), ("duration",), ("cause",)],
    ))]  # fmt: skip
    if groups[0] == ("service", "start_time", "duration") and "duration" not in facts:
        groups[0] = ("service", "start_time")
    if "end_time" in groups[0] and "end_time" not in facts:
        groups[0] = ("service", "start_time")
    for extra in (
        ("end_time",) if "end_time" not in groups[0] else (),
        ("severity",),
        ("owner",),
        ("incident_number",),
        ("date",),
    ):
        groups.insert(rng.randint(1, len(groups)), extra)
    body = common.sentences(draw, PROSE, facts, groups, NOISE, LABELS)
    if draw.chance(0.4):
        body += f" {NOISE.pick(rng, draw.split)}"
    return rng.choice(("\n", "\n\n")).join([*_title(draw, facts, 0.55), body])


def _form(draw: Draw, facts: dict[str, str]) -> str:
    concepts = list(LABELS)
    draw.rng.shuffle(concepts)
    if "end_time" in facts and draw.chance(0.5):
        concepts = [c for c in concepts if c not in ("start_time", "end_time")]
        pairs = common.pairs(draw, LABELS, facts, concepts)
        label = layout.cased(draw, SPANS.pick(draw.rng, draw.split))
        span = f"{facts['start_time']} {draw.rng.choice(('to', 'to', '-', 'until') if draw.train else ('till', '->'))} {facts['end_time']}"
        pairs.insert(draw.rng.randint(0, len(pairs)), (label, span))
    else:
        pairs = common.pairs(draw, LABELS, facts, concepts)
    parts = [*_title(draw, facts, 0.6), layout.block(draw, pairs)]
    if draw.chance(0.35):
        parts.append(NOISE.pick(draw.rng, draw.split))
    return "\n".join(parts)
