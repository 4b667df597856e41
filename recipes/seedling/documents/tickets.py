# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - tables of wordings read better unbroken
"""Support tickets: one intent and topic, said among greetings, context and mentions of other things."""

from __future__ import annotations

from recipes.seedling import layout
from recipes.seedling.document import Document
from recipes.seedling.documents import common
from recipes.seedling.documents.chatter import chatter
from recipes.seedling.documents.intents import TOPICS
from recipes.seedling.phrases import Phrases, fill
from recipes.seedling.values import Draw

NAMES: dict[str, tuple[str, ...]] = {
    "name": ("name", "customer", "customer_name", "sender", "from"),
    "order_number": ("order_number", "order", "order_no", "order number", "order_id"),
    "product": ("product", "item", "article", "product_name"),
    "email": ("email", "contact_email", "e-mail"),
    "phone": ("phone", "telephone"),
    "ticket_number": ("ticket_number", "ticket", "ticket_id", "case_number"),
    "date": ("date", "received", "created"),
}  # fmt: skip
LABELS: dict[str, Phrases] = {
    "name": Phrases(("customer", "name", "from", "sender", "contact", "reported by", "client", "caller"), ("customer name", "sent by", "name of sender")),
    "order_number": Phrases(("order", "order [no.|number|id]", "order #", "re order"), ("number of order", "order ref.")),
    "product": Phrases(("product", "item", "article", "product name"), ("article name", "name of product")),
    "email": Phrases(("email", "e-mail", "mail"), ("email address",)),
    "phone": Phrases(("phone", "tel", "telephone", "call back"), ("phone no.",)),
    "ticket_number": Phrases(("ticket", "ticket [no.|number|id]", "case", "case [no.|number]", "request"), ("number of ticket", "ticket ref.", "case id")),
    "date": Phrases(("date", "received", "created", "opened", "sent"), ("date received", "created on")),
}  # fmt: skip
DETAILS: dict[str, Phrases] = {
    "order_number": Phrases(
        ("[It is about|This is about|I am writing about|It concerns] [my |our |the |][order|purchase] {order_number}.", "[My|Our|The] order [number |no. |][is|was] {order_number}.",
         "[Order|Order no.|Order number|Order:] {order_number}.", "(order {order_number})", "[The reference|Reference|My reference] is {order_number}.", "[I|We] placed order {order_number} [last week|online|some time ago].", "[Please|Could you] [check|look at] order {order_number}.", "[Re:|Ref.] order {order_number}",
         "[I have|We have] the order number {order_number} [here|in front of me].", "The number on the [box|receipt|mail] is {order_number}.", "Order {order_number}, [by the way|as you can see]."),
        ("You will find it under the order {order_number}.", "All this happened with order number {order_number}.", "Look at order {order_number}, please."),
    ),
    "product": Phrases(
        ("[It is about|This is about|It concerns] [the|a|our|my] {product}.", "[I|We] [bought|ordered|use|have|own] [a|the|your] {product}[| in your shop| last month| since May].", "[The product|The item|The article] is [a|the|called] {product}.", "[The {product}|My {product}] [is the reason why I write|is what I mean].", "[I|We] [chose|got] [a|the] {product} [from you|at your shop].", "[Re:|About] [the|my] {product}",
         "[Product|Item|Article]: {product}."),
        ("I mean the product {product}.", "What we use is the {product}.", "It all began with the {product}."),
    ),
    "email": Phrases(("[Please reply|Write me|Answer|You can reach me] [to|at] {email}.", "My email is {email}."), ("For an answer use {email}.",)),
    "phone": Phrases(("[Please call me|Call me back|You can reach me] [at|on] {phone}.", "My number is {phone}."), ("By phone I am at {phone}.",)),
}  # fmt: skip
# How a sentence names the order in passing.
TAILS = Phrases(
    (" (order {order_number})", " for order {order_number}", " with order {order_number}", ", order {order_number}", " (ref. {order_number})", " of order {order_number}"),
    (" - order {order_number}", " in the order {order_number}"),
)  # fmt: skip
GREETINGS = Phrases(
    ("Hello,", "Hi,", "Hi [there|team|all],", "Dear [team|support|Sir or Madam|support team],", "Good [morning|day|evening],", "Hello [team|support],", "Hey,", "To the support team:"),
    ("Greetings,", "Good afternoon,", "Dear people at the support,", "Hello dear team,"),
)  # fmt: skip
OPENERS = Phrases(
    ("I [hope|trust] you are [well|fine].", "I [have|am writing with] a [question|request|problem].", "[Sorry|I am sorry] to [bother|trouble] you.", "I need [your|some] help.", "[I have been|We have been] a customer [for years|since 2019|for a long time].",
     "[This is|It is] [the first time|the second time] [I write|we write] to you.", "[Can|Could] [someone|anyone] help [me|us]?", "I [tried|have tried] to call you.", "[My colleague|A friend] told me to write to you.", "Here is my [problem|question|request].", "[May|Can] I [ask|bother] you [for help|with a question|once more]?", "[It is|This is] a [cold|long|sunny|busy] day [here|] and [I write|we write] to you.", "[As|Being] a [good|new|old] customer [I|we] [hope|ask] for [your help|an answer]."),
    ("I write to you on a rainy day.", "May I trouble you with something?", "As a customer for a long time I have a request.", "A colleague said that you can help."),
)  # fmt: skip
# Mentions of other things, in a tone that makes clear they are not the matter.
ASIDES: dict[str, Phrases] = {
    "shipping": Phrases(("[The delivery|The parcel|The package] [was fast|came on time|arrived quickly][|, that is fine|, thank you].", "[The delivery itself|Shipping] was [no problem|fine|fast]."), ("The parcel was here on time, nothing wrong there.",)),
    "billing": Phrases(("[I paid|We paid] [at once|the invoice last week|by card].", "[The invoice|The bill|The payment] [is paid|was correct|is fine]."), ("With the bill everything is in order.",)),
    "feedback": Phrases(("[Otherwise|Apart from that|In general] [I am|we are] [happy|satisfied].", "[Otherwise|In general] [I|we] like [your shop|the service]."), ("For the rest we are satisfied customers.",)),
    "access": Phrases(("[Logging in|The login] [works|is no problem].", "I [logged in|signed in] [this morning|yesterday]."), ("My login works well.",)),
    "technical": Phrases(("[The app|The website|Your software] [works|works fine|is fine].", "I [looked in the app|checked the website] first."), ("Your website works fine here.",)),
    "damage": Phrases(("[The product|The item] [is|works] [fine|well].", "[Nothing is broken|It is not broken]."), ("The item itself is in good order.",)),
    "account": Phrases(("[My account|My profile|Our account] is [up to date|in order].",), ("Our profile data is correct.",)),
}  # fmt: skip
FILLERS = Phrases(
    ("[Please|Kindly] [help|answer|reply] [soon|quickly|as soon as possible].", "[Thanks|Thank you] [in advance|for your help|for your time].", "[I look|We look] forward to [your answer|hearing from you].", "[This is|It is] [urgent|not urgent|important].",
     "[What|What else] can [I|we] do?", "[Can|Could] you [look into it|help|check that|take care of it]?", "[I am|We are] waiting for [your answer|a reply].", "[Let me|Let us] know.", "[I was|We were] [surprised|a bit confused].", "[A fast reply|Some help|Any advice|Your reply] would be [nice|great|kind|good].", "It would be [nice|great|good] [to hear from you|to get an answer|if someone called me].", "[What|When] [comes|is] next?", "[I thank you|We thank you] [for|very much for] [the help|your trouble|the answer]."),
    ("It would be kind if you replied soon.", "A quick answer would be nice.", "What happens next?", "I thank you for looking into it."),
)  # fmt: skip
CLOSINGS = Phrases(
    ("[Kind|Best|Warm] regards,", "Thanks,", "Best,", "Regards,", "Sincerely,", "Cheers,", "Yours,", "Many thanks,", "Best wishes,", "Thank you,"),
    ("With kind greetings,", "All the best,", "Bye,", "Have a good day,"),
)  # fmt: skip
INTRODUCTIONS = Phrases(
    ("[My name is|I am|This is] {name}.", "{name} here.", "[You are talking to|The sender is|You know me,] {name}.", "[Here is|I'm] {name}."), ("You are reading a message of {name}.", "I, {name}, write to you.")
)  # fmt: skip
MESSAGES = Phrases(
    ("message", "text", "body", "description", "request", "note"), ("content", "what they write")
)
PLAIN_SUBJECTS = Phrases(
    ("[Question|Problem|Request|Help|Please help|Urgent|Hello|My order|Help needed|A question]",), ("Some help please", "Message from a customer", "I need you"),
)  # fmt: skip


def ticket(draw: Draw) -> Document:
    """A ticket; the summary says who wants what, about which order or article."""
    rng = draw.rng
    intent = rng.choice(tuple(TOPICS))
    gist, wordings = rng.choice(TOPICS[intent])
    facts = {"name": draw.person()}
    if draw.chance(0.55):
        facts["order_number"] = draw.identifier(("ORD", "ORD", "SO", "A", "B", "WEB"))
    if draw.chance(0.4):
        facts["product"] = draw.product()
    if draw.chance(0.12):
        facts["email"] = draw.email(facts["name"])
    if draw.chance(0.08):
        facts["phone"] = draw.phone()
    core = [wordings.pick(rng, draw.split)]
    if draw.chance(0.3):
        again = wordings.pick(rng, draw.split)
        if again != core[0]:
            core.append(again)
    text = _text(draw, facts, core, intent)
    known = {concept: value for concept, value in facts.items() if concept in NAMES}
    who = facts.get("name", "A customer")
    key = [facts["name"]] if "name" in facts else []
    about = ""
    for concept, form in (("order_number", " (order {})"), ("product", " ({})")):
        if concept in facts:
            about = form.format(facts[concept])
            key.append(facts[concept])
            break
    return Document(
        "ticket",
        text,
        known,
        common.askable(NAMES, known, text, "date"),
        f"{who} {gist}{about}.",
        (*key, gist),
        intent,
        gist,
        NAMES,
    )


def _text(draw: Draw, facts: dict[str, str], core: list[str], intent: str) -> str:
    rng = draw.rng
    headed = draw.chance(0.5)
    in_head: list[str] = []
    if headed:
        if draw.chance(0.4):
            facts["ticket_number"] = draw.identifier(("T", "TK", "CASE", "REQ"))
        if draw.chance(0.3):
            facts["date"] = draw.date()
        in_head = [c for c in ("ticket_number", "date") if c in facts]
        in_head += [
            c
            for c in ("name", "order_number", "product", "email", "phone")
            if c in facts and draw.chance(0.5)
        ]
        rng.shuffle(in_head)
    sentences = list(core)
    passing = "order_number" in facts and "order_number" not in in_head and draw.chance(0.22)
    if passing:
        mark = sentences[0][-1]
        tail = fill(TAILS.pick(rng, draw.split), facts)
        sentences[0] = f"{sentences[0].rstrip('.!?')}{tail}{mark if mark in '.!?' else '.'}"
    for concept in ("order_number", "product", "email", "phone"):
        if (
            concept in facts
            and concept not in in_head
            and not (passing and concept == "order_number")
        ):
            at = rng.randint(0, len(sentences))
            sentences.insert(at, fill(DETAILS[concept].pick(rng, draw.split), facts))
    if draw.chance(0.3):
        other = rng.choice([name for name in ASIDES if name != intent])
        sentences.insert(rng.randint(0, len(sentences)), ASIDES[other].pick(rng, draw.split))
    fillers = [FILLERS.pick(rng, draw.split) for _ in range(rng.choice((0, 0, 1, 1, 2)))]
    sentences += dict.fromkeys(fillers)
    if draw.train and draw.chance(0.18):
        sentences.insert(rng.randint(0, len(sentences)), chatter(draw))
    if draw.chance(0.35):
        sentences.insert(0, OPENERS.pick(rng, draw.split))
    signed = "name" not in in_head
    introduced = signed and draw.chance(0.3)
    if introduced:
        sentences.insert(0, fill(INTRODUCTIONS.pick(rng, draw.split), facts))
    parts = [" ".join(sentences)]
    if draw.chance(0.6):
        parts.insert(0, GREETINGS.pick(rng, draw.split))
    if signed and not introduced:
        if draw.chance(0.08):
            facts.pop("name")
        else:
            parts.append(
                f"{CLOSINGS.pick(rng, draw.split)}\n{facts['name']}"
                if draw.chance(0.7)
                else facts["name"]
            )
    text = (
        rng.choice(("\n\n", "\n", " ")).join(parts[:-1])
        + ("\n\n" if len(parts) > 1 else "")
        + parts[-1]
    )
    if draw.chance(0.12):
        return _row(draw, facts, in_head, core, text)
    if draw.chance(0.3):
        text = layout.wrapped(draw, text)
    if (
        draw.train
        and "name" in facts
        and "date" not in facts
        and "email" not in facts
        and not in_head
        and draw.chance(0.25)
    ):
        mail = draw.email(facts["name"])
        head = common.mail_head(draw, facts["name"], mail, _subject(draw, core))
        if mail in head:
            facts["email"] = mail
        return f"{head}\n\n{text}"
    lines: list[str] = []
    if in_head:
        pairs = [(layout.cased(draw, LABELS[c].pick(rng, draw.split)), facts[c]) for c in in_head]
        lines.append(layout.block(draw, pairs))
    if draw.chance(0.3):
        lines.append(f"Subject: {_subject(draw, core)}")
    return "\n".join(lines) + ("\n\n" if lines else "") + text


def _subject(draw: Draw, core: list[str]) -> str:
    if draw.chance(0.4):
        return core[0].rstrip(".!?")
    return PLAIN_SUBJECTS.pick(draw.rng, draw.split)


def _row(draw: Draw, facts: dict[str, str], in_head: list[str], core: list[str], text: str) -> str:
    """A row of a table of tickets, each cell under the name of its column."""
    lines = [f"{LABELS[c].pick(draw.rng, draw.split)}: {facts[c]}" for c in in_head]
    if draw.chance(0.6):
        lines.append(f"subject: {_subject(draw, core)}")
    lines.append(f"{MESSAGES.pick(draw.rng, draw.split)}: {' '.join(text.split())}")
    return "\n".join(lines)
