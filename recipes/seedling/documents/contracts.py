# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501, SIM905 - tables of wordings read better unbroken
"""Contract clauses: parties, notice, liability, law, term and fee, as clauses or as a term sheet."""

from __future__ import annotations

from collections.abc import Callable

from recipes.seedling import layout
from recipes.seedling.document import Document
from recipes.seedling.documents import common
from recipes.seedling.phrases import Phrases
from recipes.seedling.values import Draw

NAMES: dict[str, tuple[str, ...]] = {
    "provider": ("provider", "provider", "supplier", "first_party", "contractor"),
    "client": ("client", "client", "customer", "second_party"),
    "notice_period": ("notice_period", "notice_period", "notice", "notice period"),
    "liability_cap": ("liability_cap", "liability_cap", "liability_limit", "liability"),
    "governing_law": ("governing_law", "governing_law", "law", "jurisdiction"),
    "start_date": ("start_date", "start", "effective_date"),
    "term": ("term", "contract_term", "duration"),
    "fee": ("fee", "price", "monthly_fee"),
}  # fmt: skip
LABELS: dict[str, Phrases] = {
    "provider": Phrases(("provider", "supplier", "contractor", "first party", "service provider", "party a"), ("name of provider", "providing party", "contractor name")),
    "client": Phrases(("client", "customer", "second party", "party b", "buyer"), ("name of client", "client company", "customer name")),
    "notice_period": Phrases(("notice[| period]", "termination notice", "notice of termination", "period of notice"), ("notice needed", "notice time", "time of notice")),
    "liability_cap": Phrases(("liability[| cap| limit]", "liability limited to", "maximum liability", "limit of liability", "liability up to"), ("cap on liability", "liability maximum", "highest liability")),
    "governing_law": Phrases(("governing law", "law", "applicable law", "law of", "jurisdiction"), ("governed by the law of", "contract law", "law that applies")),
    "start_date": Phrases(("start[| date]", "effective[| date| from]", "begins[| on]", "valid from", "date"), ("starting on", "contract start", "first day")),
    "term": Phrases(("term", "duration", "contract term", "runs for", "length"), ("term of contract", "contract length", "lasts")),
    "fee": Phrases(("fee", "price", "monthly fee", "payment", "fee per month"), ("fee to pay", "price per month", "amount of fee")),
}  # fmt: skip
PROSE: dict[tuple[str, ...], Phrases] = {
    ("provider", "client"): Phrases(
        ("[This|The] [agreement|contract] is [made|closed|signed|entered into] between {provider} (the [provider|supplier|contractor|first party]) and {client} (the [client|customer|second party]).",
         "{provider}, [as|the] [provider|contractor|supplier], and {client}, [as|the] [client|customer], [agree as follows|sign this contract|make this agreement].",
         "[The provider|The contractor|The supplier] is {provider}, [the client|the customer] is {client}.",
         "{provider} [provides|delivers|offers] [services|support|the software|the goods] to {client}[| under this contract|, the client].",
         "[This agreement|The contract] [between|of] {client} (the [Customer|Client]) and {provider} (the [Provider|Contractor|Supplier]) [is valid|was signed by both].",
         "[The customer|The client] {client} [hires|engages|pays] {provider}[| as provider| as contractor].", "{client} [buys services from|is supported by|orders from] {provider}.",
         "[The customer|The client] is {client}, [the provider|the contractor|the supplier] is {provider}.", "Client: {client}. Provider: {provider}.",
         "Between {provider} ([provider|contractor]) and {client} ([client|customer])[| it is agreed]:"),
        ("{provider} (provider) signs this agreement with the client {client}.", "As the provider {provider} will serve {client}, its client.", "Agreement of the contractor {provider} with its customer {client}.", "The customer {client} signs with {provider}, the provider."),
    ),
    ("notice_period",): Phrases(
        ("[It is renewed|It goes on] [unless|until] [one party|a party] ends it with [a notice period|notice] of {notice_period}.", "[Either|Each] party may [terminate|end|cancel] [this agreement|this contract|it] [with|by giving|on] {notice_period} [written |]notice.", "The notice period is {notice_period}.", "[Notice|Termination] [needs|requires|must be given] {notice_period} [before the end|in advance|ahead].",
         "[The contract|It] [can|may] be [ended|terminated|cancelled] with [a notice of|notice of] {notice_period}.", "[Whoever|A party that] wants to [end|leave] [the contract|it] gives {notice_period} notice."),
        ("To terminate the agreement, notice of {notice_period} is required.", "Both parties can end it when they give notice {notice_period} ahead.", "A period of {notice_period} applies to any notice."),
    ),
    ("liability_cap",): Phrases(
        ("[Liability|The liability of the provider|The liability of each party|Total liability] is [limited to|capped at|not more than] {liability_cap}.", "[The provider|Each party|The contractor] is liable [up to|for at most|for no more than] {liability_cap}.",
         "[The limit of liability|The maximum liability|The cap on liability] is {liability_cap}.", "Damages [above|over|beyond] {liability_cap} are [excluded|not paid]."),
        ("In no case is the liability higher than {liability_cap}.", "The parties agree to a liability limit of {liability_cap}.", "For damages a maximum of {liability_cap} is paid."),
    ),
    ("governing_law",): Phrases(
        ("[This agreement|This contract|It] is governed by the [law|laws] of {governing_law}.", "The law of {governing_law} [applies|governs this contract].", "The laws of {governing_law} [apply|govern it].", "[Governing|Applicable] law: {governing_law}.", "[It|The contract] is [subject to|under] the law of {governing_law}.",
         "[Disputes|All disputes] are [decided|settled] under the law of {governing_law}."),
        ("For this contract the law of {governing_law} is applicable.", "The parties choose the law of {governing_law}.", "Courts decide after the laws of {governing_law}."),
    ),
    ("start_date",): Phrases(
        ("[It|The contract|This agreement] [starts|begins|is effective|is valid] [on|from] {start_date}.", "[The start date is|Start:|Effective date:] {start_date}.", "[Services|Work] [start|begin] on {start_date}."), ("The first day of the contract is {start_date}.", "From {start_date} on the agreement is valid.")
    ),
    ("start_date", "term"): Phrases(
        ("[It|The contract|This agreement] [starts|begins] on {start_date} and [runs|lasts|is valid] for {term}.", "[From|Starting on] {start_date} [it|the contract] [runs|is valid] for {term}."),
        ("For {term} from {start_date} the agreement is valid.", "The first of {term} begins on {start_date}."),
    ),
    ("term",): Phrases(("[It|The contract|This agreement] [runs|lasts|is made|is valid] for {term}.", "The [term|contract term|duration] is {term}.", "[The parties agree on a|It has a] term of {term}."), ("After {term} the contract ends.", "The contract has a length of {term}.")),
    ("fee",): Phrases(
        ("The [fee|monthly fee|price] is {fee}.", "[The client|The customer] pays {fee} [per month|each month|a month|per year].", "[The provider|The contractor] [gets|receives|is paid] {fee}[| per month].", "For [this|the services] [the client|the customer] pays {fee}."),
        ("The client agrees to a fee of {fee}.", "A sum of {fee} is paid for the work."),
    ),
}  # fmt: skip
HEADINGS: dict[str, Phrases] = {
    "provider": Phrases(("Parties", "The parties", "Contract parties"), ("Who signs", "Signing parties")),
    "notice_period": Phrases(("Termination", "Notice", "End of contract"), ("Ending the contract", "Leaving")),
    "liability_cap": Phrases(("Liability", "Limit of liability", "Damages"), ("Limits", "Damage and liability")),
    "governing_law": Phrases(("Law", "Governing law", "Applicable law"), ("Choice of law", "Courts")),
    "start_date": Phrases(("Start", "Effective date", "Begin"), ("First day",)),
    "term": Phrases(("Term", "Duration"), ("Length",)),
    "fee": Phrases(("Fee", "Payment", "Price"), ("Pay",)),
}  # fmt: skip
TITLES = Phrases(
    ("CONTRACT", "Service [agreement|contract]", "Agreement", "AGREEMENT", "# Contract", "Framework contract", "Contract for [services|support|maintenance]", "Maintenance agreement", "Supply contract"),
    ("Contract of services", "--- Contract ---", "General agreement", "### Agreement"),
)  # fmt: skip
NOISE = Phrases(
    ("Changes [of|to] this contract [must be|have to be] in writing.", "Both parties keep [secrets|all information] confidential.", "If one clause is not valid, the others stay valid.", "[This contract|It] has two copies.", "[The provider|The contractor] may use [helpers|subcontractors].",
     "Invoices are paid within [14|30] days.", "[The parties|Both sides] [solve problems together|act in good faith].", "The annex is part of [the contract|it]."),
    ("Nothing else was agreed by word of mouth.", "Each side keeps one signed copy.", "Secrets remain secret after the end."),
)  # fmt: skip
LAND_TRAIN = tuple(
    "Germany,France,Spain,Italy,Austria,Ireland,Poland,Norway,Sweden,Portugal,Greece,Japan,Canada,Texas,California,England,Scotland,New York,Ohio,Denmark,Hungary,Brazil,Chile,India,Kenya,Malta".split(
        ","
    )
)
LAND_HELDOUT = tuple(
    "Switzerland,Finland,Belgium,Delaware,Estonia,Wales,Florida,Croatia,New Zealand,Singapore,Oregon".split(
        ","
    )
)
_WORDS = "one two three four five six seven eight nine ten twelve".split()
_NUMBERS = (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12)


def period(draw: Draw, units: tuple[str, ...]) -> str:
    """A length of time: `30 days`, `three months`, `six (6) weeks`."""
    rng = draw.rng
    unit = rng.choice(units)
    roll = rng.random()
    if roll < 0.6:
        number = rng.randint(2, 24 if unit != "days" else 180)
        return f"{number} {unit}"
    at = rng.randrange(1, len(_WORDS))
    if roll < 0.85:
        return f"{_WORDS[at]} {unit}"
    return f"{_WORDS[at]} ({_NUMBERS[at]}) {unit}"


def contract(draw: Draw) -> Document:
    """A contract; the summary names the parties, notice, liability and law as far as they are there."""
    rng = draw.rng
    facts = {"provider": draw.company(), "client": draw.company()}
    optional: tuple[tuple[str, float, Callable[[], str]], ...] = (
        ("notice_period", 0.8, lambda: period(draw, ("days", "days", "weeks", "months"))),
        ("liability_cap", 0.7, lambda: draw.amount(100_000, 500_000_000)),
        (
            "governing_law",
            0.75,
            lambda: (
                draw.text_of(LAND_TRAIN, LAND_HELDOUT) if draw.chance(0.55) else draw.word(2, 3)
            ),
        ),
        ("start_date", 0.4, draw.date),
        ("term", 0.35, lambda: period(draw, ("months", "years", "years"))),
        ("fee", 0.35, draw.amount),
    )
    facts.update({concept: make() for concept, share, make in optional if draw.chance(share)})
    text = _term_sheet(draw, facts) if rng.random() < 0.25 else _clauses(draw, facts)
    key = [facts["provider"], facts["client"]]
    forms = (
        ("notice_period", "notice {}"),
        ("liability_cap", "liability up to {}"),
        ("governing_law", "law of {}"),
    )
    said = [form.format(facts[concept]) for concept, form in forms if concept in facts]
    key += [facts[concept] for concept, _ in forms if concept in facts]
    summary = f"Contract between {key[0]} and {key[1]}" + (f": {', '.join(said)}" if said else "")
    return Document(
        "contract", text, facts, tuple(NAMES), summary.rstrip(".") + ".", tuple(key), names=NAMES
    )


def _clauses(draw: Draw, facts: dict[str, str]) -> str:
    rng = draw.rng
    rest = [
        c
        for c in ("notice_period", "liability_cap", "governing_law", "start_date", "term", "fee")
        if c in facts
    ]
    rng.shuffle(rest)
    groups: list[tuple[str, ...]] = [("provider", "client"), *((concept,) for concept in rest)]
    if "start_date" in rest and "term" in rest and draw.chance(0.6):
        groups.remove(("term",))
        groups[groups.index(("start_date",))] = ("start_date", "term")
    if draw.chance(0.1):
        rng.shuffle(groups)
    title = f"{TITLES.pick(rng, draw.split)}\n\n" if draw.chance(0.6) else ""
    if draw.chance(0.4):
        return title + common.sentences(draw, PROSE, facts, groups, NOISE, LABELS)
    said = [
        common.sentences(draw, PROSE, facts, [group], NOISE, LABELS).replace("\n\n", " ")
        for group in groups
    ]
    if draw.chance(0.35):
        heads = [HEADINGS[group[0]].pick(rng, draw.split) for group in groups]
        said = [f"{head}. {text}" for head, text in zip(heads, said, strict=True)]
    if draw.chance(0.4):
        said.insert(rng.randint(1, len(said)), NOISE.pick(rng, draw.split))
    patterns = (
        "{n}. {text}",
        "§ {n} {text}",
        "({n}) {text}",
        "Article {n}: {text}",
        "{s}.{n} {text}",
        "- {text}",
        "{text}",
    )
    pattern = rng.choice(
        patterns
        if draw.train
        else ("Clause {n} - {text}", "{n}) {text}", "[{n}] {text}", "Section {n}. {text}")
    )
    section = rng.randint(1, 12)
    lines = [pattern.format(n=n, s=section, text=text) for n, text in enumerate(said, 1)]
    if draw.chance(0.3):
        lines = [layout.wrapped(draw, line) for line in lines]
    return title + rng.choice(("\n", "\n\n")).join(lines)


def _term_sheet(draw: Draw, facts: dict[str, str]) -> str:
    concepts = list(LABELS)
    if draw.chance(0.6):
        draw.rng.shuffle(concepts)
    text = layout.block(draw, common.pairs(draw, LABELS, facts, concepts))
    if draw.chance(0.7):
        text = f"{TITLES.pick(draw.rng, draw.split)}\n{text}"
    return text
