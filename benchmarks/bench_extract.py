# SPDX-License-Identifier: Apache-2.0
"""How many fields of held-out invoices are extracted word for word: `python bench_extract.py`.

Invoices of the built-in model's recipe that it was not trained on. A field counts where the words
that were found are those of the document, blanks aside, or where nothing was found and nothing is
there. Asked without a form, held to the text, and with types where names say what is to be found;
the last two also following several beginnings of an answer side by side.

    python bench_extract.py --invoices 150 --seed 20001
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import finish, header, progress, say, table
from freehold import LLM
from freehold.documents.document import Document
from freehold.documents.fields import schema_of_fields
from freehold.documents.llm_asker import LLMAsker
from freehold.documents.tasks.extract import Extract
from recipes.seedling.documents.invoices import NAMES
from recipes.seedling.evaluate import held_out
from recipes.seedling.settings import EVALUATION_SEED

TYPES = {
    "number": ("subtotal", "tax", "total"), "date": ("invoice_date", "due_date"),
    "id": ("invoice_number", "po_number"), "email": ("email",),
}  # fmt: skip


def typed(name: str) -> str:
    """``name:type``, of a name that a question may call a field by."""
    for kind, concepts in TYPES.items():
        if any(name in NAMES[concept] for concept in concepts):
            return f"{name}:{kind}"
    return name


def words(value: Any) -> str | None:
    """Words with single blanks."""
    return None if value is None else " ".join(str(value).split())


def found(answer: Mapping[str, Any], name: str) -> str | None:
    """What the document says for a field: the words a value was read from, else the value."""
    span = answer["evidence"].get("/" + name.replace("~", "~0").replace("/", "~1"))
    return words(span["quote"] if span else answer["values"].get(name))


def exact(llm: LLM, task_of: Callable[[list[str]], Extract], examples: list[Any]) -> int:
    """Fields that are right; none of a document that is an error."""
    asker, right = LLMAsker(llm), 0
    for example in examples:
        fields = example.facts["fields"]
        text = example.messages[-1]["content"].partition("\n\n")[2]
        (answer,) = task_of(list(fields)).answer(asker, [Document(text, "", "", 0)])
        if answer.value is not None:
            right += sum(found(answer.value, n) == words(v) for n, v in fields.items())
    return right


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="seedling")
    parser.add_argument("--invoices", type=int, default=150)
    parser.add_argument("--seed", type=int, default=EVALUATION_SEED)
    parser.add_argument("--search", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output", help="also write the JSON line here")
    args = parser.parse_args()
    some = held_out("extract", 12 * args.invoices, args.seed)
    invoices = [example for example in some if example.kind == "invoice"][: args.invoices]
    if len(invoices) < args.invoices:
        raise SystemExit(f"bench_extract.py: only {len(invoices)} invoices")
    total = sum(len(example.facts["fields"]) for example in invoices)

    def by_type(fields: list[str], search: int = 1) -> Extract:
        schema = schema_of_fields([typed(name) for name in fields])
        return Extract(schema, True, search=search)

    ways: dict[str, Callable[[list[str]], Extract]] = {
        "without a form": lambda f: Extract(schema_of_fields(f), False),
        "held to the text": lambda f: Extract(schema_of_fields(f), True),
        f"the same, --search {args.search}": lambda f: Extract(
            schema_of_fields(f), True, search=args.search
        ),
        "by type": by_type,
        f"by type, --search {args.search}": lambda f: by_type(f, args.search),
    }
    shares: dict[str, float] = {}
    with LLM(args.model, threads=args.threads) as llm:
        for name, task_of in ways.items():
            shares[name] = exact(llm, task_of, invoices) / total
            progress(f"{name}: {100 * shares[name]:.1f} %")
    rows = [[name, f"{100 * share:.1f} %"] for name, share in shares.items()]
    say(table([f"{len(invoices)} invoices, {total} fields, seed {args.seed}", "exact"], rows))
    finish({**header("extract"), "fields": total, "exact": shares}, args.output)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
