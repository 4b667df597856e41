# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - tables of wordings read better unbroken
"""Orders: a customer's e-mail, a confirmation, or a sheet of labelled values with lines."""

from __future__ import annotations

from collections.abc import Callable

from recipes.seedling import layout
from recipes.seedling.document import Document
from recipes.seedling.documents import common
from recipes.seedling.phrases import Phrases, fill
from recipes.seedling.values import Draw

NAMES: dict[str, tuple[str, ...]] = {
    "order_number": ("order_number", "order_number", "order_no", "order number", "order_id", "number"),
    "customer": ("customer", "customer", "client", "buyer", "customer_name", "client_name", "name"),
    "order_date": ("order_date", "date", "order date", "ordered_on"),
    "delivery_date": ("delivery_date", "delivery_date", "deliver_by", "delivery date", "delivery", "required_by"),
    "product": ("product", "product", "item", "article", "product_name"),
    "quantity": ("quantity", "quantity", "qty", "count"),
    "city": ("city", "city", "town", "delivery_city", "ship_to", "deliver_to"),
    "total": ("total", "total", "total_amount", "order_total", "amount"),
    "supplier": ("supplier", "vendor", "seller", "shop"),
    "email": ("email", "contact_email", "e-mail"),
    "phone": ("phone", "telephone"),
}  # fmt: skip
LABELS: dict[str, Phrases] = {
    "order_number": Phrases(
        ("order [number|no|no.|id|#]", "order", "[number|no.]", "po [number|no.]", "reference", "purchase order", "our order", "ref", "order ref", "order code"),
        ("number of order", "order ref. no.", "our order no.", "purchase order no.", "this order"),
    ),
    "customer": Phrases(
        ("customer", "client", "buyer", "ordered by", "customer name", "for", "name", "sold to", "from", "purchaser", "account"),
        ("client name", "name of customer", "order placed by", "buyer name", "sent by"),
    ),
    "order_date": Phrases(
        ("order date", "date", "ordered on", "date of order", "ordered", "placed on", "created"), ("date ordered", "order placed on", "day of order", "order created on")
    ),
    "delivery_date": Phrases(
        ("deliver by", "delivery[| date]", "needed by", "deliver on", "delivery by", "wanted by", "ship by", "arrival", "date of delivery", "requested delivery"),
        ("delivery needed by", "to be delivered by", "date for delivery", "requested by", "day of delivery"),
    ),
    "product": Phrases(("product", "item", "article", "product name", "description", "goods"), ("article name", "name of product", "item name", "ordered product")),
    "quantity": Phrases(("quantity", "qty", "amount", "pieces", "units", "count", "pcs", "number of [pieces|units]"), ("ordered quantity", "units ordered", "how many", "piece count")),
    "city": Phrases(
        ("deliver to", "ship to", "city", "town", "delivery city", "place of delivery", "destination", "delivery to", "to"),
        ("ship-to city", "delivered to", "city of delivery", "delivery place"),
    ),
    "total": Phrases(
        ("total", "order total", "total amount", "sum", "order value", "total price", "grand total", "price"), ("total of order", "total sum", "full price", "value of order")
    ),
    "supplier": Phrases(("supplier", "vendor", "seller", "shop", "ordered from", "sold by"), ("seller name", "vendor company", "name of supplier")),
    "email": Phrases(("email", "e-mail", "mail", "contact"), ("email address", "contact e-mail")),
    "phone": Phrases(("phone", "tel", "tel.", "telephone", "call"), ("phone no.", "telephone number")),
    "other_number": Phrases(("customer [no.|number|id]", "account [no.|number]", "quote", "offer", "cart"), ("client no.", "offer no.")),
}  # fmt: skip
PROSE: dict[tuple[str, ...], Phrases] = {
    ("order_number", "order_date"): Phrases(
        ("[Our|My] number is {order_number}, [ordered|written|sent] on {order_date}.", "Re: order {order_number} of {order_date}", "[Could you|Please] [confirm|check] order {order_number} [of|from] {order_date}[.|?]", "[This is|Here is|Please find] [our |the |my |]order {order_number} [of|from|dated] {order_date}.", "[Order|Our order|The order] {order_number} was [placed|made|sent] on {order_date}.", "On {order_date} [we|I] placed [the |]order {order_number}."),
        ("Dated {order_date}, this is order number {order_number}.", "With {order_number} we refer to the order made {order_date}."),
    ),
    ("order_number",): Phrases(
        ("[The order number is|Our order number is|Order number:|Order:|Our reference is] {order_number}.", "[This is|Please book it as] order {order_number}.", "[Our number for this one|Our number|The number] is {order_number}.", "Re: order {order_number}", "[Please write|Put] {order_number} on the [box|parcel|invoice].", "[We call it|It goes under|Book it under] {order_number}.", "{order_number} is [our order number|the number|the reference].", "[It is|Please use|Please quote] order [no. |number |]{order_number}."),
        ("The number of this order is {order_number}.", "We gave this order the number {order_number}."),
    ),
    ("order_date",): Phrases(("[Ordered on|Order date:|Date of order:|It was ordered on] {order_date}.", "[I|We] ordered [it |]on {order_date}."), ("The order was made on {order_date}.", "Its date is {order_date}.")),
    ("customer",): Phrases(
        ("[We are|I am|This is|My name is] {customer}.", "[Greetings from|An order from|Ordered by|A purchase of] {customer}.", "[The invoice goes to|Charge it to|Bill it to] {customer}.", "[The order is for|It is for|The customer is|Please bill|The buyer is|It was ordered by] {customer}.", "{customer} [is the customer|placed this order|wants to buy this|has ordered]."),
        ("We order in the name of {customer}.", "The order came from {customer}."),
    ),
    ("things",): Phrases(
        ("[Could|Can] [we|I] [have|get|order] {things}?", "[Do you have|Could you send us|Would you send me] {things}?", "[Please add|Put down|Reserve] {things}[| for us| for me].", "{things}, [that is all|please|that is our order].", "[This time|Today|Again] [we|I] [take|need|order] {things}.", "[We have run out, so please send|We are looking for|I decided to buy] {things}.", "[Please send|We would like to order|I want to order|We order|Please book|I would like|We need] {things}.", "[The order contains|It contains|Ordered was|You ordered|The goods are] {things}.", "[We|I] [need|want|order] {things}[| for our office| from your shop]."),
        ("What we want to buy is {things}.", "We hereby order {things}.", "Kindly prepare {things} for us."),
    ),
    ("city", "delivery_date"): Phrases(
        ("[Please deliver|Please ship|Deliver|Ship|Send] [it |everything |the goods |]to {city} [by|before|on|until] {delivery_date}.", "[Delivery|Shipping] to {city} [by|on] {delivery_date}[| please].", "[We need it|We expect the goods|It should arrive] in {city} [by|on] {delivery_date}.",
         "[Deliver|Ship] to {street}, {postcode} {city}[,| and please] [by|before] {delivery_date}.", "[Could it be|Can it be] in {city} [by|on|before] {delivery_date}?", "[Our address is|We are at] {street} in {city}, [we need it|please deliver] by {delivery_date}.", "[Place and day|Delivery]: {city}, {delivery_date}.",
         "By {delivery_date} [it|everything] [should|must] be in {city}."),
        ("The goods must reach {city} no later than {delivery_date}.", "Our wish is a delivery until {delivery_date} in {city}."),
    ),
    ("city",): Phrases(
        ("[Please deliver|Please ship|Ship|Deliver|Send] [it |everything |]to {city}.", "[Deliver|Send it|Ship] to {street}, {postcode} {city}.", "Send them to [the shop|our office|the store|me] in {city}.", "[Our address is|We live at|The address is] {street}, {city}.", "{city} is [the place of delivery|where it should go|our town].", "[The goods go to|Delivery is to|The place of delivery is|It goes to] {city}.", "[We are|Our office is] in {city}."),
        ("The delivery should be made to {city}.", "You find us at {street} in {city}.", "Our goods are wanted in {city}."),
    ),
    ("delivery_date",): Phrases(
        ("{delivery_date} is [when we need it|the day of delivery|the latest day].", "[Can you deliver|Could it be here] [by|before|on] {delivery_date}?", "[No later than|Before|Until] {delivery_date}[, please|it should be here|].", "[We need it|Delivery|Please deliver|We need the goods|It must arrive] [by|before|on] {delivery_date}.", "[The delivery date is|Delivery date:|Wanted date:] {delivery_date}."), ("The goods should be here on {delivery_date}.", "We wait for the delivery until {delivery_date}.")
    ),
    ("total",): Phrases(
        ("{total} [is the total|is the price|is what we pay|is fine for us].", "[We found a price of|You offered|The goods cost|It comes to] {total}.", "[The total is|The order total is|In total this is|The price is|That makes] {total}.", "[We|I] [will pay|agreed to pay|pay] {total}.", "Total[ price|]: {total}."), ("All in all it costs {total}.", "We know that the sum is {total}.")
    ),
    ("supplier",): Phrases(("[The supplier is|We order from|The seller is|It is sold by] {supplier}.", "{supplier} [is the supplier|sells the goods]."), ("We chose {supplier} as our vendor.",)),
    ("email",): Phrases(("[Please confirm to|Write to|Send the confirmation to|Questions to|Our email is] {email}.",), ("For a confirmation our address is {email}.",)),
    ("phone",): Phrases(("[Call us at|Our phone number is|The driver can call|Phone:] {phone}.",), ("By phone you reach us at {phone}.",)),
    ("other_number",): Phrases(("[Our customer number is|The offer was|It refers to quote] {other_number}.",), ("We have the customer no. {other_number} with you.",)),
}  # fmt: skip
TITLES = Phrases(
    ("ORDER", "Order", "# Order", "Purchase order", "PURCHASE ORDER", "Order [confirmation|form|sheet]", "*** Order ***", "New order", "== ORDER ==", "Web order"),
    ("Order details", "--- Order ---", "O R D E R", "Your order", "### Order"),
)  # fmt: skip
NOISE = Phrases(
    ("Please [confirm|acknowledge] [the|this|our] order.", "[Thank you|Thanks] [for your order|for your help|in advance].", "Please pack [it|everything] [well|carefully].", "[Leave|Put] it [at the door|with the neighbour] if nobody is there.",
     "We pay [by invoice|by card|on delivery].", "The bell does not work.", "Part deliveries are [fine|not wanted].", "Terms: [14|30] days net.", "We were happy with the last delivery.", "Please call before [you come|delivery]."),
    ("A short confirmation would be nice.", "Kindly ring twice.", "Our gate is open until six.", "We paid in advance.", "No plastic in the box please."),
)  # fmt: skip
SUBJECTS = Phrases(
    ("[Our |New |Your |]order[| {order_number}]", "[Order|Purchase order|PO] {order_number}", "Please [send|deliver]", "We would like to order", "Order from {customer}"),
    ("We want to buy something", "{customer} orders", "A new order for you"),
)  # fmt: skip
THINGS = Phrases(
    ("{q} x {a}", "{q} {a}", "{q} pieces of {a}", "{q} pieces of the {a}", "another {q} {a}", "{q} more {a}", "{q} of your {a}", "{q} of {a}", "{q} pcs {a}", "{q} units of {a}", "{a} ({q} pieces)", "{a} ({q}x)"), ("{q} times {a}", "{a}, {q} of them", "{a} (quantity {q})"),
)  # fmt: skip


def order(draw: Draw) -> Document:
    """An order; the summary names number, articles, customer, place and day of delivery."""
    facts, rows = _values(draw)
    roll = draw.rng.random()
    if roll < 0.45:
        text = _letter(draw, facts, rows)
    elif roll < 0.8:
        text = _sheet(draw, facts, rows)
    else:
        text = _record(draw, facts, rows)
    known = {concept: facts[concept] for concept in NAMES if concept in facts}
    askable = tuple(NAMES)
    if len(rows) > 1:
        # With several lines "the product" would be ambiguous.
        askable = tuple(c for c in askable if c not in ("product", "quantity"))
        known = {c: value for c, value in known.items() if c in askable}
    return Document("order", text, known, askable, *_summary(facts, rows), names=NAMES)


def _summary(facts: dict[str, str], rows: list[layout.Item]) -> tuple[str, tuple[str, ...]]:
    things = [f"{quantity} x {article}" for article, quantity, *_ in rows]
    key = [*things, facts["customer"]]
    summary = f"Order {facts['order_number']}: " if "order_number" in facts else "Order: "
    summary += f"{', '.join(things)} for {facts['customer']}"
    delivery = [
        f"{word} {facts[c]}" for c, word in (("city", "to"), ("delivery_date", "by")) if c in facts
    ]
    if delivery:
        summary += f", deliver {' '.join(delivery)}"
    key += [facts[c] for c in ("order_number", "city", "delivery_date") if c in facts]
    return summary.rstrip(".") + ".", tuple(key)


def _values(draw: Draw) -> tuple[dict[str, str], list[layout.Item]]:
    rows, sum_ = common.order_lines(draw, draw.rng.choice((1, 1, 1, 2, 2, 3)))
    day = draw.day()
    person = draw.chance(0.55)
    facts = {
        "customer": draw.person() if person else draw.company(),
        "customer_is": "person" if person else "company",
    }
    optional: tuple[tuple[str, float, Callable[[], str]], ...] = (
        ("order_number", 0.9, lambda: draw.identifier(("ORD", "ORD", "PO", "SO", "B", "WEB"))),
        ("order_date", 0.5, lambda: draw.write_day(day)),
        ("delivery_date", 0.75, lambda: draw.write_day(draw.day(day))),
        ("city", 0.8, draw.city),
        ("total", 0.5, lambda: draw.money.write(sum_)),
        ("supplier", 0.25, draw.company),
        ("email", 0.2, draw.email),
        ("phone", 0.15, draw.phone),
        ("other_number", 0.2, lambda: draw.identifier(("C", "K", "Q", "AC"))),
    )
    facts.update({concept: make() for concept, share, make in optional if draw.chance(share)})
    if len(rows) == 1:
        facts["product"], facts["quantity"] = rows[0][0], rows[0][1]
    return facts, rows


def _things(draw: Draw, rows: list[layout.Item]) -> str:
    pattern = THINGS.pick(draw.rng, draw.split)
    things = [fill(pattern, {"a": article, "q": quantity}) for article, quantity, *_ in rows]
    if len(things) == 1:
        return things[0]
    return ", ".join(things[:-1]) + draw.rng.choice((" and ", " and ", ", ")) + things[-1]


def _letter(draw: Draw, facts: dict[str, str], rows: list[layout.Item]) -> str:
    rng = draw.rng
    groups = rng.choice((
        [("things",), ("city", "delivery_date"), ("order_number", "order_date")],
        [("order_number", "order_date"), ("things",), ("city",), ("delivery_date",)],
        [("order_number",), ("things",), ("city", "delivery_date"), ("order_date",)],
        [("city", "delivery_date"), ("order_number",), ("order_date",), ("things",)],
    ))  # fmt: skip
    groups = [*groups]
    for extra in (("total",), ("supplier",), ("email",), ("phone",), ("other_number",)):
        groups.insert(rng.randint(1, len(groups)), extra)
    signed = draw.chance(0.65)
    if not signed:
        groups.insert(rng.randint(0, len(groups)), ("customer",))
    listed = draw.chance(0.3)
    said = {**facts, "street": draw.street(), "postcode": draw.postcode()}
    if not listed:
        said["things"] = _things(draw, rows)
    body = common.sentences(draw, PROSE, said, groups, NOISE, LABELS)
    if listed:
        body += f"\n\n{layout.items(draw, rows)}"
    signature = facts["customer"] if signed else None
    if signature and facts["customer_is"] == "company" and draw.chance(0.45):
        signature = f"{draw.person()}\n{signature}"
    text = common.framed(draw, body, signature)
    if draw.chance(0.35):
        text = f"{_head(draw, facts)}\n\n{text}"
    return text


def _head(draw: Draw, facts: dict[str, str]) -> str:
    while True:
        subject = SUBJECTS.pick(draw.rng, draw.split)
        if "order_number" in facts or "{order_number}" not in subject:
            break
    subject = fill(subject, facts)
    if draw.train and "email" not in facts and "order_date" in facts and draw.chance(0.6):
        mail = draw.email()
        head = common.mail_head(draw, facts["customer"], mail, subject)
        if mail in head:
            facts["email"] = mail
        return head
    return f"Subject: {subject}"


def _sheet(draw: Draw, facts: dict[str, str], rows: list[layout.Item]) -> str:
    rng = draw.rng
    parts = [TITLES.pick(rng, draw.split)] if draw.chance(0.75) else []
    head = [c for c in LABELS if c not in ("product", "quantity", "total")]
    if draw.chance(0.3):
        head.remove("city")
        lines = [f"{layout.cased(draw, LABELS['city'].pick(rng, draw.split))}:"]
        if "city" in facts:
            lines += [draw.street(), f"{draw.postcode()} {facts['city']}"]
            parts.append("\n".join(lines))
    rng.shuffle(head)
    parts.append(layout.block(draw, common.pairs(draw, LABELS, facts, head)))
    parts.append(layout.items(draw, rows))
    if "total" in facts:
        parts.append(layout.block(draw, common.pairs(draw, LABELS, facts, ["total"])))
    if draw.chance(0.35):
        parts.append(NOISE.pick(rng, draw.split))
    return rng.choice(("\n\n", "\n\n", "\n")).join(parts)


def _record(draw: Draw, facts: dict[str, str], rows: list[layout.Item]) -> str:
    if len(rows) > 1:
        return _sheet(draw, facts, rows)
    concepts = list(LABELS)
    draw.rng.shuffle(concepts)
    text = layout.block(draw, common.pairs(draw, LABELS, facts, concepts))
    if draw.chance(0.5):
        text = f"{TITLES.pick(draw.rng, draw.split)}\n{text}"
    if draw.chance(0.2):
        text += f"\n{NOISE.pick(draw.rng, draw.split)}"
    return text
