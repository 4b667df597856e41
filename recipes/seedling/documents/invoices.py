# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: E501 - tables of wordings read better unbroken
"""Invoices: a sheet with blocks, a letter in prose, or a few lines of labelled values."""

from __future__ import annotations

from collections.abc import Callable

from recipes.seedling import layout
from recipes.seedling.document import Document
from recipes.seedling.documents import common
from recipes.seedling.phrases import Phrases, fill
from recipes.seedling.values import Draw, side

# What a question may call each concept. Held-out questions use the same names (a name never seen
# cannot be understood by a model that knows no other English), on other documents.
NAMES: dict[str, tuple[str, ...]] = {
    "invoice_number": ("invoice_number", "invoice_number", "invoice_no", "invoice number", "number", "invoice_id"),
    "supplier": ("supplier", "supplier", "vendor", "seller", "issuer", "company", "supplier_name", "vendor_name", "from"),
    "customer": ("customer", "customer", "client", "buyer", "bill_to", "customer_name", "client_name"),
    "invoice_date": ("invoice_date", "date", "issue_date", "invoice date", "issued"),
    "due_date": ("due_date", "due_date", "due date", "payment_due", "due", "payment_date"),
    "subtotal": ("subtotal", "net_amount", "net"),
    "tax": ("tax", "vat", "tax_amount", "vat_amount"),
    "total": ("total", "total", "total_amount", "amount_due", "grand_total", "amount", "invoice_total", "total_due"),
    "po_number": ("po_number", "purchase_order", "po"),
    "city": ("city", "town"),
    "email": ("email", "contact_email", "e-mail"),
    "phone": ("phone", "telephone"),
}  # fmt: skip

LABELS: dict[str, Phrases] = {
    "invoice_number": Phrases(
        ("invoice [number|no|no.|id|#]", "invoice", "[inv|bill] [no.|number]", "[number|no.]", "invoice ref",
         "bill", "your invoice", "document [no.|number]", "reference", "our [reference|invoice]", "invoice code", "ref"),
        ("number of invoice", "invoice ref. no.", "bill id", "our invoice no.", "inv. #", "this invoice"),
    ),
    "supplier": Phrases(
        ("supplier", "vendor", "seller", "from", "issued by", "issuer", "company", "sold by", "billed by",
         "supplier name", "biller", "invoice from"),
        ("seller name", "vendor company", "invoice issued by", "sent by", "name of supplier"),
    ),
    "customer": Phrases(
        ("customer", "client", "bill to", "billed to", "buyer", "invoice to", "sold to", "to", "customer name",
         "invoiced to", "for", "account", "purchaser"),
        ("client name", "name of customer", "invoice for", "bill to customer", "buyer name"),
    ),
    "invoice_date": Phrases(
        ("[invoice |]date", "date of [issue|invoice]", "issue date", "issued[| on]", "dated", "billing date",
         "invoiced on", "bill date", "created"),
        ("invoice issue date", "date issued", "invoice dated", "day of issue", "invoice created on"),
    ),
    "due_date": Phrases(
        ("due[| date]", "payment due", "pay[| ]by", "payable by", "due by", "due on", "payment date",
         "pay before", "please pay by", "payment deadline", "deadline"),
        ("due for payment", "payment due by", "to be paid by", "date due", "pay until"),
    ),
    "subtotal": Phrases(
        ("subtotal", "sub-total", "net[| amount]", "net total", "sum before tax", "total before tax",
         "amount without tax", "total net", "excl. vat"),
        ("subtotal (net)", "net sum", "amount before tax", "total excl. tax"),
    ),
    "tax": Phrases(
        ("tax", "vat", "vat [7|19|20|21]%", "sales tax", "tax amount", "+ vat", "tax ([6|8|10|25]%)",
         "vat amount", "plus tax"),
        ("vat (19%)", "tax total", "plus vat", "amount of tax"),
    ),
    "total": Phrases(
        ("total", "total", "total due", "amount due", "grand total", "total amount", "balance due", "to pay",
         "invoice total", "sum", "amount payable", "gross[| total]", "total incl. [vat|tax]", "amount", "please pay"),
        ("total to pay", "total payable", "gross amount", "invoice amount", "total sum due", "amount to pay"),
    ),
    "po_number": Phrases(
        ("po", "po [number|no.]", "purchase order", "your [po|order]", "order ref", "customer po"),
        ("your purchase order", "po ref", "purchase order no."),
    ),
    "email": Phrases(("email", "e-mail", "mail", "contact", "questions to"), ("email address", "contact e-mail")),
    "phone": Phrases(("phone", "tel", "tel.", "telephone", "call"), ("phone no.", "telephone number")),
    "other_date": Phrases(
        ("delivery date", "delivered", "shipped on", "date of delivery", "service date", "order date", "printed on"),
        ("shipping date", "delivered on", "ordered on"),
    ),
    "ship_to": Phrases(
        ("ship to", "deliver to", "delivery address", "delivered to", "shipped to", "consignee"),
        ("delivery to", "ship-to party", "goods sent to"),
    ),
    "other_number": Phrases(
        ("customer [no.|number|id]", "account [no.|number]", "delivery note", "contract", "tax id", "vat id",
         "order [no.|number]", "bank account", "job", "quote"),
        ("client no.", "delivery note no.", "contract no.", "tax number"),
    ),
}  # fmt: skip

PROSE: dict[tuple[str, ...], Phrases] = {
    ("invoice_number", "invoice_date"): Phrases(
        ("[Please find|You will find|We send you|Attached is|Enclosed is|Here is] [our |the |]invoice {invoice_number} [of|dated|from|issued on] {invoice_date}.",
         "On {invoice_date} we [issued|wrote|sent] invoice {invoice_number}.",
         "[This is|Here comes] invoice [no. |number |]{invoice_number}, [dated|issued|written on] {invoice_date}.",
         "[Your|The|A new] invoice [number |]{invoice_number} [was created|was issued|is dated] [on |]{invoice_date}.",
         "[Could you|Would you] [please |]check invoice {invoice_number} [of|from|dated] {invoice_date}?", "[Number|Our number] {invoice_number}, [written|made out|issued] {invoice_date}[|, is our invoice].",
         "[Today|This time] [you get|we bill you with] {invoice_number}, [an invoice|a bill] [of|from] {invoice_date}.", "Re: invoice {invoice_number} of {invoice_date}",
         "Invoice {invoice_number} ({invoice_date}) is [attached|enclosed|below]."),
        ("With this mail we send invoice {invoice_number}, created on {invoice_date}.",
         "Dated {invoice_date}, invoice number {invoice_number} is now ready for you.",
         "You have a new invoice: {invoice_number}, written {invoice_date}."),
    ),
    ("invoice_number",): Phrases(
        ("[Please find|Attached is|Enclosed is|Here is] [our |the |]invoice {invoice_number}.",
         "[This mail|This letter] [is about|concerns] invoice {invoice_number}.",
         "[Your|The] invoice [has the number|number is|is] {invoice_number}.",
         "[Its|The] number is {invoice_number}.", "[Please quote|Please use|Always name] {invoice_number}[| when you pay| in your payment].", "Re: [invoice|bill] {invoice_number}", "[Under|With] [the |]number {invoice_number} we [bill you|send our bill].",
         "We [have issued|are sending you|just sent] invoice [no. |]{invoice_number}."),
        ("Our invoice with the number {invoice_number} is attached.",
         "Today you receive invoice {invoice_number} from us."),
    ),
    ("invoice_date",): Phrases(
        ("[The bill|The paper|Our invoice] [is from|carries the date] {invoice_date}.", "{invoice_date} [is the date of the invoice|is the day we issued it].", "It [was issued on|is dated|was written on|dates from] {invoice_date}.", "[Date of issue|Issue date] is {invoice_date}.",
         "We [wrote|issued] it on {invoice_date}."),
        ("The invoice was made out on {invoice_date}.", "Its date is {invoice_date}."),
    ),
    ("supplier",): Phrases(
        ("[We,|It is us,] {supplier}, [say thank you|sold you the goods|send this invoice].", "[Thank you for buying from|You bought from|Many thanks from|Greetings from] {supplier}.", "[Please pay to|The money goes to|Payable to] {supplier}.", "[It comes from|The supplier is|The seller is|It was issued by|The goods were sold by] {supplier}.",
         "{supplier} [thanks you for your order|is the supplier|sent you the goods|has billed you].",
         "[This invoice|This bill] is from {supplier}.",
         "[We of|All of us at|The team of|Everybody at|Your friends at] {supplier} [wish you well|thank you|say hello|hope to see you again|like to work for you].",
         "[Issued|Written|Sent|Made|Billed] [for|on behalf of|in the name of] {supplier}[|, who sold the goods|, your seller].", "{supplier} sold [it|them|this|all of it] to you.", "[Bought|Ordered|Purchased] from {supplier}."),
        ("We at {supplier} are glad to have you with us.", "The invoice was issued for {supplier} as the seller."),
    ),
    ("customer",): Phrases(
        ("[The one who pays is|Payment comes from|The goods went to our customer] {customer}.", "[Sold to|Billed to|Made out to|Charged to] {customer}.", "[For|To] our [good |]customer {customer}.", "[It is for|It is addressed to|The customer is|We bill|The buyer is] {customer}.",
         "{customer} [is the customer|ordered the goods|is billed for this|will be charged].",
         "[The invoice|The bill] [goes to|is made out to] {customer}.",
         "[Bought|Ordered|Purchased|Paid] by {customer}.", "{customer} [bought|purchased|ordered|paid for] [it|them|this|all of it][| from us].",
         "[The buyer|The purchaser|The client|Our client] [was|here is|this time is|:] {customer}.", "[It was|All of this was|What is listed was] [purchased|ordered|bought] by {customer}."),
        ("The goods were bought by {customer}.", "We made it out to our client {customer}."),
    ),
    ("total",): Phrases(
        ("{total} [is the total|is what we ask for|is the amount due|is to be paid|is open].", "[We charge you|We debit|You pay|The bill is] {total}.", "[It adds up to|Together that is|The bill comes to] {total}.", "The [total|amount due|total amount|invoice total|sum] [is|comes to|amounts to] {total}.",
         "[Please pay|Please transfer|You owe us|We ask you to pay|Kindly send us] {total}.",
         "[The amount|A total] of {total} is [due|open|to be paid].", "In total [that is|this makes|we charge] {total}."),
        ("We kindly ask for a payment of {total}.", "All in all you have to pay {total}."),
    ),
    ("total", "due_date"): Phrases(
        ("Please [pay|transfer|send us] {total} [by|before|until|no later than] {due_date}.",
         "The [total|amount|total amount|sum] of {total} is [due|payable] [on|by] {due_date}.",
         "{total} [is due|must be paid|should reach us|has to be paid] by {due_date}.",
         "[Could you|Would you] [please |]pay {total} [by|before] {due_date}?", "[The sum|A sum] of {total} [has to|must|should] be [paid|with us] [by|before|on] {due_date}.", "[We charge|You pay|It costs] {total}, [payable until|due|to be paid by] {due_date}.",
         "[Due|Payable] on {due_date}: {total}.", "[Until|Before] {due_date} [please pay|you have time to pay|we wait for] {total}.",
         "By {due_date} we [expect|ask for] [a payment of |]{total}.",
         "[Amount due|Total due]: {total}, [due|payable by|not later than] {due_date}."),
        ("We look forward to your payment of {total}, which falls due on {due_date}.",
         "Kindly settle the total of {total} until the {due_date}.",
         "The payment deadline for {total} is {due_date}."),
    ),
    ("due_date",): Phrases(
        ("[Payment is due|It is due|Please pay|Payment is expected|The due date is] [|] {due_date}.",
         "[Payment is due|It is due|Please pay|The money should arrive] [by|on] {due_date}.", "The deadline is {due_date}.", "{due_date} is [the due date|the last day to pay|the deadline].", "[You have time until|We wait until|The money is due on] {due_date}.", "[No later than|Before|Until] {due_date}[, please| you should pay| the money must be here].",
         "[Settle|Pay] it by {due_date}.", "We should [have|see] the money on {due_date}."),
        ("The invoice has to be settled by {due_date}.", "Your payment should be with us on {due_date}."),
    ),
    ("subtotal", "tax"): Phrases(
        ("[The net amount|The subtotal|Net] is {subtotal}[, plus| and we add|;] {tax} [of |]tax.",
         "It [is made up of|contains] {subtotal} net and {tax} [VAT|tax].",
         "Before tax [this is|it is] {subtotal}, the tax is {tax}."),
        ("Of this {subtotal} is net and {tax} is tax.", "We charged {subtotal} before tax and {tax} VAT."),
    ),
    ("po_number",): Phrases(
        ("[It refers to|This is for|It belongs to] your [purchase order|PO|order] {po_number}.", "Your PO [was|is] {po_number}."),
        ("You ordered under the purchase order {po_number}.",),
    ),
    ("email",): Phrases(
        ("[Questions?|Any questions?|If you have questions,] [Write|write|mail] to {email}.", "[Contact us at|Our email is|Reach us at] {email}."),
        ("For questions our address is {email}.",),
    ),
    ("phone",): Phrases(
        ("[Call us at|You can call|Our phone number is|Phone:] {phone}.",), ("By phone you reach us at {phone}.",)
    ),
    ("other_date",): Phrases(
        ("The goods were [delivered|shipped|sent] on {other_date}.", "You ordered on {other_date}.", "[Delivery|Service] date: {other_date}."),
        ("Your order reached us on {other_date}.", "We handed the goods over on {other_date}."),
    ),
    ("other_number",): Phrases(
        ("Your customer number is {other_number}.", "[The delivery note|The contract|Your account] is {other_number}.", "(customer no. {other_number})"),
        ("We keep your account under {other_number}.",),
    ),
}  # fmt: skip

TITLES = Phrases(
    ("INVOICE", "Invoice", "# Invoice", "BILL", "Tax invoice", "*** INVOICE ***", "== Invoice ==", "Invoice for your order", "RECHNUNG / INVOICE", "## INVOICE"),
    ("Sales invoice", "--- Invoice ---", "I N V O I C E", "Your invoice", "### Invoice"),
)  # fmt: skip
# Titles that hold the number, instead of a labelled line.
HEADLINES = Phrases(
    ("Invoice {invoice_number}", "**Invoice {invoice_number}** for *{customer}*", "INVOICE {invoice_number}", "# Invoice {invoice_number}", "Invoice no. {invoice_number} for {customer}", "INVOICE          {invoice_number}",
     "Bill {invoice_number}", "Invoice {invoice_number} from {supplier}", "## {supplier}: invoice {invoice_number}", "I N V O I C E     {invoice_number}"),
    ("*Invoice* {invoice_number}", "INVOICE: {invoice_number} for {customer}", "### Invoice number {invoice_number}", "{supplier} - Invoice {invoice_number}"),
)  # fmt: skip
NOISE = Phrases(
    ("Thank you for your [business|order|purchase|trust].", "[Payment|Please pay] by bank transfer[| only].", "We [thank you|look forward] [for working with us|to your next order].",
     "Goods remain our property until paid in full.", "No cash discount.", "Terms: [14|30|60] days net.", "Please [quote|state] the invoice number [when you pay|with your payment].",
     "This document was created by a computer and needs no signature.", "Page 1 of [1|2]", "Late payments are charged [2|5|8]% interest.", "Prices include delivery.",
     "Have a [nice|good] day!", "Delivery was free of charge.", "All prices are final.", "Our office is closed on [Sundays|Fridays]."),
    ("It was a pleasure to serve you.", "We accept bank transfers and cards.", "Returns are possible within 14 days.", "Kept for your tax records.", "We plant a tree for each order.",
     "Please keep this page for your files."),
)  # fmt: skip
SUBJECTS = Phrases(
    ("[Your |Our |New |]invoice[| {invoice_number}]", "Invoice {invoice_number}", "Bill[| attached]", "Payment [request|reminder]", "[Invoice|Bill] from {supplier}"),
    ("A new invoice for you", "{supplier} sends an invoice", "Please pay invoice {invoice_number}"),
)  # fmt: skip


def invoice(draw: Draw) -> Document:
    """An invoice; the summary names number, supplier, total and due date."""
    facts, rows = _values(draw)
    roll = draw.rng.random()
    if roll < 0.34:
        text = _letter(draw, facts, rows)
    elif roll < 0.76:
        text = _sheet(draw, facts, rows)
    else:
        text = _record(draw, facts)
    known = {concept: facts[concept] for concept in NAMES if concept in facts}
    number, supplier, total = facts["invoice_number"], facts["supplier"], facts["total"]
    summary = f"Invoice {number} from {supplier} for {total}"
    key = [number, supplier, total]
    if "due_date" in facts:
        summary += f", due {facts['due_date']}"
        key.append(facts["due_date"])
    return Document(
        "invoice",
        text,
        known,
        common.askable(NAMES, known, text, "invoice_date"),
        summary.rstrip(".") + ".",
        tuple(key),
        names=NAMES,
    )


def _values(draw: Draw) -> tuple[dict[str, str], list[layout.Item]]:
    write = draw.money.write
    while True:
        rows, net = common.order_lines(draw, draw.rng.choice((1, 1, 1, 2, 2, 3)))
        tax = net * draw.rng.choice((6, 7, 8, 10, 19, 20, 21, 25)) // 100
        if side(str(net + tax)) == draw.split:
            break
    facts = {
        "invoice_number": draw.identifier(("INV", "INV", "RE", "R", "F", "BILL", "SI")),
        "supplier": draw.company(),
        "customer": draw.company() if draw.chance(0.6) else draw.person(),
        "total": write(net + tax),
    }
    issued = draw.day()
    optional: tuple[tuple[str, float, Callable[[], str]], ...] = (
        ("invoice_date", 0.88, lambda: draw.write_day(issued)),
        ("due_date", 0.82, lambda: draw.write_day(draw.day(issued))),
        ("po_number", 0.2, lambda: draw.identifier(("PO", "PO", "P", "BE"))),
        ("email", 0.18, draw.email),
        ("phone", 0.12, draw.phone),
        ("other_date", 0.22, draw.date),
        ("other_number", 0.28, lambda: draw.identifier(("C", "K", "DE", "LS", "AC"))),
        ("ship_to", 0.15, lambda: draw.company() if draw.chance(0.5) else draw.person()),
    )
    facts.update({concept: make() for concept, share, make in optional if draw.chance(share)})
    if draw.chance(0.4):
        facts["subtotal"], facts["tax"] = write(net), write(tax)
    return facts, rows


def _pairs(draw: Draw, facts: dict[str, str], concepts: list[str]) -> list[layout.Pair]:
    return common.pairs(draw, LABELS, facts, concepts)


def _noise(draw: Draw, share: float) -> list[str]:
    return [NOISE.pick(draw.rng, draw.split)] if draw.chance(share) else []


def _address(draw: Draw, facts: dict[str, str]) -> list[str]:
    if not draw.chance(0.4):
        return []
    city = draw.city()
    if "city" not in facts:
        facts["city"] = city
    return [draw.street(), f"{draw.postcode()} {city}" if draw.chance(0.7) else city]


def _sheet(draw: Draw, facts: dict[str, str], rows: list[layout.Item]) -> str:
    """Letterhead, details, lines of the order, sums, footer, in a changing order."""
    rng = draw.rng
    parts: list[str] = []
    head = ["invoice_number", "invoice_date", "due_date", "po_number", "other_date", "other_number"]
    if draw.chance(0.55):
        parts.append("\n".join([facts["supplier"]]))
    else:
        head.append("supplier")
    headline = HEADLINES.pick(rng, draw.split) if draw.chance(0.25) else ""
    if headline:
        head.remove("invoice_number")
        if "{supplier}" in headline and "supplier" in head:
            head.remove("supplier")
        parts.insert(rng.randint(0, len(parts)), fill(headline, facts))
    elif draw.chance(0.7):
        parts.insert(rng.randint(0, len(parts)), TITLES.pick(rng, draw.split))
    if "{customer}" in headline:
        pass
    elif draw.chance(0.45):
        label = layout.cased(draw, LABELS["customer"].pick(rng, draw.split))
        parts.append("\n".join([f"{label}:", facts["customer"], *_address(draw, facts)]))
    else:
        head.append("customer")
    rng.shuffle(head)
    pairs = _pairs(draw, facts, head)
    if pairs:
        parts.insert(rng.randint(max(0, len(parts) - 1), len(parts)), layout.block(draw, pairs))
    if "ship_to" in facts:
        label = layout.cased(draw, LABELS["ship_to"].pick(rng, draw.split))
        parts.append(f"{label}: {facts['ship_to']}")
    if draw.chance(0.6):
        parts.append(layout.items(draw, rows))
    parts.append(layout.block(draw, _pairs(draw, facts, ["subtotal", "tax", "total"])))
    foot = ["email", "phone"]
    if any(concept in facts for concept in foot):
        parts.append(layout.block(draw, _pairs(draw, facts, foot)))
    parts += _noise(draw, 0.45)
    return rng.choice(("\n\n", "\n\n", "\n")).join(parts)


def _record(draw: Draw, facts: dict[str, str]) -> str:
    """Nothing but labelled values, in any order."""
    concepts = list(LABELS)
    draw.rng.shuffle(concepts)
    pairs = _pairs(draw, facts, concepts)
    text = layout.block(draw, pairs)
    if draw.chance(0.4):
        text = f"{TITLES.pick(draw.rng, draw.split)}\n{text}"
    return "\n".join([text, *_noise(draw, 0.2)])


def _letter(draw: Draw, facts: dict[str, str], rows: list[layout.Item]) -> str:
    """An e-mail or letter in sentences."""
    rng = draw.rng
    signed = draw.chance(0.5)
    groups: tuple[list[tuple[str, ...]], ...] = (
        [("invoice_number", "invoice_date"), ("customer",), ("total", "due_date")],
        [("invoice_number",), ("invoice_date",), ("customer",), ("total",), ("due_date",)],
        [("invoice_number", "invoice_date"), ("total",), ("due_date",), ("customer",)],
        [("customer",), ("invoice_number",), ("total", "due_date"), ("invoice_date",)],
    )  # fmt: skip
    order = [*rng.choice(groups)]
    for extra in (
        ("subtotal", "tax"),
        ("po_number",),
        ("email",),
        ("phone",),
        ("other_date",),
        ("other_number",),
    ):
        order.insert(rng.randint(1, len(order)), extra)
    if not signed:
        order.insert(rng.randint(1, len(order)), ("supplier",))
    body = common.sentences(draw, PROSE, facts, order, NOISE, LABELS)
    if draw.chance(0.25):
        body += "\n\n" + layout.items(draw, rows)
    facts.pop("ship_to", None)
    signature = facts["supplier"] if signed else None
    if signature and draw.chance(0.25):
        signature = f"{draw.person()}\n{signature}"
    text = common.framed(draw, body, signature)
    if draw.chance(0.3):
        subject = fill(SUBJECTS.pick(rng, draw.split), facts)
        head = f"Subject: {subject}"
        if draw.train and "email" not in facts and draw.chance(0.5):
            facts["email"] = draw.email()
            head = common.mail_head(draw, facts["supplier"], facts["email"], subject)
            if facts["email"] not in head:
                del facts["email"]
        text = f"{head}\n\n{text}"
    return text
